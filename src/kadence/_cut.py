"""A functional model, cut in two at one tensor: the part before it and the part from there on, with the same layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from kadence import _checks
from kadence._walk import Layers
from kadence.groups import LayerGroup


@dataclass
class _Call:
    """A call of a layer or operation in the graph."""

    node: Any
    in_tail: bool

    @property
    def operation(self) -> Any:
        return self.node.operation


class Cut:
    """Where a model is cut: the calls before and behind, and the one tensor between them.

    The cut moves on over operations without weights and randomness as long as it stays one tensor: behind a pooling
    there is less to store.

    Args:
        model: Built `keras.Model`, functional or Sequential; models nested in it may be cut inside.
        at: First layer behind the cut: a layer, an address, a unique name, or a `LayerGroup` for its first layer.

    Raises:
        ValueError: If the model is subclassed where it is cut, nothing is before or behind the cut, or more than one
            tensor crosses it.
        TypeError: If `at` is something else.
    """

    def __init__(self, model: Any, at: str | keras.Layer | LayerGroup):
        layers = Layers(model)
        self.model = model
        self._at = at.layers[0] if isinstance(at, LayerGroup) else at
        start = layers.find(self._at)
        self._position = {id(unit.layer): index - start for index, unit in enumerate(layers.units)}
        self._alias: dict[int, Any] = {}
        self._expanded: set[int] = set()
        self._calls: list[_Call] = []
        self._tail_outputs: set[int] = set()
        self._root = self._graph(model)
        self._expand(self._root)
        self._outputs = [self._resolve(output) for output in self._root.outputs]
        self.tensor = self._only_crossing()
        self._move_on()

    @property
    def layers_before(self) -> list[keras.Layer]:
        """Layers that run before the cut, nested ones too."""
        found = [call.operation for call in self._calls if not call.in_tail]
        return [part for layer in found if isinstance(layer, keras.Layer) for part in layer._flatten_layers()]

    def before(self) -> keras.Model:
        """The part from the model's inputs to the cut, as a `keras.Model` with the same layers."""
        if not self._alias:  # no nested model is taken apart: the tensors are all there
            return self._model(self._root._inputs_struct, self.tensor, "features")
        inputs = keras.tree.map_structure(_input_like, self._root._inputs_struct)
        pairs = zip(self._root.inputs, keras.tree.flatten(inputs), strict=True)
        env = {id(old): new for old, new in pairs}
        self._replay([call for call in self._calls if not call.in_tail], env)
        return self._model(inputs, env[id(self.tensor)], "features")

    def behind(self) -> keras.Model:
        """The part from the cut to the model's outputs, as a `keras.Model` with the same layers."""
        features = keras.Input(self.tensor.shape[1:], dtype=self.tensor.dtype, name="features")
        env = {id(self.tensor): features}
        self._replay([call for call in self._calls if call.in_tail], env)
        outputs = [env[id(output)] for output in self._outputs]
        return self._model(features, keras.tree.pack_sequence_as(self._root._outputs_struct, outputs), "tail")

    def _model(self, inputs: Any, outputs: Any, part: str) -> keras.Model:
        try:
            return keras.Model(inputs, outputs, name=f"{self.model.name}_{part}")
        except ValueError as error:  # two layers of one name, from different nested models
            rule = "cut the model where its parts are models too"
            raise ValueError(_checks.sentence("at", rule, self._at, f"{error}")) from error

    def _replay(self, calls: list[_Call], env: dict[int, Any]) -> None:
        for call in calls:
            node = call.node
            args, kwargs = node.arguments.fill_in({id(x): env[id(self._resolve(x))] for x in node.input_tensors})
            results = keras.tree.flatten(call.operation(*args, **kwargs))
            env.update({id(old): new for old, new in zip(node.outputs, results, strict=True)})

    def _resolve(self, tensor: Any) -> Any:
        while id(tensor) in self._alias:
            tensor = self._alias[id(tensor)]
        return tensor

    def _graph(self, model: Any) -> Any:
        """The functional graph of a functional or Sequential model."""
        graph = getattr(model, "_functional", None) or model
        calls = {type(part).call.__qualname__ for part in (model, graph)}
        if not hasattr(graph, "_nodes_by_depth") or not calls <= {"Functional.call", "Sequential.call"}:
            rule = "be cut in a functional or Sequential model"
            raise ValueError(_checks.sentence("at", rule, self._at, f"{model.name!r} defines its own `call`."))
        if id(graph) in self._expanded:
            rule = "cut no nested model that is called twice"
            raise ValueError(_checks.sentence("at", rule, self._at, f"{model.name!r} is."))
        self._expanded.add(id(graph))
        return graph

    def _expand(self, graph: Any) -> None:
        """Append the calls of a graph; a nested model that lies on both sides is taken apart."""
        for node in _in_order(graph):
            sides = self._sides(node.operation)
            if sides == {True, False}:
                self._take_apart(node)
                continue
            inputs = [self._resolve(tensor) for tensor in node.input_tensors]
            in_tail = sides == {True} or any(id(tensor) in self._tail_outputs for tensor in inputs)
            self._calls.append(_Call(node, in_tail))
            if in_tail:
                self._tail_outputs.update(map(id, node.outputs))

    def _take_apart(self, node: Any) -> None:
        inner = self._graph(node.operation)
        if len(inner.inputs) != len(node.input_tensors) or isinstance(inner._inputs_struct, dict):
            rule = "not cut a nested model with inputs by name"
            raise ValueError(_checks.sentence("at", rule, self._at, f"{node.operation.name!r} has them."))
        self._alias.update({id(own): outer for own, outer in zip(inner.inputs, node.input_tensors, strict=True)})
        self._expand(inner)
        self._alias.update({id(outer): own for outer, own in zip(node.outputs, inner.outputs, strict=True)})

    def _sides(self, operation: Any) -> set[bool]:
        """On which sides of the cut an operation is, True for behind; an operation that is no layer is on none."""
        parts = operation._flatten_layers() if isinstance(operation, keras.Layer) else []
        positions = [self._position[id(part)] for part in parts if id(part) in self._position]
        return {position >= 0 for position in positions}

    def _inputs_of(self, call: _Call) -> list[Any]:
        return [self._resolve(tensor) for tensor in call.node.input_tensors]

    def _only_crossing(self) -> Any:
        needed = [tensor for call in self._calls if call.in_tail for tensor in self._inputs_of(call)]
        crossing = {id(t): t for t in [*needed, *self._outputs] if id(t) not in self._tail_outputs}
        names = [tensor._keras_history.operation.name for tensor in crossing.values()]
        if len(names) != 1:
            rule = f"cut the model at one tensor; {len(names)} cross here, of {', '.join(map(repr, names))}"
            raise ValueError(_checks.sentence("at", rule, self._shown))
        (tensor,) = crossing.values()
        if not self._tail_outputs or any(tensor is given for given in self._root.inputs):
            rule = "have layers before it and behind it"
            raise ValueError(_checks.sentence("at", rule, self._shown))
        return tensor

    @property
    def _shown(self) -> Any:
        return self._at.name if isinstance(self._at, keras.Layer) else self._at

    def _move_on(self) -> None:
        while (call := self._next_plain()) is not None:
            call.in_tail = False
            (self.tensor,) = call.node.outputs
            self._tail_outputs.discard(id(self.tensor))

    def _next_plain(self) -> _Call | None:
        """The only call behind that takes the tensor, if it owns no weights, draws no numbers, and is not the last."""
        tail = [call for call in self._calls if call.in_tail]
        takers = [call for call in tail if any(tensor is self.tensor for tensor in self._inputs_of(call))]
        if len(takers) != 1 or len(tail) == 1 or any(output is self.tensor for output in self._outputs):
            return None
        (call,) = takers
        alone = len(call.node.input_tensors) == len(call.node.outputs) == 1
        return call if alone and not getattr(call.operation, "variables", ()) else None


def _in_order(graph: Any) -> Iterator[Any]:
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.is_input:
                yield node


def _input_like(tensor: Any) -> Any:
    return keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name)
