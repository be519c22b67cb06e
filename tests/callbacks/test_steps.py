import keras
import numpy as np
import pytest

import kadence
from kadence.callbacks._steps import StepClock, check_single_steps, next_cycle_end, schedule_of


def grouped(**kwargs):
    layer = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="d")])
    optimizer = kadence.DiscriminativeOptimizer(
        keras.optimizers.SGD(0.1, **kwargs), kadence.split_evenly(layer, 1), [1.0]
    )
    optimizer.build(layer.trainable_variables)
    return optimizer


def test_the_clock_counts_batches_from_where_it_was_read():
    optimizer, clock = keras.optimizers.SGD(0.1), StepClock()
    optimizer._iterations.assign(7)
    assert clock.read(optimizer) == 7
    assert [clock.done(batch) for batch in range(3)] == [7, 8, 9]
    optimizer._iterations.assign(8)  # a loss scale skipped one of two batches
    assert clock.read(optimizer, batch=2) == 8
    assert clock.done(3) == 9


def test_the_clock_counts_as_the_schedule_does():
    """With groups, updates; without, Keras hands the schedule the count of micro-batches."""
    clock = StepClock()
    for optimizer, steps in (
        (grouped(gradient_accumulation_steps=4), 3),
        (keras.optimizers.SGD(0.1, gradient_accumulation_steps=4), 13),
        (keras.optimizers.LossScaleOptimizer(grouped(gradient_accumulation_steps=4)), 3),
    ):
        inner = optimizer
        while hasattr(inner, "inner_optimizer"):
            inner = inner.inner_optimizer
        inner._iterations.assign(13)
        assert clock.read(optimizer) == steps


SCHEDULES = {
    "restarts": (kadence.WarmRestarts(1.0, 3, 2), 0, [2, 8, 20]),
    "in a cycle": (kadence.WarmRestarts(1.0, 3, 2), 4, [8, 20]),
    "warm-up": (kadence.warmup(kadence.WarmRestarts(1.0, 300), 5), 0, [304, 604]),
    "triangles": (kadence.Cyclical(1.0, up_steps=2), 3, [3, 7]),
    "long": (kadence.WarmRestarts(1.0, 500_000), 1, [499_999]),
    "none": (kadence.Constant(1.0), 0, [None]),
    "the last step that is counted": (kadence.WarmRestarts(1.0, 2**30), 2**31 - 3, [2**31 - 1]),
}


@pytest.mark.parametrize(("schedule", "step", "ends"), list(SCHEDULES.values()), ids=list(SCHEDULES))
def test_next_cycle_end(schedule, step, ends):
    for end in ends:
        assert next_cycle_end(schedule, step) == end
        step = (end or 0) + 1


def test_cycle_ends_are_those_of_the_schedule():
    schedule, step, found = kadence.WarmRestarts(1.0, 7, 1.5), 0, []
    while step < 400:
        found.append(next_cycle_end(schedule, step))
        step = found[-1] + 1
    assert found[:-1] == schedule.cycle_ends(400)


@pytest.mark.parametrize("rate", [0.1, keras.optimizers.schedules.CosineDecay(0.1, 10)])
def test_a_rate_that_is_no_schedule_of_ours(rate):
    with pytest.raises(ValueError, match=r"`learning_rate` must be a kadence.Schedule.*Received: .*Do that\.$"):
        schedule_of(keras.optimizers.SGD(rate), "Do that.")
    schedule = kadence.Constant(0.1)
    assert schedule_of(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule)), "") is schedule


def test_several_steps_at_once_are_refused():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    check_single_steps(model)
    model.compile("sgd", "mse", steps_per_execution=2)
    with pytest.raises(ValueError, match=r"`steps_per_execution` must be 1.*Received: steps_per_execution=2"):
        check_single_steps(model)


def test_numpy_integers_are_counted():
    assert isinstance(next_cycle_end(kadence.WarmRestarts(1.0, 3), np.int64(0)), int)
