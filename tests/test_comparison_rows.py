"""The figures of a row, worked out by hand."""

import pytest

from kadence._comparison_rows import StrategyResult, differences, last_values, make_row


def result(name, values, seeds=None, curves=None, seconds=None):
    seeds = tuple(range(len(values))) if seeds is None else seeds
    curves = curves or tuple({"val_accuracy": [0.2, value], "seconds": [1.0, 3.0]} for value in values)
    return StrategyResult(name, {}, 0.1, ((0.1, 0.5),), seeds, tuple(values), seconds or (4.0,) * len(values), curves)


BASE = result("base", [0.50, 0.60, 0.70])
OTHER = result("other", [0.70, 0.55, 0.80], seeds=(0, 1, 3), seconds=(1.0, 2.0, 6.0))


def test_differences_are_paired_by_seed():
    assert differences(OTHER, BASE, "max") == pytest.approx([0.20, -0.05])
    assert differences(OTHER, BASE, "min") == pytest.approx([-0.20, 0.05])


def test_a_row_by_hand():
    row = make_row(OTHER, BASE, "max", "accuracy", 0.6)
    assert (row.strategy, row.rate, row.n, row.pairs, row.wins) == ("other", 0.1, 3, 2, 1)
    assert row.mean == pytest.approx(2.05 / 3)
    assert (row.low, row.high) == pytest.approx((0.55, 0.80), abs=1e-3)
    assert row.difference == pytest.approx(0.075)
    assert (row.difference_low, row.difference_high) == pytest.approx((-0.05, 0.20))
    assert row.probability == pytest.approx(0.672021, abs=1e-6)  # 1/2 + atan(0.6) / pi, Student's t of one degree
    assert row.seconds == 3.0
    assert (row.seconds_to_target, row.reached) == (3.0, 2)


def test_less_may_be_better():
    row = make_row(OTHER, BASE, "min", "accuracy", 0.2)
    assert row.difference == pytest.approx(0.075)
    assert row.wins == 1
    assert row.probability == pytest.approx(1 - 0.672021, abs=1e-6)
    assert (row.seconds_to_target, row.reached) == (1.0, 3)


def test_the_baseline_is_not_compared_with_itself():
    row = make_row(BASE, BASE, "max", "accuracy", None)
    assert (row.difference, row.wins, row.pairs, row.probability, row.reached) == (None, None, 0, None, 0)


def test_one_seed_and_none():
    one = make_row(result("one", [0.9]), BASE, "max", "accuracy", None)
    assert (one.low, one.high, one.probability, one.wins) == (None, None, None, 1)
    none = make_row(result("none", []), BASE, "max", "accuracy", 0.5)
    assert (none.mean, none.difference, none.wins, none.seconds, none.reached) == (None, None, None, None, 0)


def test_values_at_the_end_leave_out_what_is_not_finite():
    curves = ({"val_accuracy": [0.1, 0.4], "seconds": [1.0, 2.0]}, {"val_accuracy": [None], "seconds": [1.0]})
    ended = result("x", [0.4, 0.1], curves=curves)
    assert last_values(ended, "accuracy") == [0.4]
    assert make_row(ended, BASE, "max", "accuracy", 0.4).reached == 1


def test_a_share_of_rows_stays_between_none_and_all():
    row = make_row(result("all", [1.0, 1.0, 1.0]), result("none", [0.0, 0.0, 0.0]), "max", "accuracy", None, 0.1)
    assert (row.low, row.high) == (0.95, 1.0)
    assert (row.difference_low, row.difference_high) == (0.95, 1.0)
    assert make_row(result("x", [2.0, 3.0]), BASE, "max", "accuracy", None).high == 3.0
