"""Schedules that repeat, on integer boundaries."""

import functools
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import keras
import numpy as np

from kadence import _checks
from kadence.schedules._base import ArrayOps, Schedule
from kadence.schedules._curves import between, check_floor
from kadence.schedules._shapes import Powers, cosine, delayed


class _Runs(NamedTuple):
    """Cycles of equal length, taken together: where each run starts, its first cycle, and its cycles' length.

    A length is counted up to 2**31 - 1; what it has beyond that is a float.
    """

    starts: np.ndarray
    first_cycles: np.ndarray
    lengths: np.ndarray
    beyond: np.ndarray


@functools.lru_cache(maxsize=64)
def _runs(first_cycle_steps: int, cycle_mult: float) -> _Runs:
    """All cycles that start before step 2**31; cycle i lasts first_cycle_steps * cycle_mult**i, halves up.

    Sixty digits make the products exact as long as a tie between two integers is possible at all.
    """
    rows = []
    with localcontext() as context:
        context.prec = 60
        first, factor, half = Decimal(first_cycle_steps), Decimal(repr(cycle_mult)), Decimal("0.5")
        start = cycle = 0
        while start <= _checks.MAX_STEPS:
            exact = first * factor**cycle
            length = int(exact + half)
            counted = min(length, _checks.MAX_STEPS)
            rows.append((start, cycle, counted, float(min(length - counted, 10**30))))
            if factor == 1:
                break
            # The first cycle that is longer: by logarithm, then by comparison, as the logarithm is rounded.
            following = max(cycle + 1, int(((length + half) / first).ln() / factor.ln()) - 1)
            while first * factor**following < length + half:
                following += 1
            start, cycle = start + (following - cycle) * length, following
    starts, first_cycles, lengths, beyond = zip(*rows, strict=True)
    counts = [np.array(column, np.int32) for column in (starts, first_cycles, lengths)]
    return _Runs(counts[0], counts[1], counts[2], np.array(beyond))


