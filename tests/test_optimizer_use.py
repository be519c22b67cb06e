"""The peers' traps, memory and speed, and bad input."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from optimizer_oracles import (
    MULTIPLIERS,
    RESTARTS,
    STEPS,
    adam,
    all_values,
    apply_to_layers,
    assert_close,
    assert_same,
    batch_gradients,
    batches,
    branches,
    by_layer,
    chain,
    fit,
    linear_gradients,
    oracle,
    randomize,
    sgd,
    three_groups,
    values,
)

import kadence
from kadence import DiscriminativeOptimizer

BACKEND = keras.backend.backend()

# Keras hands torch tensors to NumPy >= 2.4 in a way that NumPy is about to forbid.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def sgd_groups(model, rate=0.1, multipliers=(1, 1, 1), **arguments):
    return DiscriminativeOptimizer(keras.optimizers.SGD(rate, **arguments), three_groups(model), multipliers)


def apply_ones(optimizer, model, times=1):
    for _ in range(times):
        optimizer.apply([ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)


# The peers' traps.


@pytest.mark.parametrize("name", ["Adam", "Lion", "RMSprop"])
def test_a_rate_100_times_smaller_moves_100_times_less(name):
    """Gradients that are 100 times smaller have no effect on these optimizers."""
    model = chain()
    inner = getattr(keras.optimizers, name)(0.1)
    optimizer = DiscriminativeOptimizer(inner, kadence.split(model, at="middle"), [0.01, 1.0])
    before = all_values(model.trainable_variables)
    apply_ones(optimizer, model, times=10)
    moved = [np.abs(b - a).mean() for b, a in zip(before, all_values(model.trainable_variables), strict=True)]
    assert moved[0] == pytest.approx(moved[1], rel=1e-3)
    assert moved[2] / moved[0] == pytest.approx(100, rel=1e-3)


@keras.saving.register_keras_serializable("tests")
class TwoTowers(keras.Model):
    """Of two layers, only one has a part in the output."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.idle = keras.layers.Dense(3, name="idle")
        self.busy = keras.layers.Dense(3, name="busy")

    def call(self, inputs):
        self.idle(inputs)
        return self.busy(inputs)


def test_a_group_without_gradients_is_left_alone():
    x, y = batches(3)
    results = []
    for grouped in (False, True):
        model = TwoTowers()
        model(x)
        randomize(model)
        before = all_values(model.idle.weights)
        optimizer = keras.optimizers.Nadam(0.05)
        if grouped:
            optimizer = DiscriminativeOptimizer(optimizer, kadence.split(model, at="busy"), [0.1, 1.0])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Gradients do not exist")
            fit(model, optimizer, x, y, loss="mse", eager=True)
        assert_same(all_values(model.idle.weights), before)
        results.append(all_values(model.busy.weights))
    assert_same(*results)


def test_no_gradients_at_all_is_the_error_of_keras():
    model = chain()
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        sgd_groups(model).apply([None] * 6, model.trainable_variables)


@pytest.mark.parametrize("when", ["before the groups", "after the groups"])
def test_layers_after_a_frozen_split_layer_keep_the_rate_of_their_group(when):
    model = branches()
    if when == "before the groups":
        model.get_layer("middle").trainable = False
    groups = kadence.group_by(model, {"early": "low", "late": ["middle", "head"]})
    model.get_layer("middle").trainable = False
    before = by_layer(model)
    x, y = batches(1)
    fit(model, DiscriminativeOptimizer(keras.optimizers.SGD(0.5), groups, [0.01, 1.0]), x, y, eager=True)
    gradients, after = linear_gradients(x, y), by_layer(model)
    for name, rate in {"low": 0.005, "middle": 0.0, "head": 0.5}.items():
        for b, a, g in zip(before[name], after[name], gradients[name], strict=True):
            np.testing.assert_allclose(b - a, rate * g, 1e-4, 1e-6)


def test_a_whole_group_may_be_frozen():
    model = chain()
    model.get_layer("low").trainable = False
    before = by_layer(model)["low"]
    optimizer = DiscriminativeOptimizer(keras.optimizers.Adam(0.5), three_groups(model), [0.1, 0.1, 1.0])
    apply_ones(optimizer, model)
    assert_same(by_layer(model)["low"], before)
    assert optimizer.learning_rates == pytest.approx({"low": 0.05, "middle": 0.05, "head": 0.5})


