"""Shapes on [0, 1], as functions of the fraction that is left; and powers with integer exponents."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kadence.schedules._base import ArrayOps

#: Bits of the exponent per table in `Powers`: three tables cover 31 bits.
_TABLE_BITS = 11
#: 2 to the minus of this is 0 in float64.
_ZERO_BITS = 1080

#: Of the shares left and done: a fall from 1 to 0, and one minus it, each exact where it is small.
Curve = Callable[[Any, Any, ArrayOps], tuple[Any, Any]]


def fractions(step: Any, n_steps: int, xp: ArrayOps) -> tuple[Any, Any]:
    """What is left and what is done, each exact where it is small.

    Args:
        step: Steps done, in optimizer steps.
        n_steps: Steps in all, in optimizer steps.
        xp: Operations to compute it with.
    """
    passed = xp.minimum(step, n_steps)
    return xp.real(n_steps - passed) / n_steps, xp.real(passed) / n_steps


def delayed(gone: Any, length: Any, k: float, xp: ArrayOps, beyond: Any = 0.0) -> Any:
    """What is left of `length + beyond`, exact where it is small, if time runs as the k-th power of itself (k-decay).

    1 - (gone / (length + beyond)) ** k, of integers and a real number beyond their range.

    Args:
        gone: Integer from 0 to `length`.
        length: Integer >= 1.
        k: The power. Float > 0.
        xp: Operations to compute it with.
        beyond: Real number to add to the length.
    """
    whole = xp.real(length) + beyond
    left = (xp.real(length - gone) + beyond) / whole
    if k == 1.0:
        return left
    done = xp.real(gone) / whole
    return xp.where(done < 0.5, 1.0 - done**k, -xp.expm1(k * xp.log1p(-xp.minimum(left, 0.5))))


def cosine(left: Any, xp: ArrayOps) -> Any:
    """(1 + cos(pi * (1 - left))) / 2, as the square of a sine, which keeps the relative precision near 0.

    Args:
        left: What is left, from 0 to 1.
        xp: Operations to compute it with.
    """
    sine = xp.sin(left * (math.pi / 2))
    return sine * sine


def _linear(left: Any, done: Any, xp: ArrayOps) -> tuple[Any, Any]:
    return left, done


def _cosine(left: Any, done: Any, xp: ArrayOps) -> tuple[Any, Any]:
    """One sine, of the smaller share, gives both."""
    small = cosine(xp.minimum(left, done), xp)
    large = 1.0 - small
    return xp.where(left < done, small, large), xp.where(left < done, large, small)


def _one_minus_sqrt(left: Any, done: Any, xp: ArrayOps) -> tuple[Any, Any]:
    root = done**0.5
    return left / (1.0 + root), root


CURVES: dict[str, Curve] = {"linear": _linear, "cosine": _cosine, "1-sqrt": _one_minus_sqrt}


class Powers:
    """`base ** (exponent / every)` for integer exponents: products of looked-up powers, as few as it takes to reach 0.

    The error of a float32 power would grow with the exponent.

    Args:
        base: The number. Float, 0 <= base <= 1.
        every: The exponent for one factor of `base`. Integer >= 1; 1 for a base of 0.
    """

    def __init__(self, base: float, every: int = 1):
        last = {0.0: 1, 1.0: 0}.get(base)
        if last is None:
            last = min(math.ceil(-_ZERO_BITS * math.log(2.0) / math.log(base) * every), 2**31 - 1)
        #: The exponent from which on every power is the same: 0, for a base < 1.
        self.last = last
        self.size = min(last + 1, 2**_TABLE_BITS)
        places = max(1, -(-last.bit_length() // _TABLE_BITS))
        digits = np.arange(self.size, dtype=np.int64)
        self.tables = [_powers(base, digits * self.size**place, every) for place in range(places)]

    def __call__(self, exponent: Any, xp: ArrayOps) -> Any:
        """The power for each exponent.

        Args:
            exponent: Integers, 0 <= exponent < 2**31.
            xp: The operations.
        """
        rest, result = xp.minimum(exponent, self.last), None
        for powers in self.tables[:-1]:
            above = rest // self.size
            power = xp.take(powers, rest - above * self.size)
            result, rest = power if result is None else result * power, above
        power = xp.take(self.tables[-1], rest)
        return power if result is None else result * power


def _powers(base: float, exponents: np.ndarray, every: int) -> np.ndarray:
    whole = np.power(base, (exponents // every).astype(np.float64))
    return whole * np.power(base, exponents % every / every)
