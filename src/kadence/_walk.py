"""Model -> the addresses of its layers, nested ones included, in definition order."""

from collections.abc import Iterator
from dataclasses import dataclass

import keras

from kadence import _checks


@dataclass(frozen=True)
class Unit:
    """A layer that can stand in a group: one without sublayers, or one that owns weights beside theirs.

    Args:
        address: Names on the way from the model to the layer, joined by `/`.
        weights: `keras.Variable`s that the layer itself owns; a variable shared by two layers belongs to the first.
        layer: The layer.
    """

    address: str
    weights: tuple[keras.Variable, ...]
    layer: keras.Layer


@dataclass(frozen=True)
class _Place:
    """Where a layer, single or with sublayers, begins: the index of its first unit."""

    address: str
    layer: keras.Layer
    start: int


class Layers:
    """The layers of a model as units in definition order, found by layer, address or unique name.

    Args:
        model: Built `keras.Model`.

    Raises:
        TypeError: If `model` is not a `keras.Model`.
        ValueError: If `model` is not built.
    """

    def __init__(self, model: keras.Model):
        if not isinstance(model, keras.Model):
            raise TypeError(_checks.sentence("model", "be a keras.Model", model))
        if not model.built or not model.weights:
            remedy = "Call it on a batch of data, or `model.build(input_shape)`, first."
            raise ValueError(_checks.sentence("model", "be built and have weights", model.name, remedy))
        self.units: list[Unit] = []
        self._places: list[_Place] = []
        self._seen: set[int] = set()
        self._visit(model, model.name, "")

    @property
    def weighted(self) -> list[int]:
        """Indices of the units that own weights."""
        return [index for index, unit in enumerate(self.units) if unit.weights]

    def _visit(self, layer: keras.Layer, address: str, prefix: str) -> None:
        self._seen.add(id(layer))
        self._places.append(_Place(address, layer, len(self.units)))
        # Keras has no public way to the sublayers of a layer that is not a model.
        sublayers = layer._flatten_layers(include_self=False, recursive=False)
        weights = tuple(self._own_weights(layer, sublayers))
        if weights or not sublayers:
            self.units.append(Unit(address, weights, layer))
        for sublayer in sublayers:
            if id(sublayer) not in self._seen:
                self._visit(sublayer, prefix + sublayer.name, f"{prefix}{sublayer.name}/")

    def _own_weights(self, layer: keras.Layer, sublayers: list[keras.Layer]) -> Iterator[keras.Variable]:
        below = {id(weight) for sublayer in sublayers for weight in sublayer.weights}
        for weight in layer.weights:
            if id(weight) not in below and id(weight) not in self._seen:
                self._seen.add(id(weight))
                yield weight

    def find(self, point: str | keras.Layer, name: str = "at") -> int:
        """Index of the first unit of a layer.

        Args:
            point: A layer of the model, an address, or a bare name that only one layer has.
            name: What an error calls it.

        Returns:
            Integer index into `units`.

        Raises:
            ValueError: If no layer or more than one layer matches.
            TypeError: If `point` is neither a string nor a layer.
        """
        whole, *inside = self._places
        if isinstance(point, keras.Layer):
            found = [place for place in self._places if place.layer is point]
            point, hint = point.name, "This layer is one of another model."
        elif isinstance(point, str):
            found = [place for place in inside if place.address == point]
            found = found or [place for place in inside if place.layer.name == point]
            found = found or [place for place in [whole] if place.address == point]
            hint = _checks.did_you_mean(point, [place.address for place in inside])
        else:
            raise TypeError(_checks.sentence(name, "name layers by string or by layer object", point))
        if not found:
            raise ValueError(_checks.sentence(name, "name layers of the model", point, hint))
        if len(found) > 1:
            matches = ", ".join(repr(place.address) for place in found)
            remedy = "Give the whole address, or the layer object where addresses are equal."
            raise ValueError(_checks.sentence(name, f"name one layer; {point!r} is {matches}", point, remedy))
        return found[0].start
