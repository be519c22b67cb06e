"""A run before it runs: every group's rate at every update, its cycles, and what is wrong with it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._findings import Finding, findings
from kadence._planned_run import PlannedRun, accumulation_of, length_of, run_of_optimizer, run_of_schedule
from kadence._text import rate_lines, spark_lines, sparkline, table
from kadence._updates import KerasSchedule, innermost
from kadence.durations import RunLength
from kadence.groups import LayerGroups
from kadence.records import RateRecord
from kadence.schedules import Schedule


@dataclass(frozen=True)
class Cycle:
    """A cycle of a planned run.

    Args:
        first_step: Its first optimizer step in the run. Integer >= 0.
        last_step: Its last optimizer step in the run.
        first_epoch: Epoch of its first step, from 1, or None where the length of an epoch is not known.
        last_epoch: Epoch of its last step, from 1, or None.
        whole: Whether the run, or the schedule's part of a `join`, goes on to the end of the cycle.
    """

    first_step: int
    last_step: int
    first_epoch: int | None
    last_epoch: int | None
    whole: bool


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run will be trained with; `str()` gives tables, with a line per group that shows its rates.

    Args:
        length: The `RunLength`.
        rates: Group name -> learning rate at every optimizer step. Arrays of shape (n_steps,), float64.
        cycles: The cycles of the base schedule, each a `Cycle`; empty for a schedule without cycles.
        findings: What is wrong or worth a look, each a `Finding`, warnings first.
        schedule: The schedule of the base rate, as text, with the step that the run begins at if that is not 0.

    Raises:
        ValueError: If there is no group, or the arrays do not have the length of the run.
    """

    length: RunLength
    rates: Mapping[str, np.ndarray]
    cycles: tuple[Cycle, ...] = ()
    findings: tuple[Finding, ...] = ()
    schedule: str = ""

    def __post_init__(self) -> None:
        rates = {name: np.asarray(rate, np.float64) for name, rate in self.rates.items()}
        shapes = {rate.shape for rate in rates.values()}
        if shapes != {(self.n_steps,)}:
            raise ValueError(_checks.sentence("rates", f"be arrays of shape ({self.n_steps},)", sorted(shapes)))
        object.__setattr__(self, "rates", rates)

    @property
    def n_steps(self) -> int:
        """Optimizer updates in the run."""
        return self.length.n_steps

    @property
    def steps_per_epoch(self) -> float | None:
        """Optimizer updates in an epoch, or None where the length of an epoch is not known."""
        return self.length.steps_per_epoch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.to_json() == other.to_json()

    def to_record(self) -> RateRecord:
        """The rates as a record without losses, which `plot_rates` draws.

        Returns:
            `RateRecord` with one row per optimizer step.
        """
        return RateRecord(np.arange(self.n_steps), self.rates, np.full(self.n_steps, np.nan))

    def sparkline(self, group: str, width: int = 60, log: bool = False) -> str:
        """A line of blocks that shows the rates of a group, from 0 to its peak; a rate of 0 is a dot.

        Args:
            group: Name of the group.
            width: Number of characters, fewer for a shorter run; each is the mean rate of its steps. Integer >= 1.
            log: Whether the height of a block is the logarithm of the rate, over four decades.

        Returns:
            String of at most `width` characters.

        Raises:
            ValueError: If there is no such group, or `width` is not positive.
        """
        _checks.one_of("group", group, list(self.rates))
        width = _checks.integer("width", width, minimum=1, unit="in characters")
        return sparkline(self.rates[group], width, log)

    def to_json(self) -> str:
        """The plan as JSON text; a rate that is not finite is an error."""
        content = {
            "kadence": "plan",
            "version": 1,
            "schedule": self.schedule,
            "length": dataclasses.asdict(self.length),
            "cycles": [dataclasses.asdict(cycle) for cycle in self.cycles],
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "rates": {name: rate.tolist() for name, rate in self.rates.items()},
        }
        return json.dumps(content, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan that `to_json` wrote.

        Args:
            text: Result of `to_json`.

        Returns:
            `Plan`.

        Raises:
            ValueError: If the text is not such a plan.
        """
        rule = 'be JSON of a plan, {"kadence": "plan", "version": 1, ...}'
        try:
            content: Any = json.loads(text)
            if not isinstance(content, dict) or content.get("kadence") != "plan" or content.get("version") != 1:
                raise ValueError(_checks.sentence("text", rule, text[:80]))
            return cls(
                RunLength(**content["length"]),
                content["rates"],
                tuple(Cycle(**cycle) for cycle in content["cycles"]),
                tuple(Finding(**finding) for finding in content["findings"]),
                content["schedule"],
            )
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(_checks.sentence("text", rule, text[:80])) from error

    def __str__(self) -> str:
        shown = self.schedule if len(self.schedule) <= 200 else self.schedule[:197] + "..."
        parts = [[shown, str(self.length)], rate_lines(self.rates), spark_lines(self.rates), self._cycle_lines()]
        parts.append([f"{finding.severity}: {finding.what}\n  {finding.change}" for finding in self.findings])
        return "\n\n".join("\n".join(lines) for lines in parts if lines)

    def _cycle_lines(self) -> list[str]:
        rows = [["cycle", "first step", "last step", "first epoch", "last epoch", ""]]
        for number, cycle in enumerate(self.cycles, 1):
            steps = [f"{number:,}", f"{cycle.first_step:,}", f"{cycle.last_step:,}"]
            epochs = ["-" if epoch is None else f"{epoch:,}" for epoch in (cycle.first_epoch, cycle.last_epoch)]
            rows.append([*steps, *epochs, "" if cycle.whole else "cut short"])
        lines = table(rows)
        if len(lines) > 12:
            lines[7:-2] = [f"  ... {len(lines) - 9:,} more"]
        return lines if self.cycles else []


def plan(
    schedule_or_optimizer: Any,
    *,
    epochs: int | None = None,
    n_steps: int | None = None,
    n_samples: int | None = None,
    batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    accumulation: int | None = None,
    length: RunLength | None = None,
    groups: LayerGroups | Sequence[str] | None = None,
    lr_multipliers: Sequence[float | Schedule] | None = None,
    learning_rates: Sequence[float] | None = None,
    optimizer_name: str | None = None,
) -> Plan:
    """What a run will be trained with, before it runs: rates, cycles, and findings.

    The length of the run is `epochs` or `n_steps`, one of the two. The length of an epoch is `steps_per_epoch`, or
    `n_samples` with `batch_size`; `epochs` needs one of these, and `n_steps` goes without. Or all of that is `length`.

    The run of a schedule begins at its step 0, that of an optimizer at the optimizer's present step, `iterations`; the
    steps and epochs of the plan count from there.

    Args:
        schedule_or_optimizer: A `Schedule` of the base rate; a Keras optimizer, that of a compiled model for example,
            wrapped or not; or a function that makes either, which is given a function from a duration such as "10%",
            "2ep" or "500st" to optimizer steps.
        epochs: Length of the run in epochs. Integer >= 1.
        n_steps: Length of the run in optimizer steps. Integer from 1 to 10,000,000.
        n_samples: Samples in the training data; the last batch of an epoch may be smaller. Integer >= 1.
        batch_size: Samples in a batch. Integer >= 1.
        steps_per_epoch: Optimizer updates in an epoch. Integer >= 1.
        accumulation: Batches in one update. Integer >= 1; None for the optimizer's own, or 1.
        length: Instead of all these, the `RunLength` that `kadence.durations.run_length` makes of them.
        groups: With a schedule, `LayerGroups` or the groups' names; None for the single group "all", or as many as
            there are factors.
        lr_multipliers: With a schedule, factor on its rate, one per group: floats >= 0, or `Schedule`s.
        learning_rates: With a schedule, instead of `lr_multipliers`, the peak rate of each group. Floats >= 0.
        optimizer_name: With a schedule, name of the Keras optimizer it is meant for, such as "adam", whose usual rates
            are known. String or None.

    Returns:
        `Plan`.

    Raises:
        ValueError: If the length of the run or of an epoch is given not at all or twice, a value is out of range, or
            there is not one factor per group.
        TypeError: If an argument has the wrong type.

    Example:
        >>> schedule = kadence.WarmRestarts(1e-2, first_cycle_steps=100, cycle_mult=2)
        >>> print(kadence.plan(schedule, epochs=5, n_samples=3_200, batch_size=32, learning_rates=[1e-4, 1e-2]))
        >>> kadence.plan(lambda steps: kadence.warmup(kadence.Cosine(1e-3, steps("90%")), steps("10%")), n_steps=500)
    """
    known: dict[str, Any] = {"epochs": epochs, "n_steps": n_steps, "n_samples": n_samples, "batch_size": batch_size}
    known |= {"steps_per_epoch": steps_per_epoch}
    if isinstance(length, RunLength) and accumulation is None:
        accumulation = length.accumulation
    source = schedule_or_optimizer
    if callable(source) and not isinstance(source, (KerasSchedule, keras.Layer, type)):
        accumulation = 1 if accumulation is None else accumulation
        source = source(length_of(length, known, accumulation).steps)
    if isinstance(source, keras.optimizers.Optimizer):
        unused = {"groups": groups, "lr_multipliers": lr_multipliers, "learning_rates": learning_rates}
        for name, value in (unused | {"optimizer_name": optimizer_name}).items():
            if value is not None:
                raise ValueError(_checks.sentence(name, "be None beside an optimizer, which has its own", value))
        run = run_of_optimizer(source, length_of(length, known, accumulation_of(source, accumulation)))
    else:
        length = length_of(length, known, 1 if accumulation is None else accumulation)
        run = run_of_schedule(source, length, groups, lr_multipliers, learning_rates, optimizer_name)
    begin = f"from step {run.start:,} on: " if run.start else ""
    return Plan(run.length, run.rates, _cycles(run), findings(run), begin + _text(source))


def _cycles(run: PlannedRun) -> tuple[Cycle, ...]:
    if run.schedule is None:
        return ()
    steps = run.schedule_steps()
    first, last = run.schedule.cycle_of(steps)
    starts = np.flatnonzero(np.diff(first, prepend=first[0] - 1))
    ends = np.append(starts[1:], len(steps)) - 1
    cut = last[ends] >= steps[ends] + run.counts
    return tuple(
        Cycle(start, end, run.length.epoch_of(start), run.length.epoch_of(end), not is_cut)
        for start, end, is_cut in zip(starts.tolist(), ends.tolist(), cut.tolist(), strict=True)
        if first[start] >= 0
    )


def _text(source: Any) -> str:
    if isinstance(source, Schedule):
        return repr(source)
    rate = innermost(source)._learning_rate
    if isinstance(rate, Schedule):
        return repr(rate)
    return type(rate).__name__ if isinstance(rate, KerasSchedule) else "the optimizer's present rate throughout"
