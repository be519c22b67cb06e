"""Values that arguments must refuse, and the form of the refusal."""

import math

import numpy as np
import pytest

#: For an argument that is a number.
NOT_NUMBERS = [None, True, False, "0.1", "", b"1", [0.1], (), {}, 1j, object, np.array([0.1, 0.2])]
NOT_FINITE = [math.nan, math.inf, -math.inf, np.float32("nan"), 10**400]

#: For an argument that is an integer.
NOT_INTEGERS = [None, True, False, "3", 2.0, 2.5, math.nan, math.inf, np.float64(3), [3], (), {}, np.array([3, 4])]
NOT_COUNTABLE = [2**31, 10**30]


def assert_rejects(call, name, value, error):
    """`call(value)` raises `error` with the one sentence: the rule for `name`, and the value received."""
    with pytest.raises(error) as caught:
        call(value)
    message = str(caught.value)
    assert type(caught.value) is error, f"{caught.type.__name__} for {value!r}"
    assert message.startswith(f"`{name}` must "), message
    assert f"Received: {name}={value!r}"[:150] in message, message


def assert_number(call, name, out_of_range=()):
    """`call` takes a finite number as argument `name`, and none of `out_of_range`."""
    for value in NOT_NUMBERS:
        assert_rejects(call, name, value, TypeError)
    for value in [*NOT_FINITE, *out_of_range]:
        assert_rejects(call, name, value, ValueError)


def assert_integer(call, name, minimum):
    """`call` takes an integer from `minimum` to 2**31 - 1 as argument `name`."""
    for value in NOT_INTEGERS:
        assert_rejects(call, name, value, TypeError)
    for value in [*NOT_COUNTABLE, minimum - 1, -5, -(2**31), np.int64(minimum - 1)]:
        assert_rejects(call, name, value, ValueError)
