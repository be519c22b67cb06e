"""Where the head begins, in models of every kind, and the groups that follow from it."""

import keras
import models
import pytest
from keras import layers

import kadence
from kadence._head import groups_with_head
from kadence._walk import Layers


def parts(model, head=None):
    """The addresses of the layers with weights of each group."""
    weighted = {unit.address for unit in Layers(model).units if unit.weights}
    return [[layer for layer in group.layers if layer in weighted] for group in groups_with_head(model, head)]


def pooled(pattern, pool=layers.GlobalAveragePooling1D):
    """Dense layers where `pattern` has a letter, by that name, and a pooling where it has "-"."""
    x = inputs = keras.Input((4, 2), name="in")
    n_pools = 0
    for letter in pattern:
        if letter == "-":
            n_pools += 1
            x = pool(name="pool")(x) if n_pools == 1 else layers.Flatten(name="second_pool")(x)
        else:
            x = models.dense(letter)(x)
    return keras.Model(inputs, x)


def nested(sizes=(3,), tail=("head",), name="backbone"):
    """Models of so many dense layers each, one after the other, and dense layers behind them."""
    x = inputs = keras.Input((2,), name="in")
    for number, size in enumerate(sizes):
        own = name if number == 0 else "small"
        x = models.sequential([f"{own}{i}" for i in range(size)], own, "inner_in" if number == 0 else "small_in")(x)
    for layer in tail:
        x = models.dense(layer)(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    ("build", "wanted"),
    [
        (nested, [["backbone/backbone0"], ["backbone/backbone1", "backbone/backbone2"], ["head"]]),
        (
            lambda: nested(tail=("a", "head")),
            [["backbone/backbone0"], ["backbone/backbone1", "backbone/backbone2"], ["a", "head"]],
        ),
        (models.nested_sequential, [["backbone/a"], ["backbone/b"], ["head"]]),
        (models.nested_functional, [["backbone/conv"], ["backbone/norm", "backbone/top"], ["head"]]),
        (models.nested_twice, [["middle/b", "middle/innermost/a"], ["middle/innermost/b", "middle/a"], ["a"]]),
    ],
)
def test_the_head_is_what_follows_the_nested_model(build, wanted):
    assert parts(build()) == wanted


def test_of_several_nested_models_the_largest_counts():
    assert parts(nested((3, 1)))[-1] == ["small/small0", "head"]
    assert parts(nested((1, 3)))[-1] == ["head"]


def test_a_nested_model_at_the_end_leaves_no_head_to_it():
    """The last layer with weights is the head then."""
    assert parts(nested(tail=())) == [["backbone/backbone0"], ["backbone/backbone1"], ["backbone/backbone2"]]


def test_a_nested_model_without_weights_does_not_count():
    augment = keras.Sequential([keras.Input((2,)), layers.GaussianNoise(0.1)], name="augment")
    model = keras.Sequential([keras.Input((2,)), augment, *(models.dense(name) for name in "abc")])
    assert [group.layers[-1] for group in groups_with_head(model)] == ["a", "b", "c"]


@pytest.mark.parametrize("pool", [layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D, layers.Flatten])
@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("abc-de", ["a", "bc", "de"]),
        ("ab-c", ["a", "b", "c"]),
        ("a-b", ["a", "b"]),
        ("ab-c-d", ["a", "bc", "d"]),
        ("abc-", ["a", "b", "c"]),
        ("-abc", ["a", "b", "c"]),
        ("a-bc-", ["a", "bc"]),
    ],
)
def test_the_head_is_what_follows_the_last_pooling_with_layers_on_both_sides(pattern, wanted, pool):
    assert parts(pooled(pattern, pool)) == [list(letters) for letters in wanted]


def test_the_pooling_is_a_part_of_the_head():
    """Features are stored before it then, and the cut moves on over it."""
    assert groups_with_head(pooled("abc-d"))[-1].layers == ("pool", "d")


