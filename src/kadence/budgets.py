"""From a budget to what fits it: cycles that end with the run, and rates for a larger batch."""

import itertools
import math
from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any, NamedTuple

from kadence import _checks

_STEPS = "in optimizer steps"
_MAX_CYCLES = 1_000
#: `WarmRestarts` makes a table of all cycles up to step 2**31 - 1: it takes a second for a million of them.
_MAX_TABLE = 100_000
#: How far around the best first cycle a solution is looked for: two roundings at once may skip a length.
_REACH = 4


class Cycles(NamedTuple):
    """Cycles that fill a run, in the order of the arguments of `WarmRestarts`.

    Args:
        first_cycle_steps: Length of the first cycle in optimizer steps, T_0. Integer >= 1.
        cycle_mult: Growth of the length from cycle to cycle, T_mult. Float >= 1.
    """

    first_cycle_steps: int
    cycle_mult: float


def solve_cycles(n_steps: int, n_cycles: int, cycle_mult: float = 1.0, max_change: float = 0.1) -> Cycles:
    """Warm restarts that end exactly with the run.

    sum over i < n_cycles of round(first_cycle_steps * cycle_mult ** i) = n_steps, with the rounding of `WarmRestarts`

    Few lengths can be filled with the growth that is asked for: with `cycle_mult=2` and three cycles, the multiples of
    7. For any other, the solution with the nearest growth is taken, in as few digits as do: 1.995 for 830 steps.

    Args:
        n_steps: Length of the run in optimizer steps; `epochs_to_steps` and `minutes_to_steps` give it. Integer >= 1.
        n_cycles: Number of cycles. Integer from 1 to 1,000.
        cycle_mult: Growth of the length from cycle to cycle, T_mult. Float >= 1.
        max_change: How far the growth may be from `cycle_mult`, as a share of it. Float >= 0; 0 for not at all.

    Returns:
        `Cycles`, which unpack into `WarmRestarts(lr_max, *cycles)`; `cycle_mult` is the one asked for where it can be.

    Raises:
        ValueError: If an argument is out of range, or no cycles fill the run; the nearest lengths are then named.
        TypeError: If an argument is not a number.

    Example:
        >>> kadence.solve_cycles(700, n_cycles=3, cycle_mult=2)
        Cycles(first_cycle_steps=100, cycle_mult=2.0)
        >>> kadence.WarmRestarts(1e-2, *kadence.solve_cycles(830, n_cycles=3, cycle_mult=2)).ends_with_cycle(830)
        True
    """
    n_steps = _checks.integer("n_steps", n_steps, minimum=1, unit=_STEPS)
    n_cycles = _checks.integer("n_cycles", n_cycles, minimum=1, maximum=_MAX_CYCLES, unit="a number of cycles")
    cycle_mult = _checks.number("cycle_mult", cycle_mult, minimum=1.0)
    max_change = _checks.number("max_change", max_change, minimum=0.0)
    first = _longest_first_cycle(n_steps, n_cycles, cycle_mult)
    if first and _total(first, cycle_mult, n_cycles) == n_steps:
        return Cycles(first, cycle_mult)
    firsts = range(max(1, first - _REACH), first + 1 + _REACH)
    growths = {start: _growth(start, n_steps, n_cycles, cycle_mult, max_change) for start in firsts}
    found = [Cycles(start, g) for start, g in growths.items() if g is not None and _in_table(start, g) <= _MAX_TABLE]
    if not found:
        growth = f"a growth of {cycle_mult:g}, give or take {max_change:.3g} of it"
        rule = f"be a length that {n_cycles} cycles can fill with {growth}"
        raise ValueError(_checks.sentence("n_steps", rule, n_steps, _nearest(first, n_cycles, cycle_mult)))
    return min(found, key=lambda cycles: abs(cycles.cycle_mult - cycle_mult))


def cycle_lengths(first_cycle_steps: int, cycle_mult: float) -> Iterator[int]:
    """The length of one cycle of `WarmRestarts` after another, exact as there.

    Args:
        first_cycle_steps: Length of the first cycle in optimizer steps. Integer >= 1.
        cycle_mult: Growth of the length from cycle to cycle. Float >= 1.

    Yields:
        first_cycle_steps * cycle_mult**i, rounded to the nearest integer, halves up, in optimizer steps.
    """
    context = Context(prec=60)
    exact, factor, half = Decimal(first_cycle_steps), Decimal(repr(cycle_mult)), Decimal("0.5")
    while True:
        yield int(context.add(exact, half))
        exact = context.multiply(exact, factor)


def _in_table(first: int, growth: float) -> float:
    """About how many cycles start before step 2**31."""
    if growth == 1.0:
        return 1.0
    return math.log1p(_checks.MAX_STEPS * (growth - 1.0) / first) / math.log(growth)


