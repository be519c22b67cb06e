"""The only combinators: one schedule after another, a warm-up before one, one times a factor."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence.schedules._base import ArrayOps, Schedule
from kadence.schedules._curves import Linear


def check_schedule(name: str, value: Any) -> Schedule:
    """`value` if it is a Kadence schedule.

    Args:
        name: What an error calls it.
        value: What it is.
    """
    if not isinstance(value, Schedule):
        remedy = "A number becomes one with `kadence.Constant`." if isinstance(value, (int, float)) else ""
        raise TypeError(_checks.sentence(name, "be a kadence.Schedule", value, remedy))
    return value


class _Compound(Schedule):
    """A schedule with schedules among its constructor's arguments; `_function` is the public name that makes it."""

    _function: str

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "_Compound":
        return cls(**{name: _revive(value) for name, value in config.items()})

    def _arguments(self) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def parts(self) -> tuple[Schedule, ...]:
        return tuple(value for value in keras.tree.flatten(self._arguments()) if isinstance(value, Schedule))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, schedules in Keras's serialized form."""
        return {name: keras.saving.serialize_keras_object(value) for name, value in self._arguments().items()}

    def __eq__(self, other: object) -> bool:
        # A function without a name has no config.
        return isinstance(other, _Compound) and type(self) is type(other) and self._arguments() == other._arguments()

    __hash__ = Schedule.__hash__

    def __repr__(self) -> str:
        return f"{self._function}({', '.join(f'{name}={value!r}' for name, value in self._arguments().items())})"


def _revive(value: Any) -> Any:
    if isinstance(value, dict):
        return keras.saving.deserialize_keras_object(value)
    return [_revive(item) for item in value] if isinstance(value, (list, tuple)) else value


@keras.saving.register_keras_serializable(package="kadence")
class _Join(_Compound):
    _function = "join"

    def __init__(self, schedules: Sequence[Schedule], at_steps: Sequence[int]):
        rule = "be a sequence of at least one schedule"
        self.schedules = [check_schedule("schedules", item) for item in _checks.sequence("schedules", schedules, rule)]
        rule = f"be a sequence of {len(self.schedules) - 1} steps, one fewer than schedules"
        steps = _checks.sequence("at_steps", at_steps, rule, minimum_length=0)
        if len(steps) != len(self.schedules) - 1:
            raise ValueError(_checks.sentence("at_steps", rule, at_steps))
        unit = "in optimizer steps"
        self.at_steps = _checks.increasing("at_steps", steps, minimum=1, unit=unit) if steps else []
        self.lr_max = max(schedule.lr_max for schedule in self.schedules)
        self.lr_min = min(schedule.lr_min for schedule in self.schedules)

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        rate = self.schedules[0]._formula(step, xp)
        for begin, schedule in zip(self.at_steps, self.schedules[1:], strict=True):
            rate = xp.where(step >= begin, schedule._formula(xp.maximum(step - begin, 0), xp), rate)
        return rate

    @property
    def end_step(self) -> int | None:
        last = self.schedules[-1].end_step
        return None if last is None else sum(self.at_steps[-1:]) + last

    def cycle_of(self, steps: Any) -> tuple[np.ndarray, np.ndarray]:
        steps = np.asarray(steps, np.int64)
        first, last = self.schedules[0].cycle_of(steps)
        for begin, schedule in zip(self.at_steps, self.schedules[1:], strict=True):
            own = schedule.cycle_of(np.maximum(steps - begin, 0))
            shifted = [np.where(bound < 0, -1, bound + begin) for bound in own]
            first, last = np.where(steps >= begin, shifted, [first, last])
        return first, last

    def _arguments(self) -> dict[str, Any]:
        return {"schedules": self.schedules, "at_steps": self.at_steps}


@keras.saving.register_keras_serializable(package="kadence")
class _Scale(_Compound):
    _function = "scale"

    def __init__(self, schedule: Schedule, factor: float):
        self.schedule = check_schedule("schedule", schedule)
        self.factor = _checks.number("factor", factor, minimum=0.0)
        if not math.isfinite(schedule.lr_max * self.factor):
            rule = f"give finite rates from a schedule with the peak {schedule.lr_max!r}"
            raise ValueError(_checks.sentence("factor", rule, factor))
        self.lr_max, self.lr_min = schedule.lr_max * self.factor, schedule.lr_min * self.factor

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        return self.schedule._formula(step, xp) * self.factor

    @property
    def end_step(self) -> int | None:
        return self.schedule.end_step

    def cycle_of(self, steps: Any) -> tuple[np.ndarray, np.ndarray]:
        return self.schedule.cycle_of(steps)

    def _arguments(self) -> dict[str, Any]:
        return {"schedule": self.schedule, "factor": self.factor}


def join(schedules: Sequence[Schedule], at_steps: Sequence[int]) -> Schedule:
    """One schedule after another; each begins at its own step 0 where it takes over.

    lr = schedules[i](step - at_steps[i - 1]) for at_steps[i - 1] <= step < at_steps[i]

    Args:
        schedules: The schedules in order. Sequence of n >= 1 `Schedule`.
        at_steps: Optimizer steps at which the second, third, ... begins. n - 1 strictly increasing integers >= 1.

    Returns:
        `Schedule`.

    Raises:
        ValueError: If there are not n - 1 steps, or they do not increase.
        TypeError: If an item is not a `Schedule`, or a step not an integer.

    Example:
        >>> kadence.join([kadence.Constant(1.0), kadence.Constant(0.1)], at_steps=[2]).sample(4)
        array([1. , 1. , 0.1, 0.1])
    """
    return _Join(schedules, at_steps)


def scale(schedule: Schedule, factor: float) -> Schedule:
    """A schedule times a number, floor included.

    lr = factor * schedule(step)

    Args:
        schedule: The `Schedule` to scale.
        factor: Float >= 0.

    Returns:
        `Schedule`.

    Raises:
        ValueError: If `factor` is negative or not finite.
        TypeError: If `schedule` is not a `Schedule`, or `factor` not a number.

    Example:
        >>> kadence.scale(kadence.Constant(0.5), 0.1).sample(2)
        array([0.05, 0.05])
    """
    return _Scale(schedule, factor)


def warmup(schedule: Schedule, warmup_steps: int, lr_start: float = 0.0) -> Schedule:
    """A straight line from `lr_start` to the first rate of a schedule, then the schedule from its step 0.

    lr = lr_start + (schedule(0) - lr_start) * step / warmup_steps for step < warmup_steps,
    lr = schedule(step - warmup_steps) from there on.

    Args:
        schedule: The `Schedule` that follows.
        warmup_steps: Length of the line in optimizer steps. Integer >= 1.
        lr_start: Rate at step 0. Float >= 0.

    Returns:
        `Schedule`.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If `schedule` is not a `Schedule`, or an argument not a number.

    Example:
        >>> kadence.warmup(kadence.Constant(0.4), warmup_steps=4).sample(6)
        array([0. , 0.1, 0.2, 0.3, 0.4, 0.4])

    Source:
        Goyal et al. 2017, Accurate, Large Minibatch SGD, section 2.2, arXiv:1706.02677.
    """
    check_schedule("schedule", schedule)
    warmup_steps = _checks.integer("warmup_steps", warmup_steps, minimum=1, unit="in optimizer steps")
    return join([Linear(lr_start, float(schedule.at(0)), warmup_steps), schedule], at_steps=[warmup_steps])
