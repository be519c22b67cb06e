"""The map: where a ladder of rates, or restarts, help, by data set, network and optimizer.

    KERAS_BACKEND=tensorflow python benchmarks/map.py --data FOLDER --budget-minutes 120 --picture docs/pictures/map.png

A cell is a data set, a network, an optimizer, a schedule and a ladder. Each cell looks for its own best rate on `val`,
in the same way, and is then judged on `test` from five seeds; see `problems.py`. The contested cells come first.
Results are appended to a CSV as they come, and what is in it, also from another machine, is not measured again.
Without --data the tables are printed, as the docs have them. `pretrain_vgg.py` has to run before the cells of the VGG.
"""

# backends: tensorflow

import argparse
import fnmatch
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import kadence  # noqa: F401 - before Keras: it picks an installed backend

# isort: split
import matplotlib as mpl
from matplotlib.figure import Figure
from problems import DATA, LADDERS, SCHEDULES, SEEDS, VGG_WEIGHTS, strategy
from trials import GRAIN, Bench, Results, between, gains_over, running

from kadence._statistics import interval

mpl.use("Agg")

#: In the order of interest: ladders under one cosine, then schedules, then networks and optimizers.
BLOCKS = (("lite0", "adam"), ("vgg", "adam"), ("lite0", "sgd"), ("vgg", "sgd"))
REFERENCE = ("cosine", "one rate")
COLORS = {"one rate": "#555555", "gentle": "#1f77b4", "steep": "#d95f02"}


class Cell(NamedTuple):
    """A cell of the map."""

    data: str
    network: str
    optimizer: str
    schedule: str
    ladder: str

    @property
    def name(self) -> str:
        """Its parts, joined by "/"; what --cells is matched with."""
        return "/".join(self)

    @property
    def strategy_name(self) -> str:
        """Name of its strategy."""
        return strategy(self.optimizer, self.ladder, self.schedule).name


def cells() -> list[Cell]:
    """All cells, the contested ones first."""
    found = [
        Cell(data, network, optimizer, schedule, ladder)
        for (network, optimizer), schedule in itertools.product(BLOCKS, SCHEDULES)
        for data in DATA
        for ladder in LADDERS
    ]
    return found


def measure(bench: Bench, chosen: list[Cell]) -> None:
    """The cells of one data set, network, optimizer and schedule at a time, so that a stop leaves whole comparisons."""
    for _, group in itertools.groupby(chosen, key=lambda cell: cell[:4]):
        members = list(group)
        made = {cell: strategy(cell.optimizer, cell.ladder, cell.schedule) for cell in members}
        rates = {
            cell: bench.best_rate(cell.data, cell.network, made[cell], _near(bench.results, cell)) for cell in members
        }
        for seed, cell in itertools.product(SEEDS, members):
            bench.judge(cell.data, cell.network, made[cell], rates[cell], seed)


def _near(results: Results, cell: Cell) -> float | None:
    """Where to begin: at the best rate of the same ladder under a cosine; of a part of the photos, at that of all.

    From far off, a search may end on a plateau on which nothing is learned.
    """
    place = cell._replace(schedule=REFERENCE[0])
    if place == cell:
        place = cell._replace(data=DATA[cell.data].folder)
    known = {} if place == cell else results.judged(place.data, place.network, place.strategy_name)
    return next((row.rate for row in known.values()), None)


def tables(results: Results, chosen: list[Cell]) -> Iterator[str]:
    """A Markdown table for each network and optimizer: what is measured, beside one rate with a cosine."""
    for block in BLOCKS:
        rows = {}
        for kind in itertools.product(SCHEDULES, LADDERS):
            members = [Cell(data, *block, *kind) for data in DATA]
            rows[kind] = [_text(results, cell) if cell in chosen else "" for cell in members]
        if any(map(any, rows.values())):
            yield f"| {', '.join(block)} | {' | '.join(DATA)} |\n|{'---|' * (1 + len(DATA))}"
            yield from (f"| {', '.join(kind)} | {' | '.join(texts)} |" for kind, texts in rows.items() if any(texts))
            yield ""


def _text(results: Results, cell: Cell) -> str:
    """A cell of a table: mean, rate, and the difference with its interval; of the reference, its own interval."""
    rows = results.judged(cell.data, cell.network, cell.strategy_name)
    if not rows:
        return ""
    base = results.judged(cell.data, cell.network, Cell(*cell[:3], *REFERENCE).strategy_name)
    values, gains = [row.test or 0.0 for row in rows.values()], gains_over(base, rows)
    rate = f"{next(iter(rows.values())).rate:.0e}".replace("e-0", "e-")
    text = f"{sum(values) / len(values):.3f} at {rate}"
    if rows == base or not gains:
        text = f"{text} {between(values, '')}"
    else:
        text = f"{text}, {sum(gains) / len(gains):+.3f} {between(gains, '+')}"
    missing = "" if len(rows) >= len(SEEDS) else f" ({len(rows)} seeds)"
    return re.sub(r"\b0\.(?=\d{3})", ".", text) + missing


