"""join, warmup and scale against their one-line definitions, nested at random."""

import bisect
import json
import math

import keras
import numpy as np
import pytest
from bad_input import assert_integer, assert_number
from evaluate import MAX, formula, rates, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from kadence.schedules import Constant, Cosine, Linear, WarmRestarts, from_function, join, scale, warmup
from kadence.schedules._join import check_schedule

NOT_SCHEDULES = [0.1, 1, None, "cosine", [Constant(0.1)], Constant, lambda step: 0.1]


def joined(schedules, at_steps, step):
    """The definition: each piece begins at its own step 0."""
    index = bisect.bisect_right(at_steps, step)
    return float(schedules[index].at(step - [0, *at_steps][index]))


# join

THREE = [Linear(0, 1, 5), WarmRestarts(0.5, 3, 2, lr_min=0.01), Constant(0.2)]


@pytest.mark.parametrize(
    ("schedules", "at_steps"),
    [
        (THREE, [5, 26]),
        (THREE, [1, 2]),
        (THREE, [100, MAX]),
        (THREE[:2], [10]),
        (THREE[:1], []),
        ([THREE[0]] * 4, [3, 6, 9]),
        ([join(THREE, [5, 26]), join(THREE, [2, 4])], [7]),
        ([Constant(0.1), join([Constant(0.2), join([Constant(0.3), Constant(0.4)], [2])], [3])], [4]),
    ],
)
def test_join(schedules, at_steps):
    schedule = join(schedules, at_steps)
    edges = [step + shift for step in at_steps for shift in (-1, 0, 1)]
    steps = [step for step in [*range(40), *edges, MAX] if step <= MAX]
    expected = [joined(schedules, at_steps, step) for step in steps]
    np.testing.assert_array_equal(schedule.at(steps), expected)
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-6)


