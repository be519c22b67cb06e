"""The `kadence` command: flags and files -> the calls of the other modules."""

import argparse
import csv
import io
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kadence import _checks
from kadence.backbones import backbone_names
from kadence.callbacks import LossNotFiniteError
from kadence.callbacks.progress import ProgressDisplay
from kadence.classifier import build_classifier, rates_of
from kadence.plots import save_schedule_picture
from kadence.predict import accuracy, predict_photos
from kadence.records import write_text
from kadence.run import FineTuneRun, train_classifier
from kadence.schedules import Constant, Cosine, Schedule, WarmRestarts
from kadence.settings import BATCH_NORM, OPTIMIZERS, SCHEDULES, FineTuneSettings

_DEFAULTS = FineTuneSettings(photos="")
_EXPECTED = (ValueError, TypeError, OSError, ImportError, LossNotFiniteError)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults in the help, where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Words after `kadence`; by default those of the process.

    Returns:
        Exit code: 0, 1 after an error, 130 after Ctrl-C; argparse itself exits with 2 for a wrong flag.
    """
    options = _parser().parse_args(arguments)
    warnings.showwarning = _show_warning
    try:
        options.command(options)
    except KeyboardInterrupt:
        out = getattr(options, "out", None)
        begun = out is not None and (out / "run.json").is_file()
        _say("Stopped." + (f" Go on with the same command and --resume (run folder {out})." if begun else ""))
        return 130
    except _EXPECTED as error:
        if options.traceback:
            raise
        _say(f"error: {error}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kadence", description="Learning rates for Keras 3: layer groups, warm restarts, and what they did."
    )
    parser.add_argument("--traceback", action="store_true", help="show the Python traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_finetune(commands)
    _add_schedule(commands)
    _add_groups(commands)
    _add_predict(commands)
    return parser


def _command(commands: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text, formatter_class=_HelpFormatter)
    parser._negative_number_matcher = re.compile(r"-[.\d]")  # or argparse takes -1e-3 and -1,2 for flags
    parser.set_defaults(command=function)
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in _words(text))
    except ValueError:
        rule = "must be numbers with commas between them, such as 1e-5,1e-4,1e-3"
        raise argparse.ArgumentTypeError(f"{rule}. Received: {text!r}.") from None


def _add_backbone(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backbone", default=_DEFAULTS.backbone, help="pretrained network; `kadence groups` lists them"
    )
    parser.add_argument("--split", type=_words, metavar="LAYER,LAYER", help="first layers of the later groups")
    parser.add_argument("--image-size", type=int, default=_DEFAULTS.image_size, help="side of the images in pixels")


def _add_finetune(commands: Any) -> None:
    parser = _command(commands, "finetune", _finetune, "fine-tune a pretrained network on a folder of photos")
    parser.add_argument("photos", help="folder with one folder of photos per class")
    held_out = parser.add_mutually_exclusive_group()
    held_out.add_argument("--validation", metavar="DIR", help="folder of the same form to validate on")
    held_out.add_argument("--validation-fraction", type=float, default=_DEFAULTS.validation_fraction, help="held out")
    _add_backbone(parser)
    parser.add_argument(
        "--rates",
        type=_numbers,
        metavar="R,R,R",
        help="peak rate per group, 0 to freeze it; 1e-5,1e-4,1e-3 for three groups if not given",
    )
    parser.add_argument("--optimizer", default=_DEFAULTS.optimizer, choices=list(OPTIMIZERS), help="update rule")
    parser.add_argument("--weight-decay", type=float, default=_DEFAULTS.weight_decay, help="decoupled")
    parser.add_argument("--schedule", default=_DEFAULTS.schedule, choices=SCHEDULES, help="of the base rate")
    parser.add_argument("--first-cycle-epochs", type=float, default=_DEFAULTS.first_cycle_epochs, help="in epochs")
    parser.add_argument("--cycle-mult", type=float, default=_DEFAULTS.cycle_mult, help="growth of the cycles")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--cycles", type=int, default=_DEFAULTS.cycles, help="number of cycles")
    length.add_argument("--epochs", type=int, help="length in epochs, instead of --cycles")
    parser.add_argument("--batch-size", type=int, default=_DEFAULTS.batch_size, help="in images")
    parser.add_argument("--augment", action=argparse.BooleanOptionalAction, default=True, help="flip, shift, zoom")
    parser.add_argument("--batch-norm", default=_DEFAULTS.batch_norm, choices=BATCH_NORM, help="layers of the backbone")
    parser.add_argument("--seed", type=int, default=_DEFAULTS.seed, help="of weights, order and augmentation")
    parser.add_argument("--strict", action="store_true", help="a broken photo is an error")
    parser.add_argument("--out", type=Path, help="run folder; runs/NAME of the photos' folder if not given")
    parser.add_argument("--resume", action="store_true", help="go on after the last finished epoch of the run folder")


def _finetune(options: argparse.Namespace) -> None:
    fields = FineTuneSettings.__dataclass_fields__
    settings = FineTuneSettings(**{name: value for name, value in vars(options).items() if name in fields})
    if options.out is None:
        options.out = Path("runs") / Path(options.photos).resolve().name
    console = _console()
    with ProgressDisplay(console) as progress:
        run = train_classifier(settings, options.out, resume=options.resume, callbacks=[progress])
    console.print(_summary(run))
    console.print(f"Model, history and pictures are in {run.folder}", soft_wrap=True, highlight=False)


def _summary(run: FineTuneRun) -> Any:
    table = _table("validation accuracy", "epoch kept", "seconds", *(f"peak rate {name}" for name in run.groups.names))
    rates = [f"{rate:.3g}" for rate in run.rates]
    table.add_row(f"{run.accuracy:.4f}", str(run.best_epoch), f"{run.seconds:.0f}", *rates)
    return table


def _add_schedule(commands: Any) -> None:
    parser = _command(commands, "schedule", _schedule, "print a schedule's cycles, and draw it")
    parser.add_argument("name", choices=SCHEDULES, help="the schedule")
    parser.add_argument("--lr-max", type=float, default=1e-3, help="peak rate")
    parser.add_argument("--lr-min", type=float, default=0.0, help="rate that each cycle falls to")
    parser.add_argument("--first-cycle-steps", type=int, default=100, help="in optimizer steps")
    parser.add_argument("--cycle-mult", type=float, default=1.0, help="growth of the cycles")
    parser.add_argument("--peak-decay", type=float, default=1.0, help="factor on the peak from cycle to cycle")
    parser.add_argument("--steps", type=int, required=True, help="length of the run in optimizer steps")
    parser.add_argument("--png", type=Path, metavar="FILE", help="picture to write")


def _schedule(options: argparse.Namespace) -> None:
    n_steps = _checks.integer("steps", options.steps, minimum=1, unit="in optimizer steps")
    schedule = _named_schedule(options, n_steps)
    console = _console()
    ends = schedule.cycle_ends(n_steps) if isinstance(schedule, WarmRestarts) else []
    starts = [0, *(end + 1 for end in ends if end + 1 < n_steps)]
    table = _table("cycle", "first step", "last step", "first rate", "last rate")
    for number, start in enumerate(starts, 1):
        last = starts[number] - 1 if number < len(starts) else n_steps - 1
        whole = "" if last in ends or not isinstance(schedule, WarmRestarts) else " (cut short)"
        rates = (f"{schedule.sample(1, step)[0]:.4g}" for step in (start, last))
        table.add_row(str(number), str(start), f"{last}{whole}", *rates)
    console.print(table)
    if options.png is not None:
        save_schedule_picture(schedule, n_steps, options.png)
        console.print(f"Picture: {options.png}", soft_wrap=True, highlight=False)


def _named_schedule(options: argparse.Namespace, n_steps: int) -> Schedule:
    if options.name == "constant":
        return Constant(options.lr_max)
    if options.name == "cosine":
        return Cosine(options.lr_max, n_steps, options.lr_min)
    return WarmRestarts(
        options.lr_max, options.first_cycle_steps, options.cycle_mult, options.lr_min, options.peak_decay
    )


def _add_groups(commands: Any) -> None:
    parser = _command(commands, "groups", _groups, "print the layer groups of a network with a new head")
    _add_backbone(parser)
    parser.add_argument("--rates", type=_numbers, metavar="R,R,R", help="peak rate per group")
    parser.add_argument("--list", action="store_true", help="print the names of all backbones instead")


def _groups(options: argparse.Namespace) -> None:
    if options.list:
        _print("\n".join(backbone_names()))
        return
    settings = FineTuneSettings(
        photos="", backbone=options.backbone, split=options.split, rates=options.rates, image_size=options.image_size
    )
    _, groups = build_classifier(settings, n_classes=2, weights=None)
    _print(str(groups.with_rates(rates_of(settings, groups))))


def _add_predict(commands: Any) -> None:
    parser = _command(commands, "predict", _predict, "classify photos with the model of a run folder")
    parser.add_argument("run", help="run folder")
    parser.add_argument("photos", nargs="+", metavar="PHOTO_OR_FOLDER", help="photos, and folders of photos")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table to a file instead")


def _predict(options: argparse.Namespace) -> None:
    predictions = predict_photos(options.run, options.photos)
    rows = [[_printable(p.path), p.class_name, f"{p.probability:.4f}"] for p in predictions]
    header = ["photo", "class", "probability"]
    console = _console()
    if options.csv is None and not console.is_terminal:
        _print("\n".join("\t".join(row) for row in [header, *rows]))
    elif options.csv is None:
        table = _table(*header)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        write_text(options.csv, text.getvalue())
        _print(f"{len(rows)} photos: {options.csv}")
    share = accuracy(predictions)
    if share is not None:
        judged = sum(prediction.truth is not None for prediction in predictions)
        _print(f"accuracy {share:.4f} on the {judged} photos in class folders")


def _printable(path: Path) -> str:
    """A path as text that can be encoded, also where the name of the file is not UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _console() -> Any:
    return _checks.extra("rich.console", "cli", "The command line").Console(markup=False, emoji=False)


def _table(*columns: str) -> Any:
    rich_table = _checks.extra("rich.table", "cli", "The command line")
    box = _checks.extra("rich.box", "cli", "The command line")
    table = rich_table.Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(text: str) -> None:
    print(text)


def _say(text: str) -> None:
    print(f"kadence: {text}", file=sys.stderr)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning)):
        _say(f"warning: {message}")


if __name__ == "__main__":
    raise SystemExit(main())
