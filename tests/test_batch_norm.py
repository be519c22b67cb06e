import keras
import numpy as np
import pytest

from kadence import batch_norm
from kadence.batch_norm import freeze_batch_norm, recompute_batch_norm

# Keras hands torch tensors to NumPy >= 2.4 in a way that NumPy is about to forbid.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def norms(model):
    found = model._flatten_layers(include_self=False)
    return [layer for layer in found if isinstance(layer, keras.layers.BatchNormalization)]


def values(variable):
    return np.array(keras.ops.convert_to_numpy(keras.ops.copy(variable)))


def weights_of(model):
    return [values(variable) for variable in model.variables]


def assert_same(before, after):
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


def nested_model():
    """Two levels, a dropout that would be seen if it were on, and one norm that is already frozen."""
    inner_in = keras.Input((3,))
    hidden = keras.layers.Dense(4, name="inner_dense")(inner_in)
    inner = keras.Model(inner_in, keras.layers.BatchNormalization(name="inner_norm")(hidden), name="inner")
    inputs = keras.Input((3,))
    x = keras.layers.BatchNormalization(name="first_norm")(inputs)
    x = keras.layers.Dropout(0.5)(x)
    x = inner(x)
    x = keras.layers.BatchNormalization(name="last_norm", momentum=0.7, trainable=False)(x)
    return keras.Model(inputs, keras.layers.Dense(1)(x))


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    return [rng.normal(loc, 1 + loc, (8, 3)).astype("float32") for loc in range(3)]


def expected_statistics(model, batches):
    """The forward pass by hand, every norm with the statistics of its batch."""
    dense = [values(w) for w in model.get_layer("inner").get_layer("inner_dense").weights]
    statistics = {name: [] for name in ("first_norm", "inner_norm", "last_norm")}

    def normalise(name, x):
        mean, variance = x.mean(0), x.var(0)
        statistics[name].append((mean, variance))
        return (x - mean) / np.sqrt(variance + 1e-3)

    for batch in batches:
        x = normalise("first_norm", batch.astype("float64"))
        x = normalise("inner_norm", x @ dense[0] + dense[1])
        normalise("last_norm", x)
    return {name: np.mean(seen, axis=0) for name, seen in statistics.items()}


def test_freeze_reaches_nested_layers_and_counts_them():
    model = nested_model()
    assert freeze_batch_norm(model) == 3
    assert not any(layer.trainable for layer in norms(model))
    assert model.get_layer("inner").get_layer("inner_dense").trainable
    assert freeze_batch_norm(model) == 3


def test_freeze_counts_a_shared_layer_once():
    norm = keras.layers.BatchNormalization()
    inputs = keras.Input((2,))
    assert freeze_batch_norm(keras.Model(inputs, norm(norm(inputs)))) == 1


def trap_model(freeze):
    inner_in = keras.Input((2,))
    backbone = keras.Model(inner_in, keras.layers.BatchNormalization()(inner_in))
    if freeze:
        freeze_batch_norm(backbone)
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(backbone(inputs, training=False)))
    model.compile("sgd", "mse")
    return model, norms(backbone)[0]


@pytest.mark.parametrize("freeze", [False, True])
def test_the_trap_training_false_does_not_hold_the_statistics_and_freezing_does(freeze):
    model, norm = trap_model(freeze)
    model.fit(np.full((4, 2), 5.0), np.zeros((4, 1)), verbose=0)
    mean = values(norm.moving_mean)
    np.testing.assert_allclose(mean, 0.0 if freeze else 0.05, rtol=1e-5)


