import itertools
import math
import re

import numpy as np
import pytest

from kadence._suggestions import (
    RULES,
    doubt,
    kendall,
    kept,
    minimum,
    rates_that_learn,
    slide,
    smooth,
    smoothing,
    steepest,
    valley,
)


def rates(n):
    return np.exp(np.linspace(math.log(1e-7), math.log(10.0), n))


def raw_curve(n, noise, seed=7):
    """A loss that falls in the middle of the sweep and blows up at its end."""
    t = np.linspace(0, 1, n)
    fall = 2.3 - 1.5 / (1 + np.exp(-(t - 0.55) * 18)) + np.where(t > 0.8, (t - 0.8) ** 2 * 90, 0)
    return fall + np.random.default_rng(seed).normal(size=n) * noise


# What fastai 2.8.2's functions valley, slide, minimum and steep give on the curves below, without their first tenth and
# last five points, smoothed with beta 0.98.
FASTAI = {
    (100, 0.02): (0.0015922827933410914, 0.01232846739442067, 0.10722672220103217, 0.01023531021899026),
    (100, 0.1): (0.0040370172585965525, 0.01232846739442067, 0.10722672220103217, 0.017886495290574338),
    (100, 0.3): (0.005857020818056666, 0.025950242113997355, 0.08902150854450396, 9.326033468832199e-07),
    (60, 0.05): (0.001168951816498579, 0.004075392965871776, 0.11242100350620858, 0.007609496685459876),
    (300, 0.1): (0.0035358593665351778, 0.2806470846309838, 0.07071284778943003, 0.005788177037701275),
}


