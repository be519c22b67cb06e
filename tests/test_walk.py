import keras
import models
import numpy as np
import pytest
from keras import layers

from kadence._walk import Layers

every_model = pytest.mark.parametrize("build", models.BUILDERS, ids=lambda build: build.__name__)


def addresses(model):
    return [models.plain(unit.address) for unit in Layers(model).units]


def ids(variables):
    return [id(variable) for variable in variables]


def reloaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras")


# Units


@every_model
def test_addresses_are_in_definition_order(build):
    assert addresses(build()) == models.ADDRESSES[build]


@every_model
def test_every_weight_is_in_one_unit_in_the_order_of_the_model(build):
    model = build()
    found = [weight for unit in Layers(model).units for weight in unit.weights]
    assert ids(found) == ids(model.weights)
    assert ids(weight for weight in found if weight.trainable) == ids(model.trainable_variables)


@every_model
def test_weighted_are_the_units_with_weights(build):
    found = Layers(build())
    assert found.weighted == [index for index, unit in enumerate(found.units) if unit.weights]


@every_model
def test_walking_changes_nothing_and_walks_alike_again(build):
    model = build()
    before = [(id(variable), variable.trainable, variable.path) for variable in model.variables]
    first, second = Layers(model), Layers(model)
    assert first.units == second.units
    assert [(id(variable), variable.trainable, variable.path) for variable in model.variables] == before


@pytest.mark.parametrize("build", [models.functional, models.sequential, models.nested_functional])
def test_addresses_survive_a_file(build, tmp_path):
    assert addresses(reloaded(build(), tmp_path)) == models.ADDRESSES[build]


@pytest.mark.parametrize("build", [models.nested_sequential, models.nested_twice, models.composite])
def test_addresses_survive_a_file_where_variable_paths_may_not(build, tmp_path):
    """Keras's OptimizerMap goes by paths, which a nested Sequential changes on reload."""
    assert addresses(reloaded(build(), tmp_path)) == models.ADDRESSES[build]


def test_a_layer_with_weights_of_its_own_is_a_unit_before_its_sublayers():
    units = {unit.address: [weight.name for weight in unit.weights] for unit in Layers(models.composite()).units}
    assert units["block"] == ["gain"]
    assert units["block/first"] == ["kernel", "bias"]
    assert "attention" not in units
    assert "both" not in units


def test_a_weight_of_the_model_itself_is_a_unit_with_the_name_of_the_model():
    unit = Layers(models.owner()).units[0]
    assert (unit.address, [weight.name for weight in unit.weights]) == ("owner", ["scale"])


def test_a_tied_weight_belongs_to_the_first_layer():
    model = models.tied()
    encoder, decoder = Layers(model).units
    assert encoder.weights[0] is model.decoder.kernel
    assert [weight.name for weight in decoder.weights] == ["bias"]


def test_a_shared_layer_belongs_to_where_it_is_first():
    model = models.shared()
    assert sum(address.endswith("common") for address in addresses(model)) == 1
    assert addresses(model).count("twice") == 1


def test_weights_that_are_not_trained_are_there_too():
    units = {unit.address: [weight.name for weight in unit.weights] for unit in Layers(models.functional()).units}
    assert units["norm"] == ["gamma", "beta", "moving_mean", "moving_variance"]


def test_states_that_are_not_weights_are_not():
    """The seed of a dropout, and a metric."""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1), layers.Dropout(0.5)])
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)
    assert ids(weight for unit in Layers(model).units for weight in unit.weights) == ids(model.weights)
    assert len(model.variables) > len(model.weights)


def test_layers_in_a_functional_model_of_several_inputs_and_outputs():
    one, two = keras.Input((2,), name="one"), keras.Input((2,), name="two")
    x, y = models.dense("x")(one), models.dense("y")(two)
    model = keras.Model({"one": one, "two": two}, [models.dense("p")(x), models.dense("q")(layers.Add()([x, y]))])
    found = Layers(model)
    assert {unit.address for unit in found.units if unit.weights} == {"x", "y", "p", "q"}
    assert ids(weight for unit in found.units for weight in unit.weights) == ids(model.weights)


# Finding


@every_model
def test_every_layer_is_found_by_its_address_and_by_itself(build):
    model = build()
    found = Layers(model)
    for index, unit in enumerate(found.units):
        if unit.address != "x":  # the one that two layers have
            assert found.find(unit.address) == index
    for layer in model.layers:
        unit = found.units[found.find(layer)]
        assert unit.address.split("/")[0] == layer.name


