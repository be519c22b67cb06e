"""The judged trials of a strategy -> a row of figures, against those of the baseline."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kadence._statistics import interval, probability


@dataclass(frozen=True)
class StrategyResult:
    """What came of one strategy.

    Args:
        strategy: Its name.
        settings: Its fields, as JSON types.
        rate: Base rate that it was judged with, or None if every rate failed. Float > 0.
        searched: Pairs (rate, metric on the validation data) of the search; None where the trial failed or diverged.
        seeds: Seeds of the judged trials that did not fail.
        values: The metric at the end of each of them.
        seconds: Training time of each of them, in seconds.
        curves: Of each of them, name of a metric -> value at the end of each epoch; "seconds" since the start.
        failures: What happened in the judged trials that gave no value, a sentence each.
        diverged: Seeds of those trials that diverged and gave a value all the same, as an accuracy is one of any model.
    """

    strategy: str
    settings: Mapping[str, Any]
    rate: float | None
    searched: tuple[tuple[float, float | None], ...]
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    seconds: tuple[float, ...]
    curves: tuple[Mapping[str, Sequence[float | None]], ...]
    failures: tuple[str, ...] = ()
    diverged: tuple[int, ...] = ()


@dataclass(frozen=True)
class ComparisonRow:
    """A strategy against the baseline; None where there are too few seeds, or nothing was judged.

    Equal values from all seeds are one measurement, without interval and probability, unless the metric is a share of
    rows, such as an accuracy: its intervals are no narrower than one row allows.

    Args:
        strategy: Its name.
        rate: Its base rate.
        n: Number of judged seeds.
        mean: Mean of the metric.
        low: Lower end of the 95% interval of the mean.
        high: Upper end.
        difference: Mean difference to the baseline, over the seeds that both have.
        difference_low: Lower end of the 95% interval of the difference, a paired bootstrap over the seeds.
        difference_high: Upper end.
        wins: Number of seeds with which it is better than the baseline.
        pairs: Number of seeds that both have.
        probability: Probability that it is better than the baseline in the mean.
        seconds: Mean training time, in seconds.
        seconds_to_target: Mean time until the metric on the validation data reaches the target, in seconds, over the
            seeds that reach it.
        reached: Number of seeds that reach it.
    """

    strategy: str
    rate: float | None
    n: int
    mean: float | None
    low: float | None
    high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    wins: int | None
    pairs: int
    probability: float | None
    seconds: float | None
    seconds_to_target: float | None
    reached: int


def differences(result: StrategyResult, other: StrategyResult, mode: str) -> list[float]:
    """How much better a strategy is than another, on the seeds that both have; positive is better.

    Args:
        result: The one.
        other: The other.
        mode: "max" or "min".

    Returns:
        List of floats.
    """
    theirs = dict(zip(other.seeds, other.values, strict=True))
    pairs = [(v, theirs[s]) for s, v in zip(result.seeds, result.values, strict=True) if s in theirs]
    return [value - base if mode == "max" else base - value for value, base in pairs]


def make_row(
    result: StrategyResult, base: StrategyResult, mode: str, metric: str, target: float | None, grain: float = 0.0
) -> ComparisonRow:
    """The figures of a strategy.

    Args:
        result: What came of it.
        base: What came of the baseline.
        mode: "max" or "min".
        metric: Name of the metric.
        target: Value of the metric on the validation data whose time is looked for, or None.
        grain: Smallest difference that the metric can have. Float >= 0.

    Returns:
        `ComparisonRow`.
    """
    better = [] if result is base else differences(result, base, mode)
    signed = better if mode == "max" else [-difference for difference in better]
    times = [time for curve in result.curves if (time := _time_to(target, curve, metric, mode)) is not None]
    most = 1.0 if grain else math.inf  # of a share of rows
    low, high = interval(result.values, grain, (0.0 if grain else -math.inf, most)) or (None, None)
    difference_low, difference_high = interval(signed, grain, (-most, most)) or (None, None)
    return ComparisonRow(
        result.strategy,
        result.rate,
        len(result.values),
        mean(result.values),
        low,
        high,
        mean(signed),
        difference_low,
        difference_high,
        sum(difference > 0 for difference in better) if better else None,
        len(better),
        probability(better, grain),
        mean(result.seconds),
        mean(times),
        len(times),
    )


def mean(values: Sequence[float]) -> float | None:
    """The mean, or None of nothing.

    Args:
        values: Numbers of one unit, such as accuracies or seconds; may be empty.
    """
    return float(np.mean(values)) if values else None


def last_values(result: StrategyResult, metric: str) -> list[float]:
    """The metric on the validation data after the last epoch of each trial, where it is finite.

    Args:
        result: What came of a strategy.
        metric: Name of the metric, without "val_".
    """
    last = (curve[f"val_{metric}"][-1:] for curve in result.curves)
    return [value for values in last for value in values if value is not None]


def _time_to(target: float | None, curve: Mapping[str, Sequence[float | None]], metric: str, mode: str) -> float | None:
    if target is None:
        return None
    for value, seconds in zip(curve[f"val_{metric}"], curve["seconds"], strict=True):
        if value is not None and (value >= target if mode == "max" else value <= target):
            return seconds
    return None
