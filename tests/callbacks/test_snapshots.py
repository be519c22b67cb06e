"""Which weights are kept, against those of runs that end there; what a killed run leaves."""

import json
import signal

import bad_input
import keras
import numpy as np
import pytest
import tiny

import kadence
from kadence import SnapshotSaver
from kadence.callbacks import RunFolder

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3)).astype("float32")
Y = X @ RNG.normal(size=(3, 2)).astype("float32")
#: 5 batches an epoch; cycles of 3, 6 and 12 steps end after 3, 9 and 21 steps.
CYCLES = kadence.WarmRestarts(0.1, first_cycle_steps=3, cycle_mult=2)


def new_model(rate=CYCLES, grouped=False, loss_scale=False, settings=None, **kwargs):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(2, name="head")])
    optimizer = keras.optimizers.SGD(rate, momentum=0.5, **kwargs)
    if grouped:
        optimizer = kadence.DiscriminativeOptimizer(optimizer, kadence.split_evenly(model, 1), [1.0])
    if loss_scale:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=loss_scale)
    jit = "auto" if BACKEND == "jax" else False
    model.compile(optimizer, "mse", jit_compile=jit, **(settings or {}))
    return model


def fit(model, *callbacks, epochs=2, **kwargs):
    return model.fit(X, Y, 4, epochs, 0, list(callbacks), shuffle=False, **kwargs)


class Trace(keras.callbacks.Callback):
    """The weights after every batch, read the slow way."""

    def __init__(self):
        super().__init__()
        self.weights = {}

    def on_train_batch_end(self, batch, logs=None):
        self.weights[len(self.weights) + 1] = [np.array(w) for w in self.model.get_weights()]


@pytest.fixture(scope="module")
def trace():
    trace = Trace()
    fit(new_model(), trace, epochs=5)
    return trace.weights


def kept(folder):
    index = json.loads((folder / "snapshots.json").read_text(encoding="utf-8"))
    assert (index["kadence"], index["version"]) == ("snapshots", 1)
    return {entry["step"]: entry for entry in index["snapshots"]}


def weights_of(file):
    model = new_model()
    model.load_weights(file)
    return model.get_weights()


def assert_weights(folder, trace, steps):
    """The snapshots are those after `steps`, bit for bit, each in a file that Keras loads too."""
    entries = kept(folder)
    assert list(entries) == steps
    for step, entry in entries.items():
        for kept_array, array in zip(weights_of(folder / entry["file"]), trace[step], strict=True):
            assert tiny.same(kept_array, array), step


# Cycles


# Keras warns that the file holds no optimizer; it is not to.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_the_last_step_of_every_cycle_the_last_included(tmp_path, trace):
    saver = SnapshotSaver(tmp_path / "a" / "snapshots")
    fit(new_model(), saver, epochs=5)
    assert_weights(saver.folder, trace, [3, 9, 21])
    assert [(s.file[:13], s.step, s.epoch) for s in saver.snapshots] == [
        ("snapshot_0001", 3, 1),
        ("snapshot_0002", 9, 2),
        ("snapshot_0003", 21, 5),
    ]
    assert {path.name for path in saver.folder.iterdir()} == {*(s.file for s in saver.snapshots), "snapshots.json"}
    in_file = tiny.weights_of(saver.folder / saver.snapshots[0].file)
    assert sum(array.size for array in in_file.values()) == sum(w.size for w in new_model().get_weights())


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_a_cycle_that_ends_with_the_run_and_one_that_ends_with_an_epoch(tmp_path):
    model, saver = new_model(kadence.WarmRestarts(0.1, 5)), SnapshotSaver(tmp_path)
    at_ends = {}
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: at_ends.update({epoch: model.get_weights()}))
    fit(model, saver, keep)
    assert_weights(tmp_path, {5: at_ends[0], 10: at_ends[1]}, [5, 10])


def test_the_device_is_not_asked_in_every_batch(tmp_path, monkeypatch):
    """Reading `self.model` makes JAX sync its whole state."""
    reads, fget = [], keras.callbacks.Callback.model.fget
    monkeypatch.setattr(keras.callbacks.Callback, "model", property(lambda self: reads.append(self) or fget(self)))

    x, y = np.tile(X, (8, 1)), np.tile(Y, (8, 1))
    saver = SnapshotSaver(tmp_path)
    new_model(kadence.WarmRestarts(0.1, 20)).fit(x, y, 4, 1, 0, [saver], shuffle=False)
    assert [s.step for s in saver.snapshots] == [20, 40]
    assert sum(callback is saver for callback in reads) < 20, "of 40 batches"


