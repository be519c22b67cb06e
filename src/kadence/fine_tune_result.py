"""FineTuneResult: what came of a fine-tuning, with its history and pictures."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kadence import _checks
from kadence._job import Row
from kadence._rate_search import store_test
from kadence.callbacks import history_text, save_model
from kadence.ensemble import SnapshotEnsemble
from kadence.groups import LayerGroups
from kadence.phases import Phase
from kadence.plots import plot_history, plot_rates, save_run_pictures
from kadence.range_test import RangeTest
from kadence.records import RateRecord, new_folder, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class FineTuneResult:
    """What came of a fine-tuning, from `kadence.fine_tune`.

    Args:
        model: The model, with the weights of the last epoch.
        groups: Its layer groups; the last is the head.
        phases: The phases, in their order.
        rates: Peak rate of each group in the last phase. Floats, one per group.
        history: A dict for each epoch: "phase", "epoch" from 1 over all phases, "seconds", and the metrics.
        record: What every step was trained with, over all phases. A group that `unfreeze_every` lets join later has
            the rate that it would be trained with.
        range_test: The range test, or None if the rates were given.
        best_epoch: The epoch with the lowest validation loss, from 1; None without validation data.
        seconds: Time of all of it, that of a part before it was resumed not included, in seconds.
        notes: Sentences about what went another way than asked for.
        run_dir: The run folder, or None.
    """

    model: Any
    groups: LayerGroups
    phases: tuple[Phase, ...]
    rates: tuple[float, ...]
    history: tuple[Row, ...]
    record: RateRecord
    range_test: RangeTest | None
    best_epoch: int | None
    seconds: float
    notes: tuple[str, ...] = ()
    run_dir: Path | None = None

    def __str__(self) -> str:
        lines = [f"phase {phase}" for phase in self.phases]
        if self.rates:
            pairs = zip(self.groups.names, self.rates, strict=True)
            lines.append(f"peak rates: {', '.join(f'{name} {rate:.3g}' for name, rate in pairs)}")
        for row in self.history[-1:]:
            values = {k: v for k, v in row.items() if isinstance(v, float) and not k.startswith("learning_rate")}
            shown = ", ".join(f"{k} {v:.4f}" for k, v in values.items() if k != "seconds")
            lines.append(f"epoch {len(self.history)}: {shown}")
        best = "unknown, as there is no validation data" if self.best_epoch is None else str(self.best_epoch)
        return "\n".join([*lines, f"best epoch: {best}", *self.notes])

    def plot(self, axes: "Sequence[Axes] | None" = None) -> "Sequence[Axes]":
        """Draw the rates over the steps of all phases, and the loss over the epochs.

        Args:
            axes: Two matplotlib axes, or None for new ones.

        Returns:
            The two axes.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If no step was trained.
        """
        if axes is None:
            figures = _checks.extra("matplotlib.figure", "plot", "Drawing a run")
            axes = figures.Figure(figsize=(11, 4), layout="constrained").subplots(1, 2)
        left, right = axes  # type: ignore[misc]
        plot_rates(self.record, ax=left)
        plot_history(_columns(self.history), "loss", ax=right)
        return [left, right]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `model.keras`, `history.csv`, `rates.json`, and pictures where matplotlib is installed.

        Args:
            folder: Folder to make, or an empty one.

        Raises:
            FileExistsError: If the folder holds anything.
        """
        target = Path(folder)
        new_folder("folder", target)
        target.mkdir(parents=True, exist_ok=True)
        self.write(target)

    def ensemble(self) -> SnapshotEnsemble:
        """The snapshots of the run as one model.

        Returns:
            `SnapshotEnsemble`.

        Raises:
            FileNotFoundError: If the run kept no snapshots.
        """
        if self.run_dir is None or not (self.run_dir / "snapshots").is_dir():
            remedy = "Give `fine_tune` a number of `snapshots` and a `run_dir`."
            raise FileNotFoundError(_checks.sentence("snapshots", "be kept by the run", None, remedy))
        return SnapshotEnsemble.load(self.run_dir / "snapshots", self.model)

    def write(self, folder: Path) -> None:
        """As `save`, over what is there.

        Args:
            folder: An existing folder.
        """
        save_model(self.model, folder / "model.keras")
        write_text(folder / "history.csv", history_text(self.history))
        write_text(folder / "rates.json", self.record.to_json())
        if self.range_test is not None:
            store_test(self.range_test, folder)
        if importlib.util.find_spec("matplotlib") is not None and len(self.record):
            save_run_pictures(folder, self.record, self.history)


def _columns(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Column -> its value in each epoch; NaN where the phase does not have it."""
    names = dict.fromkeys(name for row in rows for name in row if name != "phase")
    return {name: [row.get(name, float("nan")) for row in rows] for name in names}
