"""Known traps around learning rates, looked for in a compiled model or in the file of one.

A model and a file give the same kinds of facts; each trap is one function of one fact. The table is at the end.
"""

import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers import schedules

from kadence import _checks
from kadence._walk import Layers
from kadence.optimizer import DiscriminativeOptimizer, KerasSchedule, as_number, innermost
from kadence.schedules import Schedule

_LARGEST_CONFIG = 2**26  # bytes
_HORIZON, _MOST_RESTARTS = 100_000, 1000  # steps, restarts
_STOCK = {name: cls for name, cls in vars(schedules).items() if isinstance(cls, type)}  # Keras's own schedules


@dataclass(frozen=True)
class Finding:
    """A trap that a model is in; `str()` gives three lines.

    Args:
        name: Short name of the trap, the same in every version.
        what: What happens.
        seen: How it was seen: a layer, or an attribute of the optimizer, with its value.
        change: The change to make.
    """

    name: str
    what: str
    seen: str
    change: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what}\n  Seen: {self.seen}\n  Change: {self.change}"


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
    if initial_epoch and facts["schedules"] and as_number(model.optimizer.iterations) == 0:
        facts["starts"] = [(initial_epoch, steps_per_epoch, hasattr(model.optimizer.iterations, "assign"))]
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
        facts["patterns"] = [(p, [p]) for p in facts["patterns"] if "/" in p and p.partition("/")[0] in nested]
        return _findings(facts)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(_checks.sentence("path", "name the file of a compiled model", str(path))) from error


def _findings(facts: dict[str, Any]) -> tuple[Finding, ...]:
    found = (trap(fact) for kind, traps in _TRAPS.items() for fact in facts.get(kind, ()) for trap in traps)
    return tuple(dict.fromkeys(finding for finding in found if finding is not None))


# Facts


@dataclass(frozen=True)
class _Rate:
    """A schedule in an optimizer; its numbers, if it is one of Keras's own; how many of its steps make one update."""

    optimizer: str
    schedule: str
    numbers: dict[str, Any]
    accumulation: int

    def __str__(self) -> str:
        numbers = ", ".join(f"{name}={value!r}" for name, value in self.numbers.items())
        return f"optimizer {self.optimizer!r}: learning_rate = {self.schedule}({numbers})"


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
    elif isinstance(patterns, Mapping):
        yield {"class_name": "OptimizerMap", "config": {"optimizer_map": list(patterns)}}
    elif isinstance(schedule, KerasSchedule):
        stock = type(schedule) in _STOCK.values()
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
    return {
        "rates": rates,
        "schedules": rates + [m for config in grouped for m in config["lr_multipliers"] if isinstance(m, dict)],
        "patterns": [pattern for saved in maps for pattern in saved],
        "groups": [group for config in grouped for group in _groups(config)],
    }


def _rates(config: dict[str, Any], by_group: bool) -> Iterator[_Rate]:
    entry = config.get("learning_rate")
    if isinstance(entry, dict) and entry.get("class_name") != "__lambda__" and isinstance(entry.get("config"), dict):
        stock = entry.get("module") == schedules.__name__ and entry["class_name"] in _STOCK
        accumulation = 1 if by_group else int(config.get("gradient_accumulation_steps") or 1)
        numbers = _numbers(entry["config"]) if stock else {}
        yield _Rate(str(config.get("name")), str(entry["class_name"]), numbers, accumulation)


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


def _patterns(patterns: Sequence[str], layers: Layers) -> Iterator[tuple[str, list[str]]]:
    """Patterns that take no variable, or that miss variables whose address they match, with those."""
    names = [(weight.path, f"{unit.address}/{weight.name}") for unit in layers.units for weight in unit.weights]
    taken = {path for path, _ in names if any(_matches(pattern, path) for pattern in patterns)}
    for pattern in patterns:
        missed = [address for path, address in names if path not in taken and _matches(pattern, address)]
        if missed or not any(_matches(pattern, path) for path in taken):
            yield pattern, missed


def _matches(pattern: str, path: str) -> bool:
    try:
        return pattern == path or re.fullmatch(pattern, path) is not None
    except re.error:
        return False


def _read(path: str | os.PathLike[str]) -> Any:
    rule = "name a .keras file"
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(_checks.sentence("path", rule, path))
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


def _backend() -> str:
    return {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}[keras.backend.backend()]


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# Traps


