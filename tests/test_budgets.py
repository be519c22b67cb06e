"""Solved cycles against `WarmRestarts` itself, and against a search through everything."""

import itertools
import math

import pytest
from bad_input import assert_integer, assert_number, assert_rejects
from hypothesis import assume, given
from hypothesis import strategies as st

from kadence import WarmRestarts, scale_for_batch, solve_cycles
from kadence.budgets import cycle_lengths

pytestmark = pytest.mark.once

MAX = 2**31 - 1


def ends(cycles, n_steps):
    return WarmRestarts(1.0, *cycles).cycle_ends(n_steps)


def totals(growth, n_cycles, n_steps):
    """Length of the run for every first cycle, until it is longer than `n_steps`."""
    found = {}
    for first in range(1, n_steps + 2):
        lengths = cycle_lengths(first, growth)
        found[first] = sum(next(lengths) for _ in range(n_cycles))
        if found[first] > n_steps:
            return found
    return found


@given(
    first=st.integers(1, 10**6),
    growth=st.one_of(st.sampled_from([1.0, 1.5, 2.5, 1e10]), st.floats(1.001, 4).map(lambda g: round(g, 4))),
)
def test_lengths_are_those_of_warm_restarts(first, growth):
    lengths = list(itertools.islice(cycle_lengths(first, growth), 12))
    ends = [sum(lengths[: i + 1]) - 1 for i in range(12)]
    n_steps = min(ends[-1] + 1, 20 * first + 50, MAX)
    assert WarmRestarts(1.0, first, growth).cycle_ends(n_steps) == [end for end in ends if end < n_steps]


@pytest.mark.parametrize(
    ("n_steps", "n_cycles", "cycle_mult", "first", "growth"),
    [
        (700, 3, 2, 100, 2.0),
        (7, 3, 2, 1, 2.0),
        (830, 1, 1, 830, 1.0),
        (830, 1, 7.5, 830, 7.5),
        (830, 2, 1, 415, 1.0),
        (14, 5, 1.5, 1, 1.5),  # 1 + 2 + 2 + 3 + 5, and a little more growth
        (MAX, 1, 3, MAX, 3.0),
        (5, 5, 1, 1, 1.0),
    ],
)
def test_solutions_known_by_hand(n_steps, n_cycles, cycle_mult, first, growth):
    found = solve_cycles(n_steps, n_cycles, cycle_mult)
    assert found[0] == first
    assert found[1] == pytest.approx(growth, rel=0.1)
    assert ends(found, n_steps)[-1] == n_steps - 1


@given(
    n_steps=st.integers(1, 20_000),
    n_cycles=st.integers(1, 12),
    cycle_mult=st.sampled_from([1.0, 1.05, 1.25, 1.5, 2.0, 2.5, 3.0]),
)
def test_what_it_returns_ends_exactly_there(n_steps, n_cycles, cycle_mult):
    try:
        found = solve_cycles(n_steps, n_cycles, cycle_mult)
    except ValueError:
        # Only what is short beside its cycles has no solution.
        assert n_steps < 60 * n_cycles * cycle_mult**n_cycles
        assume(False)
    cycle_ends = ends(found, n_steps)
    assert (len(cycle_ends), cycle_ends[-1]) == (n_cycles, n_steps - 1)
    assert abs(found.cycle_mult - cycle_mult) <= 0.1 * cycle_mult + 1e-9


@pytest.mark.parametrize(("n_cycles", "cycle_mult"), [(1, 2.0), (2, 1.5), (3, 2.0), (4, 1.0), (4, 1.3), (5, 1.1)])
def test_the_growth_is_the_one_asked_for_wherever_it_can_be(n_cycles, cycle_mult):
    firsts = {total: first for first, total in totals(cycle_mult, n_cycles, 300).items()}
    for n_steps in range(1, 301):
        if n_steps in firsts:
            assert solve_cycles(n_steps, n_cycles, cycle_mult, max_change=0) == (firsts[n_steps], cycle_mult)
            continue
        near = [total for total in firsts if total < n_steps][-1:] + [total for total in firsts if total > n_steps][:1]
        with pytest.raises(ValueError, match=f"they fill {' or '.join(f'{total} steps' for total in near)}\\.$"):
            solve_cycles(n_steps, n_cycles, cycle_mult, max_change=0)


def test_a_growth_has_no_more_digits_than_it_needs():
    assert solve_cycles(830, 3, 2) == (119, 1.995)
    assert solve_cycles(830, 3, 1) == (276, 1.002)


