"""Known traps around learning rates, looked for in a compiled model or in the file of one.

A model and a file give the same kinds of facts; `_traps.py` has the traps that such facts can show.
"""

import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.optimizers import schedules

from kadence import _checks
from kadence._traps import STOCK, TRAPS, Finding, Rate
from kadence._updates import KerasSchedule, as_number, innermost
from kadence._walk import Layers
from kadence.optimizer import DiscriminativeOptimizer
from kadence.schedules import Schedule

_LARGEST_CONFIG = 2**26  # bytes


def check(model: keras.Model, *, initial_epoch: int = 0, steps_per_epoch: int | None = None) -> tuple[Finding, ...]:
    """Looks for known traps around learning rates in a model that is about to be trained; changes nothing in it.

    Args:
        model: Built `keras.Model`, compiled or with an `optimizer`.
        initial_epoch: The argument that `fit` will get, in epochs. Integer >= 0.
        steps_per_epoch: Optimizer updates in one epoch, to say where the schedule should start. Integer >= 1, or None.

    Returns:
        Tuple of `Finding`; empty if no trap is seen.

    Raises:
        ValueError: If the model is not built or has no optimizer, or a number is out of range.
        TypeError: If `model` is not a `keras.Model`, or a number is not an integer.

    Example:
        >>> for finding in kadence.check(model):
        ...     print(finding)
    """
    layers = Layers(model)
    if getattr(model, "optimizer", None) is None:
        raise ValueError(_checks.sentence("model", "be compiled, or have an optimizer", model.name))
    initial_epoch = _checks.integer("initial_epoch", initial_epoch, minimum=0, unit="in epochs")
    if steps_per_epoch is not None:
        steps_per_epoch = _checks.integer("steps_per_epoch", steps_per_epoch, minimum=1, unit="in optimizer steps")
    facts = _optimizer_facts(list(_described(model.optimizer)))
    facts["calls"] = list(_calls(model, layers))
    facts["patterns"] = list(_patterns(facts["patterns"], layers))
    facts["models"] = [model]
    # A MultiOptimizer has a count of its own beside theirs, by which no schedule goes.
    parts = getattr(innermost(model.optimizer), "optimizers", None)
    if initial_epoch and facts["schedules"] and not any(as_number(o.iterations) for o in parts or [model.optimizer]):
        assignable = parts is None and hasattr(model.optimizer.iterations, "assign")
        facts["starts"] = [(initial_epoch, steps_per_epoch, assignable)]
    return _findings(facts)


def check_file(path: str | os.PathLike[str]) -> tuple[Finding, ...]:
    """Looks for known traps around learning rates in a saved model, without loading it.

    The file is read as data: nothing in it is imported or executed. Traps that only the weights or the state of the
    optimizer show are left to `check`.

    Args:
        path: A `.keras` file with a compiled model.

    Returns:
        Tuple of `Finding`; empty if no trap is seen.

    Raises:
        ValueError: If the file is not a `.keras` file, is broken, or its model was not compiled.
        FileNotFoundError: If there is no such file.
        TypeError: If `path` is not a path.

    Example:
        >>> findings = kadence.check_file("model.keras")
    """
    saved = _read(path)
    try:
        layers = list(_objects(saved["config"]))
        entries = [entry for _, entry in _objects(saved["compile_config"]["optimizer"])]
        if not entries:
            raise ValueError("no optimizer")
        facts = _optimizer_facts(entries)
        models = [("", saved), *((f"{address}/", layer) for address, layer in layers)]
        facts["calls"] = [call for prefix, model in models for call in _saved_calls(model["config"], prefix)]
        nested = {address for address, layer in layers if layer["class_name"] in ("Functional", "Sequential")}
        # Once loaded, the variables of a nested model have paths without its name.
        facts["patterns"] = [(p, [p], "") for p in facts["patterns"] if "/" in p and p.partition("/")[0] in nested]
        return _findings(facts)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(_checks.sentence("path", "name the file of a compiled model", str(path))) from error


def _findings(facts: dict[str, Any]) -> tuple[Finding, ...]:
    found = (trap(fact) for kind, traps in TRAPS.items() for fact in facts.get(kind, ()) for trap in traps)
    return tuple(dict.fromkeys(finding for finding in found if finding is not None))


# Facts