def test_the_multiplier_scales_the_floor_too():
    model = chain()
    schedule = kadence.WarmRestarts(1e-2, first_cycle_steps=3, lr_min=1e-4)
    optimizer = sgd_groups(model, schedule, [1e-3, 1.0, 1.0])
    optimizer.build(model.trainable_variables)
    rates = []
    for _ in range(7):
        rates.append(list(optimizer.learning_rates.values()))
        apply_ones(optimizer, model)
    low, _, head = np.array(rates).T
    np.testing.assert_allclose(low, 1e-3 * head, 1e-6)
    np.testing.assert_allclose(head[[0, 3, 6]], 1e-2, 1e-6)
    assert low.max() < 1.001e-5


class SetRate(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = 0.1 / (batch + 1)


class Reader(keras.callbacks.Callback):
    """Reads the rates at the end of every epoch in the way that Keras's TensorBoard does."""

    def __init__(self):
        super().__init__()
        self.base, self.groups = [], []

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        assert isinstance(optimizer, keras.optimizers.Optimizer)
        self.base.append(float(ops.convert_to_numpy(optimizer.learning_rate)))
        self.groups.append(list(optimizer.learning_rates.values()))


@pytest.mark.parametrize(
    ("setter", "used", "left"),
    [
        (
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.1 * (epoch + 1)),
            [0.1, 0.1, 0.2, 0.2],
            [0.1, 0.2],
        ),
        (keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2), [0.2, 0.2, 0.1, 0.1], [0.2, 0.1]),
        (keras.callbacks.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=1e9), [0.4] * 4, [0.4, 0.2]),
        (SetRate(), [0.1, 0.05, 0.1, 0.05], [0.05, 0.05]),
    ],
    ids=["absolute", "relative", "plateau", "each batch"],
)
def test_callbacks_that_set_the_rate_keep_the_ratios(setter, used, left):
    """`used` at each of the four steps, `left` at the end of each of the two epochs."""
    model, reader, factors = branches(), Reader(), {"low": 0.01, "middle": 0.5, "head": 1.0}
    x, y = batches(2)
    rates = {name: np.multiply(used, factor) for name, factor in factors.items()}
    expected = oracle(sgd, by_layer(model), batch_gradients(x, y) * 2, rates)
    compiled = isinstance(setter, SetRate)
    optimizer = sgd_groups(model, 0.4, list(factors.values()))
    fit(model, optimizer, x, y, epochs=2, callbacks=[setter, reader], eager=not compiled)
    assert_close(model, expected)
    assert reader.base == pytest.approx(left)
    np.testing.assert_allclose(reader.groups, np.outer(left, list(factors.values())), 1e-6)


@pytest.mark.parametrize("scaled", [False, True], ids=["alone", "in a loss scale"])
def test_swap_ema_weights_works_as_with_a_plain_optimizer(scaled):
    x, y = batches(3)
    results = []
    for grouped in (False, True):
        model, optimizer = chain(), keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
        if grouped:
            optimizer = DiscriminativeOptimizer(optimizer, three_groups(model), [1, 1, 1])
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        callbacks = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]
        arguments = {"epochs": 2, "validation_data": (x, y), "callbacks": callbacks, "eager": BACKEND != "jax"}
        history = fit(model, optimizer, x, y, "mse", **arguments).history
        results.append([*all_values(model.trainable_variables), np.array(history["val_loss"])])
    assert_same(*results)


def test_swap_ema_weights_without_an_average_is_the_error_of_keras():
    model, callback = chain(), keras.callbacks.SwapEMAWeights()
    model.compile(sgd_groups(model))
    model.optimizer.build(model.trainable_variables)
    callback.set_model(model)
    with pytest.raises(ValueError, match="use_ema=True"):
        callback.on_test_begin()


def test_a_schedule_as_multiplier_freezes_a_group_until_its_step():
    model = chain()
    later = kadence.join([kadence.Constant(0.0), kadence.Constant(1.0)], at_steps=[5])
    inner = keras.optimizers.AdamW(0.1, weight_decay=0.1)
    optimizer = DiscriminativeOptimizer(inner, three_groups(model), [later, 1.0, 1.0])
    x, y = batches(5)
    before = by_layer(model)
    fit(model, optimizer, x, y, "mse")
    assert_same(by_layer(model)["low"], before["low"])
    assert not np.array_equal(by_layer(model)["head"][0], before["head"][0])
    assert optimizer.learning_rates["low"] == pytest.approx(0.1)
    model.fit(x[:4], y[:4], batch_size=4, verbose=0)
    assert not np.array_equal(by_layer(model)["low"][0], before["low"][0])


