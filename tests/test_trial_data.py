"""The data of a trial: every row once an epoch, in an order of the seed, as often as one likes."""

import fine_tuning
import keras
import numpy as np
import pytest
import tiny

from kadence._trial_data import ArrayBatches, Augmented, Data
from kadence.data import ImageBatches, scan_folder

X, Y = np.arange(10.0), np.arange(10) % 2


class Loader:
    """Like a data loader of another library: a length, an iterator, another order each time."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return 5

    def __iter__(self):
        order = self.rng.permutation(10)
        return iter([(X[order[i : i + 2]], Y[order[i : i + 2]]) for i in range(0, 10, 2)])


def rows(batches):
    return np.concatenate([batches[index][0] for index in range(len(batches))])


def test_each_epoch_has_the_order_of_its_seed():
    batches = Data("train", (X, Y), 4).batches(seed=3)
    assert len(batches) == 3
    for epoch in (0, 5, 0):
        batches.set_epoch(epoch)
        np.testing.assert_array_equal(rows(batches), X[np.random.default_rng([3, epoch]).permutation(10)])
    np.testing.assert_array_equal(rows(Data("test", (X, Y), 4).batches()), X)


def test_several_inputs_and_weights_stay_together():
    x = {"a": X, "b": X.astype(np.uint8)[:, None]}
    inputs, y, weight = Data("train", (x, Y, X), 10).batches(seed=0)[0]
    np.testing.assert_array_equal(inputs["a"], inputs["b"][:, 0])
    np.testing.assert_array_equal(inputs["a"], weight)
    np.testing.assert_array_equal(inputs["a"] % 2, y)
    assert inputs["b"].dtype == np.float32


def test_photos_are_taken_as_arrays_or_as_they_are(tmp_path):
    folder = scan_folder(tiny.write_photos(tmp_path, n=2))
    held = ImageBatches(folder, 32, 2, shuffle=False)
    streamed = ImageBatches(folder, 32, 2, shuffle=True, memory_limit_bytes=0)
    kept, passed = Data("train", held, 99), Data("train", streamed, 99)
    assert isinstance(kept.batches(1), ArrayBatches)
    assert len(kept) == len(passed) == 3
    first, second = kept.batches(7), passed.batches(7)
    assert second is not streamed
    for batches in (first, second):
        batches.set_epoch(2)
    np.testing.assert_array_equal(first[1][0], second[1][0])
    assert streamed.seed == 0
    assert kept.digests()[0] == Data("train", ImageBatches(folder, 32, 2, shuffle=False), 1).digests()[0]
    assert str(folder.paths[1]) in kept.label(1)
    assert kept.n_rows == passed.n_rows == 6


@pytest.mark.parametrize("memory", [None, 0])
def test_images_are_shuffled_by_the_seed_whether_they_fit_into_memory_or_not(tmp_path, memory):
    """As `kadence compare` makes them: in the order of the folder, by class."""
    folder = scan_folder(tiny.write_photos(tmp_path, n=3))
    limit = {} if memory is None else {"memory_limit_bytes": memory}
    batches = Data("train", ImageBatches(folder, 32, 4, shuffle=False, **limit), 4).batches(seed=7)
    for epoch in (0, 3):
        batches.set_epoch(epoch)
        order = np.random.default_rng([7, epoch]).permutation(9)
        labels = np.concatenate([batches[index][1] for index in range(len(batches))])
        np.testing.assert_array_equal(labels, np.asarray(folder.labels)[order])


def test_a_dataset_has_its_own_batches_and_may_augment():
    assert Data("train", (X, Y), 4).batch_rows == 4
    assert Data("train", (X, Y), 4).is_same_each_time
    assert Data("train", Loader(), 4).batch_rows == 2
    assert not Data("train", Loader(), 4).is_same_each_time


def test_digests_know_content_not_order():
    rows_of, whole = Data("train", (X, Y), 4).digests()
    assert len(set(rows_of)) == 10
    assert Data("other", (X.copy(), Y), 3).digests() == (rows_of, whole)
    assert Data("train", (X, 1 - Y), 4).digests()[1] != whole
    assert Data("train", (X, 1 - Y), 4).digests()[0] == rows_of
    loader = Data("train", Loader(), 4)
    assert loader.digests()[1] == loader.digests()[1]
    assert loader.n_rows == Data("train", ({"a": X}, Y), 4).n_rows == 10


@pytest.mark.parametrize("value", [None, 3, "xy", X, {"x": X}, iter([(X, Y)]), (X,), (X, "text", X, X), (3, 4)])
def test_what_cannot_be_gone_through_again_is_refused(value):
    with pytest.raises(TypeError, match="`train` must be arrays"):
        Data("train", value, 4)


@pytest.mark.parametrize("value", [(X, Y[:9]), (X[:0], Y[:0])])
def test_arrays_that_do_not_fit_are_refused(value):
    with pytest.raises(ValueError, match="as many rows in each array, at least one"):
        Data("train", value, 4)


def test_the_first_rows():
    assert Data("train", (X, Y), 4).first(2)[0].tolist() == [0.0, 1.0]


def test_an_augmented_batch_follows_from_seed_epoch_and_place():
    noise = keras.layers.GaussianNoise(1.0)

    def drawn(seed, epoch, index):
        batches = Augmented(ArrayBatches(fine_tuning.data(), 20, seed=0), noise, seed)
        batches.set_epoch(epoch)
        return batches[index]

    x, y = drawn(1, 2, 0)
    again, labels = drawn(1, 2, 0)
    assert tiny.same(x, again)
    assert tiny.same(y, labels)
    assert x.shape == (20, fine_tuning.SIZE, fine_tuning.SIZE, 3)
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)):
        assert not tiny.same(x, drawn(*other)[0]), other
    assert len(Augmented(ArrayBatches(fine_tuning.data(), 20), noise, 0)) == 3
