"""Which layers and variables of a model are trainable: read, set and put back, each by itself."""

from typing import Any

from kadence._walk import Unit

#: Attribute of a layer: which of its variables, by index, were off while it trained.
_KEPT_OFF = "_kadence_kept_off"


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

    What is off while the layer trains stays off when it is frozen and trains again, as does the kernel beneath LoRA.

    Args:
        unit: The layer with its weights.
        trainable: What to set.
    """
    layer = unit.layer
    variables = list(layer._trainable_variables)
    if not trainable and layer._trainable and any(variable.trainable for variable in variables):
        setattr(layer, _KEPT_OFF, frozenset(i for i, variable in enumerate(variables) if not variable.trainable))
    kept_off = {id(variables[i]) for i in getattr(layer, _KEPT_OFF, ()) if i < len(variables)}
    if getattr(layer, "lora_enabled", False):
        kept_off |= {id(getattr(layer, name, None)) for name in ("_kernel", "_embeddings")}
    own = {id(variable) for variable in variables}
    layer._trainable = trainable
    for weight in unit.weights:
        if id(weight) in own:
            weight.trainable = trainable and id(weight) not in kept_off


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
