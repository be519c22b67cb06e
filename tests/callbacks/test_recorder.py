"""The recorded rates against those that moved the weights, the losses against those of each batch alone."""

import keras
import numpy as np
import pytest
from keras import ops
from optimizer_oracles import (
    all_values,
    batches,
    branches,
    by_layer,
    chain,
    linear_gradients,
    linear_loss,
    three_groups,
)
from range_tests import OwnStep

import kadence
from kadence import DiscriminativeOptimizer
from kadence.callbacks import LossNotFiniteError, RateRecorder
from kadence.callbacks.recorder import losses_of_logs
from kadence.records import RateRecord

BACKEND = keras.backend.backend()

# Keras hands torch tensors to NumPy >= 2.4 in a way that NumPy is about to forbid.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SCHEDULE = kadence.WarmRestarts(0.1, first_cycle_steps=2, cycle_mult=1.5, lr_min=0.01)
FACTORS = {"low": 0.01, "middle": 0.5, "head": 1.0}
MULTIPLIERS = tuple(FACTORS.values())


class Probe(keras.callbacks.Callback):
    """The weights of each layer after every batch; with SGD and equal batches, what moved them is the rate."""

    def on_train_begin(self, logs=None):
        self.states = [by_layer(self.model)]

    def on_train_batch_end(self, batch, logs=None):
        self.states.append(by_layer(self.model))

    def rates(self, gradients):
        states = {name: np.array([state[name][0] for state in self.states], "float64") for name in gradients}
        return {name: (-np.diff(states[name], axis=0) / g[0]).mean((1, 2)) for name, g in gradients.items()}


class EachBatch(keras.callbacks.Callback):
    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = self.rate(batch)


def from_zero():
    model = branches()
    for variable in model.trainable_variables:
        variable.assign(ops.zeros(variable.shape))
    return model


def equal_batches(count):
    x, y = batches(1)
    return np.tile(x, (count, 1)), np.tile(y, (count, 1)), linear_gradients(x, y)


def compiled(model, optimizer, loss=linear_loss, run_eagerly=True, **kwargs):
    """Eager, as the recorder sees nothing of the step itself, except where Keras needs it otherwise."""
    model.compile(optimizer, loss, run_eagerly=run_eagerly, **kwargs)
    return model


def grouped(model, rate, multipliers=MULTIPLIERS, **arguments):
    return DiscriminativeOptimizer(keras.optimizers.SGD(rate, **arguments), three_groups(model), multipliers)


def fit(model, x, y, callbacks, **kwargs):
    return model.fit(x, y, callbacks=callbacks, **{"batch_size": 4, "shuffle": False, "verbose": 0, **kwargs})


STOCK = keras.optimizers.schedules.PolynomialDecay(0.4, 10, 0.1)
TRUE_RATES = {
    "a schedule": (SCHEDULE, MULTIPLIERS, [], False),
    "a schedule per group": (SCHEDULE, [kadence.Linear(0.0, 1.0, 6), 0.5, kadence.Cosine(1.0, 8)], [], False),
    "a number": (0.25, MULTIPLIERS, [], False),
    "a stock schedule": (STOCK, MULTIPLIERS, [], False),
    "set each epoch": (
        0.4,
        [kadence.Linear(0.1, 1.0, 6), 0.5, 1.0],
        [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / (epoch + 2))],
        False,
    ),
    "set each batch": (0.4, MULTIPLIERS, [EachBatch(lambda batch: 0.1 / (batch + 1))], True),
    "set each batch from 0": (0.4, MULTIPLIERS, [EachBatch(lambda batch: 0.1 * batch)], True),
}


