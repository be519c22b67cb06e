"""`kadence compare`: folders of photos and flags -> a comparison, as a table, CSV, JSON and a picture."""

import argparse
import contextlib
import functools
import itertools
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from kadence import _checks
from kadence._compare_checks import check_numbers, check_strategies
from kadence._overlap import check_outside, without_copies
from kadence._terminal import add_command, console, numbers, words, write_line
from kadence._trial_plan import TrialPlan
from kadence._trials import Outcome, Trial
from kadence.callbacks.progress import BarOwner
from kadence.classifier import build_classifier
from kadence.compare import ENGINES, compare
from kadence.comparison import Comparison
from kadence.data import ImageBatches, ImageFolder, scan_folder, split_validation
from kadence.groups import LayerGroups
from kadence.plots import save_comparison_picture
from kadence.records import made, write_text
from kadence.settings import FineTuneSettings
from kadence.strategies import PARTS

_STRATEGIES = "constant,cosine,warm-restarts,discriminative,discriminative+warm-restarts,frozen"
_DEFAULTS = FineTuneSettings(photos="")


def add_compare(commands: Any) -> None:
    """The command `kadence compare`.

    Args:
        commands: What `add_subparsers` gave for `kadence`; it gets the command.
    """
    text = "measure on a folder of photos which way of training is better, and how sure that is"
    parser = add_command(commands, "compare", _compare, text)
    _add_photos(parser)
    _add_model(parser)
    parts = ", ".join(PARTS)
    parser.add_argument(
        "--strategies", type=words, default=_STRATEGIES, metavar="A,B+C", help=f"the first is the baseline; of {parts}"
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds to judge with")
    parser.add_argument("--search", type=int, default=5, help="number of rates that each strategy tries")
    parser.add_argument("--rates", type=numbers, metavar="R,R,R", help="the rates themselves, instead of --search")
    parser.add_argument("--epochs", type=int, default=5, help="length of a trial in epochs")
    parser.add_argument("--target", type=float, help="accuracy whose time is told; the baseline's if not given")
    parser.add_argument("--engine", default="local", choices=ENGINES, help="where trials run")
    parser.add_argument("--jobs", type=int, help="processes; if not given, one trial after another, or all of Ray")
    parser.add_argument("--ray-address", metavar="ADDRESS", help="of a Ray cluster; auto for the one that runs here")
    parser.add_argument("--store", type=Path, metavar="FILE", help="file of finished trials; OUT/trials.sqlite")
    parser.add_argument("--retry-failed", action="store_true", help="try trials again that failed before")
    parser.add_argument("--out", type=Path, help="folder of the results; comparisons/NAME of the photos' folder")


def _add_photos(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", help="folder with one folder of photos per class")
    parser.add_argument("--validation", metavar="DIR", help="folder of the same form to choose the rates on")
    parser.add_argument("--test", metavar="DIR", help="folder of the same form to judge on")
    text = "share of each class, held out to {} without --{}"
    parser.add_argument(
        "--validation-fraction", type=float, default=0.2, help=text.format("choose the rates on", "validation")
    )
    parser.add_argument("--test-fraction", type=float, default=0.2, help=text.format("judge on", "test"))
    parser.add_argument("--split-seed", type=int, default=0, help="of what is held out")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", default=_DEFAULTS.backbone, help="pretrained network; `kadence groups --list`")
    parser.add_argument("--split", type=words, metavar="LAYER,LAYER", help="first layers of the later groups")
    parser.add_argument("--image-size", type=int, default=_DEFAULTS.image_size, help="side of the images in pixels")
    parser.add_argument("--batch-size", type=int, default=_DEFAULTS.batch_size, help="in images")
    parser.add_argument("--augment", action=argparse.BooleanOptionalAction, default=True, help="flip, shift, zoom")


def build_network(
    backbone: str, split: Sequence[str] | None, image_size: int, augment: bool, n_classes: int
) -> tuple[keras.Model, LayerGroups]:
    """A pretrained network with a new head, and its groups; other processes find this function by its name.

    Args:
        backbone: Name of the backbone.
        split: First layers of the later groups, or None.
        image_size: Side of the images in pixels. Integer >= 32.
        augment: Whether to flip, shift and zoom in training.
        n_classes: Number of classes. Integer >= 2.

    Returns:
        The model and its `LayerGroups`.
    """
    settings = FineTuneSettings(
        photos="",
        backbone=backbone,
        split=None if split is None else tuple(split),
        image_size=image_size,
        augment=augment,
        batch_norm="train",  # the strategies freeze what they freeze
    )
    return build_classifier(settings, n_classes)


def _compare(options: argparse.Namespace) -> None:
    if options.out is None:
        options.out = Path("comparisons") / Path(options.photos).resolve().name
    _check_out(options.out, [options.photos, options.validation, options.test])
    store = options.store or options.out / "trials.sqlite"
    _checks.extra("matplotlib", "plot", "Drawing a comparison")
    counts = check_numbers(options.seeds, options.search)
    plan = TrialPlan(check_strategies(options.strategies), *counts, options.rates, "max", "")
    train, *held_out = _load(options)
    batches = [ImageBatches(part, options.image_size, options.batch_size, shuffle=False) for part in (train, *held_out)]
    model: dict[str, Any] = {"backbone": options.backbone, "split": options.split and list(options.split)}
    model |= {"image_size": options.image_size, "augment": options.augment, "n_classes": len(train.class_names)}
    again = shlex.join(["kadence", *options.arguments])
    options.stopped = f"Finished trials are in {store}. Go on with the same command: {again}"
    names = ("seeds", "search", "rates", "epochs", "target", "engine", "jobs", "ray_address", "retry_failed")
    with made(options.out):
        with _TrialBar(console(), plan.n_trials) as bar:
            comparison = compare(
                functools.partial(build_network, **model),
                batches[0],
                batches[1],
                options.strategies,
                test=batches[2] if len(batches) > 2 else None,
                batch_size=options.batch_size,
                store=store,
                on_trial=bar.show,
                **{name: getattr(options, name) for name in names},
            )
        _write(comparison, options.out)


def _check_out(out: Path, photos: Sequence[str | None]) -> None:
    check_outside("out", out, photos)
    if out.exists() and not out.is_dir():
        raise FileExistsError(_checks.sentence("out", "be a folder", str(out)))
    ours = out / "comparison.json"
    foreign = [name for name in ("comparison.csv", "comparison.png") if (out / name).exists() and not ours.exists()]
    if foreign:
        remedy = f"It holds a {foreign[0]} that is not of a comparison: choose another folder."
        raise FileExistsError(_checks.sentence("out", "be new, or the folder of a comparison", str(out), remedy))
    if ours.exists():
        Comparison.from_json(ours.read_text(encoding="utf-8"))


def _load(options: argparse.Namespace) -> list[ImageFolder]:
    """Training, validation and, unless nothing is held out for it, test photos."""
    train = scan_folder(options.photos)
    if options.validation is None or (options.test is None and options.test_fraction):
        train = without_copies(train)
    parts: dict[str, ImageFolder] = {}
    for position, name in enumerate(("test", "validation")):
        folder, fraction = getattr(options, name), getattr(options, f"{name}_fraction")
        if folder is not None:
            parts[name] = scan_folder(folder, class_names=train.class_names)
        elif fraction or name == "validation":
            train, parts[name] = split_validation(train, fraction, options.split_seed + position)
    return [train, parts["validation"], *([parts["test"]] if "test" in parts else [])]


def _write(comparison: Comparison, out: Path) -> None:
    write_line(str(comparison))
    kept = _keep_other(out, comparison.to_json())
    # The first is what tells that the others are ours, if the process ends in between.
    write_text(out / "comparison.json", comparison.to_json())
    write_text(out / "comparison.csv", comparison.to_csv())
    save_comparison_picture(comparison, out / "comparison.png")
    write_line(f"Table, curves and picture are in {out}{kept}")


def _keep_other(out: Path, text: str) -> str:
    """Rename the results of an earlier comparison that was another, of more seeds or of other photos; say to what."""
    ours = out / "comparison.json"
    if not ours.exists() or ours.read_text(encoding="utf-8") == text:
        return ""
    number = next(number for number in itertools.count(1) if not any(out.glob(f"comparison-{number}.*")))
    for ending in ("csv", "png", "json"):  # the last is what tells that the others are ours
        with contextlib.suppress(FileNotFoundError):
            (out / f"comparison.{ending}").rename(out / f"comparison-{number}.{ending}")
    return f"; the earlier ones are named comparison-{number} now"


class _TrialBar(BarOwner):
    """A bar over the trials with the time that is left; without a terminal, a line per trial.

    How many of them are in the store already is known with the first one that ends.
    """

    def __init__(self, terminal: Any, n_trials: int):
        progress = _checks.extra("rich.progress", "cli", "The progress display")
        self._console = terminal
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            console=terminal,
            transient=True,
            speed_estimate_period=math.inf,  # of all trials: one takes longer than the 30 s that rich looks back
            disable=not terminal.is_terminal,
        )
        self._task = self._bar.add_task(f"{n_trials} trials", total=n_trials)

    def show(self, trial: Trial, outcome: Outcome, done: int, total: int) -> None:
        """Move the bar, and print what came of a trial."""
        score = outcome.validation if outcome.test is None else outcome.test
        result = outcome.reason if score is None or outcome.reason else f"{score:.4f}"
        self._bar.update(self._task, completed=done, total=total, description=f"trial {done}/{total}")
        line = f"{done}/{total}  {trial.strategy.name}  rate {trial.rate:.3g}  {trial.phase}  seed {trial.seed}"
        self._console.print(
            f"{line}  {outcome.status} {result}  {outcome.seconds:.0f} s", highlight=False, soft_wrap=True
        )
