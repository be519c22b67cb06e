"""Comparison: the judged trials of every strategy -> rows, a table, and what can be concluded from so many seeds."""

import csv
import dataclasses
import functools
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kadence import _checks
from kadence._statistics import interval, probability, resolution
from kadence._text import table

#: Fewest values whose range covers 95%: 1 - 2 ** (1 - n).
_ENOUGH_SEEDS = 6
_TOLD = 0.975


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
        failures: What happened in the judged trials that failed, a sentence each.
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


@dataclass(frozen=True)
class ComparisonRow:
    """A strategy against the baseline; None where there are too few seeds, or nothing was judged.

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


@dataclass(frozen=True)
class Comparison:
    """Strategies against each other; `str()` gives the table and the conclusions.

    Args:
        results: A `StrategyResult` each; the first is the baseline.
        metric: Name of the metric.
        mode: "max" if more of it is better, "min" if less is.
        judged_on: "test" or "validation".
        epochs: Length of each trial, in epochs.
        target: What `seconds_to_target` waits for, or None for the baseline's mean at the end, on the validation data.
        notes: Sentences about the trials, such as that they ran under several versions.

    Example:
        >>> comparison = kadence.compare(build_model, (x, y), (x_val, y_val), ["constant", "cosine"], epochs=5)
        >>> print(comparison)
    """

    results: tuple[StrategyResult, ...]
    metric: str
    mode: str
    judged_on: str
    epochs: int
    target: float | None = None
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def rows(self) -> tuple[ComparisonRow, ...]:
        """A `ComparisonRow` for each strategy, in the order of `results`."""
        return tuple(self._row(result) for result in self.results)

    @property
    def target_value(self) -> float | None:
        """The target, given or the baseline's mean at the end, on the validation data."""
        if self.target is not None:
            return self.target
        last = [curve[f"val_{self.metric}"][-1] for curve in self.results[0].curves if curve[f"val_{self.metric}"]]
        known = [value for value in last if value is not None]
        return float(np.mean(known)) if known else None

    def differences(self, result: StrategyResult, other: StrategyResult) -> list[float]:
        """How much better a strategy is than another, on the seeds that both have; positive is better.

        Args:
            result: The one.
            other: The other.

        Returns:
            List of floats.
        """
        theirs = dict(zip(other.seeds, other.values, strict=True))
        pairs = [(v, theirs[s]) for s, v in zip(result.seeds, result.values, strict=True) if s in theirs]
        return [(value - base) * self._sign for value, base in pairs]

    def win_probability(self, strategy: str, other: str) -> float | None:
        """Probability that one strategy is better than another in the mean, over all seeds there could be.

        Args:
            strategy: Name of the one.
            other: Name of the other.

        Returns:
            Float in [0, 1]; None with fewer than two seeds.

        Raises:
            ValueError: If a name is unknown.
        """
        return probability(self.differences(self._result(strategy), self._result(other)))

    def _result(self, name: str) -> StrategyResult:
        _checks.one_of("strategy", name, [result.strategy for result in self.results])
        return next(result for result in self.results if result.strategy == name)

    @property
    def _sign(self) -> float:
        return 1.0 if self.mode == "max" else -1.0

    def _row(self, result: StrategyResult) -> ComparisonRow:
        better = self.differences(result, self.results[0])
        is_baseline = result is self.results[0]
        signed = [] if is_baseline else [difference * self._sign for difference in better]
        times = [time for time in (self._time_to_target(curve) for curve in result.curves) if time is not None]
        low, high = interval(result.values) or (None, None)
        difference_low, difference_high = interval(signed) or (None, None)
        return ComparisonRow(
            result.strategy,
            result.rate,
            len(result.values),
            _mean(result.values),
            low,
            high,
            _mean(signed),
            difference_low,
            difference_high,
            sum(difference > 0 for difference in better) if signed else None,
            len(signed),
            probability(better) if signed else None,
            _mean(result.seconds),
            _mean(times),
            len(times),
        )

    def _time_to_target(self, curve: Mapping[str, Sequence[float | None]]) -> float | None:
        if self.target_value is None:
            return None
        for value, seconds in zip(curve[f"val_{self.metric}"], curve["seconds"], strict=True):
            if value is not None and (value - self.target_value) * self._sign >= 0:
                return seconds
        return None

    @property
    def conclusions(self) -> tuple[str, ...]:
        """Sentences that say what can and what cannot be concluded."""
        return (*self._about_judging(), *self._about_differences(), *self._about_trials(), *self.notes)

    def _about_judging(self) -> list[str]:
        if self.judged_on == "test":
            return ["Judged on the test data, from seeds that took no part in the choice of the rates."]
        return ["Judged on the validation data, on which the rates were chosen too: a little too good. Give test data."]

    def _about_differences(self) -> list[str]:
        n = min((row.n for row in self.rows if row.n), default=0)
        others = [self.differences(result, self.results[0]) for result in self.results[1:]]
        smallest = resolution(others)
        if smallest is None:
            return ["One seed: no interval and no probability. No difference here can be told from chance."] * (n > 0)
        said = [f"With {n} seeds, a difference in {self.metric} below {smallest:.2g} cannot be told from noise here."]
        if n < _ENOUGH_SEEDS:
            said.append(f"The interval of {n} values covers less than 95%: take {_ENOUGH_SEEDS} seeds or more.")
        return [*said, *self._verdicts()]

    def _verdicts(self) -> list[str]:
        base, *rows = self.rows
        judged = [row for row in rows if row.probability is not None and row.difference is not None]
        said = [
            f"{row.strategy} is {'better' if row.probability > 0.5 else 'worse'} than {base.strategy} by "
            f"{abs(row.difference):.3g} (probability that it is better: {_probability(row.probability)})."
            for row in judged
            if max(row.probability, 1.0 - row.probability) >= _TOLD
        ]
        open_ones = [row.strategy for row in judged if max(row.probability, 1.0 - row.probability) < _TOLD]
        if open_ones:
            said.append(f"Not told from {base.strategy} by these seeds: {', '.join(open_ones)}.")
        return said

    def _about_trials(self) -> list[str]:
        said = []
        for result in self.results:
            rates = [rate for rate, _ in result.searched]
            if result.rate is None:
                said.append(f"{result.strategy} was not judged: no rate that was tried gave a model.")
            elif len(rates) > 1 and result.rate in (min(rates), max(rates)):
                end = "largest" if result.rate == max(rates) else "smallest"
                said.append(f"The rate of {result.strategy} is the {end} that was tried: a better one may lie beyond.")
            if result.failures:
                n = len(result.failures)
                said.append(f"{n} judged trial{'s' * (n > 1)} of {result.strategy} failed: {result.failures[0]}")
        return said

    def __str__(self) -> str:
        target = "" if self.target_value is None else f"s to {self.target_value:.3g}"
        head = ["strategy", "rate", "n", self.metric, "95% interval", "difference", "95% interval", "wins"]
        cells = [[*head, "P(better)", "seconds", target or "s to target"]]
        cells += [_cells(row) for row in self.rows]
        return "\n".join([*table(cells, n_left=1), "", *self.conclusions])

    def to_csv(self) -> str:
        """The rows as CSV text, with a line of headings."""
        text = io.StringIO()
        names = [field.name for field in dataclasses.fields(ComparisonRow)]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([[getattr(row, name) for name in names] for row in self.rows])
        return text.getvalue()

    def to_json(self) -> str:
        """The comparison as JSON text, with its rows and conclusions."""
        content = {"kadence": "comparison", "version": 1, **dataclasses.asdict(self)}
        content |= {"rows": [dataclasses.asdict(row) for row in self.rows], "conclusions": list(self.conclusions)}
        return json.dumps(content, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Comparison":
        """The comparison that `to_json` wrote.

        Args:
            text: Result of `to_json`.

        Returns:
            `Comparison`.

        Raises:
            ValueError: If the text is not a comparison.
        """
        rule = 'be JSON of a comparison, {"kadence": "comparison", "version": 1, ...}'
        try:
            content = json.loads(text)
            if content["kadence"] != "comparison" or content["version"] != 1:
                raise ValueError(rule)
            results = tuple(_result(entry) for entry in content["results"])
            fields = {field.name: content[field.name] for field in dataclasses.fields(cls)}
            return cls(**{**fields, "results": results, "notes": tuple(content["notes"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(_checks.sentence("text", rule, text[:80] if isinstance(text, str) else text)) from error


def _result(entry: Mapping[str, Any]) -> StrategyResult:
    tuples = {name: tuple(entry[name]) for name in ("seeds", "values", "seconds", "curves", "failures")}
    searched = tuple((rate, value) for rate, value in entry["searched"])
    return StrategyResult(**{**entry, **tuples, "searched": searched})


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _cells(row: ComparisonRow) -> list[str]:
    wins = "" if row.wins is None else f"{row.wins} of {row.pairs}"
    target = _number(row.seconds_to_target, ".1f") + (f" ({row.reached} of {row.n})" if row.reached < row.n else "")
    return [
        row.strategy,
        _number(row.rate, ".3g"),
        str(row.n),
        _number(row.mean, ".4f"),
        _range(row.low, row.high, ""),
        _number(row.difference, "+.4f"),
        _range(row.difference_low, row.difference_high, "+"),
        wins,
        "" if row.probability is None else _probability(row.probability),
        _number(row.seconds, ".1f"),
        target.strip(),
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _range(low: float | None, high: float | None, sign: str) -> str:
    return "" if low is None or high is None else f"{low:{sign}.4f}..{high:{sign}.4f}"


def _probability(value: float) -> str:
    return f"{value:.3f}" if 0.0005 <= value <= 0.9995 else ("> .999" if value > 0.5 else "< .001")
