"""Builders and data of comparisons so small that a trial takes about a second; workers import them by name."""

import functools
import os
import signal
from pathlib import Path

import keras
import numpy as np

from kadence._problem import Problem, make_data
from kadence._trials import Outcome, Trial
from kadence.strategies import Strategy


def build():
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, "relu", name="body"), keras.layers.Dense(2, "softmax", name="head")]
    )


def build_with_norm():
    layers = [keras.layers.Dense(3, name="body"), keras.layers.BatchNormalization(name="norm")]
    return keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2, "softmax", name="head")])


def build_or_die(flag):
    """As if the process were killed in its first trial."""
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return build()


def build_and_die():
    os.kill(os.getpid(), signal.SIGKILL)


def build_without_memory():
    raise MemoryError("Out of memory allocating 1 EiB")


def data(n=16, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int32)


def problem(builder=build, epochs=2, test=True, metric="accuracy", **arguments):
    builder = functools.partial(builder, **arguments) if arguments else builder
    parts = make_data(data(), data(8, 1), data(8, 2) if test else None, batch_size=8)
    return Problem(builder, *parts, epochs, "sparse_categorical_crossentropy", metric)


def trial(strategy="constant", rate=0.01, seed=0, phase="judge"):
    return Trial(Strategy.from_name(strategy), rate, seed, phase, "problem")


def outcome(value=0.5, status="done", seconds=2.0, **changes):
    """What a trial of two epochs might give."""
    curves = {"loss": [1.0, 0.5], "val_loss": [1.0, 0.6], "val_accuracy": [0.1, value], "seconds": [1.0, 2.0]}
    known = {"validation": value, "test": value, "seconds": seconds, "curves": curves}
    return Outcome(status, **{**known, **changes})


def environment():
    """For another process: this module, and the backend of this one."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "KERAS_BACKEND": keras.backend.backend()}
