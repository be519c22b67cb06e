"""The shapes against closed forms, at their ends, and against the peers' own schedules."""

import math
from fractions import Fraction

import keras
import numpy as np
import pytest
from bad_input import assert_integer, assert_number
from evaluate import BACKEND, MAX, array, floatx, rates, tensor
from hypothesis import given
from hypothesis import strategies as st

from kadence.schedules import Constant, Cosine, Linear
from kadence.schedules._base import _NUMPY
from kadence.schedules._curves import between, check_floor, cosine

LENGTHS = [1, 2, 3, 7, 10, 1000, 2**24 + 1, MAX]


def steps_of(n_steps):
    """Steps around the ends, the middle, and beyond."""
    near = [*range(5), n_steps // 2, *range(n_steps - 3, n_steps + 3), 2 * n_steps, MAX]
    return sorted({step for step in near if 0 <= step <= MAX})


def linear(lr_start, lr_end, n_steps, step):
    done = Fraction(min(step, n_steps), n_steps)
    return float(Fraction(lr_start) * (1 - done) + Fraction(lr_end) * done)


def half_cosine(lr_max, n_steps, lr_min, step):
    """By the half angle, as 1 + cos cancels near the end."""
    left = Fraction(n_steps - min(step, n_steps), n_steps)
    return lr_min + (lr_max - lr_min) * math.sin(math.pi / 2 * float(left)) ** 2


# The shapes


def test_cosine_is_one_plus_cos_over_two():
    left = np.linspace(0, 1, 101)
    np.testing.assert_allclose(cosine(left, _NUMPY), (1 + np.cos(np.pi * (1 - left))) / 2, atol=1e-15)
    assert cosine(0.0, _NUMPY) == 0.0
    assert cosine(1.0, _NUMPY) == 1.0
    assert cosine(1e-9, _NUMPY) == pytest.approx((math.pi / 2 * 1e-9) ** 2, rel=1e-15)


def test_between():
    assert [between(1.0, 3.0, height) for height in (0, 0.5, 1)] == [1.0, 2.0, 3.0]


def test_check_floor():
    assert check_floor(1, 0) == (1.0, 0.0)
    assert [type(rate) for rate in check_floor(1, 0)] == [float, float]
    for lr_max, lr_min in ((0.1, 0.1), (0.1, 0.2)):
        with pytest.raises(ValueError, match=f"`lr_max` must be > lr_min, which is {lr_min}. Received: lr_max=0.1."):
            check_floor(lr_max, lr_min)


def test_check_floor_shows_enough_digits_to_tell_the_two_apart():
    with pytest.raises(ValueError, match=r"which is 0\.12345649\. Received: lr_max=0\.1234564\."):
        check_floor(0.1234564, 0.12345649)


# Constant


@pytest.mark.parametrize("lr", [0, 0.1, 1, 1e-30, 12.5])
def test_constant(lr):
    assert Constant(lr).sample(5).tolist() == [lr] * 5
    assert (Constant(lr).lr_max, Constant(lr).lr_min) == (lr, lr)
    np.testing.assert_allclose(rates(Constant(lr), [0, 1, MAX]), [lr] * 3, rtol=1e-7)


def test_constant_checks_its_argument():
    assert_number(Constant, "lr", out_of_range=(-1e-9, -1))


# Linear


@pytest.mark.parametrize("n_steps", LENGTHS)
@pytest.mark.parametrize(
    ("lr_start", "lr_end"), [(0.0, 0.4), (0.4, 0.0), (0.1, 0.3), (0.2, 0.2), (1e-9, 1.0), (3, 1e-12)]
)
def test_linear(n_steps, lr_start, lr_end):
    schedule, steps = Linear(lr_start, lr_end, n_steps), steps_of(n_steps)
    expected = [linear(lr_start, lr_end, n_steps, step) for step in steps]
    np.testing.assert_allclose(schedule.at(steps), expected, rtol=1e-15)
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-6)


@given(st.floats(0, 100), st.floats(0, 100), st.integers(1, MAX), st.integers(0, MAX))
def test_linear_keeps_its_ends_and_stays_between_them(lr_start, lr_end, n_steps, step):
    schedule = Linear(lr_start, lr_end, n_steps)
    assert float(schedule.at(0)) == lr_start
    assert float(schedule.at(n_steps)) == float(schedule.at(MAX)) == lr_end
    assert (schedule.lr_max, schedule.lr_min) == (max(lr_start, lr_end), min(lr_start, lr_end))
    assert schedule.lr_min * (1 - 1e-15) <= float(schedule.at(step)) <= schedule.lr_max * (1 + 1e-15)


def test_linear_of_no_slope_is_constant():
    np.testing.assert_allclose(Linear(0.1, 0.1, 7).sample(20), 0.1, rtol=1e-15)


def test_linear_checks_its_arguments():
    assert_number(lambda v: Linear(v, 0.1, 10), "lr_start", out_of_range=(-1e-9,))
    assert_number(lambda v: Linear(0.1, v, 10), "lr_end", out_of_range=(-1e-9,))
    assert_integer(lambda v: Linear(0.0, 0.1, v), "n_steps", minimum=1)


# Cosine


