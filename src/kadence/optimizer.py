"""Layer groups and any Keras optimizer -> one optimizer with one learning rate per group."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kadence import _checks
from kadence.groups import LayerGroups
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
    return np.asarray(keras.ops.convert_to_numpy(value)).item()


class _Rates:
    """Which group a variable is in, and the group's factor on the base rate: a number or a schedule."""

    def __init__(self, multipliers: Sequence[float | Schedule]):
        self.multipliers = tuple(multipliers)
        self.group_of: dict[Any, int] = {}

    def at(self, base: Any, step: Any) -> list[Any]:
        """The rate of every group for one update, as backend tensors; a factor of 1 leaves `base` as it is."""
        factors = [factor(step) if isinstance(factor, Schedule) else factor for factor in self.multipliers]
        return [base if isinstance(factor, float) and factor == 1.0 else base * factor for factor in factors]


class _UpdatesByGroup(_MixinBase):
    """Mixin over a Keras optimizer class: the same update, with the rate of the variable's group.

    Keras updates one variable at a time in `update_step`, except on PyTorch, where `_parallel_update_step` takes a
    list that shares a rate; weight decay asks the optimizer for its current rate. Those are the three places.
    """

    _group_rates: _Rates
    _rates_now: Any = None
    _group_now: int | None = None

    def _group(self, variable: Any) -> int:
        return self._group_rates.group_of[self._var_key(variable)]

    def _by_group(self, *lists: Sequence[Any]) -> list[tuple[int, list[list[Any]]]]:
        """`lists`, of which the last holds variables, cut into the groups that have any."""
        members: dict[int, list[tuple[Any, ...]]] = {}
        for row in zip(*lists, strict=True):
            members.setdefault(self._group(row[-1]), []).append(row)
        return [(group, [list(column) for column in zip(*rows, strict=True)]) for group, rows in members.items()]

    def _get_current_learning_rate(self) -> Any:
        if self._group_now is not None:
            if self._rates_now is None:
                self._rates_now = self._group_rates.at(self._base_rate(), self.iterations)
            return self._rates_now[self._group_now]
        return self._base_rate()

    def _base_rate(self) -> Any:
        if isinstance(self._learning_rate, KerasSchedule):
            # Keras passes the count of micro-batches here; a schedule counts updates.
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        try:
            for group, (members,) in self._by_group([v for v in variables if self._use_weight_decay(v)]):
                self._group_now = group
                super()._apply_weight_decay(members)
        finally:
            self._group_now = self._rates_now = None

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        self._rates_now = self._group_rates.at(learning_rate, self.iterations)
        try:
            super()._backend_update_step(grads, trainable_variables, learning_rate)
        finally:
            self._rates_now = None

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, self._rates_now[self._group(variable)])

    def _parallel_update_step(self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> None:
        # Nadam advances this product, which all variables share, in every call: it must advance once.
        shared = getattr(self, "_u_product", None)
        before = None if shared is None else shared.value.clone()
        for group, (gradients, members) in self._by_group(grads, variables):
            if shared is not None:
                shared.assign(before)
            super()._parallel_update_step(gradients, members, self._rates_now[group])


@functools.cache
def _grouped_class(cls: type) -> type:
    return type(cls.__name__, (_UpdatesByGroup, cls), {"__module__": __name__, "_ungrouped": cls})


@keras.saving.register_keras_serializable(package="kadence")
class DiscriminativeOptimizer(keras.optimizers.Optimizer):
    """Any Keras optimizer with one learning rate per layer group, under unchanged `compile` and `fit`.

    The rate of a variable is `learning_rate * multiplier(group)`, at every step; absolute weight decay scales with it.
    There is one optimizer state, one `iterations`, one global clip norm, one gradient accumulator and one loss scale.
    `learning_rate` is the base rate with its Keras meaning: callbacks that read or set it work, and keep the ratios.
    A schedule is evaluated at `iterations`, the number of updates; micro-batches of gradient accumulation do not count.
    A model saved with it goes on training after `keras.saving.load_model`, once `kadence` is imported.

    Args:
        optimizer: A new `keras.optimizers.Optimizer`, not yet built; it belongs to this one from here on. A
            `LossScaleOptimizer` goes around the `DiscriminativeOptimizer`, not inside.
        groups: `LayerGroups` of the model that will be compiled.
        lr_multipliers: Factor on the base rate, one per group: floats >= 0, or `Schedule`s of the optimizer step.
        learning_rates: Instead of `lr_multipliers`, the peak rate of each group: floats >= 0, one of them > 0. The base
            rate becomes the largest, or stays the `lr_max` of the optimizer's `Schedule`.
        name: Name of the optimizer. String or None.

    Raises:
        ValueError: If both or neither of `lr_multipliers` and `learning_rates` are given, their number is not that of
            the groups, a value is negative or not finite, or the optimizer is built already.
        TypeError: If an argument has the wrong type.

    Example:
        >>> optimizer = kadence.DiscriminativeOptimizer(
        ...     keras.optimizers.Adam(kadence.WarmRestarts(lr_max=1e-2, first_cycle_steps=200, cycle_mult=2)),
        ...     kadence.split(model, at=["block2_conv", "head"]),
        ...     learning_rates=[1e-5, 1e-4, 1e-2],
        ... )
        >>> model.compile(optimizer, loss="mse")

    Source:
        Howard & Ruder 2018, Universal Language Model Fine-tuning, section 3.2, arXiv:1801.06146.
    """

    def __init__(
        self,
        optimizer: Any,
        groups: LayerGroups,
        lr_multipliers: Sequence[float | Schedule] | None = None,
        *,
        learning_rates: Sequence[float] | None = None,
        name: str | None = None,
    ):
        _check_inner(optimizer)
        if not isinstance(groups, LayerGroups):
            raise TypeError(_checks.sentence("groups", "be LayerGroups, from `kadence.split` for example", groups))
        if (lr_multipliers is None) == (learning_rates is None):
            received = {"lr_multipliers": lr_multipliers, "learning_rates": learning_rates}
            rule = "be exactly one of the two, `lr_multipliers` or `learning_rates`"
            raise ValueError(_checks.sentence("rates", rule, received))
        if lr_multipliers is not None:
            multipliers = _check_multipliers(lr_multipliers, groups)
        else:
            multipliers = _multipliers_of_rates(optimizer, _check_rates(learning_rates, groups))
        super().__init__(learning_rate=0.0, name=name)
        optimizer._group_rates = _Rates(multipliers)
        optimizer.__class__ = _grouped_class(type(optimizer))
        self.inner_optimizer: Any = optimizer
        self._groups = groups

    @property
    def groups(self) -> LayerGroups:
        """The layer groups, with each group's current rate in their table."""
        return self._groups.with_rates(list(self.learning_rates.values())) if self.built else self._groups

    @property
    def lr_multipliers(self) -> tuple[float | Schedule, ...]:
        """Factor on the base rate, one per group."""
        return self.inner_optimizer._group_rates.multipliers

    @property
    def learning_rates(self) -> dict[str, float]:
        """Group name -> the rate of the next update, as a float."""
        rates = self.inner_optimizer._group_rates.at(self.learning_rate, self.iterations)
        return {name: as_number(rate) for name, rate in zip(self._groups.names, rates, strict=True)}

    # What Keras reads and sets on an optimizer is the inner optimizer's.

    @property
    def learning_rate(self) -> Any:
        """The base rate: a variable that can be assigned, or the schedule's rate at the current update."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self) -> Any:
        """Number of updates done."""
        return self.inner_optimizer.iterations

    @property
    def variables(self) -> list[keras.Variable]:
        """All state: two unused scalars of the Keras base class, then the inner optimizer's variables."""
        return self._variables + self.inner_optimizer.variables

    @property
    def loss_scale_factor(self) -> float | None:
        """The inner optimizer's static loss scale; None in a `LossScaleOptimizer`."""
        inner = self.__dict__.get("inner_optimizer")
        return None if inner is None else inner.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, value: float | None) -> None:
        if "inner_optimizer" in self.__dict__:
            self.inner_optimizer.loss_scale_factor = value

    def scale_loss(self, loss: Any) -> Any:
        """The loss times the static loss scale, as Keras defines it."""
        return self.inner_optimizer.scale_loss(loss)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the state, and check that each of `variables` is in exactly one group.

        Args:
            variables: The model's trainable variables, in the model's order.

        Raises:
            ValueError: If a variable is in no group, or saved groups do not fit the model.
        """
        if self.built:
            return
        variables = list(variables)
        self._groups = self._groups.bind(variables)
        index_of = {id(weight): index for index, group in enumerate(self._groups) for weight in group.weights}
        inner = self.inner_optimizer
        inner._group_rates.group_of = {inner._var_key(v): index_of[id(v)] for v in variables}
        inner.build(variables)
        super().build(variables)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Update the variables, each with the rate of its group.

        Args:
            grads: Gradients, one per variable.
            trainable_variables: The variables; by default those the optimizer was built with.
        """
        if not self.built and trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            self.build(trainable_variables)
        self.inner_optimizer.apply(grads, trainable_variables)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Put averaged weights into the model at the end of training, where the optimizer keeps an average.

        Args:
            var_list: The model's trainable variables.
        """
        self.inner_optimizer.finalize_variable_values(var_list)

    def save_own_variables(self, store: Any) -> None:
        """Nothing: Keras saves the inner optimizer beside this one.

        Args:
            store: Where Keras keeps the state.
        """

    def load_own_variables(self, store: Any) -> None:
        """Nothing: Keras loads the inner optimizer beside this one.

        Args:
            store: Where Keras keeps the state.
        """

    def get_config(self) -> dict[str, Any]:
        """Everything but the state: inner optimizer, groups, multipliers."""
        return {
            "name": self.name,
            "inner_optimizer": _inner_config(self.inner_optimizer),
            "groups": self._groups.get_config(self._trainable_variables if self.built else None),
            "lr_multipliers": keras.saving.serialize_keras_object(list(self.lr_multipliers)),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "DiscriminativeOptimizer":
        """The optimizer that `get_config` describes; its groups find their variables when it is built.

        Args:
            config: Result of `get_config`.
            custom_objects: Names of custom objects, as in Keras.

        Returns:
            `DiscriminativeOptimizer`, not built.
        """
        optimizer = keras.saving.deserialize_keras_object(config["inner_optimizer"], custom_objects=custom_objects)
        multipliers = keras.saving.deserialize_keras_object(config["lr_multipliers"], custom_objects=custom_objects)
        return cls(optimizer, LayerGroups.from_config(config["groups"]), multipliers, name=config["name"])


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


def sample_rates(optimizer: Any, n_steps: int, start: int = 0, base_rate: float | None = None) -> dict[str, np.ndarray]:
    """Every group's rate at the updates start, ..., start + n_steps - 1, in NumPy.

    Args:
        optimizer: Any Keras optimizer, wrapped or not; one without groups has the single group "all".
        n_steps: Number of optimizer updates. Integer >= 0.
        start: First update, counted in optimizer steps. Integer >= 0.
        base_rate: Rate to take where the base rate is a variable; by default its present value. Float >= 0.

    Returns:
        Dict of group name to array of shape (n_steps,), float64.
    """
    inner = innermost(optimizer)
    rate = inner._learning_rate
    # Without groups, Keras passes the count of micro-batches to a schedule.
    micro = 1 if isinstance(inner, _UpdatesByGroup) else inner.gradient_accumulation_steps or 1
    steps = (start + np.arange(n_steps)) * micro + micro - 1
    if isinstance(rate, Schedule):
        base = rate.at(steps)
    elif isinstance(rate, KerasSchedule):
        base = np.array([as_number(rate(step)) for step in steps.tolist()], np.float64)
    else:
        present = as_number(inner.learning_rate) if base_rate is None else base_rate
        base = np.full(n_steps, present, np.float64)
    while not isinstance(optimizer, DiscriminativeOptimizer):
        if optimizer is inner:
            return {"all": base}
        optimizer = optimizer.inner_optimizer
    return {
        name: base * (factor.sample(n_steps, start) if isinstance(factor, Schedule) else factor)
        for name, factor in zip(optimizer.groups.names, optimizer.lr_multipliers, strict=True)
    }


def _check_inner(optimizer: Any) -> None:
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(_checks.sentence("optimizer", "be a keras.optimizers.Optimizer", optimizer))
    if hasattr(optimizer, "inner_optimizer") or hasattr(optimizer, "optimizers"):
        remedy = "Put it around the DiscriminativeOptimizer instead." if hasattr(optimizer, "inner_optimizer") else ""
        raise TypeError(
            _checks.sentence("optimizer", "not be a wrapper of optimizers", type(optimizer).__name__, remedy)
        )
    if optimizer.built or isinstance(optimizer, _UpdatesByGroup):
        fact = "built" if optimizer.built else "in another DiscriminativeOptimizer"
        raise ValueError(
            _checks.sentence("optimizer", f"be new; this one is {fact}", optimizer.name, "Make a new one.")
        )


def _one_per_group(name: str, values: Any, groups: LayerGroups) -> list[Any]:
    rule = f"have one value per group, {len(groups)}: {', '.join(groups.names)}"
    items = _checks.sequence(name, values, rule)
    if len(items) != len(groups):
        raise ValueError(_checks.sentence(name, rule, items))
    return items


def _check_multipliers(values: Any, groups: LayerGroups) -> list[float | Schedule]:
    return [
        value if isinstance(value, Schedule) else _checks.number("lr_multipliers", value, minimum=0.0)
        for value in _one_per_group("lr_multipliers", values, groups)
    ]


def _check_rates(values: Any, groups: LayerGroups) -> list[float]:
    items = _one_per_group("learning_rates", values, groups)
    rates = [_checks.number("learning_rates", value, minimum=0.0) for value in items]
    if max(rates) <= 0.0:
        raise ValueError(_checks.sentence("learning_rates", "hold at least one rate > 0", rates))
    return rates


def _multipliers_of_rates(optimizer: Any, rates: Sequence[float]) -> list[float]:
    """Ratios of the peak rates to the base rate, which becomes the largest where it is a variable."""
    schedule = optimizer._learning_rate
    if isinstance(schedule, Schedule):
        return [rate / schedule.lr_max for rate in rates]
    if callable(schedule) and not isinstance(schedule, keras.Variable):
        rule = "come with a rate that is a number or a kadence.Schedule, whose peak is known"
        remedy = "Give `lr_multipliers` instead."
        raise ValueError(_checks.sentence("learning_rates", rule, type(schedule).__name__, remedy))
    optimizer.learning_rate = max(rates)
    return [rate / max(rates) for rate in rates]


def _inner_config(optimizer: Any) -> dict[str, Any]:
    """Keras's serialized form under the class that the user named, which any backend can load."""
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
