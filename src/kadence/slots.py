"""An optimizer that goes on with other variables: the state of those that stay is carried over."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kadence import _checks
from kadence._updates import as_array, assign_array, strategy_scope


@dataclass(frozen=True)
class _Level:
    """What an optimizer, or a wrapper around one, holds beside its count of steps and its rate."""

    optimizer: Any
    attributes: dict[str, Any]
    variables: list[keras.Variable]
    tracked: set[int]
    positions: dict[Any, int]
    scalars: dict[str, keras.Variable]
    slots: dict[str, Sequence[Any]]


def rebuild_optimizer(optimizer: Any, variables: Sequence[keras.Variable], restart: bool = False) -> None:
    """Builds an optimizer anew for other variables, in place.

    Keras builds an optimizer once, for the variables that are trainable then, and raises for others. Here the variables
    that stay keep their moments and all other state; new ones begin with fresh state. The count of steps, the schedule
    and the loss scale go on. An averaged copy of the weights (`use_ema`) begins with the new variables as they are.

    A step that is compiled already goes on with the old variables: compile the model again. `freeze_to` and `unfreeze`
    do both.

    The moments of new variables begin at 0 while the count of steps goes on: Adam corrects for that at its own step 0
    only, so their first updates are up to (1 - beta_1) / sqrt(1 - beta_2), 3.2 by default, times the rate.

    Args:
        optimizer: Any Keras optimizer, a `DiscriminativeOptimizer` or a `LossScaleOptimizer`. One that is not built yet
            stays so, as one of the same variables does: nothing is lost.
        variables: The variables to train from here on, in the model's order.
        restart: Whether everything begins anew: step 0 of the schedule, and no moments.

    Raises:
        ValueError: If the optimizer keeps state in a way that cannot be told apart by variable, or has no place for a
            variable. It is then as it was.
        TypeError: If `optimizer` is no Keras optimizer, or `restart` is not True or False.

    Example:
        >>> kadence.rebuild_optimizer(model.optimizer, model.trainable_variables)
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(_checks.sentence("optimizer", "be a keras.optimizers.Optimizer", optimizer))
    _checks.boolean("restart", restart)
    same = [id(v) for v in optimizer._trainable_variables] == [id(v) for v in variables]
    if not optimizer.built or (same and not restart):
        return
    levels = [_level(level) for level in _wrapped(optimizer)]
    try:
        for level in levels:
            _empty(level)
        with _scope_of(variables):
            optimizer.build(list(variables))
    except BaseException:
        for level in levels:
            _put_back(level)
        raise
    for level in levels:
        if restart:
            level.optimizer._iterations.assign(0)
        else:
            _carry_over(level)


def _scope_of(variables: Sequence[keras.Variable]) -> contextlib.AbstractContextManager[Any]:
    return strategy_scope(variables[0].value if variables else None)


def _wrapped(optimizer: Any) -> list[Any]:
    """The optimizer and those inside it, from the outside in."""
    found = [optimizer]
    while hasattr(found[-1], "inner_optimizer"):
        found.append(found[-1].inner_optimizer)
    if hasattr(found[-1], "optimizers"):
        rule = "be one optimizer, with or without wrappers"
        raise ValueError(_checks.sentence("optimizer", rule, type(found[-1]).__name__))
    return found


def _level(optimizer: Any) -> _Level:
    attributes = dict(vars(optimizer))
    positions = dict(optimizer._trainable_variables_indices)
    kept = {id(optimizer._iterations), id(optimizer._learning_rate)}
    scalars = {
        name: value for name, value in attributes.items() if isinstance(value, keras.Variable) and id(value) not in kept
    }
    slots = {name: value for name, value in attributes.items() if _is_slots(name, value, len(positions))}
    found = kept | {id(v) for v in scalars.values()} | {id(v) for values in slots.values() for v in values}
    if lost := [variable.path for variable in optimizer._variables if id(variable) not in found]:
        rule = "keep its state in attributes: single variables, or lists with one entry for each trained variable"
        remedy = f"Of {', '.join(lost[:3])} it is not known to which variable it belongs."
        raise ValueError(_checks.sentence("optimizer", rule, type(optimizer).__name__, remedy))
    return _Level(
        optimizer,
        attributes,
        list(optimizer._variables),
        set(optimizer._tracker.stored_ids["variables"]),
        positions,
        scalars,
        slots,
    )


def _is_slots(name: str, value: Any, n: int) -> bool:
    if name in ("_variables", "_trainable_variables") or not isinstance(value, (list, tuple)) or len(value) != n:
        return False
    return n > 0 and all(item is None or isinstance(item, keras.Variable) for item in value)


def _empty(level: _Level) -> None:
    optimizer = level.optimizer
    for variable in level.variables:
        if variable is not optimizer._iterations and variable is not optimizer._learning_rate:
            optimizer._untrack_variable(variable)
    optimizer._trainable_variables = []
    optimizer._trainable_variables_indices = {}
    optimizer.built = False


def _put_back(level: _Level) -> None:
    optimizer = level.optimizer
    vars(optimizer).clear()
    vars(optimizer).update(level.attributes)
    optimizer._variables.clear()  # not a slice: TensorFlow's list compares what it held before
    optimizer._variables.extend(level.variables)
    stored = optimizer._tracker.stored_ids["variables"]
    stored.clear()
    stored.update(level.tracked)


def _carry_over(level: _Level) -> None:
    optimizer = level.optimizer
    for name, value in level.scalars.items():
        getattr(optimizer, name).assign(value)
    positions = optimizer._trainable_variables_indices
    for name, slots in level.slots.items():
        now = getattr(optimizer, name)
        for key, position in level.positions.items():
            if key in positions and slots[position] is not None:
                now[positions[key]].assign(slots[position])
    if getattr(optimizer, "use_ema", False):
        for variable, average in zip(
            optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True
        ):
            if average is not None and optimizer._var_key(variable) not in level.positions:
                # In memory of its own: JAX takes over the memory of both in a step.
                assign_array(average, as_array(variable))
