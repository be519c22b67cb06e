import json
import math

import numpy as np
import pytest

from kadence._suggestions import smooth
from kadence.range_test import Curve, RangeTest, check_range, sweep_rates


def fall(n=100, start=2.0, seed=0, noise=0.02):
    """A loss that falls around 1e-3 and blows up after 0.1."""
    t = np.linspace(-7, 1, n)
    shape = start - 1 / (1 + np.exp(-(t + 3) * 2)) + np.where(t > -1, (t + 1) ** 2, 0.0)
    return shape + np.random.default_rng(seed).normal(size=n) * noise


def joint(*losses, **changes):
    """A test in which all moved together, a run for each array of losses."""
    curves = [Curve("all", run, array, "end") for run, array in enumerate(losses or [fall()])]
    fields = {"lr_min": 1e-7, "lr_max": 10.0, "n_steps": 100, "per_group": False}
    rates = {"current_rates": {"low": 1e-5, "head": 1e-3}, "multipliers": {"low": 0.01, "head": 1.0}}
    return RangeTest(**{**fields, **rates, "curves": curves, **changes})


def per_group(low, head, base=None, **changes):
    base = np.linspace(2.0, 1.5, 100) if base is None else base
    curves = [Curve("low", 0, low, "end"), Curve("head", 0, head, "end")]
    baselines = [Curve("low", 0, base, "end"), Curve("head", 0, base, "end")]
    return joint(per_group=True, curves=curves, baselines=baselines, **changes)


def test_the_rates_grow_by_one_factor():
    rates = sweep_rates(1e-7, 10.0, 100)
    np.testing.assert_allclose(rates, [1e-7 * 1e8 ** (i / 99) for i in range(100)], 1e-12)
    assert (rates[0], rates[-1]) == (1e-7, 10.0)
    np.testing.assert_array_equal(joint().rates, rates)


@pytest.mark.parametrize(
    ("lr_min", "lr_max", "error"),
    [
        (0.1, 0.1, ValueError),
        (1.0, 0.1, ValueError),
        (0.0, 1.0, ValueError),
        (1e-7, math.inf, ValueError),
        (math.nan, 1.0, ValueError),
        ("a", 1.0, TypeError),
        (1e-7, None, TypeError),
    ],
)
def test_the_ends_of_a_sweep(lr_min, lr_max, error):
    with pytest.raises(error, match=r"^`lr_m\w\w` must .* Received: lr_m"):
        check_range(lr_min, lr_max)


def test_the_curve_is_the_mean_of_the_runs_up_to_the_shortest():
    test = joint(fall(100, seed=1), fall(80, seed=2))
    assert [len(losses) for losses in test.runs()] == [80, 80]
    np.testing.assert_allclose(test.losses(), (fall(100, seed=1)[:80] + fall(80, seed=2)) / 2)
    np.testing.assert_allclose(test.smoothed(), smooth(test.losses(), 0.98))


def test_what_the_other_groups_did_is_taken_off():
    """Both curves fall with the others; only one falls by itself."""
    base = np.linspace(2.0, 1.0, 100)
    own = fall(noise=0.0) - 2.0
    test = per_group(low=base.copy(), head=base + own, base=base)
    np.testing.assert_allclose(test.losses("head"), own, atol=1e-12)
    np.testing.assert_allclose(test.losses("low"), 0.0)
    suggestion = test.suggest()
    assert suggestion.rates["low"] is None
    assert 1e-4 < suggestion.rates["head"] < 1e-2
    assert list(suggestion.reasons) == ["low"]
    assert test.interval().rates["low"] is None


def test_each_rule_answers_for_a_joint_test():
    test = joint()
    for rule in ("valley", "steepest", "minimum", "slide"):
        suggestion = test.suggest(rule)
        assert suggestion.rule == rule
        assert 1e-6 < suggestion.rate < 1.0
        assert suggestion.learning_rates() == [suggestion.rate * 0.01, suggestion.rate]
    with pytest.raises(ValueError, match=r"`rule` must be one of .*'valey'.*Did you mean 'valley'"):
        test.suggest("valey")