def test_a_nested_join_takes_over_at_its_own_steps():
    inner = join([Constant(0.2), Constant(0.3)], [2])
    assert join([Constant(0.1), inner], [3]).sample(7).tolist() == [0.1, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    assert join([inner, Constant(0.1)], [3]).sample(5).tolist() == [0.2, 0.2, 0.3, 0.1, 0.1]


def test_join_bounds_are_those_of_its_parts():
    schedule = join([Linear(0.2, 0.5, 5), Cosine(0.3, 10, 0.1)], [5])
    assert (schedule.lr_max, schedule.lr_min) == (0.5, 0.1)


def test_join_takes_any_sequences():
    expected = join([Constant(0.1), Constant(0.2)], [3])
    for schedules, at_steps in [
        ((Constant(0.1), Constant(0.2)), (3,)),
        (iter([Constant(0.1), Constant(0.2)]), iter([3])),
        ([Constant(0.1), Constant(0.2)], np.array([3])),
    ]:
        assert join(schedules, at_steps) == expected


def test_join_keeps_its_own_lists():
    schedules, at_steps = [Constant(0.1), Constant(0.2)], [3]
    schedule = join(schedules, at_steps)
    schedules.append(Constant(0.3))
    at_steps.append(4)
    assert schedule == join([Constant(0.1), Constant(0.2)], [3])


def test_join_checks_its_schedules():
    for value in NOT_SCHEDULES:
        with pytest.raises(TypeError, match=r"`schedules` must be a kadence\.Schedule. Received: schedules="):
            join([Constant(0.1), value], [3])
    for value in (None, 3, "ab", Constant(0.1), {"a": Constant(0.1)}):
        with pytest.raises(TypeError, match=r"`schedules` must be a sequence of at least one schedule. Received: "):
            join(value, [])
    with pytest.raises(ValueError, match=r"`schedules` must .* Received: schedules=\[\]\."):
        join([], [])


def test_join_says_how_a_number_becomes_a_schedule():
    with pytest.raises(TypeError, match=r"Received: schedules=0\.1\. A number becomes one with `kadence\.Constant`\."):
        join([0.1, Constant(0.1)], [3])


def test_join_checks_its_steps():
    two = [Constant(0.1), Constant(0.2)]
    assert_integer(lambda v: join(two, [v]), "at_steps", minimum=1)
    for at_steps in ([], [1, 2], [1, 2, 3]):
        with pytest.raises(ValueError, match=r"`at_steps` must be a sequence of 1 steps, one fewer .* Received: at_"):
            join(two, at_steps)
    for at_steps in (3, None, "3"):
        with pytest.raises(TypeError, match=r"`at_steps` must be a sequence .* Received: at_steps="):
            join(two, at_steps)
    for at_steps in ([3, 3], [4, 3]):
        with pytest.raises(ValueError, match=r"`at_steps` must be strictly increasing. Received: at_steps=\[., 3\]"):
            join([*two, two[0]], at_steps)


# warmup


@pytest.mark.parametrize("warmup_steps", [1, 2, 5, 2**24 + 1])
@pytest.mark.parametrize("lr_start", [0.0, 0.05, 0.4, 1])
@pytest.mark.parametrize("schedule", [Constant(0.4), WarmRestarts(0.3, 10, 2), Linear(0.1, 0.9, 7)], ids=repr)
def test_warmup(schedule, warmup_steps, lr_start):
    found = warmup(schedule, warmup_steps, lr_start)
    first = float(schedule.at(0))
    steps = sorted({0, 1, 2, 3, 4, 5, warmup_steps - 1, warmup_steps, warmup_steps + 1, warmup_steps + 30})
    expected = [
        lr_start + (first - lr_start) * step / warmup_steps
        if step < warmup_steps
        else float(schedule.at(step - warmup_steps))
        for step in steps
    ]
    np.testing.assert_allclose(found.at(steps), expected, rtol=1e-14)
    np.testing.assert_allclose(rates(found, steps), expected, rtol=1e-6)


def test_warmup_starts_at_zero_and_meets_the_schedule():
    found = warmup(Cosine(0.4, 8), 4)
    assert found.sample(5).tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_array_equal(found.sample(20, start=4), Cosine(0.4, 8).sample(20))


def test_warmup_of_a_warmup():
    inner = warmup(Constant(0.4), 4, lr_start=0.2)
    assert warmup(inner, 2).sample(8).tolist() == pytest.approx([0, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.4])


def test_warmup_checks_its_arguments():
    for value in NOT_SCHEDULES:
        with pytest.raises(TypeError, match=r"`schedule` must be a kadence\.Schedule. Received: schedule="):
            warmup(value, 3)
    assert_integer(lambda v: warmup(Constant(0.1), v), "warmup_steps", minimum=1)
    assert_number(lambda v: warmup(Constant(0.1), 3, v), "lr_start", out_of_range=(-1e-9,))


# scale


@pytest.mark.parametrize("factor", [0, 1, 0.1, 1e-6, 30])
@pytest.mark.parametrize("schedule", [*THREE, Cosine(0.1, 10, lr_min=0.01), join(THREE, [5, 26])], ids=repr)
def test_scale(schedule, factor):
    found = scale(schedule, factor)
    np.testing.assert_array_equal(found.sample(40), schedule.sample(40) * factor)
    np.testing.assert_allclose(rates(found, range(40)), schedule.sample(40) * factor, rtol=1e-6)
    assert (found.lr_max, found.lr_min) == (schedule.lr_max * factor, schedule.lr_min * factor)


def test_scale_scales_the_floor():
    """A floor of its own raises PyTorch's group at 1e-5 to 9.8e-5."""
    found = scale(WarmRestarts(0.1, 100, lr_min=1e-4), 1e-4)
    assert found.lr_min == pytest.approx(1e-8)
    assert found.sample(100).max() == pytest.approx(1e-5)
    assert found.sample(100).min() == pytest.approx(1e-8, rel=0.3)


def test_scale_checks_its_arguments():
    for value in NOT_SCHEDULES:
        with pytest.raises(TypeError, match=r"`schedule` must be a kadence\.Schedule. Received: schedule="):
            scale(value, 0.5)
    assert_number(lambda v: scale(Constant(0.1), v), "factor", out_of_range=(-1e-9, -1))


def test_scale_gives_no_rate_that_is_not_finite():
    with pytest.raises(ValueError, match=r"`factor` must .* Received: factor=1e\+200"):
        scale(Constant(1e200), 1e200)


def test_check_schedule():
    assert check_schedule("schedule", THREE[0]) is THREE[0]


# All of them together

LR = st.floats(1e-6, 1.0)
LENGTH = st.one_of(st.integers(1, 50), st.integers(1, MAX))


def compounds(parts):
    joins = st.lists(parts, min_size=1, max_size=4).flatmap(
        lambda schedules: st.sets(st.integers(1, 60), min_size=len(schedules) - 1, max_size=len(schedules) - 1).map(
            lambda at_steps: join(schedules, sorted(at_steps))
        )
    )
    return st.one_of(joins, st.builds(warmup, parts, st.integers(1, 20), LR), st.builds(scale, parts, LR))


SCHEDULES = st.recursive(
    st.one_of(
        st.builds(Constant, LR),
        st.builds(Linear, LR, LR, LENGTH),
        st.builds(lambda lr, n, part: Cosine(lr, n, lr * part), LR, LENGTH, st.floats(0, 0.9)),
        st.builds(
            lambda lr, n, mult, part, decay: WarmRestarts(lr, n, mult, lr * part, decay),
            LR,
            LENGTH,
            st.sampled_from([1, 1.1, 1.5, 2, 3]),
            st.floats(0, 0.9),
            st.floats(0.5, 1),
        ),
    ),
    compounds,
    max_leaves=6,
)


@given(SCHEDULES, st.lists(st.one_of(st.integers(0, 100), st.integers(0, MAX)), min_size=1))
def test_any_schedule_is_finite_within_its_bounds_and_comes_back_from_its_config(schedule, steps):
    found = schedule.at(steps)
    assert np.all(np.isfinite(found))
    assert np.all(found >= schedule.lr_min * (1 - 1e-12))
    assert np.all(found <= schedule.lr_max * (1 + 1e-12))
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(schedule))))
    assert again == schedule
    assert repr(again) == repr(schedule)
    np.testing.assert_array_equal(again.at(steps), found)


