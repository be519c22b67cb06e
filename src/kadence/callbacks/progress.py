"""ProgressDisplay: a progress bar and a line per epoch in the terminal."""

import time
from typing import Any

import keras

from kadence import _checks


class ProgressDisplay(keras.callbacks.Callback):
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

    def __enter__(self) -> "ProgressDisplay":
        if not self._bar.disable:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._bar.disable:  # rich 13.7 writes an empty line even so
            self._bar.stop()

    def sweeps(self, n_steps: int) -> "SweepDisplay":
        """The callback that shows the sweeps of a range test in the same place.

        Args:
            n_steps: Length of a sweep, in optimizer steps. Integer >= 1.

        Returns:
            `SweepDisplay`.
        """
        return SweepDisplay(self._bar, n_steps)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the epoch's bar."""
        self._began = time.perf_counter()
        if self._task is not None:
            self._bar.remove_task(self._task)
        name = f"epoch {epoch + 1}/{self.params['epochs']}"
        self._task = self._bar.add_task(name, total=self.params["steps"], loss="")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar."""
        loss = float((logs or {}).get("loss", float("nan")))
        self._bar.update(self._task, completed=batch + 1, loss=f"loss {loss:.4f}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Print the epoch's metrics."""
        names = [name for name in ("loss", "accuracy", "val_loss", "val_accuracy") if name in (logs or {})]
        line = "  ".join(f"{name} {(logs or {})[name]:.4f}" for name in names)
        seconds = time.perf_counter() - self._began
        self._console.print(
            f"epoch {epoch + 1}/{self.params['epochs']}  {line}  {seconds:.0f} s", highlight=False, soft_wrap=True
        )


class SweepDisplay(keras.callbacks.Callback):
    """Shows a bar over the steps of each sweep of a range test; from `ProgressDisplay.sweeps`.

    Args:
        bar: `rich.progress.Progress` to show it in.
        n_steps: Length of a sweep, in optimizer steps. Integer >= 1.
    """

    #: As in `ProgressDisplay`.
    async_safe = True

    def __init__(self, bar: Any, n_steps: int):
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
