"""`kadence schedule` and `kadence plan`: flags -> a schedule -> tables and pictures."""

import argparse
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kadence import _checks, schedules
from kadence._planned_run import USUAL_PEAKS
from kadence._terminal import add_command, check_files, console, numbers, rich_table, words, write_line
from kadence.budgets import scale_for_batch, solve_cycles
from kadence.durations import RunLength, minutes_to_steps, run_length
from kadence.plan import plan
from kadence.plots import save_rates_picture, save_schedule_picture
from kadence.records import write_text
from kadence.schedules import Schedule, WarmRestarts, scale, warmup

#: Name on the command line -> what makes the schedule; its arguments are the flags.
_MAKERS = {
    "constant": schedules.Constant,
    "cosine": schedules.Cosine,
    "cyclical": schedules.Cyclical,
    "exponential": schedules.Exponential,
    "from-points": schedules.from_points,
    "inverse-square-root": schedules.InverseSquareRoot,
    "linear": schedules.Linear,
    "one-cycle": schedules.OneCycle,
    "polynomial": schedules.Polynomial,
    "slanted-triangular": schedules.SlantedTriangular,
    "step": schedules.Step,
    "warm-restarts": WarmRestarts,
    "warmup-stable-decay": schedules.WarmupStableDecay,
}
#: Argument -> flag, where another one has that name: --steps and --rates are those of the run.
_FLAGS = {"lr": "lr_max", "steps": "points", "rates": "point_rates"}
#: Flags of several times of the run -> the least steps from the end of the warm-up to the first.
_SEVERAL = {"points": 0, "at_steps": 1}
_TIME = "5ep, 10%% of the run, or 500st"
_HELP = {
    "lr_max": "peak rate",
    "lr_min": "lowest rate",
    "lr_start": "first rate",
    "lr_end": "last rate",
    "cycle_mult": "growth of the cycles",
    "peak_decay": "factor on the peak from cycle to cycle",
    "k_decay": "exponent on the elapsed share of a cycle",
    "point_rates": "rates at the --points, with commas between them",
    "points": f"times of the run, each {_TIME}, with commas between them",
    "at_steps": f"times of the run, each {_TIME}, with commas between them; one without a comma is how often",
}


def _flags(maker: Any) -> dict[str, inspect.Parameter]:
    """Flag -> the argument it gives; the length of the run is no flag of the schedule."""
    parameters = inspect.signature(maker).parameters
    return {_FLAGS.get(name, name): parameter for name, parameter in parameters.items() if name != "n_steps"}


def _option(flag: str) -> str:
    return f"--{flag.replace('_', '-')}"


def _is_time(name: str) -> bool:
    return name.endswith("_steps") or name == "points"


def add_schedules(parser: argparse.ArgumentParser, add_run_flags: Any, lr_max: float | None) -> None:
    """A command each schedule, with its arguments as flags.

    Args:
        parser: Parser that gets the commands.
        add_run_flags: Called with the parser of each, to add what is not the schedule's.
        lr_max: Default of the flag --lr-max, or None.
    """
    kinds = parser.add_subparsers(required=True, metavar="SCHEDULE", dest="name")
    for name, maker in _MAKERS.items():
        text = (inspect.getdoc(maker) or "").partition("\n")[0]
        text = text.replace("%", "%%").replace("`", "")
        kind = add_command(kinds, name, parser.get_default("command"), text, only_prints=True)
        lengths = kind.add_mutually_exclusive_group() if maker is WarmRestarts else kind
        for flag, parameter in _flags(maker).items():
            _add_flag(lengths if flag == "first_cycle_steps" else kind, flag, parameter, lr_max)
        if maker is WarmRestarts:
            text = "cycles that end with the run, instead of --first-cycle-steps"
            lengths.add_argument("--cycles", type=int, default=1, help=text)
        kind.add_argument("--warmup", metavar="TIME", default="0", help=f"straight rise before the schedule; {_TIME}")
        add_run_flags(kind)


def _add_flag(kind: Any, flag: str, parameter: inspect.Parameter, lr_max: float | None) -> None:
    default = None if parameter.default is inspect.Parameter.empty else parameter.default
    settings: dict[str, Any] = {"default": default, "help": _HELP.get(flag, f"{flag} of the schedule")}
    if _is_time(flag):
        settings["metavar"] = "TIME,TIME" if flag in _SEVERAL else "TIME"
        settings["help"] = _HELP.get(flag, f"time; {_TIME}")
    elif flag == "lr_max":
        settings |= {"type": float, "default": lr_max}
    elif flag == "point_rates":
        settings |= {"type": numbers, "metavar": "R,R"}
    elif isinstance(default, bool):
        settings["action"] = "store_true"
    elif not isinstance(default, str):
        settings["type"] = float
    kind.add_argument(_option(flag), **settings)


