"""What is drawn in the tests of plots, and what can be read off it."""

import numpy as np

import kadence
from kadence.range_test import Curve, RangeTest
from kadence.records import RateRecord

SCHEDULE = kadence.WarmRestarts(1e-2, first_cycle_steps=10, cycle_mult=2, lr_min=1e-5)


def record(n_groups=3, steps=40, start=0, factor=10.0):
    base = SCHEDULE.sample(steps, start)
    rates = {f"group_{i}": base * factor ** (i - n_groups) for i in range(1, n_groups + 1)}
    return RateRecord(np.arange(start, start + steps), rates, np.linspace(3, 1, steps))


def range_test(per_group=False, losses=None, runs=1):
    """Losses that fall around 1e-3 and blow up after 0.1; the first of the groups learns nothing."""
    t = np.linspace(-7, 1, 100)
    noise = np.random.default_rng(0).normal(size=(runs, 100)) * 0.02
    fall = 2.0 - 1 / (1 + np.exp(-(t + 3) * 2)) + np.where(t > -1, (t + 1) ** 2, 0.0) if losses is None else losses
    names, flat = (["low", "head"], np.full(100, 2.0)) if per_group else (["all"], fall)
    curves = [Curve(n, r, (flat if n == "low" else fall) + noise[r], "end") for r in range(runs) for n in names]
    bases = [Curve(n, r, 2.0 + noise[r], "end") for r in range(runs) for n in names] if per_group else []
    rates = {"low": 1e-5, "head": 1e-3}
    return RangeTest(1e-7, 10.0, 100, per_group, rates, {"low": 0.01, "head": 1.0}, curves, bases)


def drawn(line):
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def legend_labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]
