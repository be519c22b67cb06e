"""Schedules and records -> matplotlib Axes. Nothing here calls show()."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kadence import _checks
from kadence._suggestions import RULES
from kadence.comparison import Comparison
from kadence.range_test import RangeTest
from kadence.records import RateRecord
from kadence.schedules import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Marker of each rule's answer.
_MARKERS = dict(zip(RULES, "osDv", strict=True))
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
    axes = _axes(ax)
    axes.plot(np.arange(n_steps), schedule.sample(n_steps), linewidth=1.4)
    _set_rate_limits(axes)
    return _finish(axes, "optimizer step", "learning rate")


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
    axes = _axes(ax)
    for name, rates in record.rates.items():
        axes.plot(record.steps, rates, linewidth=1.4, label=name)
    _set_rate_limits(axes, logarithmic=True)
    if len(record.rates) <= 12:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return _finish(axes, "optimizer step", "learning rate")


def plot_history(history: Mapping[str, Sequence[float]], metric: str = "loss", ax: "Axes | None" = None) -> "Axes":
    """Draw a metric over the epochs, in training and, where there is one, in validation.

    Args:
        history: Metric name -> value per epoch, such as `model.fit(...).history`.
        metric: Name of the metric in training; `val_` in front names it in validation.
        ax: matplotlib Axes to draw on; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the history does not have the metric.
    """
    if metric not in history:
        raise ValueError(_checks.sentence("metric", "be in the history", metric, _checks.did_you_mean(metric, history)))
    axes = _axes(ax)
    for key, label in ((metric, "train"), (f"val_{metric}", "validation")):
        if key in history:
            values = list(history[key])
            axes.plot(np.arange(1, len(values) + 1), values, marker="o", markersize=3.5, linewidth=1.4, label=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    return _finish(axes, "epoch", metric)


def plot_range_test(test: RangeTest, ax: "Axes | None" = None) -> "Axes":
    """Draw the losses over the rates: points, smoothed line, the rates that learn (shaded), and each rule's answer.

    Args:
        test: The `RangeTest`; where groups were swept on their own, each has a colour.
        ax: matplotlib Axes to draw on; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If no sweep has a loss.
        TypeError: If `test` is not a `RangeTest`.
    """
    if not isinstance(test, RangeTest):
        raise TypeError(_checks.sentence("test", "be a RangeTest", test))
    names = [name for name in test.names if len(test.losses(name))]
    if not names:
        raise ValueError(_checks.sentence("test", "hold at least one loss", [c.stopped for c in test.curves]))
    axes = _axes(ax)
    for position, name in enumerate(names):
        _plot_sweep(test, name, f"C{position}", axes)
    for rule, marker in _MARKERS.items():
        answers = test.suggest(rule).rates.values()
        shown = "".join(f" {answer:.1e}" for answer in answers if answer is not None and len(names) == 1)
        axes.plot([], [], marker, color="0.35" if test.per_group else "C0", markersize=6, label=rule + shown)
    axes.set_xscale("log")
    axes.set_ylim(*_loss_limits(test, names))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    what = f"{test.loss} loss"
    return _finish(axes, "learning rate", f"{what} less that with the group at rate 0" if test.per_group else what)


def _plot_sweep(test: RangeTest, name: str, colour: str, axes: Any) -> None:
    smoothed = test.smoothed(name)
    rates = test.rates[: len(smoothed)]
    for losses in test.runs(name):
        axes.plot(rates, losses, ".", color=colour, alpha=0.35, markersize=4, markeredgewidth=0)
    label = f"{name}, smoothed" if test.per_group else "smoothed loss"
    learns, valley = test.interval().rates[name], test.suggest("valley").rates[name]
    if learns is not None:
        axes.axvspan(*learns, color=colour, alpha=0.1, linewidth=0)
        label += f"\nlearns from {learns[0]:.1e} to {learns[1]:.1e}"
    if valley is None:
        label += "\nno clear answer"
    elif test.per_group:
        label += f"\nvalley {valley:.1e}"
    axes.plot(rates, smoothed, color=colour, linewidth=1.8, label=label)
    for rule, marker in _MARKERS.items():
        answer = test.suggest(rule).rates[name]
        if answer is not None:
            height = np.interp(np.log(answer), np.log(rates), smoothed)
            axes.plot([answer], [height], marker, color=colour, markersize=7, markeredgecolor="white", zorder=3)


def _loss_limits(test: RangeTest, names: Sequence[str]) -> tuple[float, float]:
    """Heights that show the falls, whatever comes after the lowest point."""
    lines = [test.smoothed(name) for name in names]
    low = min(float(line.min()) for line in lines)
    high = max(float(line[: int(line.argmin()) + 1].max()) for line in lines)
    points = np.concatenate(
        [losses[: int(test.smoothed(name).argmin()) + 1] for name in names for losses in test.runs(name)]
    )
    low, high = min(low, float(np.quantile(points, 0.02))), max(high, float(np.quantile(points, 0.98)))
    room = 0.25 * (high - low) or 1.0
    return low - room, high + 2 * room


def plot_comparison(comparison: Comparison, ax: "Axes | None" = None) -> "Axes":
    """Draw the learning curves of the strategies on the validation data, with a band from the worst to the best seed.

    Args:
        comparison: The `Comparison`.
        ax: matplotlib Axes to draw on; by default those of a new figure.

    Returns:
        The Axes.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `comparison` is not a `Comparison`.
    """
    if not isinstance(comparison, Comparison):
        raise TypeError(_checks.sentence("comparison", "be a Comparison", comparison))
    axes = _axes(ax)
    for index, result in enumerate(comparison.results):
        name, colour = f"val_{comparison.metric}", f"C{index % 10}"
        curves = np.full((len(result.curves), comparison.epochs), np.nan)  # one that diverged is shorter
        for row, curve in zip(curves, result.curves, strict=True):
            row[: len(curve[name])] = [np.nan if value is None else value for value in curve[name]]
        known = np.isfinite(curves).any(axis=0)
        epochs = 1 + np.flatnonzero(known)
        if len(epochs):
            axes.plot(epochs, np.nanmean(curves[:, known], axis=0), color=colour, linewidth=1.4, label=result.strategy)
            low, high = np.nanmin(curves[:, known], axis=0), np.nanmax(curves[:, known], axis=0)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if axes.lines:
        axes.legend(frameon=False, fontsize="small")
    return _finish(axes, "epoch", f"{comparison.metric} on the validation data")


def _plot_differences(comparison: Comparison, axes: Any) -> None:
    """The mean difference of each strategy to the baseline, with its interval, from top to bottom."""
    rows = comparison.rows
    for position, row in enumerate(rows):
        colour = f"C{position % 10}"
        if row.difference_low is not None:
            axes.plot([row.difference_low, row.difference_high], [position] * 2, color=colour, linewidth=2.0)
        if row.difference is not None:
            axes.plot([row.difference], [position], marker="o", color=colour)
    axes.axvline(0.0, color="0.6", linewidth=1.0)
    axes.set_yticks(range(len(rows)), [row.strategy for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    judged = max((row.n for row in rows), default=0)
    label = f"{comparison.metric} ({comparison.judged_on}), difference to {rows[0].strategy}, {judged} seeds"
    _finish(axes, label, "")


def save_comparison_picture(comparison: Comparison, path: Path) -> None:
    """Write a picture of a comparison as PNG: learning curves, and differences to the baseline with their intervals.

    Args:
        comparison: The `Comparison`.
        path: File to write; an existing one is replaced.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure, (left, right) = _figure(2)
    plot_comparison(comparison, ax=left)
    _plot_differences(comparison, right)
    save_figure(figure, path)


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
    figure, (axes,) = _figure(1)
    plot_rates(record, ax=axes)
    save_figure(figure, folder / "rates.png")
    others = ("loss", "epoch", "seconds", "phase")
    metrics = [name for name in history if name not in others and not name.startswith(("val_", "learning_rate_"))]
    shown = ["loss", *(metrics if "accuracy" not in metrics else ["accuracy"])[:1]]
    figure, panels = _figure(len(shown))
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
    figure, (axes,) = _figure(1)
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
    figure, (axes,) = _figure(1)
    plot_rates(record, ax=axes)
    save_figure(figure, path)


