"""SnapshotSaver: the weights at the end of every cycle, or of every epoch of a tail."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from kadence import _checks
from kadence._snapshot_files import SUFFIX, Snapshot, read_index, save_weights, write_index
from kadence.callbacks._steps import StepClock, check_single_steps, next_cycle_end, schedule_of


class SnapshotSaver(keras.callbacks.Callback):
    """Keeps the weights at the last step of every cycle of the schedule, the last cycle included.

    Cycles are counted in optimizer steps: where one ends within an epoch, the weights of exactly that step are kept,
    and only then is the device asked for them. A schedule without cycles, or a run that ends before its first cycle
    does, leaves one snapshot of its end. For an average over the tail of a run, keep every epoch of it instead.
    Where training goes on after `fit`, the next snapshot takes the place of one that was kept because `fit` ended.

    The folder holds `snapshot_0001.weights.h5`, ..., which `model.load_weights` loads too, and `snapshots.json`, which
    lists them with step and epoch. Each is written under another name and renamed. A run that is killed and resumed
    leaves the same files; put this callback before the one that writes the backup, so that no finished epoch lacks its
    snapshot. It reads where training begins at the first epoch, after every backup is restored.

    Args:
        folder: Folder of the snapshots; it is made when the first is written.
        every_epochs: Keep the weights at the end of every n-th epoch and of the last, instead of every cycle. Integer
            >= 1, in epochs, or None.
        from_epoch: Number of the first epoch that counts for `every_epochs`, from 1. Integer >= 1, in epochs.
        resume: Whether snapshots that are in the folder, of steps that are still to come, are of this run and are
            written again. If False, they are an error.

    Attributes:
        snapshots: What the folder lists: of each, `file`, `step` (optimizer updates done), `epoch` (from 1), and
            `provisional`, whether it was kept because `fit` ended.

    Raises:
        ValueError: If an argument is out of range; from `fit`, if the optimizer has no `Schedule` and `every_epochs`
            is not given, or `steps_per_execution` is not 1.
        TypeError: If an argument has the wrong type.
        FileExistsError: From `fit`, before the first step, if the folder has snapshots of a later step.

    Example:
        >>> model.fit(x, y, epochs=7, callbacks=[kadence.SnapshotSaver("snapshots")])
        >>> ensemble = kadence.SnapshotEnsemble.load("snapshots", model)

    Source:
        Huang et al. 2017, Snapshot Ensembles, section 3, arXiv:1704.00109; Izmailov et al. 2018, arXiv:1803.05407.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every_epochs: int | None = None,
        from_epoch: int = 1,
        resume: bool = False,
    ):
        super().__init__()
        self.model: Any
        self.params: dict[str, Any]
        self.folder = Path(folder)
        self.every_epochs = every_epochs
        if every_epochs is not None:
            self.every_epochs = _checks.integer("every_epochs", every_epochs, minimum=1, unit="in epochs")
        self.from_epoch = _checks.integer("from_epoch", from_epoch, minimum=1, unit="in epochs")
        self.resume = _checks.boolean("resume", resume)
        self.snapshots: list[Snapshot] = []
        self._clock = StepClock()
        self._begun = False
        self._end: int | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Forget the run before."""
        self._begun, self._end = False, None

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Look up where training begins, and where the next cycle ends."""
        self._begin()
        self._epoch = epoch + 1
        self._find_end(self._clock.read(self.model.optimizer))

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Keep the weights if the batch before was the last of a cycle."""
        if self._end is None or self._clock.done(batch) <= self._end:
            return
        step = self._clock.read(self.model.optimizer, batch)
        if step > self._end:
            self._keep(step)
            self._find_end(step)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Keep the weights if a cycle ends with the epoch, or the epoch is one to be kept."""
        step = self._clock.read(self.model.optimizer)
        if self.every_epochs is None:
            wanted = self._end is not None and step > self._end
        else:
            since = self._epoch - self.from_epoch
            wanted = since >= 0 and (since % self.every_epochs == self.every_epochs - 1)
        if wanted:
            self._keep(step)
            self._end = None

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keep the weights of the last epoch, or those of a run without the end of a cycle."""
        self._begin()
        if self.every_epochs is not None or all(snapshot.provisional for snapshot in self.snapshots):
            self._keep(self._clock.read(self.model.optimizer), provisional=True)

    def _begin(self) -> None:
        if self._begun:
            return
        self._epoch = (self.params or {}).get("epochs") or 0
        step = self._clock.read(self.model.optimizer)
        if self.every_epochs is None:
            schedule_of(self.model.optimizer, "Give `every_epochs` to keep the weights of epochs.")
            check_single_steps(self.model)
        listed = read_index(self.folder)
        kept = [snapshot for snapshot in listed if snapshot.step <= step]
        names = {snapshot.file for snapshot in kept}
        others = [path for path in self.folder.glob(f"snapshot_*{SUFFIX}") if path.name not in names]
        if others and not self.resume:
            rule = f"hold no snapshots of steps after {step}, where this training begins"
            remedy = "Choose another folder, or give `resume=True` if they are of this run."
            raise FileExistsError(_checks.sentence("folder", rule, str(self.folder), remedy))
        if len(kept) < len(listed):
            write_index(self.folder, kept)
        for path in others:
            path.unlink()
        self.snapshots, self._begun = kept, True

    def _find_end(self, step: int) -> None:
        if self.every_epochs is None and (self._end is None or step > self._end):
            self._end = next_cycle_end(schedule_of(self.model.optimizer, ""), step)

    def _keep(self, step: int, provisional: bool = False) -> None:
        if self.snapshots and self.snapshots[-1].step == step:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = [snapshot for snapshot in self.snapshots if not snapshot.provisional]
        snapshot = Snapshot(f"snapshot_{len(kept) + 1:04d}{SUFFIX}", step, self._epoch, provisional)
        save_weights(self.model, self.folder / snapshot.file)
        self.snapshots = [*kept, snapshot]
        write_index(self.folder, self.snapshots)