def _integer_rate(rate: _Rate) -> Finding | None:
    name = "values" if "values" in rate.numbers else "initial_learning_rate"
    value = rate.numbers.get(name, 0.0)
    floats = [float(item) for item in value] if isinstance(value, list) else float(value)
    if repr(value) == repr(floats):
        return None
    marks = [rate.numbers.get(key, 0) for key in ("decay_steps", "first_decay_steps", "warmup_steps")]
    marks += rate.numbers.get("boundaries", [])
    steps = sorted({0, 1} | {max(0, int(mark * factor)) for mark in marks for factor in (0.25, 0.5, 1, 1.5)})
    got, wanted = (_sample(rate.schedule, rate.numbers | {name: each}, steps) for each in (value, floats))
    if isinstance(wanted, Exception):
        return None
    if isinstance(got, Exception):
        effect = f"the schedule raises {type(got).__name__}"
    elif np.allclose(got, wanted, rtol=1e-3, atol=1e-6 * np.max(np.abs(wanted))):
        return None
    else:
        worst = int(np.argmax(np.abs(got - wanted)))
        effect = f"the rate at step {steps[worst]} is {got[worst]:.3g}, not {wanted[worst]:.3g}"
    what = f"An integer gives its type to all numbers of the schedule: on {_backend()}, {effect}."
    return Finding("integer-rate", what, str(rate), f"Write {name}={floats!r}. Kadence's schedules take integers.")


def _sample(schedule: str, numbers: dict[str, Any], steps: Sequence[int]) -> Any:
    """Rates of a Keras schedule at `steps`, compiled as in `fit`; or what it raises."""
    dtype = keras.backend.standardize_dtype("int")
    try:
        made = _compiled(_STOCK[schedule](**numbers))
        if schedule == "CosineDecayRestarts":  # which takes an array
            return np.asarray(ops.convert_to_numpy(made(ops.convert_to_tensor(steps, dtype))))
        return np.array([as_number(made(ops.convert_to_tensor(step, dtype))) for step in steps])
    except Exception as error:  # whether it raises is the question
        return error


def _compiled(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False, jit_compile=True)
    return function


def _restart_boundaries(rate: _Rate) -> Finding | None:
    if rate.schedule != "CosineDecayRestarts" or not rate.numbers:
        return None
    steps, wanted = _exact_restarts(rate.numbers["first_decay_steps"], rate.numbers["t_mul"])
    shape = rate.numbers | {"initial_learning_rate": 1.0, "m_mul": 1.0, "alpha": 0.0}
    got = _sample(rate.schedule, shape, steps) if steps else wanted
    if isinstance(got, Exception) or not np.any(missed := np.abs(got - wanted) > 0.5):
        return None
    first = int(np.argmax(missed))
    return Finding(
        "restart-boundaries",
        f"Float arithmetic finds the cycle: on {_backend()}, {np.count_nonzero(missed)} of the first {len(steps)} "
        f"restarts come late. At step {steps[first]} the cosine is {got[first]:.2g}, not {wanted[first]:.2g}.",
        str(rate),
        f"Use {_warm_restarts(rate.numbers)}, whose boundaries are integers.",
    )


def _exact_restarts(first_steps: float, t_mul: float) -> tuple[list[int], np.ndarray]:
    """The first step of each cycle but the first, and the cosine from 1 to 0 there, by exact fractions."""
    start, growth = (Fraction(number).limit_denominator(10**6) for number in (first_steps, t_mul))
    length, steps, positions = start * growth, [], []
    while min(first_steps, t_mul) >= 1 and len(steps) < _MOST_RESTARTS and start <= _HORIZON:
        steps.append(math.ceil(start))
        positions.append(float((steps[-1] - start) / length))
        start, length = start + length, length * growth
    return steps, (1 + np.cos(np.pi * np.array(positions))) / 2


def _restart_peaks(rate: _Rate) -> Finding | None:
    if rate.schedule != "CosineDecayRestarts" or not rate.numbers:
        return None
    lr, alpha, shrink = (rate.numbers[name] for name in ("initial_learning_rate", "alpha", "m_mul"))
    wanted = [lr * shrink**cycle for cycle in range(3)]
    got = [lr * ((1 - alpha) * shrink**cycle + alpha) for cycle in range(3)]
    if got[2] <= 1.01 * wanted[2]:
        return None
    peaks, documented = (", ".join(f"{peak:.3g}" for peak in each) for each in (got, wanted))
    what = f"With `alpha`, the peaks do not shrink by `m_mul` as documented: they are {peaks}, not {documented}."
    return Finding("restart-peaks", what, str(rate), f"Use {_warm_restarts(rate.numbers)}.")


def _warm_restarts(numbers: dict[str, Any]) -> str:
    lr, length = float(numbers["initial_learning_rate"]), round(numbers["first_decay_steps"])
    call = f"kadence.WarmRestarts({lr!r}, {length}, cycle_mult={numbers['t_mul']!r}"
    call += f", lr_min={numbers['alpha'] * lr:.6g}" if numbers["alpha"] else ""
    return call + (f", peak_decay={numbers['m_mul']!r})" if numbers["m_mul"] != 1 else ")")