@settings(max_examples=15)
@given(SCHEDULES, st.one_of(st.integers(0, 100), st.integers(0, MAX)))
def test_any_schedule_gives_a_tensor_the_rate_of_numpy(schedule, step):
    assert float(formula(schedule)(tensor(step))) == pytest.approx(float(schedule.at(step)), rel=2e-6)


@given(SCHEDULES, st.integers(1, 100), st.integers(0, 200))
def test_warmup_is_the_schedule_moved(schedule, warmup_steps, step):
    found = warmup(schedule, warmup_steps)
    assert float(found.at(warmup_steps + step)) == float(schedule.at(step))
    share = min(step, warmup_steps - 1) / warmup_steps
    assert math.isclose(found.at(min(step, warmup_steps - 1)), schedule.at(0) * share, rel_tol=1e-12)


def test_schedules_around_a_function_without_a_name_are_compared():
    """It has no config; a set needs a hash beside the comparison."""
    functions = {lr: lambda step, lr=lr: lr * keras.ops.ones(step.shape) for lr in (0.5, 0.1)}
    half, tenth = (from_function(function, lr_max=lr) for lr, function in functions.items())
    for make in (lambda s: scale(s, 0.5), lambda s: warmup(s, 3), lambda s: join([s, Constant(1.0)], [4])):
        assert make(half) == make(half)
        assert make(half) != make(tenth)
        assert len({make(half), make(half)}) == 1
    assert scale(half, 0.5) != scale(half, 0.25)
    assert scale(half, 0.5) != half


def test_parts_are_the_schedules_that_one_is_made_of():
    first, second = Linear(0.0, 1.0, 4), Cosine(1.0, 10)
    assert join([first, second], [4]).parts == (first, second)
    assert scale(second, 0.5).parts == (second,)
    assert second.parts == ()
