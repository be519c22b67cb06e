"""Numbers as lines of text: aligned tables, and rates as lines of blocks."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

#: A line of rates, its name included, is at most this wide.
_WIDTH = 60
_BLOCKS = "▁▂▃▄▅▆▇█"
#: The lowest block of a logarithmic line is this many decades below the peak.
_DECADES = 4.0


def counted(number: float, noun: str) -> str:
    """A number and a noun.

    Args:
        number: How many. Integer or float >= 0.
        noun: Of what, for one of them.

    Returns:
        Such as "1 epoch" or "2.5 epochs".
    """
    shown = f"{number:g}" if isinstance(number, float) else f"{number:,}"
    return f"{shown} {noun}{'s' * (number != 1)}"


def table(rows: Sequence[Sequence[str]], n_left: int = 0) -> list[str]:
    """Lines of cells in columns; the first `n_left` columns and the last, if it has no heading, are flush left.

    Args:
        rows: The heading, and rows of as many cells.
        n_left: Number of columns. Integer >= 0.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = [position < n_left or not heading for position, heading in enumerate(rows[0])]
    return [
        "  ".join(
            cell.ljust(width) if flush else cell.rjust(width)
            for cell, width, flush in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in rows
    ]


def tables(rows: Sequence[tuple[str, Sequence[Sequence[str]]]], width: int) -> list[str]:
    """Lines of rows of a name and parts of cells: as many parts side by side as `width` allows, the others below.

    Args:
        rows: Pairs of a name and the parts of its row, each a sequence of cells.
        width: Characters in a line.
    """
    names = [[name] for name, _ in rows]
    lines: list[str] = []
    now = names
    for part in zip(*(parts for _, parts in rows), strict=True):
        wider = [[*row, *cells] for row, cells in zip(now, part, strict=True)]
        if now is not names and max(map(len, table(wider, n_left=1))) > width:
            lines += [*table(now, n_left=1), ""]
            wider = [[*name, *cells] for name, cells in zip(names, part, strict=True)]
        now = wider
    return [*lines, *table(now, n_left=1)]


def first_of(texts: Sequence[str], separator: str) -> str:
    """The first five, and how many more there are.

    Args:
        texts: The texts.
        separator: What stands between them.
    """
    return separator.join([*texts[:5], *([f"and {len(texts) - 5} more"] if len(texts) > 5 else [])])


def rate_lines(rates: Mapping[str, np.ndarray]) -> list[str]:
    """A table of the peak, the lowest, the first and the last rate of each group.

    Args:
        rates: Group name -> rate at every optimizer step. Arrays of shape (n_steps,), n_steps >= 1.

    Returns:
        List of lines, the heading first.
    """
    rows = [["group", "peak", "lowest", "first", "last"]]
    for name, rate in rates.items():
        rows.append([name, *(f"{figure:.3g}" for figure in (rate.max(), rate.min(), rate[0], rate[-1]))])
    return table(rows, n_left=1)


def spark_lines(rates: Mapping[str, np.ndarray]) -> list[str]:
    """A line of at most 60 characters per group, logarithmic where the rate is far below its peak for half the run.

    Args:
        rates: Group name -> rate at every optimizer step; not empty. Arrays of shape (n_steps,), n_steps >= 1.
    """
    width = min(max(map(len, rates)), _WIDTH // 2)
    lines = []
    for name, rate in rates.items():
        log = bool(0.0 < np.median(rate) < rate.max() / 16.0)
        short = name if len(name) <= width else name[: width - 3] + "..."
        mark = " log" if log else ""
        lines.append(f"{short:<{width}}  {sparkline(rate, _WIDTH - width - 2 - len(mark), log)}{mark}")
    return lines


def sparkline(values: np.ndarray, width: int, log: bool = False) -> str:
    """`values` >= 0 as at most `width` blocks, each the mean of its share, from 0 to the highest; 0 is a dot.

    Args:
        values: Such as the rate at every optimizer step. Array of shape (n,), n >= 1; one that is not finite makes all
            dots.
        width: Number of characters, fewer for fewer values. Integer >= 1.
        log: Whether the height of a block is the logarithm of the value, over four decades below the highest.
    """
    edges = np.linspace(0, len(values), min(width, len(values)), endpoint=False).astype(np.int64)
    means = np.add.reduceat(values, edges) / np.diff(edges, append=len(values))
    return "".join(_block(mean, float(means.max()), log) for mean in means.tolist())


def _block(rate: float, peak: float, log: bool) -> str:
    if not 0.0 < rate <= peak < math.inf:
        return "·"
    height = 1.0 + math.log10(rate / peak) / _DECADES if log else rate / peak
    return _BLOCKS[min(max(math.ceil(height * len(_BLOCKS)) - 1, 0), len(_BLOCKS) - 1)]
