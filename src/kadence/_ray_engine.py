"""Trials as tasks of Ray, on one machine or a cluster."""

import os
import sys
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._engines import ATTEMPTS, Finished
from kadence._problem import Problem
from kadence._trials import Outcome, Trial, run_trial

#: What a worker has to be told before it imports Keras.
_ENVIRONMENT = ("TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS", "JAX_PLATFORMS", "KERAS_HOME")


class RayEngine:
    """Each trial is a task, which Ray retries on another worker if its own is killed or its machine is lost.

    The problem goes to the object store of each machine once. Only this process writes results, so that the workers
    need no shared disk; they need Kadence, the backend, and the module of the builder.

    Args:
        problem: The `Problem`; its builder can be imported and its data are arrays.
        address: Address of the cluster, "auto" for the one that runs here, or None to start one here.
        jobs: Trials at a time, or None for as many as the cluster has cores.

    Raises:
        ImportError: If Ray is not installed.
        ConnectionError: If there is no cluster at the address.
    """

    def __init__(self, problem: Problem, address: str | None, jobs: int | None):
        self._ray = ray = _checks.extra("ray", "ray", "The engine 'ray'")
        text, arrays = problem.to_parts()
        self._started = not ray.is_initialized()
        if self._started:
            _start(ray, address, jobs)
        self._jobs = jobs
        self._parts = [ray.put(text), *(ray.put(np.asarray(array)) for array in arrays)]
        options = {"max_retries": ATTEMPTS - 1, "num_cpus": 1, "runtime_env": {"env_vars": _environment()}}
        self._task = ray.remote(_run).options(**options)
        self._running: dict[Any, Trial] = {}

    def free_slots(self) -> int:
        slots = self._jobs or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        return slots - len(self._running)

    def submit(self, trial: Trial) -> None:
        self._running[self._task.remote(trial.to_json(), *self._parts)] = trial

    def wait(self, seconds: float) -> Finished:
        ready, _ = self._ray.wait(list(self._running), timeout=seconds)
        return [(self._running.pop(task), self._outcome(task)) for task in ready]

    def _outcome(self, task: Any) -> Outcome:
        try:
            return Outcome.from_json(self._ray.get(task))
        except self._ray.exceptions.RayError as error:  # after all retries
            return Outcome("failed", f"{type(error).__name__}: {_checks.said(error)}"[:500])

    def close(self) -> None:
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._running.clear()
        if self._started:
            self._ray.shutdown()


def _start(ray: Any, address: str | None, jobs: int | None) -> None:
    where = {"address": address} if address is not None else {"num_cpus": jobs, "include_dashboard": False}
    try:
        ray.init(**where, log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        remedy = "Start one with `ray start --head`, or leave the address out to start one for this run."
        rule = "be the address of a Ray cluster that runs"
        raise ConnectionError(_checks.sentence("ray_address", rule, address, remedy)) from error


def _environment() -> dict[str, str]:
    known = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return {**known, "KERAS_BACKEND": keras.backend.backend(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _run(trial: str, text: str, *arrays: np.ndarray) -> str:
    """The task: JSON in, JSON out."""
    key = (text, *(array.ctypes.data for array in arrays))
    if _problems.get("key") != key:
        _problems.update(key=key, problem=Problem.from_parts(text, arrays))
    return run_trial(_problems["problem"], Trial.from_json(trial)).to_json()


#: The last problem of this worker.
_problems: dict[str, Any] = {}
