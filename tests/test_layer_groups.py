import json
import math

import keras
import models
import pytest
from keras import layers
from models import every_model, ids, layers_of, message, variables_of

from kadence import LayerGroup, LayerGroups, group_by, split, split_evenly

# LayerGroups as a sequence and as a table


def test_groups_are_a_sequence():
    groups = split(models.sequential(), ["b", "c"])
    assert len(groups) == 3
    assert [group.name for group in groups] == groups.names == ["group_1", "group_2", "group_3"]
    assert groups[-1] is groups[2]
    assert [group.name for group in groups[:2]] == ["group_1", "group_2"]
    assert groups.index(groups[1]) == 1
    assert groups[1] in groups
    with pytest.raises(IndexError):
        groups[3]


def test_a_group_shows_what_it_is():
    group = split(models.sequential(), ["c"])[1]
    assert repr(group) == "LayerGroup(name='group_2', layers=('c',))"
    assert group == LayerGroup("group_2", ("c",))
    assert repr(split(models.sequential(), ["c"])) == "LayerGroups(group_1: 3 layers, group_2: 1 layers)"
    with pytest.raises(AttributeError):
        group.name = "other"


def test_the_table():
    groups = group_by(models.functional(), {"the start": ["in", "a"], "body": ["relu", "norm", "b"], "c": "*"})
    assert str(groups) == "\n".join(
        [
            "group      first layer  last layer  layers  trainable weights",
            "the start  in           a                2                  6",
            "body       relu         b                3                 10",
            "c          add          c                3                  6",
        ]
    )


def test_the_table_with_rates():
    groups = split(models.sequential(), ["b", "c"]).with_rates([1e-7, 1e-4, 0.0123456])
    assert str(groups) == "\n".join(
        [
            "group    first layer  last layer  layers  trainable weights  learning rate",
            "group_1  in           a                2                  6          1e-07",
            "group_2  b            b                1                  6         0.0001",
            "group_3  c            c                1                  6         0.0123",
        ]
    )


def test_the_table_counts_thousands_and_what_is_trained_now():
    model = keras.Sequential([keras.Input((100,), name="in"), layers.Dense(1000, name="a"), models.dense("b")])
    groups = split(model, "b")
    assert str(groups).splitlines()[1].split() == ["group_1", "in", "a", "2", "101,000"]
    model.get_layer("a").trainable = False
    assert str(groups).splitlines()[1].split() == ["group_1", "in", "a", "2", "0"]


@every_model
def test_the_table_is_aligned(build):
    lines = str(split_evenly(build(), 2).with_rates([1e-7, 1])).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 3


def test_with_rates_leaves_the_groups_as_they_were():
    groups = split(models.sequential(), "b")
    rated = groups.with_rates([0.1, 0.2])
    assert "learning rate" not in str(groups)
    assert "learning rate" in str(rated)
    assert [*rated] == [*groups]
    assert ids(variables_of(rated)) == ids(variables_of(groups))


@pytest.mark.parametrize("rates", [[], [0.1], [0.1, 0.2, 0.3]], ids=repr)
def test_with_rates_takes_one_rate_a_group(rates):
    with pytest.raises(ValueError, match=r"`rates` must .* Received: rates="):
        split(models.sequential(), "b").with_rates(rates)


# Config and bind


def through_json(groups, *variables):
    return LayerGroups.from_config(json.loads(json.dumps(groups.get_config(*variables))))


def paths(groups):
    return [[variable.path for variable in group.variables] for group in groups]


@every_model
def test_config_round_trip_binds_to_the_same_model_made_again(build):
    model, again = build(), build()
    groups = split_evenly(model, 2)
    bound = through_json(groups, model.trainable_variables).bind(again.trainable_variables)
    assert bound.names == groups.names
    assert layers_of(bound) == layers_of(groups)
    sizes = [len(group.variables) for group in groups]
    assert [len(group.variables) for group in bound] == sizes
    assert ids(variables_of(bound)) == ids(again.trainable_variables)


def test_config_is_the_same_again_before_and_after_binding():
    model = models.nested_functional()
    config = split(model, "norm").get_config(model.trainable_variables)
    loaded = LayerGroups.from_config(config)
    assert loaded.get_config() == config
    assert loaded.bind(model.trainable_variables).get_config(model.trainable_variables) == config


def test_groups_out_of_the_models_order_survive_a_config():
    model = models.sequential()
    groups = group_by(model, {"late": "c", "early": "*"})
    assert paths(through_json(groups, model.trainable_variables).bind(model.trainable_variables)) == paths(groups)


def test_groups_out_of_the_models_order_survive_a_config_made_without_the_variables():
    """An optimizer that is saved before it is built has no variables to give; all layers here have equal shapes."""
    model = models.sequential()
    groups = group_by(model, {"late": "c", "early": "*"})
    assert paths(through_json(groups).bind(model.trainable_variables)) == paths(groups)


