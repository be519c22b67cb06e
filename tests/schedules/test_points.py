"""Schedules through points, and from functions."""

import math

import keras
import numpy as np
import pytest
from evaluate import rates

from kadence import from_function, from_points


def test_linear_points_are_interpolated():
    steps, values = [3, 10, 11, 50], [0.5, 0.1, 0.9, 0.0]
    np.testing.assert_allclose(from_points(steps, values).sample(60), np.interp(range(60), steps, values), atol=1e-15)


@pytest.mark.parametrize("interpolation", ["linear", "cosine", "1-sqrt"])
def test_the_rates_at_the_ends_hold_exactly(interpolation):
    schedule = from_points([5, 12, 31], [0.1, 0.7, 0.3], interpolation)
    steps = [0, 1, 4, 5, 31, 32, 1_000, 77_777, 2**31 - 1]
    assert schedule.at(steps).tolist() == [0.1] * 4 + [0.3] * 5
    start, end = np.float32([0.1, 0.3]).tolist()
    np.testing.assert_array_equal(rates(schedule, steps), [start] * 4 + [end] * 5)


def test_constant_points_hold_until_the_next():
    assert from_points([2, 4], [0.5, 0.1], "constant").sample(6).tolist() == [0.5, 0.5, 0.5, 0.5, 0.1, 0.1]


def test_cosine_points_equal_optax():
    optax = pytest.importorskip("optax")
    peer = optax.piecewise_interpolate_schedule("cosine", 1.0, {10: 0.5, 25: 0.2})
    expected = [float(peer(step)) for step in range(40)]
    ours = from_points([0, 10, 25], [1.0, 0.5, 0.1], "cosine").sample(40)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_one_point_is_a_constant():
    assert from_points([7], [0.3]).sample(10) == pytest.approx([0.3] * 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "`steps` must be a sequence"),
        (([1, 1], [0.1, 0.2]), "`steps` must be strictly increasing"),
        (([1, 2], [0.1]), "`rates` must be a sequence of 2 rates, one per step"),
        (([-1], [0.1]), "`steps` must be an integer >= 0"),
        (([1], [-0.1]), "`rates` must be a finite number >= 0"),
        (([1], [math.nan]), "`rates` must be a finite number >= 0"),
        (([1], [0.1], "spline"), "`interpolation` must be one of"),
    ],
)
def test_bad_points(arguments, message):
    with pytest.raises(ValueError, match=message):
        from_points(*arguments)


def wave(step):
    return 0.5 + 0.5 * keras.ops.cos(keras.ops.cast(step, "float32"))


def test_a_function_gives_its_own_rates():
    schedule = from_function(wave, lr_max=1.0)
    expected = 0.5 + 0.5 * np.cos(np.arange(20))
    np.testing.assert_allclose(schedule.sample(20), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rates(schedule, range(20)), expected, rtol=1e-5, atol=1e-6)
    assert schedule.at(np.zeros((2, 3), int)).shape == (2, 3)


@pytest.mark.parametrize("function", [0.1, "wave", None, float])
def test_not_a_function(function):
    with pytest.raises(TypeError, match="`function` must be a function of the step"):
        from_function(function, lr_max=1.0)
