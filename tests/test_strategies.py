"""Strategies: by name, from JSON, refused, and what they say of a model over a run."""

import dataclasses

import compare_models
import keras
import numpy as np
import pytest
from bad_input import assert_integer, assert_number, assert_rejects

import kadence
from kadence import Strategy
from kadence.durations import run_length
from kadence.schedules import Schedule
from kadence.strategies import PARTS

LENGTH = run_length(epochs=5, steps_per_epoch=10)


def three_groups():
    layers = [keras.layers.Dense(2, name=name) for name in ("a", "b", "c")]
    return kadence.split_evenly(keras.Sequential([keras.Input((2,)), *layers]), 3)


def multipliers(length=LENGTH, **fields):
    """The factors of three groups at each step."""
    made = Strategy("x", **fields).make_multipliers(three_groups(), length)
    rows = [f.sample(length.n_steps) if isinstance(f, Schedule) else np.full(length.n_steps, f) for f in made]
    return np.array(rows).T


@pytest.mark.parametrize("name", [*PARTS, "discriminative+warm-restarts", "steep+cosine+sgd+train-batch-norm"])
def test_a_name_makes_a_strategy_that_survives_json(name):
    strategy = Strategy.from_name(name)
    assert strategy.name == name
    assert Strategy.from_json(strategy.to_json()) == strategy
    for part in name.split("+"):
        assert PARTS[part].items() <= dataclasses.asdict(strategy).items()


def test_unknown_names_are_answered_with_the_closest():
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        Strategy.from_name("cosin")
    with pytest.raises(ValueError, match=r"`strategies` must be made of .* Did you mean 'discriminative'"):
        Strategy.from_name("discriminitive+cosine")
    with pytest.raises(ValueError, match="say its schedule once"):
        Strategy.from_name("cosine+constant")


def test_a_strategy_refuses_what_makes_no_sense():
    assert_rejects(Strategy, "name", "", ValueError)
    assert_rejects(Strategy, "name", 3, TypeError)
    assert_number(lambda value: Strategy("x", layer_decay=value), "layer_decay", out_of_range=[0.0, 1.1, -1])
    assert_integer(lambda value: Strategy("x", cycles=value), "cycles", minimum=1)
    assert_rejects(lambda value: Strategy("x", optimizer=value), "optimizer", "adm", ValueError)
    assert_rejects(lambda value: Strategy("x", batch_norm=value), "batch_norm", "none", ValueError)
    assert_rejects(lambda value: Strategy("x", lr_multipliers=value), "lr_multipliers", (0.0, 0.0), ValueError)
    assert_rejects(lambda value: Strategy("x", groups=value), "groups", "head", TypeError)
    assert_rejects(lambda value: Strategy("x", phases=(value,)), "phases", 3, TypeError)
    with pytest.raises(ValueError, match="`phases` must be a duration"):
        Strategy("x", phases=((1, "two epochs"),))
    with pytest.raises(ValueError, match="beside `layer_decay`"):
        Strategy("x", lr_multipliers=(1.0,), layer_decay=0.5)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "x", "scheduel": 1}', '{"name": "x", "cycles": 0}'])
def test_what_is_no_strategy_is_refused(text):
    with pytest.raises(ValueError, match=r"`(text|cycles)` must"):
        Strategy.from_json(text)


def test_multipliers_fall_towards_the_input():
    np.testing.assert_allclose(multipliers(layer_decay=0.5)[0], [0.25, 0.5, 1.0])
    np.testing.assert_allclose(multipliers(lr_multipliers=(0.0, 0.1, 2.0))[7], [0.0, 0.1, 2.0])
    with pytest.raises(ValueError, match="one factor per group, 3"):
        multipliers(lr_multipliers=(1.0, 1.0))


def test_phases_hold_groups_still_to_the_step():
    rows = multipliers(phases=((1, "1ep"), (2, "20%")), layer_decay=0.5)
    np.testing.assert_array_equal((rows > 0).sum(axis=1), [1] * 10 + [2] * 10 + [3] * 30)
    np.testing.assert_allclose(rows[-1], [0.25, 0.5, 1.0])


def test_a_phase_of_the_whole_run_freezes():
    made = Strategy.from_name("frozen").make_multipliers(three_groups(), LENGTH)
    assert made == [0.0, 0.0, 1.0]
    with pytest.raises(ValueError, match=r"`phases` must fit into the run of 50 optimizer steps; they take 60"):
        multipliers(phases=((1, "6ep"),))
    with pytest.raises(ValueError, match="the number of groups that train"):
        multipliers(phases=((4, "1ep"),))


@pytest.mark.parametrize("warmup", ["0", "10%"])
@pytest.mark.parametrize("name", ["constant", "cosine", "warm-restarts"])
def test_schedules_end_with_the_run(name, warmup):
    rates = Strategy("x", schedule=name, warmup=warmup).make_schedule(0.1, LENGTH).sample(51)
    assert rates[:50].max() == pytest.approx(0.1)
    if name == "cosine":
        assert rates[50] == pytest.approx(0.0, abs=1e-9)
    if name == "warm-restarts":
        assert rates[49] < 0.01
        assert rates[50] == pytest.approx(0.0 if warmup != "0" else 0.1, abs=1e-9)


def test_too_few_steps_for_the_cycles_is_an_error():
    with pytest.raises(ValueError, match="`n_steps` must"):
        Strategy.from_name("warm-restarts").make_schedule(0.1, run_length(epochs=1, steps_per_epoch=2))


def test_groups_are_its_own_or_those_of_the_model():
    model = compare_models.build()
    own = kadence.split_evenly(model, 1)
    assert Strategy("x").make_groups(model, own) is own
    assert len(Strategy("x", groups=2).make_groups(model, own)) == 2
    assert Strategy("x", groups=("head",)).make_groups(model, own)[1].layers == ("head",)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_optimizer_by_name(name):
    optimizer = Strategy("x", optimizer=name, weight_decay=0.1).make_optimizer(kadence.Constant(0.1))
    assert (type(optimizer).__name__.lower(), optimizer.weight_decay) == (name, 0.1)