@pytest.mark.parametrize(
    ("build", "wanted"),
    [
        (models.sequential, [["a"], ["b"], ["c"]]),
        (lambda: models.sequential("ab"), [["a"], ["b"]]),
        (lambda: models.sequential("abcde"), [["a", "b"], ["c", "d"], ["e"]]),
        (models.subclassed, [["stem"], ["block0", "block1"], ["head"]]),
        (models.owner, [["owner"], ["a"]]),
        (models.tied, [["encoder"], ["decoder"]]),
        (models.functional, [["a"], ["norm", "b"], ["c"]]),
        (models.frozen, [["a"], ["b", "c"], ["d"]]),
        (models.unicode, [["größe"], ["层", "a b"], ["é1:[x]"]]),
    ],
)
def test_the_head_is_the_last_layer_with_weights(build, wanted):
    assert parts(build()) == wanted


@pytest.mark.parametrize("build", models.BUILDERS, ids=lambda build: build.__name__)
def test_every_model_has_a_body_and_a_head(build):
    """Every layer is in a group, in order, and each group has weights."""
    model = build()
    groups = groups_with_head(model)
    assert [layer for group in groups for layer in group.layers] == [unit.address for unit in Layers(model).units]
    assert 2 <= len(groups) <= 3
    assert all(group.weights for group in groups)


def test_a_model_of_several_outputs():
    """Where nothing else tells the heads, the first one is asked for."""
    inputs = keras.Input((2,), name="in")
    body = models.dense("b")(models.dense("a")(inputs))
    model = keras.Model(inputs, [models.dense("left")(body), models.dense("right")(body)])
    with pytest.raises(ValueError, match=r"^`model` must have a head that can be found.*Give `head`"):
        parts(model)
    assert parts(model, "left") == [["a"], ["b"], ["left", "right"]]


@pytest.mark.parametrize("kind", ["layer", "address", "name"])
def test_a_head_that_is_given(kind):
    model = models.nested_functional()
    top = model.get_layer("backbone").get_layer("top")
    head = {"layer": top, "address": "backbone/top", "name": "top"}[kind]
    assert parts(model, head) == [["backbone/conv"], ["backbone/norm"], ["backbone/top", "head"]]


def test_a_head_without_weights_of_its_own_and_a_nested_model_as_head():
    assert groups_with_head(pooled("abc-d"), "pool")[-1].layers == ("pool", "d")
    assert parts(nested((3, 2), ()), "small")[-1] == ["small/small0", "small/small1"]


def test_a_body_of_one_layer_is_one_group():
    assert parts(models.sequential("abc"), "b") == [["a"], ["b", "c"]]
    assert groups_with_head(models.sequential("abc"), "b").names == ["group_1", "group_2"]


def test_the_groups_bind_to_the_model():
    model = models.nested_functional()
    groups = groups_with_head(model)
    model.compile(kadence.DiscriminativeOptimizer(keras.optimizers.SGD(), groups, [0.1, 0.5, 1.0]), "mse")
    model.optimizer.build(model.trainable_variables)
    assert {id(v) for group in groups for v in group.variables} == {id(v) for v in model.trainable_variables}


@pytest.mark.parametrize("head", ["a", "in"])
def test_no_layer_with_weights_before_the_head(head):
    rule = r"^`model` must have layers with weights before the head and in it.*Give `head`, the first layer of the head"
    with pytest.raises(ValueError, match=rule):
        groups_with_head(models.sequential(), head)


def test_no_layer_with_weights_in_the_head():
    with pytest.raises(ValueError, match="`model` must have layers with weights before the head and in it"):
        groups_with_head(models.stacked("ww-"), "layer2")


def test_no_head_to_find():
    with pytest.raises(ValueError, match=r"^`model` must have a head that can be found\. Received: .* Give `head`"):
        groups_with_head(models.sequential("a"))


def test_heads_that_are_not_in_the_model():
    with pytest.raises(ValueError, match=r"^`head` must name layers of the model.*Did you mean 'backbone/top'"):
        groups_with_head(models.nested_functional(), "tops")
    with pytest.raises(ValueError, match="This layer is one of another model"):
        groups_with_head(models.sequential(), models.dense("a"))
    with pytest.raises(ValueError, match="name one layer; 'x' is 'x', 'x'"):
        groups_with_head(models.same_names(), "x")
    with pytest.raises(TypeError, match="by string or by layer object"):
        groups_with_head(models.sequential(), 1)
    with pytest.raises(TypeError, match=r"`model` must be a keras\.Model"):
        groups_with_head("model")
    with pytest.raises(ValueError, match="`model` must be built"):
        groups_with_head(keras.Sequential([models.dense("a")]))
