import fnmatch
import itertools

import keras
import models
import numpy as np
import pytest
from bad_input import assert_integer, assert_number
from hypothesis import given
from hypothesis import strategies as st
from models import every_model, ids, layers_of, message, variables_of

from kadence import group_by, layer_decay, split, split_evenly
from kadence._walk import Layers


def assert_partition(groups, build, model):
    """Every trainable variable and every layer is in one group, in the model's order."""
    assert ids(variables_of(groups)) == ids(model.trainable_variables)
    assert [models.plain(layer) for group in groups for layer in group.layers] == models.ADDRESSES[build]
    assert all(group.weights for group in groups)
    assert groups.names == [f"group_{number}" for number in range(1, len(groups) + 1)]


# split


@every_model
def test_split_at_every_layer(build):
    """At each layer object: groups that are whole, or an error that says which group would be empty."""
    model = build()
    parts = split_points(model)
    assert parts
    for layer in parts:
        assert_partition(split(model, layer), build, model)
        assert len(split(model, [layer])) == 2
    assert_partition(split(model, parts), build, model)


def split_points(model):
    """The model's own layers that have weights of which some come before."""
    found = Layers(model)
    first = found.weighted[0]
    starts = {found.find(layer): layer for layer in model.layers if layer.weights}
    return [starts[start] for start in sorted(starts) if start > first]


def test_split_points_are_the_first_layers_of_the_next_group():
    groups = split(models.functional(), at=["norm", "c"])
    assert layers_of(groups) == [["in", "a", "relu"], ["norm", "b", "add", "flat"], ["c"]]
    assert [len(group.variables) for group in groups] == [2, 4, 2]
    assert [len(group.weights) for group in groups] == [2, 6, 2]


@pytest.mark.parametrize("point", ["relu", "flat"])
def test_split_at_a_layer_without_weights(point):
    model = models.functional()
    groups = split(model, at=[point])
    assert groups[1].layers[0] == point
    assert_partition(groups, models.functional, model)


def test_split_at_a_nested_model_as_a_whole():
    model = models.nested_functional()
    head_only = split(model, at=["head"])
    assert layers_of(head_only) == [[*models.ADDRESSES[models.nested_functional][:-1]], ["head"]]
    outer = keras.Input((2,), name="outer_in")
    model = keras.Model(outer, model(models.dense("stem")(outer)), name="whole")
    for point in ("outer", model.get_layer("outer")):
        groups = split(model, at=[point])
        assert groups[0].layers == ("outer_in", "stem")
        assert groups[1].layers[0] == "outer/in"


def test_split_inside_a_nested_model():
    expected = [["in", "backbone/inner_in", "backbone/conv"], ["backbone/norm"], ["backbone/top", "head"]]
    model = models.nested_functional()
    backbone = model.get_layer("backbone")
    for at in (
        ["backbone/norm", "backbone/top"],
        ["norm", "top"],
        [backbone.get_layer("norm"), backbone.get_layer("top")],
        ["backbone/norm", backbone.get_layer("top")],
    ):
        assert layers_of(split(model, at)) == expected


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array])
def test_split_takes_any_sequence(kind):
    assert layers_of(split(models.sequential(), kind(["b", "c"]))) == [["in", "a"], ["b"], ["c"]]


def test_split_takes_one_point_alone():
    model = models.sequential()
    assert layers_of(split(model, "b")) == layers_of(split(model, model.get_layer("b"))) == [["in", "a"], ["b", "c"]]


def test_split_of_the_articles_model():
    """A backbone's layers and the new head in one model, cut in three."""
    names = ("conv1", "conv3_block4", "conv4_block1_1_conv", "conv5", "fc_start", "fc_end")
    groups = split(models.sequential(names), at=["conv4_block1_1_conv", "fc_start"])
    assert layers_of(groups) == [
        ["in", "conv1", "conv3_block4"],
        ["conv4_block1_1_conv", "conv5"],
        ["fc_start", "fc_end"],
    ]


PATTERN = "w-ww--w-wwww-w"
STACKED = models.stacked(PATTERN)