@keras.saving.register_keras_serializable(package="kadence")
class WarmRestarts(Schedule):
    """A cosine that restarts, each cycle `cycle_mult` times as long as the one before.

    lr = lr_min + (peak - lr_min) * (1 + cos(pi * position / length)) / 2
    length = first_cycle_steps * cycle_mult ** cycle, rounded to the nearest integer, halves up
    peak = max(lr_max * peak_decay ** cycle, lr_min)

    A warm-up of w steps makes it lr_min + (peak - lr_min) * position / w while position < w, and then the cosine of
    position - w over length - w. With k_decay, the argument of the cosine is pi * ((position - w) / (length - w)) ** k.

    `cycle` counts from 0 and `position` runs from 0 to length - 1, both as integers: a restart never lands a step
    off. The schedule is defined up to step 2**31 - 1 and keeps no state.

    Args:
        lr_max: Rate at the first restart, step 0; eta_max. Float > lr_min.
        first_cycle_steps: Length of the first cycle in optimizer steps, T_0. Integer >= 1.
        cycle_mult: Growth of the length from cycle to cycle, T_mult. Float >= 1.
        lr_min: Rate that each cycle falls to, eta_min. Float >= 0.
        peak_decay: Factor on the peak from cycle to cycle, m_mul. Float, 0 < peak_decay <= 1.
        warmup_steps: Length of a straight rise from lr_min to the peak with which every cycle begins, in optimizer
            steps; the cosine has the rest of the cycle. Integer, 0 <= warmup_steps < first_cycle_steps.
        k_decay: Exponent of the time within a cycle. Float > 0; above 1 the rate stays high for longer.

    Raises:
        ValueError: If `lr_max <= lr_min` or an argument is out of range.
        TypeError: If an argument is not a number, or `first_cycle_steps` not an integer.

    Example:
        >>> kadence.WarmRestarts(1.0, first_cycle_steps=2, cycle_mult=2).sample(6).round(3)
        array([1.   , 0.5  , 1.   , 0.854, 0.5  , 0.146])

    Source:
        Loshchilov & Hutter 2017, SGDR, eq. (5), arXiv:1608.03983; k: Zhang & Li 2020, k-decay, arXiv:2004.05909.
    """

    def __init__(
        self,
        lr_max: float,
        first_cycle_steps: int,
        cycle_mult: float = 1.0,
        lr_min: float = 0.0,
        peak_decay: float = 1.0,
        warmup_steps: int = 0,
        k_decay: float = 1.0,
    ):
        self.lr_max, self.lr_min = check_floor(lr_max, lr_min)
        self.first_cycle_steps = _checks.integer(
            "first_cycle_steps", first_cycle_steps, minimum=1, unit="in optimizer steps"
        )
        self.cycle_mult = _checks.number("cycle_mult", cycle_mult, minimum=1.0)
        self.peak_decay = _checks.number("peak_decay", peak_decay, above=0.0, maximum=1.0)
        self._peaks = Powers(self.peak_decay)
        self.warmup_steps = _checks.integer("warmup_steps", warmup_steps, minimum=0, unit="in optimizer steps")
        if self.warmup_steps >= self.first_cycle_steps:
            rule = f"be < first_cycle_steps, which is {self.first_cycle_steps}, in optimizer steps"
            raise ValueError(_checks.sentence("warmup_steps", rule, warmup_steps))
        self.k_decay = _checks.number("k_decay", k_decay, above=0.0)
        self._runs = _runs(self.first_cycle_steps, self.cycle_mult)

    def _count(self, step: Any, xp: ArrayOps) -> tuple[Any, Any, Any, Any]:
        """Index of the cycle, position in it and its length, integers, and what of the length is beyond 32 bits."""
        runs = self._runs
        if len(runs.starts) == 1:
            length = self.first_cycle_steps
            cycle = step // length
            return cycle, step - cycle * length, length, 0.0
        run = xp.passed(runs.starts, step) - 1
        length = xp.take(runs.lengths, run)
        since = step - xp.take(runs.starts, run)
        whole = since // length
        beyond = xp.take(runs.beyond, run) if runs.beyond.any() else 0.0
        return xp.take(runs.first_cycles, run) + whole, since - whole * length, length, beyond

    def _peak(self, cycle: Any, xp: ArrayOps) -> Any:
        if self.peak_decay == 1.0:
            return self.lr_max
        peak = self.lr_max * self._peaks(cycle, xp)
        return xp.maximum(peak, xp.real(self.lr_min))

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        cycle, position, length, beyond = self._count(step, xp)
        fallen = xp.maximum(position - self.warmup_steps, 0) if self.warmup_steps else position
        left = delayed(fallen, length - self.warmup_steps, self.k_decay, xp, beyond)
        height = cosine(left, xp)
        if self.warmup_steps:
            height = xp.where(position < self.warmup_steps, xp.real(position) / self.warmup_steps, height)
        return between(self.lr_min, self._peak(cycle, xp), height)

    def cycle_ends(self, n_steps: int) -> list[int]:
        """The last step of each cycle that is complete within the first `n_steps` steps.

        Args:
            n_steps: Number of optimizer steps. Integer >= 0.

        Returns:
            List of step indices, strictly increasing; `n_steps - 1` is its last item if the run ends with a cycle.

        Raises:
            ValueError: If `n_steps` is negative.
            TypeError: If `n_steps` is not an integer.

        Example:
            >>> kadence.WarmRestarts(1.0, first_cycle_steps=10, cycle_mult=2).cycle_ends(71)
            [9, 29, 69]
        """
        n_steps = _checks.integer("n_steps", n_steps, minimum=0, unit="in optimizer steps")
        runs = self._runs
        ends: list[int] = []
        stops = [*runs.starts[1:].tolist(), _checks.MAX_STEPS + 1]
        for start, stop, length in zip(runs.starts.tolist(), stops, runs.lengths.tolist(), strict=True):
            ends.extend(range(start + length - 1, min(stop, n_steps), length))
        return ends

    def ends_with_cycle(self, n_steps: int) -> bool:
        """Whether the last of the first `n_steps` steps is the last of a cycle.

        Args:
            n_steps: Number of optimizer steps. Integer >= 0.

        Returns:
            Bool; False for 0 steps.
        """
        n_steps = _checks.integer("n_steps", n_steps, minimum=0, unit="in optimizer steps")
        return n_steps > 0 and bool(self.cycle_of(n_steps - 1)[1] == n_steps - 1)

    def cycle_of(self, steps: Any) -> tuple[np.ndarray, np.ndarray]:
        """First and last step of the cycle that each step is in, both ends included."""
        steps = np.asarray(steps, np.int64)
        run = np.searchsorted(self._runs.starts, steps, side="right") - 1
        length = self._runs.lengths.astype(np.int64)[run]
        first = steps - (steps - self._runs.starts[run]) % length
        return first, first + length - 1

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "lr_max": self.lr_max,
            "first_cycle_steps": self.first_cycle_steps,
            "cycle_mult": self.cycle_mult,
            "lr_min": self.lr_min,
            "peak_decay": self.peak_decay,
            "warmup_steps": self.warmup_steps,
            "k_decay": self.k_decay,
        }


