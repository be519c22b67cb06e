"""What a fine-tuning gives back: its text, its pictures, its files, its snapshots."""

import csv

import keras
import models
import numpy as np
import pytest
import tiny

import kadence
from kadence import FineTuneResult
from kadence._job import Row
from kadence.callbacks import SnapshotSaver
from kadence.phases import FindPhase, HeadPhase, TrainPhase
from kadence.range_test import Curve, RangeTest
from kadence.records import RateRecord

HEAD: Row = {"phase": "head", "epoch": 1, "seconds": 0.5, "loss": 1.5, "top": 0.25, "learning_rate_group_1": 0.0}
TRAIN: Row = {
    "phase": "train",
    "epoch": 2,
    "seconds": 0.25,
    "loss": 1.25,
    "val_loss": 2.0,
    "learning_rate_group_1": 0.1,
}
TEST = RangeTest(1e-4, 1.0, 20, False, {"a": 0.1}, {"a": 1.0}, [Curve("all", 0, np.linspace(2.0, 1.0, 20), "end")])
NOTHING = RateRecord(np.zeros(0), {}, np.zeros(0))
FILES = {"model.keras", "history.csv", "rates.json", "rates.png", "curves.png", "range_test.json", "range_test.png"}


def result(**changes):
    model = models.sequential()
    groups = kadence.split(model, ["b", "c"])
    rates = {name: np.array([0.1, 0.2, 0.3]) for name in groups.names}
    fields = {
        "model": model,
        "groups": groups,
        "phases": (HeadPhase(1), FindPhase(), TrainPhase(1)),
        "rates": (0.0, 0.125, 0.5),
        "history": (HEAD, TRAIN),
        "record": RateRecord(np.arange(3), rates, np.array([1.5, 1.25, 1.0])),
        "range_test": TEST,
        "best_epoch": 2,
        "seconds": 0.75,
    }
    return FineTuneResult(**{**fields, **changes})


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_str_tells_the_run():
    assert str(result(notes=("One note.", "Another."))).splitlines() == [
        *(f"phase {phase}" for phase in result().phases),
        "peak rates: group_1 0, group_2 0.125, group_3 0.5",
        "epoch 2: loss 1.2500, val_loss 2.0000",
        "best epoch: 2",
        "One note.",
        "Another.",
    ]


def test_str_without_validation_rates_or_epochs():
    assert str(result(best_epoch=None)).endswith("best epoch: unknown, as there is no validation data")
    without_rates = str(result(phases=(HeadPhase(1),), rates=(), history=(HEAD,), range_test=None))
    assert without_rates.splitlines()[1:] == ["epoch 1: loss 1.5000, top 0.2500", "best epoch: 2"]
    found = str(result(phases=(FindPhase(),), history=(), record=NOTHING, best_epoch=None)).splitlines()
    assert [line.partition(" ")[0] for line in found] == ["phase", "peak", "best"]
    assert str(result(phases=(), rates=(), history=(), record=NOTHING)) == "best epoch: 2"


def test_plot_draws_rates_and_loss():
    left, right = result().plot()
    assert [line.get_label() for line in left.lines] == ["group_1", "group_2", "group_3"]
    np.testing.assert_array_equal(left.lines[0].get_ydata(), [0.1, 0.2, 0.3])
    assert [line.get_label() for line in right.lines] == ["train", "validation"]
    np.testing.assert_array_equal(right.lines[0].get_xdata(), [1, 2])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [1.5, 1.25])
    np.testing.assert_array_equal(right.lines[1].get_ydata(), [np.nan, 2.0])


def test_plot_draws_what_only_an_earlier_phase_has():
    rows = ({**HEAD, "val_loss": 1.0}, {"phase": "train", "epoch": 2, "seconds": 0.5, "loss": 1.25})
    _, right = result(history=rows).plot()
    np.testing.assert_array_equal(right.lines[1].get_ydata(), [1.0, np.nan])


