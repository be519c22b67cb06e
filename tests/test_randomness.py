import random
import sys
import types

import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state

from kadence._randomness import _torch, preserved_randomness, seed_global


def drawn():
    """A number from every generator that `fit` may draw from."""
    numbers = [random.random(), float(np.random.random()), float(keras.ops.convert_to_numpy(keras.random.uniform(())))]
    if torch := sys.modules.get("torch"):
        numbers.append(float(torch.rand(())))
    if tensorflow := sys.modules.get("tensorflow"):
        numbers.append(float(tensorflow.random.uniform(())))
        numbers.append(float(tensorflow.random.get_global_generator().uniform(())))
        numbers += tensorflow.data.Dataset.range(50).shuffle(50).as_numpy_iterator()
    return numbers


@pytest.mark.parametrize("times_before", [0, 1, 3])
def test_every_generator_goes_on_as_if_nothing_had_been_drawn(times_before):
    results = []
    for disturbed in (False, True):
        keras.utils.set_random_seed(5)
        global_state.set_global_attribute("global_seed_generator", None)  # older Keras leaves it as it is
        if torch := sys.modules.get("torch"):
            torch.manual_seed(1)
        if tensorflow := sys.modules.get("tensorflow"):
            tensorflow.random.set_global_generator(tensorflow.random.Generator.from_seed(1))
        for _ in range(times_before):
            drawn()
        if disturbed:
            with preserved_randomness():
                seed_global(3)
                drawn()
                drawn()
        results.append(drawn())
    assert results[0] == results[1]


def test_also_after_an_error():
    state = np.random.get_state()[1].copy()

    def interrupted():
        with preserved_randomness():
            np.random.random(1000)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_a_seed_repeats_the_order_of_the_data():
    orders = []
    for _ in range(2):
        with preserved_randomness():
            seed_global(7)
            orders.append((random.random(), np.random.permutation(20).tolist()))
    assert orders[0] == orders[1]


class Device:
    """Stands in for what PyTorch has for a kind of device."""

    def __init__(self, available, suffix="_all"):
        self.is_available = lambda: available
        self.state = 5
        setattr(self, f"get_rng_state{suffix}", lambda: self.state)
        setattr(self, f"set_rng_state{suffix}", lambda state: setattr(self, "state", state))


@pytest.mark.parametrize("available", [True, False])
@pytest.mark.parametrize("has_xpu", [True, False])
def test_every_kind_of_device_of_pytorch_that_there_is(monkeypatch, available, has_xpu):
    cpu, cuda, xpu, mps = Device(True, ""), Device(available), Device(available), Device(available, "")
    torch = types.SimpleNamespace(cuda=cuda, mps=mps, backends=types.SimpleNamespace(mps=mps))
    torch.get_rng_state, torch.set_rng_state = cpu.get_rng_state, cpu.set_rng_state
    if has_xpu:
        torch.xpu = xpu
    monkeypatch.setitem(sys.modules, "torch", torch)
    restorers = _torch()
    for device in (cpu, cuda, xpu, mps):
        device.state = 6
    for restore in restorers:
        restore()
    back = 5 if available else 6
    assert [device.state for device in (cpu, cuda, xpu, mps)] == [5, back, back if has_xpu else 6, back]