@keras.saving.register_keras_serializable(package="kadence")
class Cyclical(Schedule):
    """A triangle that repeats: up from `lr_min` to the peak, and down again.

    lr = lr_min + (lr_max - lr_min) * height * amplitude
    height = position / up_steps while position <= up_steps, then (up_steps + down_steps - position) / down_steps
    amplitude = 1 ("triangular"), 1 / 2 ** cycle ("triangular2") or gamma ** step ("exp_range")

    Args:
        lr_max: Rate at the top of the first triangle. Float > lr_min.
        up_steps: Length of the rise in optimizer steps, stepsize. Integer >= 1.
        lr_min: Rate between the triangles, base_lr. Float >= 0.
        down_steps: Length of the fall in optimizer steps. Integer >= 1, or None for that of the rise.
        mode: "triangular", "triangular2" or "exp_range".
        gamma: Factor on the height per step in the mode "exp_range". Float, 0 < gamma <= 1.

    Raises:
        ValueError: If `lr_max <= lr_min` or an argument is out of range.
        TypeError: If an argument has the wrong type.

    Example:
        >>> kadence.Cyclical(1.0, up_steps=2, mode="triangular2").sample(8)
        array([0.  , 0.5 , 1.  , 0.5 , 0.  , 0.25, 0.5 , 0.25])

    Source:
        Smith 2017, Cyclical Learning Rates for Training Neural Networks, section 3.1, arXiv:1506.01186.
    """

    def __init__(
        self,
        lr_max: float,
        up_steps: int,
        lr_min: float = 0.0,
        down_steps: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
    ):
        self.lr_max, self.lr_min = check_floor(lr_max, lr_min)
        self.up_steps = _checks.integer("up_steps", up_steps, minimum=1, maximum=2**30 - 1, unit="in optimizer steps")
        down = up_steps if down_steps is None else down_steps
        self.down_steps = _checks.integer("down_steps", down, minimum=1, maximum=2**30 - 1, unit="in optimizer steps")
        self.mode = _checks.one_of("mode", mode, ("triangular", "triangular2", "exp_range"))
        self.gamma = _checks.number("gamma", gamma, above=0.0, maximum=1.0)
        self._peaks = Powers(0.5 if self.mode == "triangular2" else self.gamma)

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        length = self.up_steps + self.down_steps
        position = step % length
        up = xp.real(position) / self.up_steps
        down = xp.real(length - position) / self.down_steps
        height = xp.where(position <= self.up_steps, up, down)
        if self.mode == "triangular2":
            height = height * self._peaks(step // length, xp)
        elif self.mode == "exp_range":
            height = height * self._peaks(step, xp)
        return between(self.lr_min, self.lr_max, height)

    def cycle_of(self, steps: Any) -> tuple[np.ndarray, np.ndarray]:
        """First and last step of the cycle that each step is in, both ends included."""
        length = self.up_steps + self.down_steps
        first = np.asarray(steps, np.int64) // length * length
        return first, first + length - 1

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "lr_max": self.lr_max,
            "up_steps": self.up_steps,
            "lr_min": self.lr_min,
            "down_steps": self.down_steps,
            "mode": self.mode,
            "gamma": self.gamma,
        }