@pytest.mark.parametrize("case", TRUE_RATES)
def test_the_rates_are_those_that_moved_the_weights(case):
    rate, multipliers, setters, every_batch = TRUE_RATES[case]
    model, recorder, probe = from_zero(), RateRecorder(every_batch=every_batch), Probe()
    x, y, gradients = equal_batches(4)
    compiled(model, grouped(model, rate, multipliers))
    fit(model, x, y, [*setters, recorder, probe], epochs=2)
    record = recorder.record
    assert record.steps.tolist() == list(range(8))
    assert list(record.rates) == list(FACTORS)
    for name, moved in probe.rates(gradients).items():
        np.testing.assert_allclose(record.rates[name], moved, 1e-4, 1e-7, err_msg=name)


def test_a_rate_that_is_set_within_an_epoch_is_read_at_its_first_batch_otherwise():
    model, recorder = from_zero(), RateRecorder()
    x, y, _ = equal_batches(3)
    compiled(model, grouped(model, 0.4))
    fit(model, x, y, [EachBatch(lambda batch: 0.1 / (batch + 1)), recorder])
    assert recorder.record.rates["head"] == pytest.approx([0.1, 0.1, 0.1])


@pytest.mark.parametrize("rate", [0.25, SCHEDULE, STOCK], ids=["number", "schedule", "stock schedule"])
def test_an_optimizer_without_groups_has_one_group_of_all(rate):
    model, recorder, probe = from_zero(), RateRecorder(), Probe()
    x, y, gradients = equal_batches(4)
    compiled(model, keras.optimizers.SGD(rate))
    history = fit(model, x, y, [recorder, probe]).history
    assert list(recorder.record.rates) == ["all"]
    np.testing.assert_allclose(recorder.record.rates["all"], probe.rates(gradients)["head"], 1e-4)
    assert history["learning_rate_all"] == recorder.record.rates["all"][-1:].tolist()


@pytest.mark.parametrize("groups", [True, False])
def test_the_batches_of_an_accumulated_gradient_share_the_step_of_its_update(groups):
    """Three batches an epoch, two an update: the second update is half in each epoch."""
    model, recorder, probe = from_zero(), RateRecorder(), Probe()
    x, y, gradients = equal_batches(3)
    inner = keras.optimizers.SGD(SCHEDULE, gradient_accumulation_steps=2)
    compiled(model, DiscriminativeOptimizer(inner, three_groups(model), MULTIPLIERS) if groups else inner)
    fit(model, x, y, [recorder, probe], epochs=2)
    assert recorder.record.steps.tolist() == [0, 0, 1, 1, 2, 2]
    moved = probe.rates(gradients)["head"]
    np.testing.assert_allclose(moved[::2], 0.0, atol=1e-7)
    rates = recorder.record.rates["head" if groups else "all"]
    np.testing.assert_allclose(rates[1::2], moved[1::2], 1e-4)
    np.testing.assert_array_equal(rates[::2], rates[1::2])
    # With groups the schedule counts updates; Keras itself counts batches.
    expected = SCHEDULE.at([0, 1, 2]) if groups else SCHEDULE.at([1, 3, 5])
    np.testing.assert_allclose(rates[1::2], expected, 1e-6)


def test_the_rate_of_an_update_is_the_one_read_when_it_is_made():
    model, recorder, probe = from_zero(), RateRecorder(every_batch=True), Probe()
    x, y, gradients = equal_batches(4)
    compiled(model, grouped(model, 0.4, gradient_accumulation_steps=2))
    fit(model, x, y, [EachBatch(lambda batch: 0.1 / (batch + 1)), recorder, probe])
    moved = probe.rates(gradients)["head"][1::2]
    np.testing.assert_allclose(recorder.record.rates["head"], np.repeat(moved, 2), 1e-4)


# Losses.


def loss_of_each_batch(model, x, y):
    out = ops.convert_to_numpy(model(x))
    return ((out - y) ** 2).mean(1).reshape(-1, 4).mean(1)


def standing_still(**kwargs):
    model = chain()
    return compiled(model, grouped(model, 0.0), "mse", **kwargs)


