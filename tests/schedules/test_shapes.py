"""The shapes and powers against exact arithmetic."""

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from evaluate import MAX, over

from kadence.schedules import _base
from kadence.schedules._shapes import CURVES, Powers, delayed, fractions


@pytest.mark.parametrize("name", list(CURVES))
def test_a_curve_and_its_complement_add_up_to_one(name):
    done = np.linspace(0, 1, 101)
    fall, rise = CURVES[name](1 - done, done, _base._NUMPY)
    np.testing.assert_allclose(fall + rise, 1, atol=1e-15)
    assert fall[[0, -1]].tolist() == [1, 0]
    assert (np.diff(fall) < 0).all()


def test_one_minus_sqrt_keeps_its_digits_near_the_end():
    left, done = fractions(np.array(MAX - 1), MAX, _base._NUMPY)
    assert CURVES["1-sqrt"](left, done, _base._NUMPY)[0] == pytest.approx(0.5 / MAX, rel=1e-9)


@pytest.mark.parametrize("k", [0.3, 1.0, 1.5, 3.0])
def test_delayed_is_one_minus_a_power(k):
    step = np.array([0, 1, 499_999, 500_000, 500_001, 999_999, 1_000_000])
    done = step / 1_000_000
    exact = [float(1 - Fraction(int(s), 1_000_000) ** int(k)) for s in step] if k == int(k) else 1 - done**k
    np.testing.assert_allclose(delayed(step, 1_000_000, k, _base._NUMPY), exact, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("base", [0.0, 0.5, 0.999, 0.9999999, 1.0])
def test_powers_do_not_lose_digits_with_the_exponent(base):
    exponents = [0, 1, 2, 2047, 2048, 2049, 100_000, 2**22 - 1, 2**22, MAX]
    exact = [base**exponent for exponent in exponents]
    np.testing.assert_allclose(Powers(base)(np.array(exponents), _base._NUMPY), exact, rtol=1e-6, atol=1e-40)
    (compiled,) = over(lambda step: (Powers(base)(step, _base._KERAS),), exponents, ("float32",))
    np.testing.assert_allclose(compiled, exact, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize(("base", "every"), [(0.5, 1_000), (1e-30, 7), (0.9, MAX), (0.999, 3), (1.0, 5)])
def test_powers_of_shares_of_an_exponent(base, every):
    powers = Powers(base, every)
    exponents = np.unique(np.clip([0, 1, 6, 7, 2047, 2048, 2049, powers.last - 1, powers.last, 10**6, MAX], 0, MAX))
    with localcontext(prec=50):
        exact = [float(Decimal(base) ** (Decimal(int(exponent)) / every)) for exponent in exponents]
    np.testing.assert_allclose(powers(exponents, _base._NUMPY), exact, rtol=1e-14, atol=1e-300)
    (compiled,) = over(lambda step: (powers(step, _base._KERAS),), exponents, ("float32",))
    np.testing.assert_allclose(compiled, exact, rtol=5e-7, atol=1e-37)
