"""Problem: what every trial of a comparison has in common. It can be sent to another process as JSON and arrays."""

import functools
import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._trial_data import Data
from kadence._walk import Layers
from kadence.groups import LayerGroups, split, split_evenly


@dataclass(frozen=True)
class Problem:
    """A model to train, and on what.

    Args:
        build_model: Makes a new built `keras.Model`, or the pair of one and its `LayerGroups`.
        train: The training `Data`.
        validation: That on which rates are chosen.
        test: That on which strategies are judged, or None for the validation data.
        epochs: Length of a trial, in epochs.
        loss: Name of the loss.
        metric: Name of the metric.
    """

    build_model: Callable[[], Any]
    train: Data
    validation: Data
    test: Data | None
    epochs: int
    loss: str
    metric: str

    def build(self, seed: int) -> tuple[keras.Model, LayerGroups]:
        """A new model from the seed, and its own groups."""
        keras.utils.set_random_seed(seed)
        made = self.build_model()
        model, groups = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not isinstance(model, keras.Model):
            rule = "return a built keras.Model, or one with its LayerGroups"
            raise TypeError(_checks.sentence("build_model", rule, made))
        return model, groups if isinstance(groups, LayerGroups) else default_groups(model)

    def fingerprint(
        self, first: tuple[keras.Model, LayerGroups], second: tuple[keras.Model, LayerGroups], data: Sequence[str]
    ) -> str:
        """Digest of all that decides a trial beside strategy, rate and seed.

        Args:
            first: A model of `build` and its groups.
            second: Others, from another seed: what differs between the two is chance, and does not count.
            data: Digests of the parts of the data.

        Returns:
            Hexadecimal digits.
        """
        content = {
            "model": _in_common(_describe(first[0]), _describe(second[0])),
            "groups": _in_common(_places(*first), _places(*second)),
            "data": list(data),
            "batches": [len(self.train), self.train.batch_rows],
            "epochs": self.epochs,
            "loss": self.loss,
            "metric": self.metric,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_parts(self) -> tuple[str, list[np.ndarray]]:
        """The problem for another process: JSON text, and the arrays it counts.

        Raises:
            ValueError: If another process could not find `build_model`.
            TypeError: If a part of the data is not arrays.
        """
        arrays: list[np.ndarray] = []
        parts = {part.name: _numbered(part, arrays) for part in (self.train, self.validation, self.test) if part}
        content = {
            "builder": reference(self.build_model),
            "data": parts,
            "epochs": self.epochs,
            "loss": self.loss,
            "metric": self.metric,
            "path": sys.path,
            "floatx": keras.config.floatx(),
            "dtype_policy": keras.config.dtype_policy().name,
            "image_data_format": keras.config.image_data_format(),
        }
        return json.dumps(content), arrays

    @classmethod
    def from_parts(cls, text: str, arrays: Sequence[np.ndarray]) -> "Problem":
        """The problem that `to_parts` took apart; Keras is set as it was there."""
        content = json.loads(text)
        for name in ("floatx", "dtype_policy", "image_data_format"):
            getattr(keras.config, f"set_{name}")(content[name])
        sys.path += [folder for folder in content["path"] if folder not in sys.path]
        parts = {name: _restored(name, part, arrays) for name, part in content["data"].items()}
        return cls(
            resolve(content["builder"]),
            parts["train"],
            parts["validation"],
            parts.get("test"),
            content["epochs"],
            content["loss"],
            content["metric"],
        )


def make_data(train: Any, validation: Any, test: Any, batch_size: int) -> tuple[Data, Data, Data | None]:
    """The parts of the data.

    Args:
        train: Training data, as the user gave it.
        validation: Validation data.
        test: Test data, or None.
        batch_size: Rows in a batch, for arrays. Integer >= 1.

    Returns:
        The triple (train, validation, test).
    """
    last = None if test is None else Data("test", test, batch_size)
    return Data("train", train, batch_size), Data("validation", validation, batch_size), last


def default_groups(model: keras.Model) -> LayerGroups:
    """The last layer with weights as the head, and what is before it in two halves, if it has two layers with weights.

    Args:
        model: Built `keras.Model`.

    Returns:
        `LayerGroups`, one to three of them.
    """
    layers = Layers(model)
    *body, head = layers.weighted
    starts = sorted({body[len(body) // 2], head} - {body[0]}) if body else []
    if not starts:
        return split_evenly(model, 1)
    return split(model, [layers.units[start].layer for start in starts])


def reference(builder: Callable[[], Any]) -> dict[str, Any]:
    """Where another process finds a function: {"function": "module:name", "arguments": {...}}.

    Args:
        builder: A function of a module, or a `functools.partial` of one with keywords of JSON types.

    Returns:
        Dict of JSON types.

    Raises:
        ValueError: If it is something else.
    """
    rule = "be a function of a module that other processes can import, or a functools.partial of one with JSON keywords"
    function, arguments = builder, {}
    if isinstance(builder, functools.partial) and not builder.args:
        function, arguments = builder.func, dict(builder.keywords)
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    found = {"function": f"{module}:{name}", "arguments": arguments}
    try:
        importable = module != "__main__" and resolve({**found, "arguments": {}}) is function
        if importable and json.loads(json.dumps(arguments)) == arguments:
            return found
    except (ImportError, AttributeError, TypeError, ValueError):
        pass
    remedy = "Functions of the script that runs, lambdas and inner functions are not: move it into a module."
    raise ValueError(_checks.sentence("build_model", rule, builder, remedy))


def resolve(found: Mapping[str, Any]) -> Callable[[], Any]:
    """The function that `reference` found.

    Args:
        found: Result of `reference`.

    Returns:
        The function, with its arguments.
    """
    module, _, name = found["function"].partition(":")
    function: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    return functools.partial(function, **found["arguments"]) if found["arguments"] else function


def _numbered(part: Data, arrays: list[np.ndarray]) -> dict[str, Any]:
    """A part of the data with the numbers of its arrays, which are added to `arrays`."""
    if part.arrays is None:
        rule = "be arrays (x, y) or an ImageBatches whose images fit into memory, for other processes"
        raise TypeError(_checks.sentence(part.name, rule, part.dataset))

    def number(array: np.ndarray) -> int:
        arrays.append(array)
        return len(arrays) - 1

    return {"arrays": keras.tree.map_structure(number, part.arrays), "batch_size": part.batch_size}


def _restored(name: str, part: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> Data:
    return Data(name, keras.tree.map_structure(lambda number: arrays[number], part["arrays"]), part["batch_size"])


def _describe(model: keras.Model) -> list[Any]:
    """Class, configuration and weights of each layer, as JSON types."""
    return [
        {
            "class": type(unit.layer).__name__,
            "config": _config(unit.layer),
            "weights": [_describe_weight(weight) for weight in unit.weights],
        }
        for unit in Layers(model).units
    ]


def _places(model: keras.Model, groups: LayerGroups) -> list[list[Any]]:
    """Which layers each group has, by their place in the model: names that Keras numbers differ from model to model."""
    place = {unit.address: index for index, unit in enumerate(Layers(model).units)}
    return [[place.get(address, address) for address in group.layers] for group in groups]


def _config(layer: keras.Layer) -> Any:
    try:
        return json.loads(json.dumps(layer.get_config(), default=lambda value: type(value).__name__))
    except (NotImplementedError, TypeError, ValueError):
        return None


def _describe_weight(weight: keras.Variable) -> dict[str, Any]:
    array = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
    return {"shape": list(array.shape), "digest": hashlib.sha256(array.tobytes()).hexdigest()}


def _in_common(first: Any, second: Any) -> Any:
    """What two trees of JSON types have in common: names that Keras numbers and random weights are left out."""
    if isinstance(first, dict) and isinstance(second, dict):
        return {key: _in_common(value, second.get(key)) for key, value in first.items()}
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [_in_common(one, other) for one, other in zip(first, second, strict=True)]
    return first if first == second else None
