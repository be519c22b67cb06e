"""What `DiscriminativeOptimizer` refuses, each with one clear error."""

import keras
import pytest
from optimizer_oracles import chain, three_groups, values

import kadence
from kadence import DiscriminativeOptimizer


@pytest.mark.parametrize(
    ("multipliers", "rates", "error", "words"),
    [
        (None, None, ValueError, "exactly one of the two"),
        ([1, 1, 1], [1, 1, 1], ValueError, "exactly one of the two"),
        ([1, 1], None, ValueError, r"`lr_multipliers` must have one value per group, 3: low, middle, head.*\[1, 1\]"),
        ([1, 1, 1, 1], None, ValueError, "one value per group, 3"),
        ([], None, ValueError, "one value per group, 3"),
        (None, [1e-3], ValueError, "`learning_rates` must have one value per group, 3"),
        ([1, -0.5, 1], None, ValueError, r">= 0.*-0\.5"),
        ([1, float("nan"), 1], None, ValueError, "finite.*nan"),
        ([1, float("inf"), 1], None, ValueError, "finite.*inf"),
        (None, [1e-3, -1e-3, 1], ValueError, r"`learning_rates` must.*>= 0.*-0\.001"),
        (None, [1e-3, float("nan"), 1], ValueError, "`learning_rates` must.*nan"),
        (None, [0, 0, 0], ValueError, "at least one rate > 0"),
        ("abc", None, TypeError, "one value per group, 3.*'abc'"),
        (0.1, None, TypeError, r"one value per group, 3.*0\.1"),
        ({"low": 1, "middle": 1, "head": 1}, None, TypeError, "one value per group, 3"),
        (["1", 1, 1], None, TypeError, "number.*'1'"),
        ([None, 1, 1], None, TypeError, "number.*None"),
        ([True, 1, 1], None, TypeError, "number.*True"),
        ([keras.optimizers.schedules.CosineDecay(1.0, 5), 1, 1], None, TypeError, "number.*CosineDecay"),
        (None, [kadence.Constant(1.0), 1, 1], TypeError, "`learning_rates` must.*Constant"),
    ],
)
def test_bad_multipliers_and_rates(multipliers, rates, error, words):
    model = chain()
    inner = keras.optimizers.Adam(0.125)
    with pytest.raises(error, match=words):
        DiscriminativeOptimizer(inner, three_groups(model), multipliers, learning_rates=rates)
    # The optimizer is as it was, and can be used.
    assert float(values(inner.learning_rate)) == 0.125
    DiscriminativeOptimizer(inner, three_groups(model), [1, 1, 1]).build(model.trainable_variables)


@pytest.mark.parametrize("groups", [None, "low", ["low", "head"], 3])
def test_groups_must_be_layer_groups(groups):
    with pytest.raises(TypeError, match="`groups` must be LayerGroups"):
        DiscriminativeOptimizer(keras.optimizers.SGD(0.1), groups, [1.0])


@pytest.mark.parametrize("optimizer", ["adam", None, keras.optimizers.Adam, 0.1])
def test_the_optimizer_must_be_one_of_keras(optimizer):
    with pytest.raises(TypeError, match=r"`optimizer` must be a keras\.optimizers\.Optimizer"):
        DiscriminativeOptimizer(optimizer, three_groups(chain()), [1, 1, 1])


def test_a_built_optimizer_is_refused():
    model, inner = chain(), keras.optimizers.SGD(0.1)
    inner.build(model.trainable_variables)
    with pytest.raises(ValueError, match=r"`optimizer` must be new; this one is built.*Make a new one"):
        DiscriminativeOptimizer(inner, three_groups(model), [1, 1, 1])


def test_an_optimizer_is_used_once():
    model, inner = chain(), keras.optimizers.SGD(0.1)
    DiscriminativeOptimizer(inner, three_groups(model), [1, 1, 1])
    with pytest.raises(ValueError, match="in another DiscriminativeOptimizer"):
        DiscriminativeOptimizer(inner, three_groups(model), [1, 1, 1])


