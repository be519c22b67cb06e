"""Where the head of a model begins, and the layer groups that follow from it."""

from typing import Any

import keras

from kadence import _checks
from kadence._walk import Layers
from kadence.groups import LayerGroups, split

#: Layers that make a vector of a picture or a text: what follows them is a head.
_POOLS = (
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
    keras.layers.Flatten,
)
_REMEDY = "Give `head`, the first layer of the head, or `groups`, of which the last is the head."


def groups_with_head(model: keras.Model, head: str | keras.Layer | None = None) -> LayerGroups:
    """What is before the head in two halves of equally many layers with weights, and the head.

    The head is what follows the largest model that is nested in `model`; without one, what follows the last pooling
    that has layers with weights before and behind it; without one, the last layer with weights, if there is one output.

    Args:
        model: Built `keras.Model`.
        head: First layer of the head: a layer, an address, or a unique name. None to find it.

    Returns:
        `LayerGroups`: the two halves, or one group where there is one layer, and the head.

    Raises:
        ValueError: If no layer with weights is before the head, or none in it.
    """
    layers = Layers(model)
    start = layers.find(head, "head") if head is not None else _start(model, layers)
    body = [index for index in layers.weighted if index < start]
    if not body or not any(index >= start for index in layers.weighted):
        rule = "have layers with weights before the head and in it"
        raise ValueError(_checks.sentence("model", rule, model.name, _REMEDY))
    points = sorted({body[len(body) // 2], start} - {body[0]})
    return split(model, [layers.units[point].layer for point in points])


def _start(model: Any, layers: Layers) -> int:
    weighted = layers.weighted
    ends = _nested_ends(model, layers) or _pooling_starts(layers)
    if ends:
        return ends[-1]
    if len(weighted) < 2 or len(getattr(model, "outputs", None) or ()) > 1:
        raise ValueError(_checks.sentence("model", "have a head that can be found", model.name, _REMEDY))
    return weighted[-1]


def _nested_ends(model: Any, layers: Layers) -> list[int]:
    """Index of the first unit behind the largest nested model, if units with weights follow it."""
    parts = model._flatten_layers(include_self=False, recursive=False)
    nested = [part for part in parts if isinstance(part, keras.Model) and part.weights]
    if not nested:
        return []
    largest = max(nested, key=lambda part: part.count_params())
    inside = {id(layer) for layer in largest._flatten_layers()}
    end = max(index for index, unit in enumerate(layers.units) if id(unit.layer) in inside) + 1
    return [end] if any(index >= end for index in layers.weighted) else []


def _pooling_starts(layers: Layers) -> list[int]:
    weighted = layers.weighted
    found = [index for index, unit in enumerate(layers.units) if isinstance(unit.layer, _POOLS)]
    return [index for index in found if weighted and weighted[0] < index < weighted[-1]]
