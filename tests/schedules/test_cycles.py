"""Cycles against exact arithmetic: the cycle, the position in it, the rate, on every step that could be wrong.

The oracle knows only the sentence of the docstring: cycle i lasts `first_cycle_steps * cycle_mult**i` steps, rounded to
the nearest integer, halves up, `cycle_mult` being the decimal number that one writes. It uses integers alone.

A rate alone cannot show every position: near a peak the curve is flat, and a step more or less changes nothing that
float32 can hold. So the place is compared as integers, cycle and position, and the rate besides.
"""

import inspect
import itertools
import math
from fractions import Fraction
from typing import NamedTuple

import keras
import numpy as np
import pytest
from bad_input import assert_integer, assert_number
from evaluate import BACKEND, MAX, array, floatx, formula, over, rates, tensor, time_limit
from hypothesis import assume, given
from hypothesis import strategies as st

from kadence.schedules import Cyclical, WarmRestarts, _base

MULTS = ["1", "1.1", "1.25", "1.5", "2", "3"]
TOLERANCE = 1e-6
#: First cycles beyond the issue's, of which float32 cannot hold every step.
LONG = [2**24 + 1, 123_456_789, MAX]
#: A first cycle is a new trace; only PyTorch, which does not compile, has time for many.
FIRSTS = [*range(1, 401, 19), *LONG] if BACKEND == "torch" else [1, 10, 400, MAX]


# The oracle


class Steps(NamedTuple):
    """Steps, and where they are: integer arrays of one shape."""

    steps: np.ndarray
    cycles: np.ndarray
    positions: np.ndarray
    lengths: np.ndarray


def at_those(where, chosen):
    return Steps(*(column[chosen] for column in where))


