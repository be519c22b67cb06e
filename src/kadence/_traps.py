"""Known traps around learning rates: each is one function of one fact. The table is at the end."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers import schedules

from kadence._rates import compiled, rates_of_function
from kadence._updates import as_number, innermost
from kadence.schedules import WarmRestarts

#: Keras's own schedules.
STOCK = {name: cls for name, cls in vars(schedules).items() if isinstance(cls, type)}
_HORIZON, _MOST_RESTARTS = 100_000, 1000  # steps, restarts


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


@dataclass(frozen=True)
class Rate:
    """A schedule in an optimizer.

    Args:
        optimizer: Name of the optimizer.
        schedule: Name of the schedule's class.
        numbers: Argument -> value, if it is one of Keras's own schedules.
        accumulation: How many of the optimizer's steps make one update.
    """

    optimizer: str
    schedule: str
    numbers: dict[str, Any]
    accumulation: int

    def __str__(self) -> str:
        numbers = ", ".join(f"{name}={value!r}" for name, value in self.numbers.items())
        return f"optimizer {self.optimizer!r}: learning_rate = {self.schedule}({numbers})"


def _backend() -> str:
    return {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}[keras.backend.backend()]


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _integer_rate(rate: Rate) -> Finding | None:
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
    try:
        made = compiled(STOCK[schedule](**numbers))
        if schedule == "CosineDecayRestarts":  # which takes an array
            dtype = keras.backend.standardize_dtype("int")
            return np.asarray(ops.convert_to_numpy(made(ops.convert_to_tensor(steps, dtype))))
        return rates_of_function(made, steps)
    except Exception as error:  # whether it raises is the question
        return error


def _restart_boundaries(rate: Rate) -> Finding | None:
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


def _restart_peaks(rate: Rate) -> Finding | None:
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
    """The same restarts in Kadence, with their numbers if it has such restarts."""
    lr, length = float(numbers["initial_learning_rate"]), round(numbers["first_decay_steps"])
    try:
        WarmRestarts(lr, length, numbers["t_mul"], numbers["alpha"] * lr, numbers["m_mul"])
    except (TypeError, ValueError):
        return "kadence.WarmRestarts"
    call = f"kadence.WarmRestarts({lr!r}, {length}, cycle_mult={numbers['t_mul']!r}"
    call += f", lr_min={numbers['alpha'] * lr:.6g}" if numbers["alpha"] else ""
    return call + (f", peak_decay={numbers['m_mul']!r})" if numbers["m_mul"] != 1 else ")")


def _accumulation(rate: Rate) -> Finding | None:
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


def _pattern(fact: tuple[str, list[str], str]) -> Finding:
    pattern, missed, path = fact
    # A file does not say what the paths will be.
    nested = "the paths of these variables are without the name of the nested model"
    reason = f"the path of the first is {path!r}" if path else nested
    effect = f"misses {_some(missed)}: {reason}" if missed else "matches no variable"
    return Finding(
        "pattern-misses-variables",
        f"The pattern {effect}. The default optimizer takes what is missed.",
        f"OptimizerMap pattern {pattern!r}",
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
        f"initial_epoch = {epoch}, iterations = 0",
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
TRAPS: dict[str, tuple[Callable[[Any], Finding | None], ...]] = {
    "rates": (_integer_rate, _restart_boundaries, _restart_peaks, _accumulation),
    "calls": (_call,),
    "patterns": (_pattern,),
    "groups": (_group,),
    "starts": (_start,),
    "models": (_stale_optimizer, _schedule_free),
}
