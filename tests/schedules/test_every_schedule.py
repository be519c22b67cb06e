"""What holds for each schedule: one formula on every way to it, and a round trip through repr, config and file."""

import json

import keras
import numpy as np
import pytest
from catalogue import NAMES, SCHEDULES
from evaluate import MAX, array, rates, tensor

import kadence

each = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


@each
def test_compiled_equals_the_sample(schedule):
    steps = [*range(60), 10**6, MAX - 1, MAX]
    np.testing.assert_allclose(rates(schedule, steps), schedule.at(steps), rtol=1e-6, atol=1e-37)


@each
def test_called_equals_the_sample(schedule):
    for step in (0, 7, np.int64(8)):
        assert float(array(schedule(step))) == pytest.approx(float(schedule.at(step)), rel=1e-6)
    assert float(array(schedule(tensor(9)))) == pytest.approx(float(schedule.at(9)), rel=1e-6)


@each
def test_rates_stay_between_lr_min_and_lr_max(schedule):
    sampled = schedule.at([*range(2000), 10**6, MAX])
    assert np.isfinite(sampled).all()
    assert sampled.max() <= schedule.lr_max * (1 + 1e-12)
    assert sampled.min() >= schedule.lr_min * (1 - 1e-12)


@each
def test_sample_can_start_anywhere(schedule):
    np.testing.assert_array_equal(schedule.sample(20, start=15), schedule.sample(35)[15:])
    assert schedule.sample(0).shape == (0,)
    assert schedule.sample(3).dtype == np.float64


@each
def test_repr_evaluates_to_it(schedule):
    assert eval(repr(schedule), NAMES) == schedule
    assert hash(eval(repr(schedule), NAMES)) == hash(schedule)


@each
def test_config_round_trip(schedule):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
    again = keras.saving.deserialize_keras_object(config)
    assert again == schedule
    np.testing.assert_array_equal(again.sample(50), schedule.sample(50))


def test_file_round_trip_inside_an_optimizer(tmp_path):
    layers = [keras.layers.Dense(2, name=f"dense_{i}") for i in range(len(SCHEDULES))]
    model = keras.Sequential([keras.Input((2,)), *layers])
    groups = kadence.split(model, at=[layer.name for layer in layers[1:]])
    model.compile(kadence.DiscriminativeOptimizer(keras.optimizers.SGD(SCHEDULES[0]), groups, SCHEDULES), loss="mse")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert list(again.optimizer.lr_multipliers) == SCHEDULES
    assert again.optimizer.inner_optimizer._learning_rate == SCHEDULES[0]


def test_different_schedules_are_unequal():
    assert len({repr(schedule) for schedule in SCHEDULES}) == len(SCHEDULES)
    assert all(one != other for i, one in enumerate(SCHEDULES) for other in SCHEDULES[:i])


def test_a_lambda_is_refused_when_it_is_saved():
    schedule = kadence.from_function(lambda step: 0.1 + 0 * keras.ops.cast(step, "float32"), lr_max=0.1)
    np.testing.assert_allclose(schedule.sample(3), 0.1, rtol=1e-7)
    with pytest.raises(ValueError, match="`function` must be a function with a name"):
        schedule.get_config()