def growing_cycles(first, mult, last_step=MAX):
    """(cycle, start, length) of every cycle that starts up to `last_step`, for a growth > 1."""
    growth = Fraction(mult)
    start, power, divisor = 0, 2 * first, 2
    for cycle in itertools.count():
        length = (power + divisor // 2) // divisor
        if start > last_step:
            return
        yield cycle, start, length
        start, power, divisor = start + length, power * growth.numerator, divisor * growth.denominator


def equal_cycles(first, everything=False):
    """(cycle, start, length) of cycles that are all alike: each up to 10 million, or the likeliest to be wrong."""
    last = MAX // first
    cycles = np.arange(min(10_000_000 // first, last) + 1)
    if not everything:
        powers = 2 ** np.arange(32)
        near = [cycles[:300], cycles[-3:], powers - 1, powers, powers + 1, powers // first, powers // first + 1]
        cycles = np.unique(np.concatenate(near))
    end = np.arange(max(0, last - 3), last + 1)
    cycles = np.concatenate([cycles[cycles < end[0]], end])
    return cycles, cycles * first, np.full_like(cycles, first)


def boundaries(first, mult, everything=False):
    """The first, the second and the last step of the cycles, and the last step that there is."""
    if Fraction(mult) == 1:
        cycles, starts, lengths = equal_cycles(first, everything)
    else:
        cycles, starts, lengths = (np.array(column) for column in zip(*growing_cycles(first, mult), strict=True))
    positions = np.stack([np.zeros_like(lengths), np.minimum(1, lengths - 1), np.maximum(lengths - 1, 0)])
    positions = np.minimum(positions, MAX - starts)
    return Steps(
        *(np.broadcast_to(x, positions.shape).ravel() for x in (starts + positions, cycles, positions, lengths))
    )


def closed_form(schedule, where):
    """Equation (5) in float64, by the half angle: 1 + cos would cancel at the end of a long cycle."""
    peak = np.maximum(schedule.lr_max * schedule.peak_decay ** where.cycles.astype(float), schedule.lr_min)
    left = (where.lengths - where.positions) / where.lengths
    return schedule.lr_min + (peak - schedule.lr_min) * np.sin(math.pi / 2 * left) ** 2


def wrong_places(place, where):
    """How many steps have a wrong cycle or position; `place` is the two."""
    return int(np.sum((place[0] != where.cycles) | (place[1] != where.positions)))


def wrong_rates(found, schedule, where):
    expected = closed_form(schedule, where)
    return int(np.sum(~(np.abs(found - expected) <= TOLERANCE * expected)))


def place_in_numpy(schedule, steps):
    return schedule._count(steps, _base._NUMPY)[:2]


def place_and_rate(schedule, steps, compiled=True):
    """Cycle, position and rate on the backend, compiled where it compiles."""

    def at(step):
        return *schedule._count(step, _base._KERAS)[:2], formula(schedule)(step)

    *place, rate = over(at, steps, ("int32", "int32", "float32"), compiled=compiled)
    assert [column.dtype for column in (*place, rate)] == ["int32", "int32", "float32"]
    return place, rate


def test_the_oracle_agrees_with_cycles_counted_by_hand():
    assert list(growing_cycles(10, "2", 69)) == [(0, 0, 10), (1, 10, 20), (2, 30, 40)]
    # 1, 1.5, 2.25, 3.375, 5.0625: the half goes up.
    assert list(growing_cycles(1, "1.5", 10)) == [(0, 0, 1), (1, 1, 2), (2, 3, 2), (3, 5, 3), (4, 8, 5)]
    # 5, 5.5, 6.05.
    assert [length for _, _, length in growing_cycles(5, "1.1", 12)] == [5, 6, 6]


@pytest.mark.parametrize("lr_min", [0.0, 0.003])
def test_the_half_angle_is_the_equation_of_the_paper(lr_min):
    schedule = WarmRestarts(0.1, 1000, lr_min=lr_min)
    position = np.arange(1000)
    where = Steps(position, np.zeros(1000, int), position, np.full(1000, 1000))
    paper = [lr_min + 0.5 * (0.1 - lr_min) * (1 + math.cos(math.pi * t / 1000)) for t in range(1000)]
    np.testing.assert_allclose(closed_form(schedule, where), paper, rtol=1e-10)


class _Late(WarmRestarts):
    """A step late."""

    shift = 1

    def _count(self, step, xp):
        return super()._count(step - self.shift, xp)


class _Early(_Late):
    shift = -1


@pytest.mark.once
@pytest.mark.parametrize("mult", MULTS)
@pytest.mark.parametrize("cls", [_Late, _Early])
def test_the_oracle_sees_every_position_that_is_off_by_one(mult, cls):
    for first in (1, 2, 10, 399, *LONG):
        where = boundaries(first, mult)
        where = at_those(where, where.steps > 0)
        schedule = cls(0.1, first, float(mult))
        assert wrong_places(place_in_numpy(schedule, where.steps), where) == len(where.steps)
        if first > 2:  # where not every cycle is one step, the rates beside a restart are wrong too
            seen = at_those(where, where.positions == (0 if cls is _Late else where.lengths - 1))
            assert wrong_rates(schedule.at(seen.steps), schedule, seen) == len(seen.steps) > 0


# Exactness


@pytest.mark.once
@pytest.mark.parametrize("mult", MULTS)
def test_numpy_is_exact(mult):
    looked_at = 0
    for first in [*range(1, 401), *LONG]:
        where = boundaries(first, mult)
        schedule = WarmRestarts(0.1, first, float(mult))
        assert wrong_places(place_in_numpy(schedule, where.steps), where) == 0
        assert wrong_rates(schedule.at(where.steps), schedule, where) == 0
        looked_at += len(where.steps)
    assert looked_at > 400 * 3 * 16


@pytest.mark.once
@pytest.mark.slow
def test_numpy_is_exact_at_every_restart_up_to_ten_million_steps():
    looked_at = 0
    for first in range(1, 401):
        where = boundaries(first, "1", everything=True)
        assert wrong_places(place_in_numpy(WarmRestarts(0.1, first), where.steps), where) == 0
        looked_at += len(where.steps)
    assert looked_at > 190_000_000


def check_on_backend(first, mult, compiled=True):
    where = boundaries(first, mult)
    schedule = WarmRestarts(0.1, first, float(mult))
    place, rate = place_and_rate(schedule, where.steps, compiled)
    assert (wrong_places(place, where), wrong_rates(rate, schedule, where)) == (0, 0)


@pytest.mark.parametrize("mult", MULTS)
def test_the_backend_is_exact(mult):
    for first in FIRSTS:
        check_on_backend(first, mult)


@pytest.mark.slow
@pytest.mark.parametrize("mult", MULTS)
def test_the_backend_is_exact_for_many_first_cycles(mult):
    """PyTorch has time for all. JAX, eager here too, compiles for each number of cycles, TensorFlow traces each."""
    for first in range(1, 401) if BACKEND == "torch" else range(1, 401, 7):
        check_on_backend(first, mult, compiled=False)


def test_the_backend_is_exact_eagerly():
    where = boundaries(10, "1.1")
    schedule = WarmRestarts(0.1, 10, 1.1, lr_min=1e-5, peak_decay=0.9)
    assert wrong_rates(rates(schedule, where.steps, compiled=False), schedule, where) == 0


KINDS = {
    "int": int,
    "np.int32": np.int32,
    "np.int64": np.int64,
    "array of no dimension": lambda step: np.array(step),
    "int32 tensor": tensor,
    "int64 tensor": lambda step: tensor(step, "int32" if BACKEND == "jax" else "int64"),
    "int32 variable": lambda step: keras.Variable(step, dtype="int32", trainable=False),
    "int variable": lambda step: keras.Variable(step, dtype="int", trainable=False),
    "iterations": lambda step: iterations_of_an_optimizer(step),
}


def iterations_of_an_optimizer(step):
    optimizer = keras.optimizers.SGD()
    optimizer.iterations.assign(step)
    return optimizer.iterations


def some_steps(schedule):
    """Steps beside the restarts, as (step, expected rate)."""
    where = boundaries(schedule.first_cycle_steps, repr(schedule.cycle_mult))
    pick = np.unique(np.r_[:9, -3:0] % len(where.steps))
    where = at_those(where, pick)
    return list(zip(where.steps.tolist(), closed_form(schedule, where).tolist(), strict=True))


SCHEDULES = [
    WarmRestarts(0.1, 10, 2),
    WarmRestarts(0.1, 100, 1.5, lr_min=1e-3, peak_decay=0.5),
    WarmRestarts(0.1, 3, peak_decay=0.999),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_every_kind_of_step_gives_the_same_rate(schedule, kind):
    for step, expected in some_steps(schedule):
        rate = schedule(KINDS[kind](step))
        assert keras.backend.standardize_dtype(rate.dtype) == "float32"
        assert tuple(rate.shape) == ()
        assert float(rate) == pytest.approx(expected, rel=TOLERANCE, abs=1e-37)


def compiled_calls():
    """Each way in which a backend compiles a call of a schedule."""
    if BACKEND == "jax":
        import jax

        return {"jit": lambda schedule: jax.jit(schedule)}
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return {
            "graph": lambda schedule: tf.function(schedule),
            "XLA": lambda schedule: tf.function(schedule, jit_compile=True),
        }
    import torch

    return {"dynamo": lambda schedule: torch.compile(schedule, backend="eager")}


@pytest.mark.parametrize("way", compiled_calls())
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_compiled_call_gives_the_same_rate(schedule, way):
    call = compiled_calls()[way](schedule)
    for dtype in ("int32",) if BACKEND == "jax" else ("int32", "int64"):
        for step, expected in some_steps(schedule):
            assert float(call(tensor(step, dtype))) == pytest.approx(expected, rel=TOLERANCE, abs=1e-37)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_the_tensor_formula_gives_the_same_rate_eagerly(schedule):
    for step, expected in some_steps(schedule):
        assert float(formula(schedule)(tensor(step))) == pytest.approx(expected, rel=TOLERANCE, abs=1e-37)


# Long cycles, long runs


def exactly(first, mult, step):
    """(cycle, position, rate for a peak of 0.1) at `step`; a cycle may be of any length."""
    cycle, start, length = list(growing_cycles(first, mult, step))[-1]
    left = float(Fraction(length - (step - start), length))
    return cycle, step - start, 0.1 * math.sin(math.pi / 2 * left) ** 2


HUGE = [
    (MAX, "1000"),
    (2**30, "2.5"),
    (2, "1e9"),
    (20_000_001, "1e11"),
    (20_000_001, "1e12"),  # a cycle that an int64 cannot count
    (100, "1e17"),
    (20_000_001, "1e300"),  # a cycle that a float64 cannot count
    (MAX, "1.7976931348623157e308"),
]


def huge_steps(first, mult):
    starts = [start for _, start, _ in growing_cycles(first, mult)]
    return sorted({min(max(start + shift, 0), MAX) for start in [*starts, MAX] for shift in (-2, -1, 0, 1)})


@pytest.mark.parametrize(("first", "mult"), HUGE)
def test_a_cycle_may_be_longer_than_the_run(first, mult):
    schedule = WarmRestarts(0.1, first, float(mult))
    steps = huge_steps(first, mult)
    for step in steps:
        cycle, position, rate = exactly(first, mult, step)
        assert tuple(map(int, place_in_numpy(schedule, np.int64(step)))) == (cycle, position)
        assert float(schedule.at(step)) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(("first", "mult"), HUGE)
def test_a_cycle_may_be_longer_than_the_run_on_the_backend(first, mult):
    steps = huge_steps(first, mult)
    cycles, positions, expected = zip(*(exactly(first, mult, step) for step in steps), strict=True)
    place, rate = place_and_rate(WarmRestarts(0.1, first, float(mult)), steps)
    assert [column.tolist() for column in place] == [[*cycles], [*positions]]
    np.testing.assert_allclose(rate, expected, rtol=TOLERANCE)


@pytest.mark.parametrize("mult", [1.000001, 1.0000001, 1 + 1e-9, math.nextafter(1, 2)])
def test_a_growth_next_to_one_takes_no_time(mult):
    with time_limit(3):
        found = WarmRestarts(0.1, 1, mult).at([0, 1, 1000, 300_000, MAX])
    assert found[:4].tolist() == [0.1] * 4  # still cycles of one step
    assert 0 < found[4] <= 0.1
    if mult < 1 + 1e-12:
        assert found[4] == 0.1


@pytest.mark.parametrize("peak_decay", [0.5, 0.9, 0.999, 0.9999])
def test_peaks_keep_their_precision_over_thousands_of_cycles(peak_decay):
    schedule = WarmRestarts(0.1, 3, peak_decay=peak_decay)
    last = min(60_000, int(math.log(1e-35) / math.log(peak_decay)))  # as far as float32 has normal numbers
    cycles = np.unique(np.geomspace(1, last, 2000).astype(int)) - 1
    expected = 0.1 * np.power(peak_decay, cycles)
    np.testing.assert_allclose(schedule.at(cycles * 3), expected, rtol=1e-12)
    np.testing.assert_allclose(rates(schedule, cycles * 3), expected, rtol=TOLERANCE)


def test_peaks_keep_their_precision_to_the_last_step():
    decay = 1 - 1e-8
    schedule = WarmRestarts(0.1, 1, peak_decay=decay)
    steps = np.unique([*(2 ** np.arange(31)), *(2 ** np.arange(1, 32) - 1), *range(0, MAX, 10_000_019)])
    expected = 0.1 * np.exp(steps * math.log1p(decay - 1))
    np.testing.assert_allclose(schedule.at(steps), expected, rtol=1e-7)
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=TOLERANCE)


# Peers


def test_restarts_are_at_10_30_70():
    """skorch: 11, 32, 73."""
    sample = WarmRestarts(0.1, 10, cycle_mult=2).sample(150)
    assert np.flatnonzero(sample == 0.1).tolist() == [0, 10, 30, 70]
    assert (1 + np.flatnonzero(np.diff(sample) > 0)).tolist() == [10, 30, 70]


def test_equal_cycles():
    """fastai's cycle_mult=1 divides by zero."""
    sample = WarmRestarts(1.0, 4, cycle_mult=1).sample(12)
    np.testing.assert_allclose(sample, [1, 0.8535533905932737, 0.5, 0.14644660940672624] * 3, rtol=1e-15)


def test_peaks_shrink_from_cycle_to_cycle():
    """Keras's m_mul=0.5, alpha=0.1: .1, .055, .0325."""
    starts = [0, 10, 30, 70, 150]
    schedule = WarmRestarts(0.1, 10, 2, peak_decay=0.5)
    np.testing.assert_allclose(schedule.at(starts), [0.1, 0.05, 0.025, 0.0125, 0.00625], rtol=1e-15)
    floor = WarmRestarts(0.1, 10, 2, lr_min=0.03, peak_decay=0.5)
    np.testing.assert_allclose(floor.at(starts), [0.1, 0.05, 0.03, 0.03, 0.03], rtol=1e-15)
    np.testing.assert_allclose(rates(floor, starts), [0.1, 0.05, 0.03, 0.03, 0.03], rtol=TOLERANCE)
    assert floor.sample(300)[30:] == pytest.approx(0.03)


def test_step_250_of_cycles_of_100_150_225_is_a_restart():
    """Keras's CosineDecayRestarts gives a rate of 0 there, on PyTorch."""
    schedule = WarmRestarts(0.1, 100, cycle_mult=1.5)
    for starts in (0, 100, 250, 475):
        assert float(schedule.at(starts)) == 0.1
        assert float(schedule(tensor(starts))) == pytest.approx(0.1)
    ends = np.array([99, 249, 474])
    expected = 0.1 * np.sin(math.pi / 2 / np.array([100, 150, 225])) ** 2
    np.testing.assert_allclose(schedule.at(ends), expected, rtol=1e-12)
    np.testing.assert_allclose(rates(schedule, ends), expected, rtol=TOLERANCE)


def test_a_short_first_cycle_rounds_its_lengths_half_up():
    assert WarmRestarts(0.1, 1, 1.5).cycle_ends(14) == [0, 2, 4, 7, 12]
    assert WarmRestarts(0.1, 5, 1.1).cycle_ends(17) == [4, 10, 16]


@pytest.mark.skipif(BACKEND != "torch", reason="two backends in one process")
@pytest.mark.parametrize(("first", "mult"), [(1, 1), (1, 2), (7, 1), (10, 2), (13, 3), (200, 1)])
@pytest.mark.parametrize("lr_min", [0.0, 0.02])
def test_equals_pytorch(first, mult, lr_min):
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    peer = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, first, mult, eta_min=lr_min)
    expected = []
    for _ in range(700):
        expected += peer.get_last_lr()
        optimizer.step()
        peer.step()
    found = WarmRestarts(0.1, first, mult, lr_min).sample(700)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=1e-17)


@pytest.mark.skipif(BACKEND != "jax", reason="two backends in one process")
@pytest.mark.parametrize("mult", [1, 2, 3])
@pytest.mark.parametrize(("peak_decay", "lr_min"), [(1.0, 0.0), (1.0, 0.01), (0.5, 0.0), (0.9, 0.03)])
def test_equals_a_join_of_optax_cosines(mult, peak_decay, lr_min):
    optax = pytest.importorskip("optax")
    peaks, lengths = 0.1 * peak_decay ** np.arange(4), 10 * mult ** np.arange(4)
    pieces = [
        optax.cosine_decay_schedule(peak, length, alpha=lr_min / peak)
        for peak, length in zip(peaks.tolist(), lengths.tolist(), strict=True)
    ]
    steps = np.arange(lengths.sum())
    with floatx("float64"):
        expected = array(optax.join_schedules(pieces, np.cumsum(lengths)[:-1].tolist())(tensor(steps, "int64")))
    found = WarmRestarts(0.1, 10, mult, lr_min, peak_decay).at(steps)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=1e-17)


@pytest.mark.parametrize(("mult", "alpha"), [(1, 0.0), (2, 0.1)])
def test_equals_keras_away_from_its_restarts(mult, alpha):
    peer = keras.optimizers.schedules.CosineDecayRestarts(0.1, 16, t_mul=float(mult), alpha=alpha)
    ours = WarmRestarts(0.1, 16, mult, lr_min=0.1 * alpha)
    steps = [1, 5, 14, 18, 30, 33, 45, 70, 100]
    np.testing.assert_allclose(ours.at(steps), array(peer(tensor(steps, "float32"))), atol=1e-7)


# cycle_ends


def cycle_ends(first, mult, n_steps):
    if Fraction(mult) == 1:
        return list(range(first - 1, n_steps, first))
    ends = (start + length - 1 for _, start, length in growing_cycles(first, mult, n_steps))
    return [end for end in ends if end < n_steps]


@pytest.mark.parametrize("mult", MULTS)
@pytest.mark.parametrize("first", [1, 2, 10, 399])
def test_cycle_ends(first, mult):
    schedule = WarmRestarts(0.1, first, float(mult))
    boundary = cycle_ends(first, mult, 2000)
    for n_steps in {0, 1, first, *boundary, *(end + 1 for end in boundary), 2000}:
        found = schedule.cycle_ends(n_steps)
        assert found == cycle_ends(first, mult, n_steps)
        assert all(type(end) is int for end in found)


def test_whether_a_long_run_ends_with_a_cycle_is_known_at_once():
    """A list of all ends would take gigabytes."""
    assert WarmRestarts(1.0, 1).ends_with_cycle(2**31 - 1)
    assert WarmRestarts(1.0, 2).ends_with_cycle(2**31 - 2)
    assert not WarmRestarts(1.0, 2).ends_with_cycle(2**31 - 1)
    assert WarmRestarts(1.0, 1).ends_with_cycle(0) is False


def test_cycle_ends_of_a_run_that_ends_with_a_cycle_and_of_one_that_does_not():
    """The 2019 demo: 5 epochs of cycles 1 + 2 + 4."""
    schedule = WarmRestarts(0.1, 10, 2)
    assert schedule.cycle_ends(70) == [9, 29, 69]
    assert schedule.cycle_ends(50) == [9, 29]
    assert schedule.cycle_ends(9) == []
    assert schedule.cycle_ends(0) == []


@pytest.mark.parametrize("mult", ["1.1", "2", "3", "1000"])
def test_cycle_ends_of_the_longest_run(mult):
    assert WarmRestarts(0.1, 400, float(mult)).cycle_ends(MAX) == cycle_ends(400, mult, MAX)
    assert WarmRestarts(0.1, MAX, float(mult)).cycle_ends(MAX) == [MAX - 1]
    assert WarmRestarts(0.1, MAX, float(mult)).cycle_ends(MAX - 1) == []


# A warm-up in every cycle, and the speed of time


def warm_rate(schedule, step):
    """The definition of a cycle that rises for its first steps."""
    cycle, start, length = list(growing_cycles(schedule.first_cycle_steps, repr(schedule.cycle_mult), step))[-1]
    peak = max(schedule.lr_max * schedule.peak_decay**cycle, schedule.lr_min)
    position, rise = step - start, schedule.warmup_steps
    if position < rise:
        height = position / rise
    else:
        done, left = (position - rise) / (length - rise), (length - position) / (length - rise)
        log_done = math.log1p(-left) if done > 0.5 else math.log(done) if done else -math.inf
        height = math.sin(math.pi / 2 * -math.expm1(schedule.k_decay * log_done)) ** 2
    return schedule.lr_min + (peak - schedule.lr_min) * height


@pytest.mark.parametrize(("warmup_steps", "k"), [(0, 0.5), (0, 1.5), (0, 10), (1, 1), (9, 1), (4, 0.3), (4, 3)])
@pytest.mark.parametrize(("mult", "lr_min", "peak_decay"), [(1.1, 0.0, 1.0), (2, 0.004, 0.5)])
def test_warmup_and_k_decay(warmup_steps, k, mult, lr_min, peak_decay):
    schedule = WarmRestarts(0.1, 10, mult, lr_min, peak_decay, warmup_steps, k)
    steps = [*range(80), 10**6, 10**6 + 1, 123_456_789, MAX - 1, MAX]
    expected = [warm_rate(schedule, step) for step in steps]
    np.testing.assert_allclose(schedule.at(steps), expected, rtol=1e-11)
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=2e-6, atol=1e-37)


