import pytest

from kadence._answers import Interval, Suggestion

RATIOS = {"low": 0.01, "head": 1.0}


def joint(rate, reason=""):
    return Suggestion("valley", {"all": rate}, {"all": reason} if reason else {}, RATIOS)


def per_group(low, head):
    reasons = {name: "flat" for name, rate in (("low", low), ("head", head)) if rate is None}
    return Suggestion("valley", {"low": low, "head": head}, reasons, RATIOS)


def test_a_joint_rate_goes_to_the_groups_by_their_ratios():
    assert joint(0.5).rate == 0.5
    assert joint(0.5).learning_rates() == [0.005, 0.5]


def test_rates_of_groups_are_taken_as_they_are():
    assert per_group(0.1, 0.2).learning_rates() == [0.1, 0.2]
    with pytest.raises(ValueError, match=r"`rate` must come from a test in which all groups moved together"):
        _ = per_group(0.1, 0.2).rate


def test_no_answer_is_none_with_its_reason():
    assert joint(None, "flat").rate is None
    with pytest.raises(ValueError, match=r"`rates` must have a clear answer for every group.*all: flat"):
        joint(None, "flat").learning_rates()
    with pytest.raises(ValueError, match=r"low: flat"):
        per_group(None, 0.2).learning_rates()


def test_a_fallback_stands_in_for_a_missing_answer():
    fallback = {"low": 1e-5, "head": 1e-3}
    assert per_group(None, 0.2).learning_rates(fallback) == [1e-5, 0.2]
    assert joint(None, "flat").learning_rates(fallback) == [1e-5, 1e-3]
    assert joint(0.5).learning_rates(fallback) == [0.005, 0.5]
    with pytest.raises(ValueError, match="or a fallback"):
        per_group(None, None).learning_rates({"head": 1e-3})


def test_answers_cannot_be_changed():
    for answer in (joint(0.5), Interval({"all": (0.1, 0.2)}, {})):
        with pytest.raises(AttributeError):
            answer.rates = {}
