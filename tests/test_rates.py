"""Rates of any optimizer, wrapped or not, in NumPy: the same as Keras computes in the step."""

import gc

import keras
import numpy as np
import pytest
from optimizer_oracles import RESTARTS, chain, three_groups

import kadence
from kadence import DiscriminativeOptimizer
from kadence._rates import _COMPILED, rate_scale, sample_rates


def test_without_groups_there_is_one():
    np.testing.assert_array_equal(sample_rates(keras.optimizers.SGD(0.5), 3)["all"], [0.5] * 3)
    np.testing.assert_array_equal(sample_rates(keras.optimizers.SGD(RESTARTS), 9, 2)["all"], RESTARTS.sample(9, 2))


def test_a_schedule_of_keras_is_asked_for_its_micro_batches():
    """Keras counts batches in its schedules; with groups it counts updates."""
    stock = keras.optimizers.schedules.PolynomialDecay(1.0, 12, 0.0)
    accumulating = keras.optimizers.SGD(stock, gradient_accumulation_steps=3)
    np.testing.assert_allclose(sample_rates(accumulating, 4)["all"], 1 - np.array([2, 5, 8, 11]) / 12, 1e-6)
    grouped = DiscriminativeOptimizer(accumulating, three_groups(chain()), [1, 1, 0.5])
    np.testing.assert_allclose(sample_rates(grouped, 4)["head"], (1 - np.arange(4) / 12) / 2, 1e-6)


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, keras.optimizers.LossScaleOptimizer])
def test_groups_have_their_factor_of_the_base_rate(wrap):
    model = chain()
    late = kadence.join([kadence.Constant(0.0), kadence.Constant(1.0)], at_steps=[2])
    grouped = DiscriminativeOptimizer(keras.optimizers.Adam(RESTARTS), three_groups(model), [0.1, late, 1.0])
    optimizer = wrap(grouped)
    grouped.build(model.trainable_variables)
    found = sample_rates(optimizer, 5)
    assert list(found) == grouped.groups.names
    expected = {"low": 0.1 * RESTARTS.sample(5), "middle": late.sample(5) * RESTARTS.sample(5)}
    for name, rates in zip(found, [*expected.values(), RESTARTS.sample(5)], strict=True):
        np.testing.assert_allclose(found[name], rates, 1e-12)
    grouped.learning_rate = 0.5 * RESTARTS.lr_max
    assert rate_scale(optimizer) == pytest.approx(0.5)
    np.testing.assert_allclose(list(sample_rates(optimizer, 5).values())[2], 0.5 * RESTARTS.sample(5), 1e-6)
    np.testing.assert_allclose(list(sample_rates(optimizer, 5, scale=1.0).values())[2], RESTARTS.sample(5), 1e-12)


def test_a_schedule_of_keras_is_as_in_the_step_that_fit_compiles():
    """Float arithmetic finds the cycle there, and on JAX and TensorFlow finds the restart at 83 a step late."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(inputs))
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecayRestarts(0.1, 83, t_mul=1.0))
    model.compile(optimizer, "mae")
    rates = sample_rates(optimizer, 3, 82)["all"]
    for step, rate in zip((82, 83, 84), rates, strict=True):
        model.set_weights([np.ones((1, 1))])
        optimizer.iterations.assign(step)
        model.train_on_batch(np.ones((1, 1)), np.zeros((1, 1)))
        assert 1 - model.get_weights()[0].item() == pytest.approx(rate, abs=1e-6)


class Counting(keras.optimizers.schedules.LearningRateSchedule):
    """How often it is called; cannot be a key of a dict."""

    __hash__ = None

    def __init__(self):
        self.calls = 0

    def __eq__(self, other):
        return True

    def __call__(self, step):
        self.calls += 1
        return 0.1 * keras.ops.cast(step, "float32")


class Undecided(Counting):
    """Cannot be compiled."""

    def __call__(self, step):
        self.calls += 1
        return 0.1 if int(step) < 2 else 0.2


def test_a_schedule_of_keras_is_compiled_once_and_not_kept():
    schedule = Counting()
    optimizer = keras.optimizers.SGD(schedule)
    for start in (0, 4):
        np.testing.assert_allclose(sample_rates(optimizer, 4, start)["all"], 0.1 * np.arange(start, start + 4), 1e-6)
    assert schedule.calls == (8 if keras.backend.backend() == "torch" else 1)
    key = id(schedule)
    assert key in _COMPILED
    del schedule, optimizer
    gc.collect()
    assert key not in _COMPILED


def test_a_schedule_that_does_not_compile_is_asked_eagerly():
    np.testing.assert_array_equal(sample_rates(keras.optimizers.SGD(Undecided()), 4)["all"], [0.1, 0.1, 0.2, 0.2])


def test_a_schedule_whose_attribute_is_changed():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5, staircase=True)
    for rate in (0.5, 0.25):
        schedule.initial_learning_rate = rate
        (rates,) = sample_rates(keras.optimizers.SGD(schedule), 2).values()
        np.testing.assert_allclose(rates, [rate, rate])