def fastai_curve(n, noise):
    """As in fastai: the seed of the first curve goes on to the next."""
    rng = np.random.default_rng(7)
    for length, amount in FASTAI:
        t = np.linspace(0, 1, length)
        raw = 2.3 - 1.5 / (1 + np.exp(-(t - 0.55) * 18)) + np.where(t > 0.8, (t - 0.8) ** 2 * 90, 0)
        raw = raw + rng.normal(size=length) * amount
        if (length, amount) == (n, noise):
            return rates(n)[n // 10 : -5], smooth(raw, 0.98)[n // 10 : -5]
    raise KeyError(n)


@pytest.mark.parametrize(("n", "noise"), list(FASTAI))
def test_the_rules_are_those_of_fastai(n, noise):
    lr, losses = fastai_curve(n, noise)
    got = [rule(lr, losses, 1.0) for rule in (valley, slide, minimum, steepest)]
    np.testing.assert_allclose(got, FASTAI[n, noise], 1e-12)


def longest_fall(losses):
    """First end and length of the longest falling subsequence, by trying all of them."""
    best = (0, 1)
    for size in range(2, len(losses) + 1):
        ends = [
            chosen[-1]
            for chosen in itertools.combinations(range(len(losses)), size)
            if all(losses[a] > losses[b] for a, b in itertools.pairwise(chosen))
        ]
        best = (min(ends), size) if ends else best
    return best


@pytest.mark.parametrize("seed", range(8))
def test_valley_is_half_of_the_longest_fall(seed):
    losses = np.random.default_rng(seed).normal(size=10)
    end, size = longest_fall(losses.tolist())
    start = end - size if end else 0
    third = (end - start) / 3
    assert valley(rates(10), losses, 1.0) == rates(10)[max(start + int(third) + int(third / 2), 0)]


def test_valley_of_a_line():
    assert valley(rates(60), np.linspace(2, 1, 60), 1.0) == pytest.approx(rates(60)[29])


def test_steepest_is_against_the_logarithm_of_the_rate():
    lr = rates(50)
    losses = -np.tanh(np.log10(lr) + 3)
    assert abs(math.log10(steepest(lr, losses, 1.0)) + 3) < 0.2
    # Against the rate itself it is where the rates are smallest.
    assert np.argmin(np.diff(losses) / np.diff(lr)) == 0


def test_minimum_is_a_tenth():
    losses = np.abs(np.arange(50) - 30.0)
    assert minimum(rates(50), losses, 1.0) == pytest.approx(rates(50)[30] / 10)


def test_slide_of_a_short_curve_is_its_first_rate():
    assert slide(rates(9), np.linspace(1, 0, 9), 1.0) == rates(9)[0]


def test_all_rules_are_listed():
    assert list(RULES) == ["valley", "steepest", "minimum", "slide"]


def test_smoothing_is_the_weighted_mean_of_the_past():
    losses = np.random.default_rng(0).normal(size=20)
    for step, got in enumerate(smooth(losses, 0.9)):
        weights = 0.9 ** np.arange(step, -1, -1)
        assert got == pytest.approx(np.average(losses[: step + 1], weights=weights))


def test_smoothing_looks_back_over_the_same_share_of_any_sweep():
    assert smoothing(100) == 0.98
    for n in (20, 50, 300, 1000):
        assert smoothing(n) ** n == pytest.approx(0.98**100)


def test_the_part_that_is_kept():
    assert kept(100, 100) == slice(10, 95)
    assert kept(60, 100) == slice(10, 55)
    assert kept(3, 100) == slice(10, 0)
    assert kept(20, 20) == slice(2, 19)


def test_kendall_counts_pairs():
    values = np.random.default_rng(1).normal(size=15)
    score = sum(np.sign(b - a) for a, b in itertools.combinations(values, 2))
    assert kendall(values) == pytest.approx(score / math.sqrt(15 * 14 * 35 / 18))
    assert kendall(np.arange(10.0)) > 3.9
    assert kendall(np.ones(10)) == 0.0
    assert kendall(np.ones(1)) == kendall(np.ones(0)) == 0.0


def doubt_of(raw, stopped="end"):
    n = 100
    part = kept(len(raw), n)
    return doubt(raw[part], smooth(raw, smoothing(n))[part], stopped)


def test_a_curve_that_falls_is_clear():
    assert doubt_of(raw_curve(100, 0.3)) == ""
    assert doubt_of(raw_curve(100, 0.0)) == ""
    assert doubt_of(np.linspace(2, 1, 100)) == ""


@pytest.mark.parametrize(
    ("raw", "stopped", "reason"),
    [
        (np.ones(100), "end", "does not fall beyond its noise"),
        (np.random.default_rng(0).normal(size=100), "end", "does not fall beyond its noise"),
        (np.linspace(1, 3, 100), "end", "rises with the rate and falls nowhere"),
        (np.linspace(1, 3, 30), "rose", "rises with the rate and falls nowhere"),
        (np.linspace(2, 1, 18), "not finite", "not finite any more.*before the loss could fall"),
        (np.linspace(1, 3, 12), "rose", "rose.*lower lr_min"),
        (np.zeros(0), "data", "the data ended"),
        (np.zeros(0), "not finite", "lower lr_min"),
    ],
)
def test_a_curve_without_an_answer_says_why(raw, stopped, reason):
    assert re.search(reason, doubt_of(raw, stopped))


def test_noise_alone_seldom_passes_for_a_fall():
    rng = np.random.default_rng(3)
    passed = sum(doubt_of(rng.normal(size=100)) == "" for _ in range(200))
    assert passed <= 6


def learns(raws, n=100):
    part = kept(n, n)
    return rates_that_learn(rates(n)[part], [raw[part] for raw in raws], n)


def test_the_rates_that_learn_are_those_of_the_fall():
    """The fall has its middle at 2e-3, a tenth and nine tenths of it are done at 2e-4 and 2e-2; it ends at 0.25."""
    low, high = learns([raw_curve(100, 0.02)])
    assert 2e-5 < low < 5e-4
    assert 1e-2 < high < 0.3


def test_noise_makes_the_rates_that_learn_fewer():
    quiet, loud = learns([raw_curve(100, 0.02)]), learns([raw_curve(100, 0.5)])
    assert loud is None or math.log(loud[1] / loud[0]) < math.log(quiet[1] / quiet[0])


def test_runs_that_disagree_leave_no_rates():
    """One falls before 1e-4, the other after 1e-1."""
    t = np.linspace(-7, 1, 100)
    early = np.where(t < -4, -t, t + 8.0)
    late = np.where(t < -1, 1.0, -t)
    assert learns([early, late]) is None


def test_resampling_is_repeatable():
    assert learns([raw_curve(100, 0.2)]) == learns([raw_curve(100, 0.2)])
