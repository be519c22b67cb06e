"""Training on stored features, against training the whole model on the same batches."""

import os

import keras
import numpy as np
import pytest
import tiny

import kadence
from kadence import FeatureBatches, cache_features, freeze_to
from kadence._snapshot_files import arrays_of

BACKEND = keras.backend.backend()
JIT = "auto" if BACKEND == "jax" else False
RNG = np.random.default_rng(0)
X = RNG.normal(size=(22, 6, 6, 2)).astype("float32")
Y = RNG.integers(3, size=22)


def new_model(dropout=0.0):
    """A nested backbone with BatchNormalization that has seen other data, and a head."""
    keras.utils.set_random_seed(3)
    inner = keras.Input((6, 6, 2), name="inner_in")
    x = keras.layers.Conv2D(4, 3, name="low")(inner)
    x = keras.layers.ReLU(name="relu")(keras.layers.BatchNormalization(name="norm")(x))
    x = keras.layers.Conv2D(5, 3, name="middle")(x)
    backbone = keras.Model(inner, x, name="backbone")
    backbone.get_layer("norm").moving_mean.assign([0.1, 0.2, 0.3, 0.4])
    inputs = keras.Input((6, 6, 2), name="in")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone(inputs))
    x = keras.layers.Dropout(dropout, name="drop")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="head")(x))
    return model, kadence.split(model, ["middle", "pool"])


def compiled(model):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=JIT)
    return model


def assert_close(one, other):
    for a, b in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(*arrays_of([a, b]), rtol=1e-4, atol=1e-6, err_msg=a.path)


@pytest.mark.parametrize("group", [2, 1], ids=["head", "inside the backbone"])
def test_the_same_weights_as_without(group):
    whole, groups = new_model()
    freeze_to(whole, group, groups)
    batches = FeatureBatches(X, Y, batch_size=8, shuffle=True, seed=5)
    expected = compiled(whole).fit(batches, epochs=3, verbose=0, shuffle=False, callbacks=[batches.follow_epochs()])

    model, groups = new_model()
    freeze_to(model, group, groups)
    before = arrays_of(model.weights)
    with cache_features(model, groups[group], X, Y, batch_size=8) as cached:
        assert cached.features.shape == ((22, 5) if group == 2 else (22, 4, 4, 4))
        batches = cached.batches(8, shuffle=True, seed=5)
        history = compiled(cached.model).fit(
            batches, epochs=3, verbose=0, shuffle=False, callbacks=[batches.follow_epochs()]
        )
    assert_close(model, whole)
    np.testing.assert_allclose(history.history["loss"], expected.history["loss"], rtol=1e-5)
    moved = [w.path for w, old in zip(model.weights, before, strict=True) if not tiny.same(*arrays_of([w]), old)]
    assert set(moved) == {w.path for g in groups[group:] for w in g.variables}


def test_the_optimizer_of_the_whole_goes_on_with_the_rest():
    model, groups = new_model()
    freeze_to(model, -1, groups)
    optimizer = kadence.DiscriminativeOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), groups, [0.1, 0.5, 1.0])
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=JIT)
    cached = cache_features(model, groups[-1], X, Y)
    cached.model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=JIT)
    cached.model.fit(cached.batches(11), verbose=0, shuffle=False)
    kadence.unfreeze(model)
    assert int(optimizer.iterations) == 2
    momenta = [m for m in optimizer.inner_optimizer.momentums if float(np.abs(arrays_of([m])[0]).sum()) > 0]
    assert len(momenta) == 2, "those of the head"
    model.fit(X, Y, batch_size=11, verbose=0)
    assert int(optimizer.iterations) == 4


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        return X[rows], Y[rows], np.arange(22.0)[rows]


@pytest.fixture(scope="module")
def frozen():
    model, groups = new_model()
    freeze_to(model, -1, groups)
    return model, groups


def test_arrays_and_datasets_in_memory_and_in_a_file(frozen, tmp_path, monkeypatch):
    model, groups = frozen
    expected = cache_features(model, groups[-1], X, Y, batch_size=8)
    assert isinstance(expected.model, keras.Model)
    whole = model.predict(X, verbose=0)
    np.testing.assert_allclose(expected.model.predict(expected.features, verbose=0), whole, rtol=1e-5)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for limit in (0, 200, 2**30):
        cached = cache_features(model, groups[-1], Pairs(), memory_limit_bytes=limit)
        assert isinstance(cached.features, np.memmap) == (limit < 2**30)
        np.testing.assert_array_equal(np.asarray(cached.features), expected.features)
        assert cached.y.tolist() == Y.tolist()
        assert cached.sample_weight.tolist() == list(range(22))
        batch = cached.batches(10)[2]
        assert [len(part) for part in batch] == [2, 2, 2]
        if os.name == "posix":
            assert list(tmp_path.iterdir()) == [], "the file has no name, so that nothing can leave it behind"
        cached.close()
        with pytest.raises(ValueError, match="`features` must be in use"):
            cached.batches()


