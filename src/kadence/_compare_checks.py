"""What is wrong with a comparison, found before anything is trained."""

import itertools
import re
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from kadence import _checks
from kadence._problem import Problem
from kadence._trial_data import Data
from kadence._trials import fit_strategy
from kadence._walk import Layers
from kadence.groups import LayerGroups
from kadence.strategies import Strategy

_LESS_IS_BETTER = re.compile(
    r"loss|error|entropy|divergence|poisson|hinge|huber|log_?cosh|dice|tversky|false_?(positives|negatives)"
    r"|^(mse|mae|mape|msle|rmse|bce|kld)$",
    re.IGNORECASE,
)
_METRIC_RULE = "be a metric that the model has"


def check_strategies(strategies: Sequence[Strategy | str]) -> list[Strategy]:
    """Strategies, those that are given by name too, all different.

    Args:
        strategies: At least two `Strategy` records or names.

    Returns:
        List of `Strategy`.

    Raises:
        ValueError: If a name is unknown, or two strategies have the same name or the same content.
        TypeError: If one is neither a `Strategy` nor a string.
    """
    rule = "be at least two strategies, records or names"
    given = _checks.sequence("strategies", strategies, rule, minimum_length=2)
    made = [item if isinstance(item, Strategy) else Strategy.from_name(item) for item in given]
    names = [item.name for item in made]
    for first, second in itertools.combinations(made, 2):
        if first.name == second.name:
            raise ValueError(_checks.sentence("strategies", "have different names", names))
        if first.content == second.content:
            remedy = f"{first.name!r} and {second.name!r} are the same."
            raise ValueError(_checks.sentence("strategies", "be different strategies", names, remedy))
    return made


def check_rates(rates: Any) -> list[float]:
    """Different rates > 0.

    Args:
        rates: The rates.

    Returns:
        List of floats.

    Raises:
        ValueError: If there is none, one is not > 0, or one is there twice.
    """
    given = _checks.sequence("rates", rates, "be at least one rate > 0")
    numbers = [_checks.number("rates", rate, above=0.0) for rate in given]
    if len(set(numbers)) < len(numbers):
        raise ValueError(_checks.sentence("rates", "be different rates", numbers))
    return numbers


def check_numbers(seeds: Any, search: Any) -> tuple[int, int]:
    """How many seeds and rates there are to be.

    Args:
        seeds: Number of seeds to judge with.
        search: Number of rates to try.

    Returns:
        Both, as integers.

    Raises:
        ValueError: If one is out of range.
        TypeError: If one is no integer.
    """
    return (
        _checks.integer("seeds", seeds, minimum=1, maximum=1_000_000, unit="a number of seeds"),
        _checks.integer("search", search, minimum=1, maximum=100, unit="a number of rates"),
    )


def mode_of(metric: str, mode: str | None) -> str:
    """Whether more of a metric is better, "max", or less, "min": as said, or by its name.

    Args:
        metric: Name of the metric.
        mode: What the caller said, or None.

    Returns:
        "max" or "min".
    """
    if mode is not None:
        return _checks.one_of("mode", mode, ("max", "min"))
    if not isinstance(metric, str):
        raise TypeError(_checks.sentence("metric", "be the name of a Keras metric", metric))
    return "min" if _LESS_IS_BETTER.search(metric) else "max"


def check_problem(problem: Problem, strategies: Sequence[Strategy], other_processes: bool, stored: bool = False) -> str:
    """Everything about model and data that can be wrong.

    Args:
        problem: The `Problem`.
        strategies: The strategies.
        other_processes: Whether trials run in other processes.
        stored: Whether finished trials are kept, to be known again by their data.

    Returns:
        The fingerprint of the problem.

    Raises:
        ValueError: If `build_model` gives the same model twice, parts of the data share rows, a strategy does not fit
            the model or the run, two train it alike, the rows or the loss do not fit the model, it does not have the
            metric, or other processes cannot get at the problem.
        TypeError: If something has the wrong type.
    """
    _check_loss(problem.loss)
    if other_processes:
        problem.to_parts()
    data = [part for part in (problem.train, problem.validation, problem.test) if part is not None]
    rows, digests = zip(*(part.digests() for part in data), strict=True)
    for one, other in itertools.combinations(range(len(data)), 2):
        _check_disjoint(data[one], data[other], rows[one], rows[other])
    if stored:
        _warn_of_other_rows(data, digests)
    (first, own), (second, other_own) = problem.build(0), problem.build(1)
    _check_new(first, second)
    fingerprint = problem.fingerprint((first, own), (second, other_own), digests)
    effects = [_effect(problem, strategy, first, own) for strategy in strategies]
    for one, other in itertools.combinations(range(len(strategies)), 2):
        if effects[one] == effects[other]:
            names = [strategies[one].name, strategies[other].name]
            remedy = "These two train it alike: leave one out."
            raise ValueError(_checks.sentence("strategies", "be different strategies for this model", names, remedy))
    _check_batches(problem, data, second)
    return fingerprint