def test_the_interval_holds_the_suggestion():
    test = joint(fall(seed=1), fall(seed=2), fall(seed=3))
    low, high = test.interval().rates["all"]
    assert 1e-7 < low < test.suggest().rate < high < 10.0


@pytest.mark.parametrize(
    ("losses", "stopped", "reason"),
    [
        (np.ones(100), "end", "beyond its noise"),
        (np.linspace(1, 2, 100), "end", "rises"),
        (np.ones(5), "not finite", "not finite"),
        (np.zeros(0), "data", "data ended"),
    ],
)
def test_no_clear_answer(losses, stopped, reason):
    test = joint(curves=[Curve("all", 0, losses, stopped)])
    assert reason in test.doubt()
    for answer in (test.suggest(), test.interval()):
        assert answer.rates == {"all": None}
        assert reason in answer.reasons["all"]


def test_a_group_without_weights_has_no_answer():
    curves = [Curve("head", 0, fall(), "end")]
    test = joint(per_group=True, curves=curves, baselines=[Curve("head", 0, np.ones(100), "end")])
    assert test.suggest().reasons == {"low": "it has no trainable weights"}
    assert test.interval().reasons["low"] == "it has no trainable weights"
    assert len(test.losses("low")) == 0


def test_a_group_that_is_not_there():
    with pytest.raises(ValueError, match=r"`name` must be one of 'all'"):
        joint().losses("head")


@pytest.mark.parametrize("test", [joint(), per_group(fall(seed=1), fall(seed=2), notes=["größe ☃"], loss="validation")])
def test_json_gives_back_every_bit(test):
    again = RangeTest.from_json(test.to_json())
    assert again == test
    assert again.suggest() == test.suggest()
    for one, other in zip(again.curves + again.baselines, test.curves + test.baselines, strict=True):
        np.testing.assert_array_equal(one.losses, other.losses)
    assert again.notes == test.notes
    json.loads(test.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_equality():
    assert joint() == joint()
    assert joint() != joint(seed=1)
    assert joint() != "test"


SPOILT = [
    {"kadence": "rates"},
    {"version": 2},
    {"lr_min": 0.0},
    {"lr_min": "a"},
    {"lr_max": 1e-9},
    {"n_steps": 99},
    {"n_steps": 1.5},
    {"per_group": "no"},
    {"stop_factor": 1},
    {"seed": -1},
    {"loss": "test"},
    {"current_rates": [1]},
    {"multipliers": {"low": -1.0}},
    {"curves": 3},
    {"curves": [{"group": "all", "run": 0, "losses": [1.0]}]},
    {"curves": [{"group": "head", "run": 0, "losses": [1.0], "stopped": "end"}]},
    {"curves": [{"group": "all", "run": 0, "losses": [None], "stopped": "end"}]},
    {"curves": [{"group": "all", "run": 0, "losses": [[1.0]], "stopped": "end"}]},
    {"curves": [{"group": "all", "run": 0, "losses": [1.0], "stopped": "bored"}]},
    {"notes": None},
]


@pytest.mark.parametrize("changed", SPOILT, ids=map(str, SPOILT))
def test_a_spoilt_record(changed):
    with pytest.raises(ValueError, match=r"`text` must be JSON of a range test.* Received: "):
        RangeTest.from_json(json.dumps({**json.loads(joint().to_json()), **changed}))


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "{}", joint().to_json()[:-20]])
def test_text_that_is_not_a_record(text):
    with pytest.raises(ValueError, match=r"`text` must be JSON of a range test"):
        RangeTest.from_json(text)


@pytest.mark.parametrize("key", json.loads(joint().to_json()))
def test_a_record_without_a_part(key):
    content = json.loads(joint().to_json())
    del content[key]
    with pytest.raises(ValueError, match=r"`text` must be JSON of a range test"):
        RangeTest.from_json(json.dumps(content))


def test_what_is_not_text():
    with pytest.raises(TypeError, match="`text` must be a string"):
        RangeTest.from_json(None)


@pytest.mark.parametrize("losses", [[1.0, math.nan], [math.inf], [[1.0]]])
def test_a_curve_has_finite_losses_only(losses):
    with pytest.raises(ValueError, match="`losses` must be a list of finite numbers"):
        Curve("all", 0, losses, "end")