@pytest.mark.skipif(BACKEND != "jax", reason="two backends in one process")
@pytest.mark.parametrize("mult", [1, 2])
@pytest.mark.parametrize("warmup_steps", [0, 3])
def test_equals_optax_sgdr(mult, warmup_steps):
    optax = pytest.importorskip("optax")
    lengths = (10 * mult ** np.arange(4)).tolist()
    cycles = [
        {"init_value": 0.02, "peak_value": 0.1, "warmup_steps": warmup_steps, "decay_steps": length, "end_value": 0.02}
        for length in lengths
    ]
    steps = np.arange(sum(lengths))
    with floatx("float64"):
        expected = array(optax.sgdr_schedule(cycles)(tensor(steps, "int64")))
    found = WarmRestarts(0.1, 10, mult, 0.02, warmup_steps=warmup_steps).at(steps)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)


# Arguments


def test_bad_arguments():
    assert_number(lambda v: WarmRestarts(v, 10), "lr_max", out_of_range=(0, 0.0, -0.1, -1))
    assert_integer(lambda v: WarmRestarts(0.1, v), "first_cycle_steps", minimum=1)
    assert_number(lambda v: WarmRestarts(0.1, 10, v), "cycle_mult", out_of_range=(0, 0.999, -2))
    assert_number(lambda v: WarmRestarts(0.1, 10, lr_min=v), "lr_min", out_of_range=(-1e-9, -1))
    assert_number(lambda v: WarmRestarts(0.1, 10, peak_decay=v), "peak_decay", out_of_range=(0, -0.5, 1.0001, 2))
    assert_integer(lambda v: WarmRestarts(0.1, 10, warmup_steps=v), "warmup_steps", minimum=0)
    assert_number(lambda v: WarmRestarts(0.1, 10, k_decay=v), "k_decay", out_of_range=(0, -1))
    assert_integer(WarmRestarts(0.1, 10).cycle_ends, "n_steps", minimum=0)