def save_range_picture(test: RangeTest, path: Path) -> None:
    """Write a picture of a range test as PNG.

    Args:
        test: The `RangeTest`.
        path: File to write; an existing one is replaced.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If no sweep has a loss.
    """
    figure, (axes,) = _figure(1)
    plot_range_test(test, ax=axes)
    save_figure(figure, path)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Args:
        figure: matplotlib Figure.
        path: File to write; an existing one is replaced.
    """
    part = path.with_name(path.name + ".part")
    try:
        figure.savefig(part, format="png", dpi=120)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _figure(n_axes: int) -> tuple[Any, list[Any]]:
    """A figure that no window knows of, so that nothing has to be closed."""
    figure = _checks.extra("matplotlib.figure", "plot", "Drawing").Figure(figsize=(4.5 * (n_axes + 1), 4.0))
    figure.set_layout_engine("constrained")
    return figure, [figure.add_subplot(1, n_axes, position + 1) for position in range(n_axes)]


def _axes(ax: Any) -> Any:
    _checks.extra("matplotlib", "plot", "Drawing")
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(8.0, 4.0), layout="constrained")[1]


def _set_rate_limits(axes: Any, logarithmic: bool = False) -> None:
    """From 0 up, or, where the peaks of all lines drawn so far are far apart, logarithmic."""
    peaks = [peak for peak in (np.max(line.get_ydata()) for line in axes.lines) if peak > 0.0]
    if axes.get_yscale() == "log" or (logarithmic and peaks and max(peaks) > 10 * min(peaks)):
        axes.set_yscale("log")
        axes.set_ylim(bottom=min(peaks) / _DEPTH, top=max(peaks) * 2)
    else:
        axes.set_ylim(bottom=0.0, auto=None)


def _finish(ax: Any, xlabel: str, ylabel: str) -> Any:
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