def test_recompute_averages_the_statistics_of_the_batches(batches):
    model = nested_model()
    expected = expected_statistics(model, batches)
    assert recompute_batch_norm(model, batches, include_frozen=True) == 3
    for norm in norms(model):
        mean, variance = expected[norm.name]
        np.testing.assert_allclose(values(norm.moving_mean), mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(values(norm.moving_variance), variance, rtol=1e-4, atol=1e-5)


def test_recompute_takes_a_dataset_of_pairs_and_an_iterator_and_a_py_dataset(batches):
    class Pairs(keras.utils.PyDataset):
        def __len__(self):
            return len(batches)

        def __getitem__(self, index):
            return batches[index], np.zeros(8)

    model = nested_model()
    recompute_batch_norm(model, batches)
    expected = weights_of(model)
    for source in ([(x, np.zeros(8)) for x in batches], [(x,) for x in batches], iter(batches), Pairs()):
        recompute_batch_norm(model, source)
        assert_same(expected, weights_of(model))


def test_recompute_leaves_everything_else_as_it_was(batches):
    model = nested_model()
    model.compile(keras.optimizers.Adam(), "mse")
    model.fit(batches[0], np.zeros((8, 1)), verbose=0)
    statistics = {id(v) for norm in norms(model) for v in (norm.moving_mean, norm.moving_variance)}
    kept = [v for v in [*model.variables, *model.optimizer.variables] if id(v) not in statistics]
    first, inner, last = norms(model)
    first.gamma.trainable = False
    before = [values(v) for v in kept]
    flags = [(v, v.trainable) for v in model.variables]
    momenta = [norm.momentum for norm in norms(model)]
    recompute_batch_norm(model, batches)
    assert_same(before, [values(v) for v in kept])
    assert all(variable.trainable == flag for variable, flag in flags)
    assert [norm.momentum for norm in norms(model)] == momenta
    assert [norm.trainable for norm in norms(model)] == [layer is not last for layer in (first, inner, last)]
    assert not any("call" in vars(norm) for norm in norms(model))
    first.gamma.trainable = True
    model.fit(batches[0], np.zeros((8, 1)), verbose=0)


def test_recompute_lets_a_frozen_layer_keep_and_use_its_statistics(batches):
    model = nested_model()
    _, inner, last = norms(model)
    inner.trainable = False
    last.trainable = True
    assert recompute_batch_norm(model, batches) == 2
    assert_same([values(inner.moving_mean), values(inner.moving_variance)], [np.zeros(4), np.ones(4)])
    # The weights of the first layer and the running statistics of the second give what the third one sees.
    dense = [values(w) for w in model.get_layer("inner").get_layer("inner_dense").weights]
    seen = [(x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3) for x in batches]
    seen = [(x @ dense[0] + dense[1]) / np.sqrt(1 + 1e-3) for x in seen]
    np.testing.assert_allclose(values(last.moving_mean), np.mean([x.mean(0) for x in seen], 0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(values(last.moving_variance), np.mean([x.var(0) for x in seen], 0), rtol=1e-3, atol=1e-5)


def test_recompute_forgets_statistics_that_are_not_finite(batches):
    model = nested_model()
    recompute_batch_norm(model, batches, include_frozen=True)
    expected = weights_of(model)
    for norm in norms(model):
        norm.moving_mean.assign(np.full(norm.moving_mean.shape, np.nan))
        norm.moving_variance.assign(np.full(norm.moving_variance.shape, np.inf))
    recompute_batch_norm(model, batches, include_frozen=True)
    assert_same(expected, weights_of(model))


def test_recompute_counts_every_call_of_a_shared_layer():
    norm = keras.layers.BatchNormalization(center=False, scale=False)
    first, second = keras.Input((1,)), keras.Input((1,))
    model = keras.Model([first, second], [norm(first), norm(second)])
    recompute_batch_norm(model, [((np.full((2, 1), 2.0), np.full((2, 1), 6.0)),)])
    np.testing.assert_allclose(values(norm.moving_mean), [4.0])


def test_recompute_respects_a_mask():
    inputs = keras.Input((3, 2))
    norm = keras.layers.BatchNormalization()
    model = keras.Model(inputs, norm(keras.layers.Masking()(inputs)))
    recompute_batch_norm(model, [np.array([[[2.0, 4.0], [4.0, 8.0], [0.0, 0.0]]], "float32")])
    np.testing.assert_allclose(values(norm.moving_mean), [3.0, 6.0], rtol=1e-4)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_recompute_gives_everything_back_after_an_error(batches, error):
    def breaking():
        yield batches[0]
        raise error

    model = nested_model()
    before, momenta = weights_of(model), [norm.momentum for norm in norms(model)]
    with pytest.raises(error):
        recompute_batch_norm(model, breaking())
    assert_same(before, weights_of(model))
    assert [norm.momentum for norm in norms(model)] == momenta
    assert [norm.trainable for norm in norms(model)] == [True, True, False]
    assert not any("call" in vars(norm) for norm in norms(model))


def test_a_model_without_batch_normalisation_has_nothing_to_do():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert freeze_batch_norm(model) == 0
    assert recompute_batch_norm(model, []) == 0


def test_errors(batches):
    for function in (lambda: freeze_batch_norm("model"), lambda: recompute_batch_norm("model", batches)):
        with pytest.raises(TypeError, match=r"`model` must be a keras.Model. Received: model='model'"):
            function()
    model = nested_model()
    with pytest.raises(ValueError, match=r"`batches` must hold at least one batch. Received: batches=\[\]"):
        recompute_batch_norm(model, [])
    with pytest.raises(TypeError, match="`batches` must be an iterable of input batches"):
        recompute_batch_norm(model, 3)


def test_a_layer_that_renormalises_is_refused_before_anything_changes():
    try:
        renormed = keras.layers.BatchNormalization(renorm=True, name="renormed")
    except (TypeError, ValueError):
        pytest.skip("not in this Keras")
    plain = keras.layers.BatchNormalization(name="plain")
    model = keras.Sequential([keras.Input((3,)), plain, renormed])
    before = weights_of(model)
    batch = np.ones((4, 3), "float32")
    with pytest.raises(ValueError, match=r"`model` must hold no BatchNormalization .*Received: model=\['renormed'\]"):
        recompute_batch_norm(model, [batch])
    assert_same(before, weights_of(model))
    renormed.trainable = False
    assert recompute_batch_norm(model, [batch]) == 1


def test_torch_records_no_gradients():
    if keras.backend.backend() != "torch":
        assert not hasattr(batch_norm, "torch")
        return
    norm = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), norm])
    recompute_batch_norm(model, [np.ones((2, 2), "float32")])
    assert not norm.moving_mean.value.requires_grad
    assert norm.gamma.value.requires_grad


def batches_of_sizes(*sizes):
    return [(np.full((size, 3), float(number)), np.zeros(size)) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "left"), [((4, 4, 4), 3), ((4, 4, 1), 2), ((4,), 1), ((), 0), ((2, 4), 2), ((4, 1, 4), 3)]
)
def test_a_smaller_last_batch_is_left_out(sizes, left):
    batches = batches_of_sizes(*sizes)
    full = batch_norm.FullBatches(batches)
    for _ in range(2):
        assert [x[0, 0] for x, _ in full] == list(range(left))