@pytest.mark.parametrize("lr_min", [0.1, 0.2, 1])
def test_the_peak_is_above_the_floor(lr_min):
    with pytest.raises(ValueError, match=r"`lr_max` must be > lr_min, which is .*\. Received: lr_max=0\.1\."):
        WarmRestarts(0.1, 10, lr_min=lr_min)


@pytest.mark.parametrize("warmup_steps", [10, 11])
def test_the_warmup_leaves_a_step_of_the_first_cycle(warmup_steps):
    with pytest.raises(ValueError, match=rf"`warmup_steps` must be < first_cycle_steps, .*warmup_steps={warmup_steps}"):
        WarmRestarts(0.1, 10, warmup_steps=warmup_steps)


def test_integers_are_numbers():
    assert WarmRestarts(1, 10, 2, 0, 1) == WarmRestarts(1.0, 10, 2.0, 0.0, 1.0)
    assert float(WarmRestarts(1, 10, 2, 0, 1)(tensor(5))) == pytest.approx(0.5)
    assert WarmRestarts(1, np.int64(10), np.float32(2)) == WarmRestarts(1.0, 10, 2.0)


anything = st.one_of(
    st.floats(), st.integers(), st.none(), st.booleans(), st.text(max_size=3), st.fractions(), st.lists(st.floats())
)
rates_and_more = st.one_of(st.floats(0, 10), st.floats(0), anything)
#: A growth right above 1 has a test of its own.
growths = st.one_of(st.floats(1.001, 10), st.just(1), st.floats(1.001), anything)