def differences(results: Results, chosen: list[Cell]) -> Iterator[str]:
    """A Markdown table for each network and optimizer: what one choice adds where the other is the same, in points."""
    kinds = list(itertools.product(SCHEDULES, LADDERS))
    pairs = [((schedule, REFERENCE[1]), (schedule, ladder)) for schedule, ladder in kinds if ladder != REFERENCE[1]]
    pairs += [((REFERENCE[0], ladder), (schedule, ladder)) for schedule, ladder in kinds if schedule != REFERENCE[0]]
    for block in BLOCKS:
        rows = {}
        for base, kind in pairs:
            members = [Cell(data, *block, *kind) for data in DATA]
            rows[base, kind] = [_points(results, cell, base) if cell in chosen else "" for cell in members]
        if any(map(any, rows.values())):
            yield f"| {', '.join(block)}, in points | {' | '.join(DATA)} |\n|{'---|' * (1 + len(DATA))}"
            for (base, kind), texts in rows.items():
                if any(texts):
                    yield f"| {', '.join(kind)} over {', '.join(base)} | {' | '.join(texts)} |"
            yield ""


def _points(results: Results, cell: Cell, base: tuple[str, str]) -> str:
    gains = _gains(results, cell[:3], cell[3:], base)
    if not gains:
        return ""
    low, high = interval(gains, 100 * GRAIN) or (gains[0], gains[0])
    return f"{sum(gains) / len(gains):+.1f} [{low:+.1f}, {high:+.1f}]"


def _gains(
    results: Results, place: tuple[str, str, str], kind: tuple[str, str], reference: tuple[str, str] = REFERENCE
) -> list[float]:
    """Points of accuracy more than the reference, seed by seed; nothing for that itself, or before all are there."""
    base = results.judged(*place[:2], Cell(*place, *reference).strategy_name)
    rows = results.judged(*place[:2], Cell(*place, *kind).strategy_name) if kind != reference else {}
    gains = gains_over(base, rows)
    return [100 * gain for gain in gains] if len(gains) >= len(SEEDS) else []


def draw(results: Results, path: Path) -> None:
    """A row for each network and optimizer, a column for each data set: the difference to one rate with a cosine."""
    rows = {}
    for block in BLOCKS:
        measured = [data for data in DATA if results.judged(data, block[0], Cell("", *block, *REFERENCE).strategy_name)]
        kinds = [
            kind
            for kind in itertools.product(SCHEDULES, LADDERS)
            if any(_gains(results, (data, *block), kind) for data in measured)
        ]
        if kinds:
            rows[block] = (measured, kinds)
    heights = [1.2 + 0.25 * len(kinds) for _, kinds in rows.values()]
    figure = Figure(figsize=(11, 0.6 + sum(heights)), layout="constrained")
    grid = figure.subplots(len(rows), len(DATA), sharex=True, squeeze=False, height_ratios=heights)
    for line, (block, (measured, kinds)) in zip(grid, rows.items(), strict=True):
        for axes, data in zip(line, DATA, strict=True):
            axes.set_visible(data in measured)
            if data in measured:
                _draw_panel(axes, results, (data, *block), kinds)
    figure.suptitle("Difference to one rate with a cosine on test, mean and 95% interval over five seeds", fontsize=11)
    figure.savefig(path, dpi=110)


def _draw_panel(axes: Any, results: Results, place: tuple[str, str, str], kinds: list[tuple[str, str]]) -> None:
    base = results.judged(*place[:2], Cell(*place, *REFERENCE).strategy_name)
    mean = sum(row.test or 0.0 for row in base.values()) / len(base)
    axes.axvline(0, color="0.6", linewidth=1)
    for height, kind in enumerate(kinds):
        gains = _gains(results, place, kind)
        if gains:
            low, high = interval(gains, 100 * GRAIN) or (gains[0], gains[0])
            axes.plot([low, high], [height, height], color=COLORS[kind[1]], linewidth=2)
            axes.plot(sum(gains) / len(gains), height, "o", color=COLORS[kind[1]], markersize=5)
    is_first = axes.get_subplotspec().is_first_col()
    axes.set_yticks(range(len(kinds)), [", ".join(kind) for kind in kinds] if is_first else [])
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.set_title(f"{' '.join(place)} (one rate {mean:.3f})", fontsize=9)
    axes.set_xlabel("points of accuracy more or less", fontsize=8)
    axes.tick_params(labelbottom=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("KADENCE_DATA"), help="folder of the data sets")
    parser.add_argument(
        "--cells", default="*", help="which, such as 'grocery/lite0/*': data/network/optimizer/schedule/ladder"
    )
    parser.add_argument("--budget-minutes", type=float, default=float("inf"), help="begin no trial after so long")
    parser.add_argument("--picture", type=Path, help="where to draw what is measured")
    options = parser.parse_args()
    chosen = [cell for cell in cells() if fnmatch.fnmatch(cell.name, options.cells)]
    results = Results()
    if options.data is None:
        print("No --data: these are the results that were measured before.")
    else:
        if not VGG_WEIGHTS.exists():
            chosen = [cell for cell in chosen if cell.network != "vgg"]
            print("Without the VGG: run pretrain_vgg.py first.")
        with running(Path(options.data), results, options.budget_minutes) as bench:
            measure(bench, chosen)
    print("\n".join([*tables(results, chosen), *differences(results, chosen)]))
    if options.picture is not None:
        draw(results, options.picture)


if __name__ == "__main__":
    main()
