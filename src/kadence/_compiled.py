"""What a user compiled a model with, to compile it, or a part of it, again with another optimizer."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._sweep import layers_of, remade
from kadence._updates import exclude_names, innermost
from kadence.groups import LayerGroups
from kadence.optimizer import DiscriminativeOptimizer
from kadence.schedules import Schedule
from kadence.slots import rebuild_optimizer


class Compiled:
    """Loss, metrics and optimizer of a compiled model.

    Args:
        model: Compiled `keras.Model`.

    Attributes:
        groups: The groups of its optimizer, or None.

    Raises:
        ValueError: If it is not compiled, or its optimizer cannot be made from its own config.
        TypeError: If its optimizer is a wrapper that is not known.
    """

    def __init__(self, model: Any):
        if not getattr(model, "compiled", False) or getattr(model, "optimizer", None) is None:
            remedy = "`model.compile('adam', loss, metrics=metrics)` gives it loss, metrics and the kind of optimizer."
            raise ValueError(_checks.sentence("model", "be compiled", getattr(model, "name", model), remedy))
        grouped, self._scale = layers_of(model.optimizer)
        self.groups = None if grouped is None else grouped._groups
        self.optimizer = remade(innermost(model.optimizer))
        settings = None if grouped is None else grouped.inner_optimizer._group_settings
        self._decay = None if settings is None else settings.decay_multipliers
        self._no_decay = [] if grouped is None else list(grouped._no_weight_decay)
        exclude_names(self.optimizer, self._no_decay)
        loss, metrics = (vars(model).get(f"_compile_{name}") for name in ("loss", "metrics"))
        self._arguments: dict[str, Any] = {
            "loss": getattr(loss, "_user_loss", None),
            "loss_weights": getattr(loss, "_user_loss_weights", None),
            "metrics": getattr(metrics, "_user_metrics", None),
            "weighted_metrics": getattr(metrics, "_user_weighted_metrics", None),
            "run_eagerly": model.run_eagerly,
            "steps_per_execution": model.steps_per_execution,
            "jit_compile": model.jit_compile,
            "auto_scale_loss": False,  # the optimizer is wrapped as it was before
        }
        own = ("train_step", "test_step", "compute_loss", "compute_metrics")
        #: Whether a part of the model trains as the model itself does.
        self.is_plain = all(getattr(type(model), name) is getattr(keras.Model, name) for name in own)

    def describe(self) -> dict[str, Any]:
        """Optimizer without its rate, loss and metrics, by class and config; JSON types, to tell two runs apart.

        What has no config, such as a function, counts as its name.
        """
        config = {name: value for name, value in _config(self.optimizer).items() if name != "learning_rate"}
        optimizer = [_name(self.optimizer), config, self._decay, self._no_decay]
        names = ("loss", "loss_weights", "metrics", "weighted_metrics")
        return {"optimizer": described(optimizer), **{name: described(self._arguments[name]) for name in names}}

    def updates(self, n_batches: int) -> int:
        """Number of updates that so many batches make, fewer than batches under gradient accumulation."""
        return max(n_batches // (self.optimizer.gradient_accumulation_steps or 1), 1)

    def compile(
        self,
        model: Any,
        schedule: Schedule,
        groups: LayerGroups | None = None,
        rates: Sequence[float] | None = None,
        multipliers: Sequence[float] | None = None,
    ) -> None:
        """Compile a model with a new optimizer of the same kind and settings.

        Args:
            model: The model, or a part of it.
            schedule: Of the base rate; its peak is the largest of `rates`, if there are any.
            groups: Layer groups, or None for one rate.
            rates: Peak rate of each group, or None.
            multipliers: Instead, the factor of each group on the base rate.
        """
        optimizer = remade(self.optimizer)
        optimizer.learning_rate = schedule
        if groups is not None:
            decay = self._decay if self._holds(groups) else None
            optimizer = DiscriminativeOptimizer(
                optimizer,
                groups,
                multipliers,
                learning_rates=rates,
                weight_decay_multipliers=decay,
                no_weight_decay=self._no_decay,
            )
        if self._scale is not None:
            scale = self._scale
            optimizer = keras.optimizers.LossScaleOptimizer(
                optimizer, scale.initial_scale, scale.dynamic_growth_steps, name=scale.name
            )
        self._compile(model, optimizer)

    def _holds(self, groups: LayerGroups) -> bool:
        """Whether groups are those that the model was compiled with; frozen layers may have joined them since."""
        own = self.groups
        return (
            own is not None
            and own.names == groups.names
            and all(
                {id(weight) for weight in one.weights} <= {id(weight) for weight in other.weights}
                for one, other in zip(own, groups, strict=True)
            )
        )

    def go_on_with(self, model: Any, optimizer: Any) -> None:
        """Let an optimizer go on with what trains in a model, which is compiled with it.

        Args:
            model: The model that it is of, or a part of that.
            optimizer: The optimizer.
        """
        rebuild_optimizer(optimizer, model.trainable_variables)
        if getattr(model, "optimizer", None) is not optimizer:
            self._compile(model, optimizer)

    def _compile(self, model: Any, optimizer: Any) -> None:
        # Keras does not reset metrics of the user that it has not seen in this compilation, at the start of a `fit`.
        for metric in keras.tree.flatten([self._arguments["metrics"], self._arguments["weighted_metrics"]]):
            if isinstance(metric, keras.metrics.Metric):
                metric.reset_state()
        # A subclass may compile with arguments of its own, which it keeps.
        keras.Model.compile(model, optimizer, **self._arguments)


def described(value: Any) -> Any:
    """JSON types that are the same for equal settings in every process; without names, which Keras numbers anew.

    Args:
        value: Layer, loss, metric or optimizer, by its config; a function by its name; or a tree of these and numbers.
    """
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        if value.keys() >= {"class_name", "config"}:  # what Keras serialized, with all that it numbers anew
            return [value["class_name"], described(_unnamed(value["config"]))]
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(item) for item in value]
    config = _config(value)
    return [_name(value), described(config)] if config else _name(value)


def _name(value: Any) -> str:
    """The name of a function or class, or of the class of an object; modules of Keras differ between its backends."""
    return (value if hasattr(value, "__qualname__") else type(value)).__qualname__


def _config(value: Any) -> dict[str, Any]:
    """The config of a Keras object, or nothing; without its name, which Keras numbers anew in each process."""
    if isinstance(value, type) or not hasattr(value, "get_config"):
        return {}
    with warnings.catch_warnings(action="ignore"):  # of a lambda, which nothing loads again
        try:
            return _unnamed(value.get_config())
        except Exception:  # one that a user has left half done
            return {}


def _unnamed(config: Any) -> Any:
    return {key: item for key, item in config.items() if key != "name"} if isinstance(config, dict) else config