@pytest.mark.parametrize("n_steps", LENGTHS)
@pytest.mark.parametrize(("lr_max", "lr_min"), [(0.1, 0.0), (0.1, 0.01), (1, 0), (1.0, 0.999), (1e-5, 1e-9)])
def test_cosine_schedule(n_steps, lr_max, lr_min):
    schedule, steps = Cosine(lr_max, n_steps, lr_min), steps_of(n_steps)
    expected = [half_cosine(lr_max, n_steps, lr_min, step) for step in steps]
    np.testing.assert_allclose(schedule.at(steps), expected, rtol=1e-14)
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-6)


@pytest.mark.parametrize("n_steps", [1, 2, 7, 200])
def test_cosine_schedule_is_the_equation_of_the_paper(n_steps):
    paper = [0.02 + 0.5 * (0.1 - 0.02) * (1 + math.cos(math.pi * t / n_steps)) for t in range(n_steps + 1)]
    np.testing.assert_allclose(Cosine(0.1, n_steps, 0.02).sample(n_steps + 1), paper, rtol=1e-14)


@given(st.floats(1e-6, 100), st.floats(0, 0.99), st.integers(1, MAX), st.integers(0, MAX - 1))
def test_cosine_schedule_falls_from_its_peak_to_its_floor(lr_max, floor, n_steps, step):
    schedule = Cosine(lr_max, n_steps, lr_min=lr_max * floor)
    assert float(schedule.at(0)) == pytest.approx(lr_max, rel=1e-15)
    assert float(schedule.at(n_steps)) == float(schedule.at(MAX)) == schedule.lr_min
    now, following = schedule.at([step, step + 1])
    assert schedule.lr_min <= following <= now <= lr_max * (1 + 1e-15)


@pytest.mark.parametrize("k", [0.1, 0.5, 1, 1.5, 3, 20])
@pytest.mark.parametrize("n_steps", [1, 2, 7, 1000, MAX])
def test_k_decay(k, n_steps):
    """lr_min + (lr_max - lr_min) * (1 + cos(pi * (t / T) ** k)) / 2, the small ends by logarithms."""
    schedule, steps = Cosine(0.1, n_steps, 0.001, k_decay=k), steps_of(n_steps)
    expected = []
    for step in steps:
        left = (n_steps - min(step, n_steps)) / n_steps
        log_done = math.log1p(-left) if left < 0.5 else math.log(step / n_steps) if step else -math.inf
        height = -math.expm1(k * log_done)
        expected.append(0.001 + 0.099 * math.sin(math.pi / 2 * height) ** 2)
    np.testing.assert_allclose(schedule.at(steps), expected, rtol=1e-12)
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=2e-6)


def test_k_decay_of_one_is_the_cosine():
    np.testing.assert_array_equal(Cosine(0.1, 37, k_decay=1).sample(50), Cosine(0.1, 37).sample(50))


def test_k_decay_above_one_stays_high_for_longer():
    assert np.all(Cosine(0.1, 10, k_decay=2).sample(10)[1:] > Cosine(0.1, 10).sample(10)[1:])


@pytest.mark.parametrize("n_steps", [1, 10, 37])
def test_cosine_schedule_equals_keras(n_steps):
    peer = keras.optimizers.schedules.CosineDecay(0.1, n_steps, alpha=0.1)
    steps = [0, 1, n_steps // 2, n_steps - 1, n_steps, 5 * n_steps]
    expected = array(peer(tensor(steps, "float32")))
    np.testing.assert_allclose(Cosine(0.1, n_steps, 0.01).at(steps), expected, atol=1e-7)


@pytest.mark.skipif(BACKEND != "jax", reason="two backends in one process")
def test_curves_equal_optax():
    optax = pytest.importorskip("optax")
    steps = np.arange(50)
    with floatx("float64"):
        now = array(tensor(steps, "int64"))
        cosine_decay = np.asarray(optax.cosine_decay_schedule(0.1, 37, alpha=0.1)(now))
        line = np.asarray(optax.linear_schedule(0.1, 0.02, 37)(now))
    np.testing.assert_allclose(Cosine(0.1, 37, 0.01).at(steps), cosine_decay, rtol=1e-12)
    np.testing.assert_allclose(Linear(0.1, 0.02, 37).at(steps), line, rtol=1e-12)


@pytest.mark.skipif(BACKEND != "torch", reason="two backends in one process")
def test_cosine_schedule_equals_pytorch():
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    peer = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=37, eta_min=0.01)
    expected = []
    for _ in range(38):
        expected += peer.get_last_lr()
        optimizer.step()
        peer.step()
    np.testing.assert_allclose(Cosine(0.1, 37, 0.01).sample(38), expected, rtol=1e-6)


def test_cosine_schedule_checks_its_arguments():
    assert_number(lambda v: Cosine(v, 10), "lr_max", out_of_range=(0, -0.1))
    assert_integer(lambda v: Cosine(0.1, v), "n_steps", minimum=1)
    assert_number(lambda v: Cosine(0.1, 10, v), "lr_min", out_of_range=(-1e-9,))
    assert_number(lambda v: Cosine(0.1, 10, k_decay=v), "k_decay", out_of_range=(0, -1))
    for lr_min in (0.1, 0.2):
        with pytest.raises(ValueError, match="`lr_max` must be > lr_min"):
            Cosine(0.1, 10, lr_min)
