"""The averaged prediction, against the average of the members' own, and what is given back."""

import keras
import numpy as np
import pytest
import tiny

import kadence
from kadence import SnapshotEnsemble, _arrays
from kadence._snapshot_files import Snapshot, arrays_of, save_weights, write_index

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 3)).astype("float32")
Y = RNG.integers(4, size=10)
KERNELS = [RNG.normal(size=(3, 4)) for _ in range(3)]


def softmax(kernel, x=X):
    powers = np.exp(x.astype("float64") @ kernel.astype("float32"))
    return powers / powers.sum(1, keepdims=True)


MEMBERS = np.array([softmax(kernel) for kernel in KERNELS])


def new_model(compiled=True):
    head = keras.layers.Dense(4, activation="softmax", use_bias=False, kernel_regularizer="l2", name="head")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5), head])
    if compiled:
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("snapshots"), new_model()
    for number, kernel in enumerate(KERNELS):
        model.set_weights([kernel])
        save_weights(model, folder / f"s{number}.weights.h5")
    write_index(folder, [Snapshot(f"s{number}.weights.h5", number, 1) for number in range(3)])
    return folder


@pytest.fixture
def model():
    return new_model()


@pytest.fixture
def ensemble(folder, model):
    return SnapshotEnsemble.load(folder, model)


@pytest.fixture(autouse=True)
def given_back(model):
    """Whatever a test does, the model holds its own weights and seeds afterwards."""
    before = arrays_of(model.variables)
    yield
    for old, new in zip(before, arrays_of(model.variables), strict=True):
        assert tiny.same(old, new)


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]


def test_predict_is_the_mean_of_the_members(ensemble):
    assert len(ensemble) == 3
    for data, size in ((X, None), (X, 3), (Pairs(), None)):
        predicted = ensemble.predict(data, size)
        assert predicted.dtype == np.float32
        np.testing.assert_allclose(predicted, MEMBERS.mean(0), rtol=1e-5)


def test_the_last_snapshots_and_files_in_any_order(folder, model):
    np.testing.assert_allclose(SnapshotEnsemble.load(folder, model, last=2).predict(X), MEMBERS[1:].mean(0), rtol=1e-5)
    files = [str(folder / "s2.weights.h5"), folder / "s0.weights.h5"]
    weighted = SnapshotEnsemble(model, files, weights=[3, 1]).predict(X)
    np.testing.assert_allclose(weighted, 0.75 * MEMBERS[2] + 0.25 * MEMBERS[0], rtol=1e-5)


def test_evaluate_scores_the_mean_output(ensemble, model):
    mean = MEMBERS.mean(0)
    expected = {"loss": -np.log(mean[np.arange(10), Y]).mean(), "accuracy": (mean.argmax(1) == Y).mean()}
    for arguments in ({"x": X, "y": Y}, {"x": X, "y": Y.tolist(), "batch_size": 3}, {"x": Pairs()}):
        assert ensemble.evaluate(**arguments) == pytest.approx(expected, rel=1e-5)
    weights = np.arange(10.0)
    weighted = ensemble.evaluate(X, Y, weights, batch_size=10)["loss"]
    assert weighted == pytest.approx((-np.log(mean[np.arange(10), Y]) * weights).mean(), rel=1e-5)
    model.evaluate(X, Y, verbose=0)  # the metrics are as new


def test_weigh_follows_the_formula(ensemble):
    losses = -np.log(MEMBERS[:, np.arange(10), Y]).mean(1)
    np.testing.assert_allclose(ensemble.weigh(X, Y, batch_size=4), losses, rtol=1e-5)
    np.testing.assert_allclose(ensemble.weights, np.exp(-losses) / np.exp(-losses).sum(), rtol=1e-5)
    np.testing.assert_allclose(ensemble.predict(X), np.tensordot(ensemble.weights, MEMBERS, 1), rtol=1e-5)
    ensemble.weigh(X, Y, temperature=1e-4)
    assert ensemble.weights.argmax() == losses.argmin()
    assert ensemble.weights.max() > 0.999
    ensemble.weigh(Pairs(), temperature=1e6)
    np.testing.assert_allclose(ensemble.weights, 1 / 3, rtol=1e-5)


