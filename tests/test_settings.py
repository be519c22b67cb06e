import dataclasses
import json
import math
from fractions import Fraction
from pathlib import Path

import keras
import numpy as np
import pytest
from bad_input import NOT_COUNTABLE, assert_integer, assert_number, assert_rejects

from kadence import Constant, Cosine, FineTuneSettings, WarmRestarts
from kadence.settings import OPTIMIZERS, SCHEDULES


def with_value(name):
    return lambda value: FineTuneSettings(photos="photos", **{name: value})


@pytest.mark.parametrize(
    ("name", "out_of_range"),
    [
        ("validation_fraction", [0, 0.0, -0.2, 1, 1.0, 20]),
        ("first_cycle_epochs", [0, 0.0, -1]),
        ("cycle_mult", [0, 0.99, -2]),
    ],
)
def test_numbers_are_checked(name, out_of_range):
    assert_number(with_value(name), name, out_of_range)


def test_weight_decay_may_be_left_to_the_optimizer():
    for value in (True, "0.1", [0.1]):
        assert_rejects(with_value("weight_decay"), "weight_decay", value, TypeError)
    for value in (-1e-9, -1, math.nan):
        assert_rejects(with_value("weight_decay"), "weight_decay", value, ValueError)
    none = FineTuneSettings(photos="photos", optimizer="adamw", weight_decay=0)
    assert none.make_optimizer(Constant(0.1)).weight_decay == 0.0


@pytest.mark.parametrize(("name", "minimum"), [("cycles", 1), ("batch_size", 1), ("image_size", 32), ("seed", 0)])
def test_integers_are_checked(name, minimum):
    assert_integer(with_value(name), name, minimum)


def test_epochs_may_be_left_out_but_not_be_nonsense():
    assert FineTuneSettings(photos="photos", epochs=None).epochs is None
    for value in (True, 2.0, "3", math.nan):
        assert_rejects(with_value("epochs"), "epochs", value, TypeError)
    for value in (0, -1, *NOT_COUNTABLE):
        assert_rejects(with_value("epochs"), "epochs", value, ValueError)


@pytest.mark.parametrize("name", ["find_rates", "augment", "strict"])
def test_switches_are_checked(name):
    for value in (None, 1, "no"):
        assert_rejects(with_value(name), name, value, TypeError)


@pytest.mark.parametrize("name", ["rates", "split"])
def test_what_is_a_sequence_is_checked(name):
    for value in (1e-3, "head", {"head": 1e-3}, 3):
        assert_rejects(with_value(name), name, value, TypeError)
    assert_rejects(with_value("split"), "split", ("head", 3), TypeError)


@pytest.mark.parametrize("name", ["optimizer", "schedule", "batch_norm"])
def test_choices_are_checked(name):
    for value in (None, 1, True, ["adam"]):
        assert_rejects(with_value(name), name, value, TypeError)
    for value in ("", "Adam", "warm_restarts", "freeze"):
        assert_rejects(with_value(name), name, value, ValueError)


def test_a_wrong_choice_names_the_closest():
    with pytest.raises(ValueError, match="Did you mean 'adamw'"):
        FineTuneSettings(photos="photos", optimizer="adamww")


def test_every_rate_is_checked():
    assert_number(lambda rate: FineTuneSettings(photos="photos", rates=(1e-3, rate)), "rates", [-1e-12, -1])


@pytest.mark.parametrize("rates", [(), (0.0,), (0.0, 0, -0.0)])
def test_rates_must_train_something(rates):
    assert_rejects(with_value("rates"), "rates", rates, ValueError)


def test_no_split_points_are_an_error_as_in_split():
    # `split(model, at=[])` refuses an empty list; `--split ,` must not quietly mean the default.
    assert_rejects(with_value("split"), "split", (), ValueError)


def test_a_path_is_a_folder_too():
    settings = FineTuneSettings(photos=Path("photos"), validation=Path("held_out"))
    assert json.loads(json.dumps(dataclasses.asdict(settings)))["photos"] == "photos"


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FineTuneSettings(photos="photos").seed = 1


@pytest.mark.parametrize("first", [1, 0.5, 0.3, 1.5, 7])
@pytest.mark.parametrize("mult", [1, 1.5, 2, 3])
@pytest.mark.parametrize("cycles", [1, 2, 3, 6])
def test_total_epochs_hold_all_cycles(first, mult, cycles):
    exact = sum(Fraction(str(first)) * Fraction(str(mult)) ** cycle for cycle in range(cycles))
    settings = FineTuneSettings(photos="photos", first_cycle_epochs=first, cycle_mult=mult, cycles=cycles)
    assert settings.total_epochs() == math.ceil(exact)


