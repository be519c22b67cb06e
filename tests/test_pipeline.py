"""A model whose `fit` prepares its data and takes no PyDataset, as KerasHub's tasks do: in all that trains it."""

import keras
import models
import numpy as np
import pytest

import kadence
from kadence._pipeline import Prepared, fit, follow_epochs, method, prepared
from kadence._trial_data import ArrayBatches

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 64)
#: Each is another, and its length tells its label.
WORDS = np.array([f"{number:03}{'+' * (3 * label)}" for number, label in enumerate(LABELS)])


class Task(keras.Model):
    """Prepares words in `fit` and `evaluate`, where it takes arrays alone."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.preprocessor = lambda words: np.array([[len(word), 1.0] for word in words], "float32")
        self.seen = []

    def preprocess_samples(self, x, y=None, sample_weight=None):
        if self.preprocessor is not None:
            self.seen.append(type(x))
            x = self.preprocessor(x)
        return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

    def fit(self, x, y=None, batch_size=None, **kwargs):
        return super().fit(*self.preprocess_samples(x, y), batch_size=batch_size, **kwargs)

    def evaluate(self, x, y=None, batch_size=None, **kwargs):
        if kwargs.get("_use_cached_eval_dataset"):
            return super().evaluate(x, y, batch_size, **kwargs)
        return super().evaluate(*self.preprocess_samples(x, y), batch_size=batch_size, **kwargs)

    def test_on_batch(self, x, y=None, **kwargs):
        return super().test_on_batch(*self.preprocess_samples(x, y), **kwargs)


def build(seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((2,), name="in")
    features = keras.layers.Dense(4, "tanh", name="b")(keras.layers.Dense(4, "tanh", name="a")(inputs))
    model = Task(inputs, keras.layers.Dense(2, "softmax", name="head")(features))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def plain_batches(n=64):
    return ArrayBatches((WORDS[:n], LABELS[:n]), 16)


def weights(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def test_batches_are_prepared_once_texts_as_lists():
    model = build()
    batches = prepared(model, plain_batches())
    x, y = batches[0]
    assert isinstance(batches, Prepared)
    assert len(batches) == 4
    np.testing.assert_array_equal(x[:, 0], [len(word) for word in WORDS[:16]])
    np.testing.assert_array_equal(y, LABELS[:16])
    assert model.seen == [list]
    assert prepared(model, batches) is batches


def test_an_order_is_passed_on():
    batches = prepared(build(), ArrayBatches((WORDS, LABELS), 16, seed=3))
    first = batches[0][1]
    batches.set_epoch(1)
    assert (batches[0][1] != first).any()


def test_other_models_are_left_alone():
    model, batches = models.sequential(), plain_batches()
    assert prepared(model, batches) is batches
    assert method(model, "fit", batches) == model.fit


def test_batches_are_told_their_epoch_where_they_can_be():
    assert follow_epochs([]) == []
    batches = ArrayBatches((np.arange(64), LABELS), 16, seed=3)
    (callback,) = follow_epochs(batches)
    first = batches[0][0]
    callback.on_epoch_begin(1, {})
    assert (batches[0][0] != first).any()


class Counted(keras.layers.Layer):
    """Counts the times that a backend goes through it in training."""

    n = 0

    def call(self, inputs, training=False):
        self.n += bool(training)
        return inputs


def trained(how, compiled):
    keras.utils.set_random_seed(0)
    counted = Counted()
    layers = [keras.layers.Dense(4, "tanh"), keras.layers.Dropout(0.5), counted, keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((2,)), *layers])
    model.compile("adam", "mse", metrics=["mae"], **compiled)
    x = np.random.default_rng(0).random((64, 2))
    how(model, ArrayBatches((x, x.sum(1, keepdims=True)), 16))
    return weights(model), counted.n


@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}])
def test_fit_is_that_of_keras_but_traced_once(compiled):
    keras_fit, _ = trained(lambda model, batches: model.fit(batches, epochs=2, shuffle=False, verbose=0), compiled)
    ours, n = trained(lambda model, batches: fit(model, batches, [], epochs=2, verbose=0), compiled)
    for mine, other in zip(ours, keras_fit, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert n == 1 or keras.backend.backend() != "tensorflow" or compiled


def test_what_is_wrong_with_a_model_is_said_by_fit():
    model = models.sequential()
    model.compile("adam", lambda y_true, y_pred: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(model, ArrayBatches((np.ones((8, *model.input_shape[1:])), np.ones((8, 1))), 4), [], verbose=0)


@pytest.mark.parametrize("rates", ["find", (0.01, 0.02, 0.03)])
def test_fine_tune_trains_it_on_what_it_prepares(rates):
    data = (WORDS, LABELS)
    model = build()
    result = kadence.fine_tune(model, data, data, epochs=6, freeze_epochs=2, rates=rates, seed=0, verbose=0)
    assert result.history[-1]["val_loss"] < result.history[0]["val_loss"]
    plain = build()
    plain.preprocessor = None
    ready = (build().preprocessor(data[0].tolist()), LABELS)
    kadence.fine_tune(plain, ready, ready, epochs=6, freeze_epochs=2, rates=rates, seed=0, verbose=0)
    for mine, other in zip(weights(model), weights(plain), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_a_range_test_takes_arrays_and_batches():
    model, before = build(), weights(build())
    tests = [
        kadence.lr_range_test(model, *data, n_steps=20, seed=0, lr_max=1.0, batch_size=size)
        for data, size in (((WORDS.tolist(), LABELS), 16), ((plain_batches(),), None))
    ]
    assert all(len(test.curves[0].losses) == 20 for test in tests)
    for mine, other in zip(weights(model), before, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_comparison_trains_it():
    data = [(WORDS[part], LABELS[part]) for part in (slice(32), slice(32, 64))]
    strategies = [kadence.Strategy("constant"), kadence.Strategy("cosine", schedule="cosine")]
    found = kadence.compare(build, *data, strategies, seeds=2, epochs=1, rates=[0.05])
    assert len(found.rows) == 2


def test_a_dataset_that_cannot_be_indexed_is_refused_unless_nothing_is_to_prepare():
    class Stream:
        def __len__(self):
            return 1

        def __iter__(self):
            return iter([(WORDS, LABELS)])

    model = build()
    with pytest.raises(TypeError, match="be arrays or a PyDataset"):
        kadence.fine_tune(model, Stream(), epochs=2, verbose=0)
    model.preprocessor = None
    assert prepared(model, stream := Stream()) is stream