def make_schedule(options: argparse.Namespace, length: RunLength) -> Schedule:
    """The schedule that the flags of `add_schedules` say, over a run of that length.

    Args:
        options: The parsed flags.
        length: The `RunLength` of the run, the warm-up included.

    Returns:
        `Schedule`.

    Raises:
        ValueError: If a flag is missing or out of range.
    """
    maker, given = _MAKERS[options.name], vars(options)
    warmup_steps = length.steps(options.warmup, "warmup")
    if warmup_steps >= length.n_steps:
        rule = f"be shorter than the run of {length.n_steps} steps"
        raise ValueError(_checks.sentence("warmup", rule, options.warmup))
    rest = length.n_steps - warmup_steps
    arguments: dict[str, Any] = {}
    if maker is WarmRestarts and options.first_cycle_steps is None:
        arguments |= solve_cycles(rest, options.cycles, options.cycle_mult)._asdict()
    for flag, parameter in _flags(maker).items():
        if given[flag] is not None and parameter.name not in arguments:
            arguments[parameter.name] = _value(flag, given[flag], length, warmup_steps)
    _check_complete(maker, arguments)
    if "n_steps" in inspect.signature(maker).parameters:
        arguments["n_steps"] = rest
    schedule = _made(maker, arguments)
    return warmup(schedule, warmup_steps) if warmup_steps else schedule


def _made(maker: Any, arguments: Mapping[str, Any]) -> Schedule:
    """The schedule, or an error that names the flag where that is not the argument's name."""
    try:
        return maker(**arguments)
    except (TypeError, ValueError) as error:
        text = str(error)
        for flag, parameter in _flags(maker).items():
            text = text.replace(f"`{parameter.name}` must ", f"`{flag}` must ")
            text = text.replace(f"Received: {parameter.name}=", f"Received: {flag}=")
        raise type(error)(text) from error


def _value(flag: str, value: Any, length: RunLength, warmup_steps: int) -> Any:
    if flag == "at_steps" and "," not in value:
        return length.steps(value, flag, within=False)
    if flag in _SEVERAL:
        times = [length.steps(word, flag, within=False) for word in words(value)]
        times = _checks.increasing(flag, times, minimum=0, unit="in optimizer steps")
        if warmup_steps and times[0] < warmup_steps + _SEVERAL[flag]:
            rule = f"be after the warm-up, which ends at step {warmup_steps}"
            raise ValueError(_checks.sentence(flag, rule, value, "They are times of the run."))
        return [time - warmup_steps for time in times]
    return length.steps(value, flag, within=False) if _is_time(flag) and isinstance(value, str) else value


def _check_complete(maker: Any, arguments: Mapping[str, Any]) -> None:
    for flag, parameter in _flags(maker).items():
        if parameter.default is inspect.Parameter.empty and parameter.name not in arguments:
            raise ValueError(_checks.sentence(flag, f"be given, as {_option(flag)}", None))


def add_schedule(commands: Any) -> None:
    """The command `kadence schedule`.

    Args:
        commands: What `add_subparsers` gave for `kadence`; it gets the command.
    """
    parser = add_command(commands, "schedule", _schedule, "print a schedule's cycles, and draw it", only_prints=True)

    def add_run_flags(kind: argparse.ArgumentParser) -> None:
        kind.add_argument("--steps", type=int, required=True, help="length of the run in optimizer steps")
        kind.add_argument("--steps-per-epoch", type=int, help="optimizer steps in an epoch, for times in epochs")
        kind.add_argument("--png", type=Path, metavar="FILE", help="picture to write")

    add_schedules(parser, add_run_flags, lr_max=1e-3)


def _schedule(options: argparse.Namespace) -> None:
    n_steps = _checks.integer("steps", options.steps, minimum=1, unit="in optimizer steps")
    check_files(options, "png")
    schedule = make_schedule(options, run_length(n_steps=n_steps, steps_per_epoch=options.steps_per_epoch))
    cycles = [(c.first_step, c.last_step, c.whole) for c in plan(schedule, n_steps=n_steps).cycles]
    table = rich_table("cycle", "first step", "last step", "first rate", "last rate")
    for number, (first, last, whole) in enumerate(cycles or [(0, n_steps - 1, True)], 1):
        rates = (f"{schedule.sample(1, step)[0]:.4g}" for step in (first, last))
        table.add_row(str(number), str(first), f"{last}{'' if whole else ' (cut short)'}", *rates)
    terminal = console()
    terminal.print(table)
    if options.png is not None:
        save_schedule_picture(schedule, n_steps, options.png)
        terminal.print(f"Picture: {options.png}", soft_wrap=True, highlight=False)