class NoPairs(Pairs):
    def __len__(self):
        return 0


class Shuffled(Pairs):
    """In another order at each pass."""

    def __getitem__(self, index):
        if index == 0:
            self.order = RNG.permutation(10)
        rows = self.order[4 * index : 4 * index + 4]
        return X[rows], Y[rows], rows / 5.0


@pytest.mark.parametrize("chunk", [2**30, 1])
def test_data_that_shuffles(ensemble, model, monkeypatch, chunk):
    monkeypatch.setattr(_arrays, "_CHUNK_BYTES", chunk)
    weights = np.arange(10) / 5.0
    expected = ensemble.evaluate(X, Y, weights, batch_size=10)
    assert ensemble.evaluate(Shuffled(), batch_size=10) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(ensemble.weigh(Shuffled()), ensemble.weigh(X, Y, weights), rtol=1e-5)
    np.testing.assert_allclose(ensemble.disagreement(Shuffled()), ensemble.disagreement(X), atol=1e-12)


def test_metrics_of_several_values(folder, model):
    model.compile("sgd", "categorical_crossentropy", metrics=[keras.metrics.F1Score()], jit_compile=False)
    ensemble, targets = SnapshotEnsemble.load(folder, model), np.eye(4)[Y]
    metric = keras.metrics.F1Score()
    metric.update_state(targets, MEMBERS.mean(0))
    expected = float(np.mean(keras.ops.convert_to_numpy(metric.result())))
    assert ensemble.evaluate(X, targets)["f1_score"] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(ensemble.weigh(X, targets), -np.log(MEMBERS[:, np.arange(10), Y]).mean(1), rtol=1e-5)


def test_disagreement(ensemble):
    classes = MEMBERS.argmax(2)
    expected = np.mean(classes[:, None] != classes[None], axis=2)
    assert expected.max() > 0
    np.testing.assert_allclose(ensemble.disagreement(X), expected)


def test_disagreement_of_a_single_output(tmp_path, model):
    single = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, activation="sigmoid")])
    for number, kernel in enumerate((1.0, -1.0)):
        single.set_weights([np.array([[kernel]]), np.zeros(1)])
        save_weights(single, tmp_path / f"{number}.weights.h5")
    ensemble = SnapshotEnsemble(single, sorted(tmp_path.iterdir()))
    assert ensemble.disagreement(np.array([[1.0], [2.0], [0.0], [-1.0]])).tolist() == [[0.0, 0.75], [0.75, 0.0]]


def test_several_outputs_are_averaged_one_by_one(tmp_path, model):
    def build(value):
        inputs = keras.Input((2,), name="in")
        a, b = (keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(value), name=n) for n in "ab")
        return keras.Model(inputs, {"a": a(inputs), "b": b(inputs)})

    for value in (1.0, 3.0):
        save_weights(build(value), tmp_path / f"{value}.weights.h5")
    both = build(0.0)
    both.compile("sgd", {"a": "mse", "b": "mae"}, jit_compile=False)
    ensemble = SnapshotEnsemble(both, sorted(tmp_path.iterdir()))
    x = np.ones((2, 2), "float32")
    assert {name: a.tolist() for name, a in ensemble.predict(x).items()} == {"a": [[4], [4]], "b": [[4], [4]]}
    assert ensemble.evaluate(x, {"a": np.zeros((2, 1)), "b": np.zeros((2, 1))})["loss"] == pytest.approx(16 + 4)
    with pytest.raises(ValueError, match="`model` must have one output"):
        ensemble.disagreement(x)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_within_predict_gives_the_weights_back(ensemble, model, error):
    """On JAX, the variables are empty at that moment."""

    class Broken(Pairs):
        def __getitem__(self, index):
            if index == 1:
                raise error
            return super().__getitem__(index)

    with pytest.raises(error):
        ensemble.predict(Broken())
    before = arrays_of(model.variables)
    # A later callback of Keras must not find the weights of the snapshot.
    model.evaluate(X, Y, verbose=0, callbacks=[keras.callbacks.LambdaCallback()])
    for old, new in zip(before, arrays_of(model.variables), strict=True):
        assert tiny.same(old, new)


