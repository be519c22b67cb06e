"""Which trials are made, in which order, how the rate is chosen, and what it all comes to."""

import compare_models
import pytest

from kadence import Strategy
from kadence._trial_plan import SEARCH_SEED, TrialPlan

NAMES = ("constant", "cosine")


def plan(names=NAMES, seeds=2, search=3, rates=None, mode="max"):
    return TrialPlan([Strategy.from_name(name) for name in names], seeds, search, rates, mode, "problem")


def outcomes_of(trials, **values):
    """Outcomes whose metric is that of the rate."""
    return {trial.key: compare_models.outcome(values.get(f"r{trial.rate:g}", 0.5)) for trial in trials}


def test_every_strategy_has_the_same_budget_and_fresh_seeds():
    made = plan()
    search = made.known({})
    assert made.n_trials == 10
    assert [(t.strategy.name, t.rate) for t in search] == [(n, r) for n in NAMES for r in (0.000316, 0.001, 0.00316)]
    assert {(t.seed, t.phase) for t in search} == {(SEARCH_SEED, "search")}
    outcomes = outcomes_of(search, **{"r0.001": 0.9})
    judged = made.known(outcomes)[6:]
    assert [(t.strategy.name, t.seed, t.rate, t.phase) for t in judged] == [
        (name, seed, 0.001, "judge") for seed in (0, 1) for name in NAMES
    ]


def test_judging_begins_for_a_strategy_whose_search_is_done():
    made = plan()
    constant = [trial for trial in made.known({}) if trial.strategy.name == "constant"]
    assert {t.strategy.name for t in made.known(outcomes_of(constant)) if t.phase == "judge"} == {"constant"}


def test_rates_are_half_a_decade_apart_around_the_usual_one():
    assert plan(search=5).rates_of(Strategy.from_name("sgd")) == [0.001, 0.00316, 0.01, 0.0316, 0.1]
    assert plan(search=1).rates_of(Strategy.from_name("adam")) == [0.001]
    assert plan(rates=[0.5, 0.1]).rates_of(Strategy.from_name("sgd")) == [0.5, 0.1]


def test_one_rate_needs_no_search():
    made = plan(rates=[0.5])
    assert made.n_trials == 4
    assert {(trial.phase, trial.rate) for trial in made.known({})} == {("judge", 0.5)}


def choice(mode="max", **by_rate):
    made = plan(mode=mode)
    outcomes = {trial.key: by_rate[f"r{trial.rate:g}"] for trial in made.known({})}
    judged = [trial.rate for trial in made.known(outcomes) if trial.phase == "judge"]
    return judged[0] if judged else None


def test_the_best_rate_is_chosen():
    low, mid, high = (compare_models.outcome(value) for value in (0.2, 0.5, 0.7))
    assert choice(**{"r0.000316": low, "r0.001": high, "r0.00316": mid}) == 0.001
    assert choice("min", **{"r0.000316": low, "r0.001": high, "r0.00316": mid}) == 0.000316


def test_the_loss_decides_between_equal_rates():
    worse = compare_models.outcome(0.5)
    better = compare_models.outcome(0.5, curves={**worse.curves, "val_loss": [0.5, 0.4]})
    assert choice(**{"r0.000316": worse, "r0.001": worse, "r0.00316": better}) == 0.00316


def test_a_rate_that_failed_or_diverged_is_not_chosen():
    bad = compare_models.outcome(0.99, "diverged")
    failed = compare_models.outcome(None, "failed", curves={}, reason="no memory")
    good = compare_models.outcome(0.1)
    assert choice(**{"r0.000316": bad, "r0.001": failed, "r0.00316": good}) == 0.00316
    assert choice(**{"r0.000316": bad, "r0.001": failed, "r0.00316": failed}) is None


def test_outcomes_become_a_comparison():
    made = plan(rates=[0.5, 0.1])
    outcomes = outcomes_of(made.known({}))
    judged = [trial for trial in made.known(outcomes) if trial.phase == "judge"]
    for trial in judged:
        value = 0.6 if trial.strategy.name == "cosine" else 0.5
        outcomes[trial.key] = compare_models.outcome(value + trial.seed / 100)
    broken = next(trial for trial in judged if trial.strategy.name == "cosine" and trial.seed == 1)
    outcomes[broken.key] = compare_models.outcome(None, "failed", reason="no memory", versions={"keras": "1"})
    outcomes[judged[0].key] = compare_models.outcome(0.5, versions={"keras": "2"})
    found = made.comparison(outcomes, compare_models.problem(), None)
    constant, cosine = found.results
    assert constant.searched == ((0.5, 0.5), (0.1, 0.5))
    assert (constant.rate, constant.seeds, constant.values) == (0.1, (0, 1), (0.5, 0.51))
    assert (cosine.seeds, cosine.values, cosine.failures) == ((0,), (0.6,), ("failed, no memory",))
    assert found.judged_on == "test"
    assert found.grain == 1 / 8, "one of 8 rows"
    assert found.notes == ("The trials ran under different versions: keras 1 and 2.",)


def test_what_is_judged_on_test_data_is_not_judged_on_others():
    """A trial without a value on the test data has none, whatever it has on the validation data."""
    made = plan(rates=[0.5])
    outcomes = outcomes_of(made.known({}))
    lost, diverged = (trial for trial in made.known({}) if trial.strategy.name == "cosine")
    reason = "the metric on the test data is not finite"
    outcomes[lost.key] = compare_models.outcome(0.9, "diverged", test=None, reason=reason)
    outcomes[diverged.key] = compare_models.outcome(0.2, "diverged")
    cosine = made.comparison(outcomes, compare_models.problem(), None).results[1]
    assert (cosine.seeds, cosine.values, cosine.diverged) == ((1,), (0.2,), (1,))
    assert cosine.failures == (f"diverged, {reason}",)
    on_validation = made.comparison(outcomes, compare_models.problem(test=False), None).results[1]
    assert (on_validation.values, on_validation.diverged) == ((0.9, 0.2), (0, 1))


def test_a_search_with_fewer_rates_is_told():
    made = plan(rates=[0.5, 0.1])
    outcomes = outcomes_of(made.known({}))
    first = next(trial for trial in made.known({}) if trial.strategy.name == "cosine")
    outcomes[first.key] = compare_models.outcome(None, "failed", reason="no memory", curves={})
    for trial in made.known(outcomes):
        outcomes.setdefault(trial.key, compare_models.outcome(0.5))
    said = made.comparison(outcomes, compare_models.problem(), None).notes
    assert said == ("1 search trial of cosine failed, so that it had fewer rates to choose from: no memory",)


def test_nothing_that_worked_is_an_error():
    made = plan(rates=[0.5])
    outcomes = {t.key: compare_models.outcome(None, "failed", reason="no memory") for t in made.known({})}
    with pytest.raises(ValueError, match=r"`trials` must give a model, at least one of them.*no memory.*retry_failed"):
        made.comparison(outcomes, compare_models.problem(), None)
