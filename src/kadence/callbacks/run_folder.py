"""RunFolder: what a run leaves on disk at the end of every epoch, each file whole."""

import csv
import io
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence.records import write_text

Row = dict[str, float]


class RunFolder(keras.callbacks.Callback):
    """Writes history and model of each epoch into a folder, and goes on where the folder ends.

    At the end of an epoch it writes, in this order: `history.csv`, a row per epoch; `model.keras`, if the epoch is the
    best so far; `backup/`, by Keras's BackupAndRestore, which makes the epoch count as finished. Each is written under
    another name and renamed, so that a kill at any moment leaves a folder that can be resumed.

    Args:
        folder: The run's folder. It exists; if it holds a backup, the first `fit` goes on after the epoch of that
            backup, and further ones where the one before ended.
        monitor: Metric in the logs whose largest value marks the best epoch, such as "val_accuracy"; the smaller
            "val_loss" decides between equal ones. None keeps the last epoch.
        keep_model: Whether to write `model.keras`.

    Attributes:
        rows: The history, a dict per finished epoch: "epoch" from 1, "seconds", and the logs.
    """

    def __init__(self, folder: str | os.PathLike[str], monitor: str | None = None, keep_model: bool = True):
        super().__init__()
        self.model: Any
        self.folder = Path(folder)
        self.monitor = monitor
        self.keep_model = keep_model
        self.rows: list[Row] = read_history(self.folder / "history.csv")
        self._goes_on = False

    @property
    def best(self) -> Row | None:
        """The row of the epoch that `model.keras` holds, or None before the first."""
        return best_row(self.rows, self.monitor)

    @property
    def epochs_done(self) -> int:
        """Number of epochs that the newest backup counts as finished."""
        return max((int(backup.name.rpartition("_")[2]) for backup in self._backups()), default=0)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Restore the newest backup, if there is one, in the first `fit`: weights, optimizer and epoch."""
        if self._goes_on:
            return
        self._goes_on = True
        finished = self.epochs_done
        if finished:
            self._restore(self._backups()[-1])
            if len(self.rows) < finished:
                rule = f"have a row for each of the {finished} finished epochs"
                raise ValueError(_checks.sentence("history.csv", rule, len(self.rows), "Start anew in another folder."))
        self.rows = self.rows[:finished]

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the history, the model if it is the best, and the backup."""
        seconds = round(time.perf_counter() - self._began, 2)
        row: Row = {"epoch": epoch + 1, "seconds": seconds, **as_numbers(logs)}
        self.rows.append(row)
        write_text(self.folder / "history.csv", history_text(self.rows))
        if self.keep_model and self.best is row:
            save_model(self.model, self.folder / "model.keras")
        self._write_backup(epoch)

    def _backups(self) -> list[Path]:
        return sorted((self.folder / "backup").glob("epoch_*[0-9]"))

    def _restore(self, backup: Path) -> None:
        """Restore weights, optimizer and epoch; Keras passes over a missing file in silence."""
        try:
            for name in ("latest.weights.h5", "training_metadata.json"):
                (backup / name).stat()
            self._keras_backup(backup).on_train_begin()
        except (OSError, ValueError, KeyError) as error:
            rule = "be a whole backup of this model"
            remedy = f"{error}. Start anew in another folder."
            raise ValueError(_checks.sentence("backup", rule, str(backup), remedy)) from error

    def _keras_backup(self, folder: Path) -> keras.callbacks.BackupAndRestore:
        backup = keras.callbacks.BackupAndRestore(str(folder), delete_checkpoint=False)
        backup.set_model(self.model)
        return backup

    def _write_backup(self, epoch: int) -> None:
        older = self._backups()
        part = self.folder / "backup" / "part"
        shutil.rmtree(part, ignore_errors=True)
        self._keras_backup(part).on_epoch_end(epoch)
        part.rename(part.with_name(f"epoch_{epoch + 1:05d}"))
        for backup in older:
            shutil.rmtree(backup)


def as_numbers(logs: Mapping[str, Any] | None) -> Row:
    """The logs of an epoch as numbers; of a metric with several values, such as one per class, their mean.

    Args:
        logs: What Keras gives a callback.

    Returns:
        Dict of floats.
    """
    return {name: float(np.mean(value)) for name, value in (logs or {}).items()}


def save_model(model: keras.Model, path: Path) -> None:
    """Save a model whole or not at all: under another name, then renamed.

    Args:
        model: The model.
        path: File that ends in ".keras"; an existing one is replaced.
    """
    part = path.with_name(f"{path.stem}.part.keras")
    try:
        model.save(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def best_row(rows: Sequence[Row], monitor: str | None) -> Row | None:
    """The row with the largest value of a metric, the smaller validation loss deciding between equal ones.

    Args:
        rows: The history, a dict per epoch.
        monitor: Name of the metric; None for the last row.

    Returns:
        The row, or None if there are none.
    """
    if not rows or monitor is None:
        return rows[-1] if rows else None
    return max(rows, key=lambda row: (row[monitor], -row.get("val_loss", 0.0)))


def read_history(path: Path) -> list[Row]:
    """The rows of a `history.csv`.

    Args:
        path: The file.

    Returns:
        A dict per epoch; an empty list if there is no file.

    Raises:
        ValueError: If the file holds anything else.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        try:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
        except (ValueError, TypeError, csv.Error) as error:
            raise ValueError(_checks.sentence("history.csv", "hold numbers", str(path), f"{error}.")) from error


def history_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of a `history.csv`, with a column for whatever a row has.

    Args:
        rows: The history, a dict per epoch.

    Returns:
        CSV text.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "epoch": int(row["epoch"])} for row in rows)
    return text.getvalue()