def test_errors(folder, model, ensemble, tmp_path):
    with pytest.raises(TypeError, match="`x` must be data that can be read more than once"):
        ensemble.predict(iter([X]))
    with pytest.raises(ValueError, match="`y` must be the targets"):
        ensemble.evaluate(X)
    with pytest.raises(ValueError, match="`x` must hold at least one batch"):
        ensemble.evaluate(NoPairs())
    with pytest.raises(ValueError, match="`y` must hold one target for each of the 10 samples"):
        ensemble.evaluate(X, Y[:9])
    with pytest.raises(ValueError, match="`temperature` must"):
        ensemble.weigh(X, Y, temperature=0)
    with pytest.raises(ValueError, match="`model` must be compiled with a loss"):
        SnapshotEnsemble.load(folder, new_model(compiled=False)).evaluate(X, Y)
    with pytest.raises(FileNotFoundError, match="`source` must be a folder with snapshots"):
        SnapshotEnsemble.load(tmp_path, model)
    with pytest.raises(TypeError, match=r"`model` must be a keras\.Model"):
        SnapshotEnsemble.load(folder, "model")
    with pytest.raises(ValueError, match="`model` must be built"):
        SnapshotEnsemble.load(folder, keras.Sequential([keras.layers.Dense(1)]))
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(9, name="head", use_bias=False)])
    before = arrays_of(other.variables)
    with pytest.raises(ValueError, match="`file` must hold weights of this model"):
        SnapshotEnsemble.load(folder, other)
    assert all(tiny.same(old, new) for old, new in zip(before, arrays_of(other.variables), strict=True))


def test_recompute_batch_norm_writes_every_snapshot_again(tmp_path, model):
    norm = keras.layers.BatchNormalization()
    scaled = keras.Sequential([keras.Input((1,)), keras.layers.Rescaling(1.0), keras.layers.Dense(1), norm])
    for number in (1, 2):
        scaled.set_weights([np.array([[number]]), *scaled.get_weights()[1:]])
        save_weights(scaled, tmp_path / f"{number}.weights.h5")
    ensemble = SnapshotEnsemble(scaled, sorted(tmp_path.iterdir()))
    assert ensemble.recompute_batch_norm([np.full((4, 1), 5.0, "float32")]) == 1
    means = []
    ensemble.predict(np.ones((1, 1)), predict=lambda x: means.append(float(arrays_of([norm.moving_mean])[0][0])) or x)
    assert means == [5.0, 10.0]
    norm.trainable = False
    assert ensemble.recompute_batch_norm([np.full((4, 1), 9.0, "float32")]) == 0


def test_from_training_to_the_ensemble(tmp_path, model):
    keras.utils.set_random_seed(0)
    trained = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="softmax")])
    trained.compile(
        keras.optimizers.SGD(kadence.WarmRestarts(0.5, 3)),
        "sparse_categorical_crossentropy",
        jit_compile="auto" if BACKEND == "jax" else False,
    )
    trained.fit(X, Y, 5, 3, 0, [kadence.SnapshotSaver(tmp_path)], shuffle=False)
    ensemble = SnapshotEnsemble.load(tmp_path, trained)
    assert len(ensemble) == 2
    assert ensemble.evaluate(X, Y)["loss"] <= ensemble.weigh(X, Y).mean()
    np.testing.assert_allclose(ensemble.predict(X).sum(1), 1.0, rtol=1e-5)