def add_plan(commands: Any) -> None:
    """The command `kadence plan`.

    Args:
        commands: What `add_subparsers` gave for `kadence`; it gets the command.
    """
    text = "show what a run will be trained with, and what is wrong with it"
    add_schedules(add_command(commands, "plan", _plan, text, only_prints=True), _add_plan_flags, lr_max=None)


def _add_plan_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rates", type=numbers, metavar="R,R,R", help="peak rate per group")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--epochs", type=int, help="length of the run in epochs")
    length.add_argument("--steps", type=int, help="length of the run in optimizer steps")
    length.add_argument("--minutes", type=float, help="length of the run in minutes, with --seconds-per-step")
    parser.add_argument("--seconds-per-step", type=float, help="measured time of an optimizer step")
    parser.add_argument("--samples", type=int, help="samples in the training data")
    parser.add_argument("--batch-size", type=int, default=32, help="in samples")
    parser.add_argument("--accumulation", type=int, default=1, help="batches in an optimizer step")
    parser.add_argument("--base-batch-size", type=int, help="samples per step for which the rates were found")
    parser.add_argument("--batch-rule", choices=("linear", "sqrt"), help="from one to the other; linear by default")
    parser.add_argument("--optimizer", choices=sorted(USUAL_PEAKS), help="whose usual rates to compare with")
    parser.add_argument("--png", type=Path, metavar="FILE", help="picture to write")
    parser.add_argument("--json", type=Path, metavar="FILE", help="plan to write, every rate of it")


def _plan(options: argparse.Namespace) -> None:
    check_files(options, "png", "json")
    length, factor = _planned_length(options), _batch_factor(options)
    rates = None if options.rates is None else _peaks(options)
    if getattr(options, "lr_max", 0.0) is None:
        options.lr_max = 1e-3 if rates is None else max(rates)
    schedule = make_schedule(options, length)
    if factor != 1.0:
        schedule = scale(schedule, factor)
        rates = None if rates is None else [rate * factor for rate in rates]
    result = plan(schedule, length=length, learning_rates=rates, optimizer_name=options.optimizer)
    write_line(str(result))
    if options.png is not None:
        save_rates_picture(result.to_record(), options.png)
        write_line(f"Picture: {options.png}")
    if options.json is not None:
        write_text(options.json, result.to_json())
        write_line(f"Plan: {options.json}")


def _peaks(options: argparse.Namespace) -> list[float]:
    """The peak of each group, the largest of which is that of the schedule."""
    rates = [_checks.number("rates", rate, minimum=0.0) for rate in options.rates]
    if not any(rates):
        raise ValueError(_checks.sentence("rates", "have a rate above 0", options.rates))
    if getattr(options, "lr_max", None) is not None:
        rule = "be left out beside --rates, the largest of which it is"
        raise ValueError(_checks.sentence("lr_max", rule, options.lr_max))
    return rates


def _batch_factor(options: argparse.Namespace) -> float:
    """What the batch makes of rates that were found for --base-batch-size."""
    if options.batch_rule is not None and options.base_batch_size is None:
        raise ValueError(_checks.sentence("batch_rule", "come with --base-batch-size", options.batch_rule))
    batch = _checks.integer("batch_size", options.batch_size, minimum=1, unit="in samples") * options.accumulation
    base = batch if options.base_batch_size is None else options.base_batch_size
    return scale_for_batch(1.0, batch, base, options.batch_rule or "linear")


def _planned_length(options: argparse.Namespace) -> RunLength:
    if (options.minutes is None) != (options.seconds_per_step is None):
        received = {"minutes": options.minutes, "seconds_per_step": options.seconds_per_step}
        raise ValueError(_checks.sentence("minutes", "be given together with `seconds_per_step`", received))
    if options.epochs is not None and options.samples is None:
        raise ValueError(_checks.sentence("epochs", "come with --samples, the samples of an epoch", options.epochs))
    n_steps = options.steps
    if options.minutes is not None:
        n_steps = minutes_to_steps(options.minutes, options.seconds_per_step)
    data = {} if options.samples is None else {"n_samples": options.samples, "batch_size": options.batch_size}
    length = run_length(epochs=options.epochs, n_steps=n_steps, accumulation=options.accumulation, **data)
    return length.whole_epochs() if options.minutes is not None else length
