"""Every schedule, over the whole space of its arguments: one clear error, or finite rates within [lr_min, lr_max]."""

import inspect
import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
from evaluate import MAX
from hypothesis import given, settings
from hypothesis import strategies as st

import kadence

pytestmark = pytest.mark.once

ODD = [None, True, "0.1", math.nan, math.inf, -math.inf, -1.0, -1, 0, 0.0, -0.0, 5e-324, 1e-300, 1e300, MAX, MAX + 1]
REAL = st.sampled_from([0.0, 0.1, 0.5, 1.0, 1, 2, 10.0]) | st.floats(0.0, 1.0) | st.floats() | st.sampled_from(ODD)
WHOLE = st.integers(0, 40) | st.integers(1, MAX) | st.integers() | st.sampled_from([*ODD, 1.0, 2.5])
WORDS = st.sampled_from(
    ["linear", "cosine", "1-sqrt", "constant", "triangular", "triangular2", "exp_range", "", "cos", None, 3]
)
SEVERAL = st.lists(st.integers(0, 30), max_size=4, unique=True).map(sorted) | st.lists(WHOLE, max_size=3)
OF_TYPE = {float: REAL, int: WHOLE, str: WORDS, bool: st.booleans() | st.sampled_from([0, None]), int | None: WHOLE}
MAKERS = {
    name: getattr(kadence, name)
    for name in kadence.__all__
    if name == "from_points"
    or (
        (isinstance(getattr(kadence, name), type) and issubclass(getattr(kadence, name), kadence.Schedule))
        and name != "Schedule"
    )
}


def of_type(annotation):
    if annotation in OF_TYPE:
        return OF_TYPE[annotation]
    if annotation == Sequence[float]:
        return st.lists(REAL, max_size=4)
    assert annotation in (Sequence[int], int | Sequence[int]), annotation
    return SEVERAL if annotation == Sequence[int] else SEVERAL | WHOLE


def steps_near(arguments):
    """Steps around every number that is given, and the ends of what can be counted."""
    marks = {0, 1, 2, 1000, MAX}
    for value in arguments.values():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and 0 <= number <= MAX:
                marks |= {number - 1, number, number + 1, 2 * number}
    return sorted(mark for mark in marks if 0 <= mark <= MAX)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=300)
@given(data=st.data())
def test_valid_or_one_clear_error(name, data):
    parameters = inspect.signature(MAKERS[name]).parameters.values()
    arguments = {
        parameter.name: data.draw(of_type(parameter.annotation), parameter.name)
        for parameter in parameters
        if parameter.default is parameter.empty or data.draw(st.booleans(), f"give {parameter.name}")
    }
    try:
        schedule = MAKERS[name](**arguments)
    except (ValueError, TypeError) as error:
        refusal = str(error)
    else:
        refusal = None
    if refusal is not None:
        assert re.fullmatch(r"`\w+` must .*Received: .*", refusal)
        return
    rates = schedule.at(steps_near(arguments))
    assert np.isfinite(rates).all()
    # Numbers near 1e-308 have fewer digits.
    assert rates.max() <= schedule.lr_max * (1 + 1e-12) + 1e-300
    assert rates.min() >= schedule.lr_min * (1 - 1e-12) - 1e-300
    assert type(schedule).from_config(schedule.get_config()) == schedule
