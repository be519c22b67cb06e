"""What `DiscriminativeOptimizer` is given: checked, and made into numbers per group."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kadence import _checks
from kadence._updates import UpdatesByGroup
from kadence.groups import LayerGroups
from kadence.schedules import Schedule

#: What is set otherwise, or read when the optimizer is built only.
_NOT_SCHEDULED = ("learning_rate", "loss_scale_factor", "ema_momentum", "initial_accumulator_value")


def check_inner(optimizer: Any) -> None:
    """Raise unless an optimizer is a new one of Keras and no wrapper.

    Args:
        optimizer: What is to do the updates.

    Raises:
        TypeError: If it is not a `keras.optimizers.Optimizer`, or is a wrapper of one or of several.
        ValueError: If it is built, or in another `DiscriminativeOptimizer`.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(_checks.sentence("optimizer", "be a keras.optimizers.Optimizer", optimizer))
    if hasattr(optimizer, "inner_optimizer") or hasattr(optimizer, "optimizers"):
        remedy = "Put it around the DiscriminativeOptimizer instead." if hasattr(optimizer, "inner_optimizer") else ""
        raise TypeError(
            _checks.sentence(
                "optimizer",
                "not be a wrapper of optimizers",
                type(optimizer).__name__,
                remedy,
            )
        )
    if optimizer.built or isinstance(optimizer, UpdatesByGroup):
        fact = "built" if optimizer.built else "in another DiscriminativeOptimizer"
        raise ValueError(
            _checks.sentence(
                "optimizer",
                f"be new; this one is {fact}",
                optimizer.name,
                "Make a new one.",
            )
        )


def one_per_group(name: str, values: Any, groups: LayerGroups) -> list[Any]:
    """`values` as a list, if there is one per group.

    Args:
        name: What an error calls the values.
        values: Sequence of anything.
        groups: `LayerGroups`; an error lists their names.

    Raises:
        ValueError: If their number is not that of the groups.
        TypeError: If they are not a sequence.
    """
    rule = f"have one value per group, {len(groups)}: {', '.join(groups.names)}"
    items = _checks.sequence(name, values, rule)
    if len(items) != len(groups):
        raise ValueError(_checks.sentence(name, rule, items))
    return items


def check_multipliers(values: Any, groups: LayerGroups) -> list[float | Schedule]:
    """`values` as a list of factors on the base rate, one per group.

    Args:
        values: Floats >= 0, or `Schedule`s of the optimizer step, in the order of the groups.
        groups: `LayerGroups` that they are for.

    Raises:
        ValueError: If their number is not that of the groups, or one is negative or not finite.
        TypeError: If they are not a sequence, or one is neither a number nor a `Schedule`.
    """
    return [
        value if isinstance(value, Schedule) else _checks.number("lr_multipliers", value, minimum=0.0)
        for value in one_per_group("lr_multipliers", values, groups)
    ]


def check_rates(values: Any, groups: LayerGroups) -> list[float]:
    """`values` as a list of peak rates, one per group.

    Args:
        values: Floats >= 0, one of them > 0, in the order of the groups.
        groups: `LayerGroups` that they are for.

    Raises:
        ValueError: If their number is not that of the groups, one is negative or not finite, or all are 0.
        TypeError: If they are not a sequence, or one is not a number.
    """
    items = one_per_group("learning_rates", values, groups)
    rates = [_checks.number("learning_rates", value, minimum=0.0) for value in items]
    if max(rates) <= 0.0:
        raise ValueError(_checks.sentence("learning_rates", "hold at least one rate > 0", rates))
    return rates


def multipliers_of_rates(optimizer: Any, rates: Sequence[float]) -> list[float]:
    """Ratios of the peak rates to the base rate, which becomes the largest where it is a variable.

    Args:
        optimizer: `keras.optimizers.Optimizer` without a wrapper. Its rate is changed, unless it is a `Schedule`.
        rates: Peak rate of each group. Floats >= 0, one of them > 0.

    Raises:
        ValueError: If its rate is a `Schedule` with a peak of 0, or another schedule or function, of unknown peak.
    """
    schedule = optimizer._learning_rate
    if isinstance(schedule, Schedule):
        if schedule.lr_max == 0.0:
            rule = "come with a schedule whose peak, its lr_max, is > 0"
            raise ValueError(_checks.sentence("learning_rates", rule, list(rates), f"The schedule is {schedule!r}."))
        return [rate / schedule.lr_max for rate in rates]
    if callable(schedule) and not isinstance(schedule, keras.Variable):
        rule = "come with a rate that is a number or a kadence.Schedule, whose peak is known"
        remedy = "Give `lr_multipliers` instead."
        raise ValueError(_checks.sentence("learning_rates", rule, type(schedule).__name__, remedy))
    optimizer.learning_rate = max(rates)
    return [rate / max(rates) for rate in rates]