@given(
    lr_max=rates_and_more,
    first=st.one_of(st.integers(1, MAX), st.integers(1, 1000), anything),
    mult=growths,
    lr_min=rates_and_more,
    peak_decay=st.one_of(st.floats(0, 1), anything),
    warmup_steps=st.one_of(st.just(0), st.integers(0, 20), anything),
    k_decay=st.one_of(st.just(1), st.floats(0.01, 100), anything),
    steps=st.lists(st.integers(0, MAX), min_size=1),
)
def test_any_arguments_make_a_schedule_or_a_clear_error(
    lr_max, first, mult, lr_min, peak_decay, warmup_steps, k_decay, steps
):
    assume(not (isinstance(mult, (int, float, Fraction)) and 1 < mult < 1.001))
    try:
        schedule = WarmRestarts(lr_max, first, mult, lr_min, peak_decay, warmup_steps, k_decay)
    except (TypeError, ValueError) as error:
        assert "Received: " in str(error)  # noqa: PT017
        assert str(error).split("`")[1] in inspect.signature(WarmRestarts).parameters  # noqa: PT017
        return
    found = schedule.at(steps)
    assert np.all(np.isfinite(found))
    assert np.all(found >= schedule.lr_min * (1 - 1e-12))
    assert np.all(found <= schedule.lr_max * (1 + 1e-12))


