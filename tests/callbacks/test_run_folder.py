import json
import math
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from kadence.callbacks import RunFolder, run_folder, save_model
from kadence.callbacks.run_folder import best_row, read_history

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def new_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="dense")])
    model.compile(keras.optimizers.Adam(0.1), loss="mse")
    return model


class Scores(keras.callbacks.Callback):
    """Puts given validation scores into the logs, and keeps the kernel of each epoch."""

    def __init__(self, accuracies, losses=None):
        super().__init__()
        self.accuracies, self.losses, self.kernels = accuracies, losses or [1.0] * len(accuracies), {}

    def on_epoch_end(self, epoch, logs=None):
        logs.update(val_accuracy=self.accuracies[epoch], val_loss=self.losses[epoch])
        self.kernels[epoch + 1] = self.model.get_weights()[0]


def fit(folder, epochs, scores, monitor="val_accuracy", model=None):
    model = model or new_model()
    callback = RunFolder(folder, monitor)
    model.fit(X, X[:, :1], 4, epochs, 0, [scores, callback], shuffle=False)
    return callback


def kernel(folder):
    return keras.saving.load_model(folder / "model.keras").get_weights()[0]


def names(folder):
    return {path.name for path in folder.iterdir()}


# The best epoch


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [
        ([0.5, 0.7, 0.6], [1.0, 1.0, 0.1], 2),
        ([0.5, 0.7, 0.7, 0.7, 0.6], [1.0, 0.9, 0.5, 0.8, 0.1], 3),
        ([0.7, 0.7], [0.5, 0.5], 1),
        ([0.0], [9.0], 1),
        ([0.2, 0.9], [math.inf, 5.0], 2),
    ],
)
def test_best_row(accuracies, losses, best):
    rows = [
        {"epoch": i + 1.0, "val_accuracy": a, "val_loss": v}
        for i, (a, v) in enumerate(zip(accuracies, losses, strict=True))
    ]
    assert best_row(rows, "val_accuracy") is rows[best - 1]
    assert best_row(rows, None) is rows[-1]


def test_best_row_of_nothing():
    assert best_row([], "val_accuracy") is None
    assert best_row([], None) is None


def test_best_row_without_validation_loss():
    rows = [{"accuracy": 0.1}, {"accuracy": 0.3}, {"accuracy": 0.3}]
    assert best_row(rows, "accuracy") is rows[1]


def test_model_keras_holds_the_best_epoch(tmp_path):
    scores = Scores([0.5, 0.7, 0.7, 0.7, 0.6], [1.0, 0.9, 0.5, 0.8, 0.1])
    callback = fit(tmp_path, 5, scores)
    np.testing.assert_array_equal(kernel(tmp_path), scores.kernels[3])
    assert callback.best["epoch"] == 3
    assert [row["epoch"] for row in callback.rows] == [1, 2, 3, 4, 5]


def test_without_a_metric_the_last_epoch_is_kept(tmp_path):
    scores = Scores([0.9, 0.1])
    assert fit(tmp_path, 2, scores, monitor=None).best["epoch"] == 2
    np.testing.assert_array_equal(kernel(tmp_path), scores.kernels[2])


def test_the_best_epoch_of_before_is_known_after_resuming(tmp_path):
    whole = Scores([0.1, 0.9, 0.3])
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
    fit(tmp_path / "whole", 3, whole)
    fit(tmp_path / "resumed", 2, whole)
    resumed = Scores([0.1, 0.9, 0.3])
    callback = fit(tmp_path / "resumed", 3, resumed)
    assert list(resumed.kernels) == [3], "only the missing epoch is trained"
    np.testing.assert_array_equal(resumed.kernels[3], whole.kernels[3])
    assert (callback.best["epoch"], len(callback.rows)) == (2, 3)
    np.testing.assert_array_equal(kernel(tmp_path / "resumed"), kernel(tmp_path / "whole"))


# What is on disk


def test_files_after_every_epoch(tmp_path):
    fit(tmp_path, 2, Scores([0.1, 0.2]))
    assert names(tmp_path) == {"history.csv", "model.keras", "backup"}
    assert names(tmp_path / "backup") == {"epoch_00002"}
    meta = json.loads((tmp_path / "backup" / "epoch_00002" / "training_metadata.json").read_text(encoding="utf-8"))
    assert meta["epoch"] == 2


