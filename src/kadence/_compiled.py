"""What a user compiled a model with, to compile it, or a part of it, again with another optimizer."""

from collections.abc import Sequence
from typing import Any

import keras

from kadence import _checks
from kadence._sweep import layers_of, remade
from kadence._updates import innermost
from kadence.groups import LayerGroups
from kadence.optimizer import DiscriminativeOptimizer
from kadence.schedules import Schedule


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
        """Class and settings of the optimizer, without its rate, and the loss; JSON types, to tell two runs apart."""
        config = {name: repr(value) for name, value in self.optimizer.get_config().items() if name != "learning_rate"}
        loss = self._arguments["loss"]
        return {
            "optimizer": [type(self.optimizer).__name__, config],
            "loss": loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__),
        }

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
            optimizer = DiscriminativeOptimizer(optimizer, groups, multipliers, learning_rates=rates)
        if self._scale is not None:
            scale = self._scale
            optimizer = keras.optimizers.LossScaleOptimizer(
                optimizer, scale.initial_scale, scale.dynamic_growth_steps, name=scale.name
            )
        # A subclass may compile with arguments of its own, which it keeps.
        keras.Model.compile(model, optimizer, **self._arguments)
