"""Both parts of a model, one after the other, against the model; where it cannot be cut."""

import keras
import models
import numpy as np
import pytest

import kadence
from kadence._cut import Cut

RNG = np.random.default_rng(0)


def run(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def with_operations():
    """Operations that are no layers, on both sides."""
    inputs = keras.Input((2,), name="in")
    x = keras.layers.Dense(2, name="a")(inputs) * 2.0 + 1.0
    y = keras.layers.Dense(2, name="b")(x)
    return keras.Model(inputs, keras.ops.tanh(y) + y)


def nested_with_flag():
    """The transfer-learning guide's `training=False`, which is an argument of the call."""
    inner_in = keras.Input((2,), name="inner_in")
    backbone = keras.Model(inner_in, models.dense("top")(models.dense("conv")(inner_in)), name="backbone")
    inputs = keras.Input((2,), name="in")
    return keras.Model(inputs, models.dense("head")(backbone(inputs, training=False)))


def shared_in_both():
    """A layer that is called before the cut and behind it."""
    inputs, twice = keras.Input((2,), name="in"), models.dense("twice")
    return keras.Model(inputs, twice(models.dense("b")(models.dense("a")(twice(inputs)))))


CUTS = [
    (models.functional, "relu", ["a"]),
    (models.functional, "c", ["a", "relu", "norm", "b", "add", "flat"]),
    (models.sequential, "b", ["a"]),
    (models.nested_functional, "head", ["conv", "norm", "top"]),
    (models.nested_functional, "backbone/norm", ["conv"]),
    (models.nested_functional, "top", ["conv", "norm"]),
    (models.nested_sequential, "backbone/b", ["a"]),
    (models.nested_sequential, "head", ["a", "b"]),
    (models.nested_twice, "a", ["b", "a", "b", "a"]),
    (with_operations, "b", ["a"]),
    (nested_with_flag, "top", ["conv"]),
    (shared_in_both, "b", ["twice", "a"]),
]


@pytest.mark.parametrize(("build", "at", "before"), CUTS, ids=[f"{build.__name__}-{at}" for build, at, _ in CUTS])
def test_the_parts_are_the_model(build, at, before):
    model = build()
    for weight in model.weights:
        weight.assign(RNG.uniform(0.5, 1.5, weight.shape))
    x = RNG.normal(size=(4, 2)).astype("float32")
    expected = run(model, x)
    cut = Cut(model, at)
    weighted = [layer.name for layer in cut.layers_before if layer.weights and not isinstance(layer, keras.Model)]
    assert sorted(weighted) == sorted(name for name in before if name not in ("relu", "add", "flat"))
    features = run(cut.before(), x)
    np.testing.assert_allclose(run(cut.behind(), features), expected, rtol=1e-6)
    np.testing.assert_array_equal(run(model, x), expected)
    own = {id(weight) for weight in model.weights}
    assert {id(weight) for part in (cut.before(), cut.behind()) for weight in part.weights} == own


def test_a_layer_object_and_a_group_name_the_same_cut():
    model = models.sequential()
    groups = kadence.split(model, ["b", "c"])
    tensors = [Cut(model, at).tensor for at in ("b", model.get_layer("b"), groups[1])]
    assert all(tensor is tensors[0] for tensor in tensors)


def test_the_cut_moves_on_over_what_owns_nothing():
    inputs = keras.Input((8, 8, 3), name="in")
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.ReLU(name="relu")(x))
    x = keras.layers.Dense(2, name="head")(keras.layers.Dropout(0.5, name="drop")(x))
    model = keras.Model(inputs, keras.layers.Softmax(name="softmax")(x))
    for at in ("relu", "pool", "drop"):
        assert Cut(model, at).tensor.shape == (None, 4), "up to the dropout, which is random"
    assert [layer.name for layer in Cut(model, "relu").behind().layers] == ["features", "drop", "head", "softmax"]
    assert Cut(model, "softmax").tensor.shape == (None, 2), "the last layer stays"


def test_several_outputs_keep_structure_and_names():
    inputs = keras.Input((2,), name="in")
    x = models.dense("a")(inputs)
    model = keras.Model(inputs, {"left": models.dense("left")(x), "right": models.dense("right")(x)})
    tail = Cut(model, "left").behind()
    assert set(tail.output) == {"left", "right"}
    assert tail.output_names == model.output_names


def two_inputs():
    one, two = keras.Input((2,), name="one"), keras.Input((2,), name="two")
    x = models.dense("b")(models.dense("a")(one) + two)
    return keras.Model([one, two], models.dense("c")(x))


def test_several_inputs_before_the_cut():
    model = two_inputs()
    x = [RNG.normal(size=(4, 2)).astype("float32") for _ in range(2)]
    cut = Cut(model, "c")
    np.testing.assert_allclose(run(cut.behind(), run(cut.before(), x)), run(model, x), rtol=1e-6)


class Own(keras.Model):
    """A model with a call of its own, nested in a functional one."""

    def __init__(self):
        super().__init__(name="own")
        self.one, self.two = models.dense("one"), models.dense("two")

    def build(self, shape):
        self.one.build(shape)
        self.two.build(shape)

    def call(self, x):
        return self.two(self.one(x))


def nested_own():
    inputs = keras.Input((2,), name="in")
    return keras.Model(inputs, models.dense("head")(Own()(inputs)))


def called_twice():
    backbone = models.sequential(("a", "b"), "backbone", "inner_in")
    inputs = keras.Input((2,), name="in")
    return keras.Model(inputs, models.dense("head")(backbone(backbone(inputs))))


REFUSED = [
    (models.functional, "b", "`at` must cut the model at one tensor; 2 cross here, of "),
    (two_inputs, "a", "`at` must cut the model at one tensor; 2 cross"),
    (models.subclassed, "block0", "`at` must be cut in a functional or Sequential model.*'subclassed' defines its own"),
    (nested_own, "two", "`at` must be cut in a functional or Sequential model.*'own' defines its own `call`"),
    (called_twice, "backbone/b", "`at` must cut no nested model that is called twice"),
    (models.sequential, "a", "`at` must have layers before it and behind it"),
    (models.sequential, "nothing", "`at` must name layers of the model"),
]


@pytest.mark.parametrize(
    ("build", "at", "message"), REFUSED, ids=[f"{build.__name__}-{at}" for build, at, _ in REFUSED]
)
def test_where_it_cannot_be_cut(build, at, message):
    model = build()
    if message is None:
        assert Cut(model, at).before().inputs
        return
    with pytest.raises(ValueError, match=message):
        Cut(model, at)


def test_a_nested_model_of_any_kind_may_be_on_one_side():
    model = nested_own()
    x = RNG.normal(size=(3, 2)).astype("float32")
    cut = Cut(model, "head")
    np.testing.assert_allclose(run(cut.behind(), run(cut.before(), x)), run(model, x), rtol=1e-6)


def test_a_mask_is_a_tensor_too():
    layers = [keras.layers.Embedding(5, 2, mask_zero=True, name="embedding"), keras.layers.LSTM(2, name="lstm")]
    model = keras.Sequential([keras.Input((3,)), *layers, models.dense("head")])
    with pytest.raises(ValueError, match=r"2 cross here, of 'embedding', 'not_equal(_\d+)?'"):
        Cut(model, "lstm")


def test_equal_names_cannot_stand_in_one_part():
    """Keras wants unique names in a functional model, which a nested one that is taken apart may break."""
    with pytest.raises(ValueError, match=r"`at` must cut the model where its parts are models too"):
        Cut(models.nested_twice(), "middle/innermost/b").behind()