def test_the_losses_are_those_of_each_batch():
    model, recorder = standing_still(metrics=["mae"]), RateRecorder()
    x, y = batches(6)
    fit(model, x, y, [recorder], epochs=2, validation_data=(x[:4], y[:4] + 9))
    expected = loss_of_each_batch(model, x, y)
    np.testing.assert_allclose(recorder.record.losses, np.tile(expected, 2), 1e-4)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses steps_per_execution on PyTorch")
def test_batches_of_one_execution_share_their_mean_loss():
    model, recorder = standing_still(steps_per_execution=3, run_eagerly=False), RateRecorder()
    x, y = batches(8)
    fit(model, x, y, [recorder])
    parts = np.split(loss_of_each_batch(model, x, y), [3, 6])
    np.testing.assert_allclose(recorder.record.losses, np.repeat([part.mean() for part in parts], [3, 3, 2]), 1e-4)
    assert recorder.record.steps.tolist() == list(range(8))


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses steps_per_execution on PyTorch")
def test_rates_do_not_depend_on_steps_per_execution():
    model, recorder = from_zero(), RateRecorder()
    x, y, _ = equal_batches(8)
    compiled(model, grouped(model, SCHEDULE), steps_per_execution=3, run_eagerly=False)
    fit(model, x, y, [recorder], epochs=2)
    assert recorder.record.steps.tolist() == list(range(16))
    np.testing.assert_allclose(recorder.record.rates["head"], SCHEDULE.sample(16), 1e-9)


def test_a_shorter_last_batch_is_drawn_towards_the_mean():
    model, recorder = standing_still(), RateRecorder()
    x, y = batches(3)
    y[8:] += 5.0
    fit(model, x[:10], y[:10], [recorder])
    losses = recorder.record.losses
    out = ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(losses[:2], loss_of_each_batch(model, x, y)[:2], 1e-4)
    assert losses[:2].mean() < losses[2] < ((out[8:10] - y[8:10]) ** 2).mean()


def test_the_mean_of_the_losses_is_the_loss_of_the_epoch():
    model, recorder = chain(), RateRecorder()
    x, y = batches(5)
    compiled(model, grouped(model, 0.1), "mse")
    history = fit(model, x, y, [recorder], epochs=2).history
    np.testing.assert_allclose(recorder.record.losses.reshape(2, 5).mean(1), history["loss"], 1e-5)


@pytest.mark.parametrize("gaps", [1, 3])
def test_losses_of_running_means(gaps):
    losses = np.random.default_rng(0).lognormal(size=10)
    means = {i: losses[: i + 1].mean() for i in [*range(gaps - 1, 9, gaps), 9]}
    expected = np.concatenate([np.full(len(part), part.mean()) for part in np.split(losses, range(gaps, 10, gaps))])
    np.testing.assert_allclose(losses_of_logs(means, gaps, 10), expected, 1e-9)


def test_losses_that_are_logged_as_they_are():
    assert losses_of_logs({2: 1.0, 5: 2.0, 7: 3.0}, 3, 8, are_means=False).tolist() == [1, 1, 1, 2, 2, 2, 3, 3]


@pytest.mark.parametrize("metrics", [None, ["mae"]] if BACKEND != "tensorflow" else [None])  # where Keras takes it
@pytest.mark.parametrize("validation", [False, True])
@pytest.mark.parametrize("kind", [keras.Sequential, OwnStep])
def test_losses_of_a_train_step_that_returns_those_of_the_batch(kind, validation, metrics):
    model, recorder = kind([keras.Input((3,)), keras.layers.Dense(1)]), RateRecorder()
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=metrics, jit_compile=BACKEND == "jax")
    x, y = np.random.default_rng(0).normal(size=(24, 3)).astype("float32"), np.arange(24.0, dtype="float32")[:, None]
    held_out = {"validation_data": (x[:4], y[:4])} if validation else {}
    fit(model, x, y, [recorder], epochs=2, **held_out)
    np.testing.assert_allclose(recorder.record.losses, np.tile(loss_of_each_batch(model, x, y), 2), 1e-3)


