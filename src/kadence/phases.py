"""The phases of a fine-tuning, each a plain object: train the head, find the rates, train all groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kadence import _checks
from kadence._job import Job
from kadence._phase_rates import RATE_RULES, SPREAD, bold_rate, peak_of, range_test_of, spread_factors
from kadence._phase_schedules import SCHEDULES, make_schedule
from kadence._text import counted
from kadence.batch_norm import FullBatches, recompute_batch_norm
from kadence.callbacks import SnapshotSaver
from kadence.ensemble import SnapshotEnsemble
from kadence.freezing import freeze_to
from kadence.schedules import Schedule

#: Passes through the data from which on it pays to store the outputs of what is frozen.
_WORTH_STORING = 2


class _CycleSaver(SnapshotSaver):
    """A phase may train in several stretches, and ends with a cycle: the end of a stretch is no snapshot."""

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._begin()


@dataclass(frozen=True)
class HeadPhase:
    """Trains the head while everything before it is frozen.

    Where what is before the head is functional, holds nothing random and sees the same data in every epoch, arrays or
    images without augmentation, it runs once, and the epochs train on the stored features (see `cache_features`).

    Args:
        epochs: Length, in epochs. Integer >= 1.
        rate: Peak rate. Float > 0; None for the "bold" one of `FindPhase`, of which a range test of the head
            is the bound.
        schedule: "one-cycle", "cosine", "warm-restarts" or "constant".
        cached: Whether to use stored features where it can be done, from 2 epochs on, or from 1 with a range test.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.

    Source:
        Howard & Ruder 2018, Universal Language Model Fine-tuning, section 3.3, arXiv:1801.06146.
    """

    epochs: int
    rate: float | None = None
    schedule: str = "cosine"
    cached: bool = True
    name = "head"

    def __post_init__(self) -> None:
        _checks.integer("epochs", self.epochs, minimum=1, unit="in epochs")
        _checks.one_of("schedule", self.schedule, SCHEDULES)
        _checks.boolean("cached", self.cached)
        if self.rate is not None:
            _checks.number("rate", self.rate, above=0.0)

    def run(self, job: Job) -> None:
        """Run the phase.

        Args:
            job: What it works on.
        """
        head = job.groups.names[-1]
        job.train_groups([name == head for name in job.groups.names])
        if job.finished():
            return
        job.tell(f"head: {head} alone for {counted(self.epochs, 'epoch')}")
        last, rate = len(job.groups) - 1, self.rate
        cached = self.cached and self.epochs + (rate is None) >= _WORTH_STORING
        with (
            job.part(),
            job.stretches() as train,
            job.trained_part(last, cached, noted=self.epochs >= _WORTH_STORING) as part,
        ):
            if rate is None:
                bold = bold_rate(job, 0.0)
                rate = peak_of(job, range_test_of(job, part, "bold", bold), "head", "bold", bold)
            schedule = make_schedule(self.schedule, rate, job.compiled.updates(self.epochs * len(part.batches)))
            job.compiled.compile(part.model, schedule, job.groups, [0.0] * last + [rate])
            train(part, range(self.epochs))


@dataclass(frozen=True)
class FindPhase:
    """Sets the peak rates: a ladder, of which a joint range test, in which the groups keep their ratios, is the bound.

    Args:
        spread: How many times the rate of the first group that of the head is; those between are evenly spaced on a
            logarithmic scale. Float >= 1; 1 is one rate for all.
        n_steps: Length of the test, in optimizer steps. Integer >= 20; None for that of an epoch, but not less than 20
            or more than 60, and for another rule than "bold" that of two, 30 to 100.
        rule: Where the rate of the head comes from. "bold": 1e-2, or 3e-2 for SGD and 1e-3 for Lion; less where the
            group before it would have more than a tenth of that, and not more than a tenth of the rate at which the
            loss rose. Or a rule of `RangeTest.suggest`, such as "valley"; where it has no clear answer, "bold" and a
            note.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.

    Source:
        Smith 2017, Cyclical Learning Rates, section 3.3, arXiv:1506.01186; ULMFiT divides by 2.6 from group to group,
        section 3.2, arXiv:1801.06146; the spread of fastai's `fine_tune` is 100.
    """

    spread: float = SPREAD
    n_steps: int | None = None
    rule: str = "bold"
    name = "find"

    def __post_init__(self) -> None:
        _checks.one_of("rule", self.rule, RATE_RULES)
        _checks.number("spread", self.spread, minimum=1.0)
        if self.n_steps is not None:
            _checks.integer("n_steps", self.n_steps, minimum=20, unit="in optimizer steps")

    def run(self, job: Job) -> None:
        """Run the phase.

        Args:
            job: What it works on.
        """
        job.train_groups([True] * len(job.groups))
        factors = spread_factors(len(job.groups), self.spread)
        bold = bold_rate(job, factors[-2] if len(factors) > 1 else 1.0)
        with job.trained_part(0, cached=False) as whole:
            job.found = range_test_of(job, whole, self.rule, bold, self.n_steps, job.groups, factors)
        rate = peak_of(job, job.found, "model", self.rule, bold)
        job.rates = [rate * factor for factor in factors]


@dataclass(frozen=True)
class TrainPhase:
    """Trains all groups, each at its rate.

    Args:
        epochs: Length, in epochs. Integer >= 1.
        rates: Peak rate of each group, 0 to freeze it; None for those that were found.
        schedule: "one-cycle", "cosine", "warm-restarts" or "constant".
        cycles: Number of cycles of warm restarts, which fill the phase, each twice as long as the one before where
            the steps allow it. Integer >= 1.
        snapshots: Whether to keep the weights at the end of every cycle.
        unfreeze_every: Number of epochs after which one more group joins, from the head down, as `GradualUnfreeze`
            does it; 0 trains all groups from the start. Integer >= 0, in epochs.
        cached: Whether to use stored features, as `HeadPhase` does, while the first groups are frozen for 2 epochs or
            more: between two that join, or all the time where their rates are 0. Not with snapshots, which are of the
            whole model.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.

    Source:
        Loshchilov & Hutter 2017, SGDR, section 3, arXiv:1608.03983; Smith & Topin 2018, Super-Convergence, section 3,
        arXiv:1708.07120; Howard & Ruder 2018, Universal Language Model Fine-tuning, section 3.3, arXiv:1801.06146.
    """

    epochs: int
    rates: tuple[float, ...] | None = None
    schedule: str = "cosine"
    cycles: int = 3
    snapshots: bool = False
    unfreeze_every: int = 0
    cached: bool = True
    name = "train"

    def __post_init__(self) -> None:
        _checks.integer("epochs", self.epochs, minimum=1, unit="in epochs")
        _checks.integer("cycles", self.cycles, minimum=1, unit="a number of cycles")
        _checks.one_of("schedule", self.schedule, SCHEDULES)
        if _checks.boolean("snapshots", self.snapshots) and self.schedule != "warm-restarts":
            rule = "be False unless `schedule` is 'warm-restarts': they are kept at the end of cycles"
            raise ValueError(_checks.sentence("snapshots", rule, self.snapshots))
        _checks.integer("unfreeze_every", self.unfreeze_every, minimum=0, unit="in epochs")
        _checks.boolean("cached", self.cached)
        if self.rates is not None:
            rule = "be rates >= 0, one per group and one of them > 0"
            values = _checks.sequence("rates", self.rates, rule)
            object.__setattr__(self, "rates", tuple(_checks.number("rates", rate, minimum=0.0) for rate in values))
            if not any(values) or (self.unfreeze_every and not all(values)):
                remedy = "`unfreeze_every` trains all groups in the end." if any(values) else ""
                raise ValueError(_checks.sentence("rates", rule, self.rates, remedy))

    def check(self, job: Job, found: bool) -> None:
        """Whether the phase fits model and data.

        Args:
            job: What it is to work on.
            found: Whether a phase before it finds rates.

        Raises:
            ValueError: If it does not: rates are missing, the cycles do not fit the steps, or a group never joins.
        """
        n_groups = len(job.groups)
        if (self.rates is None and not found) or (self.rates is not None and len(self.rates) != n_groups):
            rule = f"be one rate per group, {n_groups}: {', '.join(job.groups.names)}; or a `FindPhase` comes before"
            raise ValueError(_checks.sentence("rates", rule, self.rates))
        last = self.unfreeze_every * (n_groups - 1)
        if last >= self.epochs:
            rule = f"let all {n_groups} groups join within the {self.epochs} epochs; the last would after {last}"
            raise ValueError(_checks.sentence("unfreeze_every", rule, self.unfreeze_every))
        self._schedule(job, 1.0)

    def _stages(self, rates: Sequence[float]) -> list[tuple[range, int]]:
        """Epochs of each stage, and the index of the first group that trains in it."""
        if not self.unfreeze_every:
            return [(range(self.epochs), next(index for index, rate in enumerate(rates) if rate > 0.0))]
        begins = [self.unfreeze_every * number for number in range(len(rates))]
        ends = [*begins[1:], self.epochs]
        return [(range(*span), len(rates) - 1 - number) for number, span in enumerate(zip(begins, ends, strict=True))]

    def _schedule(self, job: Job, lr_max: float) -> Schedule:
        return make_schedule(self.schedule, lr_max, job.compiled.updates(self.epochs * len(job.train)), self.cycles)

    def run(self, job: Job) -> None:
        """Run the phase.

        Args:
            job: What it works on.
        """
        rates = list(self.rates or job.rates or ())
        job.rates = rates
        job.train_groups([rate > 0.0 for rate in rates])
        job.compiled.compile(job.model, self._schedule(job, max(rates)), job.groups, rates)
        if not job.finished():
            self._train(job, rates)
        if job.batch_norm == "train":
            job.judge_again()

    def _train(self, job: Job, rates: Sequence[float]) -> None:
        shown = ", ".join(f"{name} {rate:.3g}" for name, rate in zip(job.groups.names, rates, strict=True))
        job.tell(f"train: {counted(self.epochs, 'epoch')}, {self.schedule}, peak rates {shown}")
        folder = job.folder if self.snapshots else None
        own = [] if folder is None else [_CycleSaver(folder / "snapshots", resume=True)]
        last_done = job.epochs_done - 1  # its backup is of what trained then
        with job.part():
            with job.stretches() as train:
                for epochs, first in self._stages(rates):
                    if epochs.stop <= last_done:
                        continue
                    if self.unfreeze_every:
                        freeze_to(job.model, first, job.groups, batch_norm=job.policies)
                    cached = self.cached and not own and len(epochs) >= _WORTH_STORING
                    with job.trained_part(first, cached) as part:
                        job.compiled.go_on_with(part.model, job.model.optimizer)
                        train(part, epochs, own)
            if job.batch_norm == "train":
                batches = FullBatches(job.plain_batches(job.seed))
                if folder is not None:
                    SnapshotEnsemble.load(folder / "snapshots", job.model).recompute_batch_norm(batches)
                recompute_batch_norm(job.model, batches)


Phase = HeadPhase | FindPhase | TrainPhase


def check_phases(job: Job, phases: Sequence[Phase]) -> None:
    """Whether phases fit model and data, before anything is trained.

    Args:
        job: What they are to work on.
        phases: The phases.

    Raises:
        ValueError: If one of them does not, or two keep snapshots.
    """
    keeping = [phase for phase in phases if isinstance(phase, TrainPhase) and phase.snapshots]
    if len(keeping) > 1:
        remedy = "The folder of the run has place for the snapshots of one."
        raise ValueError(_checks.sentence("phases", "keep snapshots in one of them at most", keeping, remedy))
    found = False
    for phase in phases:
        found = found or isinstance(phase, FindPhase)
        if isinstance(phase, TrainPhase):
            phase.check(job, found)


def run_phases(job: Job, phases: Sequence[Phase]) -> None:
    """Run phases one after another; each has a name and a seed of its own.

    Args:
        job: What they work on.
        phases: The phases.
    """
    names = [phase.name for phase in phases]
    first = job.seed
    for index, phase in enumerate(phases):
        number = names[: index + 1].count(phase.name)
        job.phase, job.seed = phase.name if number == 1 else f"{phase.name}-{number}", first + index
        phase.run(job)