def test_rates_on_loaded_groups_do_not_unbind_them():
    model = models.sequential()
    loaded = through_json(split(model, "b"), model.trainable_variables)
    assert paths(loaded.with_rates([0.1, 0.2]).bind(model.trainable_variables)) == paths(split(model, "b"))


def test_loaded_groups_have_a_table_before_they_are_bound():
    model = models.sequential()
    lines = str(through_json(split(model, "b"), model.trainable_variables)).splitlines()
    assert lines[1].split()[:4] == ["group_1", "in", "a", "2"]


def test_bind_is_the_groups_themselves_for_their_own_model():
    model = models.frozen()
    groups = split(model, "c")
    assert groups.bind(model.trainable_variables) is groups
    assert groups.bind(model.trainable_variables[:1]) is groups


def test_bind_keeps_frozen_groups():
    model, again = models.sequential(), models.sequential()
    for each in (model, again):
        each.get_layer("a").trainable = False
    bound = through_json(split(model, "b"), model.trainable_variables).bind(again.trainable_variables)
    assert [len(group.variables) for group in bound] == [0, 4]


def test_bind_refuses_a_model_the_groups_are_not_of():
    groups = split(models.sequential(), "b")
    other = models.sequential(name="other")
    text = message(ValueError, lambda: groups.bind(other.trainable_variables))
    assert text.startswith(
        "`groups` must hold every trainable variable of the model that is compiled. Received: groups="
    )
    assert all(variable.path in text for variable in other.trainable_variables[:5])
    assert other.trainable_variables[5].path not in text


def test_bind_refuses_a_layer_that_was_added_after_the_split():
    model = models.sequential()
    groups = split(model, "b")
    bigger = keras.Model(model.inputs, models.dense("new")(model.outputs[0]))
    text = message(ValueError, lambda: groups.bind(bigger.trainable_variables))
    assert "In no group: new/kernel, new/bias." in text


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (
            models.sequential(("a", "b")),
            "be as many trainable variables as in the saved groups, 6. Received: variables=4.",
        ),
        (
            keras.Sequential([keras.Input((2,)), models.dense("a"), models.dense("b"), layers.Dense(3)]),
            "be 'kernel' of shape (2, 2) at position 4, as in the saved groups. "
            "Received: variables=\"'kernel' of shape (2, 3)\".",
        ),
        (
            keras.Sequential(
                [keras.Input((2,)), layers.LayerNormalization(), models.dense("a"), models.dense("b")],
            ),
            "be 'kernel' of shape (2, 2) at position 0, as in the saved groups. "
            "Received: variables=\"'gamma' of shape (2,)\".",
        ),
    ],
    ids=["number", "shape", "name"],
)
def test_bind_of_saved_groups_refuses_another_model(other, complaint):
    model = models.sequential()
    loaded = through_json(split(model, "b"), model.trainable_variables)
    text = message(ValueError, lambda: loaded.bind(other.trainable_variables))
    assert complaint in text
    assert "The model is not the one that was saved: make new groups, for example with `kadence.split`." in text


@keras.saving.register_keras_serializable(package="kadence_tests")
class Nameless(layers.Layer):
    """Its weights have names that Keras numbers anew in each process."""

    def build(self, shape):
        self.first = self.add_weight(shape=(2,))
        self.second = self.add_weight(shape=(2, 2))

    def call(self, x):
        return keras.ops.matmul(x + self.first, self.second)


def test_weights_without_a_name_are_known_by_their_shape():
    def build():
        return keras.Sequential([keras.Input((2,)), Nameless(name="a"), models.dense("b")])

    model, again = build(), build()
    assert model.weights[0].name != again.weights[0].name
    loaded = through_json(split(model, "b"), model.trainable_variables)
    assert [len(group.weights) for group in loaded.bind(again.trainable_variables)] == [2, 2]
    swapped = [again.weights[1], again.weights[0], *again.weights[2:]]
    assert "at position 0" in message(ValueError, lambda: loaded.bind(swapped))


def test_bind_refuses_a_variable_that_two_groups_hold():
    """TFA trained it twice."""
    model = models.sequential()
    first, second = split(model, "b")
    overlapping = LayerGroups([first, second, LayerGroup("again", first.layers, first.weights)])
    with pytest.raises(ValueError, match=r"`groups` must .* Received: groups="):
        overlapping.bind(model.trainable_variables)


def test_every_number_in_the_table_is_the_models():
    model = models.composite()
    groups = split_evenly(model, 3)
    total = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    assert sum(int(line.split()[-1].replace(",", "")) for line in str(groups).splitlines()[1:]) == total
