"""What every schedule promises: the same rate however it is asked for, and back from any config as it was."""

import copy
import itertools
import json
import math
import pickle
from fractions import Fraction

import keras
import numpy as np
import pytest
from bad_input import NOT_COUNTABLE, assert_integer, assert_number, assert_rejects
from evaluate import BACKEND, MAX, floatx, formula, rates, tensor
from hypothesis import example, given
from hypothesis import strategies as st

from kadence import schedules
from kadence.schedules import (
    Constant,
    Cosine,
    Linear,
    Schedule,
    WarmRestarts,
    epochs_to_steps,
    from_points,
    join,
    scale,
    warmup,
)

#: Pairwise different, each kind of schedule and of argument at least once.
SCHEDULES = [
    Constant(0.1),
    Constant(0.0),
    Constant(1),
    Linear(0.0, 0.4, 10),
    Linear(0.4, 0.0, 10),
    Cosine(0.1, 10),
    Cosine(1, 10),
    Cosine(0.1, 10, lr_min=0.01),
    Cosine(0.1, MAX),
    Cosine(0.1, 10, k_decay=1.5),
    WarmRestarts(0.1, 10),
    WarmRestarts(0.1, 10, 2),
    WarmRestarts(0.1, 10, 1.1, lr_min=1e-6, peak_decay=0.7),
    scale(Cosine(0.1, 10), 0.5),
    scale(scale(Cosine(0.1, 10), 0.5), 1e-3),
    warmup(Constant(0.1), 5),
    warmup(WarmRestarts(0.1, 10, 2), 5, lr_start=0.02),
    join([Constant(0.1)], []),
    join([Constant(0.1), Constant(0.2)], [3]),
    join([Constant(0.1), join([Linear(0, 1, 5), scale(WarmRestarts(0.1, 3, 2), 2)], [5])], [3]),
]
STEPS = [0, 1, 2, 3, 4, 5, 9, 10, 11, 29, 30, 1000, 2**24 + 1, MAX - 1, MAX]

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


# Config, repr, equality


@every_schedule
def test_config_round_trip(schedule):
    again = type(schedule).from_config(schedule.get_config())
    assert again == schedule
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    np.testing.assert_array_equal(again.at(STEPS), schedule.at(STEPS))


@every_schedule
def test_keras_round_trips_through_json(schedule):
    plain = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
    assert keras.saving.deserialize_keras_object(plain) == schedule
    plain = json.loads(json.dumps(keras.optimizers.schedules.serialize(schedule)))
    assert keras.optimizers.schedules.deserialize(plain) == schedule


@every_schedule
def test_config_is_not_shared_with_the_schedule(schedule):
    before = copy.deepcopy(schedule.get_config())
    config = schedule.get_config()
    for value in config.values():
        if isinstance(value, list):
            value.clear()
    config.clear()
    assert schedule.get_config() == before


@every_schedule
def test_survives_in_the_config_of_an_optimizer(schedule):
    optimizer = keras.optimizers.SGD(schedule)
    again = keras.optimizers.SGD.from_config(optimizer.get_config())
    assert again._learning_rate == schedule
    assert float(again.learning_rate) == pytest.approx(float(schedule.at(0)), rel=1e-6)


@every_schedule
def test_repr_evaluates_to_an_equal_schedule(schedule):
    again = eval(repr(schedule), vars(schedules).copy())
    assert again == schedule
    assert repr(again) == repr(schedule)


@every_schedule
def test_copies_are_equal(schedule):
    for again in (copy.copy(schedule), copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):  # noqa: S301
        assert again == schedule
        assert hash(again) == hash(schedule)


def test_equal_schedules_only_are_equal():
    again = [type(schedule).from_config(schedule.get_config()) for schedule in SCHEDULES]
    assert again == SCHEDULES
    assert len({*SCHEDULES, *again}) == len(SCHEDULES)
    for one, other in itertools.combinations(SCHEDULES, 2):
        assert one != other


def test_a_schedule_equals_nothing_else():
    for other in (0.1, "Constant(lr=0.1)", None, {"lr": 0.1}, keras.optimizers.schedules.ExponentialDecay(0.1, 1, 1)):
        assert Constant(0.1) != other


def test_a_subclass_with_the_same_arguments_is_another_schedule():
    class Other(Constant):
        pass

    assert Other(0.1) != Constant(0.1)


def test_equal_schedules_have_equal_hashes_also_at_minus_zero():
    assert Constant(-0.0) == Constant(0.0)
    assert hash(Constant(-0.0)) == hash(Constant(0.0))


@every_schedule
def test_the_bounds_are_bounds(schedule):
    assert isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    found = schedule.sample(2000)
    assert np.all(found >= schedule.lr_min * (1 - 1e-15))
    assert np.all(found <= schedule.lr_max * (1 + 1e-15))


# The rate


