"""ProgressDisplay: a progress bar and a line per epoch in the terminal."""

import time
from typing import Any, Self

import keras

from kadence import _checks
from kadence._rates import sample_rates
from kadence._updates import as_number, innermost


class BarOwner:
    """Something with a bar of rich, which is there within a `with` statement, in a terminal alone."""

    _bar: Any

    def __enter__(self) -> Self:
        if not self._bar.disable:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._bar.disable:  # rich 13.7 writes an empty line even so
            self._bar.stop()


class ProgressDisplay(BarOwner, keras.callbacks.Callback):
    """Shows a bar over the batches of an epoch, and prints the metrics of each epoch; for use in a `with` statement.

    Args:
        console: `rich.console.Console` to print on.

    Raises:
        ImportError: If rich is not installed.
    """

    #: Keras may call `on_train_batch_end` from a thread of its own, so that the device is not waited for.
    async_safe = True

    def __init__(self, console: Any):
        super().__init__()
        self.model: Any
        self.params: dict[str, Any]
        progress = _checks.extra("rich.progress", "cli", "The progress display")
        self._console = console
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[loss]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: Any = None
        self._phase = ""

    def phase(self, line: str) -> None:
        """Print the line of a phase that begins; its first word stands before its epochs.

        Args:
            line: Such as "head: the last group alone for 1 epoch".
        """
        self._phase = line.partition(":")[0] + " "
        self._console.print(line, highlight=False, soft_wrap=True)

    def sweeps(self, n_steps: int | None = None) -> "SweepDisplay":
        """The callback that shows the sweeps of a range test in the same place.

        Args:
            n_steps: Length of a sweep, in optimizer steps. Integer >= 1; None if it is not known.

        Returns:
            `SweepDisplay`.
        """
        return SweepDisplay(self._bar, n_steps)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the epoch's bar."""
        self._began = time.perf_counter()
        self._rates: list[str] = []
        if self._task is not None:
            self._bar.remove_task(self._task)
        name = f"{self._phase}epoch {epoch + 1}/{self.params['epochs']}"
        self._task = self._bar.add_task(name, total=self.params["steps"], loss="")

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look up the rates of the epoch, once: they follow from the step it begins with."""
        if not self._rates and not self._bar.disable:
            optimizer = self.model.optimizer
            done = int(as_number(innermost(optimizer).iterations)) - batch
            rates = sample_rates(optimizer, self.params["steps"] or 1, done)
            self._rates = [" ".join(f"{rate:.1e}" for rate in row) for row in zip(*rates.values(), strict=True)]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar."""
        figures = [f"{name} {float((logs or {})[name]):.4f}" for name in ("loss", "accuracy") if name in (logs or {})]
        rates = self._rates[min(batch, len(self._rates) - 1)] if self._rates else ""
        self._bar.update(self._task, completed=batch + 1, loss="  ".join([*figures, f"rates {rates}"]))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Print the epoch's metrics, and how long the epochs that are left will take."""
        names = [name for name in ("loss", "accuracy", "val_loss", "val_accuracy") if name in (logs or {})]
        line = "  ".join(f"{name} {(logs or {})[name]:.4f}" for name in names)
        seconds = time.perf_counter() - self._began
        left = self.params["epochs"] - epoch - 1
        more = f", {left * seconds:.0f} s left" if left and self._console.is_terminal else ""
        line = f"{self._phase}epoch {epoch + 1}/{self.params['epochs']}  {line}  {seconds:.0f} s{more}"
        self._console.print(line, highlight=False, soft_wrap=True)


class SweepDisplay(keras.callbacks.Callback):
    """Shows a bar over the steps of each sweep of a range test; from `ProgressDisplay.sweeps`.

    Args:
        bar: `rich.progress.Progress` to show it in.
        n_steps: Length of a sweep, in optimizer steps. Integer >= 1; None if it is not known.
    """

    #: As in `ProgressDisplay`.
    async_safe = True

    def __init__(self, bar: Any, n_steps: int | None):
        super().__init__()
        self._bar, self._n_steps, self._n_sweeps = bar, n_steps, 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the sweep's bar."""
        self._n_sweeps += 1
        self._task = self._bar.add_task(f"finding rates, sweep {self._n_sweeps}", total=self._n_steps, loss="")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar."""
        self._bar.advance(self._task)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Take the bar away."""
        self._bar.remove_task(self._task)