def _accumulation(rate: _Rate) -> Finding | None:
    n = rate.accumulation
    if n == 1:
        return None
    return Finding(
        "schedule-counts-micro-batches",
        f"With gradient accumulation the schedule counts micro-batches: it runs {n} times as fast as the updates.",
        f"{rate}, gradient_accumulation_steps = {n}",
        f"Use kadence.DiscriminativeOptimizer, which counts updates, or make the schedule {n} times as long.",
    )


def _call(call: tuple[str, list[str]]) -> Finding | None:
    layer, norms = call
    if not norms:
        return None
    return Finding(
        "training-false-overridden",
        "`fit` calls each layer of a functional model with training=True, whatever its call there says: trainable "
        "BatchNormalization layers use the statistics of the batch, and move their running ones.",
        f"layer {layer!r}, called with training=False; BatchNormalization: {_some(norms)}",
        "Call kadence.freeze_batch_norm(model) before `compile`.",
    )


def _pattern(pattern: tuple[str, list[str]]) -> Finding:
    missed = f"misses {_some(pattern[1])}: the paths of these variables are without the name of the nested model"
    return Finding(
        "pattern-misses-variables",
        f"The pattern {missed if pattern[1] else 'matches no variable'}. The default optimizer takes what is missed.",
        f"OptimizerMap pattern {pattern[0]!r}",
        "Use kadence.DiscriminativeOptimizer with kadence.group_by, which matches addresses of layers and checks them.",
    )


def _group(group: tuple[str, int]) -> Finding | None:
    if not group[1]:
        return None
    return Finding(
        "rate-zero-trainable",
        "A group at rate 0 stands still, but each step computes its gradients and keeps optimizer state for it.",
        f"group {group[0]!r}: multiplier 0, trainable variables {group[1]}",
        "Set `trainable = False` on its layers before `compile`.",
    )


def _start(start: tuple[int, int | None, bool]) -> Finding:
    epoch, per_epoch, assignable = start
    step = f"step {epoch * per_epoch}" if per_epoch else "the first step of that epoch"
    assign = f", or set it: model.optimizer.iterations.assign({epoch * per_epoch})" if per_epoch and assignable else ""
    return Finding(
        "schedule-starts-at-zero",
        f"A schedule goes by the optimizer's count of updates, not by `initial_epoch`: it starts at 0, not at {step}.",
        f"initial_epoch = {epoch}, optimizer.iterations = 0",
        f"Continue the model from keras.saving.load_model, which restores the count{assign}.",
    )


def _stale_optimizer(model: Any) -> Finding | None:
    if not model.optimizer.built:
        return None
    known = {id(variable): variable.path for variable in model.optimizer._trainable_variables}
    now = {id(variable): variable.path for variable in model.trainable_variables}
    new, gone = [now[key] for key in now if key not in known], [known[key] for key in known if key not in now]
    traced = _backend() == "TensorFlow" and model.train_function is not None and not model.run_eagerly
    if not (new or (gone and (traced or _backend() == "JAX"))):
        return None
    effect = "goes on training the variables of the last `compile`" if traced else "raises"
    return Finding(
        "stale-optimizer",
        f"Other variables are trainable than those the optimizer was built for: on {_backend()}, `fit` {effect}.",
        f"optimizer {model.optimizer.name!r}: new {_some(new) or 'none'}; no longer trainable {_some(gone) or 'none'}",
        "Compile again, with a new optimizer, after changing `trainable`.",
    )


def _schedule_free(model: Any) -> Finding | None:
    optimizer = innermost(model.optimizer)
    if not isinstance(optimizer, getattr(keras.optimizers, "ScheduleFreeAdamW", ())):
        return None
    if optimizer.built:
        pairs = zip(optimizer._momentums, optimizer._trainable_variables, strict=True)
        same = all(momentum is None or as_number(ops.all(ops.equal(momentum, v))) for momentum, v in pairs)
        if same or as_number(optimizer.iterations) > 0:
            return None
        start, change = "other weights than the model has", "Compile with a new optimizer."
    elif _backend() == "TensorFlow" and not model.run_eagerly:
        start, change = "zero", "Call model.optimizer.build(model.trainable_variables) before `fit`."
    else:
        return None
    return Finding(
        "averages-start-elsewhere",
        f"ScheduleFreeAdamW starts its averages from {start}: the first update moves the weights there at any rate.",
        f"optimizer {optimizer.name!r}: built = {optimizer.built}, iterations = 0",
        change,
    )


#: Kind of fact -> the traps that one such fact can show.
_TRAPS: dict[str, tuple[Callable[[Any], Finding | None], ...]] = {
    "rates": (_integer_rate, _restart_boundaries, _restart_peaks, _accumulation),
    "calls": (_call,),
    "patterns": (_pattern,),
    "groups": (_group,),
    "starts": (_start,),
    "models": (_stale_optimizer, _schedule_free),
}
