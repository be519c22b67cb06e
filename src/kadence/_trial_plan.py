"""TrialPlan: which trials a comparison is made of, in which order, and what their outcomes come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kadence import _checks
from kadence._problem import Problem
from kadence._statistics import grain_of
from kadence._text import counted
from kadence._trials import Outcome, Trial
from kadence.comparison import Comparison, StrategyResult
from kadence.strategies import Strategy

#: Seeds of the search lie above this, and those of the judging below: what chose a rate does not judge it.
SEARCH_SEED = 1_000_000
#: Middle of the rates that are tried, by optimizer.
_MIDDLE = {"sgd": 1e-2, "lion": 1e-4}
_MIDDLE_OF_OTHERS = 1e-3


@dataclass(frozen=True)
class TrialPlan:
    """The trials of a comparison.

    Args:
        strategies: The strategies; the first is the baseline.
        seeds: Number of seeds to judge with. Integer >= 1.
        search: Number of rates to try, unless `rates` are given. Integer >= 1.
        rates: The rates to try, or None for those that are usual for the optimizer. Floats > 0.
        mode: "max" or "min".
        problem: Fingerprint of the `Problem`.
    """

    strategies: Sequence[Strategy]
    seeds: int
    search: int
    rates: Sequence[float] | None
    mode: str
    problem: str

    def rates_of(self, strategy: Strategy) -> Sequence[float]:
        """The rates to try: the given ones, or `search` of them, half a decade apart around the middle."""
        if self.rates is not None:
            return self.rates
        middle = _MIDDLE.get(strategy.optimizer, _MIDDLE_OF_OTHERS)
        return [float(f"{middle * 10 ** ((i - (self.search - 1) / 2) / 2):.3g}") for i in range(self.search)]

    @property
    def n_trials(self) -> int:
        """Number of trials in all."""
        return sum(len(self._search_trials(strategy)) + self.seeds for strategy in self.strategies)

    def known(self, outcomes: Mapping[str, Outcome]) -> list[Trial]:
        """The trials that are known so far: those of the search, and those of the judging where the rate is chosen.

        Args:
            outcomes: Key -> outcome of finished trials.

        Returns:
            List of `Trial`, in the order in which to do them; the seeds go round the strategies.
        """
        trials = [trial for strategy in self.strategies for trial in self._search_trials(strategy)]
        rates = {strategy.name: self._choose(strategy, outcomes) for strategy in self.strategies}
        for seed in range(self.seeds):
            trials += [
                self._trial(strategy, rate, seed, "judge")
                for strategy in self.strategies
                if (rate := rates[strategy.name]) is not None
            ]
        return trials

    def _trial(self, strategy: Strategy, rate: float, seed: int, phase: str) -> Trial:
        return Trial(strategy, rate, seed, phase, self.problem)

    def _search_trials(self, strategy: Strategy) -> list[Trial]:
        rates = self.rates_of(strategy)
        return [self._trial(strategy, rate, SEARCH_SEED, "search") for rate in rates] if len(rates) > 1 else []

    def _choose(self, strategy: Strategy, outcomes: Mapping[str, Outcome]) -> float | None:
        """The best rate; None while the search goes on, or where no rate gave a model."""
        trials = self._search_trials(strategy)
        if not trials:
            return self.rates_of(strategy)[0]
        if any(trial.key not in outcomes for trial in trials):
            return None
        scores = {trial.rate: self._score(outcomes[trial.key]) for trial in trials}
        good = {rate: score for rate, score in scores.items() if score is not None}
        return max(good, key=lambda rate: (*good[rate], -rate)) if good else None

    def _score(self, outcome: Outcome) -> tuple[float, float] | None:
        """The metric, larger is better, and between equal ones the loss; None for a trial that gave no model."""
        if outcome.status != "done" or outcome.validation is None:
            return None
        loss = outcome.curves["val_loss"][-1]
        return outcome.validation if self.mode == "max" else -outcome.validation, -(loss or 0.0)

    def comparison(self, outcomes: Mapping[str, Outcome], problem: Problem, target: float | None) -> Comparison:
        """What the outcomes come to.

        Args:
            outcomes: Key -> outcome of all trials.
            problem: The `Problem`.
            target: The target, or None.

        Returns:
            `Comparison`.

        Raises:
            ValueError: If no trial gave a model.
        """
        on_test = problem.test is not None
        results = tuple(self._result(strategy, outcomes, on_test) for strategy in self.strategies)
        if not any(result.values for result in results):
            reason = next((outcome.reason for outcome in outcomes.values() if outcome.reason), "Every loss diverged.")
            remedy = f"{reason} Failed trials are kept; `retry_failed=True` tries them again."
            raise ValueError(_checks.sentence("trials", "give a model, at least one of them", len(outcomes), remedy))
        judged = problem.test or problem.validation
        grain = grain_of(problem.metric, judged.n_rows)
        notes = (*self._search_notes(outcomes), *_version_notes(outcomes.values()))
        return Comparison(results, problem.metric, self.mode, judged.name, problem.epochs, target, grain, notes)

    def _search_notes(self, outcomes: Mapping[str, Outcome]) -> tuple[str, ...]:
        """A sentence for each strategy that had fewer rates to choose from, since trials failed."""
        said = []
        for strategy in self.strategies:
            found = [outcomes[trial.key] for trial in self._search_trials(strategy)]
            failed = [outcome.reason for outcome in found if outcome.status == "failed"]
            if failed:
                which = f"{counted(len(failed), 'search trial')} of {strategy.name}"
                said.append(f"{which} failed, so that it had fewer rates to choose from: {failed[0]}")
        return tuple(said)

    def _result(self, strategy: Strategy, outcomes: Mapping[str, Outcome], on_test: bool) -> StrategyResult:
        rate = self._choose(strategy, outcomes)
        seeds = range(self.seeds) if rate is not None else ()
        trials = {seed: outcomes[self._trial(strategy, rate or 0.0, seed, "judge").key] for seed in seeds}
        values = {seed: outcome.test if on_test else outcome.validation for seed, outcome in trials.items()}
        good = {seed: outcome for seed, outcome in trials.items() if values[seed] is not None}
        searched = ((t.rate, _searched(outcomes[t.key])) for t in self._search_trials(strategy))
        bad = (
            ", ".join(filter(None, [outcome.status, outcome.reason]))
            for seed, outcome in trials.items()
            if seed not in good
        )
        return StrategyResult(
            strategy.name,
            strategy.content,
            rate,
            tuple(searched),
            tuple(good),
            tuple(value for value in values.values() if value is not None),
            tuple(outcome.seconds for outcome in good.values()),
            tuple(outcome.curves for outcome in good.values()),
            tuple(bad),
            tuple(seed for seed, outcome in good.items() if outcome.status == "diverged"),
        )


def _searched(outcome: Outcome) -> float | None:
    return outcome.validation if outcome.status == "done" else None


def _version_notes(outcomes: Any) -> tuple[str, ...]:
    """A sentence where not all trials ran under the same versions."""
    versions = {tuple(sorted(outcome.versions.items())) for outcome in outcomes if outcome.versions}
    names = sorted({name for one in versions for name, _ in one})
    mixed = {name: sorted({str(dict(one).get(name, "none")) for one in versions}) for name in names}
    differing = [f"{name} {' and '.join(found)}" for name, found in mixed.items() if len(found) > 1]
    return (f"The trials ran under different versions: {'; '.join(differing)}.",) if differing else ()