def _objects(data: Any, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects in what Keras has serialized, as (address, entry), outer ones first."""
    if isinstance(data, dict) and "class_name" in data and isinstance(data.get("config"), dict):
        address = f"{prefix}{data['config'].get('name')}"
        yield address, data
        data, prefix = data["config"], f"{address}/"
    for child in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from _objects(child, prefix)


def _described(optimizer: Any) -> Iterator[dict[str, Any]]:
    """An optimizer and those in it in the form of a file, as far as it is read; calls no `get_config` of users."""
    config: dict[str, Any] = {"name": optimizer.name}
    schedule, patterns = (getattr(optimizer, name, None) for name in ("_learning_rate", "_optimizer_map"))
    if isinstance(optimizer, DiscriminativeOptimizer):
        config["groups"] = optimizer.groups.get_config()
        config["lr_multipliers"] = [{} if isinstance(m, Schedule) else m for m in optimizer.lr_multipliers]
        config["schedules"] = {name: {} for name in innermost(optimizer)._group_settings.schedules}
    elif isinstance(patterns, Mapping):
        yield {"class_name": "OptimizerMap", "config": {"optimizer_map": list(patterns)}}
    elif isinstance(schedule, KerasSchedule):
        stock = type(schedule) in STOCK.values()
        rate = {"module": schedules.__name__, "config": schedule.get_config()} if stock else {"config": {}}
        config["learning_rate"] = {"class_name": type(schedule).__name__, **rate}
        config["gradient_accumulation_steps"] = optimizer.gradient_accumulation_steps
    yield {"class_name": type(optimizer).__name__, "config": config}
    inner = getattr(optimizer, "inner_optimizer", None)
    for member in getattr(optimizer, "optimizers", []) if inner is None else [inner]:
        yield from _described(member)


def _optimizer_facts(entries: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    grouped = [entry["config"] for entry in entries if entry["class_name"] == "DiscriminativeOptimizer"]
    maps = [entry["config"]["optimizer_map"] for entry in entries if entry["class_name"] == "OptimizerMap"]
    rates = [rate for entry in entries for rate in _rates(entry["config"], bool(grouped))]
    by_group = [entry for config in grouped for entry in (*config["lr_multipliers"], *config["schedules"].values())]
    return {
        "rates": rates,
        "schedules": rates + [entry for entry in by_group if isinstance(entry, dict)],
        "patterns": [pattern for saved in maps for pattern in saved],
        "groups": [group for config in grouped for group in _groups(config)],
    }


def _rates(config: dict[str, Any], by_group: bool) -> Iterator[Rate]:
    entry = config.get("learning_rate")
    if isinstance(entry, dict) and entry.get("class_name") != "__lambda__" and isinstance(entry.get("config"), dict):
        stock = entry.get("module") == schedules.__name__ and entry["class_name"] in STOCK
        accumulation = 1 if by_group else int(config.get("gradient_accumulation_steps") or 1)
        numbers = _numbers(entry["config"]) if stock else {}
        yield Rate(str(config.get("name")), str(entry["class_name"]), numbers, accumulation)


def _numbers(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments that are given; none at all if there is anything but moderate numbers."""
    numbers: dict[str, Any] = {}
    for name, value in config.items():
        items = [item.item() if isinstance(item, np.number) else item for item in _listed(value)]
        if name == "name" or value is None:
            continue
        if len(items) >= 100 or not all(isinstance(item, (int, float)) and abs(item) < 2**30 for item in items):
            return {}
        numbers[name] = items if isinstance(value, (list, tuple)) else items[0]
    return numbers


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def _groups(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Groups with multiplier 0, and the number of their trainable variables."""
    owners = [owner for owner, *_ in config["groups"]["variables"]]
    for index, (group, factor) in enumerate(zip(config["groups"]["groups"], config["lr_multipliers"], strict=True)):
        if factor == 0.0:
            yield group["name"], owners.count(index)


def _calls(model: keras.Model, layers: Layers) -> Iterator[tuple[str, list[str]]]:
    """Layers that a functional model calls with `training=False`, and the trainable BatchNormalizations in each."""
    norms = [u for u in layers.units if isinstance(u.layer, keras.layers.BatchNormalization) and u.layer.trainable]
    for layer in model._flatten_layers():
        for node in [node for nodes in getattr(layer, "_nodes_by_depth", {}).values() for node in nodes]:
            if node.arguments.kwargs.get("training") is False:
                inside = {id(sublayer) for sublayer in node.operation._flatten_layers()}
                yield node.operation.name, [unit.address for unit in norms if id(unit.layer) in inside]


def _saved_calls(config: dict[str, Any], prefix: str) -> Iterator[tuple[str, list[str]]]:
    for layer in config["layers"] if "input_layers" in config else []:
        if any(node["kwargs"].get("training") is False for node in layer["inbound_nodes"]):
            norms = [(name, e) for name, e in _objects(layer, prefix) if e["class_name"] == "BatchNormalization"]
            yield layer["name"], [name for name, entry in norms if entry["config"]["trainable"]]


def _patterns(patterns: Sequence[str], layers: Layers) -> Iterator[tuple[str, list[str], str]]:
    """Patterns that take no variable, or miss some whose address they match: those, and the path of the first."""
    names = [(weight.path, f"{unit.address}/{weight.name}") for unit in layers.units for weight in unit.weights]
    taken = {path for path, _ in names if any(_matches(pattern, path) for pattern in patterns)}
    for pattern in patterns:
        missed = [(address, path) for path, address in names if path not in taken and _matches(pattern, address)]
        if missed or not any(_matches(pattern, path) for path in taken):
            yield pattern, [address for address, _ in missed], missed[0][1] if missed else ""


def _matches(pattern: str, path: str) -> bool:
    try:
        return pattern == path or re.fullmatch(pattern, path) is not None
    except re.error:
        return False


def _read(path: str | os.PathLike[str]) -> Any:
    rule = "name a .keras file"
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(_checks.sentence("path", rule, path))
    if not Path(path).is_file():
        raise FileNotFoundError(_checks.sentence("path", rule, str(path), "There is no such file."))
    with Path(path).open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive, archive.open("config.json") as file:
                text = file.read(_LARGEST_CONFIG + 1)
            if len(text) > _LARGEST_CONFIG:
                raise ValueError(f"config.json is larger than {_LARGEST_CONFIG} bytes")
            return json.loads(text)
        except Exception as error:  # what zipfile, zlib and json raise on broken files has no common class
            remedy = "Only model files are read, and nothing is executed; in a script, call `kadence.check(model)`."
            raise ValueError(_checks.sentence("path", rule, str(path), remedy)) from error
