"""`kadence find`: photos -> a range test, its table, its file and its picture."""

import argparse
import math
from pathlib import Path
from typing import Any

from kadence import _checks
from kadence._flags import add_backbone, add_photos, add_training, settings_of
from kadence._overlap import check_outside
from kadence._rate_search import FILES, FIND_STEPS, find_rates, store_test
from kadence._suggestions import RULES
from kadence._terminal import add_command, console, numbers, rich_table
from kadence.callbacks.progress import ProgressDisplay
from kadence.range_test import RangeTest


def add_find(commands: Any) -> None:
    """The command `kadence find`.

    Args:
        commands: What `add_subparsers` gave for `kadence`; it gets the command.
    """
    parser = add_command(commands, "find", _find, "find the learning rates for a folder of photos by a range test")
    add_photos(parser)
    add_backbone(parser)
    text = "rate per group, of which the ratios are kept; 1e-5,1e-4,1e-3 for three groups if not given"
    parser.add_argument("--rates", type=numbers, metavar="R,R,R", help=text)
    text = "sweep each group on its own, while the others train at their --rates; two sweeps a group"
    parser.add_argument("--per-group", action="store_true", help=text)
    add_training(parser)
    parser.add_argument("--steps", type=int, default=FIND_STEPS, help="length of a sweep in optimizer steps")
    parser.add_argument("--runs", type=int, default=1, help="runs, each with a data order of its own")
    parser.add_argument("--lr-min", type=float, default=1e-7, help="first rate")
    parser.add_argument("--lr-max", type=float, default=10.0, help="last rate")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for range_test.json and range_test.png")


def _find(options: argparse.Namespace) -> None:
    check_outside("out", options.out, (options.photos, options.validation))
    if options.out.exists() and not options.out.is_dir():
        raise FileExistsError(_checks.sentence("out", "be a folder", str(options.out)))
    for name in FILES:
        if (options.out / name).exists():
            rule = f"be a folder without {' and '.join(FILES)}"
            raise FileExistsError(_checks.sentence("out", rule, str(options.out), f"{name} is there."))
    _checks.extra("matplotlib", "plot", "Drawing the test")
    terminal = console()
    with ProgressDisplay(terminal) as progress:
        test = find_rates(
            settings_of(options),
            callbacks=[progress.sweeps(options.steps)],
            n_steps=options.steps,
            n_runs=options.runs,
            per_group=options.per_group,
            lr_min=options.lr_min,
            lr_max=options.lr_max,
        )
    options.out.mkdir(parents=True, exist_ok=True)
    store_test(test, options.out)
    terminal.print(_table(test))
    for sentence in [*test.notes, *(f"{name}: {why}." for name, why in test.suggest().reasons.items())]:
        terminal.print(sentence, soft_wrap=True, highlight=False)
    terminal.print(
        f"Test and picture: {' and '.join(str(options.out / name) for name in FILES)}", soft_wrap=True, highlight=False
    )


def _table(test: RangeTest) -> Any:
    table = rich_table("group", "rate now", *RULES, "learns from", "to")
    answers = [test.suggest(rule) for rule in RULES]
    learns = test.interval().rates
    base = max(test.current_rates.values())
    for name in test.names:
        low, high = learns[name] or (math.nan, math.nan)
        rates = [test.current_rates.get(name, base), *(answer.rates[name] for answer in answers), low, high]
        table.add_row(name, *("-" if rate is None or math.isnan(rate) else f"{rate:.2g}" for rate in rates))
    if not test.per_group and len(test.multipliers) > 1:
        for name, factor in test.multipliers.items():
            rates = [answer.rates["all"] for answer in answers]
            cells = ("-" if rate is None else f"{rate * factor:.2g}" for rate in rates)
            table.add_row(name, f"{test.current_rates[name]:.2g}", *cells, "", "")
    return table
