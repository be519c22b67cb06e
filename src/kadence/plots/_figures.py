"""What every plot has in common: its figure and axes, how they look, and the file of a picture."""

from pathlib import Path
from typing import Any

from kadence import _checks
from kadence.records import whole


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Args:
        figure: matplotlib Figure.
        path: File to write; an existing one is replaced.
    """
    with whole(path) as part:
        figure.savefig(part, format="png", dpi=120)


def new_figure(n_axes: int) -> tuple[Any, list[Any]]:
    """A figure that no window knows of, so that nothing has to be closed.

    Args:
        n_axes: Number of Axes, side by side.

    Returns:
        The pair (figure, list of its Axes).
    """
    figure = _checks.extra("matplotlib.figure", "plot", "Drawing").Figure(figsize=(4.5 * (n_axes + 1), 4.0))
    figure.set_layout_engine("constrained")
    return figure, [figure.add_subplot(1, n_axes, position + 1) for position in range(n_axes)]


def axes_or_new(ax: Any) -> Any:
    """The Axes that were given, or those of a new figure of pyplot.

    Args:
        ax: matplotlib Axes, or None.
    """
    _checks.extra("matplotlib", "plot", "Drawing")
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(8.0, 4.0), layout="constrained")[1]


def finish(ax: Any, xlabel: str, ylabel: str) -> Any:
    """The Axes with their labels, in the look of all plots.

    Args:
        ax: matplotlib Axes.
        xlabel: What is to the right, with its unit.
        ylabel: What is up, with its unit.
    """
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