@every_schedule
def test_a_tensor_gives_the_rate_of_numpy(schedule):
    expected = schedule.at(STEPS)
    for step, rate in zip(STEPS, expected, strict=True):
        for found in (schedule(step), schedule(tensor(step)), formula(schedule)(tensor(step))):
            assert keras.ops.is_tensor(found)
            assert tuple(found.shape) == ()
            assert keras.backend.standardize_dtype(found.dtype) == "float32"
            assert float(found) == pytest.approx(rate, rel=2e-6)
    np.testing.assert_allclose(rates(schedule, STEPS), expected, rtol=2e-6)


@every_schedule
def test_a_call_changes_nothing(schedule):
    first = [float(schedule(tensor(step))) for step in (3, 0, 30)]
    schedule.sample(50)
    schedule.at(7)
    assert [float(schedule(tensor(step))) for step in (3, 0, 30)] == first


@every_schedule
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_rates_in_half_precision_are_right_to_its_last_bits(schedule, name):
    """A float16 holds no integer above 65504: a position must not pass through it."""
    with floatx(name):
        for step in (0, 9, 30, 100_000, MAX - 1):
            exact = float(schedule.at(step))
            rate = schedule(tensor(step))
            assert keras.backend.standardize_dtype(rate.dtype) == name
            for found in (rate, formula(schedule)(tensor(step))):
                assert float(found) == pytest.approx(exact, rel=0.01, abs=1e-7)


def test_steps_stay_integers_in_half_precision():
    """Keras makes a float of the minimum of an integer tensor and a Python integer where floatx is bfloat16."""
    with floatx("bfloat16"):
        for schedule in (Cosine(1.0, MAX), from_points([0, 2**24 + 1, MAX], [0.0, 1.0, 0.0], "cosine")):
            for step in (MAX - 1, MAX - 5):
                assert float(formula(schedule)(tensor(step))) == pytest.approx(float(schedule.at(step)), rel=0.01)


@every_schedule
def test_rates_in_float64(schedule):
    """Not in its full precision: Keras's `sin` and `maximum` of a float64 are a float32 on some backends."""
    with floatx("float64"):
        assert keras.backend.standardize_dtype(schedule(tensor(7)).dtype) == "float64"
        np.testing.assert_allclose(rates(schedule, STEPS), schedule.at(STEPS), rtol=1e-6)


def test_an_optimizer_reads_the_rate_at_its_iterations():
    optimizer = keras.optimizers.SGD(WarmRestarts(0.1, 2))
    optimizer.build([keras.Variable(1.0)])
    found = []
    for step in range(4):
        optimizer.iterations.assign(step)
        found.append(float(optimizer.learning_rate))
    assert found == pytest.approx([0.1, 0.05, 0.1, 0.05])


def test_integer_arguments_do_not_make_integer_rates():
    """Keras's CosineDecay(0, ..., warmup_target=.1) gives a rate of 0 for ever, or crashes."""
    schedule = warmup(Cosine(1, 10), 4, lr_start=0)
    expected = [0, 0.25, 0.5, 0.75, 1, math.cos(math.pi / 20) ** 2]
    assert [float(schedule(tensor(step))) for step in range(6)] == pytest.approx(expected)
    assert float(Constant(1)(tensor(0))) == 1.0
    assert type(Constant(1).lr) is float


# The step


@pytest.mark.parametrize("value", [-1, -(2**31), *NOT_COUNTABLE], ids=repr)
def test_a_known_step_is_within_bounds(value):
    assert_rejects(Cosine(0.1, 10), "step", value, ValueError)


@pytest.mark.parametrize("value", [2.5, 2.0, math.nan, "3", None, True, [3]], ids=repr)
def test_a_known_step_is_an_integer(value):
    assert_rejects(Cosine(0.1, 10), "step", value, TypeError)


@pytest.mark.skipif(BACKEND != "torch", reason="only PyTorch's steps are known")
def test_a_tensor_on_the_cpu_is_within_bounds():
    for value in (-1, 2**31):
        with pytest.raises(ValueError, match=rf"`step` must .* Received: step={value}\."):
            Cosine(0.1, 10)(tensor(value, "int64"))


# sample, at


@every_schedule
def test_sample_is_float64_of_the_right_length(schedule):
    for n_steps in (0, 1, 2, 50):
        found = schedule.sample(n_steps)
        assert found.dtype == np.float64
        assert found.shape == (n_steps,)
        np.testing.assert_array_equal(found, [schedule.at(step) for step in range(n_steps)])


@every_schedule
def test_sample_starts_anywhere(schedule):
    whole = schedule.sample(100)
    for start in (0, 1, 7, 10, 99):
        np.testing.assert_array_equal(schedule.sample(100 - start, start=start), whole[start:])
    np.testing.assert_array_equal(schedule.sample(3, start=MAX - 3), schedule.at([MAX - 3, MAX - 2, MAX - 1]))
    assert schedule.sample(0, start=MAX).shape == (0,)


@every_schedule
def test_sample_is_the_callers_own(schedule):
    before = schedule.sample(5).copy()
    found = schedule.sample(5)
    found[:] = 7
    np.testing.assert_array_equal(schedule.sample(5), before)


