"""Which weights of a model are those of a file: by order, name and shape, and by path where that is not enough."""

import pytest

from kadence._saved_weights import SavedWeight, match

pytestmark = pytest.mark.once


class Weight:
    """What is looked at of a `keras.Variable`."""

    trainable = True

    def __init__(self, path, shape=(2,)):
        self.path, self.name, self.shape = path, path.rpartition("/")[2], shape


def saved(*paths, frozen=(), group=0):
    plain = {path: SavedWeight.of(Weight(path), group).plain() for path in paths}
    return [SavedWeight.from_plain(entry, path not in frozen) for path, entry in plain.items()]


def paths(entries):
    return [entry.path for entry in entries]


def test_a_description_comes_back_from_plain_data():
    entry = SavedWeight.of(Weight("a/kernel", (2, 3)), 1)
    assert entry.plain() == [1, "kernel", [2, 3], "a/kernel"]
    assert SavedWeight.from_plain(entry.plain(), trained=True) == entry
    assert SavedWeight.from_plain([1, "kernel", [2, 3]], trained=False) == SavedWeight(1, "kernel", (2, 3), "", False)
    assert str(entry) == "'kernel' of shape (2, 3)"


def test_names_that_keras_numbers_fit_each_other():
    entry = SavedWeight(0, "variable_2", (2,))
    assert entry.fits(Weight("layer/variable"))
    assert entry.fits(Weight("layer/jax_variable_7"))
    assert not entry.fits(Weight("layer/variable", (3,)))
    assert not SavedWeight(0, "kernel", (2,)).fits(Weight("layer/bias"))


def test_what_trained_is_found_by_order():
    entries = saved("a/kernel", "b/kernel", frozen=["a/kernel"])
    assert paths(match(entries, [Weight("other/kernel")], 1)) == ["b/kernel"]


@pytest.mark.parametrize("number", ["", "_3"])
def test_what_trains_beside_it_is_found_by_its_path(number):
    """Three weights of one shape, two frozen; of these, one trains now."""
    entries = saved("a/kernel", "b/kernel", "c/kernel", frozen=["a/kernel", "b/kernel"])
    found = match(entries, [Weight(f"b{number}/kernel"), Weight("c/kernel")], 1)
    assert paths(found) == ["b/kernel", "c/kernel"]


def test_what_could_be_either_is_an_error():
    entries = [SavedWeight(0, "kernel", (2,), "", trained) for trained in (False, False, True)]
    with pytest.raises(ValueError, match=r"as many trainable variables as in the saved groups, 1\..*compile=False"):
        match(entries, [Weight("x/kernel"), Weight("y/kernel")], 1)
    assert match(entries, [Weight("x/kernel"), Weight("y/kernel"), Weight("z/kernel")], 1) == entries


def test_another_model_is_an_error():
    with pytest.raises(ValueError, match=r"be 'kernel' of shape \(2,\) at position 0.*'bias' of shape"):
        match(saved("a/kernel"), [Weight("a/bias")], 1)
    with pytest.raises(ValueError, match="be the index of one of the 1 saved groups"):
        match(saved("a/kernel", group=1), [Weight("a/kernel")], 1)