valid = {
    "first": st.one_of(st.integers(1, 1000), st.integers(1, MAX)),
    "mult": st.one_of(st.integers(105, 400), st.integers(105, 10**7)).map(lambda hundredths: str(hundredths / 100)),
    "step": st.one_of(st.integers(0, 10_000), st.integers(0, MAX)),
}


@given(**valid)
def test_the_place_is_exact_for_any_growth(first, mult, step):
    schedule = WarmRestarts(0.1, first, float(mult))
    cycle, position, rate = exactly(first, mult, step)
    assert tuple(map(int, place_in_numpy(schedule, np.int64(step)))) == (cycle, position)
    assert float(schedule.at(step)) == pytest.approx(rate, rel=1e-12)


# Cyclical


def triangle(schedule, step):
    """The definition, in exact arithmetic as far as it goes."""
    cycle, position = divmod(step, schedule.up_steps + schedule.down_steps)
    if position <= schedule.up_steps:
        height = Fraction(position, schedule.up_steps)
    else:
        height = Fraction(schedule.up_steps + schedule.down_steps - position, schedule.down_steps)
    amplitude = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": schedule.gamma**step}[schedule.mode]
    return schedule.lr_min + (schedule.lr_max - schedule.lr_min) * float(height) * amplitude


TRIANGLES = [
    Cyclical(0.1, 1),
    Cyclical(0.1, 4, lr_min=0.02),
    Cyclical(0.1, 4, down_steps=1),
    Cyclical(0.1, 3, 0.001, 7, mode="triangular2"),
    Cyclical(0.1, 100, 1e-4, mode="exp_range", gamma=0.999),
    Cyclical(0.1, 2**24 + 1, down_steps=5),
    Cyclical(0.1, 2**30 - 1, down_steps=2**30 - 2),
]


