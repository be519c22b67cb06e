"""The peak rate of the head, and those below it."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kadence._phase_rates import bold_rate, peak_of, spread_factors
from kadence.range_test import Curve, RangeTest


def new_job(optimizer="Adam"):
    return SimpleNamespace(notes=[], compiled=SimpleNamespace(optimizer=getattr(keras.optimizers, optimizer)()))


def sweep(losses, stopped="rose"):
    """A sweep of 100 steps from 1e-6 to 1."""
    groups = {"group_1": 0.1, "group_2": 1.0}
    return RangeTest(1e-6, 1.0, 100, False, groups, groups, [Curve("all", 0, losses, stopped)])


#: No rule has a clear answer; 34 steps end at 1e-4, 100 at 1.
UNCLEAR = 1.0 + 0.1 * np.sin(np.arange(100))


@pytest.mark.parametrize(("optimizer", "rate"), [("SGD", 3e-2), ("Adam", 1e-2), ("Nadam", 1e-2), ("Lion", 1e-3)])
def test_the_bold_rate_of_each_optimizer(optimizer, rate):
    assert bold_rate(new_job(optimizer), 0.1) == pytest.approx(rate)


@pytest.mark.parametrize(("before", "rate"), [(0.0, 1e-2), (0.05, 1e-2), (0.1, 1e-2), (0.5, 2e-3), (1.0, 1e-3)])
def test_the_group_before_the_head_has_at_most_a_tenth_of_the_boldest(before, rate):
    assert bold_rate(new_job(), before) == pytest.approx(rate)


def test_a_test_that_went_through_leaves_the_bold_rate():
    job = new_job()
    assert peak_of(job, sweep(UNCLEAR, "end"), "model", "bold", 0.02) == 0.02
    assert job.notes == []


@pytest.mark.parametrize(("stopped", "rate"), [("rose", 1e-5), ("end", 1e-2)])
def test_a_loss_that_rose_early_is_the_bound(stopped, rate):
    job = new_job()
    assert peak_of(job, sweep(UNCLEAR[:34], stopped), "head", "bold", 1e-2) == pytest.approx(rate)
    told = ["In the range test of the head the loss rose early: 1e-05, a tenth of there, is taken."]
    assert job.notes == (told if stopped == "rose" else [])


def test_a_rule_answers_or_the_bold_rate_does():
    job = new_job()
    falling = np.concatenate([np.full(40, 2.0), np.linspace(2.0, 0.5, 40), np.linspace(0.5, 9.0, 20)])
    test = sweep(falling + 0.01 * UNCLEAR)
    found = peak_of(job, test, "model", "minimum", 1e-2)
    assert found == test.suggest("minimum").rates["all"] != 1e-2
    assert job.notes == []
    assert peak_of(job, sweep(UNCLEAR), "model", "minimum", 1e-2) == 1e-2
    (note,) = job.notes
    assert note.startswith("The range test of the model has no clear answer (")


def test_factors():
    assert spread_factors(1) == [1.0]
    assert spread_factors(3) == pytest.approx([0.01, 0.1, 1.0])
    assert spread_factors(2, 4.0) == pytest.approx([0.25, 1.0])
