import keras
import models
import numpy as np
import pytest
import tiny

from kadence import average_weights
from kadence._snapshot_files import Snapshot, arrays_of, save_weights, write_index

RNG = np.random.default_rng(0)
BATCHES = [RNG.normal(2.0, 3.0, (8, 2)).astype("float32") for _ in range(3)]


def new_model():
    layers = [keras.layers.Dense(3, name="dense"), keras.layers.BatchNormalization(name="norm")]
    return keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dropout(0.5)])


def write(folder, n=3, same_statistics=False):
    """`n` snapshots with random weights; returns the arrays of each."""
    members, model = [], new_model()
    for number in range(n):
        arrays = [RNG.uniform(0.5, 1.5, w.shape).astype("float32") for w in model.weights]
        if same_statistics and members:
            arrays[-2:] = members[0][-2:]
        model.set_weights(arrays)
        save_weights(model, folder / f"s{number}.weights.h5")
        members.append(arrays)
    write_index(folder, [Snapshot(f"s{number}.weights.h5", number, 1) for number in range(n)])
    return members


def test_the_mean_of_the_weights_and_statistics_of_the_data(tmp_path):
    members, model = write(tmp_path), new_model()
    assert average_weights(model, tmp_path, batches=BATCHES) == 3
    kernel, bias, gamma, beta, mean, variance = arrays_of(model.weights)
    for got, position in ((kernel, 0), (bias, 1), (gamma, 2), (beta, 3)):
        expected = np.mean([member[position].astype("float64") for member in members], axis=0)
        np.testing.assert_array_equal(got, expected.astype("float32"))
    outputs = [batch.astype("float64") @ kernel + bias for batch in BATCHES]
    np.testing.assert_allclose(mean, np.mean([out.mean(0) for out in outputs], axis=0), rtol=1e-4)
    np.testing.assert_allclose(variance, np.mean([out.var(0) for out in outputs], axis=0), rtol=1e-4)


def test_the_last_and_weighted(tmp_path):
    members, model = write(tmp_path), new_model()
    assert average_weights(model, tmp_path, last=2, weights=[3, 1], batches=iter(BATCHES)) == 2
    np.testing.assert_allclose(arrays_of(model.weights)[0], 0.75 * members[1][0] + 0.25 * members[2][0], rtol=1e-6)
    assert average_weights(model, [tmp_path / "s1.weights.h5"]) == 1
    assert all(tiny.same(a, b) for a, b in zip(arrays_of(model.weights), members[1], strict=True))


def test_statistics_that_stood_still_need_no_data(tmp_path):
    members, model = write(tmp_path, same_statistics=True), new_model()
    average_weights(model, tmp_path)
    np.testing.assert_allclose(arrays_of(model.weights)[-1], members[0][-1], rtol=1e-6)
    average_weights(model, tmp_path, batches=BATCHES)  # and are not computed anew from it
    np.testing.assert_allclose(arrays_of(model.weights)[-1], members[0][-1], rtol=1e-6)


def test_stale_statistics_are_refused_and_the_weights_are_as_before(tmp_path):
    write(tmp_path)
    model = new_model()
    before = arrays_of(model.variables)
    with pytest.raises(ValueError, match="`batches` must be training data: the snapshots differ"):
        average_weights(model, tmp_path)
    for error in (RuntimeError, KeyboardInterrupt):

        def broken(error=error):
            yield BATCHES[0]
            raise error

        with pytest.raises(error):
            average_weights(model, tmp_path, batches=broken())
    assert all(tiny.same(old, new) for old, new in zip(before, arrays_of(model.variables), strict=True))


def test_weights_that_are_not_numbers_with_a_point_are_the_last(tmp_path):
    class Counter(keras.layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="count")
            self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

        def call(self, x):
            return x * self.scale

    model = keras.Sequential([keras.Input((1,)), Counter()])
    for number in (1, 4):
        for weight in model.weights:
            weight.assign(number)
        save_weights(model, tmp_path / f"{number}.weights.h5")
    average_weights(model, sorted(tmp_path.iterdir()))
    assert {w.name: float(a) for w, a in zip(model.weights, arrays_of(model.weights), strict=True)} == {
        "count": 4.0,
        "scale": 2.5,
    }
    assert [w.dtype for w in model.weights if w.name == "count"] == ["int32"]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="modules of PyTorch")
def test_statistics_in_buffers_of_modules(tmp_path):
    model = models.torch_module()
    norm = model.get_layer("norm").module
    for number, mean in enumerate((1.0, 1.0, 2.0)):
        norm.running_mean.fill_(mean)
        save_weights(model, tmp_path / f"{number}.weights.h5")
    files = sorted(tmp_path.iterdir())
    norm.running_mean.fill_(7.0)
    with pytest.raises(ValueError, match=r"`source` must be snapshots with the same buffers.*2\.weights\.h5"):
        average_weights(model, files, batches=BATCHES)
    assert norm.running_mean.tolist() == [7.0, 7.0]
    average_weights(model, files[:2])
    assert norm.running_mean.tolist() == [1.0, 1.0]


def test_errors(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="`weights` must hold one share for each of the 3 snapshots"):
        average_weights(new_model(), tmp_path, weights=[1.0])
    with pytest.raises(TypeError, match=r"`model` must be a keras\.Model"):
        average_weights("model", tmp_path)
    with pytest.raises(FileNotFoundError, match="`source` must be"):
        average_weights(new_model(), tmp_path / "none")
