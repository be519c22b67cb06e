"""Intervals and probabilities against tables, closed forms and a count of how often they hold."""

import math

import numpy as np
import pytest

from kadence._statistics import interval, probability, resolution


def test_one_seed_says_nothing():
    assert interval([0.5]) is interval([]) is None
    assert probability([0.5]) is probability([]) is None
    assert resolution([[0.5], []]) is resolution([]) is None


def test_equal_values_are_their_own_interval():
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0.5)
    assert [probability([value] * 3) for value in (0.1, 0.0, -0.1)] == [1.0, 0.5, 0.0]


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


def test_resolution_by_hand():
    """Standard deviations 1 and 3 make a typical one of sqrt(5); t(0.975, 2) = 4.302653."""
    assert resolution([[0.0, 1.0, 2.0], [0.0, 3.0, 6.0]]) == pytest.approx(4.302653 * math.sqrt(5.0 / 3.0), rel=1e-6)
