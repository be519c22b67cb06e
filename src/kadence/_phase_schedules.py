"""Schedules that end with a phase."""

from kadence.budgets import solve_cycles
from kadence.schedules import Constant, Cosine, OneCycle, Schedule, WarmRestarts, warmup

SCHEDULES = ("one-cycle", "cosine", "warm-restarts", "constant")
#: Share of a phase in which the rate rises before a cosine, or before all its restarts together.
_RISE = 0.1


def make_schedule(name: str, lr_max: float, n_steps: int, cycles: int = 1) -> Schedule:
    """A schedule that ends with a phase; a phase of fewer than 5 steps is constant, unless it has restarts.

    Args:
        name: "one-cycle" (a rise over 30%, then a cosine), "cosine" (a rise over 10% before it; from a tenth of the
            peak both), "warm-restarts" (a rise from 0 in each, over 10% of the phase in all at most) or "constant".
        lr_max: Its peak. Float > 0.
        n_steps: Length of the phase, in optimizer steps. Integer >= 1.
        cycles: Number of warm restarts.

    Returns:
        `Schedule`.

    Raises:
        ValueError: If the phase is too short for the cycles.
    """
    if name == "warm-restarts":
        first, growth = solve_cycles(n_steps, cycles, 2.0, max_change=0.5)
        rise = min(round(_RISE * n_steps / cycles), first // 4)
        return WarmRestarts(lr_max, first, growth, warmup_steps=rise)
    if name == "constant" or n_steps < 5:
        return Constant(lr_max)
    if name == "one-cycle":
        return OneCycle(lr_max, n_steps, div_factor=10.0)
    rise = round(_RISE * n_steps)
    return warmup(Cosine(lr_max, n_steps - rise), rise, lr_max / 10) if rise else Cosine(lr_max, n_steps)