def _nearest(first: int, n_cycles: int, growth: float) -> str:
    """The lengths that the cycles fill exactly with this first cycle, and with the next."""
    lengths = {_total(start, growth, n_cycles, _checks.MAX_STEPS) for start in (max(1, first), first + 1)}
    words = [f"{length} steps" for length in sorted(lengths) if length <= _checks.MAX_STEPS]
    return f"Exactly with that growth they fill {' or '.join(words)}." if words else "Take fewer cycles."


def _total(first: int, growth: float, n_cycles: int, limit: float = math.inf) -> int:
    """Steps in all cycles; somewhere above `limit` if they are more than that."""
    if growth == 1.0:
        return first * n_cycles
    total = 0
    for length in itertools.islice(cycle_lengths(first, growth), n_cycles):
        total += length
        if total > limit:
            break
    return total


def _longest_first_cycle(n_steps: int, n_cycles: int, growth: float) -> int:
    """The longest first cycle with which all cycles fit, 0 if there is none."""
    fits, not_fits = 0, n_steps + 1
    while not_fits - fits > 1:
        middle = (fits + not_fits) // 2
        if _total(middle, growth, n_cycles, limit=n_steps) <= n_steps:
            fits = middle
        else:
            not_fits = middle
    return fits


def _growth(first: int, n_steps: int, n_cycles: int, growth: float, max_change: float) -> float | None:
    """A growth within `max_change` of the one asked for, with which the cycles fill the run; None if there is none.

    The total rises with the growth, by steps: the end of the right one that is nearest to the growth asked for is found
    by halving, and then the growth with the fewest digits beside it.
    """
    least, most = max(1.0, growth * (1.0 - max_change)), min(growth * (1.0 + max_change), n_steps)
    too_long = _total(first, growth, n_cycles, n_steps) > n_steps
    low, high = (least, growth) if too_long else (growth, most)
    if _total(first, low, n_cycles, n_steps) > n_steps or _total(first, high, n_cycles, n_steps) < n_steps:
        return None
    while low < (middle := (low + high) / 2) < high:
        total = _total(first, middle, n_cycles, n_steps)
        if total < n_steps or (total == n_steps and too_long):
            low = middle
        else:
            high = middle
    nearest, rounding = (low, ROUND_FLOOR) if too_long else (high, ROUND_CEILING)
    rounded = [float(Decimal(nearest).quantize(Decimal(10) ** -digits, rounding)) for digits in range(1, 17)]
    fills = (g for g in [*rounded, nearest] if least <= g <= most and _total(first, g, n_cycles, n_steps) == n_steps)
    return next(fills, None)


def scale_for_batch(lr: float, batch_size: int, base_batch_size: int, rule: str = "linear") -> float:
    """A learning rate that was found for one batch size, for another.

    lr * batch_size / base_batch_size ("linear"), or lr * sqrt(batch_size / base_batch_size) ("sqrt")

    "linear" is for SGD, "sqrt" for Adam and its kin. Both are approximations that fail for very large batches, sooner
    with fewer updates in the run. Goyal et al. start from the rate of the base batch and warm up to the scaled one
    over 5 epochs: `warmup(schedule, warmup_steps=epochs_to_steps(5, steps_per_epoch), lr_start=lr)`. In fine-tuning,
    where the runs are shorter, a tenth of the run is usual. With Adam, Malladi et al. scale beta_1, beta_2 and
    epsilon too.

    Args:
        lr: Rate that was found for `base_batch_size`. Float >= 0.
        batch_size: Samples in one update: those of a batch, times replicas, times accumulation. Integer >= 1.
        base_batch_size: Samples in one update when the rate was found. Integer >= 1.
        rule: "linear" or "sqrt".

    Returns:
        Rate for `batch_size`, a float.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    Example:
        >>> kadence.scale_for_batch(0.1, batch_size=1024, base_batch_size=256)
        0.4
        >>> kadence.scale_for_batch(1e-3, batch_size=128, base_batch_size=32, rule="sqrt")
        0.002

    Source:
        "linear": Goyal et al. 2017, Accurate, Large Minibatch SGD, section 2.1, arXiv:1706.02677, with the warm-up of
        section 2.2. "sqrt": Krizhevsky 2014, One weird trick, section 5, arXiv:1404.5997; for Adam, Malladi et al.
        2022, On the SDEs and Scaling Rules for Adaptive Gradient Algorithms, arXiv:2205.10287.
    """
    rate = _checks.number("lr", lr, minimum=0.0)
    sizes: dict[str, Any] = {"batch_size": batch_size, "base_batch_size": base_batch_size}
    batch, base = (_checks.integer(name, size, minimum=1, unit="in samples") for name, size in sizes.items())
    ratio = batch / base
    return rate * (ratio if _checks.one_of("rule", rule, ("linear", "sqrt")) == "linear" else math.sqrt(ratio))