def test_a_loss_that_turns_nan_is_recorded_and_written(tmp_path):
    model, recorder = chain(), RateRecorder(tmp_path / "rates.json")
    x, y = batches(4)
    y[8:12] = np.nan
    compiled(model, grouped(model, 0.1), "mse")
    fit(model, x, y, [recorder])
    assert np.isnan(recorder.record.losses).tolist() == [False, False, True, True]
    assert np.isfinite(recorder.record.rates["head"]).all()
    assert RateRecord.from_json((tmp_path / "rates.json").read_text()) == recorder.record


# Epochs, fits and files.


def test_the_logs_have_the_last_rate_of_every_group(tmp_path):
    model, recorder = from_zero(), RateRecorder()
    x, y, _ = equal_batches(4)
    compiled(model, grouped(model, SCHEDULE))
    before, after = (keras.callbacks.CSVLogger(tmp_path / f"{name}.csv") for name in ("before", "after"))
    history = fit(model, x, y, [before, recorder, after], epochs=3).history
    for name, factor in FACTORS.items():
        np.testing.assert_allclose(history[f"learning_rate_{name}"], SCHEDULE.at([3, 7, 11]) * factor, 1e-9)
    header, *rows = (tmp_path / "after.csv").read_text().splitlines()
    column = header.split(",").index("learning_rate_head")
    np.testing.assert_allclose([float(row.split(",")[column]) for row in rows], SCHEDULE.at([3, 7, 11]), 1e-9)
    assert "learning_rate_" not in (tmp_path / "before.csv").read_text()


def test_each_fit_starts_a_record_and_goes_on_counting():
    model, recorder = from_zero(), RateRecorder()
    x, y, _ = equal_batches(3)
    compiled(model, grouped(model, SCHEDULE))
    assert len(recorder.record) == 0
    fit(model, x, y, [recorder])
    first = recorder.record
    fit(model, x, y, [recorder], initial_epoch=1, epochs=3)
    assert first.steps.tolist() == [0, 1, 2]
    assert recorder.record.steps.tolist() == list(range(3, 9))
    np.testing.assert_allclose(recorder.record.rates["head"], SCHEDULE.sample(6, start=3), 1e-9)


def test_a_run_that_goes_on_keeps_the_record_before_it(tmp_path):
    model, first = from_zero(), RateRecorder(tmp_path / "rates.json")
    x, y, _ = equal_batches(3)
    compiled(model, grouped(model, SCHEDULE))
    fit(model, x, y, [first], epochs=2)
    previous = RateRecord.from_json((tmp_path / "rates.json").read_text())
    # The run was cut in its third epoch, of which the record holds a step that is done again.
    previous = previous.then(RateRecord([6], {name: [9.0] for name in FACTORS}, [9.0]))
    second = RateRecorder(tmp_path / "rates.json", previous=previous)
    fit(model, x, y, [second], initial_epoch=2, epochs=4)
    assert second.record.steps.tolist() == list(range(12))
    np.testing.assert_allclose(second.record.rates["head"], SCHEDULE.sample(12), 1e-9)
    assert 9.0 not in second.record.losses
    assert RateRecord.from_json((tmp_path / "rates.json").read_text()) == second.record


def test_the_file_is_complete_after_every_epoch(tmp_path):
    lengths = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            lengths.append(len(RateRecord.from_json((tmp_path / "rates.json").read_text())))

    model = from_zero()
    x, y, _ = equal_batches(2)
    compiled(model, grouped(model, SCHEDULE))
    fit(model, x, y, [RateRecorder(str(tmp_path / "rates.json")), Look()], epochs=3)
    assert lengths == [2, 4, 6]
    assert [file.name for file in tmp_path.iterdir()] == ["rates.json"]


def test_an_epoch_that_is_stopped_is_recorded_as_far_as_it_went():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    model, recorder = from_zero(), RateRecorder()
    x, y, _ = equal_batches(4)
    compiled(model, grouped(model, SCHEDULE))
    fit(model, x, y, [recorder, Stop()], epochs=3)
    assert recorder.record.steps.tolist() == [0, 1]
    assert len(recorder.record.losses) == 2