@given(st.sets(st.integers(0, len(PATTERN) - 1), min_size=1).map(sorted))
def test_split_anywhere_cuts_there_or_names_the_empty_group(positions):
    bounds = [0, *positions, len(PATTERN)]
    pieces = [PATTERN[start:stop] for start, stop in itertools.pairwise(bounds)]
    names = [f"layer{position}" for position in positions]
    if all("w" in piece for piece in pieces):
        groups = split(STACKED, names)
        assert [len(group.layers) for group in groups] == [len(pieces[0]) + 1, *map(len, pieces[1:])]
        assert [group.layers[0] for group in groups[1:]] == names
        assert ids(variables_of(groups)) == ids(STACKED.trainable_variables)
    else:
        empty = next(index for index, piece in enumerate(pieces) if "w" not in piece)
        where = f"before 'layer{positions[empty]}'" if empty < len(positions) else f"from '{names[-1]}' on"
        text = message(ValueError, lambda: split(STACKED, names))
        assert f"leave every group at least one layer with weights; group_{empty + 1} ({where}) has none." in text
        assert f"Received: at={names!r}"[:100] in text


@given(st.lists(st.sampled_from([2, 3, 6, 8, 9, 13]), min_size=2, max_size=4))
def test_split_points_out_of_order_or_twice_the_same_are_refused(positions):
    names = [f"layer{position}" for position in positions]
    if positions == sorted({*positions}):
        assert len(split(STACKED, names)) == len(names) + 1
    else:
        text = message(ValueError, lambda: split(STACKED, names))
        assert text.startswith("`at` must name different layers in definition order")
        assert f"Received: at={names!r}" in text


def test_split_says_which_points_are_out_of_order_or_twice_the_same():
    model = models.sequential(("a", "b", "c", "d"))
    rule = "`at` must name different layers in definition order, from the input towards the head. "
    cases = [
        (["c", "b"], "'b' comes before 'c'"),
        (["b", "b"], "'b' begins where 'b' does"),
        (["b", "d", "c"], "'c' comes before 'd'"),
    ]
    for at, fact in cases:
        assert (
            message(ValueError, lambda at=at: split(model, at)) == f"{rule}Received: at={at!r}. In this model {fact}."
        )


def test_split_at_a_nested_model_and_its_first_layer_is_twice_the_same():
    text = message(ValueError, lambda: split(models.nested_twice(), ["middle/innermost", "innermost_in"]))
    assert "In this model 'innermost_in' begins where 'middle/innermost' does." in text


@pytest.mark.parametrize("at", [[], (), iter([])], ids=repr)
def test_split_needs_a_point(at):
    with pytest.raises(ValueError, match=r"`at` must be a sequence of at least one layer name or layer. Received: at="):
        split(models.sequential(), at)


@pytest.mark.parametrize("at", [None, 3, 1.5, {"b": 1}, b"b"], ids=repr)
def test_split_takes_no_other_type(at):
    with pytest.raises(TypeError, match=r"`at` must be a sequence of at least one layer name or layer. Received: at="):
        split(models.sequential(), at)


@pytest.mark.parametrize("at", [[None], [3], ["b", None], [["b"]]], ids=repr)
def test_split_points_are_names_or_layers(at):
    with pytest.raises(TypeError, match=r"`at` must name layers by string or by layer object. Received: at="):
        split(models.sequential(), at)


def test_split_at_the_first_layer_leaves_an_empty_group():
    for point in ("in", "a"):
        text = message(ValueError, lambda point=point: split(models.sequential(), [point]))
        assert text == (
            "`at` must leave every group at least one layer with weights; "
            f"group_1 (before {point!r}) has none. Received: at=[{point!r}]."
        )


def test_errors_of_names_and_models_are_those_of_the_walk():
    model = models.nested_functional()
    assert "Did you mean 'head', " in message(ValueError, lambda: split(model, ["hed"]))
    assert "`at` must name one layer" in message(ValueError, lambda: split(models.same_names(), ["x"]))
    for call in (lambda m: split(m, ["a"]), lambda m: split_evenly(m, 2), lambda m: group_by(m, {"all": "*"})):
        unbuilt = keras.Sequential([models.dense("a")], name="unbuilt")
        assert "`model` must be built" in message(ValueError, lambda call=call, m=unbuilt: call(m))
        assert "`model` must be a keras.Model" in message(TypeError, lambda call=call: call("model"))


# Freezing


def test_a_frozen_split_layer_splits():
    """The 2019 article's switch waits for a variable of the split layer, and never fires."""
    model = models.frozen()
    groups = split(model, at=["b", "d"])
    assert layers_of(groups) == [["in", "a"], ["b", "c"], ["d"]]
    assert [len(group.variables) for group in groups] == [2, 1, 2]
    assert_partition(groups, models.frozen, model)


