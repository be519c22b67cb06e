"""Schedule: a rate as a function of the step, the same on a backend tensor and in NumPy."""

import sys
from fractions import Fraction
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from kadence import _checks

#: Steps that are computed at once.
_BLOCK = 16_384


class ArrayOps(Protocol):
    """The operations that a formula uses, on backend tensors or on NumPy arrays."""

    def real(self, value: Any) -> Any:
        """Integers as floating-point numbers."""
        ...

    def sin(self, x: Any) -> Any: ...
    def expm1(self, x: Any) -> Any: ...
    def log1p(self, x: Any) -> Any: ...
    def where(self, condition: Any, x1: Any, x2: Any) -> Any: ...
    def minimum(self, x1: Any, x2: Any) -> Any: ...
    def maximum(self, x1: Any, x2: Any) -> Any: ...

    def take(self, values: Any, index: Any) -> Any:
        """The constants at an index, or at each of several."""
        ...

    def passed(self, marks: Any, step: Any) -> Any:
        """How many of the constants `marks`, increasing integers, are <= step."""
        ...


def _real_dtype() -> str:
    """What formulas are computed in: half precision would lose the place in the cycle."""
    return "float64" if keras.config.floatx() == "float64" else "float32"


def _table(values: Any) -> np.ndarray:
    """A constant array: integers have 32 bits, here as on the backends."""
    array = np.asarray(values)
    return array.astype(np.int32 if array.dtype.kind == "i" else np.float64, copy=False)


class _NumPyOps:
    def real(self, value: Any) -> Any:
        return np.asarray(value, np.float64)

    def take(self, values: Any, index: Any) -> Any:
        return _table(values)[index]

    def passed(self, marks: Any, step: Any) -> Any:
        marks = _table(marks)
        # Steps that follow one another mostly lie between the same two marks: one number does for all of them.
        bounds = np.searchsorted(marks, [step.min(), step.max()], side="right") if np.size(step) else [0, 0]
        return bounds[0] if bounds[0] == bounds[1] else np.searchsorted(marks, step, side="right")

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


class _KerasOps:
    def real(self, value: Any) -> Any:
        return ops.cast(value, _real_dtype())

    def minimum(self, x1: Any, x2: Any) -> Any:
        return ops.minimum(x1, _constant(x2))

    def maximum(self, x1: Any, x2: Any) -> Any:
        return ops.maximum(x1, _constant(x2))

    def take(self, values: Any, index: Any) -> Any:
        if keras.backend.backend() == "torch":  # which would wait for the index before it slices
            return ops.take(_constant(values), index)
        # XLA puts a slice into the kernel of what comes after, and a gather into one of its own.
        return ops.reshape(ops.slice(_constant(values), [index], [1]), ())

    def passed(self, marks: Any, step: Any) -> Any:
        if keras.backend.backend() == "torch":
            return ops.sum(ops.cast(ops.less_equal(_constant(marks), step), "int32"))
        # Halving, written out, stays in the kernel of what comes after; a sum would be a kernel of its own.
        marks = _table(marks)
        bits = len(marks).bit_length()
        padded = np.pad(marks, (0, 2**bits - len(marks)), constant_values=_checks.MAX_STEPS)
        count = _constant(0)
        for bit in reversed(range(bits)):
            further = count + 2**bit
            count = ops.where(self.take(padded, further - 1) <= step, further, count)
        return self.minimum(count, len(marks))

    def __getattr__(self, name: str) -> Any:
        return getattr(ops, name)


def _constant(value: Any) -> Any:
    """A tensor, as it is, or constants as one: Keras makes floats of integers where floatx has 16 bits."""
    if keras.ops.is_tensor(value):
        return value
    array = _table(value)
    return ops.convert_to_tensor(array, "int32" if array.dtype.kind == "i" else _real_dtype())