class Dataset(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x) // 4

    def __getitem__(self, index):
        part = slice(4 * index, 4 * index + 4)
        return self.x[part], self.y[part]


@pytest.mark.parametrize("kind", ["generator", "dataset"])
def test_data_of_other_kinds(kind):
    model, recorder = standing_still(), RateRecorder()
    x, y = batches(3)
    expected = loss_of_each_batch(model, x, y)
    dataset = Dataset(x, y)
    data = dataset if kind == "dataset" else (dataset[i % 3] for i in range(6))
    model.fit(data, steps_per_epoch=3, epochs=2, shuffle=False, verbose=0, callbacks=[recorder])
    assert recorder.record.steps.tolist() == list(range(6))
    np.testing.assert_allclose(recorder.record.losses, np.tile(expected, 2), 1e-4)


# Loss scales.


def overflowing(model, rate, scale_exponent):
    """Gradients below 2**k overflow at a scale of 2**(128 - k) or more, which halves it and skips the batch."""
    x, y, gradients = equal_batches(4)
    largest = max(np.abs(g).max() for layer in gradients.values() for g in layer)
    factor = 3.9 / largest  # the largest gradient is 3.9: the first scale that fits is 2**126
    scale = 2.0**scale_exponent
    compiled(model, keras.optimizers.LossScaleOptimizer(grouped(model, rate), initial_scale=scale))
    return x, y * factor, {name: [g * factor for g in layer] for name, layer in gradients.items()}


def test_batches_that_a_loss_scale_skips_are_not_updates():
    model, recorder, probe = from_zero(), RateRecorder(), Probe()
    x, y, gradients = overflowing(model, SCHEDULE, scale_exponent=127)
    history = fit(model, x, y, [recorder, probe], epochs=2).history
    done = int(model.optimizer.iterations)
    assert 0 < done < 8
    assert recorder.record.steps.tolist() == list(range(done))
    for name, moved in probe.rates(gradients).items():
        np.testing.assert_allclose(moved[: 8 - done], 0.0, atol=1e-9)
        np.testing.assert_allclose(recorder.record.rates[name], moved[8 - done :], 1e-4)
    assert history["learning_rate_head"] == pytest.approx(SCHEDULE.at([done - 5, done - 1]).tolist())


def test_an_epoch_in_which_every_batch_is_skipped():
    model, recorder = from_zero(), RateRecorder()
    x, y, _ = overflowing(model, SCHEDULE, scale_exponent=127)
    history = fit(model, x[:4], y[:4], [recorder], epochs=4).history
    done = int(model.optimizer.iterations)
    assert 0 < done < 4
    assert recorder.record.steps.tolist() == list(range(done))
    assert len(history["learning_rate_head"]) == len(history["loss"]) == 4
    np.testing.assert_allclose(history["learning_rate_head"][-done:], SCHEDULE.sample(done), 1e-9)


def test_rates_set_each_batch_while_batches_are_skipped():
    model, recorder, probe = from_zero(), RateRecorder(every_batch=True), Probe()
    x, y, gradients = overflowing(model, 0.4, scale_exponent=127)
    fit(model, x, y, [EachBatch(lambda batch: 0.1 * (batch + 1)), recorder, probe])
    done = int(model.optimizer.iterations)
    assert 0 < done < 4
    np.testing.assert_allclose(recorder.record.rates["head"], probe.rates(gradients)["head"][4 - done :], 1e-4)


def test_mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    model, recorder = chain(), RateRecorder()
    x, y = batches(3)
    compiled(model, grouped(model, SCHEDULE), "mse")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    fit(model, x, y, [recorder], epochs=2)
    done = int(model.optimizer.iterations)
    np.testing.assert_allclose(recorder.record.rates["low"], SCHEDULE.sample(done) * 0.01, 1e-9)
    assert np.isfinite(recorder.record.losses).all()


