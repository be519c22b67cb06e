"""A schedule or an optimizer, and the length of a run -> what `plan` shows and its rules judge."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._rates import sample_rates
from kadence._updates import KerasSchedule, as_number, innermost
from kadence.durations import RunLength, run_length
from kadence.groups import LayerGroups
from kadence.optimizer import DiscriminativeOptimizer
from kadence.schedules import Schedule

#: All rates are held in memory: 80 MB per group.
_MAX_STEPS = 10_000_000

#: Peaks that are usual for fine-tuning, by the lower-case name of the Keras optimizer: rules of thumb, about a decade
#: above what Keras or the paper takes to train from scratch and some decades below.
#: SGD: Keras takes 1e-2, Kornblith et al. 2019 fine-tune at 1e-4 to 1e-1, arXiv:1805.08974. Adam and its kin: Devlin et
#: al. 2019 fine-tune at 2e-5 to 5e-5, arXiv:1810.04805; Keras and Kingma & Ba 2015 take 1e-3, arXiv:1412.6980. Lion: 3
#: to 10 times below AdamW, Chen et al. 2023, section 5, arXiv:2302.06675. Lamb: You et al. 2020, arXiv:1904.00962.
#: Adadelta: Keras takes 1e-3, Zeiler 2012 took 1, arXiv:1212.5701. Adafactor: Raffel et al. 2020 fine-tune at 1e-3,
#: arXiv:1910.10683. ScheduleFreeAdamW: Defazio et al. 2024 take 1 to 10 times the rate of AdamW, arXiv:2405.15682.
USUAL_PEAKS = {
    "adadelta": (1e-3, 2.0),
    "adafactor": (1e-5, 1e-1),
    "adagrad": (1e-4, 1e-1),
    "adam": (1e-6, 1e-2),
    "adamax": (1e-6, 1e-2),
    "adamw": (1e-6, 1e-2),
    "ftrl": (1e-4, 1e-1),
    "lamb": (1e-5, 2e-2),
    "lion": (1e-7, 1e-3),
    "muon": (1e-5, 1e-1),
    "nadam": (1e-6, 1e-2),
    "rmsprop": (1e-6, 1e-2),
    "schedulefreeadamw": (1e-6, 1e-1),
    "sgd": (1e-4, 1.0),
}


@dataclass(frozen=True)
class PlannedRun:
    """What the rules judge.

    Args:
        length: The `RunLength`.
        rates: Group name -> rate at every optimizer step. Arrays of shape (n_steps,), float64.
        schedule: `Schedule` of the base rate, or None if it has none of ours.
        multipliers: Group name -> factor on the base rate, a float or a `Schedule`.
        counts: Steps that the base schedule advances in one update: 1, or the batches of an update where it is in a
            Keras optimizer without groups, which counts batches.
        optimizer_name: Lower-case name of the Keras optimizer, or None.
        start: Optimizer steps that were done before the run. Integer >= 0.
    """

    length: RunLength
    rates: Mapping[str, np.ndarray]
    schedule: Schedule | None
    multipliers: Mapping[str, float | Schedule]
    counts: int = 1
    optimizer_name: str | None = None
    start: int = 0

    @property
    def end(self) -> int:
        """Optimizer steps that are done after the run, those before it included."""
        return self.start + self.length.n_steps

    def schedule_steps(self) -> np.ndarray:
        """Step of the base schedule at each update: that of the last of the update's batches where batches count."""
        return np.arange(self.start + 1, self.end + 1) * self.counts - 1


def length_of(length: Any, known: Mapping[str, Any], accumulation: int) -> RunLength:
    """The `RunLength` that is given, or the one of the arguments that are given instead.

    Args:
        length: `RunLength`, or None for that of `known`.
        known: Name of an argument of `run_length`, all but `accumulation` -> its value, or None where it is not given.
        accumulation: Batches in one update. Integer >= 1.

    Raises:
        ValueError: If the length is given not at all or twice, `length` has another accumulation, a value is out of
            range, or the run has more than 10,000,000 optimizer steps.
        TypeError: If an argument has the wrong type.
    """
    if length is None:
        length = run_length(**known, accumulation=accumulation)
    elif not isinstance(length, RunLength):
        raise TypeError(_checks.sentence("length", "be a RunLength, from `run_length`", length))
    elif set(known.values()) != {None}:
        given = {name: value for name, value in known.items() if value is not None}
        raise ValueError(_checks.sentence("length", "be all there is, or None", given))
    elif length.accumulation != accumulation:
        raise ValueError(_checks.sentence("accumulation", f"be that of `length`, {length.accumulation}", accumulation))
    _checks.integer("n_steps", length.n_steps, minimum=1, maximum=_MAX_STEPS, unit="in optimizer steps")
    return length


def accumulation_of(optimizer: Any, accumulation: int | None) -> int:
    """Batches in an update of an optimizer, of which a caller who names them knows the number.

    Args:
        optimizer: Any Keras optimizer, wrapped or not.
        accumulation: The number that the caller names. Integer >= 1, or None.

    Raises:
        ValueError: If the caller names another number.
    """
    own = innermost(optimizer).gradient_accumulation_steps or 1
    if accumulation is not None and accumulation != own:
        rule = f"be {own}, the optimizer's `gradient_accumulation_steps`"
        raise ValueError(_checks.sentence("accumulation", rule, accumulation))
    return own


