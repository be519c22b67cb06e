"""One quiet, repeatable setting for every test: a backend, no screen, the same random numbers."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# What XLA has compiled for one test, no other test compiles again, nor a process that a test starts.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="kadence-tests-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import hypothesis
import keras
import pytest
from once import no_backend

# A background job of a shell ignores it, and Python then sets no handler: Ctrl-C would do nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline or a "too slow" would judge the machine; random examples would judge the day.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("repeatable")


def pytest_report_header():
    return f"backend: {keras.backend.backend()}, Keras {keras.__version__}"


def pytest_unconfigure():
    shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Fixtures of a test marked `once` are watched too."""
    with no_backend() if item.get_closest_marker("once") else contextlib.nullcontext():
        return (yield)


@pytest.fixture(autouse=True)
def repeatable(request):
    """Seed every test alike, and give back what it may change for all the others."""
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
    if request.node.get_closest_marker("slow") and keras.backend.backend() == "jax":
        sys.modules["jax"].clear_caches()  # large programs that nothing runs again: gigabytes
