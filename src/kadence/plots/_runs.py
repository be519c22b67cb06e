"""A run -> matplotlib Axes: its schedule, the rates of its groups, its history."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kadence import _checks
from kadence.plots._figures import axes_or_new, finish, new_figure, save_figure
from kadence.records import RateRecord
from kadence.schedules import Schedule

if TYPE_CHECKING:
    from keras.callbacks import History
    from matplotlib.axes import Axes

#: A logarithmic axis ends this far below the lowest peak: a cosine's end is near 0.
_DEPTH = 300.0


def plot_schedule(schedule: Schedule, n_steps: int, ax: "Axes | None" = None) -> "Axes":
    """Draw the rate of a schedule over the steps.

    Args:
        schedule: The `Schedule`.
        n_steps: Number of optimizer steps to draw, from step 0. Integer >= 1.
        ax: matplotlib Axes to draw on; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If `n_steps` is not positive.
        TypeError: If an argument has the wrong type.

    Example:
        >>> ax = kadence.plot_schedule(kadence.WarmRestarts(1e-2, first_cycle_steps=100, cycle_mult=2), n_steps=700)
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(_checks.sentence("schedule", "be a kadence.Schedule", schedule))
    n_steps = _checks.integer("n_steps", n_steps, minimum=1, unit="in optimizer steps")
    axes = axes_or_new(ax)
    axes.plot(np.arange(n_steps), schedule.sample(n_steps), linewidth=1.4)
    _set_rate_limits(axes)
    return finish(axes, "optimizer step", "learning rate")


def plot_rates(record: RateRecord, ax: "Axes | None" = None) -> "Axes":
    """Draw each group's learning rate over the steps, one line per group.

    The axis of the rates is logarithmic where the groups' peaks differ by more than a factor of 10.

    Args:
        record: The `RateRecord`, from `RateRecorder.record` for example.
        ax: matplotlib Axes to draw on; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the record is empty.
        TypeError: If `record` is not a `RateRecord`.
    """
    if not isinstance(record, RateRecord):
        raise TypeError(_checks.sentence("record", "be a RateRecord", record))
    if not len(record) or not record.rates:
        raise ValueError(_checks.sentence("record", "hold at least one step", record, "Pass it to `fit` first."))
    axes = axes_or_new(ax)
    for name, rates in record.rates.items():
        axes.plot(record.steps, rates, linewidth=1.4, label=name)
    _set_rate_limits(axes, logarithmic=True)
    if len(record.rates) <= 12:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return finish(axes, "optimizer step", "learning rate")


def plot_history(
    history: "Mapping[str, Sequence[float]] | History", metric: str = "loss", ax: "Axes | None" = None
) -> "Axes":
    """Draw a metric over the epochs, in training and, where there is one, in validation.

    Args:
        history: What `model.fit` returns, or its `history`: metric name -> value per epoch. Of fewer validations than
            epochs, as with `validation_freq`, each is drawn at as many epochs after the one before as their numbers
            allow.
        metric: Name of the metric in training; `val_` in front names it in validation.
        ax: matplotlib Axes to draw on; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the history does not have the metric.
        TypeError: If `history` has the wrong type.
    """
    logged: Any = getattr(history, "history", history)
    if not isinstance(logged, Mapping):
        raise TypeError(_checks.sentence("history", "be what `fit` returns, or its `history`", history))
    if metric not in logged:
        raise ValueError(_checks.sentence("metric", "be in the history", metric, _checks.did_you_mean(metric, logged)))
    axes = axes_or_new(ax)
    for key, label in ((metric, "train"), (f"val_{metric}", "validation")):
        if key in logged:
            values = list(logged[key])
            between = max(len(logged[metric]) // max(len(values), 1), 1)
            axes.plot(
                between * np.arange(1, len(values) + 1), values, marker="o", markersize=3.5, linewidth=1.4, label=label
            )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    return finish(axes, "epoch", metric)


def _set_rate_limits(axes: Any, logarithmic: bool = False) -> None:
    """From 0 up, or, where the peaks of all lines drawn so far are far apart, logarithmic."""
    peaks = [peak for peak in (np.max(line.get_ydata()) for line in axes.lines) if peak > 0.0]
    if axes.get_yscale() == "log" or (logarithmic and peaks and max(peaks) > 10 * min(peaks)):
        axes.set_yscale("log")
        axes.set_ylim(bottom=min(peaks) / _DEPTH, top=max(peaks) * 2)
    else:
        axes.set_ylim(bottom=0.0, auto=None)


def save_run_pictures(folder: Path, record: RateRecord, rows: Sequence[Mapping[str, float]]) -> None:
    """Write `rates.png`, the rates over the steps, and `curves.png`, loss and accuracy over the epochs.

    Args:
        folder: Where to write them; existing ones are replaced.
        record: The `RateRecord` of the run.
        rows: The history, a dict of metrics per epoch, with "loss"; without
            "accuracy" the first other metric is drawn.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    history = {name: [row[name] for row in rows] for name in rows[0] if all(name in row for row in rows)}
    figure, (axes,) = new_figure(1)
    plot_rates(record, ax=axes)
    save_figure(figure, folder / "rates.png")
    others = ("loss", "epoch", "seconds", "phase")
    metrics = [name for name in history if name not in others and not name.startswith(("val_", "learning_rate_"))]
    shown = ["loss", *(["accuracy"] if "accuracy" in metrics else metrics[:1])]
    figure, panels = new_figure(len(shown))
    for name, axes in zip(shown, panels, strict=True):
        plot_history(history, name, ax=axes)
    save_figure(figure, folder / "curves.png")


def save_schedule_picture(schedule: Schedule, n_steps: int, path: Path) -> None:
    """Write a picture of a schedule as PNG.

    Args:
        schedule: The `Schedule`.
        n_steps: Number of optimizer steps to draw. Integer >= 1.
        path: File to write; an existing one is replaced.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure, (axes,) = new_figure(1)
    plot_schedule(schedule, n_steps, ax=axes)
    save_figure(figure, path)


def save_rates_picture(record: RateRecord, path: Path) -> None:
    """Write a picture of the rates of a record as PNG.

    Args:
        record: The `RateRecord`.
        path: File to write; an existing one is replaced.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure, (axes,) = new_figure(1)
    plot_rates(record, ax=axes)
    save_figure(figure, path)