def check_schedules(schedules: Any, optimizer: Any) -> dict[str, Schedule]:
    """`schedules` as a dict, if the optimizer has these hyperparameters and they can be scheduled.

    Args:
        schedules: Name of a hyperparameter, such as "momentum" or "beta_1" -> its `Schedule`; may be empty.
        optimizer: `keras.optimizers.Optimizer` that has them, without a wrapper.

    Raises:
        ValueError: If there is no such hyperparameter, it is 0 or None, or it is set otherwise, as the rate is.
        TypeError: If `schedules` is not a mapping, or a value in it not a `Schedule`.
    """
    rule = "map hyperparameters of the optimizer to schedules"
    if not isinstance(schedules, Mapping):
        raise TypeError(_checks.sentence("schedules", rule, schedules))
    if not schedules:
        return {}
    known = [
        name
        for name, value in optimizer.get_config().items()
        if isinstance(value, float) and name not in _NOT_SCHEDULED
    ]
    for name, schedule in schedules.items():
        if not isinstance(schedule, Schedule):
            raise TypeError(
                _checks.sentence(
                    "schedules",
                    rule,
                    dict(schedules),
                    f"{name!r} is not a kadence.Schedule.",
                )
            )
        if name not in [*known, "momentum", "weight_decay"] or not hasattr(optimizer, name):
            remedy = _checks.did_you_mean(str(name), known)
            raise ValueError(_checks.sentence("schedules", rule, dict(schedules), remedy))
        if not getattr(optimizer, name):
            remedy = f"Give the optimizer a `{name}` > 0: without it, it keeps no state for it."
            raise ValueError(_checks.sentence(name, "be > 0 to be scheduled", getattr(optimizer, name), remedy))
    return dict(schedules)


def check_names(names: Any) -> list[str]:
    """`names` of variables without weight decay, as a list.

    Args:
        names: Sequence of strings, such as ["bias", "gamma"], each for the variables whose name contains it. Empty for
            none.

    Raises:
        ValueError: If one of them is empty, as it would stand for all variables.
        TypeError: If they are not a sequence of strings.
    """
    rule = "be a sequence of names of variables, such as 'bias'"
    items = _checks.sequence("no_weight_decay", names, rule, minimum_length=0)
    if not all(isinstance(item, str) for item in items):
        raise TypeError(_checks.sentence("no_weight_decay", rule, names))
    if "" in items:
        raise ValueError(_checks.sentence("no_weight_decay", rule, names, "Every name contains ''."))
    return items


def has_decay(optimizer: Any) -> bool:
    """Whether an optimizer is set to have weight decay, be it of 0: where it has none, the setting is None.

    Args:
        optimizer: `keras.optimizers.Optimizer` without a wrapper.
    """
    return any(getattr(optimizer, name, None) is not None for name in ("weight_decay", "adam_weight_decay"))


def check_decays(factors: Sequence[float], names: Sequence[str], optimizer: Any) -> None:
    """Raise if something is said of weight decay to an optimizer that has none.

    Args:
        factors: Factor on the weight decay, one per group. Floats >= 0; 1 everywhere says nothing.
        names: Names of the variables that weight decay leaves alone; may be empty.
        optimizer: `keras.optimizers.Optimizer` without a wrapper.

    Raises:
        ValueError: If it has none, and a factor is not 1 or there is a name.
    """
    if has_decay(optimizer) or (not names and all(factor == 1.0 for factor in factors)):
        return
    name, value = ("no_weight_decay", list(names)) if names else ("weight_decay_multipliers", list(factors))
    remedy = f"Give {type(optimizer).__name__} a `weight_decay`."
    raise ValueError(_checks.sentence(name, "come with an optimizer that has weight decay", value, remedy))