def test_sample_reaches_the_last_step():
    assert Constant(0.1).sample(1, start=MAX).tolist() == [0.1]


def test_sample_does_not_go_beyond_the_last_step():
    for n_steps, start in ((2, MAX), (MAX, MAX), (MAX, 2)):
        with pytest.raises(ValueError, match=r"` must .* Received: "):
            Constant(0.1).sample(n_steps, start=start)


def test_sample_takes_numpy_integers():
    np.testing.assert_array_equal(Linear(0, 1, 4).sample(np.int64(2), np.uint8(1)), [0.25, 0.5])


def test_sample_checks_its_arguments():
    assert_integer(Constant(0.1).sample, "n_steps", minimum=0)
    assert_integer(lambda v: Constant(0.1).sample(1, start=v), "start", minimum=0)


@every_schedule
@pytest.mark.parametrize("shape", [(), (0,), (1,), (6,), (2, 3), (3, 1, 2)])
def test_at_keeps_the_shape(schedule, shape):
    steps = np.arange(math.prod(shape)).reshape(shape)
    found = schedule.at(steps)
    assert found.shape == shape
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found.ravel(), schedule.sample(steps.size))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_at_takes_every_type_of_integer(dtype):
    assert WarmRestarts(0.1, 3, 2).at(np.array([0, 3, 9], dtype)).tolist() == [0.1, 0.1, 0.1]


@pytest.mark.parametrize("steps", [-1, [0, -1], 2**31, [2**31]], ids=repr)
def test_at_refuses_steps_out_of_range(steps):
    with pytest.raises(ValueError, match=r"`steps` must .* Received: steps="):
        WarmRestarts(0.1, 10, 2).at(steps)


@pytest.mark.parametrize("steps", [0.5, [0.0, 1.0], [math.nan], "3", None, [True]], ids=repr)
def test_at_refuses_what_is_not_an_integer(steps):
    with pytest.raises(TypeError, match=r"`steps` must .* Received: steps="):
        WarmRestarts(0.1, 10, 2).at(steps)


# Schedule


class Halving(Schedule):
    """A schedule as a user would write one."""

    def __init__(self, lr):
        self.lr = self.lr_max = lr
        self.lr_min = 0.0

    def _formula(self, step, xp):
        return self.lr / (1.0 + xp.real(step))

    def get_config(self):
        return {"lr": self.lr}


def test_a_new_schedule_needs_a_formula_and_a_config():
    schedule = Halving(1.0)
    np.testing.assert_allclose(schedule.sample(3), [1, 1 / 2, 1 / 3])
    assert float(schedule(tensor(3))) == pytest.approx(0.25)
    assert schedule == Halving(1.0) != Halving(2.0)
    assert repr(schedule) == "Halving(lr=1.0)"
    assert warmup(schedule, 2).sample(4).tolist() == [0.0, 0.5, 1.0, 0.5]


def test_what_a_subclass_leaves_out_is_named():
    with pytest.raises(NotImplementedError, match="Schedule must define `_formula`"):
        Schedule().at(0)
    with pytest.raises(NotImplementedError, match="Schedule must define `get_config`"):
        Schedule().get_config()


# epochs_to_steps


@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch", "steps"),
    [
        (0, 83, 0),
        (1, 83, 83),
        (1.5, 83, 125),  # 124.5
        (0.5, 1, 1),
        (0.49, 1, 0),
        (2.5, 1, 3),  # not to the even number
        (0.1, 30, 3),
        (7, 1, 7),
        (np.float32(0.25), np.int64(4), 1),
        (Fraction(1, 2), 8, 4),
    ],
)
def test_epochs_to_steps(epochs, steps_per_epoch, steps):
    found = epochs_to_steps(epochs, steps_per_epoch)
    assert found == steps
    assert type(found) is int


@given(st.integers(0, 100_000), st.integers(1, 10_000))
@example(570, 50)
def test_epochs_to_steps_rounds_the_number_that_one_writes(thousandths, steps_per_epoch):
    """0.57 epochs of 50 steps are 28.5 steps, and 28.499999999999996 in floating point."""
    exact = Fraction(thousandths, 1000) * steps_per_epoch
    assert epochs_to_steps(thousandths / 1000, steps_per_epoch) == math.floor(exact + Fraction(1, 2))


def test_epochs_to_steps_does_not_round_up_what_is_less_than_a_half():
    assert epochs_to_steps(math.nextafter(0.5, 0), 1) == 0


def test_epochs_to_steps_checks_its_arguments():
    assert_number(lambda v: epochs_to_steps(v, 10), "epochs", out_of_range=(-1, -0.5))
    assert_integer(lambda v: epochs_to_steps(1.0, v), "steps_per_epoch", minimum=1)


@pytest.mark.parametrize("epochs", [1e10, 1e300, 1.7e308])
def test_epochs_to_steps_gives_no_step_that_cannot_be_counted(epochs):
    with pytest.raises(ValueError, match=r"`epochs` must .* Received: epochs="):
        epochs_to_steps(epochs, 100)
