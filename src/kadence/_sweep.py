"""A stand-in for a compiled optimizer, whose rates are swept inside the compiled step."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._updates import GroupSettings, UpdatesByGroup, as_array, as_number, assign_array, innermost
from kadence.optimizer import DiscriminativeOptimizer
from kadence.schedules import Constant


class _SweptRates(UpdatesByGroup):
    """Mixin over a Keras optimizer class: the rate of a group is `factor * table[step] + still`.

    Where in the table a run is, the factors and the still rates are variables, so that one compiled step serves all
    groups and all runs.
    """

    _table: np.ndarray
    _groups: Any
    _position: Any = None

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        variables = list(variables)
        n_groups = len(self._group_settings.multipliers)
        self._group_settings.group_of = {self._var_key(v): 0 for v in variables}
        if self._groups is not None:
            index_of = {id(w): i for i, group in enumerate(self._groups.bind(variables)) for w in group.weights}
            self._group_settings.group_of = {self._var_key(v): index_of[id(v)] for v in variables}
        super().build(variables)
        real = keras.config.floatx()
        #: Batches seen in this run, those included that a loss scale skipped.
        self._position = self.add_variable((), dtype="int32", aggregation="only_first_replica", name="sweep_position")
        self._factors = self.add_variable((n_groups,), dtype=real, name="sweep_factors")
        self._still = self.add_variable((n_groups,), dtype=real, name="sweep_still")

    def _rates_of_groups(self) -> tuple[Any, list[Any]]:
        table = keras.ops.convert_to_tensor(self._table, self._factors.dtype)
        step = self._position // (self.gradient_accumulation_steps or 1)
        rate = keras.ops.take(table, keras.ops.minimum(step, len(self._table) - 1))
        n_groups = len(self._group_settings.multipliers)
        return rate, [rate * self._factors[group] + self._still[group] for group in range(n_groups)]

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        super().apply(grads, trainable_variables)
        self._position.assign_add(1)


class _SweptLossScale(keras.optimizers.LossScaleOptimizer):
    """A loss scale under which the sweep goes on where a batch is skipped."""

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        position = self.inner_optimizer._position
        following = position + 1
        super().apply(grads, trainable_variables)
        position.assign(following)

    def stateless_apply(self, optimizer_variables: Any, grads: Any, trainable_variables: Any) -> tuple[Any, list[Any]]:
        base: Any = super()
        trained, state = base.stateless_apply(optimizer_variables, grads, trainable_variables)
        state = list(state)
        place = next(i for i, v in enumerate(self.variables) if v is self.inner_optimizer._position)
        state[place] = optimizer_variables[place] + 1
        return trained, state


class Sweep:
    """A stand-in for an optimizer: its class, settings and state, but rates that are swept.

    Args:
        optimizer: The compiled optimizer, wrapped or not; it is only read.
        rates: The rate at each step of the sweep. Array of shape (n_steps,).

    Attributes:
        optimizer: The stand-in, to be the model's optimizer for the time of the sweep.

    Raises:
        TypeError: If the optimizer is a wrapper that is not known.
        ValueError: If it cannot be made from its own config.
    """

    def __init__(self, optimizer: Any, rates: np.ndarray):
        self._original = optimizer
        grouped, scale = layers_of(optimizer)
        inner = innermost(optimizer)
        clone = remade(inner)
        settings = getattr(inner, "_group_settings", None)
        decay = settings.decay_multipliers if settings is not None else [1.0]
        clone.__class__ = _swept_class(_plain_class(inner))
        clone._group_settings = GroupSettings([1.0] * len(decay), decay, {})
        clone._groups = None if grouped is None else grouped._groups
        clone._table = np.asarray(rates, np.float64)
        self._inner = clone
        self.optimizer = clone
        if scale is not None:
            self.optimizer = _SweptLossScale(clone, scale.initial_scale, scale.dynamic_growth_steps, name=scale.name)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the state, and take over that of the original where there is one.

        Args:
            variables: The model's trainable variables.
        """
        inner = innermost(self._original)
        self.optimizer.build(inner._trainable_variables if inner.built else variables)
        self._initial = None if inner.built else [as_array(v) for v in self.optimizer.variables]
        self._take_over()

    def has_variables(self, group: int) -> bool:
        """Whether a group has trainable variables.

        Args:
            group: Index of the group.
        """
        return group in self._inner._group_settings.group_of.values()

    def begin(self, factors: Sequence[float], still: Sequence[float]) -> None:
        """Go back to the state before the first run, and set what moves in the next.

        Args:
            factors: Of each group, the factor on the swept rate.
            still: Of each group, the rate that is added.
        """
        self._take_over()
        self._inner._position.assign(0)
        assign_array(self._inner._factors, np.asarray(factors))
        assign_array(self._inner._still, np.asarray(still))

    def _take_over(self) -> None:
        # By way of the host: arrays of JAX are given away to the compiled step.
        original = innermost(self._original)
        if self._initial is not None:
            for variable, value in zip(self.optimizer.variables, self._initial, strict=True):
                assign_array(variable, value)
            return
        pairs = list(zip(self._inner.variables, original.variables, strict=False))
        if self.optimizer is not self._inner:
            scale = layers_of(self._original)[1]
            pairs += zip(self.optimizer._variables, scale._variables, strict=True)
        for variable, value in pairs:
            assign_array(variable, as_array(value))


