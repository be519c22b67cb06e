"""The update of a Keras optimizer, with one rate per layer group and scheduled hyperparameters."""

import contextlib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kadence.schedules import Schedule

KerasSchedule = keras.optimizers.schedules.LearningRateSchedule
_MixinBase: Any = keras.optimizers.Optimizer if TYPE_CHECKING else object


def as_number(value: Any) -> float:
    """A scalar tensor or variable as a Python number.

    Args:
        value: Scalar of any backend.

    Returns:
        Python number.
    """
    return value if isinstance(value, (int, float)) else np.asarray(keras.ops.convert_to_numpy(value)).item()


def as_array(variable: Any) -> np.ndarray:
    """A copy of a variable on the host, also where replicas share it.

    Args:
        variable: `keras.Variable`.

    Returns:
        Array of its shape and type.
    """
    return np.array(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(variable)))


def assign_array(variable: Any, array: np.ndarray) -> None:
    """Give a variable the values of an array, in memory of its own.

    JAX may take the array's memory as it is, and then gives it away to the compiled step.

    Args:
        variable: `keras.Variable`.
        array: Array of its shape.
    """
    variable.assign(keras.ops.copy(keras.ops.convert_to_tensor(array, variable.dtype)))


def strategy_scope(owner: Any) -> contextlib.AbstractContextManager[Any]:
    """Where variables are made: on TensorFlow, in the strategy of a model or of another variable.

    Args:
        owner: Model, or what a variable holds.

    Returns:
        Context manager.
    """
    strategy = getattr(owner, "distribute_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def innermost(optimizer: Any) -> Any:
    """The Keras optimizer that does the updates, inside any wrappers.

    Args:
        optimizer: Any Keras optimizer.

    Returns:
        `keras.optimizers.Optimizer`.
    """
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


class GroupSettings:
    """What an optimizer needs to know of its groups.

    Args:
        multipliers: Factor on the base rate, one per group: numbers or schedules.
        decay_multipliers: Factor on the weight decay, one per group.
        schedules: Attribute of the optimizer -> its schedule.
    """

    def __init__(
        self,
        multipliers: Sequence[float | Schedule],
        decay_multipliers: Sequence[float],
        schedules: Mapping[str, Schedule],
    ):
        self.multipliers = tuple(multipliers)
        self.decay_multipliers = tuple(decay_multipliers)
        self.schedules = dict(schedules)
        #: What the scheduled attributes are between updates.
        self.constants: dict[str, Any] = {}
        self.group_of: dict[Any, int] = {}
        #: Variable by which callbacks scale a schedule.
        self.rate_factor: Any = None


class UpdatesByGroup(_MixinBase):
    """Mixin over a Keras optimizer class: the same update, with the rate of the variable's group.

    Keras updates one variable at a time in `update_step`, except on PyTorch, where `_parallel_update_step` takes a
    list that shares a rate; weight decay asks the optimizer for its current rate. Those are the three places.
    """

    _group_settings: GroupSettings
    _rates_now: Any = None
    _group_now: int | None = None

    def _backend_apply_gradients(self, grads: Sequence[Any], trainable_variables: Sequence[Any]) -> None:
        self._rates_now = self._rates_of_groups()
        try:
            with self._scheduled_hyperparameters(self.iterations):
                super()._backend_apply_gradients(grads, trainable_variables)
        finally:
            self._rates_now = None

    def _rates_of_groups(self) -> tuple[Any, list[Any]]:
        """The base rate and each group's rate at this update."""
        base, step = self._base_rate(), self.iterations
        factors = [f(step) if isinstance(f, Schedule) else f for f in self._group_settings.multipliers]
        # A factor of 1 leaves the base rate as it is, so that one group is the plain optimizer bit for bit.
        return base, [base if isinstance(f, float) and f == 1.0 else base * f for f in factors]

    def _base_rate(self) -> Any:
        if isinstance(self._learning_rate, KerasSchedule):
            # Keras passes the count of micro-batches here; a schedule counts updates.
            return self._learning_rate(self.iterations) * self._group_settings.rate_factor
        return super()._get_current_learning_rate()

    def _get_current_learning_rate(self) -> Any:
        if self._rates_now is None:
            return self._base_rate()
        base, rates = self._rates_now
        if self._group_now is None:
            return base
        factor = self._group_settings.decay_multipliers[self._group_now]
        return rates[self._group_now] if factor == 1.0 else rates[self._group_now] * factor

    @contextlib.contextmanager
    def _scheduled_hyperparameters(self, step: Any) -> Iterator[None]:
        schedules, constants = self._group_settings.schedules, self._group_settings.constants
        # Under TensorFlow's strategies the replicas take turns within this step: the next finds the first one's tensor.
        present = {name: getattr(self, name) for name in schedules}
        constants.update({name: value for name, value in present.items() if not isinstance(value, _Hyperparameter)})
        try:
            for name, schedule in schedules.items():
                setattr(self, name, _hyperparameter(schedule(step)))
            yield
        finally:
            for name, constant in constants.items():
                setattr(self, name, constant)

    def _group(self, variable: Any) -> int:
        return self._group_settings.group_of[self._var_key(variable)]

    def _by_group(self, *lists: Sequence[Any]) -> list[tuple[int, list[list[Any]]]]:
        """`lists`, of which the last holds variables, cut into the groups that have any."""
        members: dict[int, list[tuple[Any, ...]]] = {}
        for row in zip(*lists, strict=True):
            members.setdefault(self._group(row[-1]), []).append(row)
        return [(group, [list(column) for column in zip(*rows, strict=True)]) for group, rows in members.items()]

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        if isinstance(self.clipvalue, _Hyperparameter):
            limit = self.clipvalue.tensor
            return [grad if grad is None else keras.ops.clip(grad, -limit, limit) for grad in grads]
        return super()._clip_gradients(grads)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        try:
            for group, (members,) in self._by_group([v for v in variables if self._use_weight_decay(v)]):
                self._group_now = group
                super()._apply_weight_decay(members)
        finally:
            self._group_now = None

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, self._rates_now[1][self._group(variable)])

    def _parallel_update_step(self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> None:
        # Nadam advances this product, which all variables share, in every call: it must advance once.
        shared = getattr(self, "_u_product", None)
        before = None if shared is None else shared.value.clone()
        for group, (gradients, members) in self._by_group(grads, variables):
            if shared is not None:
                shared.assign(before)
            super()._parallel_update_step(gradients, members, self._rates_now[1][group])


class _Hyperparameter:
    """A tensor in the place of a Python number that Keras compares with 0 before it uses it.

    While a step is compiled a tensor has no truth value; the number it stands for was checked to be above 0.
    """

    def __init__(self, tensor: Any):
        self.tensor = tensor
        self.dtype = tensor.dtype

    def __ne__(self, other: object) -> bool:
        return True

    def __gt__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def __mul__(self, other: Any) -> Any:
        return self.tensor * other

    def __rmul__(self, other: Any) -> Any:
        return other * self.tensor

    def __sub__(self, other: Any) -> Any:
        return self.tensor - other

    def __rsub__(self, other: Any) -> Any:
        return other - self.tensor

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.tensor

    def __jax_array__(self) -> Any:
        return self.tensor

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        return self.tensor if dtype is None else keras.ops.cast(self.tensor, dtype.name)


def _hyperparameter(tensor: Any) -> Any:
    # PyTorch's fused operations take Python numbers.
    return as_number(tensor) if keras.backend.backend() == "torch" else _Hyperparameter(tensor)


@functools.cache
def _grouped_class(cls: type) -> type:
    return type(cls.__name__, (UpdatesByGroup, cls), {"__module__": __name__, "_ungrouped": cls})


def update_by_group(optimizer: Any, settings: GroupSettings) -> None:
    """Make an optimizer update by group, in place.

    Args:
        optimizer: `keras.optimizers.Optimizer`, not yet built.
        settings: The `GroupSettings`.
    """
    optimizer._group_settings = settings
    optimizer.__class__ = _grouped_class(type(optimizer))


def exclude_names(optimizer: Any, names: Sequence[str]) -> None:
    """Exclude variables by parts of their names from weight decay, beside what is excluded already.

    Args:
        optimizer: `keras.optimizers.Optimizer`.
        names: Parts of names.
    """
    if not names:
        return
    pattern = "|".join(map(re.escape, names))
    others = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    variables = getattr(optimizer, "_exclude_from_weight_decay", set())
    if others is not None:
        known = f"{others.pattern}|".startswith(f"{pattern}|")
        pattern = others.pattern if known else f"{pattern}|{others.pattern}"
    optimizer.exclude_from_weight_decay(var_names=[pattern])  # which forgets the others, and the variables
    optimizer._exclude_from_weight_decay = variables


def ungrouped_config(optimizer: Any) -> dict[str, Any]:
    """Keras's serialized form of such an optimizer, under the class that the user named; any backend can load it.

    Args:
        optimizer: An optimizer after `update_by_group`.

    Returns:
        Dict of JSON types.
    """
    cls = type(optimizer)._ungrouped
    while cls.__module__.startswith("keras.src.backend."):
        cls = next(base for base in cls.__mro__[1:] if base.__name__ == cls.__name__)
    exported = getattr(keras.optimizers, cls.__name__, None) is cls
    return {
        "module": "keras.optimizers" if exported else cls.__module__,
        "class_name": cls.__name__,
        "config": keras.saving.serialize_keras_object(optimizer.get_config()),
        "registered_name": None if exported else keras.saving.get_registered_name(cls),
    }
