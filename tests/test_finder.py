"""The range test: what it measures, what it gives back, what it refuses."""

import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from range_tests import OwnStep, assert_untouched, bits, compiled, data, everything, grouped, network

import kadence
from kadence import lr_range_test

BACKEND = keras.backend.backend()
X, Y = data()
SHORT = {"n_steps": 20, "lr_min": 1e-5, "lr_max": 1.0, "seed": 0}


class Ordered(keras.utils.PyDataset):
    """One batch, so that there is one order."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return X[:8], Y[:8]


#: Not compiled, where that is not the point: on JAX eager steps take longer than compiling.
EAGER = {"run_eagerly": BACKEND != "jax", "jit_compile": BACKEND == "jax"}


def plain(optimizer, **arguments):
    """Without dropout and BatchNorm: losses that another loop gives again."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(8, "tanh", name="low"), keras.layers.Dense(2, name="head")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    optimizer = optimizer(model) if callable(optimizer) else optimizer
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, **{"loss": loss, "jit_compile": BACKEND == "jax", **arguments})
    return model


def two_groups(optimizer, **arguments):
    return lambda model: kadence.DiscriminativeOptimizer(optimizer, kadence.split(model, at="head"), **arguments)


# Training goes on as if there had been no test


def half_precision(model):
    keras.config.set_dtype_policy("mixed_float16")
    return keras.optimizers.Adam(kadence.Cosine(1e-2, 50))


