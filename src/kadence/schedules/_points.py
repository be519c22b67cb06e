"""Schedules from anything else: points to join, or a function."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kadence import _checks
from kadence.schedules._base import ArrayOps, Schedule, check_steps
from kadence.schedules._shapes import CURVES

_INTERPOLATIONS = ("constant", *CURVES)
_CHUNK = 65_536


@keras.saving.register_keras_serializable(package="kadence")
class _Points(Schedule):
    def __init__(self, steps: Sequence[int], rates: Sequence[float], interpolation: str = "linear"):
        self.steps = _checks.increasing("steps", steps, minimum=0, unit="in optimizer steps")
        rule = f"be a sequence of {len(self.steps)} rates, one per step"
        self.rates = [_checks.number("rates", rate, minimum=0.0) for rate in _checks.sequence("rates", rates, rule)]
        if len(self.rates) != len(self.steps):
            raise ValueError(_checks.sentence("rates", rule, rates))
        self.interpolation = _checks.one_of("interpolation", interpolation, _INTERPOLATIONS)
        self.lr_max, self.lr_min = max(self.rates), min(self.rates)

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        passed = xp.passed(self.steps, step)
        # One more rate at each end: what holds before the first point and after the last.
        before = xp.take([self.rates[0], *self.rates], passed)
        if self.interpolation == "constant":
            return before
        after = xp.take([*self.rates, self.rates[-1]], passed)
        starts = xp.take([0, *self.steps], passed)
        # Beyond the ends one step is the whole way, from a rate to the same: exact, where a part of it is rounded.
        length = xp.take([1, *np.diff(self.steps), 1], passed)
        gone = xp.minimum(step - starts, length)
        left, done = xp.real(length - gone) / xp.real(length), xp.real(gone) / xp.real(length)
        fall, rise = CURVES[self.interpolation](left, done, xp)
        return before * fall + after * rise

    @property
    def end_step(self) -> int | None:
        return None if self.interpolation == "constant" else self.steps[-1]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"steps": self.steps, "rates": self.rates, "interpolation": self.interpolation}

    def __repr__(self) -> str:
        return super().__repr__().replace(type(self).__name__, "from_points", 1)


@keras.saving.register_keras_serializable(package="kadence")
class _Function(Schedule):
    def __init__(self, function: Callable[[Any], Any], lr_max: float, lr_min: float = 0.0):
        if not callable(function) or isinstance(function, type):
            raise TypeError(_checks.sentence("function", "be a function of the step", function))
        self.function = function
        self.lr_max = _checks.number("lr_max", lr_max, above=0.0)
        self.lr_min = _checks.number("lr_min", lr_min, minimum=0.0, maximum=self.lr_max)

    def __call__(self, step: Any) -> Any:
        return self._formula(ops.cast(step, "int32"), None)

    def at(self, steps: Any) -> np.ndarray:
        """Rates at given steps, by calls of the function on tensors of many steps.

        Args:
            steps: Optimizer steps. Integer array of any shape.

        Returns:
            Array of the shape of `steps`, float64.
        """
        steps = check_steps(steps)
        flat = steps.reshape(-1)
        rates = np.empty(flat.shape, np.float64)
        for start in range(0, len(flat), _CHUNK):
            chunk = ops.convert_to_tensor(flat[start : start + _CHUNK], "int32")
            rates[start : start + _CHUNK] = ops.convert_to_numpy(self.function(chunk))
        return rates.reshape(steps.shape)

    def _formula(self, step: Any, xp: ArrayOps | None) -> Any:
        if isinstance(step, (np.ndarray, np.integer)):
            return self.at(step)
        return ops.cast(self.function(step), keras.config.floatx())

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; a lambda has no name under which a file could hold it."""
        if getattr(self.function, "__name__", "<lambda>") == "<lambda>":
            rule = "be a function with a name, registered with keras.saving.register_keras_serializable, to be saved"
            raise ValueError(_checks.sentence("function", rule, self.function))
        function = keras.saving.serialize_keras_object(self.function)
        return {"function": function, "lr_max": self.lr_max, "lr_min": self.lr_min}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "_Function":
        function = keras.saving.deserialize_keras_object(config["function"])
        return cls(function, config["lr_max"], config["lr_min"])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Function):
            return False
        mine, theirs = (self.function, self.lr_max, self.lr_min), (other.function, other.lr_max, other.lr_min)
        return mine == theirs

    __hash__ = Schedule.__hash__

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", repr(self.function))
        return f"from_function({name}, lr_max={self.lr_max!r}, lr_min={self.lr_min!r})"


def from_points(steps: Sequence[int], rates: Sequence[float], interpolation: str = "linear") -> Schedule:
    """A schedule through given points.

    Between two points, with f the fraction of the way: rate = before + (after - before) * rise(f), where rise(f) is
    f ("linear"), (1 - cos(pi * f)) / 2 ("cosine"), sqrt(f) ("1-sqrt") or 0 ("constant"). Before the first point and
    after the last, their rates hold.

    Args:
        steps: Where the points are, in optimizer steps. Strictly increasing integers >= 0.
        rates: Rate at each point. Floats >= 0, as many as steps.
        interpolation: "linear", "cosine", "1-sqrt" or "constant".

    Returns:
        `Schedule`.

    Raises:
        ValueError: If the steps do not increase, or there is not one rate per step.
        TypeError: If an argument has the wrong type.

    Example:
        >>> kadence.from_points([0, 2, 4], [0.0, 1.0, 0.5]).sample(6)
        array([0.  , 0.5 , 1.  , 0.75, 0.5 , 0.5 ])
    """
    return _Points(steps, rates, interpolation)


def from_function(function: Callable[[Any], Any], lr_max: float, lr_min: float = 0.0) -> Schedule:
    """A schedule from a function of the step.

    Args:
        function: Takes the optimizer step, an int32 backend tensor of any shape, and gives the rate, a tensor of the
            same shape, with the operations of `keras.ops`. To be saved it has to be registered with
            `keras.saving.register_keras_serializable`.
        lr_max: The largest rate it gives. Float > 0.
        lr_min: The smallest rate it gives. Float >= 0.

    Returns:
        `Schedule`.

    Raises:
        ValueError: If a rate is out of range.
        TypeError: If `function` is not a function.

    Example:
        >>> halves = kadence.from_function(lambda step: 0.5 ** keras.ops.cast(step, "float32"), lr_max=1.0)
        >>> halves.sample(3)
        array([1.  , 0.5 , 0.25])
    """
    return _Function(function, lr_max, lr_min)