# Rates.


def test_the_rate_may_be_a_function_without_arguments():
    model = chain()
    optimizer = sgd_groups(model, lambda: 0.25, [0.1, 1.0, 2.0])
    before = all_values(model.trainable_variables)
    apply_ones(optimizer, model)
    moved = [(b - a).mean() for b, a in zip(before, all_values(model.trainable_variables), strict=True)]
    assert moved == pytest.approx([0.025, 0.025, 0.25, 0.25, 0.5, 0.5], rel=1e-5)
    assert optimizer.learning_rates == pytest.approx({"low": 0.025, "middle": 0.25, "head": 0.5})


def test_a_stock_schedule_works_with_multipliers():
    model = branches()
    optimizer = sgd_groups(model, keras.optimizers.schedules.PolynomialDecay(0.4, 4, 0.0), [0.1, 0.5, 1.0])
    gradients, rates = batch_gradients(*batches(4)), np.array([0.4, 0.3, 0.2, 0.1])
    rates = {"low": rates * 0.1, "middle": rates * 0.5, "head": rates}
    expected = oracle(sgd, by_layer(model), gradients, rates)
    apply_to_layers(optimizer, model, gradients)
    assert_close(model, expected)


def test_a_rate_can_become_a_schedule_before_training():
    model = chain()
    optimizer = sgd_groups(model, 0.1, [0.1, 1.0, 1.0])
    optimizer.learning_rate = kadence.Constant(0.5)
    optimizer.build(model.trainable_variables)
    assert optimizer.learning_rates == pytest.approx({"low": 0.05, "middle": 0.5, "head": 0.5})


def test_setting_the_rate_of_a_schedule_scales_it_from_there_on():
    model = branches()
    optimizer = sgd_groups(model, RESTARTS, [0.01, 0.5, 1.0])
    gradients = batch_gradients(*batches(STEPS))
    rates = RESTARTS.sample(STEPS) * [1.0, 1.0, 0.25, 0.25, 0.25]
    expected = oracle(sgd, by_layer(model), gradients, {"low": rates * 0.01, "middle": rates * 0.5, "head": rates})
    apply_to_layers(optimizer, model, gradients[:2])
    optimizer.learning_rate = RESTARTS.at(2) * 0.25
    apply_to_layers(optimizer, model, gradients[2:])
    assert_close(model, expected)
    assert optimizer.learning_rates["head"] == pytest.approx(RESTARTS.at(STEPS) * 0.25)


def test_setting_the_rate_where_the_schedule_is_0():
    """No factor changes 0; a callback that sets the rate to what it read, 0, must not undo an earlier factor."""
    model = chain()
    optimizer = sgd_groups(model, kadence.warmup(kadence.Constant(0.4), warmup_steps=1))
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(1)
    optimizer.learning_rate = 0.1
    optimizer.iterations.assign(0)
    with pytest.raises(ValueError, match=r"`learning_rate` must be 0 at step 0.*learning_rate=0\.1"):
        optimizer.learning_rate = 0.1
    optimizer.learning_rate = optimizer.learning_rate
    optimizer.iterations.assign(1)
    assert float(values(optimizer.learning_rate)) == pytest.approx(0.1)


def test_the_largest_of_the_rates_becomes_the_base():
    model = chain()
    inner = keras.optimizers.Adam(0.123)
    optimizer = DiscriminativeOptimizer(inner, three_groups(model), learning_rates=[1e-7, 1e-2, 1e-4])
    assert float(values(optimizer.learning_rate)) == pytest.approx(1e-2)
    assert optimizer.lr_multipliers == pytest.approx((1e-5, 1.0, 1e-2))
    assert optimizer.learning_rates == pytest.approx({"low": 1e-7, "middle": 1e-2, "head": 1e-4})


def test_the_peak_of_the_schedule_stays_the_base():
    model = chain()
    schedule = kadence.warmup(kadence.WarmRestarts(1e-2, first_cycle_steps=10), warmup_steps=5)
    inner = keras.optimizers.Adam(schedule)
    optimizer = DiscriminativeOptimizer(inner, three_groups(model), learning_rates=[1e-7, 1e-4, 2e-2])
    assert optimizer.lr_multipliers == pytest.approx((1e-5, 1e-2, 2.0))
    optimizer.build(model.trainable_variables)
    assert optimizer.learning_rates == {"low": 0.0, "middle": 0.0, "head": 0.0}
    optimizer.iterations.assign(5)
    assert optimizer.learning_rates == pytest.approx({"low": 1e-7, "middle": 1e-4, "head": 2e-2})
    table = str(optimizer.groups).splitlines()
    assert "learning rate" in table[0]
    assert table[1].endswith("1e-07")