# Cost.


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX keeps the state away from the model")
def test_on_jax_no_batch_waits_for_the_state(monkeypatch):
    synced = []
    original = keras.Model.jax_state_sync

    def counted(self):
        if getattr(self, "_jax_state", None) and not self._jax_state_synced:
            synced.append(self)
        original(self)

    monkeypatch.setattr(keras.Model, "jax_state_sync", counted)
    counts = []
    for callbacks in ([], [RateRecorder()], [RateRecorder(every_batch=True)]):
        synced.clear()
        model = from_zero()
        x, y, _ = equal_batches(5)
        compiled(model, grouped(model, 0.1), run_eagerly=False)
        fit(model, x, y, callbacks, epochs=2)
        counts.append(len(synced))
    assert counts[:2] == [2, 2]  # once an epoch, as Keras does
    assert counts[2] > 8


def test_the_recorder_changes_nothing_in_training():
    weights = []
    for callbacks in ([], [RateRecorder()]):
        model = chain()
        compiled(model, grouped(model, SCHEDULE), "mse")
        fit(model, *batches(3), callbacks)
        weights.append(all_values(model.variables))
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


# What is refused.


def test_a_loss_that_is_not_finite_stops_with_the_rate_of_its_batch():
    model = chain()
    x, y = batches(4)
    y[12:] = np.nan
    compiled(model, keras.optimizers.SGD(0.1), "mse")
    recorder = RateRecorder(every_batch=True, stop_on_nan=True)
    with pytest.raises(
        LossNotFiniteError, match=r"`loss` must stay finite; at optimizer step 3 .* rates all 0\.025, .*"
    ):
        fit(model, x, y, [EachBatch(lambda batch: 0.1 / (batch + 1)), recorder])


def test_a_validation_loss_that_is_not_finite_is_named():
    model = chain()
    x, y = batches(2)
    compiled(model, keras.optimizers.SGD(0.1), "mse")
    with pytest.raises(LossNotFiniteError, match=r"`val_loss` must stay finite; .* Received: val_loss=nan"):
        fit(model, x, y, [RateRecorder(stop_on_nan=True)], validation_data=(x, y * np.nan))


def test_a_file_in_a_folder_that_is_not_there(tmp_path):
    model, recorder = from_zero(), RateRecorder(tmp_path / "runs" / "none" / "rates.json")
    x, y, _ = equal_batches(2)
    compiled(model, grouped(model, SCHEDULE))
    fit(model, x, y, [recorder])
    assert RateRecord.from_json(recorder.path.read_text()) == recorder.record


def test_a_record_of_other_groups_is_refused_before_the_first_step():
    model = from_zero()
    x, y, _ = equal_batches(2)
    compiled(model, keras.optimizers.SGD(0.1))
    previous = RateRecord([0, 1], {"other": [0.1, 0.1]}, [1.0, 1.0])
    fit(model, x, y, [RateRecorder(previous=previous)])  # of which nothing lies before this fit
    with pytest.raises(ValueError, match=r"`previous` must be a record of the groups \['all'\].*\['other'\]"):
        fit(model, x, y, [RateRecorder(previous=previous)])
    assert int(model.optimizer.iterations) == 2


def test_bad_arguments():
    for name, value in (("path", 3), ("previous", "rates.json"), ("every_batch", 1), ("stop_on_nan", None)):
        with pytest.raises(TypeError, match=f"`{name}` must be"):
            RateRecorder(**{name: value})


def test_an_evaluation_before_the_recorder_changes_nothing():
    """Metrics of the model are then those of the evaluation."""
    x, y = np.random.default_rng(0).random((48, 4)), np.ones((48, 1))
    losses = []
    for evaluates in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        recorder = kadence.RateRecorder()
        look = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda *_, model=model: model.evaluate(x[:8], y[:8], verbose=0)
        )
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[look] * evaluates + [recorder])
        losses.append(recorder.record.losses)
    np.testing.assert_allclose(*losses, rtol=1e-4)
