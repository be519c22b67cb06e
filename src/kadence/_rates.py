"""An optimizer, wrapped or not -> the rates it trains with."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kadence._updates import KerasSchedule, UpdatesByGroup, as_number, innermost
from kadence.optimizer import DiscriminativeOptimizer
from kadence.schedules import Schedule

#: id of a schedule -> its attributes, and the function that was compiled with them, for as long as the schedule lives.
_COMPILED: dict[int, tuple[dict[str, Any], Callable[[Any], Any]]] = {}


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
        base = _rates_of(rate, steps.tolist())
    base = base * (rate_scale(optimizer) if scale is None else scale)
    while not isinstance(optimizer, DiscriminativeOptimizer):
        if optimizer is inner:
            return {"all": base}
        optimizer = optimizer.inner_optimizer
    return {
        name: base * (factor.sample(n_steps, start) if isinstance(factor, Schedule) else factor)
        for name, factor in zip(optimizer._groups.names, optimizer.lr_multipliers, strict=True)
    }


def _rates_of(schedule: Any, steps: list[int]) -> np.ndarray:
    """Rates of any Keras schedule as in the compiled step, or as it gives them eagerly where it does not compile.

    Called eagerly, Keras's own restarts are on time where the compiled step misses them, and JAX compiles at each call.
    """
    if not steps:
        return np.zeros(0)
    function = _function_of(schedule)
    try:
        rates = rates_of_function(function, steps)
    except Exception:  # what a schedule raises on a tensor without a value has no common class
        return np.array([as_number(schedule(step)) for step in steps], np.float64)
    _COMPILED[id(schedule)] = (_attributes(schedule), function)  # a call may have set some
    return rates


def _function_of(schedule: Any) -> Callable[[Any], Any]:
    """The compiled function of a schedule, compiled anew where an attribute was changed."""
    known = _COMPILED.get(id(schedule))
    if known is None or known[0] != _attributes(schedule):
        # The schedule itself would be kept alive by its function.
        proxy = weakref.proxy(schedule)
        if known is None:
            weakref.finalize(schedule, _COMPILED.pop, id(schedule))
        known = _COMPILED[id(schedule)] = (_attributes(schedule), compiled(lambda step: proxy(step)))
    return known[1]


def _attributes(schedule: Any) -> dict[str, Any]:
    return dict(getattr(schedule, "__dict__", {}))


def rates_of_function(function: Callable[[Any], Any], steps: Sequence[int]) -> np.ndarray:
    """What a function gives for integer tensors, as an optimizer's count is one.

    Args:
        function: Function of a scalar tensor, from `compiled` for example.
        steps: Optimizer steps.

    Returns:
        Array of shape (len(steps),), float64.
    """
    dtype = keras.backend.standardize_dtype("int")
    return np.array([as_number(function(keras.ops.convert_to_tensor(step, dtype))) for step in steps], np.float64)


def compiled(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of a tensor, compiled as Keras compiles the step of `fit`; on PyTorch it stays as it is.

    Args:
        function: Function of a scalar tensor.

    Returns:
        The compiled function.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False, jit_compile=True)
    return function