def test_layer_decay_makes_multipliers():
    model = chain()
    optimizer = sgd_groups(model, 1.0, kadence.layer_decay(three_groups(model), 0.5))
    assert optimizer.learning_rates == pytest.approx({"low": 0.25, "middle": 0.5, "head": 1.0})


def test_rates_that_differ_by_300_orders_of_magnitude():
    model = chain()
    inner = keras.optimizers.SGD(1.0)
    optimizer = DiscriminativeOptimizer(inner, three_groups(model), learning_rates=[1e-300, 0.0, 1e-2])
    assert optimizer.learning_rates == pytest.approx({"low": 0.0, "middle": 0.0, "head": 1e-2})


# What else Keras and its users ask of an optimizer.


def test_the_inner_optimizer_is_still_of_its_class():
    model = chain()
    optimizer = DiscriminativeOptimizer(keras.optimizers.Adam(0.1), three_groups(model), [1, 1, 1], name="mine")
    assert optimizer.name == "mine"
    assert isinstance(optimizer, keras.optimizers.Optimizer)
    assert isinstance(optimizer.inner_optimizer, keras.optimizers.Adam)
    assert type(optimizer.inner_optimizer).__name__ == "Adam"


def test_set_weights_gives_back_the_whole_state():
    model = chain()
    optimizer = sgd_groups(model, momentum=0.9)
    apply_ones(optimizer, model)
    state = all_values(optimizer.variables)
    apply_ones(optimizer, model)
    optimizer.set_weights(state)
    assert_same(all_values(optimizer.variables), state)


def test_apply_gradients_takes_pairs():
    model = chain()
    optimizer = sgd_groups(model)
    optimizer.apply_gradients([(ops.ones(v.shape), v) for v in model.trainable_variables])
    assert int(optimizer.iterations) == 1


@pytest.mark.skipif(BACKEND != "jax", reason="Keras's own stateless_apply raises on TensorFlow and assigns on PyTorch")
def test_stateless_apply_leaves_the_optimizer_as_it_was():
    model = chain()
    optimizer = sgd_groups(model, 0.1, [0.1, 1.0, 1.0])
    optimizer.build(model.trainable_variables)
    weights = [v.value for v in model.trainable_variables]
    ones = [ops.ones(v.shape) for v in model.trainable_variables]
    new, state = optimizer.stateless_apply([v.value for v in optimizer.variables], ones, weights)
    assert values(new[0] - weights[0]).mean() == pytest.approx(-0.01, rel=1e-4)
    assert values(new[5] - weights[5]).mean() == pytest.approx(-0.1, rel=1e-4)
    assert len(state) == len(optimizer.variables)
    assert int(optimizer.iterations) == 0


# Speed.


@pytest.mark.skipif(BACKEND != "torch", reason="the fused path is PyTorch's")
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Lion", "RMSprop", "Nadam", "Adagrad", "Adamax", "Adadelta"])
def test_pytorch_keeps_its_fused_path_once_per_group(name, monkeypatch):
    model = chain()
    inner = getattr(keras.optimizers, name)(0.05)
    keras_class, calls = type(inner), []
    fused = keras_class._parallel_update_step

    def counted(self, grads, variables, learning_rate):
        calls.append(len(variables))
        return fused(self, grads, variables, learning_rate)

    def forbidden(self, *args):
        raise AssertionError("one variable at a time")

    monkeypatch.setattr(keras_class, "_parallel_update_step", counted)
    monkeypatch.setattr(keras_class, "update_step", forbidden)
    optimizer = DiscriminativeOptimizer(inner, kadence.split(model, at="head"), [0.1, 1.0])
    x, y = batches(3)
    fit(model, optimizer, x, y, "mse")
    assert calls == [4, 2] * 3


class CountedRestarts(kadence.WarmRestarts):
    """Counts how often its formula is written into a graph."""

    calls = 0

    def _formula(self, step, xp):
        type(self).calls += 1
        return super()._formula(step, xp)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch is eager here")
