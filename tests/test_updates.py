"""The pieces of the update; what they do together is in test_optimizer*.py."""

import contextlib
import types

import keras
import numpy as np
import pytest

from kadence import Constant
from kadence._updates import (
    GroupSettings,
    UpdatesByGroup,
    as_array,
    as_number,
    assign_array,
    strategy_scope,
    ungrouped_config,
    update_by_group,
)


@keras.saving.register_keras_serializable(package="tests")
class Own(keras.optimizers.SGD):
    """A user's optimizer."""


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.5), keras.ops.convert_to_tensor(0.5)])
def test_as_number(value):
    assert as_number(value) in (0.5, 1)
    assert isinstance(as_number(value), (int, float))


@pytest.mark.parametrize("dtype", ["float32", "uint32", "int32"])
def test_an_assigned_array_is_not_the_memory_of_the_variable(dtype):
    """JAX takes the memory of an array that begins at a multiple of 64 bytes as it is."""
    memory = np.zeros(64 * 5, np.uint8)
    start = -memory.ctypes.data % 64
    variable = keras.Variable(np.zeros(64), dtype=dtype, trainable=False)
    array = memory[start : start + 256].view(variable.dtype)
    array[:] = 1
    assign_array(variable, array)
    array[:] = 7
    np.testing.assert_array_equal(as_array(variable), np.ones(64))


@pytest.mark.parametrize("cls", [keras.optimizers.Adam, keras.optimizers.SGD, Own])
def test_the_class_of_the_file_is_the_users(cls):
    optimizer = cls(0.1)
    update_by_group(optimizer, GroupSettings([1.0], [1.0], {}))
    assert isinstance(optimizer, UpdatesByGroup)
    assert isinstance(optimizer, cls)
    config = ungrouped_config(optimizer)
    again = keras.saving.deserialize_keras_object(config)
    assert not isinstance(again, UpdatesByGroup)
    assert isinstance(again, cls)
    assert "backend" not in config["module"]


def test_two_optimizers_of_a_class_share_the_class_made_for_it():
    first, second = keras.optimizers.Adam(0.1), keras.optimizers.Adam(0.1)
    for optimizer in (first, second):
        update_by_group(optimizer, GroupSettings([1.0], [1.0], {}))
    assert type(first) is type(second)


def test_hyperparameters_are_put_back_after_an_error():
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    update_by_group(optimizer, GroupSettings([1.0], [1.0], {"momentum": Constant(0.5)}))
    seen = []

    def fail():
        with optimizer._scheduled_hyperparameters(0):
            seen.append(optimizer.momentum)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen[0] is not None
    assert optimizer.momentum == 0.9


def test_the_scope_is_that_of_a_strategy_if_there_is_one():
    entered = []
    scope = contextlib.contextmanager(lambda: (yield entered.append(True)))
    for owner in (None, object(), types.SimpleNamespace(distribute_strategy=None)):
        with strategy_scope(owner):
            assert not entered
    with strategy_scope(types.SimpleNamespace(distribute_strategy=types.SimpleNamespace(scope=scope))):
        assert entered