def layers_of(optimizer: Any) -> tuple[DiscriminativeOptimizer | None, Any]:
    """The `DiscriminativeOptimizer` and the `LossScaleOptimizer` around an optimizer, where there are any.

    Args:
        optimizer: Any Keras optimizer, wrapped or not.

    Returns:
        Pair of the two, None for one that there is not.

    Raises:
        TypeError: If there is a wrapper of another kind, or one of several optimizers.
    """
    grouped = scale = None
    while hasattr(optimizer, "inner_optimizer"):
        if isinstance(optimizer, DiscriminativeOptimizer):
            grouped = optimizer
        elif isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            scale = optimizer
        else:
            break
        optimizer = optimizer.inner_optimizer
    if hasattr(optimizer, "inner_optimizer") or hasattr(optimizer, "optimizers"):
        rule = "be one Keras optimizer, in a DiscriminativeOptimizer or LossScaleOptimizer at most"
        raise TypeError(_checks.sentence("model.optimizer", rule, type(optimizer).__name__))
    return grouped, scale


def _plain_class(optimizer: Any) -> type:
    return type(optimizer)._ungrouped if isinstance(optimizer, UpdatesByGroup) else type(optimizer)


@functools.cache
def _swept_class(cls: type) -> type:
    return type(cls.__name__, (_SweptRates, cls), {"__module__": __name__, "_ungrouped": cls})


def remade(optimizer: Any) -> Any:
    """An optimizer of the same class and settings, without state.

    Args:
        optimizer: `keras.optimizers.Optimizer` without a wrapper, which may update by group; it is only read.

    Returns:
        A plain Keras optimizer, whose rate is 1. Scheduled hyperparameters are numbers, those of the present update.

    Raises:
        ValueError: If it cannot be made from its own config.
    """
    cls = _plain_class(optimizer)
    # The rate is not taken over, and a schedule or function of the user's need not have a config.
    shadow = object.__new__(cls)
    vars(shadow).update({**vars(optimizer), "_learning_rate": 1.0})
    try:
        config = {**shadow.get_config(), **_hyperparameters_now(optimizer)}
        clone = cls.from_config({**config, "learning_rate": 1.0} if "learning_rate" in config else config)
    except Exception as error:
        rule = "be of a class that can be made from its own config, with get_config and from_config"
        remedy = f"{type(error).__name__}: {error}"
        raise ValueError(_checks.sentence("model.optimizer", rule, cls.__name__, remedy)) from error
    if callable(optimizer._learning_rate) and not isinstance(optimizer._learning_rate, keras.Variable):
        clone.learning_rate = Constant(1.0)  # then it has the variables of the original
    for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
        if hasattr(optimizer, name):
            setattr(clone, name, getattr(optimizer, name))
    return clone


def _hyperparameters_now(optimizer: Any) -> dict[str, float]:
    """What scheduled hyperparameters are at the present update."""
    if not isinstance(optimizer, UpdatesByGroup):
        return {}
    step = int(as_number(optimizer.iterations))
    return {name: float(schedule.at(step)) for name, schedule in optimizer._group_settings.schedules.items()}
