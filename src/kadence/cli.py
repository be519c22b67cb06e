"""The `kadence` command: flags and files -> the calls of the other modules."""

import argparse
import contextlib
import csv
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from kadence import _checks
from kadence._compare_command import add_compare
from kadence._find_command import add_find
from kadence._flags import DEFAULTS, add_backbone, add_photos, add_training, settings_of
from kadence._rate_search import FIND_STEPS
from kadence._recipe_run import fine_tune_classifier
from kadence._schedule_commands import add_plan, add_schedule
from kadence._terminal import (
    add_command,
    check_files,
    console,
    numbers,
    printable,
    rich_table,
    say,
    show_warnings,
    write_line,
)
from kadence.backbones import backbone_names
from kadence.callbacks import LossNotFiniteError
from kadence.callbacks.progress import ProgressDisplay
from kadence.classifier import build_classifier, rates_of
from kadence.doctor import check_file
from kadence.groups import LayerGroups
from kadence.predict import accuracy, predict_photos
from kadence.records import write_text
from kadence.replicas import find_replicas
from kadence.run import train_classifier
from kadence.settings import SCHEDULES, FineTuneSettings

_EXPECTED = (ValueError, TypeError, OSError, ImportError, LossNotFiniteError)
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Words after `kadence`; by default those of the process.

    Returns:
        Exit code: 0, 1 after an error, 130 after Ctrl-C; argparse itself exits with 2 for a wrong flag.
    """
    options = _parser().parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else list(arguments)
    show_warnings()
    try:
        options.command(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        out = getattr(options, "out", None)
        begun = hasattr(options, "resume") and out is not None and (out / "run.json").is_file()
        how = f"Go on with the same command and --resume (run folder {out})." if begun else ""
        say(f"Stopped. {getattr(options, 'stopped', how)}".rstrip())
        return _INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # or Python writes what is left once more, and complains
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if options.only_prints:  # whoever reads it, such as `head`, has enough
            return 0
        with contextlib.suppress(OSError):
            say("error: the output is no longer read, and the command broke off.")
        return 1
    except _EXPECTED as error:
        if options.traceback:
            raise
        say(f"error: {error}")
        return 1
    return 0


def command() -> NoReturn:
    """Run the command as a process, and end it with its exit code."""
    code = main()
    if code == _INTERRUPTED:
        # The step that Ctrl-C cut off goes on in threads of JAX, which crash if Python is taken down around them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kadence", description="Learning rates for Keras 3: layer groups, warm restarts, and what they did."
    )
    parser.add_argument("--traceback", action="store_true", help="show the Python traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_finetune(commands)
    add_compare(commands)
    add_find(commands)
    add_schedule(commands)
    add_plan(commands)
    _add_groups(commands)
    _add_doctor(commands)
    _add_predict(commands)
    return parser


def _add_finetune(commands: Any) -> None:
    parser = add_command(commands, "finetune", _finetune, "fine-tune a pretrained network on a folder of photos")
    add_photos(parser)
    add_backbone(parser)
    text = (
        "auto: the head first, then all groups, at lower rates towards the input, which a range test bounds; plain: "
        "all groups from the start, by the flags of plain training, any of which asks for it"
    )
    parser.add_argument("--recipe", choices=("auto", "plain"), help=f"{text} (default: auto)")
    add_training(parser)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, help="length in epochs, that of the head included; 7 if not given")
    _add_plain(parser.add_argument_group("plain training"), length)
    parser.add_argument(
        "--snapshots", action="store_true", help="train in cycles, and keep the weights at the end of each"
    )
    parser.add_argument("--out", type=Path, help="run folder; runs/NAME of the photos' folder if not given")
    parser.add_argument("--resume", action="store_true", help="go on after the last finished epoch of the run folder")


def _add_plain(parser: Any, length: Any) -> None:
    """The flags of plain training; those that are not given are not in the parsed flags."""

    def add(name: str, text: str, to: Any = parser, **how: Any) -> None:
        to.add_argument(name, default=argparse.SUPPRESS, help=text, **how)

    text = (
        "peak rate per group, 0 to freeze it; 1e-5,1e-4,1e-3 for three groups if not given; `find` finds the last by a "
        "range test, and keeps the ratios of the others to it"
    )
    add("--rates", text, type=_rates_or_find, metavar="R,R,R|find")
    add("--schedule", f"of the base rate (default: {DEFAULTS.schedule})", choices=SCHEDULES)
    text = f"length of the first cycle in epochs (default: {DEFAULTS.first_cycle_epochs})"
    add("--first-cycle-epochs", text, type=float, metavar="N")
    add("--cycle-mult", f"growth of the cycles (default: {DEFAULTS.cycle_mult})", type=float, metavar="X")
    add(
        "--cycles", f"number of cycles, instead of --epochs (default: {DEFAULTS.cycles})", length, type=int, metavar="N"
    )
    text = "straight rise of the rates from 0, in each cycle of warm restarts; 0.5ep, 5%% of the run, or 50st"
    add("--warmup", f"{text} (default: {DEFAULTS.warmup})", metavar="TIME")
    text = "devices that share a step, on JAX; rates are scaled for the larger batch, by 'linear' for sgd, else 'sqrt'"
    add("--replicas", f"{text} (default: {DEFAULTS.replicas})", type=_replicas, metavar="N|auto")


def _recipe(options: argparse.Namespace) -> str:
    """The recipe that the flags ask for."""
    names = ("rates", "schedule", "first_cycle_epochs", "cycle_mult", "cycles", "warmup", "replicas")
    plain = [name for name in names if hasattr(options, name)]
    if options.recipe == "auto" and plain:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in plain)
        rule = f"be 'plain' beside {flags}, of plain training"
        raise ValueError(_checks.sentence("recipe", rule, options.recipe, "Leave one or the other out."))
    unused = [f"--{name.replace('_', '-')}" for name in plain if name in ("first_cycle_epochs", "cycle_mult")]
    if unused and options.epochs is not None and getattr(options, "schedule", DEFAULTS.schedule) != "warm-restarts":
        rule = f"be 'warm-restarts' beside {' and '.join(unused)} and --epochs: other schedules have no cycles"
        raise ValueError(_checks.sentence("schedule", rule, options.schedule, "Leave one or the other out."))
    return options.recipe or ("plain" if plain else "auto")


def _replicas(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text


def _rates_or_find(text: str) -> tuple[float, ...] | str:
    return text if text == "find" else numbers(text)


def _finetune(options: argparse.Namespace) -> None:
    train = _finetune_auto if _recipe(options) == "auto" else _finetune_plain
    if getattr(options, "rates", None) == "find":
        options.rates, options.find_rates = None, True
    settings = settings_of(options)
    if options.out is None:
        options.out = Path("runs") / Path(options.photos).resolve().name
    train(options, settings, console())


def _finetune_auto(options: argparse.Namespace, settings: FineTuneSettings, terminal: Any) -> None:
    with ProgressDisplay(terminal) as progress:
        result = fine_tune_classifier(
            settings,
            options.out,
            options.resume,
            [progress],
            options.snapshots,
            tell=progress.phase,
            find_callbacks=[progress.sweeps()],
        )
    for note in result.notes:
        say(note)
    last = result.history[-1]
    terminal.print(_summary(result.groups, result.rates, last["val_accuracy"], last["epoch"], result.seconds))
    _say_where(terminal, options.out)


def _finetune_plain(options: argparse.Namespace, settings: FineTuneSettings, terminal: Any) -> None:
    if settings.replicas != 1:
        line = find_replicas(settings.replicas).sentence(settings.optimizer, settings.batch_size)
        terminal.print(line, soft_wrap=True, highlight=False)
    with ProgressDisplay(terminal) as progress:
        run = train_classifier(
            settings,
            options.out,
            resume=options.resume,
            callbacks=[progress],
            snapshots=options.snapshots,
            find_callbacks=[progress.sweeps(FIND_STEPS)],
        )
    terminal.print(_summary(run.groups, run.rates, run.accuracy, run.best_epoch, run.seconds))
    _say_where(terminal, run.folder)


def _say_where(terminal: Any, folder: Path) -> None:
    terminal.print(f"Model, history and pictures are in {folder}", soft_wrap=True, highlight=False)


def _summary(groups: LayerGroups, peaks: Sequence[float], accuracy: float, epoch: int, seconds: float) -> Any:
    table = rich_table("validation accuracy", "epoch kept", "seconds", *(f"peak rate {name}" for name in groups.names))
    table.add_row(f"{accuracy:.4f}", str(epoch), f"{seconds:.0f}", *(f"{rate:.3g}" for rate in peaks))
    return table


def _add_groups(commands: Any) -> None:
    parser = add_command(
        commands, "groups", _groups, "print the layer groups of a network with a new head", only_prints=True
    )
    add_backbone(parser)
    parser.add_argument("--rates", type=numbers, metavar="R,R,R", help="peak rate per group")
    parser.add_argument("--list", action="store_true", help="print the names of all backbones instead")


def _groups(options: argparse.Namespace) -> None:
    if options.list:
        write_line("\n".join(backbone_names()))
        return
    settings = FineTuneSettings(
        photos="", backbone=options.backbone, split=options.split, rates=options.rates, image_size=options.image_size
    )
    _, groups = build_classifier(settings, n_classes=2, weights=None)
    write_line(str(groups.with_rates(rates_of(settings, groups))))


def _add_doctor(commands: Any) -> None:
    text = "report known traps around learning rates in a saved model"
    parser = add_command(commands, "doctor", _doctor, text, only_prints=True)
    parser.add_argument("model", metavar="MODEL.keras", help="file of a compiled model; it is read, not executed")


def _doctor(options: argparse.Namespace) -> None:
    findings = check_file(options.model)
    write_line("\n\n".join(map(str, findings)) or "No known trap around learning rates is seen in this file.")


def _add_predict(commands: Any) -> None:
    parser = add_command(
        commands, "predict", _predict, "classify photos with the model of a run folder", only_prints=True
    )
    parser.add_argument("run", help="run folder")
    parser.add_argument("photos", nargs="+", metavar="PHOTO_OR_FOLDER", help="photos, and folders of photos")
    parser.add_argument("--ensemble", action="store_true", help="average the snapshots of a run with --snapshots")
    text = "average N predictions of each photo: of itself and of N - 1 augmented views"
    parser.add_argument("--tta", type=int, default=1, metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0, help="of the views of --tta")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table to a file instead")


def _predict(options: argparse.Namespace) -> None:
    check_files(options, "csv")
    predictions = predict_photos(options.run, options.photos, options.ensemble, options.tta, options.seed)
    rows = [[printable(p.path), p.class_name, f"{p.probability:.4f}"] for p in predictions]
    header = ["photo", "class", "probability"]
    terminal, tell = console(), write_line
    if options.csv is None and not terminal.is_terminal:
        write_line("\n".join("\t".join(row) for row in [header, *rows]))
        tell = say  # the output is the table and nothing else
    elif options.csv is None:
        table = rich_table(*header)
        for row in rows:
            table.add_row(*row)
        terminal.print(table)
    else:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        write_text(options.csv, text.getvalue())
        write_line(f"{len(rows)} photos: {options.csv}")
    share = accuracy(predictions)
    if share is not None:
        judged = sum(prediction.truth is not None for prediction in predictions)
        tell(f"accuracy {share:.4f} on the {judged} photos in class folders")