def _check_new(first: keras.Model, second: keras.Model) -> None:
    if first is second:
        remedy = "The second trial would train on from the first."
        raise ValueError(_checks.sentence("build_model", "return a new model each time", first, remedy))
    known = {id(weight) for weight in first.weights}
    shared = [weight.path for weight in second.weights if id(weight) in known]
    if shared:
        remedy = f"Two models share {len(shared)} weights, the first {shared[0]!r}: build all layers inside of it."
        raise ValueError(_checks.sentence("build_model", "return models with weights of their own", first, remedy))


def _warn_of_other_rows(data: Sequence[Data], digests: Sequence[str]) -> None:
    """A dataset may augment, or leave out another last batch each time."""
    for part, digest in zip(data, digests, strict=True):
        if not part.is_same_each_time and part.digests()[1] != digest:
            what = f"`{part.name}` gives other rows each time, so the store does not know its trials again"
            warnings.warn(
                f"{what}, and the same call begins anew. Give arrays, or augment inside the model.", stacklevel=4
            )


def _check_disjoint(one: Data, other: Data, rows: Sequence[bytes], other_rows: Sequence[bytes]) -> None:
    """No row of the one is a row of the other: an error between validation and test photos, else a warning or error."""
    place = {row: position for position, row in reversed(list(enumerate(rows)))}
    shared = [(place[row], position) for position, row in enumerate(other_rows) if row in place]
    if not shared:
        return
    named = "; ".join(f"{one.label(first)} is {other.label(second)}" for first, second in shared[:3])
    what = f"{len(shared)} of {len(other_rows)} are in both: {named}."
    photos = one.photos is not None and other.photos is not None
    distinct, other_distinct = set(rows), set(other_rows)
    is_whole = len(distinct & other_distinct) == min(len(distinct), len(other_distinct))
    if (one.name == "validation" and photos) or is_whole:
        raise ValueError(_checks.sentence(other.name, f"share nothing with {one.name}", len(shared), what))
    warnings.warn(f"The {one.name} and {other.name} data share rows. {what}", stacklevel=4)


def _effect(problem: Problem, strategy: Strategy, model: keras.Model, own: LayerGroups) -> tuple[Any, ...]:
    """All that a strategy does to the model; equal for two that train it alike."""
    try:
        groups, multipliers, schedule = fit_strategy(problem, strategy, 1.0, model, own)
    except (ValueError, TypeError) as error:
        rule = "fit the model and the length of the run"
        raise ValueError(_checks.sentence("strategies", rule, strategy.name, str(error))) from error
    factors = {layer: factor for group, factor in zip(groups, multipliers, strict=True) for layer in group.layers}
    has_norm = any(isinstance(unit.layer, keras.layers.BatchNormalization) for unit in Layers(model).units)
    return factors, schedule, strategy.optimizer, strategy.weight_decay, strategy.batch_norm if has_norm else ""


def _check_loss(loss: Any) -> None:
    rule = "be the name of a Keras loss"
    if not isinstance(loss, str):
        raise TypeError(_checks.sentence("loss", rule, loss))
    try:
        keras.losses.get(loss)
    except ValueError as error:
        known = vars(keras.losses).keys() - {"deserialize", "get", "serialize"}
        names = sorted(name for name in known if name.islower() and not name.startswith("_"))
        raise ValueError(_checks.sentence("loss", rule, loss, _checks.did_you_mean(loss, names))) from error


def _check_batches(problem: Problem, data: Sequence[Data], model: keras.Model) -> None:
    """A few rows of each part of the data go through the model, the loss and the metric."""
    metrics = [] if problem.metric == "loss" else [problem.metric]
    _compile(problem, model, metrics)
    for part in data:
        batch = part.first(2)
        try:
            found = _evaluate(model, batch)
        except Exception as error:
            _check_without_metric(problem, model, part, batch)
            remedy = f"Keras says: {_checks.said(error)[:300]}"
            raise ValueError(_checks.sentence("metric", _METRIC_RULE, problem.metric, remedy)) from error
        if problem.metric not in found:
            remedy = _checks.did_you_mean(problem.metric, found)
            raise ValueError(_checks.sentence("metric", _METRIC_RULE, problem.metric, remedy))


def _check_without_metric(problem: Problem, model: keras.Model, part: Data, batch: Any) -> None:
    """Raise if the rows do not go through the model and the loss either."""
    _compile(problem, model, [])
    try:
        _evaluate(model, batch)
    except Exception as error:
        rule = f"have rows that fit the model and the loss {problem.loss!r}"
        shapes = keras.tree.map_structure(lambda array: array.shape[1:], batch)
        remedy = f"These are the shapes of a row. Keras says: {_checks.said(error)[:300]}"
        raise ValueError(_checks.sentence(part.name, rule, shapes, remedy)) from error


def _compile(problem: Problem, model: keras.Model, metrics: list[str]) -> None:
    # Few batches: a graph would take longer than it saves, but JAX compiles each operation of an eager model.
    eagerly = keras.backend.backend() != "jax"
    model.compile("sgd", loss=problem.loss, metrics=metrics, run_eagerly=eagerly)


def _evaluate(model: Any, batch: Any) -> dict[str, float]:
    x, *targets = batch
    return model.test_on_batch(x, *targets[:1], return_dict=True)