def test_history_round_trip(tmp_path):
    values = [0.1 + 0.2, 1e-300, 123456789.123456789, math.inf]
    callback = fit(tmp_path, 4, Scores([0.1, 0.2, 0.3, 0.4], values))
    assert read_history(tmp_path / "history.csv") == callback.rows
    assert [row["val_loss"] for row in callback.rows] == values
    text = (tmp_path / "history.csv").read_bytes().decode()
    header, *lines = text.splitlines()
    assert header.split(",") == ["epoch", "seconds", "loss", "val_accuracy", "val_loss"]
    assert [line.split(",")[0] for line in lines] == ["1", "2", "3", "4"]
    assert "\r" not in text


def test_history_with_a_column_that_comes_later(tmp_path):
    path = tmp_path / "history.csv"
    rows = [{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.25, "new": 3.0}]
    path.write_text(run_folder.history_text(rows), "utf-8")
    assert read_history(path) == rows


def test_no_history(tmp_path):
    assert read_history(tmp_path / "history.csv") == []


def test_save_model_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path, model = tmp_path / "model.keras", new_model()
    save_model(model, path)
    before = path.read_bytes()

    def save(self, part):
        Path(part).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Sequential, "save", save)
    with pytest.raises(KeyboardInterrupt):
        save_model(model, path)
    assert path.read_bytes() == before
    assert names(tmp_path) == {"model.keras"}


# Killed at a bad moment


class KilledError(BaseException):
    """What nothing catches."""


def killed(*arguments, **options):
    raise KilledError


def finish_as_if_never_killed(folder, tmp_path):
    (tmp_path / "whole").mkdir()
    whole, resumed = Scores([0.1, 0.2, 0.3]), Scores([0.1, 0.2, 0.3])
    fit(tmp_path / "whole", 3, whole)
    callback = fit(folder, 3, resumed)
    np.testing.assert_array_equal(resumed.kernels[3], whole.kernels[3])
    assert [row["epoch"] for row in callback.rows] == [1, 2, 3]
    assert names(folder) == {"history.csv", "model.keras", "backup"}
    assert names(folder / "backup") == {"epoch_00003"}
    return list(resumed.kernels)


def start(folder, monkeypatch, target, name, replacement):
    folder.mkdir()
    fit(folder, 1, Scores([0.1]))
    with monkeypatch.context() as patch:
        patch.setattr(target, name, replacement)
        with pytest.raises(KilledError):
            fit(folder, 3, Scores([0.1, 0.2, 0.3]))


def test_before_the_backup_is_renamed(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    start(folder, monkeypatch, Path, "rename", killed)
    assert names(folder / "backup") == {"epoch_00001", "part"}
    assert finish_as_if_never_killed(folder, tmp_path) == [2, 3]


def test_before_the_older_backup_is_removed(tmp_path, monkeypatch):
    folder, rmtree = tmp_path / "run", shutil.rmtree

    def killed_at_a_backup(path, **options):
        return killed() if Path(path).name.startswith("epoch_") else rmtree(path, **options)

    start(folder, monkeypatch, run_folder.shutil, "rmtree", killed_at_a_backup)
    assert names(folder / "backup") == {"epoch_00001", "epoch_00002"}
    (folder / "backup" / "epoch_00001" / "latest.weights.h5").unlink()  # it was half removed
    assert finish_as_if_never_killed(folder, tmp_path) == [3]


def test_while_the_history_is_written(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    start(folder, monkeypatch, Path, "replace", killed)
    assert len(read_history(folder / "history.csv")) == 1
    assert finish_as_if_never_killed(folder, tmp_path) == [2, 3]


def test_strangers_in_the_backup_folder_do_no_harm(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    fit(folder, 2, Scores([0.1, 0.2]))
    for name in (".DS_Store", "epoch_old", "notes.txt"):
        (folder / "backup" / name).write_text("", "utf-8")
    scores = Scores([0.1, 0.2, 0.3])
    assert len(fit(folder, 3, scores).rows) == 3
    assert list(scores.kernels) == [3]


@pytest.mark.parametrize("missing", ["latest.weights.h5", "training_metadata.json"])
def test_an_incomplete_backup_is_an_error_and_no_new_start(tmp_path, missing):
    # Keras's BackupAndRestore passes over a missing file in silence, and begins with epoch 1.
    fit(tmp_path, 2, Scores([0.1, 0.2]))
    (tmp_path / "backup" / "epoch_00002" / missing).unlink()
    scores = Scores([0.1, 0.2, 0.3])
    with pytest.raises((ValueError, OSError), match="backup"):
        fit(tmp_path, 3, scores)
    assert scores.kernels == {}