@pytest.mark.parametrize("schedule", TRIANGLES, ids=repr)
def test_cyclical(schedule):
    length = schedule.up_steps + schedule.down_steps
    corners = [cycle * length + corner for cycle in (0, 1, 2, MAX // length) for corner in (0, schedule.up_steps)]
    near = {corner + shift for corner in [*corners, MAX] for shift in (-2, -1, 0, 1, 2)}
    steps = sorted(step for step in near if 0 <= step <= MAX)
    expected = [triangle(schedule, step) for step in steps]
    np.testing.assert_allclose(schedule.at(steps), expected, rtol=1e-12)
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=2e-6, atol=1e-37)


def test_the_longest_triangle():
    """A length of 2**31 is no int32: two sides of 2**30 are right, or refused."""
    try:
        schedule = Cyclical(0.1, 2**30)
    except ValueError:
        schedule = Cyclical(0.1, 2**30 - 1)
    up = schedule.up_steps
    steps = [0, 1, up - 1, up, up + 1, MAX - 1, MAX]
    expected = [triangle(schedule, step) for step in steps]
    np.testing.assert_allclose(schedule.at(steps), expected, rtol=1e-12)
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=TOLERANCE)


def test_cyclical_down_steps_are_those_up_if_not_given():
    assert Cyclical(0.1, 4) == Cyclical(0.1, 4, down_steps=4)


