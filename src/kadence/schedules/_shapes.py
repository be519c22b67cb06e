"""Shapes on [0, 1], as functions of the fraction that is left; and powers with integer exponents."""

import math
from typing import Any, NamedTuple, Protocol

import numpy as np

from kadence.schedules._base import ArrayOps

#: Bits of the exponent per table in `Powers`: three tables cover 31 bits.
_TABLE_BITS = 11
#: 2 to the minus of this is 0 in float64.
_ZERO_BITS = 1080


class _Shape(Protocol):
    def __call__(self, left: Any, done: Any, xp: ArrayOps) -> Any: ...


class Curve(NamedTuple):
    """A fall from 1 at left = 1 to 0 at left = 0, and one minus it, each exact where it is small."""

    fall: _Shape
    rise: _Shape


def fractions(step: Any, n_steps: int, xp: ArrayOps) -> tuple[Any, Any]:
    """What is left and what is done of `n_steps`, each exact where it is small."""
    passed = xp.minimum(step, n_steps)
    return xp.real(n_steps - passed) / n_steps, xp.real(passed) / n_steps


def cosine(left: Any, xp: ArrayOps) -> Any:
    """(1 + cos(pi * (1 - left))) / 2, as the square of a sine, which keeps the relative precision near 0."""
    return xp.sin(left * (math.pi / 2)) ** 2


CURVES = {
    "linear": Curve(lambda left, done, xp: left, lambda left, done, xp: done),
    "cosine": Curve(lambda left, done, xp: cosine(left, xp), lambda left, done, xp: cosine(done, xp)),
    "1-sqrt": Curve(lambda left, done, xp: left / (1.0 + done**0.5), lambda left, done, xp: done**0.5),
}


def delayed(left: Any, done: Any, k: float, xp: ArrayOps) -> Any:
    """1 - done ** k: what is left if time runs as the k-th power of itself (k-decay)."""
    if k == 1.0:
        return left
    return xp.where(done < 0.5, 1.0 - done**k, -xp.expm1(k * xp.log1p(-xp.minimum(left, 0.5))))


class Powers:
    """Powers of a number with integer exponents: products of looked-up powers, of as few as it takes to reach 0.

    The error of a float32 power would grow with the exponent.

    Args:
        base: The number. Float, 0 <= base <= 1.
    """

    def __init__(self, base: float):
        last = 1 if base in (0.0, 1.0) else min(math.ceil(-_ZERO_BITS * math.log(2.0) / math.log(base)), 2**31 - 1)
        #: The exponent from which on every power is that one: 0, for a base < 1.
        self.last = np.int32(last)
        self.size = min(last + 1, 2**_TABLE_BITS)
        places = 1 if last < self.size else -(-last.bit_length() // _TABLE_BITS)
        exponents = np.arange(self.size, dtype=np.float64)
        self.tables = [np.power(base, exponents * float(self.size**place)) for place in range(places)]

    def __call__(self, exponent: Any, xp: ArrayOps) -> Any:
        """The power for each exponent.

        Args:
            exponent: Integers, 0 <= exponent < 2**31.
            xp: The operations.
        """
        exponent = xp.minimum(exponent, xp.table(self.last))
        result: Any = 1.0
        for place, powers in enumerate(self.tables):
            result = result * xp.take(xp.table(powers), exponent // self.size**place % self.size)
        return result
