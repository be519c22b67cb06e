"""A schedule on the backend: one step at a time, or many at once through one traced function."""

import contextlib
import signal

import keras
import numpy as np

from kadence import Schedule
from kadence.schedules import _base

BACKEND = keras.backend.backend()
MAX = 2**31 - 1


def tensor(step, dtype="int32"):
    return keras.ops.convert_to_tensor(step, dtype)


def array(value):
    """A backend tensor as a NumPy array (`convert_to_numpy` warns on PyTorch)."""
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)


@contextlib.contextmanager
def floatx(name):
    """`keras.config.floatx()` is `name` inside; JAX, which has no float64 otherwise, is given it."""
    before = keras.config.floatx()
    keras.config.set_floatx(name)
    try:
        if BACKEND == "jax" and name == "float64":
            import jax

            with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
                yield
        else:
            yield
    finally:
        keras.config.set_floatx(before)


def formula(schedule: Schedule):
    """The tensor formula itself: on PyTorch's CPU a call takes the way through NumPy."""
    return lambda step: schedule._formula(step, _base._KERAS)


def over(function, steps, like, *, compiled=True):
    """Results of `function(step)`, a tuple of scalars of the types `like`, at each of `steps` as an int32 scalar.

    `function` sees one scalar tensor, as in training. JAX: vmap, compiled or not; TensorFlow: a loop in a
    `tf.function`; PyTorch: vmap.
    """
    steps = np.asarray(steps, np.int32)
    if BACKEND == "jax":
        import jax

        mapped = jax.vmap(function)
        # Eager, every operation is compiled for every new number of steps: let the numbers be few.
        more = 0 if compiled else 2 ** max(len(steps) - 1, 0).bit_length() - len(steps)
        padded = jax.numpy.asarray(np.pad(steps, (0, more), mode="edge"))
        results = [result[: len(steps)] for result in (jax.jit(mapped) if compiled else mapped)(padded)]
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        results = tf.function(lambda all_steps: tf.map_fn(function, all_steps, fn_output_signature=like))(steps)
    else:
        import torch

        results = torch.vmap(function)(torch.from_numpy(steps))
    return tuple(array(result) for result in results)


def rates(schedule, steps, *, compiled=True):
    """Rates of the tensor formula at `steps`."""
    (result,) = over(lambda step: (formula(schedule)(step),), steps, (keras.config.floatx(),), compiled=compiled)
    return result


@contextlib.contextmanager
def time_limit(seconds):
    """Fail, instead of hanging, where the body takes longer."""

    def stop(signum, frame):
        raise TimeoutError(f"not done in {seconds} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
