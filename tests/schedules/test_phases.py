"""Schedules of whole runs against the peers' own, the papers and closed forms."""

import math

import numpy as np
import pytest
from bad_input import assert_integer, assert_number
from hypothesis import given
from hypothesis import strategies as st

from kadence import OneCycle, SlantedTriangular, WarmupStableDecay, one_cycle

pytestmark = pytest.mark.once


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize(("curve", "name"), [("cosine", "cos"), ("linear", "linear")])
def test_one_cycle_equals_pytorch(curve, name, three_phase):
    def make(lr, optimizer):
        return lr.OneCycleLR(
            optimizer, 1.0, total_steps=101, pct_start=30 / 101, anneal_strategy=name, three_phase=three_phase
        )

    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    rates, momenta = [], []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()
    pair = one_cycle(1.0, 101, peak_fraction=30 / 101, curve=curve, three_phase=three_phase)
    np.testing.assert_allclose(pair.learning_rate.sample(100), rates, atol=1e-12)
    np.testing.assert_allclose(pair.momentum.sample(100), momenta, atol=1e-12)


def test_one_cycle_has_its_peak_and_ends():
    schedule = OneCycle(1.0, 100, div_factor=10, final_div_factor=100)
    assert schedule.sample(100).argmax() == 29
    np.testing.assert_allclose(schedule.at([0, 29, 99, 500]), [0.1, 1.0, 0.001, 0.001], rtol=1e-12)


def test_one_cycle_names_the_phase_that_has_no_step():
    with pytest.raises(ValueError, match="leave every phase at least one step; the phases would turn at"):
        OneCycle(1.0, 10, peak_fraction=0.05)
    with pytest.raises(ValueError, match="leave every phase at least one step"):
        OneCycle(1.0, 10, peak_fraction=0.9, three_phase=True)


def test_slanted_triangular_is_the_papers_formula():
    n_steps, cut_fraction, ratio = 200, 0.1, 32
    cut = math.floor(n_steps * cut_fraction)
    expected = []
    for t in range(n_steps):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_fraction - 1))
        expected.append(0.01 * (1 + p * (ratio - 1)) / ratio)
    np.testing.assert_allclose(SlantedTriangular(0.01, n_steps).sample(n_steps), expected, rtol=1e-12)


def test_slanted_triangular_counts_a_product_that_falls_short_of_a_whole_number():
    assert 0.29 * 100 < 29
    assert SlantedTriangular(1.0, 100, cut_fraction=0.29).sample(100).argmax() == 29


@pytest.mark.parametrize("curve", ["linear", "cosine", "1-sqrt"])
def test_warmup_stable_decay(curve):
    height = {
        "linear": lambda f: 1 - f,
        "cosine": lambda f: (1 + math.cos(math.pi * f)) / 2,
        "1-sqrt": lambda f: 1 - f**0.5,
    }
    expected = [step / 10 for step in range(10)] + [1.0] * 20
    expected += [0.1 + 0.9 * height[curve](step / 15) for step in range(15)] + [0.1] * 5
    schedule = WarmupStableDecay(1.0, 45, warmup_steps=10, decay_steps=15, lr_min=0.1, curve=curve)
    np.testing.assert_allclose(schedule.sample(50), expected, rtol=1e-12)


def test_warmup_stable_decay_without_a_phase():
    assert WarmupStableDecay(1.0, 4, warmup_steps=0, decay_steps=4).sample(5).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert WarmupStableDecay(1.0, 4, warmup_steps=2, decay_steps=2).sample(5).tolist() == [0, 0.5, 1, 0.5, 0]
    with pytest.raises(ValueError, match="`n_steps` must be >= warmup_steps \\+ decay_steps, which is 5"):
        WarmupStableDecay(1.0, 4, warmup_steps=2, decay_steps=3)


def valid_or_none(make):
    """The schedule, or None if it is refused with the one clear error."""
    try:
        return make()
    except ValueError as error:
        if "` must " not in str(error) or "Received: " not in str(error):
            raise
        return None


@given(st.integers(1, 10**6), st.floats(0.01, 0.99), st.floats(1, 100))
def test_valid_or_one_clear_error(n_steps, fraction, factor):
    makers = (
        lambda: OneCycle(1.0, n_steps, fraction, factor, factor),
        lambda: OneCycle(1.0, n_steps, fraction, factor, factor, three_phase=True),
        lambda: SlantedTriangular(1.0, n_steps, fraction, factor),
        lambda: WarmupStableDecay(1.0, n_steps, int(n_steps * fraction), max(1, int(factor))),
    )
    for make in makers:
        schedule = valid_or_none(make)
        if schedule is None:
            continue
        rates = schedule.at(np.unique(np.linspace(0, n_steps + 3, 50).astype(int)))
        assert np.isfinite(rates).all()
        assert rates.max() <= 1 + 1e-12
        assert rates.min() >= schedule.lr_min * (1 - 1e-12)


def test_arguments():
    assert_number(lambda value: OneCycle(value, 10), "lr_max", out_of_range=(0, -1))
    assert_integer(lambda value: OneCycle(1.0, value), "n_steps", 4)
    assert_number(lambda value: OneCycle(1.0, 10, div_factor=value), "div_factor", out_of_range=(0.5,))
    assert_number(lambda value: SlantedTriangular(1.0, 100, value), "cut_fraction", out_of_range=(0, 1, -1))
    assert_number(lambda value: SlantedTriangular(1.0, 100, ratio=value), "ratio", out_of_range=(0.5,))
    assert_integer(lambda value: WarmupStableDecay(1.0, 10, value, 1), "warmup_steps", 0)
    assert_integer(lambda value: WarmupStableDecay(1.0, 10, 0, value), "decay_steps", 1)
    for make in (lambda: OneCycle(1.0, 10, curve="cos"), lambda: WarmupStableDecay(1.0, 9, 0, 9, curve="sqrt")):
        with pytest.raises(ValueError, match="`curve` must be one of"):
            make()
    for fraction in (0, 1):
        with pytest.raises(ValueError, match="`peak_fraction` must be a finite number > 0 and < 1"):
            OneCycle(1.0, 10, peak_fraction=fraction)
    assert one_cycle(1.0, 10, momentum_max=1 - 1e-12).momentum.lr_max == 1 - 1e-12
    with pytest.raises(ValueError, match="`momentum_max` must be a finite number >= 0 and < 1"):
        one_cycle(1.0, 10, momentum_max=1.0)
    with pytest.raises(TypeError, match="`three_phase` must be True or False"):
        OneCycle(1.0, 10, three_phase=1)
