"""A comparison -> matplotlib Axes: learning curves, and differences to the baseline."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kadence import _checks
from kadence.comparison import Comparison
from kadence.plots._figures import axes_or_new, finish, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    axes = axes_or_new(ax)
    for index, result in enumerate(comparison.results):
        name, colour = f"val_{comparison.metric}", f"C{index % 10}"
        curves = np.full((len(result.curves), comparison.epochs), np.nan)  # one that diverged is shorter
        for row, curve in zip(curves, result.curves, strict=True):
            row[: len(curve[name])] = [np.nan if value is None else value for value in curve[name]]
        known = np.isfinite(curves).any(axis=0)
        epochs = 1 + np.flatnonzero(known)
        if len(epochs):
            # Marker and edge show a single epoch, of which a line and an area show nothing.
            means, style = np.nanmean(curves[:, known], axis=0), {"marker": "o", "markersize": 3.5, "linewidth": 1.4}
            axes.plot(epochs, means, color=colour, label=result.strategy, **style)
            low, high = np.nanmin(curves[:, known], axis=0), np.nanmax(curves[:, known], axis=0)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=1.0)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    if axes.lines:
        axes.legend(frameon=False, fontsize="small")
    return finish(axes, "epoch", f"{comparison.metric} on the validation data")


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
    finish(axes, label, "")


def save_comparison_picture(comparison: Comparison, path: Path) -> None:
    """Write a picture of a comparison as PNG: learning curves, and differences to the baseline with their intervals.

    Args:
        comparison: The `Comparison`.
        path: File to write; an existing one is replaced.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure, (left, right) = new_figure(2)
    plot_comparison(comparison, ax=left)
    _plot_differences(comparison, right)
    save_figure(figure, path)
