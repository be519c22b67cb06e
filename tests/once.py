"""The mark `once`: a test that touches no backend runs on JAX alone, and is stopped where it touches one."""

import contextlib
from collections.abc import Iterator
from typing import NoReturn

import keras
import pytest

from kadence import Schedule


def _stop(*_: object, **__: object) -> NoReturn:
    pytest.fail("marked `once`, and touches the backend: take the mark away, or it is not tested on the others")


@contextlib.contextmanager
def no_backend() -> Iterator[None]:
    """Inside, it fails to make a variable or a tensor, and to call a layer or a schedule."""
    variable = keras.Variable.__mro__[-2]  # the class under the variables of every backend
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((variable, "__init__"), (keras.Operation, "__call__"), (Schedule, "__call__")):
            patch.setattr(owner, name, _stop)
        patch.setattr(keras.ops, "convert_to_tensor", _stop)
        yield
