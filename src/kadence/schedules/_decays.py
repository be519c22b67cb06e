"""Schedules that fall along one formula."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence.schedules._base import ArrayOps, Schedule
from kadence.schedules._curves import between, check_floor
from kadence.schedules._shapes import Powers, delayed

_STEPS = "in optimizer steps"


@keras.saving.register_keras_serializable(package="kadence")
class Polynomial(Schedule):
    """A power of the time that is left, from `lr_max` at step 0 to `lr_min` at step `n_steps` and from there on.

    lr = lr_min + (lr_max - lr_min) * (1 - (min(step, n_steps) / n_steps) ** k_decay) ** power

    Args:
        lr_max: Rate at step 0. Float > lr_min.
        n_steps: Length in optimizer steps. Integer >= 1.
        power: Exponent. Float > 0; 1 is a straight line.
        lr_min: Rate from step `n_steps` on. Float >= 0.
        k_decay: Exponent of the time. Float > 0; above 1 the rate stays high for longer.

    Raises:
        ValueError: If `lr_max <= lr_min` or an argument is out of range.
        TypeError: If an argument is not a number, or `n_steps` not an integer.

    Example:
        >>> kadence.Polynomial(1.0, n_steps=4, power=2).sample(5)
        array([1.    , 0.5625, 0.25  , 0.0625, 0.    ])

    Source:
        Chen et al. 2018, DeepLab, section 4.1 ("poly"), arXiv:1606.00915; k: Zhang & Li 2020, k-decay, eq. (9),
        arXiv:2004.05909.
    """

    def __init__(self, lr_max: float, n_steps: int, power: float = 1.0, lr_min: float = 0.0, k_decay: float = 1.0):
        self.lr_max, self.lr_min = check_floor(lr_max, lr_min)
        self.n_steps = _checks.integer("n_steps", n_steps, minimum=1, unit=_STEPS)
        self.power = _checks.number("power", power, above=0.0)
        self.k_decay = _checks.number("k_decay", k_decay, above=0.0)

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        left = delayed(xp.minimum(step, self.n_steps), self.n_steps, self.k_decay, xp)
        return between(self.lr_min, self.lr_max, left**self.power)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "lr_max": self.lr_max,
            "n_steps": self.n_steps,
            "power": self.power,
            "lr_min": self.lr_min,
            "k_decay": self.k_decay,
        }


@keras.saving.register_keras_serializable(package="kadence")
class Exponential(Schedule):
    """The rate times a factor every so many steps, smoothly in between.

    lr = max(lr_max * factor ** (step / every_steps), lr_min)

    Args:
        lr_max: Rate at step 0. Float > lr_min.
        factor: Factor on the rate every `every_steps`. Float, 0 < factor <= 1.
        every_steps: Time for one factor, in optimizer steps. Integer >= 1.
        lr_min: Rate below which it does not fall. Float >= 0.

    Raises:
        ValueError: If `lr_max <= lr_min` or an argument is out of range.
        TypeError: If an argument is not a number, or `every_steps` not an integer.

    Example:
        >>> kadence.Exponential(1.0, factor=0.25, every_steps=2).sample(4)
        array([1.   , 0.5  , 0.25 , 0.125])

    Source:
        Li & Arora 2020, An Exponential Learning Rate Schedule for Deep Learning, arXiv:1910.07454.
    """

    def __init__(self, lr_max: float, factor: float, every_steps: int = 1, lr_min: float = 0.0):
        self.lr_max, self.lr_min = check_floor(lr_max, lr_min)
        self.factor = _checks.number("factor", factor, above=0.0, maximum=1.0)
        self.every_steps = _checks.integer("every_steps", every_steps, minimum=1, unit=_STEPS)
        self._powers = Powers(self.factor, self.every_steps)

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        return xp.maximum(self.lr_max * self._powers(step, xp), xp.real(self.lr_min))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "lr_max": self.lr_max,
            "factor": self.factor,
            "every_steps": self.every_steps,
            "lr_min": self.lr_min,
        }


@keras.saving.register_keras_serializable(package="kadence")
class InverseSquareRoot(Schedule):
    """A fall with the square root of the time, without an end.

    lr = lr_max * sqrt(timescale_steps / (timescale_steps + step))

    After a `warmup` of `timescale_steps`, this is lr_max * sqrt(timescale_steps / step), the Transformer's schedule.

    Args:
        lr_max: Rate at step 0. Float > 0.
        timescale_steps: Steps after which the rate is lr_max / sqrt(2), in optimizer steps. Integer >= 1.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If `lr_max` is not a number, or `timescale_steps` not an integer.

    Example:
        >>> kadence.InverseSquareRoot(1.0, timescale_steps=1).at([0, 3, 8]).round(3)
        array([1.   , 0.5  , 0.333])

    Source:
        Vaswani et al. 2017, Attention Is All You Need, eq. (3), arXiv:1706.03762.
    """

    def __init__(self, lr_max: float, timescale_steps: int):
        self.lr_max = _checks.number("lr_max", lr_max, above=0.0)
        self.lr_min = 0.0
        self.timescale_steps = _checks.integer("timescale_steps", timescale_steps, minimum=1, unit=_STEPS)

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        # The sum of the two integers could leave 32 bits.
        return self.lr_max * (1.0 + xp.real(step) / self.timescale_steps) ** -0.5

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"lr_max": self.lr_max, "timescale_steps": self.timescale_steps}


@keras.saving.register_keras_serializable(package="kadence")
class Step(Schedule):
    """The rate times a factor at given steps, constant in between.

    lr = lr_max * factor ** drops, with drops = step // at_steps for an integer `at_steps`, else the number of
    `at_steps` that are <= step.

    Args:
        lr_max: Rate at step 0. Float > 0.
        at_steps: When the rate drops, in optimizer steps: an integer >= 1 for every so many steps, or a strictly
            increasing sequence of integers >= 1.
        factor: Factor on the rate at each drop. Float, 0 < factor <= 1.

    Raises:
        ValueError: If an argument is out of range, or the steps do not increase.
        TypeError: If an argument has the wrong type.

    Example:
        >>> kadence.Step(1.0, at_steps=[2, 3], factor=0.5).sample(5)
        array([1.  , 1.  , 0.5 , 0.25, 0.25])

    Source:
        He et al. 2016, Deep Residual Learning, section 4.2 (a tenth at two steps), arXiv:1512.03385.
    """

    def __init__(self, lr_max: float, at_steps: int | Sequence[int], factor: float = 0.1):
        self.lr_max = _checks.number("lr_max", lr_max, above=0.0)
        self.factor = _checks.number("factor", factor, above=0.0, maximum=1.0)
        self._powers = Powers(self.factor)
        self.at_steps: int | list[int]
        if hasattr(at_steps, "__index__") and np.ndim(at_steps) == 0:
            self.at_steps = _checks.integer("at_steps", at_steps, minimum=1, unit=_STEPS)
            self.lr_min = 0.0
        else:
            self.at_steps = _checks.increasing("at_steps", at_steps, minimum=1, unit=_STEPS)
            self.lr_min = self.lr_max * self.factor ** len(self.at_steps)

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        if isinstance(self.at_steps, int):
            return self.lr_max * self._powers(step // self.at_steps, xp)
        rates = [self.lr_max * self.factor**drops for drops in range(len(self.at_steps) + 1)]
        return xp.take(rates, xp.passed(self.at_steps, step))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"lr_max": self.lr_max, "at_steps": self.at_steps, "factor": self.factor}
