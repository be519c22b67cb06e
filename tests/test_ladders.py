"""lr_ladder_test: what it trains, what it chooses, what it gives back, what it refuses."""

import itertools
import math
import re

import keras
import pytest
from bad_input import NOT_FINITE, NOT_NUMBERS
from range_tests import assert_untouched, compiled, data, everything

import kadence
from kadence import LadderTest
from kadence.ladders import LadderTrial

X, Y = data()
SETTINGS = {"validation_data": (X[:16], Y[:16]), "rates": [1e-2], "n_steps": 20, "seed": 0}
LADDERS = {"flat": (1.0, 1.0), "head only": (0.0, 1.0)}


def two_groups(optimizer, factors=(1.0, 1.0)):
    """Without dropout and BatchNorm: losses that another training gives again."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(8, "tanh", name="low"), keras.layers.Dense(2, name="head")]
    model = keras.Sequential([keras.Input((X.shape[1],)), *layers])
    optimizer = kadence.DiscriminativeOptimizer(optimizer, kadence.split(model, at="head"), factors)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_a_trial_is_the_training_that_it_stands_for():
    """One batch an epoch, so that there is one order; the rates are written out by hand."""
    rates = [0.0, 0.005] + [0.005 * (1 + math.cos(math.pi * step / 18)) for step in range(18)]
    test = kadence.lr_ladder_test(
        two_groups(keras.optimizers.Adam(1.0)), X, Y, **SETTINGS, ladders=LADDERS, batch_size=99
    )
    assert [trial.ladder for trial in test.trials] == list(LADDERS)
    for trial in test.trials:
        schedule = kadence.from_points(range(20), rates, "constant")
        model = two_groups(keras.optimizers.Adam(schedule), LADDERS[trial.ladder])
        assert test.start == pytest.approx(model.evaluate(X[:16], Y[:16], verbose=0), rel=1e-5)
        model.fit(X, Y, batch_size=99, epochs=20, verbose=0)
        assert trial.losses == pytest.approx([model.evaluate(X[:16], Y[:16], verbose=0)], rel=1e-4)
    assert len({trial.loss for trial in test.trials}) == 2


def test_it_repeats_itself_and_gives_everything_back():
    model = compiled(groups=True)
    before = everything(model)
    settings = {**SETTINGS, "rates": [1e-3, 1e-1], "n_runs": 2, "batch_size": 8}
    test = kadence.lr_ladder_test(model, X, Y, **settings)
    assert_untouched(model, before)
    assert kadence.lr_ladder_test(model, X, Y, **settings) == test
    assert list(test.ladders) == ["one rate", "gentle", "steep"]
    assert test.ladders["gentle"] == pytest.approx([1 / 2.6, 1.0])
    assert [(t.ladder, t.lr) for t in test.trials] == list(itertools.product(test.ladders, settings["rates"]))
    assert all(len(set(trial.losses)) == 2 for trial in test.trials), "each run has an order of its own"


def test_a_loss_that_is_not_finite_is_infinite_and_never_the_best():
    test = kadence.lr_ladder_test(
        two_groups(keras.optimizers.SGD()), X, Y, **{**SETTINGS, "rates": [1e-2, 1e38]}, ladders={"flat": (1, 1)}
    )
    assert [math.isfinite(trial.loss) for trial in test.trials] == [True, False]
    assert test.best is test.trials[0]
    assert test.learning_rates() == [1e-2, 1e-2]
    assert LadderTest.from_json(test.to_json()) == test


# The record, worked by hand


def record(*trials, start=2.0):
    return LadderTest({"flat": (1.0, 1.0), "steep": (0.1, 1.0)}, trials, start, 20, 0)


def test_the_lowest_mean_is_the_best():
    test = record(LadderTrial("flat", 1e-3, (0.9, 0.5)), LadderTrial("steep", 1e-2, (0.5, 0.7)))
    assert test.best == test.trials[1]
    assert test.learning_rates() == pytest.approx([1e-3, 1e-2])
    lines = str(test).splitlines()
    assert lines[1].split() == ["steep", "0.1", "1", "0.01", "0.6000", "best"]
    assert lines[2].split() == ["flat", "1", "1", "0.001", "0.7000"]
    assert "2 runs each" in lines[-1]
    assert "0.28" in lines[-1], "the standard deviation of 0.9 and 0.5"


def test_no_ladder_is_the_best_where_none_lowers_the_loss():
    test = record(LadderTrial("flat", 1e-3, (2.1,)), LadderTrial("steep", 1.0, (math.inf,)))
    assert test.best is None
    assert "One run each" in str(test)
    with pytest.raises(ValueError, match=r"`trials` must hold a held-out loss below that before the training, 2\."):
        test.learning_rates()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kadence": "ladder test", "version": 2}', '{"kadence": "rates"}'])
def test_text_that_is_no_record(text):
    with pytest.raises(ValueError, match="`text` must be JSON of a ladder test"):
        LadderTest.from_json(text)
    with pytest.raises(TypeError, match="`text` must be a string"):
        LadderTest.from_json(b"{}")


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": []}, "`rates` must be base rates > 0"),
        ({"rates": [0.0]}, "`rates` must be a finite number > 0"),
        ({"rates": {"flat": [1e-2]}}, "`rates` must be base rates > 0, or map each ladder to its own: flat, head only"),
        ({"ladders": {}}, "`ladders` must map names to factors"),
        ({"ladders": {"flat": (1.0,)}}, "one per group, 2"),
        ({"ladders": {"flat": (0.0, 0.0)}}, "one of them > 0"),
        ({"ladders": {"flat": (-1.0, 1.0)}}, "`ladders` must be a finite number >= 0"),
        ({"n_steps": 19}, "`n_steps` must be an integer >= 20"),
        ({"n_runs": 0}, "`n_runs` must be an integer >= 1"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1"),
        ({"x": X[:0]}, "`x` must"),
        ({"x": (batch for batch in [(X, Y)]), "y": None}, "`x` must be data that can be gone through again"),
        (
            {"validation_data": (batch for batch in [(X, Y)])},
            "`validation_data` must be held-out data that can be gone through again",
        ),
        ({"validation_data": iter([(X, Y)])}, "`validation_data` must be held-out data that can be gone through again"),
    ],
)
def test_bad_values(changes, message):
    model = two_groups(keras.optimizers.SGD())
    before = everything(model)
    with pytest.raises(ValueError, match=re.escape(message)):
        kadence.lr_ladder_test(model, **{"x": X, "y": Y, "ladders": LADDERS, **SETTINGS, **changes})
    assert_untouched(model, before)


def test_bad_types():
    model = two_groups(keras.optimizers.SGD())
    for rate in NOT_NUMBERS:
        with pytest.raises((TypeError, ValueError), match="`rates` must"):
            kadence.lr_ladder_test(model, X, Y, **{**SETTINGS, "rates": [rate]}, ladders=LADDERS)
    for rate in NOT_FINITE:
        with pytest.raises(ValueError, match="`rates` must"):
            kadence.lr_ladder_test(model, X, Y, **{**SETTINGS, "rates": [rate]}, ladders=LADDERS)
    with pytest.raises(TypeError, match=r"`validation_data` must be held-out data.* Received: validation_data=None"):
        kadence.lr_ladder_test(model, X, Y, **{**SETTINGS, "validation_data": None})
    with pytest.raises(TypeError, match="`ladders` must"):
        kadence.lr_ladder_test(model, X, Y, **SETTINGS, ladders=[1.0, 2.0])
    with pytest.raises(TypeError, match=r"`model` must be a keras\.Model"):
        kadence.lr_ladder_test(None, X, Y, **SETTINGS)


def test_a_model_without_groups():
    model = compiled()
    with pytest.raises(ValueError, match="`optimizer` must have layer groups"):
        kadence.lr_ladder_test(model, X, Y, **SETTINGS)
