"""Schedules that are one shape between two rates."""

from typing import Any

import keras

from kadence import _checks
from kadence.schedules._base import ArrayOps, Schedule
from kadence.schedules._shapes import cosine, delayed, fractions

_STEPS = "in optimizer steps"


def between(low: float, high: Any, height: Any) -> Any:
    """The rate between two others.

    Args:
        low: The rate at height 0.
        high: The rate at height 1.
        height: Where, from 0 to 1.
    """
    return low + (high - low) * height


def check_floor(lr_max: float, lr_min: float) -> tuple[float, float]:
    """The two rates as floats.

    Args:
        lr_max: The largest rate, > lr_min.
        lr_min: The smallest rate, >= 0.
    """
    lr_min = _checks.number("lr_min", lr_min, minimum=0.0)
    lr_max = _checks.number("lr_max", lr_max, above=0.0)
    if lr_max <= lr_min:
        raise ValueError(_checks.sentence("lr_max", f"be > lr_min, which is {lr_min!r}", lr_max))
    return lr_max, lr_min


@keras.saving.register_keras_serializable(package="kadence")
class Constant(Schedule):
    """The same rate at every step.

    lr = lr

    Args:
        lr: The rate. Float >= 0.

    Raises:
        ValueError: If `lr` is negative or not finite.
        TypeError: If `lr` is not a number.

    Example:
        >>> kadence.Constant(0.1).sample(3)
        array([0.1, 0.1, 0.1])
    """

    def __init__(self, lr: float):
        self.lr = self.lr_max = self.lr_min = _checks.number("lr", lr, minimum=0.0)

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        return xp.real(self.lr)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"lr": self.lr}


@keras.saving.register_keras_serializable(package="kadence")
class Linear(Schedule):
    """A straight line from `lr_start` at step 0 to `lr_end` at step `n_steps`, and `lr_end` from there on.

    lr = lr_end + (lr_start - lr_end) * (1 - min(step, n_steps) / n_steps)

    Args:
        lr_start: Rate at step 0. Float >= 0.
        lr_end: Rate from step `n_steps` on. Float >= 0.
        n_steps: Length in optimizer steps. Integer >= 1.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument is not a number, or `n_steps` not an integer.

    Example:
        >>> kadence.Linear(0.0, 0.4, n_steps=4).sample(6)
        array([0. , 0.1, 0.2, 0.3, 0.4, 0.4])
    """

    def __init__(self, lr_start: float, lr_end: float, n_steps: int):
        self.lr_start = _checks.number("lr_start", lr_start, minimum=0.0)
        self.lr_end = _checks.number("lr_end", lr_end, minimum=0.0)
        self.n_steps = _checks.integer("n_steps", n_steps, minimum=1, unit=_STEPS)
        self.lr_max, self.lr_min = max(self.lr_start, self.lr_end), min(self.lr_start, self.lr_end)

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        # Each end has a weight of its own, so that neither is lost where the other is far larger.
        left, done = fractions(step, self.n_steps, xp)
        return self.lr_start * left + self.lr_end * done

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"lr_start": self.lr_start, "lr_end": self.lr_end, "n_steps": self.n_steps}


@keras.saving.register_keras_serializable(package="kadence")
class Cosine(Schedule):
    """Half a cosine from `lr_max` at step 0 down to `lr_min` at step `n_steps`, and `lr_min` from there on.

    lr = lr_min + (lr_max - lr_min) * (1 + cos(pi * (min(step, n_steps) / n_steps) ** k_decay)) / 2

    Args:
        lr_max: Rate at step 0, eta_max. Float > lr_min.
        n_steps: Length in optimizer steps. Integer >= 1.
        lr_min: Rate from step `n_steps` on, eta_min. Float >= 0.
        k_decay: Exponent of the time. Float > 0; above 1 the rate stays high for longer.

    Raises:
        ValueError: If `lr_max <= lr_min` or an argument is out of range.
        TypeError: If an argument is not a number, or `n_steps` not an integer.

    Example:
        >>> kadence.Cosine(1.0, n_steps=4).sample(5).round(3)
        array([1.   , 0.854, 0.5  , 0.146, 0.   ])

    Source:
        Loshchilov & Hutter 2017, SGDR, eq. (5) without restarts, arXiv:1608.03983; k: Zhang & Li 2020, k-decay,
        arXiv:2004.05909.
    """

    def __init__(self, lr_max: float, n_steps: int, lr_min: float = 0.0, k_decay: float = 1.0):
        self.lr_max, self.lr_min = check_floor(lr_max, lr_min)
        self.n_steps = _checks.integer("n_steps", n_steps, minimum=1, unit=_STEPS)
        self.k_decay = _checks.number("k_decay", k_decay, above=0.0)

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        left = delayed(xp.minimum(step, self.n_steps), self.n_steps, self.k_decay, xp)
        return between(self.lr_min, self.lr_max, cosine(left, xp))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"lr_max": self.lr_max, "n_steps": self.n_steps, "lr_min": self.lr_min, "k_decay": self.k_decay}