def test_epochs_win_over_cycles():
    assert FineTuneSettings(photos="photos", cycles=3, epochs=5).total_epochs() == 5
    assert FineTuneSettings(photos="photos").total_epochs() == 1 + 2 + 4


@pytest.mark.parametrize("fields", [{"cycles": 2000}, {"cycles": 60}, {"cycle_mult": 1e308}])
def test_a_run_without_end_is_a_clear_error(fields):
    with pytest.raises(ValueError, match=r"`(cycles|epochs|cycle_mult)` must .* Received: "):
        FineTuneSettings(photos="photos", **fields).total_epochs()


def test_schedules():
    settings = FineTuneSettings(photos="photos", first_cycle_epochs=2, cycle_mult=1.5, cycles=2)
    restarts = settings.make_schedule(0.1, steps_per_epoch=7)
    assert restarts == WarmRestarts(0.1, first_cycle_steps=14, cycle_mult=1.5)
    assert restarts.cycle_ends(5 * 7) == [13, 34]
    cosine = dataclasses.replace(settings, schedule="cosine").make_schedule(0.1, 7)
    assert cosine == Cosine(0.1, 5 * 7)
    np.testing.assert_allclose(cosine.sample(35)[-1], 0.05 * (1 + math.cos(math.pi * 34 / 35)), rtol=1e-12)
    assert dataclasses.replace(settings, schedule="constant").make_schedule(0.1, 7) == Constant(0.1)


def test_a_first_cycle_may_be_part_of_an_epoch():
    settings = FineTuneSettings(photos="photos", first_cycle_epochs=0.5)
    assert settings.make_schedule(0.1, 10).first_cycle_steps == 5


def test_a_first_cycle_of_no_step_is_not_stretched_in_silence():
    settings = FineTuneSettings(photos="photos", first_cycle_epochs=0.01)
    with pytest.raises(ValueError, match="`first_cycle_epochs` must "):
        settings.make_schedule(0.1, 10)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_what_their_names_say(name):
    schedule = Constant(0.1)
    plain = FineTuneSettings(photos="photos", optimizer=name).make_optimizer(schedule)
    assert type(plain).__name__.lower() == name
    assert plain._learning_rate is schedule
    assert plain.weight_decay == (0.004 if name == "adamw" else None)
    decayed = FineTuneSettings(photos="photos", optimizer=name, weight_decay=0.02).make_optimizer(schedule)
    assert decayed.weight_decay == 0.02
    assert plain is not FineTuneSettings(photos="photos", optimizer=name).make_optimizer(schedule)


def test_sgd_has_nesterov_momentum():
    sgd = FineTuneSettings(photos="photos", optimizer="sgd").make_optimizer(Constant(0.1))
    assert isinstance(sgd, keras.optimizers.SGD)
    assert (sgd.momentum, sgd.nesterov) == (0.9, True)


def test_the_issue_s_schedules():
    assert set(SCHEDULES) == {"warm-restarts", "cosine", "constant"}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warmup_rises_from_0_and_leaves_the_length_of_the_run(schedule):
    settings = FineTuneSettings(photos="photos", schedule=schedule, warmup="0.5ep")
    rates = settings.make_schedule(1.0, steps_per_epoch=10).sample(70)
    np.testing.assert_allclose(rates[:5], np.arange(5) / 5)
    assert rates.argmax() == 5
    starts = [0, 10, 30] if schedule == "warm-restarts" else [0]
    assert np.flatnonzero(rates == 0.0).tolist() == starts
    if schedule != "constant":
        assert rates[-1] < 0.01


@pytest.mark.parametrize("value", ["", "5", "half", "-1st", "200%", "ep"])
def test_a_warmup_is_a_time(value):
    if value == "5":
        assert FineTuneSettings(photos="photos", warmup=value).warmup == "5"
    else:
        assert_rejects(with_value("warmup"), "warmup", value, ValueError)


@pytest.mark.parametrize(("schedule", "value"), [("warm-restarts", "1ep"), ("cosine", "100%"), ("constant", "70st")])
def test_a_warmup_leaves_something(schedule, value):
    settings = FineTuneSettings(photos="photos", schedule=schedule, warmup=value)
    with pytest.raises(ValueError, match="`warmup` must be shorter than the "):
        settings.make_schedule(1.0, steps_per_epoch=10)
