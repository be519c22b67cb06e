"""A range test -> matplotlib Axes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kadence import _checks
from kadence._suggestions import RULES
from kadence.plots._figures import axes_or_new, finish, new_figure, save_figure
from kadence.range_test import RangeTest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Marker of each rule's answer.
_MARKERS = dict(zip(RULES, "osDv", strict=True))
#: Groups in the legend, at most, and those whose rates are in it too.
_MOST_NAMES, _MOST_ANSWERS = 12, 4


def plot_range_test(test: RangeTest, ax: "Axes | None" = None) -> "Axes":
    """Draw the losses over the rates: points, smoothed line, the rates that learn (shaded), and each rule's answer.

    Args:
        test: The `RangeTest`; where groups were swept on their own, each has a colour, and a line in the legend if they
            are at most 12.
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
    axes = axes_or_new(ax)
    answers, learns = {rule: test.suggest(rule).rates for rule in _MARKERS}, test.interval().rates
    for position, name in enumerate(names):
        found = {rule: rates[name] for rule, rates in answers.items()}
        label = _label(name, test.per_group, len(names), learns[name], found["valley"])
        _plot_sweep(test, name, f"C{position}", label, learns[name], found, axes)
    for rule, marker in _MARKERS.items():
        shown = "".join(f" {rate:.1e}" for rate in answers[rule].values() if rate is not None and len(names) == 1)
        axes.plot([], [], marker, color="0.35" if test.per_group else "C0", markersize=6, label=rule + shown)
    axes.set_xscale("log")
    axes.set_ylim(*_loss_limits(test, names))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    what = f"{test.loss} loss"
    return finish(axes, "learning rate", f"{what} less that with the group at rate 0" if test.per_group else what)


def _label(
    name: str, per_group: bool, n_names: int, learns: tuple[float, float] | None, valley: float | None
) -> str | None:
    """What the legend says of a sweep: as much as there is room for beside the axes."""
    if n_names > _MOST_ANSWERS:
        return name if n_names <= _MOST_NAMES else None
    lines = [f"{name}, smoothed" if per_group else "smoothed loss"]
    if learns is not None:
        lines.append(f"learns from {learns[0]:.1e} to {learns[1]:.1e}")
    if valley is None:
        lines.append("no clear answer")
    elif per_group:
        lines.append(f"valley {valley:.1e}")
    return "\n".join(lines)


def _plot_sweep(
    test: RangeTest,
    name: str,
    colour: str,
    label: str | None,
    learns: tuple[float, float] | None,
    answers: dict[str, float | None],
    axes: Any,
) -> None:
    smoothed = test.smoothed(name)
    rates = test.rates[: len(smoothed)]
    for losses in test.runs(name):
        axes.plot(rates, losses, ".", color=colour, alpha=0.35, markersize=4, markeredgewidth=0)
    if learns is not None:
        axes.axvspan(*learns, color=colour, alpha=0.1, linewidth=0)
    axes.plot(rates, smoothed, color=colour, linewidth=1.8, label=label)
    for rule, marker in _MARKERS.items():
        answer = answers[rule]
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


def save_range_picture(test: RangeTest, path: Path) -> None:
    """Write a picture of a range test as PNG.

    Args:
        test: The `RangeTest`.
        path: File to write; an existing one is replaced.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If no sweep has a loss.
    """
    figure, (axes,) = new_figure(1)
    plot_range_test(test, ax=axes)
    save_figure(figure, path)