def test_a_frozen_group_is_a_group_and_unfreezing_shows():
    model = models.sequential()
    model.get_layer("b").trainable = False
    groups = split(model, at=["b", "c"])
    assert [len(group.variables) for group in groups] == [2, 0, 2]
    assert ids(groups[1].weights) == ids(model.get_layer("b").weights)
    model.get_layer("b").trainable = True
    assert ids(groups[1].variables) == ids(model.get_layer("b").weights)
    model.trainable = False
    assert variables_of(groups) == []
    model.trainable = True
    assert_partition(groups, models.sequential, model)


def test_a_layer_frozen_from_the_start():
    model = keras.Sequential([keras.Input((2,)), models.dense("a", trainable=False), models.dense("b")])
    groups = split(model, "b")
    assert [len(group.variables) for group in groups] == [0, 2]
    assert ids(variables_of(groups)) == ids(model.trainable_variables)


def test_statistics_never_become_variables():
    model = models.functional()
    norm = model.get_layer("norm")
    group = split(model, at=["norm"])[1]
    assert {id(norm.moving_mean), id(norm.moving_variance)} <= {*ids(group.weights)} - {*ids(group.variables)}
    norm.trainable = False
    norm.trainable = True
    assert id(norm.moving_mean) not in ids(group.variables)


# split_evenly


@every_model
def test_split_evenly_for_every_number_of_groups(build):
    model = build()
    count = len(Layers(model).weighted)
    for n_groups in range(1, count + 1):
        groups = split_evenly(model, n_groups)
        assert len(groups) == n_groups
        assert_partition(groups, build, model)
    text = message(ValueError, lambda: split_evenly(model, count + 1))
    rule = f"be an integer from 1 to {count}, the number of layers with weights"
    assert text == f"`n_groups` must {rule}. Received: n_groups={count + 1}."