_NUMPY: ArrayOps = _NumPyOps()  # type: ignore[assignment]
_KERAS: ArrayOps = _KerasOps()  # type: ignore[assignment]


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate as a function of the optimizer step: exact, stateless, the same on every backend.

    A subclass sets `lr_max` and `lr_min` in its constructor and defines `_formula` and `get_config`.

    Attributes:
        lr_max: The largest rate that the schedule gives. Float >= 0.
        lr_min: The smallest rate that the schedule gives. Float >= 0.
    """

    lr_max: float
    lr_min: float

    @property
    def parts(self) -> tuple["Schedule", ...]:
        """The schedules that it is made of, as `join`, `warmup` and `scale` make one; most are made of none."""
        return ()

    def __call__(self, step: Any) -> Any:
        """Rate at one step, as a scalar backend tensor of type `keras.config.floatx()`.

        Args:
            step: Optimizer updates done so far: integer, or scalar integer tensor or variable, 0 <= step < 2**31.
        """
        known = _known_step(step)
        if known is not None:
            return ops.convert_to_tensor(float(self._formula(np.int32(known), _NUMPY)), keras.config.floatx())
        return ops.cast(self._formula(ops.cast(step, "int32"), _KERAS), keras.config.floatx())

    def sample(self, n_steps: int, start: int = 0) -> np.ndarray:
        """Rates at the steps start, start + 1, ..., start + n_steps - 1, computed in NumPy.

        Args:
            n_steps: Number of optimizer steps. Integer >= 0.
            start: First optimizer step. Integer >= 0.

        Returns:
            Array of shape (n_steps,), float64.

        Raises:
            ValueError: If `n_steps` or `start` is negative, or the last step is beyond 2**31 - 1.
            TypeError: If either is not an integer.
        """
        start = _checks.integer("start", start, minimum=0, unit="in optimizer steps")
        n_steps = _checks.integer("n_steps", n_steps, minimum=0, unit="in optimizer steps")
        _checks.integer("start + n_steps - 1", max(start + n_steps - 1, 0), minimum=0, unit="in optimizer steps")
        return self._in_blocks(np.arange(start, start + n_steps, dtype=np.int64).astype(np.int32))

    def at(self, steps: Any) -> np.ndarray:
        """Rates at given steps, computed in NumPy.

        Args:
            steps: Optimizer steps. Integer array of any shape, 0 <= step < 2**31.

        Returns:
            Array of the shape of `steps`, float64.

        Raises:
            ValueError: If a step is negative or beyond 2**31 - 1.
            TypeError: If a step is not an integer.
        """
        steps = check_steps(steps)
        if steps.size <= _BLOCK:
            return np.broadcast_to(np.asarray(self._formula(steps, _NUMPY), np.float64), steps.shape).copy()
        return self._in_blocks(steps.ravel()).reshape(steps.shape)

    def _in_blocks(self, steps: np.ndarray) -> np.ndarray:
        """Rates at `steps`, of one dimension, a block at a time: what a formula makes on the way stays in the cache."""
        rates = np.empty(len(steps), np.float64)
        for begin in range(0, len(steps), _BLOCK):
            rates[begin : begin + _BLOCK] = self._formula(steps[begin : begin + _BLOCK], _NUMPY)
        return rates

    @property
    def end_step(self) -> int | None:
        """The optimizer step from which on the rate stays as it is, by plan; None for a schedule without an end."""
        return getattr(self, "n_steps", None)

    def cycle_of(self, steps: Any) -> tuple[np.ndarray, np.ndarray]:
        """The cycle that each step is in.

        Args:
            steps: Optimizer steps. Integer array of any shape, 0 <= step < 2**31.

        Returns:
            The first and the last step of the whole cycle, int64 arrays of the shape of `steps`; -1 and -1 where the
            schedule has no cycles. The last step may lie beyond the end of the run, or of the schedule's part of a
            `join`.
        """
        nowhere = np.full(np.shape(steps), -1, np.int64)
        return nowhere, nowhere.copy()

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        """Rate at `step`, integers (a scalar tensor, or any NumPy array), with the operations of `xp`."""
        raise NotImplementedError(f"{type(self).__name__} must define `_formula`.")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, from which Keras makes an equal schedule."""
        raise NotImplementedError(f"{type(self).__name__} must define `get_config`.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.get_config().items())})"


def check_steps(steps: Any) -> np.ndarray:
    """`steps` as an array of steps that can be counted, int32 as on the backends.

    Args:
        steps: An integer, or an array of integers, in optimizer steps.
    """
    array = np.asarray(steps)
    rule = "be integers, in optimizer steps"
    if array.size and (array.dtype.kind not in "iu" or isinstance(steps, bool)):
        raise TypeError(_checks.sentence("steps", rule, steps))
    if array.size and not 0 <= array.min() <= array.max() <= _checks.MAX_STEPS:
        raise ValueError(_checks.sentence("steps", f"be integers from 0 to {_checks.MAX_STEPS}", steps))
    return array.astype(np.int32)


def _known_step(step: Any) -> int | None:
    """The step as an int where it is one already or costs nothing to read, else None.

    PyTorch runs eagerly: on the CPU, one of its operations on a scalar costs as much as a whole formula in NumPy.
    """
    if isinstance(step, (int, float, str, list, tuple, np.generic)) or step is None:
        return _checks.integer("step", step, minimum=0, unit="in optimizer steps")
    if keras.backend.backend() != "torch":
        return None
    torch = sys.modules["torch"]
    tensor = step.value if isinstance(step, keras.Variable) else step
    if torch.compiler.is_compiling() or not isinstance(tensor, torch.Tensor) or tensor.device.type != "cpu":
        return None
    return _checks.integer("step", int(tensor), minimum=0, unit="in optimizer steps")


def epochs_to_steps(epochs: float, steps_per_epoch: int) -> int:
    """Optimizer steps in a number of epochs, rounded to the nearest, halves up.

    Args:
        epochs: Time in epochs. Float >= 0; parts of an epoch count.
        steps_per_epoch: Optimizer updates in one epoch: batches, divided by the gradient accumulation steps if any.
            Integer >= 1.

    Returns:
        Integer number of optimizer steps.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument is not a number.

    Example:
        >>> kadence.epochs_to_steps(1.5, steps_per_epoch=83)
        125
    """
    epochs = _checks.number("epochs", epochs, minimum=0.0, unit="in epochs")
    steps_per_epoch = _checks.integer("steps_per_epoch", steps_per_epoch, minimum=1, unit="in optimizer steps")
    # The decimal that was written, not the float next to it.
    steps = int(Fraction(repr(epochs)) * steps_per_epoch + Fraction(1, 2))
    if steps > _checks.MAX_STEPS:
        remedy = f"They are {steps_per_epoch} steps each."
        raise ValueError(_checks.sentence("epochs", f"be at most {_checks.MAX_STEPS} steps, in epochs", epochs, remedy))
    return steps