def test_the_step_is_compiled_as_often_as_with_a_plain_optimizer():
    x, y = batches(4)
    counts = []
    for grouped in (False, True):
        model, CountedRestarts.calls = chain(), 0
        optimizer = keras.optimizers.Adam(CountedRestarts(0.1, first_cycle_steps=2))
        if grouped:
            optimizer = DiscriminativeOptimizer(optimizer, three_groups(model), [0.1, 0.5, 1.0])
        fit(model, optimizer, x, y, "mse", epochs=4)
        assert int(optimizer.iterations) == 16
        counts.append(CountedRestarts.calls)
    assert counts[1] <= counts[0] <= 2


@pytest.mark.skipif(BACKEND != "jax", reason="asks JAX")
def test_the_step_never_calls_the_host():
    import jax

    model = chain()
    inner = keras.optimizers.AdamW(RESTARTS, global_clipnorm=1.0)
    optimizer = DiscriminativeOptimizer(inner, three_groups(model), MULTIPLIERS)
    optimizer.build(model.trainable_variables)
    state, weights = ([v.value for v in variables] for variables in (optimizer.variables, model.trainable_variables))
    step = jax.make_jaxpr(lambda state, weights: optimizer.stateless_apply(state, weights, weights))
    assert "callback" not in str(step(state, weights))


# Several devices.

JAX_DATA_PARALLEL = """
import keras
keras.distribution.set_distribution(keras.distribution.DataParallel())
assert len(keras.distribution.list_devices()) == 2
import test_optimizer_use as t
t.train_and_save({out!r})
"""