@pytest.mark.parametrize("count", [1, 2, 5, 8, 11])
def test_split_evenly_gives_the_first_groups_one_more(count):
    model = models.stacked("w" * count)
    for n_groups in range(1, count + 1):
        sizes = [len(group.variables) // 2 for group in split_evenly(model, n_groups)]
        assert sizes == sorted(sizes, reverse=True)
        assert max(sizes) - min(sizes) <= 1


def test_split_evenly_checks_its_argument():
    assert_integer(lambda v: split_evenly(models.sequential(), v), "n_groups", minimum=1)


# group_by


def test_group_by_takes_the_layers_that_match_first():
    model = models.functional()
    groups = group_by(model, {"norms": "norm*", "start": ["a", "i*"], "rest": "*"})
    assert groups.names == ["norms", "start", "rest"]
    assert layers_of(groups) == [["norm"], ["in", "a"], ["relu", "b", "add", "flat", "c"]]
    assert {*ids(variables_of(groups))} == {*ids(model.trainable_variables)}


@every_model
def test_group_by_one_pattern_takes_everything(build):
    model = build()
    (group,) = group_by(model, {"all": "*"})
    assert ids(group.variables) == ids(model.trainable_variables)
    assert [models.plain(layer) for layer in group.layers] == models.ADDRESSES[build]


def test_a_pattern_takes_a_nested_model_with_all_its_layers():
    """Keras's OptimizerMap with `backbone/.*` misses all 158 variables of a nested MobileNetV2, without a word."""
    for build in (models.nested_functional, models.nested_sequential):
        model = build()
        groups = group_by(model, {"backbone": "backbone/*", "head": "*"})
        assert ids(groups[0].variables) == ids(model.get_layer("backbone").trainable_variables)
        assert ids(groups[1].variables) == ids(model.get_layer("head").trainable_variables)


def test_a_star_goes_through_levels():
    groups = group_by(models.nested_twice(), {"innermost": "*innermost*", "middle": "middle/?", "top": "*"})
    assert layers_of(groups)[:2] == [
        ["middle/innermost/innermost_in", "middle/innermost/a", "middle/innermost/b"],
        ["middle/b", "middle/a"],
    ]


def test_a_pattern_is_case_sensitive_and_knows_sets():
    groups = group_by(models.sequential(("conv_A", "conv_a", "conv_1")), {"set": "conv_[a1]", "rest": "*"})
    assert layers_of(groups) == [["conv_a", "conv_1"], ["in", "conv_A"]]


def test_layers_without_weights_may_be_left():
    assert layers_of(group_by(models.functional(), {"all": ["a", "b", "c", "norm"]})) == [["a", "norm", "b", "c"]]


NAMES = [f"layer{index}" for index in range(len(PATTERN))]
PATTERNS = st.one_of(st.sampled_from(["*", "layer?", "layer1*", "layer[0-4]", "in"]), st.sampled_from(NAMES))


@given(st.lists(PATTERNS, min_size=1, max_size=5))
def test_group_by_is_the_first_match(patterns):
    """The rule in two lines, as the oracle."""
    owner = {name: next((i for i, p in enumerate(patterns) if fnmatch.fnmatchcase(name, p)), None) for name in NAMES}
    heavy = [owner[name] for name, kind in zip(NAMES, PATTERN, strict=True) if kind == "w"]
    wanted = {f"g{index}": pattern for index, pattern in enumerate(patterns)}
    if {*heavy} == {*range(len(patterns))}:
        groups = group_by(STACKED, wanted)
        for index, group in enumerate(groups):
            assert [name for name in group.layers if name != "in"] == [name for name in NAMES if owner[name] == index]
        assert sorted(ids(variables_of(groups))) == sorted(ids(STACKED.trainable_variables))
    else:
        assert "Received: patterns=" in message(ValueError, lambda: group_by(STACKED, wanted))


def test_a_pattern_that_takes_nothing_offers_the_closest():
    text = message(ValueError, lambda: group_by(models.nested_functional(), {"body": "bakbone/conv", "rest": "*"}))
    assert text.startswith(
        "`patterns` must give group 'body' a layer with weights that no earlier pattern takes. "
        "Received: patterns={'body': 'bakbone/conv', 'rest': '*'}. Did you mean 'backbone/conv', "
    )


@pytest.mark.parametrize(
    ("patterns", "group"),
    [
        ({"all": "*", "rest": "*"}, "rest"),  # nothing is left
        ({"flat": "relu", "rest": "*"}, "flat"),  # no weights
        ({"upper": "A", "rest": "*"}, "upper"),
        ({"one": ["x", "y"], "rest": "*"}, "one"),
    ],
)
def test_a_group_without_weights_is_refused(patterns, group):
    text = message(ValueError, lambda: group_by(models.functional(), patterns))
    assert f"give group {group!r} a layer with weights" in text


def test_a_layer_that_is_left_is_named():
    text = message(ValueError, lambda: group_by(models.functional(), {"start": "a"}))
    assert text == (
        "`patterns` must take every layer with weights; 3 left, the first 'norm'. "
        "Received: patterns={'start': 'a'}. End with a pattern \"*\" for the rest."
    )


@pytest.mark.parametrize("patterns", [None, "*", ["*"], 3, {"all": 3}, {"all": None}, {"all": [3]}], ids=repr)
def test_patterns_are_a_mapping_of_strings(patterns):
    with pytest.raises(TypeError, match=r"`patterns` must .*fnmatch patterns on layer addresses. Received: patterns="):
        group_by(models.sequential(), patterns)


@pytest.mark.parametrize("name", [1, None, ("a",)], ids=repr)
def test_group_names_are_strings(name):
    with pytest.raises(TypeError, match=r"`patterns` must map group names to .* Received: patterns="):
        group_by(models.sequential(), {name: "*"})


@pytest.mark.parametrize("patterns", [{}, {"all": []}], ids=repr)
def test_patterns_are_not_empty(patterns):
    with pytest.raises(ValueError, match=r"`patterns` must .* Received: patterns="):
        group_by(models.sequential(), patterns)


# layer_decay


def stack_of(n_groups):
    return split_evenly(models.stacked("w" * n_groups), n_groups)


@pytest.mark.parametrize("n_groups", [1, 2, 3, 12])
@pytest.mark.parametrize("decay", [1, 0.75, 0.5, 1 / 2.6, 1e-3])
def test_layer_decay_is_timms(n_groups, decay):
    """timm: scale = layer_decay ** (layers_max - layer)."""
    found = layer_decay(stack_of(n_groups), decay)
    assert found == pytest.approx([decay ** (n_groups - 1 - layer) for layer in range(n_groups)], rel=1e-15)
    assert found[-1] == 1.0
    assert all(type(multiplier) is float for multiplier in found)


def test_layer_decay_of_ulmfit():
    """The rate of a layer is that of the next, divided by 2.6."""
    found = layer_decay(stack_of(4), 1 / 2.6)
    assert found == pytest.approx([1 / 17.576, 1 / 6.76, 1 / 2.6, 1])


def test_layer_decay_checks_its_argument():
    groups = stack_of(2)
    assert_number(lambda v: layer_decay(groups, v), "decay", out_of_range=(0, 0.0, -0.5, 1.0001, 2))