def test_plot_on_axes_that_are_given():
    figures = pytest.importorskip("matplotlib.figure")
    axes = figures.Figure().subplots(1, 2)
    drawn = result().plot(axes)
    assert [*drawn] == [*axes]
    assert all(ax.lines for ax in axes)


def test_plot_of_no_step_is_a_clear_error():
    with pytest.raises(ValueError, match="`record` must hold at least one step"):
        result(history=(), record=NOTHING).plot()


@pytest.mark.parametrize("exists", [False, True])
def test_save_writes_everything(tmp_path, exists):
    folder = tmp_path / "deep" / "saved"
    if exists:
        folder.mkdir(parents=True)
    done = result()
    done.save(str(folder))
    assert names_in(folder) == FILES
    loaded = keras.saving.load_model(folder / "model.keras")
    assert all(map(tiny.same, done.model.get_weights(), loaded.get_weights()))
    assert RateRecord.from_json((folder / "rates.json").read_text(encoding="utf-8")) == done.record
    assert RangeTest.from_json((folder / "range_test.json").read_text(encoding="utf-8")) == TEST


def test_the_history_file_has_the_columns_of_all_phases(tmp_path):
    result(range_test=None).save(tmp_path)
    assert names_in(tmp_path) == FILES - {"range_test.json", "range_test.png"}
    with (tmp_path / "history.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == [*HEAD, "val_loss"]
    assert (first["phase"], first["loss"], first["top"], first["val_loss"]) == ("head", "1.5", "0.25", "")
    assert (second["phase"], second["loss"], second["top"], second["val_loss"]) == ("train", "1.25", "", "2.0")


def test_save_without_a_step_draws_nothing(tmp_path):
    result(history=(), record=NOTHING, range_test=None).save(tmp_path)
    assert names_in(tmp_path) == {"model.keras", "history.csv", "rates.json"}


def test_save_refuses_a_folder_that_holds_something(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    before = tiny.snapshot(tmp_path)
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(FileExistsError, match=r"^`folder` must be a new or empty folder\. Received: folder='"):
            result().save(folder)
    assert tiny.snapshot(tmp_path) == before


def test_write_replaces_what_is_there(tmp_path):
    """As the end of a run does, which may be reached twice."""
    done = result()
    done.write(tmp_path)
    before = tiny.snapshot(tmp_path)
    assert names_in(tmp_path) == FILES
    result(model=done.model, history=(HEAD,)).write(tmp_path)
    now = tiny.snapshot(tmp_path)
    assert set(now) == set(before)
    assert now[tmp_path / "history.csv"] != before[tmp_path / "history.csv"]
    assert now[tmp_path / "rates.json"] == before[tmp_path / "rates.json"]


def test_ensemble_without_snapshots(tmp_path):
    rule = r"^`snapshots` must be kept by the run\. .* Give `fine_tune` a number of `snapshots` and a `run_dir`\.$"
    for folder in (None, tmp_path):
        with pytest.raises(FileNotFoundError, match=rule):
            result(run_dir=folder).ensemble()
    (tmp_path / "snapshots").mkdir()
    with pytest.raises(FileNotFoundError):
        result(run_dir=tmp_path).ensemble()


def test_ensemble_of_the_snapshots_of_the_run(tmp_path):
    done = result(run_dir=tmp_path)
    jit = "auto" if keras.backend.backend() == "jax" else False
    done.model.compile(keras.optimizers.SGD(kadence.WarmRestarts(0.1, 2)), "mse", jit_compile=jit)
    x = np.ones((4, 2), "float32")
    saver = SnapshotSaver(tmp_path / "snapshots")
    done.model.fit(x, x, batch_size=2, epochs=2, verbose=0, callbacks=[saver])
    ensemble = done.ensemble()
    assert len(ensemble) == 2
    assert ensemble.model is done.model
    assert ensemble.predict(x).shape == (4, 2)