def test_steps_are_updates(tmp_path):
    """With gradient accumulation 4 micro-batches are a step; 40 of them end the cycles after 3 and 9 steps."""
    fit(new_model(grouped=True, gradient_accumulation_steps=4), SnapshotSaver(tmp_path), epochs=8)
    assert list(kept(tmp_path)) == [3, 9]


def test_without_groups_keras_counts_micro_batches(tmp_path):
    fit(new_model(gradient_accumulation_steps=2), SnapshotSaver(tmp_path), epochs=2)
    assert list(kept(tmp_path)) == [3, 9]


def test_batches_that_the_loss_scale_skips_are_no_steps(tmp_path):
    model = new_model(loss_scale=2.0**127)
    saver = SnapshotSaver(tmp_path)
    model.fit(X, 10 * Y, 4, 3, 0, [saver], shuffle=False)
    done = int(model.optimizer.inner_optimizer.iterations)
    assert done < 15, "the scale was meant to overflow"
    assert [s.step for s in saver.snapshots] == [step for step in (3, 9, 21) if step <= done]


@pytest.mark.parametrize(
    "schedule", [kadence.Constant(0.1), kadence.WarmRestarts(0.1, 1000)], ids=["none", "unfinished"]
)
def test_without_the_end_of_a_cycle_the_end_of_the_run_is_kept(tmp_path, schedule):
    saver = SnapshotSaver(tmp_path)
    fit(new_model(schedule), saver)
    assert [(s.step, s.epoch) for s in saver.snapshots] == [(10, 2)]


def test_what_ends_in_mid_cycle_is_not_kept(tmp_path):
    saver = SnapshotSaver(tmp_path)
    fit(new_model(), saver, epochs=1)
    assert [s.step for s in saver.snapshots] == [3]


# Epochs


@pytest.mark.parametrize(
    ("arguments", "epochs"),
    [
        ({"every_epochs": 2}, [2, 4, 5]),
        ({"every_epochs": 1, "from_epoch": 4}, [4, 5]),
        ({"every_epochs": 9}, [5]),
    ],
)
def test_epochs_of_a_tail_the_last_included(tmp_path, arguments, epochs):
    saver = SnapshotSaver(tmp_path, **arguments)
    fit(new_model(0.1), saver, epochs=5)
    assert [(s.epoch, s.step) for s in saver.snapshots] == [(epoch, 5 * epoch) for epoch in epochs]


