"""Rates of any optimizer, wrapped or not, in NumPy: the same as Keras computes in the step."""

import keras
import numpy as np
import pytest
from optimizer_oracles import RESTARTS, chain, three_groups

import kadence
from kadence import DiscriminativeOptimizer
from kadence._rates import rate_scale, sample_rates


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
