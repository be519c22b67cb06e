"""Multipliers of the layer groups that unfreeze them one by one, within one compiled step."""

from collections.abc import Sequence
from typing import Any

from kadence import _checks
from kadence.groups import LayerGroups
from kadence.schedules import Constant, Schedule, join


def gradual_multipliers(
    groups: LayerGroups, at_steps: Sequence[int], lr_multipliers: Sequence[float] | None = None
) -> list[float | Schedule]:
    """Rates that are 0 until a group's turn: gradual unfreezing without compiling again.

    For `DiscriminativeOptimizer(optimizer, groups, lr_multipliers=...)`. At rate 0 no weight of a group moves, by
    weight decay or momentum neither; not with Ftrl, which divides by the rate. Unlike a frozen group it costs its
    backward pass, its moments gather from the first step on, and its BatchNormalization statistics move unless the
    layers are frozen (`freeze_batch_norm`).

    Args:
        groups: The layer groups, from the input towards the head.
        at_steps: Optimizer steps at which a group begins to train, from the group below the head down. At most as many
            strictly increasing integers >= 1 as there are groups below the head; without one, a group never trains.
        lr_multipliers: Multiplier of each group from its turn on: floats >= 0, one per group. None for 1.

    Returns:
        List of one float or `Schedule` per group.

    Raises:
        ValueError: If the steps do not increase, there are too many, or there is not one multiplier per group.
        TypeError: If an argument has the wrong type.

    Example:
        >>> kadence.gradual_multipliers(groups, at_steps=[100, 200], lr_multipliers=[0.01, 0.1, 1.0])

    Source:
        Howard & Ruder 2018, section 3.3, arXiv:1801.06146.
    """
    steps = check_points("at_steps", at_steps, groups, "in optimizer steps")
    factors = _factors(lr_multipliers, groups)
    never = [0.0] * (len(groups) - 1 - len(steps))
    below = zip(factors[len(never) : -1], reversed(steps), strict=True)
    return [*never, *(join([Constant(0.0), Constant(factor)], [step]) for factor, step in below), factors[-1]]


def check_points(name: str, points: Any, groups: LayerGroups, unit: str) -> list[int]:
    """`points` as increasing integers >= 1, at most one for each group below the head.

    Args:
        name: Name of the argument.
        points: The moments.
        groups: The layer groups.
        unit: For the error.

    Returns:
        List of integers.

    Raises:
        ValueError: If there are too many, or they do not increase.
        TypeError: If they are not integers.
    """
    found = _checks.increasing(name, points, minimum=1, unit=unit)
    if len(found) >= len(groups):
        rule = f"hold at most {len(groups) - 1}, one for each of the {len(groups)} groups but the head"
        raise ValueError(_checks.sentence(name, rule, found))
    return found


def _factors(lr_multipliers: Any, groups: LayerGroups) -> list[float]:
    if lr_multipliers is None:
        return [1.0] * len(groups)
    rule = f"have one value per group, {len(groups)}: {', '.join(groups.names)}"
    items = _checks.sequence("lr_multipliers", lr_multipliers, rule)
    if len(items) != len(groups):
        raise ValueError(_checks.sentence("lr_multipliers", rule, items))
    return [_checks.number("lr_multipliers", item, minimum=0.0) for item in items]
