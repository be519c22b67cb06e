"""Which phases follow from which arguments."""

import numpy as np
import pytest
from bad_input import NOT_FINITE, assert_integer, assert_rejects

from kadence._recipe import make_phases
from kadence.groups import LayerGroup, LayerGroups
from kadence.phases import FindPhase, HeadPhase, TrainPhase

pytestmark = pytest.mark.once

GROUPS = LayerGroups([LayerGroup(f"group_{i}", (letter,)) for i, letter in enumerate("abc", 1)])
FALLING = (0.005, 0.05, 0.5)


def make(epochs=5, **arguments):
    return make_phases(epochs, GROUPS, **arguments)


def test_the_head_first_then_the_rates_then_all():
    assert make() == (HeadPhase(1), FindPhase(), TrainPhase(4, None, "cosine", 3, False))


@pytest.mark.parametrize("freeze_epochs", [1, 2, 4])
def test_the_head_phase_is_a_part_of_the_epochs(freeze_epochs):
    head, _, last = make(freeze_epochs=freeze_epochs)
    assert (head.epochs, last.epochs) == (freeze_epochs, 5 - freeze_epochs)


def test_without_a_head_phase():
    assert make(freeze_epochs=0) == (FindPhase(), TrainPhase(5))
    assert make(freeze_epochs=0, rates=[0.5] * 3) == (TrainPhase(5, (0.5, 0.5, 0.5)),)


@pytest.mark.parametrize("rate", [0.5, np.float32(0.5), np.float64(0.5), np.array(0.5)])
def test_one_rate_is_that_of_the_head_and_falls_towards_the_input(rate):
    head, last = make(rates=rate)
    assert head == HeadPhase(1, 0.5)
    assert last.rates == pytest.approx(FALLING)
    assert make(rates=1)[-1].rates[-1] == 1.0


@pytest.mark.parametrize("kind", [tuple, list, np.array, iter])
def test_rates_that_are_given_are_not_looked_for(kind):
    assert make(rates=kind([0.0, 0.125, 0.5])) == (HeadPhase(1, 0.5), TrainPhase(4, (0.0, 0.125, 0.5)))


def test_a_frozen_body_and_one_group():
    assert make(rates=[0, 0, 1])[-1].rates == (0.0, 0.0, 1.0)
    assert make_phases(1, LayerGroups(GROUPS[:1]), [0.5], freeze_epochs=0) == (TrainPhase(1, (0.5,)),)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "warm-restarts", "constant"])
def test_the_schedule_is_that_of_the_last_phase(schedule):
    head, _, last = make(schedule=schedule)
    assert (head, last.schedule, last.cycles, last.snapshots) == (HeadPhase(1), schedule, 3, False)


@pytest.mark.parametrize("schedule", ["auto", "warm-restarts"])
def test_snapshots_are_taken_at_the_end_of_as_many_cycles(schedule):
    assert make(snapshots=2, schedule=schedule)[-1] == TrainPhase(4, None, "warm-restarts", 2, True)


def test_snapshots_need_cycles():
    with pytest.raises(ValueError, match=r"`schedule` must be 'warm-restarts' or 'auto' for snapshots.*='cosine'"):
        make(snapshots=2, schedule="cosine")


@pytest.mark.parametrize(("epochs", "freeze_epochs"), [(1, 1), (2, 2), (2, 3)])
def test_too_few_epochs(epochs, freeze_epochs):
    rule = rf"^`epochs` must be more than the {freeze_epochs} of `freeze_epochs`.*=0`\.$"
    with pytest.raises(ValueError, match=rule):
        make(epochs, freeze_epochs=freeze_epochs)


def test_epochs_are_integers():
    assert_integer(make, "epochs", 1)
    assert_integer(lambda value: make(freeze_epochs=value), "freeze_epochs", 0)


def test_schedules_that_there_are_not():
    for value in (None, 1, ["cosine"]):
        assert_rejects(lambda value: make(schedule=value), "schedule", value, TypeError)
    assert_rejects(lambda value: make(schedule=value), "schedule", "cosin", ValueError)
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        make(schedule="cosin")


@pytest.mark.parametrize("value", ["", "auto", "0.1", [0.1], [0.1] * 4, [0.0] * 3, [], 0, 0.0, -0.1, *NOT_FINITE])
def test_rates_of_a_wrong_value(value):
    assert_rejects(lambda value: make(rates=value), "rates", value, ValueError)


@pytest.mark.parametrize("value", [None, True, b"find", {"group_1": 0.1}, object(), 1j])
def test_rates_of_a_wrong_type(value):
    assert_rejects(lambda value: make(rates=value), "rates", value, TypeError)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(None, TypeError), ("1", TypeError), (True, TypeError), (-0.1, ValueError), (np.nan, ValueError)],
)
def test_one_rate_among_them_that_is_wrong(wrong, error):
    with pytest.raises(error, match=rf"`rates` must be a finite number >= 0\. Received: rates={wrong!r}"):
        make(rates=[0.1, wrong, 0.3])


def test_the_rule_of_the_rates_names_the_groups():
    with pytest.raises(ValueError, match=r"be 'find', a rate, or one rate per group, 3: group_1, group_2, group_3\."):
        make(rates=[0.1, 0.2])
