"""The decays against closed forms, and against the peers' own schedules."""

import numpy as np
import pytest
from bad_input import assert_integer, assert_number

from kadence import Exponential, InverseSquareRoot, Polynomial, Step, warmup

pytestmark = pytest.mark.once


def torch_rates(make, n_steps, lr=1.0):
    """Rates of a PyTorch scheduler."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_polynomial_equals_pytorch(power):
    peer = torch_rates(lambda lr, optimizer: lr.PolynomialLR(optimizer, total_iters=30, power=power), 40)
    np.testing.assert_allclose(Polynomial(1.0, 30, power=power).sample(40), peer, atol=1e-12)


@pytest.mark.parametrize("k", [0.5, 1.0, 2.5])
def test_polynomial_with_k_decay_is_the_published_form(k):
    t = np.minimum(np.arange(40), 30)
    expected = 0.1 + 0.9 * (1 - t**k / 30**k) ** 2
    np.testing.assert_allclose(Polynomial(1.0, 30, power=2, lr_min=0.1, k_decay=k).sample(40), expected, rtol=1e-12)


def test_exponential_equals_pytorch():
    peer = torch_rates(lambda lr, optimizer: lr.ExponentialLR(optimizer, gamma=0.97), 100)
    np.testing.assert_allclose(Exponential(1.0, 0.97).sample(100), peer, rtol=1e-12)


def test_exponential_equals_optax():
    optax = pytest.importorskip("optax")
    peer = optax.exponential_decay(1.0, transition_steps=7, decay_rate=0.5, end_value=0.05)
    expected = [float(peer(step)) for step in range(60)]
    np.testing.assert_allclose(Exponential(1.0, 0.5, every_steps=7, lr_min=0.05).sample(60), expected, rtol=1e-6)


def test_inverse_square_root_after_a_warmup_is_the_transformers_schedule():
    w = 10
    expected = [step / w if step < w else (w / step) ** 0.5 for step in range(100)]
    np.testing.assert_allclose(warmup(InverseSquareRoot(1.0, w), w).sample(100), expected, rtol=1e-12)


def test_step_equals_pytorch():
    peer = torch_rates(lambda lr, optimizer: lr.StepLR(optimizer, step_size=7, gamma=0.3), 40)
    np.testing.assert_allclose(Step(1.0, at_steps=7, factor=0.3).sample(40), peer, rtol=1e-12)
    peer = torch_rates(lambda lr, optimizer: lr.MultiStepLR(optimizer, milestones=[3, 20], gamma=0.3), 40)
    np.testing.assert_allclose(Step(1.0, at_steps=[3, 20], factor=0.3).sample(40), peer, rtol=1e-12)


@pytest.mark.parametrize("at_steps", [[30, 60], (30, 60), np.array([30, 60]), range(30, 90, 30)])
def test_steps_in_any_sequence(at_steps):
    assert Step(1.0, at_steps) == Step(1.0, [30, 60])


@pytest.mark.parametrize("at_steps", [30, np.int64(30), np.array(30)])
def test_any_integer_is_how_often(at_steps):
    assert Step(1.0, at_steps) == Step(1.0, 30)


def test_arguments():
    assert_number(lambda value: Polynomial(value, 5), "lr_max", out_of_range=(0, -1))
    assert_integer(lambda value: Polynomial(1.0, value), "n_steps", 1)
    assert_number(lambda value: Polynomial(1.0, 5, power=value), "power", out_of_range=(0, -1))
    assert_number(lambda value: Polynomial(1.0, 5, k_decay=value), "k_decay", out_of_range=(0, -1))
    assert_number(lambda value: Exponential(1.0, value), "factor", out_of_range=(0, 1.1, -1))
    assert_integer(lambda value: Exponential(1.0, 0.5, every_steps=value), "every_steps", 1)
    assert_integer(lambda value: InverseSquareRoot(1.0, value), "timescale_steps", 1)
    assert_number(lambda value: Step(1.0, 3, factor=value), "factor", out_of_range=(0, 1.1))
    for bad, error in (
        ([], ValueError),
        ([3, 3], ValueError),
        ([0, 1], ValueError),
        ("3", TypeError),
        (2.0, TypeError),
    ):
        with pytest.raises(error, match="`at_steps` must"):
            Step(1.0, at_steps=bad)
