"""Intervals and probabilities against tables, closed forms and a count of how often they hold."""

import math

import numpy as np
import pytest

from kadence._statistics import grain_of, interval, probability, smallest_told


def test_one_seed_says_nothing():
    assert interval([0.5]) is interval([]) is None
    assert probability([0.5]) is probability([]) is None
    assert smallest_told([[0.5], []], 0.1) is smallest_told([]) is None
    assert interval([0.5], 0.1) is probability([0.5], 0.1) is None


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_equal_values_without_a_grain_are_one_value(n):
    """As a loss is from every seed, if the seed changes nothing. The last two differ by rounding alone."""
    for values in ([0.5] * n, [0.0] * n, [0.6 - 0.5, *[0.62 - 0.52] * (n - 1)]):
        assert interval(values) is probability(values) is smallest_told([values]) is None
    assert smallest_told([[0.5, 0.5], [0.0, 1.0]]) == smallest_told([[0.0, 1.0]])


def test_equal_counts_are_not_certain():
    """Two seeds are each 3 rows of 100 better: t = 3 * sqrt(2), and 1/2 + atan(t) / pi is Student's t of 1 degree."""
    assert probability([0.03, 0.03], 0.01) == pytest.approx(0.5 + math.atan(3 * math.sqrt(2)) / math.pi)
    assert 0.9 < probability([0.03, 0.03], 0.01) < 0.95
    assert probability([-0.03, -0.03], 0.01) == pytest.approx(1.0 - probability([0.03, 0.03], 0.01))
    assert probability([0.0, 0.0], 0.01) == 0.5
    assert [probability([0.01] * n, 0.01) > 0.975 for n in (2, 3, 6, 7, 20)] == [False, False, False, True, True]


def test_a_count_stands_for_half_a_row_more_or_less():
    assert interval([0.5] * 5, 0.01) == pytest.approx((0.495, 0.505))
    assert interval([0.25, 0.75], 0.01) == pytest.approx((0.245, 0.755))


def test_a_grain_is_added_in_quadrature():
    """Values of the standard deviation 0.03, and a grain of 0.04, are as values of 0.05."""
    values = [0.07, 0.10, 0.13]
    wider = [0.05, 0.10, 0.15]
    assert probability(values, 0.04) == pytest.approx(probability(wider))
    assert smallest_told([values], 0.04) == pytest.approx(smallest_told([wider]))
    assert smallest_told([[0.2] * 5], 0.01) == pytest.approx(2.776445 * 0.01 / math.sqrt(5), abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("rows", [0.5, 1.0, 3.0])
def test_chance_is_not_found_more_often_than_5_percent(n, rows):
    """Differences of whole rows around 0; with 2 seeds and without the grain it is twice as often."""
    counts = np.round(np.random.default_rng(2).normal(0.0, rows, (1000, n)))
    found = [not 0.025 <= probability(own, 1.0) <= 0.975 for own in counts]
    assert np.mean(found) <= 0.05


def test_shares_of_rows_have_a_grain():
    assert [grain_of(name, 40) for name in ("accuracy", "acc", "sparse_top_k_categorical_accuracy")] == [0.025] * 3
    assert grain_of("recall", 8) == 0.125
    assert grain_of("SparseCategoricalAccuracy", 8) == 0.125
    assert [grain_of(name, 40) for name in ("loss", "mean_absolute_error", "auc")] == [0.0] * 3


def test_two_and_three_values_give_their_range():
    assert interval([0.25, 0.75]) == (0.25, 0.75)
    assert interval([0.0, 0.5, 1.0]) == (0.0, 1.0)


def test_the_interval_is_that_of_all_resamples():
    """Of four values there are 4**4 resamples: the quantiles that are looked for lie at their ends."""
    values = [0.0, 1.0, 2.0, 5.0]
    low, high = interval(values)
    assert low == pytest.approx(0.0, abs=0.01)
    assert high == pytest.approx(5.0, abs=0.01)


def test_many_values_give_the_normal_interval():
    values = np.random.default_rng(0).normal(size=400)
    low, high = interval(values.tolist())
    half = 1.966 * values.std(ddof=1) / math.sqrt(400)  # Student's t of 399 degrees of freedom
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)


def test_the_interval_of_ten_values_holds_as_often_as_it_says():
    rng = np.random.default_rng(1)
    pairs = [interval(rng.normal(size=10).tolist()) for _ in range(200)]
    assert 0.91 <= np.mean([low <= 0.0 <= high for low, high in pairs]) <= 0.98


@pytest.mark.parametrize(("n", "quantile", "expected"), [(5, 2.776445, 0.975), (3, 2.919986, 0.95), (2, 1.0, 0.75)])
def test_probability_is_students(n, quantile, expected):
    """Quantiles from a printed table of Student's t."""
    spread = np.linspace(-1.0, 1.0, n)
    values = spread + quantile * spread.std(ddof=1) / math.sqrt(n)
    assert probability(values.tolist()) == pytest.approx(expected, abs=1e-5)
    assert probability((-values).tolist()) == pytest.approx(1.0 - expected, abs=1e-5)


def test_agreement_of_few_seeds_is_not_certainty():
    assert 0.9 < probability([0.01, 0.02, 0.04]) < 0.97


def test_the_smallest_difference_by_hand():
    """Standard deviations 1 and 3 make a typical one of sqrt(5); t(0.975, 2) = 4.302653."""
    assert smallest_told([[0.0, 1.0, 2.0], [0.0, 3.0, 6.0]]) == pytest.approx(4.302653 * math.sqrt(5.0 / 3.0), rel=1e-6)
