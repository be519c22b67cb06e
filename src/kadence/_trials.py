"""One trial: a strategy at a rate from a seed -> what came of it. A trial that fails is a result too."""

import dataclasses
import gc
import hashlib
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._backend import versions
from kadence._pipeline import fit, method, prepared
from kadence._problem import Problem
from kadence._walk import Layers
from kadence.batch_norm import FullBatches, freeze_batch_norm, recompute_batch_norm
from kadence.callbacks import EpochSeeds
from kadence.durations import run_length
from kadence.groups import LayerGroups
from kadence.optimizer import DiscriminativeOptimizer
from kadence.schedules import Schedule
from kadence.strategies import Strategy

#: Errors of all backends that mean that memory ran out say one of these.
_MEMORY = ("out of memory", "resource_exhausted", "resource exhausted", "memoryerror", "can't allocate memory")


@dataclass(frozen=True)
class Trial:
    """What is to be trained.

    Args:
        strategy: The `Strategy`.
        rate: Base rate. Float > 0.
        seed: Seed of weights, order and dropout. Integer >= 0.
        phase: "search", to choose the rate, or "judge".
        problem: Fingerprint of the `Problem`.
    """

    strategy: Strategy
    rate: float
    seed: int
    phase: str
    problem: str

    @property
    def key(self) -> str:
        """Digest of all that decides the trial; the name of the strategy does not."""
        content = {**dataclasses.asdict(self), "strategy": self.strategy.content}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """The trial as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Trial":
        """The trial that `to_json` wrote."""
        content = json.loads(text)
        return cls(**{**content, "strategy": Strategy.from_json(json.dumps(content["strategy"]))})


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Args:
        status: "done", "diverged" if the loss, or the metric on the test data, became NaN or infinite, or "failed" if
            the trial ended with an error.
        reason: Why it failed, or more of how it diverged, or "".
        validation: The metric on the validation data at the end, or None.
        test: The metric on the test data at the end, or None.
        seconds: Time of the training, compilation included, in seconds.
        curves: Name of a metric, or "seconds" since the start -> value at the end of each epoch; None where not finite.
        versions: Name of a package -> its version.
    """

    status: str
    reason: str = ""
    validation: float | None = None
    test: float | None = None
    seconds: float = 0.0
    curves: Mapping[str, Sequence[float | None]] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """The outcome as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Outcome":
        """The outcome that `to_json` wrote."""
        return cls(**json.loads(text))


class _Epochs(keras.callbacks.Callback):
    """Keeps the metrics of each epoch and the time, and ends a training whose loss is not finite any more."""

    def __init__(self) -> None:
        super().__init__()
        self.model: Any
        self.curves: dict[str, list[float | None]] = {"seconds": []}
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.curves["seconds"].append(time.perf_counter() - self.began)
        for name, value in (logs or {}).items():
            self.curves.setdefault(name, []).append(finite(value))
        if self.diverged:
            self.model.stop_training = True

    @property
    def diverged(self) -> bool:
        """Whether the loss of the last epoch is not finite."""
        return any(self.curves[name][-1:] == [None] for name in ("loss", "val_loss") if name in self.curves)


def run_trial(problem: Problem, trial: Trial) -> Outcome:
    """Train and evaluate; an error is an outcome, Ctrl-C is not.

    Args:
        problem: The `Problem`.
        trial: The `Trial`.

    Returns:
        `Outcome`.
    """
    began = time.perf_counter()
    try:
        return _train(problem, trial)
    except Exception as error:
        reason = f"{type(error).__name__}: {_checks.said(error)}"
        if any(word in reason.lower() for word in _MEMORY):
            reason = f"out of memory: {reason}"
        return Outcome("failed", reason[:500], seconds=time.perf_counter() - began, versions=_versions())
    finally:
        gc.collect()  # a model is a cycle of references, and the next one may need its memory


def fit_strategy(
    problem: Problem, strategy: Strategy, rate: float, model: keras.Model, own: LayerGroups
) -> tuple[LayerGroups, list[float | Schedule], Schedule]:
    """What a strategy says of a model: groups, the factor of each on the base rate, and the schedule of that.

    Args:
        problem: The `Problem`.
        strategy: The `Strategy`.
        rate: Base rate. Float > 0.
        model: The model.
        own: Its own groups.

    Returns:
        The triple (groups, multipliers, schedule).

    Raises:
        ValueError: If the strategy does not fit the model, or the length of the run.
    """
    length = run_length(epochs=problem.epochs, steps_per_epoch=len(problem.train))
    groups = strategy.make_groups(model, own)
    return groups, strategy.make_multipliers(groups, length), strategy.make_schedule(rate, length)


def _compile(problem: Problem, trial: Trial, model: keras.Model, own: LayerGroups) -> None:
    strategy = trial.strategy
    groups, multipliers, schedule = fit_strategy(problem, strategy, trial.rate, model, own)
    if strategy.batch_norm == "frozen":
        freeze_batch_norm(model)
    still = {
        address
        for group, factor in zip(groups, multipliers, strict=True)
        if isinstance(factor, float) and factor == 0.0
        for address in group.layers
    }
    for unit in Layers(model).units:
        if unit.address in still:
            unit.layer.trainable = False
    optimizer = DiscriminativeOptimizer(strategy.make_optimizer(schedule), groups, multipliers)
    metrics = [] if problem.metric == "loss" else [problem.metric]
    model.compile(optimizer, loss=problem.loss, metrics=metrics)


def _train(problem: Problem, trial: Trial) -> Outcome:
    model, own = problem.build(trial.seed)
    _compile(problem, trial, model, own)
    train = prepared(model, problem.train.batches(trial.seed))
    validation = prepared(model, problem.validation.batches())
    epochs = _Epochs()
    callbacks = [EpochSeeds(trial.seed), epochs]
    fit(model, train, callbacks, validation_data=validation, epochs=problem.epochs, verbose=0)
    if trial.strategy.batch_norm == "train" and not epochs.diverged:
        recompute_batch_norm(model, FullBatches(train))
    seconds = time.perf_counter() - epochs.began
    scores = _evaluate(model, validation)
    for name, value in scores.items():  # those of the last epoch, unless BatchNorm has new statistics
        epochs.curves[f"val_{name}"][-1] = value
    test = None
    reason = ""
    if trial.phase == "judge" and problem.test is not None:
        test = _evaluate(model, problem.test.batches())[problem.metric]
        reason = "" if test is not None else "the metric on the test data is not finite"
    return Outcome(
        "diverged" if epochs.diverged or reason else "done",
        reason,
        validation=scores[problem.metric],
        test=test,
        seconds=seconds,
        curves=epochs.curves,
        versions=_versions(),
    )


def _evaluate(model: Any, batches: Any) -> dict[str, float | None]:
    data = prepared(model, batches)
    scores = method(model, "evaluate", data)(data, verbose=0, return_dict=True)
    return {name: finite(value) for name, value in scores.items()}


def finite(value: Any) -> float | None:
    """`value` as a float, or None where it is not finite, which JSON has no number for.

    Args:
        value: A number, or several, as of a metric per class, of which it is the mean.

    Returns:
        Float or None.
    """
    number = float(np.mean(value))
    return number if math.isfinite(number) else None


def _versions() -> dict[str, str]:
    return {**versions(), "machine": platform.machine()}
