"""What transformers, fastai and timm offer, from their formulas written out, side by side with ours.

PyTorch's and optax's schedules run themselves, in the tests of each schedule.
"""

import math

import numpy as np
import pytest

import kadence

N, WARMUP, LR = 1_000, 100, 0.3
AFTER = N - WARMUP


def warmed(fall):
    """A formula of transformers: up over WARMUP steps, then `fall` of the share of the rest that is done."""
    return lambda step: LR * (step / WARMUP if step < WARMUP else fall((step - WARMUP) / AFTER))


def half_cosine(share):
    return 0.5 * (1 + math.cos(math.pi * share))


def stable_then(fall, decay=200):
    def lr(step):
        if step < WARMUP:
            return LR * step / WARMUP
        done = min(max(0, step - (N - decay)) / decay, 1)
        return LR * (0.1 + 0.9 * fall(done))

    return lr


def stable(curve):
    return kadence.WarmupStableDecay(LR, N, WARMUP, 200, lr_min=0.1 * LR, curve=curve)


TRANSFORMERS = {
    "constant with warmup": (kadence.warmup(kadence.Constant(LR), WARMUP), warmed(lambda share: 1.0)),
    "linear": (kadence.warmup(kadence.Linear(LR, 0.0, AFTER), WARMUP), warmed(lambda share: max(0.0, 1 - share))),
    "cosine": (
        kadence.warmup(kadence.Cosine(LR, AFTER), WARMUP),
        warmed(lambda share: half_cosine(min(share, 1.0))),
    ),
    "cosine with hard restarts": (
        kadence.warmup(kadence.WarmRestarts(LR, AFTER // 3), WARMUP),
        warmed(lambda share: half_cosine(3 * share % 1.0)),
    ),
    "polynomial": (
        kadence.warmup(kadence.Polynomial(LR, AFTER, power=2, lr_min=1e-7), WARMUP),
        warmed(lambda share: ((LR - 1e-7) * max(0.0, 1 - share) ** 2 + 1e-7) / LR),
    ),
    "inverse square root": (
        kadence.warmup(kadence.InverseSquareRoot(LR, WARMUP), WARMUP),
        lambda step: LR * (step / WARMUP if step < WARMUP else 1 / math.sqrt(step / WARMUP)),
    ),
    "stable, then linear": (stable("linear"), stable_then(lambda done: 1 - done)),
    "stable, then cosine": (stable("cosine"), stable_then(half_cosine)),
    "stable, then 1-sqrt": (stable("1-sqrt"), stable_then(lambda done: 1 - math.sqrt(done))),
}


def between_cosine(start, end, share):
    """fastai's SchedCos."""
    return start + (1 + math.cos(math.pi * (1 - share))) * (end - start) / 2


def combined_cosine(turn, start, middle, end):
    """fastai's two cosines, of which the first takes the share `turn` of the run."""

    def value(step):
        share = min(step / N, 1.0)
        if share < turn:
            return between_cosine(start, middle, share / turn)
        return between_cosine(middle, end, (share - turn) / (1 - turn))

    return value


FASTAI = {
    "fit_one_cycle": (
        kadence.from_points([0, N // 4, N], [LR / 25, LR, LR / 1e5], "cosine"),
        combined_cosine(0.25, LR / 25, LR, LR / 1e5),
    ),
    "its momentum": (
        kadence.from_points([0, N // 4, N], [0.95, 0.85, 0.95], "cosine"),
        combined_cosine(0.25, 0.95, 0.85, 0.95),
    ),
    "fit_flat_cos": (
        kadence.WarmupStableDecay(LR, N, 0, N // 4, lr_min=LR / 1e5, curve="cosine"),
        combined_cosine(0.75, LR, LR, LR / 1e5),
    ),
    "fit_sgdr": (
        kadence.WarmRestarts(LR, 100, cycle_mult=2),
        lambda step: next(
            between_cosine(LR, 0.0, (step - start) / length)
            for start, length in ((700, 800), (300, 400), (100, 200), (0, 100))
            if step >= start
        ),
    ),
    "SchedExp": (kadence.Exponential(LR, 1e-3, every_steps=N), lambda step: LR * 1e-3 ** (step / N)),
    "SchedLin": (kadence.Linear(LR, 0.01, N), lambda step: LR + (0.01 - LR) * min(step / N, 1.0)),
    "SchedPoly": (
        kadence.Polynomial(LR, N, power=3),
        lambda step: LR * (1 - min(step / N, 1.0)) ** 3,
    ),
}


def timm_cycles(lr, length, mult, decay, k, lr_min):
    """timm's cosine: cycles that grow, peaks that shrink, k-decay."""

    def value(step):
        cycle, start, this = 0, 0, length
        while step >= start + this:
            cycle, start, this = cycle + 1, start + this, this * mult
        done = (step - start) ** k / this**k
        return lr_min + 0.5 * (lr * decay**cycle - lr_min) * (1 + math.cos(math.pi * done))

    return value


TIMM = {
    "cosine with cycles": (
        kadence.WarmRestarts(LR, 100, 2, lr_min=1e-4, peak_decay=0.7, k_decay=1.5),
        timm_cycles(LR, 100, 2, 0.7, 1.5, 1e-4),
    ),
    "cosine of equal cycles": (
        kadence.WarmRestarts(LR, 70, lr_min=1e-4, k_decay=0.5),
        timm_cycles(LR, 70, 1, 1.0, 0.5, 1e-4),
    ),
    "cosine with warmup_prefix": (
        kadence.warmup(kadence.WarmRestarts(LR, 100, 2, k_decay=1.5), 40, lr_start=1e-3),
        lambda step: 1e-3 + step * (LR - 1e-3) / 40 if step < 40 else timm_cycles(LR, 100, 2, 1.0, 1.5, 0)(step - 40),
    ),
    "poly": (
        kadence.Polynomial(LR, N, power=0.5, lr_min=1e-4, k_decay=2.0),
        lambda step: 1e-4 + (LR - 1e-4) * (1 - min(step, N) ** 2 / N**2) ** 0.5,
    ),
    "step": (kadence.Step(LR, 130, factor=0.4), lambda step: LR * 0.4 ** (step // 130)),
    "multistep": (
        kadence.Step(LR, [130, 400], factor=0.4),
        lambda step: LR * 0.4 ** sum(step >= at for at in (130, 400)),
    ),
}


@pytest.mark.parametrize("peer", [TRANSFORMERS, FASTAI, TIMM], ids=["transformers", "fastai", "timm"])
def test_rates_are_those_of_the_peer(peer):
    for name, (schedule, formula) in peer.items():
        wanted = np.array([formula(step) for step in range(N)])
        np.testing.assert_allclose(schedule.sample(N), wanted, rtol=1e-6, atol=1e-9 * LR, err_msg=name)
