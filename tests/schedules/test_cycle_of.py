"""Cycles and ends through every combinator, against a walk over the steps."""

import bisect
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kadence import (
    Constant,
    Cosine,
    Cyclical,
    Exponential,
    Linear,
    OneCycle,
    SlantedTriangular,
    Step,
    WarmRestarts,
    from_points,
    join,
    scale,
    warmup,
)
from kadence.budgets import cycle_lengths

pytestmark = pytest.mark.once

MAX = 2**31 - 1
NOWHERE = (-1, -1)


def cycles_of(schedule, steps):
    return list(zip(*(bound.tolist() for bound in schedule.cycle_of(steps)), strict=True))


def walked(lengths, n_steps):
    """(first, last) of the cycle of each step, by going through the cycles."""
    found, start = [], 0
    for length in lengths:
        found += [(start, start + length - 1)] * length
        start += length
        if start >= n_steps:
            return found[:n_steps]
    raise AssertionError("too few cycles")


@given(first=st.integers(1, 60), mult=st.sampled_from([1.0, 1.1, 1.5, 2.0, 3.7]), n_steps=st.integers(1, 300))
def test_warm_restarts(first, mult, n_steps):
    schedule = WarmRestarts(1.0, first, mult)
    found = cycles_of(schedule, np.arange(n_steps))
    assert found == walked(cycle_lengths(first, mult), n_steps)
    assert sorted({last for _, last in found if last < n_steps}) == schedule.cycle_ends(n_steps)
    assert schedule.end_step is None


@pytest.mark.parametrize("mult", [1.0, 1.5, 2.0, 1000.0, 1e200])
@pytest.mark.parametrize("first", [1, 400, MAX])
def test_warm_restarts_at_the_last_steps(first, mult):
    ends = WarmRestarts(1.0, first, mult).cycle_ends(MAX)[-1:] if first > 1 or mult > 1 else [MAX - 1]
    first_step, last_step = (int(bound) for bound in WarmRestarts(1.0, first, mult).cycle_of(MAX))
    assert first_step <= MAX <= last_step
    assert [first_step - 1] == ends


def test_cyclical():
    schedule = Cyclical(1.0, up_steps=2, down_steps=3)
    assert cycles_of(schedule, np.arange(50)) == walked(itertools.repeat(5), 50)
    assert cycles_of(Cyclical(1.0, up_steps=2**29), np.array([MAX])) == [(2**30, MAX)]


SCHEDULES = st.recursive(
    st.sampled_from(
        [
            Constant(0.1),
            Cosine(1.0, 7),
            Linear(0, 1, 5),
            WarmRestarts(1.0, 3, 2),
            WarmRestarts(1.0, 4, 1.5, lr_min=0.5, peak_decay=0.9),
            Cyclical(1.0, 2),
        ]
    ),
    lambda inner: st.one_of(
        st.builds(scale, inner, st.sampled_from([0.5, 2.0])),
        st.builds(warmup, inner, st.integers(1, 6)),
        st.builds(lambda one, two, step: join([one, two], [step]), inner, inner, st.integers(1, 12)),
        st.builds(lambda one, two, step: join([one, two, one], [step, 2 * step]), inner, inner, st.integers(1, 12)),
    ),
    max_leaves=5,
)


def cycle_at(schedule, step):
    """The definition, part by part."""
    if hasattr(schedule, "factor") and hasattr(schedule, "schedule"):
        return cycle_at(schedule.schedule, step)
    if not hasattr(schedule, "schedules"):
        return cycles_of(schedule, np.array([step]))[0]
    part = bisect.bisect_right(schedule.at_steps, step)
    begin = [0, *schedule.at_steps][part]
    found = cycle_at(schedule.schedules[part], step - begin)
    return found if found == NOWHERE else (found[0] + begin, found[1] + begin)


@given(schedule=SCHEDULES)
def test_compounds(schedule):
    assert cycles_of(schedule, np.arange(60)) == [cycle_at(schedule, step) for step in range(60)]
    assert cycles_of(schedule, np.array(5)[None]) == [cycle_at(schedule, 5)]


@given(schedule=SCHEDULES)
def test_a_schedule_stays_as_it_is_from_its_end_on(schedule):
    if schedule.end_step is not None:
        assert len(set(schedule.sample(20, start=schedule.end_step).tolist())) == 1


@pytest.mark.parametrize(
    ("schedule", "end"),
    [
        (Constant(1.0), None),
        (Exponential(1.0, 0.5), None),
        (Step(1.0, [5, 9]), None),
        (Cosine(1.0, 7), 7),
        (Linear(0, 1, 5), 5),
        (OneCycle(1.0, 40), 40),
        (SlantedTriangular(1.0, 40), 40),
        (from_points([3, 9], [1, 0]), 9),
        (from_points([3, 9], [1, 0], "constant"), None),
        (scale(Cosine(1.0, 7), 2), 7),
        (warmup(Cosine(1.0, 7), 3), 10),
        (warmup(Constant(1.0), 3), None),
        (join([Constant(1.0), warmup(Cosine(1.0, 7), 3)], [5]), 15),
        (join([Cosine(1.0, 7)], []), 7),
    ],
)
def test_end_step(schedule, end):
    assert schedule.end_step == end


def test_a_schedule_without_cycles_has_none():
    assert cycles_of(Cosine(1.0, 7), np.arange(3)) == [NOWHERE] * 3
    first, last = Cosine(1.0, 7).cycle_of(3)
    assert (first.shape, first.dtype, int(last)) == ((), np.int64, -1)
