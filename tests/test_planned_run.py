"""From the arguments of `plan` to the run that is judged: what an optimizer will do is what it then does."""

import keras
import numpy as np
import pytest
from bad_input import assert_rejects

from kadence import Constant, Cosine, DiscriminativeOptimizer, Linear, RateRecorder, WarmRestarts, plan, split
from kadence._planned_run import accumulation_of, length_of, run_of_optimizer, run_of_schedule
from kadence.durations import run_length

# Keras hands torch tensors to NumPy >= 2.4 in a way that NumPy is about to forbid.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

LENGTH = run_length(epochs=3, n_samples=7, batch_size=1, accumulation=2)


def small_model():
    layers = [keras.layers.Dense(2, name="early"), keras.layers.Dense(1, name="head")]
    return keras.Sequential([keras.Input((2,)), *layers])


def schedule_run(schedule, length=LENGTH, groups=None, lr_multipliers=None, learning_rates=None, name=None):
    return run_of_schedule(schedule, length, groups, lr_multipliers, learning_rates, name)


@pytest.mark.parametrize("accumulation", [None, 2])
@pytest.mark.parametrize("factors", [[0.1, 1.0], [Linear(0, 1, 5), 2.0]])
def test_an_optimizer_is_planned_as_it_then_trains(accumulation, factors):
    model = small_model()
    inner = keras.optimizers.SGD(WarmRestarts(0.1, 3, 2), gradient_accumulation_steps=accumulation)
    optimizer = DiscriminativeOptimizer(inner, split(model, at="head"), factors)
    planned = plan(optimizer, epochs=3, n_samples=7, batch_size=1)
    recorder = RateRecorder()
    model.compile(optimizer, loss="mse")
    data = np.ones((7, 2), np.float32), np.ones((7, 1), np.float32)
    model.fit(*data, batch_size=1, epochs=3, verbose=0, callbacks=[recorder])
    assert planned.n_steps == int(optimizer.iterations)
    record = recorder.record
    done = record.steps < planned.n_steps  # the last batches may be part of no update
    for name, rates in record.rates.items():
        np.testing.assert_allclose(planned.rates[name][record.steps[done]], rates[done], rtol=1e-6)


def test_wrappers_are_looked_through():
    model = small_model()
    inner = keras.optimizers.Adam(Cosine(0.1, 10))
    optimizer = keras.optimizers.LossScaleOptimizer(DiscriminativeOptimizer(inner, split(model, at="head"), [0, 1]))
    run = run_of_optimizer(optimizer, run_length(n_steps=10))
    assert (list(run.rates), run.optimizer_name, run.counts) == (["group_1", "group_2"], "adam", 1)
    assert run.schedule == Cosine(0.1, 10)
    np.testing.assert_array_equal(run.rates["group_2"], Cosine(0.1, 10).sample(10))


def test_an_optimizer_without_a_schedule_keeps_its_rate():
    run = run_of_optimizer(keras.optimizers.AdamW(0.25, gradient_accumulation_steps=4), LENGTH)
    assert (run.schedule, run.multipliers, run.counts, run.optimizer_name) == (None, {}, 1, "adamw")
    assert run.rates["all"].tolist() == [0.25] * LENGTH.n_steps


def test_without_groups_a_schedule_is_at_the_last_batch_of_the_update():
    optimizer = keras.optimizers.SGD(Linear(0, 1, 100), gradient_accumulation_steps=2)
    run = run_of_optimizer(optimizer, LENGTH)
    assert run.schedule_steps().tolist() == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    np.testing.assert_array_equal(run.rates["all"], Linear(0, 1, 100).at(run.schedule_steps()))


@pytest.mark.parametrize("accumulation", [None, 2])
@pytest.mark.parametrize("grouped", [True, False])
def test_a_run_that_goes_on_is_planned_from_there(accumulation, grouped):
    schedule = WarmRestarts(0.1, 3, 2)
    optimizer = keras.optimizers.SGD(schedule, gradient_accumulation_steps=accumulation)
    inner = optimizer
    if grouped:
        optimizer = DiscriminativeOptimizer(optimizer, split(small_model(), at="head"), [Linear(0, 1, 20), 1])
    inner._iterations.assign(5 * (accumulation or 1))
    run = run_of_optimizer(optimizer, run_length(n_steps=4, accumulation=accumulation or 1))
    steps = np.arange(5, 9) if grouped or accumulation is None else np.array([11, 13, 15, 17])
    assert (run.start, run.end, run.schedule_steps().tolist()) == (5, 9, steps.tolist())
    np.testing.assert_array_equal(list(run.rates.values())[-1], schedule.at(steps))
    if grouped:
        np.testing.assert_array_equal(run.rates["group_1"], schedule.at(steps) * Linear(0, 1, 20).sample(4, 5))


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras has no MultiOptimizer yet")
def test_several_optimizers_have_no_plan():
    several = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1)))
    with pytest.raises(TypeError, match=r"^`schedule_or_optimizer` must have one rate, .* Plan each of its "):
        plan(several, n_steps=5)