@pytest.mark.skipif(BACKEND != "torch", reason="two backends in one process")
@pytest.mark.parametrize(
    ("mode", "gamma", "down_steps"), [("triangular", 1.0, 8), ("triangular2", 1.0, 3), ("exp_range", 0.99, 8)]
)
def test_cyclical_equals_pytorch(mode, gamma, down_steps):
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    peer = torch.optim.lr_scheduler.CyclicLR(
        optimizer, 0.01, 0.1, 8, down_steps, mode=mode, gamma=gamma, cycle_momentum=False
    )
    expected = []
    for _ in range(100):
        expected += peer.get_last_lr()
        optimizer.step()
        peer.step()
    found = Cyclical(0.1, 8, 0.01, down_steps, mode, gamma).sample(100)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_cyclical_checks_its_arguments():
    assert_number(lambda v: Cyclical(v, 10), "lr_max", out_of_range=(0, -0.1))
    assert_integer(lambda v: Cyclical(0.1, v), "up_steps", minimum=1)
    assert_number(lambda v: Cyclical(0.1, 10, v), "lr_min", out_of_range=(-1e-9,))
    assert_number(lambda v: Cyclical(0.1, 10, gamma=v), "gamma", out_of_range=(0, -1, 1.01))
    for value in (0, -1, 2**31):
        with pytest.raises(ValueError, match=f"`down_steps` must be an integer from 1 .* Received: down_steps={value}"):
            Cyclical(0.1, 10, down_steps=value)
    with pytest.raises(ValueError, match=r"`mode` must be one of 'triangular'.* Received: mode='triangle'\. Did you"):
        Cyclical(0.1, 10, mode="triangle")
    with pytest.raises(TypeError, match=r"`mode` must be one of .* Received: mode=None"):
        Cyclical(0.1, 10, mode=None)