def test_a_run_that_is_stopped_early_keeps_its_end(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 2

    saver = SnapshotSaver(tmp_path, every_epochs=2)
    fit(new_model(0.1), saver, Stop(), epochs=9)
    assert [s.epoch for s in saver.snapshots] == [2, 3]


# Going on


def test_training_that_goes_on_adds_to_the_folder(tmp_path):
    model, saver = new_model(), SnapshotSaver(tmp_path)
    fit(model, saver, epochs=2)
    fit(model, saver, epochs=5, initial_epoch=2)
    fit(model, other := SnapshotSaver(tmp_path), epochs=9, initial_epoch=5)
    assert [s.step for s in saver.snapshots] == [3, 9, 21]
    assert [s.step for s in other.snapshots] == [3, 9, 21, 45]


@pytest.mark.parametrize("same_saver", [True, False])
def test_the_end_of_a_fit_is_no_snapshot_of_the_training_that_goes_on(tmp_path, same_saver):
    """Its first fit ends within the first cycle."""
    model = new_model(kadence.WarmRestarts(0.1, first_cycle_steps=7))
    fit(model, first := SnapshotSaver(tmp_path), epochs=1)
    assert [(s.step, s.provisional) for s in first.snapshots] == [(5, True)]
    fit(model, second := first if same_saver else SnapshotSaver(tmp_path), epochs=3, initial_epoch=1)
    assert [(s.step, s.provisional) for s in second.snapshots] == [(7, False), (14, False)]
    assert [entry["step"] for entry in kept(tmp_path).values()] == [7, 14]
    assert sorted(path.name for path in tmp_path.glob("*.h5")) == [s.file for s in second.snapshots]


def test_the_end_of_a_fit_is_kept_until_there_is_another_snapshot(tmp_path):
    model = new_model(kadence.WarmRestarts(0.1, first_cycle_steps=7))
    fit(model, saver := SnapshotSaver(tmp_path), epochs=1)
    before = tiny.snapshot(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(model, saver, Kill(2), epochs=2, initial_epoch=1)
    assert tiny.snapshot(tmp_path) == before


def test_the_last_epoch_of_a_fit_gives_way_to_the_next_of_a_tail(tmp_path):
    model, saver = new_model(0.1), SnapshotSaver(tmp_path, every_epochs=2)
    fit(model, saver, epochs=3)
    assert [(s.epoch, s.provisional) for s in saver.snapshots] == [(2, False), (3, True)]
    fit(model, saver, epochs=4, initial_epoch=3)
    assert [(s.epoch, s.provisional) for s in saver.snapshots] == [(2, False), (4, False)]
    assert sorted(path.name for path in tmp_path.glob("*.h5")) == [s.file for s in saver.snapshots]


def test_the_snapshots_of_another_run_are_refused_and_untouched(tmp_path):
    fit(new_model(), SnapshotSaver(tmp_path))
    before, model = tiny.snapshot(tmp_path), new_model()
    weights = model.get_weights()
    with pytest.raises(FileExistsError, match=r"`folder` must hold no snapshots of steps after 0.*`resume=True`"):
        fit(model, SnapshotSaver(tmp_path))
    assert tiny.snapshot(tmp_path) == before
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


class Kill(keras.callbacks.Callback):
    """Ctrl-C before a batch, counted over the run."""

    def __init__(self, batch):
        super().__init__()
        self.batch, self.seen = batch, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.batch:
            signal.raise_signal(signal.SIGINT)


def run(folder, *more):
    folder.mkdir(exist_ok=True)
    return fit(new_model(), SnapshotSaver(folder / "snapshots", resume=True), RunFolder(folder), *more, epochs=5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run(folder := tmp_path_factory.mktemp("runs") / "whole")
    return folder / "snapshots"


@pytest.mark.parametrize("at", [5, 11])
def test_a_killed_run_leaves_the_same_files(whole, tmp_path, at):
    """Killed after the first snapshot and before the first backup; after the second snapshot, in the third epoch."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", Kill(at))
    run(tmp_path / "killed")
    killed = tmp_path / "killed" / "snapshots"
    assert kept(killed) == kept(whole)
    for entry in kept(whole).values():
        one, other = (tiny.weights_of(folder / entry["file"]) for folder in (whole, killed))
        assert list(one) == list(other)
        assert all(tiny.same(one[name], other[name]) for name in one)


def test_a_run_that_was_killed_after_its_last_epoch_still_keeps_its_end(tmp_path):
    fit(new_model(kadence.Constant(0.1)), RunFolder(tmp_path))
    fit(new_model(kadence.Constant(0.1)), saver := SnapshotSaver(tmp_path / "snapshots"), RunFolder(tmp_path))
    assert [(s.step, s.epoch) for s in saver.snapshots] == [(10, 2)]


# Refusals


@pytest.mark.parametrize("rate", [0.1, keras.optimizers.schedules.CosineDecay(0.1, 10)])
def test_an_optimizer_without_a_schedule(tmp_path, rate):
    model = new_model(rate)
    with pytest.raises(ValueError, match=r"`learning_rate` must be a kadence.Schedule.*Give `every_epochs`"):
        fit(model, SnapshotSaver(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses it there itself")
def test_several_steps_at_once(tmp_path):
    with pytest.raises(ValueError, match="`steps_per_execution` must be 1"):
        fit(new_model(settings={"steps_per_execution": 2}), SnapshotSaver(tmp_path / "none"))
    saver = SnapshotSaver(tmp_path, every_epochs=1)
    fit(new_model(settings={"steps_per_execution": 2}), saver)
    assert [s.step for s in saver.snapshots] == [5, 10]


def test_bad_arguments(tmp_path):
    bad_input.assert_integer(lambda value: SnapshotSaver(tmp_path, from_epoch=value), "from_epoch", 1)
    for value, error in ((0, ValueError), (1.5, TypeError), ("1", TypeError)):
        bad_input.assert_rejects(lambda value: SnapshotSaver(tmp_path, value), "every_epochs", value, error)
    bad_input.assert_rejects(lambda value: SnapshotSaver(tmp_path, resume=value), "resume", 1, TypeError)


def test_a_spoilt_index(tmp_path):
    (tmp_path / "snapshots.json").write_text("{}")
    with pytest.raises(ValueError, match=r"`snapshots.json` must be a list of snapshots"):
        fit(new_model(), SnapshotSaver(tmp_path))