TENSORFLOW_MIRRORED = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_optimizer_use as t
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    t.train_and_save({out!r})
"""


def train_and_save(out):
    model = branches()
    inner = keras.optimizers.AdamW(RESTARTS, weight_decay=0.3, clipnorm=1e9)
    x, y = batches(STEPS)
    schedules = {"weight_decay": kadence.Constant(0.3)}
    fit(model, DiscriminativeOptimizer(inner, three_groups(model), MULTIPLIERS, schedules=schedules), x, y)
    assert inner.weight_decay == 0.3
    np.savez(out, *all_values(model.trainable_variables))


@pytest.mark.skipif(BACKEND == "torch", reason="data parallelism of Keras is for JAX and TensorFlow")
def test_two_devices_train_as_one(tmp_path):
    out = str(tmp_path / "weights.npz")
    paths = [str(Path(__file__).parent), str(Path(kadence.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "KERAS_BACKEND": BACKEND,
        "PYTHONPATH": os.pathsep.join(paths),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    code = (JAX_DATA_PARALLEL if BACKEND == "jax" else TENSORFLOW_MIRRORED).format(out=out)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model = branches()
    expected = oracle(adam, by_layer(model), batch_gradients(*batches(STEPS)), weight_decay=0.3)
    with np.load(out) as archive:
        for variable, name in zip(model.trainable_variables, archive.files, strict=True):
            variable.assign(archive[name])
    assert_close(model, expected)


# Variables that do not fit.


def test_groups_of_another_model_are_an_error_before_training():
    model, other = chain(), chain()
    optimizer = sgd_groups(other)
    before = all_values(model.variables)
    x, y = batches(1)
    words = r"(?s)`groups` must hold every trainable variable.*low/kernel.*this very model"
    with pytest.raises(ValueError, match=words):
        fit(model, optimizer, x, y, "mse")
    assert_same(all_values(model.variables), before)


def test_a_layer_that_is_new_since_the_split_is_an_error_before_training():
    model = chain()
    groups = three_groups(model)
    larger = keras.Sequential([model, keras.layers.Dense(3, name="extra")])
    larger.build((None, 3))
    x, y = batches(1)
    with pytest.raises(ValueError, match=r"(?s)`groups` must hold.*In no group: .*extra.*kernel"):
        fit(larger, DiscriminativeOptimizer(keras.optimizers.SGD(0.1), groups, [1, 1, 1]), x, y, "mse")


@pytest.mark.skipif(BACKEND == "jax", reason="Keras on JAX hands the optimizer values by position, without asking it")
def test_another_model_after_the_first_is_the_error_of_keras():
    model, other = chain(), chain()
    x, y = batches(1)
    optimizer = sgd_groups(model)
    fit(model, optimizer, x, y, "mse")
    before = all_values(other.variables)
    with pytest.raises((ValueError, KeyError)):
        fit(other, optimizer, x, y, "mse")
    assert_same(all_values(other.variables), before)


def test_apply_without_variables_needs_a_built_optimizer():
    optimizer = sgd_groups(chain())
    with pytest.raises(ValueError, match="must already be built"):
        optimizer.apply([ops.ones((3, 4))])


# Schedules of other hyperparameters, weight decay by group, plateau beside schedule.

SCHEDULED = [
    (keras.optimizers.SGD, {"momentum": 0.9}),
    (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    (keras.optimizers.RMSprop, {"momentum": 0.5}),
    (keras.optimizers.Adam, {"beta_1": 0.9}),
    (keras.optimizers.AdamW, {"weight_decay": 0.1}),
    (keras.optimizers.Lion, {"beta_2": 0.99}),
]


@pytest.mark.parametrize(("cls", "arguments"), SCHEDULED, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_scheduled_hyperparameter_equals_setting_it_before_each_update(cls, arguments):
    name, constant = next(iter(arguments.items()))
    falling = kadence.Linear(constant, constant / 2, n_steps=4)
    model, plain_model = chain(), chain()
    optimizer = DiscriminativeOptimizer(
        cls(0.1, **arguments), three_groups(model), [1.0, 1.0, 1.0], schedules={name: falling}
    )
    plain = cls(0.1, **arguments)
    plain.build(plain_model.trainable_variables)
    for step in range(5):
        setattr(plain, name, float(falling.at(step)))
        apply_ones(plain, plain_model)
        apply_ones(optimizer, model)
    assert_close_values(all_values(model.trainable_variables), all_values(plain_model.trainable_variables))
    assert getattr(optimizer.inner_optimizer, name) == constant


def assert_close_values(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_scheduled_momentum_applies_in_the_compiled_step():
    x, y = batches(4)
    ends = []
    for momentum in (
        kadence.Constant(0.9),
        kadence.join([kadence.Constant(0.9), kadence.Constant(1e-6)], at_steps=[2]),
    ):
        model = chain()
        inner = keras.optimizers.SGD(0.01, momentum=0.9)
        schedules = {"momentum": momentum}
        fit(model, DiscriminativeOptimizer(inner, three_groups(model), [1, 1, 1], schedules=schedules), x, y, "mse")
        ends.append(all_values(model.trainable_variables))
    assert any(not np.allclose(one, other, rtol=1e-4) for one, other in zip(*ends, strict=True))


def test_weight_decay_has_a_factor_per_group_and_leaves_names_alone():
    model = chain()
    inner = keras.optimizers.SGD(0.5, weight_decay=0.1)
    optimizer = DiscriminativeOptimizer(
        inner, three_groups(model), [1.0, 1.0, 0.5], weight_decay_multipliers=[0.0, 2.0, 1.0], no_weight_decay=["bias"]
    )
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer.apply([ops.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables)
    kept = {path: values(v).mean() for path, v in zip(range(6), model.trainable_variables, strict=True)}
    assert kept == pytest.approx({0: 1.0, 1: 1.0, 2: 1 - 0.5 * 0.1 * 2, 3: 1.0, 4: 1 - 0.25 * 0.1, 5: 1.0}, rel=1e-6)
    config = optimizer.get_config()
    assert (config["weight_decay_multipliers"], config["no_weight_decay"]) == ([0.0, 2.0, 1.0], ["bias"])


def test_plateau_works_beside_a_schedule_and_keeps_the_ratios(tmp_path):
    x, y = batches(4)
    model = chain()
    schedule = kadence.WarmRestarts(0.1, first_cycle_steps=5, cycle_mult=2)
    optimizer = DiscriminativeOptimizer(keras.optimizers.SGD(schedule), three_groups(model), [0.01, 0.1, 1.0])
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=0, min_delta=1e9)
    recorder = kadence.RateRecorder()
    fit(model, optimizer, x, y, "mse", epochs=3, callbacks=[recorder, plateau])
    factors = np.repeat([1.0, 1.0, 0.5], 4)
    np.testing.assert_allclose(recorder.record.rates["head"], schedule.sample(12) * factors, rtol=1e-5)
    np.testing.assert_allclose(recorder.record.rates["low"], schedule.sample(12) * factors * 0.01, rtol=1e-5)
    assert optimizer.learning_rates["head"] == pytest.approx(float(schedule.at(12)) * 0.25, rel=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.learning_rates == pytest.approx(optimizer.learning_rates)


def test_a_schedule_at_zero_cannot_be_scaled():
    model = chain()
    optimizer = sgd_groups(model, kadence.Constant(0.0), [1.0, 1.0, 1.0])
    optimizer.learning_rate = 0.0
    with pytest.raises(ValueError, match="`learning_rate` must be 0 at step 0"):
        optimizer.learning_rate = 0.1