def test_inputs_alone_and_an_iterator(frozen):
    model, groups = frozen
    cached = cache_features(model, groups[-1], iter([X[:8], X[8:]]))
    assert (len(cached.features), cached.y) == (22, None)
    assert [len(part) for part in cached.batches(22)[0]] == [22]


class MeanOutput(keras.Model):
    """Trains without targets: its loss is the weighted mean of the outputs."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        assert y is None
        return keras.ops.sum(y_pred[:, 0] * keras.ops.cast(sample_weight, "float32"))


def test_weights_without_targets_are_weights():
    weights = np.arange(1.0, 9.0, dtype="float32")
    batches = FeatureBatches(np.ones((8, 2), "float32"), None, weights, batch_size=4)
    x, y, w = batches[1]
    assert (x.shape, y, w.tolist()) == ((4, 2), None, [5, 6, 7, 8])
    if BACKEND == "tensorflow":
        return  # Keras takes no None from a PyDataset there
    inputs = keras.Input((2,))
    model = MeanOutput(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    before = arrays_of(model.weights)[0]
    model.compile(keras.optimizers.SGD(0.01), jit_compile=JIT)
    model.fit(batches, verbose=0, shuffle=False)
    np.testing.assert_allclose(arrays_of(model.weights)[0], before - 0.36, rtol=1e-5)


def test_orders_of_epochs():
    batches = FeatureBatches(np.arange(10), batch_size=4, shuffle=True, seed=1)
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        epochs.append(np.concatenate([batches[i][0] for i in range(len(batches))]).tolist())
    assert epochs[0] == epochs[2] != epochs[1]
    assert sorted(epochs[1]) == list(range(10))
    assert epochs[0] == np.random.default_rng([1, 0]).permutation(10).tolist()


def test_what_is_not_frozen_is_refused():
    model, groups = new_model()
    with pytest.raises(ValueError, match=r"`model` must be frozen before the cut; 3 layers are not, the first 'low'"):
        cache_features(model, groups[-1], X, Y)
    freeze_to(model, -1, groups)
    model.get_layer("backbone").get_layer("norm").trainable = True
    with pytest.raises(ValueError, match="1 layers are not, the first 'norm'"):
        cache_features(model, groups[-1], X, Y)


def test_randomness_before_the_cut_is_refused_or_off():
    model, groups = new_model(dropout=0.5)
    freeze_to(model, -1, groups)
    assert cache_features(model, "drop", X, Y).model.layers[1].name == "drop", "behind the cut it may be"
    with pytest.raises(ValueError, match=r"`model` must hold nothing random before the cut.*'drop'.*ignore_random"):
        cache_features(model, "head", X, Y)
    assert cache_features(model, "head", X, Y, ignore_random=True).features.shape == (22, 5)


def test_errors(frozen):
    model, groups = frozen
    with pytest.raises(ValueError, match=r"`y` must have 22 rows, as `x` has. Received: y=21"):
        cache_features(model, groups[-1], X, Y[:-1])
    with pytest.raises(ValueError, match=r"`x` must hold at least one batch"):
        cache_features(model, groups[-1], iter([]))
    with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1"):
        cache_features(model, groups[-1], X, batch_size=0)
    with pytest.raises(ValueError, match="`memory_limit_bytes` must be an integer"):
        cache_features(model, groups[-1], X, memory_limit_bytes=-1)
    with pytest.raises(TypeError, match="`ignore_random` must be True or False"):
        cache_features(model, groups[-1], X, ignore_random=1)
    with pytest.raises(TypeError, match="`at` must name layers by string or by layer object"):
        cache_features(model, 3, X)


@pytest.mark.slow
def test_the_real_backbone_gives_the_same_head():
    def build():
        keras.utils.set_random_seed(0)
        backbone = kadence.load_backbone("efficientnet_lite0", image_size=64).model
        x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.output)
        model = keras.Model(backbone.input, keras.layers.Dense(3, activation="softmax", name="head")(x))
        groups = kadence.split(model, ["block5_0_expand_conv", "pool"])
        freeze_to(model, -1, groups)
        return model, groups

    photos = RNG.integers(0, 256, (24, 64, 64, 3)).astype("float32")
    labels = RNG.integers(3, size=24)
    whole, _ = build()
    compiled(whole).fit(photos, labels, 8, 2, 0, shuffle=False)
    model, groups = build()
    cached = cache_features(model, groups[-1], photos, labels, batch_size=8)
    compiled(cached.model).fit(cached.batches(8), epochs=2, verbose=0, shuffle=False)
    for a, b in zip(model.get_layer("head").weights, whole.get_layer("head").weights, strict=True):
        np.testing.assert_allclose(*arrays_of([a, b]), rtol=1e-3, atol=1e-5)
