"""What is wrong, or worth a look, in a run that has not begun: one rule per function."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kadence import _checks
from kadence._planned_run import USUAL_PEAKS, PlannedRun
from kadence._text import counted
from kadence.durations import RunLength
from kadence.schedules import Schedule, WarmRestarts

#: How far from the present number of epochs a better one is looked for.
_WINDOW = 1_000_000


@dataclass(frozen=True)
class Finding:
    """Something in a planned run that is wrong or worth a look.

    Args:
        name: Which rule found it, such as "mid-cycle".
        severity: "warning" for what is seldom meant, "note" for what often is.
        what: What happens, a sentence or more.
        change: The change to make.
    """

    name: str
    severity: str
    what: str
    change: str

    def __post_init__(self) -> None:
        _checks.one_of("severity", self.severity, ("warning", "note"))

    def __str__(self) -> str:
        return f"{self.severity}: {self.what} {self.change}"


def findings(run: PlannedRun) -> tuple[Finding, ...]:
    """What the rules find, warnings first.

    Args:
        run: The `PlannedRun`.

    Returns:
        Tuple of `Finding`.
    """
    broken = tuple(_not_finite(run))
    if broken:
        return broken
    found = [finding for rule in _RULES for finding in rule(run)]
    return tuple(sorted(found, key=lambda finding: finding.severity != "warning"))


def mid_cycle(schedule: Schedule, length: RunLength, counts: int = 1, start: int = 0) -> Finding | None:
    """Whether a run ends in the middle of a cycle, and the nearest lengths that do not.

    Args:
        schedule: The `Schedule`.
        length: The `RunLength`.
        counts: Steps of the schedule in one update. Integer >= 1.
        start: Optimizer steps that were done before the run. Integer >= 0.

    Returns:
        `Finding` or None.
    """
    done = (start + length.n_steps) * counts
    if done > _checks.MAX_STEPS or schedule.cycle_of(done - 1)[1] < done - 1 + counts:
        return None
    rate = float(schedule.at(done - 1))
    if length.epochs is None:
        unit, n_units, budgets = "update", length.n_steps, _nearest_steps(schedule, done, counts, start)
    else:
        unit, n_units, budgets = "epoch", length.epochs, _nearest_epochs(schedule, length, counts, start)
    nearest = " and ".join(counted(budget, unit) for budget in budgets)
    solved = "`kadence.solve_cycles` gives cycles that end here. " if _has_restarts(schedule) else ""
    return Finding(
        "mid-cycle",
        "warning",
        f"The run of {counted(n_units, unit)} ends in the middle of a cycle, at a rate of {rate:.3g}.",
        f"{solved}Nearest budgets that do not: {nearest or f'none of a whole number of {unit}s'}.",
    )


def _has_restarts(schedule: Schedule) -> bool:
    """Whether the cycles are those of which `solve_cycles` gives the arguments."""
    return isinstance(schedule, WarmRestarts) or any(map(_has_restarts, schedule.parts))


def _ends_a_cycle(schedule: Schedule, done: np.ndarray, counts: int) -> np.ndarray:
    """Whether a run that has done so many steps of the schedule, 1 or more, does its last update at a cycle's end."""
    possible = (done >= 1) & (done <= _checks.MAX_STEPS)
    first, last = schedule.cycle_of(np.where(possible, done, 1) - 1)
    return possible & (first >= 0) & (last < done - 1 + counts)


