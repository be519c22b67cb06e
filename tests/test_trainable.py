import keras
import models
import pytest

from kadence._trainable import Flags, follow_sublayers, set_unit
from kadence._walk import Layers


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
