import keras
import numpy as np
import pytest
import tiny

from kadence import classifier, run, train_classifier
from kadence._rate_search import FILES, find_rates, store_test, stored_test
from kadence.range_test import Curve, RangeTest

SWEEP = {"n_steps": 20, "lr_min": 1e-4, "lr_max": 1.0}


@pytest.fixture(scope="module", autouse=True)
def tiny_backbone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "load_backbone", tiny.load_backbone)
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return tiny.write_photos(tmp_path_factory.mktemp("photos"))


def fall(**changes):
    """A test with a clear answer."""
    losses = np.linspace(2.0, 1.0, 40)
    rates = {"current_rates": dict.fromkeys(("group_1", "group_2", "group_3"), 0.1)}
    ratios = {"multipliers": {"group_1": 0.1, "group_2": 0.3, "group_3": 1.0}}
    fields = {"lr_min": 1e-4, "lr_max": 1.0, "n_steps": 40, "per_group": False, **rates, **ratios}
    return RangeTest(**{**fields, "curves": [Curve("all", 0, losses, "end")], **changes})


def test_the_rates_of_the_photos(photos):
    settings = tiny.settings(photos, augment=False)
    test = find_rates(settings, **SWEEP)
    assert test.current_rates == pytest.approx({"group_1": 1e-3, "group_2": 3e-3, "group_3": 1e-2})
    assert test.multipliers == pytest.approx({"group_1": 0.1, "group_2": 0.3, "group_3": 1.0})
    assert test.seed == settings.seed
    assert "3 batches" in test.notes[0]
    assert find_rates(settings, **SWEEP) == test or keras.backend.backend() == "tensorflow"


def test_a_stored_test_comes_back(tmp_path):
    assert stored_test(tmp_path) is None
    store_test(fall(), tmp_path)
    assert stored_test(tmp_path) == fall()
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


def test_a_spoilt_test_is_a_clear_error(tmp_path):
    (tmp_path / "range_test.json").write_text("{")
    with pytest.raises(ValueError, match=r"`range_test.json` must be a range test.*start anew in another folder"):
        stored_test(tmp_path)


@pytest.fixture
def found(monkeypatch):
    """Counts the range tests of runs, and answers for them."""
    calls = []

    def answer(model, batches, seed, callbacks):
        calls.append((seed, list(callbacks)))
        return fall()

    monkeypatch.setattr(run, "lr_range_test", answer)
    return calls


def test_a_run_at_the_rates_that_were_found(photos, tmp_path, found):
    """It is the run at those rates, and a resumed one does not find them again."""
    settings = tiny.settings(photos, augment=False, find_rates=True, cycles=1)
    bar = keras.callbacks.Callback()
    done = train_classifier(settings, tmp_path / "found", find_callbacks=[bar])
    assert found == [(0, [bar])]
    base = fall().suggest().rate
    assert done.rates == pytest.approx((base * 0.1, base * 0.3, base))
    assert stored_test(tmp_path / "found") == fall()
    assert set(tiny.RUN_FILES) | set(FILES) == {path.name for path in (tmp_path / "found").iterdir()}
    given = tiny.settings(photos, augment=False, cycles=1, rates=tuple(done.rates))
    plain = train_classifier(given, tmp_path / "given")
    files = [tiny.weights_of(next((tmp_path / name).glob("backup/*/*.h5"))) for name in ("found", "given")]
    assert list(files[0]) == list(files[1])
    if keras.backend.backend() == "jax":
        assert all(tiny.same(files[0][name], files[1][name]) for name in files[0])
    assert done.accuracy == pytest.approx(plain.accuracy, abs=0.34)
    again = train_classifier(settings, tmp_path / "found", resume=True)
    assert (len(found), again.rates) == (1, done.rates)


def test_no_clear_answer_leaves_no_run(photos, tmp_path, monkeypatch):
    flat = fall(curves=[Curve("all", 0, np.ones(40), "end")])
    monkeypatch.setattr(run, "lr_range_test", lambda *arguments, **settings: flat)
    with pytest.raises(ValueError, match=r"clear answer for every group.*does not fall beyond its noise"):
        train_classifier(tiny.settings(photos, find_rates=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_an_earlier_version_can_be_resumed(photos, tmp_path):
    settings = tiny.settings(photos, augment=False, cycles=1)
    train_classifier(settings, tmp_path / "run")
    description = tmp_path / "run" / "run.json"
    text = description.read_text()
    assert '"find_rates": false' in text
    description.write_text(text.replace('  "find_rates": false,\n', ""))
    train_classifier(settings, tmp_path / "run", resume=True)