def _nearest_steps(schedule: Schedule, done: int, counts: int, start: int) -> list[int]:
    first, last = (int(bound) for bound in schedule.cycle_of(done - 1))
    updates = np.array([first // counts, -(-(last + 1) // counts)])
    good = updates[(updates > start) & _ends_a_cycle(schedule, updates * counts, counts)]
    return (good - start).tolist()


def _nearest_epochs(schedule: Schedule, length: RunLength, counts: int, start: int) -> list[int]:
    epochs = length.epochs or 0.0
    near = int(epochs)
    candidates = np.arange(max(1, near - _WINDOW), min(int(20 * epochs) + 20, near + _WINDOW))
    done = (start + candidates * (length.batches_per_epoch or 0) // length.accumulation) * counts
    good = candidates[_ends_a_cycle(schedule, done, counts)]
    return [*good[good < epochs][-1:].tolist(), *good[good > epochs][:1].tolist()]


def _mid_cycle(run: PlannedRun) -> Iterator[Finding]:
    finding = mid_cycle(run.schedule, run.length, run.counts, run.start) if run.schedule is not None else None
    if finding is not None:
        yield finding


def _rises_to_the_end(run: PlannedRun) -> Iterator[Finding]:
    updates = np.arange(run.start, run.end)
    scheduled = {"the schedule": (run.schedule, run.schedule_steps())}
    scheduled |= {f"the factor of {name}": (factor, updates) for name, factor in run.multipliers.items()}
    for name, (schedule, steps) in scheduled.items():
        if not isinstance(schedule, Schedule):
            continue
        rates = schedule.at(steps)
        # A straight line over the whole run is one step short of its end.
        reached = rates[-1] >= schedule.lr_max * (1.0 - 1.5 / len(rates))
        if not reached and rates[-1] > rates[0] and np.all(np.diff(rates) >= 0.0):
            yield Finding(
                "warmup-too-long",
                "warning",
                f"The warm-up is longer than the run: {name} still rises at the end, "
                f"at {rates[-1]:.3g} of a peak of {schedule.lr_max:.3g}.",
                f"Let it reach its peak well before step {run.end:,}.",
            )


def _peak_at_the_floor(run: PlannedRun) -> Iterator[Finding]:
    if run.schedule is None:
        return
    steps = run.schedule_steps()
    rates, (first, _) = run.schedule.at(steps), run.schedule.cycle_of(steps)
    starts = np.flatnonzero(np.diff(first, prepend=first[0] - 1))
    lengths = np.diff(starts, append=len(steps))
    flat = np.maximum.reduceat(rates, starts) == np.minimum.reduceat(rates, starts)
    flat &= (first[starts] >= 0) & (lengths > 1) & (rates[starts] < run.schedule.lr_max)
    if flat.any():
        step = int(starts[flat][0])
        yield Finding(
            "floor-above-peak",
            "warning",
            f"From step {step:,} on, the peak of a cycle has sunk to the floor: the rate stays at {rates[step]:.3g}.",
            "Raise `peak_decay` or lower `lr_min`.",
        )


def _begins_at_zero(run: PlannedRun) -> Iterator[Finding]:
    if run.schedule is None:
        return
    above = np.flatnonzero(run.schedule.at(run.schedule_steps()))
    if len(above) and above[0] > 1:
        yield Finding(
            "begins-at-zero",
            "note",
            f"The rate is 0 for the first {above[0]:,} updates: nothing is trained.",
            "If that is not meant: a warm-up rises to the schedule's first rate, so leave it out before one that is 0.",
        )


def _no_rate(run: PlannedRun) -> Iterator[Finding]:
    still = [name for name, rates in run.rates.items() if not rates.any()]
    if len(still) == len(run.rates):
        yield Finding("no-rate", "warning", "Every rate is 0 throughout: nothing is trained.", "Give a group a rate.")
    elif still:
        yield Finding(
            "no-rate",
            "note",
            f"The rate of {', '.join(still)} is 0 throughout: its weights stay as they are.",
            "If that is meant, `layer.trainable = False` saves the time and the memory of its gradients.",
        )


def _not_finite(run: PlannedRun) -> Iterator[Finding]:
    for name, rates in run.rates.items():
        wrong = np.flatnonzero(~np.isfinite(rates) | (rates < 0.0))
        if len(wrong):
            yield Finding(
                "not-a-rate",
                "warning",
                f"The rate of {name} is {rates[wrong[0]]:g} at step {wrong[0]:,}.",
                "Mend the function of the schedule: a rate is finite and >= 0.",
            )


def _accumulation(run: PlannedRun) -> Iterator[Finding]:
    length = run.length
    batches, accumulation = length.batches_per_epoch, length.accumulation
    if batches is not None and batches % accumulation:
        left = round((length.epochs or 0.0) * batches) - length.n_steps * accumulation
        yield Finding(
            "accumulation",
            "note",
            f"The {batches:,} batches of an epoch are not a multiple of accumulation={accumulation}: the run has "
            f"{counted(length.n_steps, 'update')}, some with batches of two epochs"
            + (f", and its last {left} batches are in none." if left > 0 else "."),
            f"For the same updates in every epoch, change the batch size so that {accumulation} divides the batches.",
        )
    elif batches is not None and accumulation > 1 and run.counts == 1:
        yield Finding(
            "accumulation",
            "note",
            f"{accumulation} batches make one update: an epoch of {batches:,} batches has {batches // accumulation:,} "
            f"updates, the run {length.n_steps:,}.",
            "Give the lengths of schedules in updates, not in batches.",
        )
    if run.counts > 1:
        yield Finding(
            "micro-batches",
            "warning",
            f"Keras counts batches in its schedules, not updates: the schedule runs {run.counts} times as fast as "
            "the updates.",
            "Put the optimizer into a `kadence.DiscriminativeOptimizer`, which counts updates, "
            f"or make every length of the schedule {run.counts} times as long.",
        )


def _other_length(run: PlannedRun) -> Iterator[Finding]:
    end, done = None if run.schedule is None else run.schedule.end_step, run.end * run.counts
    if run.schedule is None or end is None or end == done:
        return
    unit = "optimizer steps" if run.counts == 1 else "batches"
    last = float(run.schedule.at(min(done - 1, _checks.MAX_STEPS)))
    change = f"Make it {done:,} {unit} long."
    near = abs(end - done) <= max(1, done // 100)
    if end < done and last >= run.schedule.lr_max:
        return
    if end < done:
        severity = "note" if near or last > 0.0 else "warning"
        what = f"The schedule ends at step {end:,} of {done:,}: from there on the rate stays at {last:.3g}."
        yield Finding("schedule-too-short", severity, what, change)
    else:
        severity = "note" if near else "warning"
        where = f"the run ends at {done:,}" if run.start else f"the run {done:,}"
        what = f"The schedule is {end:,} {unit} long, {where}: it breaks off at a rate of {last:.3g}."
        yield Finding("schedule-too-long", severity, what, change)


def _unusual_peak(run: PlannedRun) -> Iterator[Finding]:
    peaks = {name: float(rates.max()) for name, rates in run.rates.items()}
    group = max(peaks, key=lambda name: peaks[name])
    low, high = USUAL_PEAKS.get(run.optimizer_name or "", (0.0, np.inf))
    if peaks[group] > 0.0 and not low <= peaks[group] <= high:
        side = "below" if peaks[group] < low else "above"
        yield Finding(
            "unusual-rate",
            "warning",
            f"The largest rate, {peaks[group]:.3g} ({group}), is {side} what is usual for fine-tuning with "
            f"{run.optimizer_name}, {low:g} to {high:g}.",
            "A rule of thumb: if the rate is meant, measure it with a learning-rate range test.",
        )


_RULES: tuple[Callable[[PlannedRun], Iterator[Any]], ...] = (
    _mid_cycle,
    _rises_to_the_end,
    _peak_at_the_floor,
    _other_length,
    _begins_at_zero,
    _accumulation,
    _no_rate,
    _unusual_peak,
)