def test_a_layer_made_of_layers_begins_with_its_first():
    found = Layers(models.nested_twice())
    for point, first in [
        ("middle", "middle/middle_in"),
        ("middle/innermost", "middle/innermost/innermost_in"),
        ("innermost", "middle/innermost/innermost_in"),
    ]:
        assert found.units[found.find(point)].address == first


def test_an_address_goes_before_a_bare_name():
    """`a` is an address, and the bare name of two other layers."""
    found = Layers(models.nested_twice())
    assert found.units[found.find("a")].address == "a"
    assert found.units[found.find("middle/a")].address == "middle/a"


@pytest.mark.parametrize("name", ["conv", "norm", "top", "head"])
def test_a_bare_name_that_is_unique(name):
    found = Layers(models.nested_functional())
    assert found.units[found.find(name)].address.split("/")[-1] == name


def test_a_layer_object_in_a_nested_model():
    model = models.nested_twice()
    layer = model.get_layer("middle").get_layer("innermost").get_layer("b")
    found = Layers(model)
    assert found.units[found.find(layer)].address == "middle/innermost/b"


def test_a_layer_object_where_names_are_equal():
    model = models.same_names()
    assert [Layers(model).find(layer) for layer in model.parts] == [0, 1, 2]


def test_an_ambiguous_name_lists_the_addresses():
    model = keras.Sequential(
        [keras.Input((2,)), models.sequential(name="left"), models.sequential(name="right")], name="whole"
    )
    with pytest.raises(ValueError, match=r"`at` must name one layer; 'b' is 'left/b', 'right/b'\. Received: at='b'\."):
        Layers(model).find("b")


def test_equal_addresses_say_what_to_do():
    with pytest.raises(ValueError, match=r"'x' is 'x', 'x'. Received: at='x'. .* or the layer object"):
        Layers(models.same_names()).find("x")


@pytest.mark.parametrize(
    ("point", "closest"),
    [
        ("hed", "'head', "),
        ("backbone/konv", "'backbone/conv', "),
        ("konv", "'backbone/conv', "),
        ("backbone.norm", "'backbone/norm', "),
        ("", ""),
        ("outer/head", "'head', "),
    ],
)
def test_an_unknown_name_lists_the_three_closest(point, closest):
    with pytest.raises(ValueError, match=r"must name layers of the model") as caught:
        Layers(models.nested_functional()).find(point)
    rule, _, hint = str(caught.value).partition(" Did you mean ")
    assert rule == f"`at` must name layers of the model. Received: at={point!r}."
    assert hint.startswith(closest)
    assert len(hint.removesuffix("?").split(", ")) == 3


def test_the_model_is_not_among_the_names_that_are_offered():
    with pytest.raises(ValueError, match="Did you mean") as caught:
        Layers(models.sequential(name="heads", names=("head", "b", "c"))).find("headz")
    assert "'heads'" not in str(caught.value)


def test_a_layer_with_the_name_of_the_model_is_found():
    model = models.sequential(("body", "head"), name="head")
    found = Layers(model)
    assert found.units[found.find("head")].address == "head"


def test_a_layer_of_another_model_is_refused_without_offering_its_own_name():
    with pytest.raises(ValueError, match=r"`at` must name layers of the model. Received: at=") as caught:
        Layers(models.sequential()).find(models.sequential().get_layer("b"))
    assert "Did you mean 'b'" not in str(caught.value)


@pytest.mark.parametrize("point", [None, 3, 1.5, b"a", ["a"], layers.Dense], ids=repr)
def test_a_point_is_a_name_or_a_layer(point):
    with pytest.raises(TypeError, match=r"`at` must name layers by string or by layer object. Received: at="):
        Layers(models.sequential()).find(point)


# Models that cannot be walked


@pytest.mark.parametrize("model", [None, "model", layers.Dense(1), keras.Model], ids=repr)
def test_a_model_is_a_keras_model(model):
    with pytest.raises(TypeError, match=r"`model` must be a keras\.Model. Received: model="):
        Layers(model)


def not_built():
    return [
        keras.Sequential([models.dense("a")], name="empty"),
        keras.Sequential(name="nothing"),
        models._Subclassed(),
        keras.Sequential([keras.Input((2,)), layers.Flatten()], name="no_weights"),
    ]


@pytest.mark.parametrize("model", not_built(), ids=lambda model: model.name)
def test_a_model_is_built(model):
    rule = rf"`model` must be built and have weights. Received: model='{model.name}'\. Call it on a batch of data"
    with pytest.raises(ValueError, match=rule):
        Layers(model)
