"""Comparison: the judged trials of every strategy -> rows, a table, and what can be concluded from so many seeds."""

import csv
import dataclasses
import functools
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kadence import _checks
from kadence._comparison_rows import ComparisonRow, StrategyResult, differences, last_values, make_row, mean
from kadence._statistics import probability, smallest_told
from kadence._text import counted, tables

#: Fewest values whose range covers 95%: 1 - 2 ** (1 - n).
_ENOUGH_SEEDS = 6
_TOLD = 0.975
#: Columns of the narrowest terminal that the table is fitted to.
_NARROWEST = 80
#: Share of the comparisons without a difference that a verdict finds one in, to both sides.
_WRONG = 2 * (1 - _TOLD)


@dataclass(frozen=True)
class Comparison:
    """Strategies against each other; `str()` gives the table, as wide as the terminal allows, and the conclusions.

    Args:
        results: A `StrategyResult` each; the first is the baseline.
        metric: Name of the metric.
        mode: "max" if more of it is better, "min" if less is.
        judged_on: "test" or "validation".
        epochs: Length of each trial, in epochs.
        target: What `seconds_to_target` waits for, or None for the baseline's mean at the end, on the validation data.
        grain: Smallest difference that the metric can have: one row of what it is judged on, for a share of rows such
            as accuracy; 0 where there is none. Float >= 0.
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
    grain: float = 0.0
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def rows(self) -> tuple[ComparisonRow, ...]:
        """A `ComparisonRow` for each strategy, in the order of `results`."""
        return tuple(
            make_row(result, self.results[0], self.mode, self.metric, self.target_value, self.grain)
            for result in self.results
        )

    @property
    def target_value(self) -> float | None:
        """The target, given or the baseline's mean at the end, on the validation data."""
        if self.target is not None:
            return self.target
        return mean(last_values(self.results[0], self.metric))

    def win_probability(self, strategy: str, other: str) -> float | None:
        """Probability that one strategy is better than another in the mean, over all seeds there could be.

        Args:
            strategy: Name of the one.
            other: Name of the other.

        Returns:
            Float in [0, 1]; None with fewer than two seeds, or equal differences of a metric that is no share of rows.

        Raises:
            ValueError: If a name is unknown.
        """
        return probability(differences(self._result(strategy), self._result(other), self.mode), self.grain)

    def _result(self, name: str) -> StrategyResult:
        _checks.one_of("strategy", name, [result.strategy for result in self.results])
        return next(result for result in self.results if result.strategy == name)

    @property
    def conclusions(self) -> tuple[str, ...]:
        """Sentences that say what can and what cannot be concluded."""
        return (*self._about_judging(), *self._about_differences(), *self._about_trials(), *self.notes)

    def _about_judging(self) -> list[str]:
        said = [f"Of {self.metric}, less is better."] * (self.mode == "min")
        if self.judged_on == "test":
            return ["Judged on the test data, from seeds that took no part in the choice of the rates.", *said]
        where = "Judged on the validation data, on which the rates were chosen too: a little too good. Give test data."
        return [where, *said]

    def _about_differences(self) -> list[str]:
        others = [differences(result, self.results[0], self.mode) for result in self.results[1:]]
        n = min((len(own) for own in others if len(own) > 1), default=0)
        if not self.results[0].values:
            return [f"{self.results[0].strategy}, the baseline, gave no value: there is nothing to compare with."]
        if not n:
            one = "One seed: no interval and no probability. No difference here can be told from chance."
            return [one] * any(others)
        smallest = smallest_told(others, self.grain)
        said = []
        if smallest is not None:
            is_more_than_all = self.grain and smallest >= 1.0  # of a share of rows
            below = "" if is_more_than_all else f" below {smallest:.2g}"
            said.append(f"With {n} seeds, a difference in {self.metric}{below} cannot be told from noise here.")
        if n < _ENOUGH_SEEDS:
            covered = f"An interval of {n} seeds holds the mean in about {1 - 2 ** (1 - n):.0%} of the cases, not 95%"
            said.append(f"{covered}: take {_ENOUGH_SEEDS} seeds or more.")
        return [*said, *self._verdicts()]

    def _verdicts(self) -> list[str]:
        said, open_ones, unknown = [], [], []
        baseline, n_others = self.rows[0].strategy, len(self.rows) - 1
        most = max(len(result.values) + len(result.failures) for result in self.results)
        for row in self.rows[1:]:
            if row.probability is None or row.difference is None:
                unknown += [row.strategy] if row.pairs else []
                continue
            if max(row.probability, 1.0 - row.probability) < _TOLD:
                open_ones.append(row.strategy)
                continue
            verdict = f"{'better' if row.probability > 0.5 else 'worse'} than {baseline}"
            sure = f"probability that it is better: {_probability(row.probability)}"
            where = f", on the {row.pairs} seeds that both have" if row.pairs < most else ""
            said.append(f"{row.strategy} is {verdict} by {abs(row.difference):.3g}{where} ({sure}).")
        if said and n_others > 1:
            errs = f"{1 - (1 - _WRONG) ** n_others:.0%}"
            told = f"without any difference among {n_others + 1} strategies, up to {errs} of comparisons find one"
            said.append(f"Each verdict is by itself: {told}.")
        if open_ones:
            said.append(f"Not told from {baseline} by these seeds: {', '.join(open_ones)}.")
        if unknown:
            why = "one seed, or the same difference from each, which is one measurement too"
            said.append(f"No probability for {', '.join(unknown)}: {why}.")
        return said

    def _about_trials(self) -> list[str]:
        said = [f"{r.strategy} was not judged: no rate gave a model." for r in self.results if r.rate is None]
        for end, extreme in (("smallest", min), ("largest", max)):
            rates = {result.strategy: [rate for rate, _ in result.searched] for result in self.results}
            at_end = [r.strategy for r in self.results if len(r.searched) > 2 and r.rate == extreme(rates[r.strategy])]
            if at_end:
                said.append(f"The {end} rate that was tried is the best for {', '.join(at_end)}: try beyond it.")
        for result in self.results:
            if result.failures:
                failed = counted(len(result.failures), "judged trial")
                said.append(f"{failed} of {result.strategy} gave no value: {result.failures[0]}")
            if result.diverged:
                diverged = counted(len(result.diverged), "judged trial")
                said.append(f"{diverged} of {result.strategy} diverged; the values that they ended with count.")
        return said

    def __str__(self) -> str:
        target = "" if self.target_value is None else f"s to {self.target_value:.3g}"
        head = [
            ["rate", "n", self.metric, "95% interval"],
            ["difference", "95% interval", "wins", "P(better)"],
            ["seconds", target or "s to target"],
        ]
        rows = [("strategy", head), *((row.strategy, _cells(row)) for row in self.rows)]
        width = max(_NARROWEST, shutil.get_terminal_size().columns)
        return "\n".join([*tables(rows, width), "", *self.conclusions])

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
    tuples["diverged"] = tuple(entry.get("diverged", ()))  # files of earlier versions have none
    searched = tuple((rate, value) for rate, value in entry["searched"])
    return StrategyResult(**{**entry, **tuples, "searched": searched})


def _cells(row: ComparisonRow) -> list[list[str]]:
    """How good it is, how much better than the baseline, and how long it takes."""
    wins = "" if row.wins is None else f"{row.wins} of {row.pairs}"
    target = _number(row.seconds_to_target, ".1f") + (f" ({row.reached} of {row.n})" if row.reached < row.n else "")
    likely = "" if row.probability is None else _probability(row.probability)
    difference = _range(row.difference_low, row.difference_high, "+")
    return [
        [_number(row.rate, ".3g"), str(row.n), _number(row.mean, ".4f"), _range(row.low, row.high, "")],
        [_number(row.difference, "+.4f"), difference, wins, likely],
        [_number(row.seconds, ".1f"), target.strip()],
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _range(low: float | None, high: float | None, sign: str) -> str:
    return "" if low is None or high is None else f"{low:{sign}.4f}..{high:{sign}.4f}"


def _probability(value: float) -> str:
    return f"{value:.3f}" if 0.0005 <= value <= 0.9995 else ("> .999" if value > 0.5 else "< .001")