def run_of_schedule(
    schedule: Any, length: RunLength, groups: Any, lr_multipliers: Any, learning_rates: Any, optimizer_name: Any
) -> PlannedRun:
    """What a schedule does with groups, updates being what it counts.

    Args:
        schedule: `Schedule` of the base rate.
        length: `RunLength` of the run, which begins at step 0 of the schedule.
        groups: `LayerGroups` or the groups' names; None for the single group "all", or as many as there are factors.
        lr_multipliers: Factor on the base rate, one per group: floats >= 0, or `Schedule`s. None for 1.
        learning_rates: Instead, the peak rate of each group. Floats >= 0, or None.
        optimizer_name: Name of a Keras optimizer, one of `USUAL_PEAKS`, or None.

    Returns:
        `PlannedRun`.

    Raises:
        ValueError: If both factors and rates are given, there is not one per group, a value is out of range, rates come
            with a schedule whose peak is 0, two groups have one name, or the optimizer is not known.
        TypeError: If an argument has the wrong type.
    """
    if not isinstance(schedule, Schedule):
        rule = "be a kadence.Schedule, a Keras optimizer, or a function that makes one of them"
        remedies = {keras.Layer: "Give the model's `optimizer`.", (int, float): "A number becomes `kadence.Constant`."}
        remedy = next((words for kind, words in remedies.items() if isinstance(schedule, kind)), "")
        raise TypeError(_checks.sentence("schedule_or_optimizer", rule, schedule, remedy))
    if optimizer_name is not None:
        optimizer_name = _checks.one_of("optimizer_name", optimizer_name, list(USUAL_PEAKS))
    multipliers = _multipliers(schedule, groups, lr_multipliers, learning_rates)
    base = schedule.sample(length.n_steps)
    # A function may give an infinite rate, which the rules then find.
    with np.errstate(invalid="ignore"):
        rates = {
            name: base * (factor.sample(length.n_steps) if isinstance(factor, Schedule) else factor)
            for name, factor in multipliers.items()
        }
    return PlannedRun(length, rates, schedule, multipliers, optimizer_name=optimizer_name)


def _multipliers(
    schedule: Schedule, groups: Any, lr_multipliers: Any, learning_rates: Any
) -> dict[str, float | Schedule]:
    """Group name -> factor on the base rate."""
    if lr_multipliers is not None and learning_rates is not None:
        received = {"lr_multipliers": lr_multipliers, "learning_rates": learning_rates}
        rule = "be at most one of the two, `lr_multipliers` or `learning_rates`"
        raise ValueError(_checks.sentence("rates", rule, received))
    name, values = ("lr_multipliers", lr_multipliers)
    if learning_rates is not None:
        name, values = "learning_rates", learning_rates
    names = None if groups is None else _names(groups)
    if values is None:
        return dict.fromkeys(names or ["all"], 1.0)
    factors = _checks.sequence(name, values, "have one value per group")
    names = names or (["all"] if len(factors) == 1 else [f"group_{i}" for i in range(1, len(factors) + 1)])
    if len(factors) != len(names):
        raise ValueError(_checks.sentence(name, f"have one value per group, {len(names)}", factors))
    if learning_rates is not None:
        if schedule.lr_max <= 0.0:
            rule = "come with a schedule whose peak is above 0"
            raise ValueError(_checks.sentence(name, rule, factors, "Give `lr_multipliers` instead."))
        factors = [_checks.number(name, factor, minimum=0.0) / schedule.lr_max for factor in factors]
    else:
        factors = [f if isinstance(f, Schedule) else _checks.number(name, f, minimum=0.0) for f in factors]
    return dict(zip(names, factors, strict=True))


def _names(groups: Any) -> list[str]:
    if isinstance(groups, LayerGroups):
        return groups.names
    rule = "be LayerGroups, or a sequence of different names"
    names = _checks.sequence("groups", groups, rule)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(_checks.sentence("groups", rule, groups))
    if len(set(names)) < len(names):
        raise ValueError(_checks.sentence("groups", rule, groups))
    return names


def run_of_optimizer(optimizer: Any, length: RunLength) -> PlannedRun:
    """What an optimizer does from its present step on, with its own groups if it has any.

    Args:
        optimizer: Any Keras optimizer but a MultiOptimizer, wrapped or not; it is only read.
        length: `RunLength` of the run, which begins at the optimizer's `iterations`.

    Returns:
        `PlannedRun`.

    Raises:
        TypeError: If it is a MultiOptimizer, which has several rates.
    """
    inner = innermost(optimizer)
    if isinstance(inner, getattr(keras.optimizers, "MultiOptimizer", ())):
        rule, remedy = "have one rate, which a MultiOptimizer has not", "Plan each of its `optimizers`."
        raise TypeError(_checks.sentence("schedule_or_optimizer", rule, optimizer, remedy))
    start = int(as_number(inner.iterations))
    grouped = _grouped(optimizer)
    base = inner._learning_rate
    multipliers: dict[str, float | Schedule] = {}
    if grouped is not None:
        multipliers = dict(zip(grouped.groups.names, grouped.lr_multipliers, strict=True))
    return PlannedRun(
        length,
        sample_rates(optimizer, length.n_steps, start),
        base if isinstance(base, Schedule) else None,
        multipliers,
        counts=length.accumulation if grouped is None and isinstance(base, KerasSchedule) else 1,
        optimizer_name=type(inner).__name__.lower(),
        start=start,
    )


def _grouped(optimizer: Any) -> DiscriminativeOptimizer | None:
    while not isinstance(optimizer, DiscriminativeOptimizer):
        if not hasattr(optimizer, "inner_optimizer"):
            return None
        optimizer = optimizer.inner_optimizer
    return optimizer
