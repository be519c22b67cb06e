import keras
import models
import pytest

from kadence._trainable import Flags, follow_sublayers, set_unit
from kadence._walk import Layers, Unit


def units(model):
    return {unit.address: unit for unit in Layers(model).units}


@pytest.mark.parametrize("build", models.BUILDERS, ids=lambda build: build.__name__)
def test_each_unit_is_set_by_itself_and_everything_is_put_back(build):
    model = build()
    flags = Flags(model)
    for unit in Layers(model).units:
        own = [weight for weight in unit.weights if any(weight is v for v in unit.layer._trainable_variables)]
        if not own:
            continue
        others = {id(w): w.trainable for w in model.weights if not any(w is mine for mine in own)}
        was = [weight.trainable for weight in own]
        layer_was = unit.layer._trainable
        set_unit(unit, False)
        assert not any(weight.trainable for weight in own)
        assert others == {id(w): w.trainable for w in model.weights if id(w) in others}
        assert flags.changed() == (any(was) or layer_was)
        flags.put_back()
        assert [weight.trainable for weight in own] == was
    assert not flags.changed()


def test_statistics_never_become_trainable():
    model = models.functional()
    set_unit(units(model)["norm"], True)
    assert not model.get_layer("norm").moving_mean.trainable


def flags_of(layer):
    return {variable.name: variable.trainable for variable in layer._trainable_variables}


def test_what_was_off_while_its_layer_trained_stays_off():
    layer = models.sequential().get_layer("a")
    unit = Unit("a", tuple(layer.weights), layer)
    layer.bias.trainable = False
    for _ in range(2):
        set_unit(unit, False)
        set_unit(unit, False)
        assert flags_of(layer) == {"kernel": False, "bias": False}
        set_unit(unit, True)
        assert flags_of(layer) == {"kernel": True, "bias": False}
    layer.bias.trainable = True
    set_unit(unit, False)
    set_unit(unit, True)
    assert flags_of(layer) == {"kernel": True, "bias": True}


def test_a_layer_that_was_wholly_off_by_its_weights_trains_with_all():
    layer = models.sequential().get_layer("a")
    unit = Unit("a", tuple(layer.weights), layer)
    for weight in layer.weights:
        weight.trainable = False
    set_unit(unit, False)
    set_unit(unit, True)
    assert all(flags_of(layer).values())


@pytest.mark.parametrize("before", [False, True], ids=["lora in a frozen layer", "lora first"])
@pytest.mark.parametrize("kind", ["dense", "embedding"])
def test_the_weights_beneath_lora_stay_off(kind, before):
    layer = keras.layers.Dense(2) if kind == "dense" else keras.layers.Embedding(5, 2)
    layer.build((None, 3))
    if before:
        layer.enable_lora(1)
    set_unit(Unit("a", tuple(layer.weights), layer), False)
    if not before:
        layer.enable_lora(1)
    set_unit(Unit("a", tuple(layer.weights), layer), True)
    base = {"dense": "kernel", "embedding": "embeddings"}[kind]
    flags = flags_of(layer)
    assert not flags.pop(base)
    assert len(flags) >= 2
    assert all(flags.values())


def test_a_layer_with_sublayers_trains_if_a_part_of_it_does():
    model = models.nested_functional()
    model.trainable = False
    assert model.trainable_variables == []
    set_unit(units(model)["backbone/top"], True)
    for layer in reversed(model._flatten_layers()):
        follow_sublayers(layer)
    assert [v.path for v in model.trainable_variables] == [v.path for v in units(model)["backbone/top"].weights]
    assert model.trainable
    assert model.get_layer("backbone").trainable
    assert not model.get_layer("head").trainable
    assert isinstance(model, keras.Model)