def test_accumulation_is_the_optimizers():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    assert accumulation_of(optimizer, None) == accumulation_of(optimizer, 2) == 2
    assert accumulation_of(keras.optimizers.SGD(0.1), None) == 1
    assert_rejects(lambda v: accumulation_of(optimizer, v), "accumulation", 3, ValueError)


def test_length_of():
    nothing = dict.fromkeys(["epochs", "n_steps"])
    assert length_of(LENGTH, nothing, 2) is LENGTH
    assert length_of(None, {"n_steps": 5}, 3) == run_length(n_steps=5, accumulation=3)
    assert_rejects(lambda v: length_of(v, nothing, 1), "length", 500, TypeError)
    with pytest.raises(ValueError, match=r"`length` must be all there is, or None\. Received: length={'epochs': 3}"):
        length_of(LENGTH, nothing | {"epochs": 3}, 2)
    assert_rejects(lambda v: length_of(LENGTH, nothing, v), "accumulation", 1, ValueError)
    assert_rejects(lambda v: length_of(run_length(n_steps=v), nothing, 1), "n_steps", 10_000_001, ValueError)


@pytest.mark.parametrize(
    ("groups", "multipliers", "rates", "names"),
    [
        (None, None, None, ["all"]),
        (None, [2], None, ["all"]),
        (None, None, [0.5], ["all"]),
        (None, [1, 2], None, ["group_1", "group_2"]),
        (["a", "b"], None, [0.1, 0.2], ["a", "b"]),
        (("a", "b"), (Constant(2.0), 1), None, ["a", "b"]),
        (["a", "b"], None, None, ["a", "b"]),
    ],
)
def test_groups_of_a_schedule(groups, multipliers, rates, names):
    run = schedule_run(Cosine(0.1, 10), LENGTH, groups, multipliers, rates)
    assert list(run.rates) == names
    peaks = [rate.max() for rate in run.rates.values()]
    factors = [f.lr_max if isinstance(f, Constant) else f for f in multipliers or [1] * len(names)]
    np.testing.assert_allclose(peaks, rates or [0.1 * factor for factor in factors], rtol=1e-12)


def test_groups_of_a_model_have_their_names():
    groups = split(small_model(), at="head")
    assert list(schedule_run(Constant(0.1), groups=groups, lr_multipliers=[0, 1]).rates) == ["group_1", "group_2"]


def test_bad_arguments():
    for value in (0.1, 1, None, "cosine", Cosine, small_model(), [Constant(0.1)]):
        assert_rejects(lambda v: schedule_run(v), "schedule_or_optimizer", value, TypeError)
    for value, error in (
        ("a", TypeError),
        (5, TypeError),
        ([1, 2], TypeError),
        ([], ValueError),
        (["a", "a"], ValueError),
    ):
        assert_rejects(lambda v: schedule_run(Constant(0.1), groups=v), "groups", value, error)
    for name in ("lr_multipliers", "learning_rates"):
        for value, error in ((0.1, TypeError), ("ab", TypeError), ([], ValueError), ([1, 2, 3], ValueError)):
            assert_rejects(
                lambda v, name=name: schedule_run(Constant(0.1), groups=["a", "b"], **{name: v}), name, value, error
            )
        for value, error in (
            (-1, ValueError),
            (np.nan, ValueError),
            ("1", TypeError),
            (None, TypeError),
            (True, TypeError),
        ):
            assert_rejects(lambda v, name=name: schedule_run(Constant(0.1), **{name: [v]}), name, value, error)
    with pytest.raises(ValueError, match="at most one of the two"):
        schedule_run(Constant(0.1), lr_multipliers=[1], learning_rates=[1])
    with pytest.raises(ValueError, match="a schedule whose peak is above 0"):
        schedule_run(Constant(0.0), learning_rates=[1])
    for value, error in (("adm", ValueError), ("Adam", ValueError), (1, TypeError)):
        assert_rejects(lambda v: schedule_run(Constant(0.1), name=v), "optimizer_name", value, error)
    with pytest.raises(TypeError, match=r"Give the model's `optimizer`\.$"):
        schedule_run(small_model())
    with pytest.raises(TypeError, match=r"A number becomes `kadence.Constant`\.$"):
        schedule_run(0.1)
