"""An optimizer, wrapped or not -> the rates it trains with."""

from typing import Any

import numpy as np

from kadence._updates import KerasSchedule, UpdatesByGroup, as_number, innermost
from kadence.optimizer import DiscriminativeOptimizer
from kadence.schedules import Schedule


def rate_scale(optimizer: Any) -> float:
    """What callbacks set, as a number: the base rate where it is a variable, else the factor on the schedule.

    Args:
        optimizer: Any Keras optimizer, wrapped or not.

    Returns:
        Float.
    """
    inner = innermost(optimizer)
    if not isinstance(inner._learning_rate, KerasSchedule):
        return as_number(inner.learning_rate)
    return as_number(inner._group_settings.rate_factor) if isinstance(inner, UpdatesByGroup) else 1.0


def sample_rates(optimizer: Any, n_steps: int, start: int = 0, scale: float | None = None) -> dict[str, np.ndarray]:
    """Every group's rate at the updates start, ..., start + n_steps - 1, in NumPy.

    Args:
        optimizer: Any Keras optimizer, wrapped or not; one without groups has the single group "all".
        n_steps: Number of optimizer updates. Integer >= 0.
        start: First update, counted in optimizer steps. Integer >= 0.
        scale: What to take for `rate_scale(optimizer)`; by default its present value.

    Returns:
        Dict of group name to array of shape (n_steps,), float64.
    """
    inner = innermost(optimizer)
    rate = inner._learning_rate
    grouped = isinstance(inner, UpdatesByGroup)
    # Without groups, Keras passes the count of micro-batches to a schedule.
    micro = 1 if grouped else inner.gradient_accumulation_steps or 1
    steps = (start + np.arange(n_steps)) * micro + micro - 1
    base = np.ones(n_steps, np.float64)
    if isinstance(rate, Schedule):
        base = rate.at(steps)
    elif isinstance(rate, KerasSchedule):
        base = np.array([as_number(rate(step)) for step in steps.tolist()], np.float64)
    base = base * (rate_scale(optimizer) if scale is None else scale)
    while not isinstance(optimizer, DiscriminativeOptimizer):
        if optimizer is inner:
            return {"all": base}
        optimizer = optimizer.inner_optimizer
    return {
        name: base * (factor.sample(n_steps, start) if isinstance(factor, Schedule) else factor)
        for name, factor in zip(optimizer._groups.names, optimizer.lr_multipliers, strict=True)
    }
