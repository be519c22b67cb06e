"""Schedules that end with a phase."""

import numpy as np
import pytest

from kadence._phase_schedules import SCHEDULES, make_schedule


@pytest.mark.once
@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 5, 6, 7, 9, 10, 14, 15, 40, 101, 1000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_ends_with_the_phase(name, n_steps):
    cycles = min(3, n_steps)
    schedule = make_schedule(name, 0.5, n_steps, cycles)
    rates = schedule.sample(n_steps)
    assert schedule.lr_max == 0.5, "multipliers of the groups are ratios to it"
    assert rates.max() == 0.5, "and it is reached"
    if name == "constant" or n_steps < (4 if name == "warm-restarts" else 5):
        assert rates.min() == 0.5
        return
    behind = rates[np.flatnonzero(rates == 0.5)[-1] :]
    assert rates[-1] == behind.min(), "the last rate is the lowest behind the last peak"
    assert rates[-1] < 0.5 * 3 / n_steps
    if name == "warm-restarts":
        assert schedule.ends_with_cycle(n_steps)
        assert len(schedule.cycle_ends(n_steps)) == cycles
        assert (rates == 0.5).sum() >= cycles
        assert n_steps < 40 or rates[0] == 0.0, "pretrained layers do not bear the peak at once"
        assert n_steps < 40 or 0.05 < (np.diff(rates) > 0.0).mean() < 0.15
    else:
        peak = rates.argmax()
        assert peak <= 0.3 * n_steps
        assert peak >= 0.05 * n_steps or n_steps < 10
        assert (np.diff(rates[: peak + 1]) > 0).all()
        assert (np.diff(rates[peak:]) < 0).all()


@pytest.mark.once
def test_more_cycles_than_steps():
    with pytest.raises(ValueError, match="`n_steps` must be a length that 3 cycles can fill"):
        make_schedule("warm-restarts", 0.5, 2, 3)


@pytest.mark.once
def test_cycles_grow_where_the_steps_allow_it():
    assert tuple(make_schedule("warm-restarts", 0.5, 70, 3).cycle_ends(70)) == (9, 29, 69)
    assert len(make_schedule("warm-restarts", 0.5, 5, 4).cycle_ends(5)) == 4
