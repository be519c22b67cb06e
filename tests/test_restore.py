import signal

import keras
import models
import numpy as np
import pytest
from range_tests import assert_untouched, compiled, data, everything

from kadence._restore import ModelState, _uninterrupted, given_back

X, Y = data()
DATA = {"x": X, "y": Y, "batch_size": 8}


@pytest.fixture(scope="module")
def model():
    model = compiled(run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    model.evaluate(X[:8], Y[:8], verbose=0)
    return model


def spoil(model):
    """As a `fit` that was broken off may leave it."""
    for variable in [*model.variables, *model.metrics_variables]:
        variable.assign(np.ones(variable.shape))
        if keras.backend.backend() == "jax":
            variable._value = None
    model.stop_training = True
    model.steps_per_execution = 7
    vars(model).update(train_function=print, _initial_epoch=3, train_step=print)


def test_a_spoilt_model_is_put_back(model):
    before = everything(model)
    with given_back(model, DATA):
        spoil(model)
    assert_untouched(model, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_also_after_an_error(error, model):
    def broken():
        with given_back(model, DATA):
            spoil(model)
            raise error

    before = everything(model)
    with pytest.raises(error):
        broken()
    assert_untouched(model, before)


def test_variables_can_be_put_back_again_and_again(model):
    before = everything(model)
    with given_back(model, DATA) as state:
        for _ in range(3):
            for variable in model.trainable_variables:
                variable.assign(np.ones(variable.shape))
            state.put_back_variables()
            assert_untouched(model, before)


def test_loss_and_metrics_that_are_not_built_stay_so():
    """Keras would draw another order of the data for them in the next fit."""
    model = compiled(run_eagerly=True)
    loss, metrics = model._compile_loss, model._compile_metrics
    with given_back(model, DATA):
        assert model._compile_loss is not loss
        model.evaluate(X[:8], Y[:8], verbose=0)
    assert model._compile_loss is loss
    assert model._compile_metrics is metrics
    assert not loss.built
    assert not metrics.built


def test_a_metric_object_that_is_not_built_begins_anew():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    seen = keras.metrics.MeanAbsoluteError(name="seen")
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[seen])
    x = np.ones((4, 1), np.float32)
    with given_back(model, {"x": x, "y": 100 * x, "batch_size": 4}):
        model.fit(x, 100 * x, verbose=0)
    assert model.fit(x, x, verbose=0).history["seen"] == [1.0]


def test_a_model_is_built_before_its_state_is_taken():
    model = compiled(built=False, run_eagerly=True)
    state = ModelState(model, DATA)
    assert model.built
    weights = model.get_weights()
    for variable in model.variables:
        variable.assign(np.ones(variable.shape))
    state.put_back()
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


class WithoutCall(keras.Model):
    """Trains its layers in a `train_step` alone."""

    def __init__(self, *layers):
        super().__init__()
        self.net = keras.Sequential(list(layers))


def test_a_model_without_call_is_taken_as_it_is():
    model = WithoutCall(keras.Input((2,)), keras.layers.Dense(1))
    model.compile("sgd")
    before = model.get_weights()
    with given_back(model, {"x": None}):
        for variable in model.variables:
            variable.assign(np.ones(variable.shape))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_without_call_whose_layers_are_not_built_is_the_error_of_keras():
    model = WithoutCall(keras.layers.Dense(1))
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(Exception, match=r"does not have a `call\(\)` method"):
        ModelState(model, DATA)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="modules of PyTorch")
def test_buffers_of_modules_are_put_back():
    model = models.torch_module()
    model.compile("sgd", "mse")
    norm = model.get_layer("norm").module
    x = np.full((8, 2), 5.0, "float32")
    with given_back(model, {"x": x, "y": x}) as state:
        for _ in range(2):
            model.fit(x, x, verbose=0)
            assert norm.running_mean.tolist() != [0.0, 0.0]
            assert int(norm.num_batches_tracked) == 1
            state.put_back_variables()
            assert norm.running_mean.tolist() == [0.0, 0.0]
            assert int(norm.num_batches_tracked) == 0
        model.fit(x, x, verbose=0)
    assert norm.running_mean.tolist() == [0.0, 0.0]


def test_a_model_that_cannot_be_built_keeps_its_parts():
    model = compiled(built=False, run_eagerly=True)
    loss = model._compile_loss
    with pytest.raises(Exception):  # noqa: B017, PT011 - the error of the backend
        ModelState(model, {"x": np.zeros((8, 3, 0)), "y": Y[:8]})
    assert model._compile_loss is loss


def test_ctrl_c_waits_for_the_end():
    done = []

    def interrupted():
        with _uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append(True)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [True]
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow tracks what a model is given")
def test_the_model_does_not_keep_track_of_the_stand_in(model):
    before = sorted(model._trackable_children())
    with given_back(model, DATA):
        vars(model)["optimizer"] = keras.optimizers.SGD()
    assert sorted(model._trackable_children()) == before