CASES = {
    "Adam": ({}, {"per_group": False}),
    "two groups, one of them scheduled": (
        {
            "optimizer": lambda model: grouped(
                model,
                keras.optimizers.SGD(kadence.WarmRestarts(0.1, 5), momentum=0.9),
                lr_multipliers=[kadence.Linear(0.0, 1.0, 4), 1.0],
                schedules={"momentum": kadence.Linear(0.9, 0.5, 8)},
            )
        },
        {"per_group": True, "n_runs": 2},
    ),
    "accumulated gradients, several steps an execution, a model to be built": (
        {
            "optimizer": keras.optimizers.RMSprop(1e-2, gradient_accumulation_steps=2, weight_decay=0.1),
            "built": False,
            "steps_per_execution": 1 if BACKEND == "torch" else 2,
        },
        {"n_runs": 2},
    ),
    "mixed precision with a loss scale": ({"optimizer": half_precision}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_training_after_a_test_is_training_without_it(case):
    """Before the first fit and in mid-training, bit for bit."""
    model_settings, test_settings = CASES[case]
    results = []
    for tested in (False, True):
        keras.config.set_dtype_policy("float32")
        settings = dict(model_settings)
        if isinstance(settings.get("optimizer"), keras.Optimizer):
            config = settings["optimizer"].get_config()
            settings["optimizer"] = type(settings["optimizer"]).from_config(config)
        if case.startswith("mixed"):
            keras.config.set_dtype_policy("mixed_float16")
        model = compiled(**settings)
        histories = []
        for _ in range(2):
            if tested:
                lr_range_test(model, X, Y, batch_size=8, n_steps=20, lr_max=1.0, **test_settings)
            histories.append(model.fit(X, Y, batch_size=8, epochs=2, verbose=0).history)
        results.append(([bits(v) for v in model.variables + model.optimizer.variables], histories))
    assert results[0] == results[1]


def test_nothing_that_can_be_seen_is_changed():
    schedule = kadence.Cosine(1e-2, 50)
    model = plain(two_groups(keras.optimizers.Adam(schedule), lr_multipliers=[0.1, 1.0]), metrics=["accuracy"])
    model.fit(X, Y, verbose=0)
    before = everything(model)
    lr_range_test(model, X, Y, **SHORT)
    assert_untouched(model, before)
    assert model.optimizer.inner_optimizer._learning_rate is schedule


class Raises(keras.callbacks.Callback):
    """Raises in the middle of a sweep."""

    def __init__(self, error, at=7):
        super().__init__()
        self.error, self.at, self.seen = error, at, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.at:
            raise self.error


class Broken(keras.utils.PyDataset):
    """Data that fails in the middle of a sweep."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == 5:
            raise OSError("the disk is gone")
        return X[index * 8 : index * 8 + 8], Y[index * 8 : index * 8 + 8]


@pytest.fixture(scope="module")
def model():
    """One that has been trained; every test leaves it as it found it."""
    model = plain(two_groups(keras.optimizers.Adam(1e-2), learning_rates=[1e-3, 1e-2]), metrics=["accuracy"])
    model.fit(X, Y, batch_size=8, verbose=0)
    return model


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError("full")], ids=repr)
def test_everything_is_given_back_after(error, model):
    before = everything(model)
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        lr_range_test(model, X, Y, batch_size=8, callbacks=[Raises(error)], **SHORT)
    assert caught.type is (error if isinstance(error, type) else type(error))
    assert_untouched(model, before)


def test_everything_is_given_back_after_an_error_in_the_data(model):
    before = everything(model)
    with pytest.raises(Exception, match="the disk is gone"):
        lr_range_test(model, Broken(), **SHORT)
    assert_untouched(model, before)


def test_everything_is_given_back_after_an_error_in_the_first_batch(model):
    """JAX has taken the state out of the model by then."""
    before = everything(model)
    with pytest.raises(Exception):  # noqa: B017, PT011 - the error of the backend
        lr_range_test(model, X[:, :3], Y, **SHORT)
    assert_untouched(model, before)


def test_everything_is_given_back_after_nan(model):
    before = everything(model)
    broken = X.copy()
    broken[40:] = np.nan
    test = lr_range_test(model, broken, Y, batch_size=8, **SHORT)
    assert test.curves[0].stopped == "not finite"
    assert_untouched(model, before)


def test_labels_that_do_not_fit_are_the_error_of_keras(model):
    with pytest.raises(Exception) as expected:  # noqa: PT011
        compiled().fit(X, np.zeros((len(X), 7)), verbose=0)
    before = everything(model)
    with pytest.raises(expected.type):
        lr_range_test(model, X, np.zeros((len(X), 7)), **SHORT)
    assert_untouched(model, before)


@pytest.mark.skipif(BACKEND != "torch", reason="gradients and modes are kept by PyTorch's modules only")
def test_gradients_and_modes_are_given_back():
    model = compiled()
    for mode in (True, False):
        model.train(mode)
        lr_range_test(model, X, Y, **SHORT)
        assert [v.value.grad for v in model.trainable_variables] == [None] * len(model.trainable_variables)
        assert {module.training for module in model.modules()} == {mode}


# What is measured


def losses_of_fit(model, n_steps):
    """Of one batch a step, which is an epoch."""
    return model.fit(Ordered(), epochs=n_steps, verbose=0).history["loss"]


def losses_of_steps(model, rates):
    """Of a loop over the same batch, which sets the rate of each step."""
    losses = []
    for rate in rates:
        model.optimizer.learning_rate = rate
        model.reset_metrics()  # older Keras goes on with the mean of the batches before
        losses.append(float(model.train_on_batch(X[:8], Y[:8], return_dict=True)["loss"]))
    return losses


def table(rates):
    return kadence.from_points(range(len(rates)), list(rates), "constant")


def test_the_losses_are_those_of_a_loop_that_sets_the_rate():
    """In mid-training, where the sweep still begins at lr_min, with the slots and the bias correction of Adam."""
    model = plain(keras.optimizers.Adam(1e-2))
    losses_of_fit(model, 12)
    test = lr_range_test(model, Ordered(), n_steps=20, lr_min=1e-4, lr_max=0.1)
    assert test.curves[0].stopped == "end"
    np.testing.assert_allclose(test.curves[0].losses, losses_of_steps(model, test.rates), rtol=1e-5)
    assert test.notes == ("The data has 1 batch, a sweep 20: it was gone through 20 times.",)


def test_all_groups_move_with_their_ratios():
    model = plain(two_groups(keras.optimizers.SGD(0.5), lr_multipliers=[0.25, kadence.Linear(0.5, 1.0, 100)]), **EAGER)
    test = lr_range_test(model, Ordered(), n_steps=20, lr_min=1e-3, lr_max=1.0)
    assert test.multipliers == {"group_1": 0.25, "group_2": 0.5}
    assert test.current_rates == {"group_1": 0.125, "group_2": 0.25}
    oracle = plain(
        two_groups(keras.optimizers.SGD(1.0), lr_multipliers=[table(test.rates / 4), table(test.rates / 2)]), **EAGER
    )
    np.testing.assert_allclose(test.curves[0].losses, losses_of_fit(oracle, 20), rtol=1e-5)


def test_each_group_is_swept_while_the_other_trains_at_its_rate():
    model = plain(two_groups(keras.optimizers.SGD(kadence.Linear(0.2, 0.0, 100)), lr_multipliers=[0.5, 1.0]))
    test = lr_range_test(model, Ordered(), n_steps=20, lr_min=1e-3, lr_max=1.0, per_group=True)
    assert [curve.group for curve in test.curves] == [curve.group for curve in test.baselines] == ["group_1", "group_2"]
    moved = {"group_1": [table(test.rates), 0.2], "group_2": [0.1, table(test.rates)]}
    stood = {"group_1": [0.0, 0.2], "group_2": [0.1, 0.0]}
    for curves, multipliers in ((test.curves, moved), (test.baselines, stood)):
        for curve in curves:
            oracle = plain(two_groups(keras.optimizers.SGD(1.0), lr_multipliers=multipliers[curve.group]), **EAGER)
            np.testing.assert_allclose(curve.losses, losses_of_fit(oracle, 20), rtol=1e-5)


def test_a_step_is_an_update_where_gradients_are_accumulated():
    model = plain(keras.optimizers.SGD(0.1, gradient_accumulation_steps=3), **EAGER)
    test = lr_range_test(model, Ordered(), n_steps=20, lr_min=1e-3, lr_max=1.0)
    oracle = plain(keras.optimizers.SGD(0.1), **EAGER)
    np.testing.assert_allclose(test.curves[0].losses, losses_of_steps(oracle, test.rates), rtol=1e-4)
    assert "a sweep 60" in test.notes[0]


def test_the_sweep_goes_on_where_a_loss_scale_skips_batches():
    """The scale is too large for the first batches: they leave the weights as they are."""

    def loss(y, out):
        return 1e3 * keras.losses.sparse_categorical_crossentropy(y, out, from_logits=True)

    inner = keras.optimizers.SGD(0.1)
    model = plain(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**127), loss=loss)
    test = lr_range_test(model, Ordered(), n_steps=20, lr_min=1e-5, lr_max=1e-3)
    losses = test.curves[0].losses
    skipped = int((losses == losses[0]).sum()) - 1
    assert 2 <= skipped <= 10
    assert len(losses) == 20
    rates = np.where(np.arange(20) < skipped, 0.0, test.rates)
    oracle = plain(keras.optimizers.SGD(table(rates)), loss=loss, **EAGER)
    np.testing.assert_allclose(losses, losses_of_fit(oracle, 20), rtol=1e-4)


class OfSizes(keras.utils.PyDataset):
    """A small batch, of large losses, comes first."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        n = 1 if index == 0 else 8 + index % 3
        return X[:n], np.full((n, 1), 100.0 if index == 0 else index, "float32")


@pytest.mark.parametrize(("kind", "metrics"), [(keras.Sequential, None), (keras.Sequential, ["mae"]), (OwnStep, None)])
def test_losses_are_those_of_each_batch_of_any_size_and_from_any_step(kind, metrics):
    keras.utils.set_random_seed(1)
    model = kind([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=metrics, jit_compile=BACKEND == "jax")
    predicted = keras.ops.convert_to_numpy(model(X[:10]))
    test = lr_range_test(model, OfSizes(), n_steps=20, lr_min=1e-12, lr_max=1e-9, seed=0, stop_factor=1e9)
    expected = [((predicted[: len(y)] - y) ** 2).mean() for _, y in map(OfSizes().__getitem__, range(20))]
    np.testing.assert_allclose(np.sort(test.curves[0].losses), np.sort(expected), rtol=1e-4)


def test_losses_on_held_out_data_are_those_after_each_step():
    """Within one epoch, over which Keras goes on with its means."""
    held_out = X[40:], Y[40:]
    model = plain(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    batches = ((X[:8], Y[:8]) for _ in range(100))
    test = lr_range_test(model, batches, n_steps=20, lr_min=1e-2, lr_max=1.0, validation_data=held_out, batch_size=99)
    assert test.loss == "validation"
    expected = []
    for rate in test.rates:
        losses_of_steps(model, [rate])
        expected.append(model.evaluate(*held_out, batch_size=99, verbose=0, return_dict=True)["loss"])
    np.testing.assert_allclose(test.curves[0].losses, expected, rtol=1e-4)


class Padded(keras.utils.PyDataset):
    """Every batch as wide as its longest text."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return np.ones((8, 5 + index % 2, 3), "float32"), np.ones((8, 1), "float32")


def test_held_out_batches_of_several_shapes():
    layers = [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((None, 3)), *layers])
    model.compile("sgd", "mse", **EAGER)
    test = lr_range_test(model, Padded(), validation_data=Padded(), **SHORT)
    assert len(test.curves[0].losses) == 20
    assert test.notes == (
        "The batches of `validation_data` differ in shape: the losses are those of its first batch alone.",
    )


def test_a_sweep_ends_where_the_smoothed_loss_has_risen(model):
    test = lr_range_test(model, X, Y, batch_size=8, n_steps=40, lr_min=1e-4, lr_max=1e4, stop_factor=2.0, seed=0)
    smoothed = test.smoothed()
    assert test.curves[0].stopped == "rose"
    assert len(smoothed) < 40
    lowest = np.minimum.accumulate(smoothed)
    assert (smoothed > 2.0 * lowest).tolist() == [False] * (len(smoothed) - 1) + [True]


def test_runs_have_orders_of_their_own_and_a_seed_repeats_them(model):
    drawn = lr_range_test(model, X, Y, batch_size=8, n_runs=2, **{**SHORT, "seed": None})
    again, other = (lr_range_test(model, X, Y, batch_size=8, **{**SHORT, "seed": drawn.seed + i}) for i in range(2))
    first, second = (curve.losses.tolist() for curve in drawn.curves)
    assert first != second
    assert again.curves[0].losses.tolist() == first
    assert other.curves[0].losses.tolist() not in (first, second)


def test_all_sweeps_share_one_compiled_step():
    traced = []

    def loss(y, out):
        traced.append(1)
        return keras.losses.sparse_categorical_crossentropy(y, out, from_logits=True)

    model = plain(two_groups(keras.optimizers.SGD(0.1), lr_multipliers=[0.1, 1.0]), loss=loss)
    lr_range_test(model, Ordered(), per_group=True, n_runs=2, **SHORT)
    n_steps = 2 * 2 * 2 * 20
    assert len(traced) == 1 + n_steps if BACKEND == "torch" else len(traced) <= 3


def test_a_test_is_not_compiled_for_the_settings_of_another(model):
    """JAX finds compiled steps by their function, and equal methods of a model are one function."""
    first = lr_range_test(model, X, Y, batch_size=8, **SHORT)
    kept = lr_range_test(model, X, Y, batch_size=8, **{**SHORT, "lr_min": 1e-2})
    assert kept.curves[0].losses[5] != first.curves[0].losses[5]


class FourBatches(keras.utils.PyDataset):
    """Four batches."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return X[index * 16 : index * 16 + 16], Y[index * 16 : index * 16 + 16]


def forever():
    while True:
        yield X[:16], Y[:16]


def kinds_of_data():
    x, y = X[:64], Y[:64]
    yield "arrays", lambda: ((x, y), {"batch_size": 16})
    yield "dataset", lambda: ((FourBatches(),), {})
    yield "generator", lambda: ((forever(),), {})
    if BACKEND == "tensorflow":
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices((x, y))
        yield "tf.data", lambda: ((dataset.batch(16),), {})
        yield "tf.data of unknown length", lambda: ((dataset.filter(lambda a, b: True).batch(16),), {})
    if BACKEND == "torch":
        import torch

        parts = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
        yield "DataLoader", lambda: ((torch.utils.data.DataLoader(parts, batch_size=16),), {})


@pytest.mark.parametrize(("kind", "make"), [pytest.param(*case, id=case[0]) for case in kinds_of_data()])
def test_whatever_fit_takes(kind, make, model):
    arguments, settings = make()
    test = lr_range_test(model, *arguments, **settings, **SHORT)
    assert len(test.curves[0].losses) == 20
    repeated = () if kind == "generator" else ("The data has 4 batches, a sweep 20: it was gone through 5 times.",)
    assert test.notes == repeated


def test_a_generator_that_ends_early_leaves_what_there_is(model):
    batches = ((X[i : i + 8], Y[i : i + 8]) for i in range(0, 56, 8))
    test = lr_range_test(model, batches, **SHORT)
    assert test.curves[0].stopped == "data"
    assert len(test.curves[0].losses) == 7
    assert test.notes == ("The generator ended after 7 of 20 batches.",)
    assert test.suggest().rate is None
    assert "data ended" in test.suggest().reasons["all"]


def test_a_group_without_trainable_weights_is_not_swept():
    model = plain(frozen_low, **EAGER)
    test = lr_range_test(model, X, Y, per_group=True, **SHORT)
    assert {curve.group for curve in test.curves} == {"group_2"}
    assert test.suggest().reasons["group_1"] == "it has no trainable weights"


def frozen_low(model):
    model.layers[0].trainable = False
    return two_groups(keras.optimizers.SGD(0.1), lr_multipliers=[0.1, 1.0])(model)


class NoConfig(keras.optimizers.schedules.LearningRateSchedule):
    """As in many tutorials: a schedule without get_config."""

    def __call__(self, step):
        return 0.1 / (1.0 + keras.ops.cast(step, "float32"))


@pytest.mark.parametrize("rate", [NoConfig(), lambda: 0.05], ids=["schedule", "function"])
def test_a_rate_that_has_no_config(rate):
    model = plain(keras.optimizers.Adam(rate), **EAGER)
    assert len(lr_range_test(model, X, Y, **SHORT).curves[0].losses) == 20
    assert model.optimizer._learning_rate is rate


def test_the_found_rates_go_into_an_optimizer():
    model = plain(two_groups(keras.optimizers.Adam(1e-3), lr_multipliers=[0.1, 1.0]))
    test = lr_range_test(model, X, Y, batch_size=32, n_steps=60, lr_min=1e-5, lr_max=10.0, seed=0)
    rates = test.suggest().learning_rates()
    assert rates == pytest.approx([0.1 * test.suggest().rate, test.suggest().rate])
    low, high = test.interval().rates["all"]
    assert 1e-5 < low < high < 10.0
    groups = kadence.split(model, at="head")
    kadence.DiscriminativeOptimizer(keras.optimizers.Adam(), groups, learning_rates=rates)


TWO_DEVICES = {
    "jax": """
import keras
keras.distribution.set_distribution(keras.distribution.DataParallel())
assert len(keras.distribution.list_devices()) == 2
import test_finder
test_finder.sweep_and_print()
""",
    "tensorflow": """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_finder
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    test_finder.sweep_and_print()
""",
}


def sweep_and_print():
    model = plain(two_groups(keras.optimizers.Adam(1e-2), lr_multipliers=[0.1, 1.0]))
    before = everything(model)
    test = lr_range_test(model, Ordered(), n_steps=20, lr_min=1e-4, lr_max=0.1)
    assert_untouched(model, before)
    print("losses", *test.curves[0].losses)
    model.fit(Ordered(), verbose=0)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="data parallelism of Keras is for JAX and TensorFlow")
def test_two_devices_sweep_as_one(capsys):
    paths = [str(Path(__file__).parent), str(Path(kadence.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "KERAS_BACKEND": BACKEND}
    environment = {**os.environ, **devices, "PYTHONPATH": os.pathsep.join(paths)}
    words = [sys.executable, "-c", TWO_DEVICES[BACKEND]]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sweep_and_print()
    losses = [[float(word) for word in out.split()[1:]] for out in (done.stdout, capsys.readouterr().out)]
    assert len(losses[0]) == 20
    np.testing.assert_allclose(*losses, rtol=1e-4)


# What is refused


@keras.saving.register_keras_serializable("kadence_tests")
class Stubborn(keras.optimizers.SGD):
    """Cannot be made from its config."""

    def __init__(self, secret):
        super().__init__(0.1)


BAD = {
    "n_steps": [(19, ValueError), (0, ValueError), (2.5, TypeError), (None, TypeError), (2**31, ValueError)],
    "n_runs": [(0, ValueError), (1.5, TypeError)],
    "lr_min": [(0.0, ValueError), (math.nan, ValueError), ("a", TypeError)],
    "lr_max": [(1e-7, ValueError), (1e-9, ValueError), (math.inf, ValueError)],
    "per_group": [(1, TypeError)],
    "stop_factor": [(1.0, ValueError), (math.nan, ValueError)],
    "seed": [(-1, ValueError), (0.5, TypeError)],
    "batch_size": [(0, ValueError), ("a", TypeError)],
}


@pytest.mark.parametrize(("name", "value", "error"), [(n, *case) for n, cases in BAD.items() for case in cases])
def test_bad_arguments(name, value, error, model):
    before = everything(model)
    with pytest.raises(error, match=rf"^`{name}` must .* Received: {name}="):
        lr_range_test(model, X, Y, **{name: value})
    assert_untouched(model, before)


def test_what_is_no_compiled_model():
    with pytest.raises(ValueError, match=r"`model` must be compiled, with an optimizer.*Call compile first"):
        lr_range_test(network(), X, Y)
    with pytest.raises(TypeError, match=r"`model` must be a keras.Model"):
        lr_range_test("model", X, Y)


@pytest.mark.parametrize("x", [X[:0], (batch for batch in ())], ids=["arrays", "generator"])
def test_no_data(x, model):
    before = everything(model)
    with pytest.raises(ValueError, match="at least one batch"):
        lr_range_test(model, x, Y[:0] if isinstance(x, np.ndarray) else None, **SHORT)
    assert_untouched(model, before)


def test_several_sweeps_of_a_generator(model):
    batches = ((X[:8], Y[:8]) for _ in range(1000))
    for arguments in ({"n_runs": 2}, {"per_group": True}):
        with pytest.raises(ValueError, match=r"`x` must be data that can be gone through again.*generator"):
            lr_range_test(model, batches, **arguments)


def test_groups_of_an_optimizer_without_groups():
    with pytest.raises(ValueError, match=r"`per_group` must be False.*DiscriminativeOptimizer"):
        lr_range_test(compiled(), X, Y, per_group=True)


def test_an_optimizer_that_cannot_be_made_again():
    model = compiled(Stubborn("x"))
    before = everything(model)
    with pytest.raises(ValueError, match=r"`model.optimizer` must be of a class that can be made from its own config"):
        lr_range_test(model, X, Y)
    assert_untouched(model, before)


def test_no_warning_is_let_out(model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lr_range_test(model, FourBatches(), **SHORT)
    assert [w.message for w in caught if issubclass(w.category, UserWarning)] == []