def test_wrappers_are_refused_inside():
    model = chain()
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    with pytest.raises(TypeError, match=r"not be a wrapper.*LossScaleOptimizer.*around the DiscriminativeOptimizer"):
        DiscriminativeOptimizer(scaled, three_groups(model), [1, 1, 1])
    ours = DiscriminativeOptimizer(keras.optimizers.SGD(0.1), three_groups(model), [1, 1, 1])
    with pytest.raises(TypeError, match="not be a wrapper"):
        DiscriminativeOptimizer(ours, three_groups(model), [1, 1, 1])


@pytest.mark.parametrize("rate", [keras.optimizers.schedules.CosineDecay(0.1, 10), lambda: 0.1])
def test_peak_rates_need_a_peak_that_is_known(rate):
    with pytest.raises(ValueError, match=r"`learning_rates` must come with.*Give `lr_multipliers` instead"):
        DiscriminativeOptimizer(keras.optimizers.SGD(rate), three_groups(chain()), learning_rates=[1e-3, 1e-2, 1e-1])


def test_peak_rates_need_a_peak_above_0():
    inner = keras.optimizers.SGD(kadence.Constant(0.0))
    with pytest.raises(ValueError, match=r"`learning_rates`.*lr_max"):
        DiscriminativeOptimizer(inner, three_groups(chain()), learning_rates=[1e-3, 1e-2, 1e-1])


@pytest.mark.parametrize(
    ("inner", "schedules", "error", "message"),
    [
        (lambda: keras.optimizers.SGD(0.1), {"momentum": kadence.Constant(0.5)}, ValueError, "`momentum` must be > 0"),
        (lambda: keras.optimizers.Adam(0.1), {"beta1": kadence.Constant(0.5)}, ValueError, "Did you mean 'beta_1'"),
        (lambda: keras.optimizers.Adam(0.1), {"beta_1": 0.5}, TypeError, "'beta_1' is not a kadence.Schedule"),
        (lambda: keras.optimizers.Adam(0.1), [0.5], TypeError, "`schedules` must map hyperparameters"),
        (lambda: keras.optimizers.Adam(0.1), {"learning_rate": kadence.Constant(1.0)}, ValueError, "`schedules` must"),
        # Read when the optimizer is built, and never again.
        *(
            (cls, {"initial_accumulator_value": kadence.Constant(0.1)}, ValueError, "`schedules` must")
            for cls in (keras.optimizers.Adagrad, keras.optimizers.Ftrl)
        ),
    ],
)
def test_bad_hyperparameter_schedules(inner, schedules, error, message):
    model = chain()
    with pytest.raises(error, match=message):
        DiscriminativeOptimizer(inner(), three_groups(model), [1, 1, 1], schedules=schedules)


@pytest.mark.parametrize("names", [[""], ["bias", ""]])
def test_an_empty_name_would_be_every_name(names):
    model = chain()
    with pytest.raises(ValueError, match=r"`no_weight_decay` must be a sequence of names.*Every name contains ''"):
        DiscriminativeOptimizer(keras.optimizers.AdamW(0.1), three_groups(model), [1, 1, 1], no_weight_decay=names)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"no_weight_decay": ["bias"]}, "no_weight_decay"), ({"weight_decay_multipliers": [0, 1, 1]}, "weight_decay_m")],
)
def test_what_is_said_of_weight_decay_needs_one(arguments, name):
    model = chain()
    with pytest.raises(ValueError, match=f"`{name}.* must come with an optimizer that has weight decay.*Give Adam a"):
        DiscriminativeOptimizer(keras.optimizers.Adam(0.1), three_groups(model), [1, 1, 1], **arguments)
    for inner in (keras.optimizers.Adam(0.1, weight_decay=0.0), keras.optimizers.AdamW(0.1)):
        DiscriminativeOptimizer(inner, three_groups(model), [1, 1, 1], **arguments)
    inner = keras.optimizers.Adam(0.1)
    DiscriminativeOptimizer(inner, three_groups(model), [1, 1, 1], weight_decay_multipliers=[1, 1, 1])
