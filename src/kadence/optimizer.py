"""Layer groups and any Keras optimizer -> one optimizer with one learning rate per group."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._optimizer_checks import (
    check_decays,
    check_inner,
    check_multipliers,
    check_names,
    check_rates,
    check_schedules,
    has_decay,
    multipliers_of_rates,
    one_per_group,
)
from kadence._updates import (
    GroupSettings,
    KerasSchedule,
    as_number,
    exclude_names,
    ungrouped_config,
    update_by_group,
)
from kadence.groups import LayerGroups
from kadence.schedules import Schedule


@keras.saving.register_keras_serializable(package="kadence")
class DiscriminativeOptimizer(keras.optimizers.Optimizer):
    """Any Keras optimizer with one learning rate per layer group, under unchanged `compile` and `fit`.

    The rate of a variable is `learning_rate * multiplier(group)`, at every step; absolute weight decay scales with it.
    There is one optimizer state, one `iterations`, one global clip norm, one gradient accumulator and one loss scale.
    `learning_rate` is the base rate with its Keras meaning: callbacks that read or set it work, and keep the ratios.
    Where the base rate is a schedule, setting it sets a factor on the schedule from there on, so that ReduceLROnPlateau
    works beside a schedule. Where the schedule is 0 at the end of an epoch, no factor can change that, and Keras's
    callback does nothing, in silence: give such a schedule an `lr_min` > 0.
    A schedule is evaluated at `iterations`, the number of updates; micro-batches of gradient accumulation do not count.
    A model saved with it goes on training after `keras.saving.load_model`, once `kadence` is imported.

    Args:
        optimizer: A new `keras.optimizers.Optimizer`, not yet built; it belongs to this one from here on. A
            `LossScaleOptimizer` goes around the `DiscriminativeOptimizer`, not inside.
        groups: `LayerGroups` of the model that will be compiled.
        lr_multipliers: Factor on the base rate, one per group: floats >= 0, or `Schedule`s of the optimizer step. Ftrl
            divides by the rate: where that is 0 the weights become NaN.
        learning_rates: Instead of `lr_multipliers`, the peak rate of each group: floats >= 0, one of them > 0. The base
            rate becomes the largest, or stays the `lr_max` of the optimizer's `Schedule`.
        schedules: Name of a hyperparameter of the optimizer, such as "momentum", "beta_1" or "weight_decay" -> its
            `Schedule` of the optimizer step, which applies in the compiled step. The optimizer's own value of it has to
            be > 0.
        weight_decay_multipliers: Factor on the weight decay, one per group: floats >= 0. None for 1.
        no_weight_decay: Names of the variables that weight decay leaves alone, such as ["bias", "gamma", "beta"]; a
            variable is left alone if its name contains one of them.
        name: Name of the optimizer. String or None.

    Raises:
        ValueError: If both or neither of `lr_multipliers` and `learning_rates` are given, their number is not that of
            the groups, a value is negative or not finite, something is said of weight decay to an optimizer without,
            or the optimizer is built already.
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
        schedules: Mapping[str, Schedule] | None = None,
        weight_decay_multipliers: Sequence[float] | None = None,
        no_weight_decay: Sequence[str] = (),
        name: str | None = None,
    ):
        check_inner(optimizer)
        if not isinstance(groups, LayerGroups):
            raise TypeError(_checks.sentence("groups", "be LayerGroups, from `kadence.split` for example", groups))
        if (lr_multipliers is None) == (learning_rates is None):
            received = {
                "lr_multipliers": lr_multipliers,
                "learning_rates": learning_rates,
            }
            rule = "be exactly one of the two, `lr_multipliers` or `learning_rates`"
            raise ValueError(_checks.sentence("rates", rule, received))
        if lr_multipliers is not None:
            multipliers = check_multipliers(lr_multipliers, groups)
        else:
            multipliers = multipliers_of_rates(optimizer, check_rates(learning_rates, groups))
        decay = [1.0] * len(groups) if weight_decay_multipliers is None else weight_decay_multipliers
        settings = GroupSettings(
            multipliers,
            [
                _checks.number("weight_decay_multipliers", factor, minimum=0.0)
                for factor in one_per_group("weight_decay_multipliers", decay, groups)
            ],
            check_schedules(schedules or {}, optimizer),
        )
        names = check_names(no_weight_decay)
        check_decays(settings.decay_multipliers, names, optimizer)
        super().__init__(learning_rate=1.0, name=name)
        self._no_weight_decay = tuple(names)
        # The base class's own rate, which nothing uses, is the factor on a schedule.
        settings.rate_factor = self._learning_rate
        update_by_group(optimizer, settings)
        self.inner_optimizer: Any = optimizer
        self._groups = groups

    @property
    def groups(self) -> LayerGroups:
        """The layer groups, with each group's current rate in their table."""
        return self._groups.with_rates(list(self.learning_rates.values())) if self.built else self._groups

    @property
    def lr_multipliers(self) -> tuple[float | Schedule, ...]:
        """Factor on the base rate, one per group."""
        return self.inner_optimizer._group_settings.multipliers

    @property
    def learning_rates(self) -> dict[str, float]:
        """Group name -> the rate of the next update, as a float."""
        base = as_number(self.learning_rate)
        factors = [as_number(f(self.iterations)) if isinstance(f, Schedule) else f for f in self.lr_multipliers]
        return {name: base * factor for name, factor in zip(self._groups.names, factors, strict=True)}

    # What Keras reads and sets on an optimizer is the inner optimizer's.

    @property
    def learning_rate(self) -> Any:
        """The base rate: a variable, or the schedule's rate at the current update; it can be set where not 0."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        schedule = self.inner_optimizer._learning_rate
        if isinstance(learning_rate, KerasSchedule) or not isinstance(schedule, KerasSchedule):
            self._learning_rate.assign(1.0)
            self.inner_optimizer.learning_rate = learning_rate
            return
        wanted, scheduled = (
            as_number(learning_rate),
            as_number(schedule(self.iterations)),
        )
        if scheduled == 0.0 and wanted != 0.0:
            rule = f"be 0 at step {int(as_number(self.iterations))}, where the schedule is 0 and no factor changes it"
            raise ValueError(_checks.sentence("learning_rate", rule, wanted))
        if scheduled != 0.0:
            self._learning_rate.assign(wanted / scheduled)

    @property
    def iterations(self) -> Any:
        """Number of updates done."""
        return self.inner_optimizer.iterations

    @property
    def variables(self) -> list[keras.Variable]:
        """All state: two scalars, one of them the factor on a schedule, then the inner optimizer's variables."""
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

    @property
    def _model_variables_moving_average(self) -> list[Any]:
        """The inner optimizer's average of the weights, where Keras's SwapEMAWeights looks for it."""
        return self.inner_optimizer._model_variables_moving_average

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all state.

        Args:
            weights: Arrays, one for each of `variables`.
        """
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def scale_loss(self, loss: Any) -> Any:
        """The loss times the static loss scale, as Keras defines it."""
        return self.inner_optimizer.scale_loss(loss)

    def exclude_from_weight_decay(
        self, var_list: Sequence[keras.Variable] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Exclude variables from weight decay, as in Keras, which does not save it; `no_weight_decay` is saved.

        Args:
            var_list: Variables to leave alone.
            var_names: Parts of the names of variables to leave alone.
        """
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)
        exclude_names(self.inner_optimizer, self._no_weight_decay)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the state, and check that each of `variables` is in exactly one group.

        What was frozen when the groups were saved, and is not any more, is frozen again, with a warning.

        Args:
            variables: The model's trainable variables, in the model's order.

        Raises:
            ValueError: If a variable is in no group, or saved groups do not fit the model.
        """
        if self.built:
            return
        self._groups = self._groups.bind(list(variables))
        self._groups.freeze_again()
        variables = [variable for variable in variables if variable.trainable]
        index_of = {id(weight): index for index, group in enumerate(self._groups) for weight in group.weights}
        inner = self.inner_optimizer
        inner._group_settings.group_of = {inner._var_key(v): index_of[id(v)] for v in variables}
        exclude_names(inner, self._no_weight_decay)
        inner.build(variables)
        super().build(variables)

    def apply_gradients(self, grads_and_vars: Any) -> Any:
        """Update the variables, each with the rate of its group.

        Args:
            grads_and_vars: Pairs of gradient and variable.

        Returns:
            Number of updates done, the variable.
        """
        super().apply_gradients(grads_and_vars)
        return self.iterations

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
        """Save the factor on a schedule; Keras saves the inner optimizer beside this one.

        Args:
            store: Where Keras keeps the state.
        """
        store["rate_factor"] = np.asarray(as_number(self._learning_rate), np.float32)

    def load_own_variables(self, store: Any) -> None:
        """Load the factor on a schedule; Keras loads the inner optimizer beside this one.

        Args:
            store: Where Keras keeps the state.
        """
        if "rate_factor" in store.keys():  # noqa: SIM118 - a file of weights alone has none; Keras's store has no `in`
            self._learning_rate.assign(np.asarray(store["rate_factor"]).item())

    def get_config(self) -> dict[str, Any]:
        """Everything but the state: inner optimizer, groups, multipliers, schedules."""
        settings = self.inner_optimizer._group_settings
        return {
            "name": self.name,
            "inner_optimizer": ungrouped_config(self.inner_optimizer),
            "groups": self._groups.get_config(self._trainable_variables if self.built else None),
            "lr_multipliers": keras.saving.serialize_keras_object(list(settings.multipliers)),
            "schedules": keras.saving.serialize_keras_object(settings.schedules),
            "weight_decay_multipliers": list(settings.decay_multipliers),
            "no_weight_decay": list(self._no_weight_decay),
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
        revived = {
            key: keras.saving.deserialize_keras_object(config[key], custom_objects=custom_objects)
            for key in ("inner_optimizer", "lr_multipliers", "schedules")
        }
        decays = has_decay(revived["inner_optimizer"])  # older files say something of decay where there is none
        return cls(
            revived["inner_optimizer"],
            LayerGroups.from_config(config["groups"]),
            revived["lr_multipliers"],
            schedules=revived["schedules"],
            weight_decay_multipliers=config["weight_decay_multipliers"] if decays else None,
            no_weight_decay=config["no_weight_decay"] if decays else (),
            name=config["name"],
        )
