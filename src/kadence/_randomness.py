"""Random numbers that are drawn without anyone noticing: the state of every generator is given back."""

import contextlib
import functools
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from keras.src.backend.common import global_state

_KERAS_GENERATOR = "global_seed_generator"


@contextlib.contextmanager
def preserved_randomness() -> Iterator[None]:
    """Give back, at the end, the state of all generators that `fit` may draw from; begin with `seed_global` inside.

    An eager random operation of TensorFlow has a state for each pair of seeds, which nothing gives back.

    They are Python's, NumPy's and Keras's own global ones, and those of TensorFlow and PyTorch where they are loaded.
    Seed generators of layers belong to the model.
    """
    restorers = [_python(), _numpy(), _keras(), *_torch(), *_tensorflow()]
    try:
        yield
    finally:
        for restore in restorers:
            restore()


def seed_global(seed: int) -> None:
    """Seed Python's, NumPy's and TensorFlow's global generators, inside `preserved_randomness`.

    Args:
        seed: Integer from 0 to 2**31 - 1.
    """
    random.seed(seed)
    np.random.seed(seed)
    if context := _tensorflow_context():
        # tf.random.set_seed would also forget where the random operations of the user are.
        context._seed, context._rng = seed, random.Random(seed)


def _python() -> Callable[[], Any]:
    state = random.getstate()
    return lambda: random.setstate(state)


def _numpy() -> Callable[[], Any]:
    state = np.random.get_state()
    return lambda: np.random.set_state(state)


def _keras() -> Callable[[], Any]:
    generator = global_state.get_global_attribute(_KERAS_GENERATOR)
    state = None if generator is None else np.array(generator.state.numpy())

    def restore() -> None:
        global_state.set_global_attribute(_KERAS_GENERATOR, generator)
        if generator is not None:
            generator.state.assign(state)

    return restore


def _torch() -> list[Callable[[], Any]]:
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    pairs = [(torch.get_rng_state, torch.set_rng_state)]
    for device in (torch.cuda, getattr(torch, "xpu", None)):
        if device is not None and device.is_available():
            pairs.append((device.get_rng_state_all, device.set_rng_state_all))
    if torch.backends.mps.is_available():
        pairs.append((torch.mps.get_rng_state, torch.mps.set_rng_state))
    return [functools.partial(put, get()) for get, put in pairs]


def _tensorflow_context() -> Any:
    """TensorFlow's eager context, if TensorFlow is loaded."""
    module = sys.modules.get("tensorflow.python.eager.context")
    return None if module is None else module.context()


def _tensorflow() -> list[Callable[[], Any]]:
    context = _tensorflow_context()
    if context is None:
        return []
    present = {name: vars(context)[name] for name in ("_seed", "_rng") if name in vars(context)}

    def restore() -> None:
        for name in ("_seed", "_rng"):
            vars(context).pop(name, None)
        vars(context).update(present)

    generator = getattr(sys.modules.get("tensorflow.python.ops.stateful_random_ops"), "global_generator", None)
    if generator is None:
        return [restore]
    state = generator.state.numpy().copy()
    return [restore, lambda: generator.state.assign(state)]