@given(
    n_steps=st.integers(2, 400),
    n_cycles=st.integers(2, 5),
    cycle_mult=st.floats(1, 4).map(lambda growth: round(growth, 2)),
    max_change=st.floats(0, 0.2).map(lambda change: round(change, 4)),
)
def test_the_growth_is_within_the_bound(n_steps, n_cycles, cycle_mult, max_change):
    try:
        found = solve_cycles(n_steps, n_cycles, cycle_mult, max_change)
    except ValueError:
        assume(False)
    assert abs(found.cycle_mult - cycle_mult) <= max_change * cycle_mult * (1 + 1e-12)
    assert ends(found, n_steps)[-1] == n_steps - 1


def test_a_growth_is_not_rounded_out_of_the_bound():
    assert abs(solve_cycles(34, 2, 2.3, max_change=0.0225).cycle_mult - 2.3) <= 0.0225 * 2.3


def test_the_nearest_growth_is_the_largest_of_those_below():
    """20 and 39 steps, from a growth of 1.925 to just below 1.975: halves are rounded up."""
    assert solve_cycles(59, 2, 2, max_change=0.05) == (20, 1.97)


@pytest.mark.parametrize(("n_cycles", "cycle_mult"), [(2, 1), (3, 1.5), (10, 1), (10, 2), (1000, 1), (400, 1.01)])
def test_the_longest_run(n_cycles, cycle_mult):
    lengths = cycle_lengths(*solve_cycles(MAX, n_cycles, cycle_mult))
    assert sum(next(lengths) for _ in range(n_cycles)) == MAX


def test_a_growth_all_but_1_is_not_offered():
    """A table of all its cycles up to step 2**31 - 1 would be millions of rows long."""
    with pytest.raises(ValueError, match=r"they fill 999000 steps or 1000000 steps\.$"):
        solve_cycles(999_001, 1000, 1)


@pytest.mark.parametrize("cycle_mult", [1e300, 1e18, 1e10])
def test_a_growth_beyond_all_bounds(cycle_mult):
    with pytest.raises(ValueError, match=r"Take fewer cycles\.$"):
        solve_cycles(10, 3, cycle_mult)
    assert solve_cycles(10, 1, cycle_mult) == (10, cycle_mult)


def test_bad_arguments():
    assert_integer(lambda v: solve_cycles(v, 1), "n_steps", minimum=1)
    assert_integer(lambda v: solve_cycles(100, v), "n_cycles", minimum=1)
    assert_rejects(lambda v: solve_cycles(10**6, v), "n_cycles", 1001, ValueError)
    assert_number(lambda v: solve_cycles(100, 2, v), "cycle_mult", out_of_range=[0.99, 0, -2])
    assert_number(lambda v: solve_cycles(100, 2, 1, v), "max_change", out_of_range=[-0.1])


# scale_for_batch


@pytest.mark.parametrize(
    ("batch_size", "base", "rule", "factor"),
    [
        (256, 256, "linear", 1),
        (8192, 256, "linear", 32),
        (64, 256, "linear", 0.25),
        (1024, 256, "sqrt", 2),
        (1, 4, "sqrt", 0.5),
    ],
)
def test_scale_for_batch(batch_size, base, rule, factor):
    assert scale_for_batch(0.1, batch_size, base, rule) == 0.1 * factor


@given(
    lr=st.floats(0, 10), first=st.integers(1, MAX), second=st.integers(1, MAX), rule=st.sampled_from(["linear", "sqrt"])
)
def test_there_and_back(lr, first, second, rule):
    there = scale_for_batch(lr, first, second, rule)
    assert isinstance(there, float)
    assert math.isclose(scale_for_batch(there, second, first, rule), lr, rel_tol=1e-12, abs_tol=1e-300)


def test_bad_arguments_of_scale_for_batch():
    assert_number(lambda v: scale_for_batch(v, 1, 1), "lr", out_of_range=[-1e-9])
    assert_integer(lambda v: scale_for_batch(0.1, v, 1), "batch_size", minimum=1)
    assert_integer(lambda v: scale_for_batch(0.1, 1, v), "base_batch_size", minimum=1)
    for rule, error in (("square", ValueError), (None, TypeError), (2, TypeError)):
        assert_rejects(lambda v: scale_for_batch(0.1, 1, 1, v), "rule", rule, error)
