"""Which layers and variables of a model are trainable: read, set and put back, each by itself."""

from typing import Any

from kadence._walk import Unit


class Flags:
    """Which layers and variables of a model are trainable.

    Args:
        model: Built `keras.Model`.
    """

    def __init__(self, model: Any):
        self.layers = [(layer, layer._trainable) for layer in model._flatten_layers()]
        self.variables = [(weight, weight.trainable) for weight in model.weights]

    def put_back(self) -> None:
        """Set them as they were."""
        for layer, flag in self.layers:
            layer._trainable = flag
        for weight, flag in self.variables:
            weight.trainable = flag

    def changed(self) -> bool:
        """Whether they are others by now."""
        layers = any(layer._trainable != flag for layer, flag in self.layers)
        return layers or any(weight.trainable != flag for weight, flag in self.variables)


def set_unit(unit: Unit, trainable: bool) -> None:
    """Set the layer itself, not its sublayers: they may be in another group. And of its weights, those that can train.

    Args:
        unit: The layer with its weights.
        trainable: What to set.
    """
    own = {id(variable) for variable in unit.layer._trainable_variables}
    unit.layer._trainable = trainable
    for weight in unit.weights:
        if id(weight) in own:
            weight.trainable = trainable


def follow_sublayers(layer: Any) -> None:
    """A layer with sublayers trains if one of them does, or a weight of its own.

    Args:
        layer: Layer to set. One without sublayers stays as it is.
    """
    sublayers = layer._flatten_layers(include_self=False, recursive=False)
    if sublayers:
        layer._trainable = any(sub._trainable for sub in sublayers) or any(
            weight.trainable for weight in layer._trainable_variables
        )
