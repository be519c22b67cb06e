"""Engines: what runs the trials. In this process, in worker processes, or as tasks of Ray.

An engine takes trials with `submit` as long as it has free slots, and `wait` gives back those that are finished. Only
the process that calls it writes results down: a worker that is killed leaves nothing behind, and its trial goes to
another one.
"""

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kadence._problem import Problem
from kadence._trials import Outcome, Trial, run_trial

#: How often a trial is begun before it counts as failed, if the process that runs it dies each time.
ATTEMPTS = 3

Finished = list[tuple[Trial, Outcome]]


class Engine(Protocol):
    """What `compare` asks of an engine."""

    def free_slots(self) -> int:
        """How many trials can be submitted now."""
        ...

    def submit(self, trial: Trial) -> None:
        """Begin a trial."""
        ...

    def wait(self, seconds: float) -> Finished:
        """The trials that are finished, after at most so many seconds; none if there is none."""
        ...

    def close(self) -> None:
        """End whatever is still running."""
        ...


class LocalEngine:
    """One trial after another, here.

    Args:
        problem: The `Problem`.
    """

    def __init__(self, problem: Problem):
        self._problem = problem
        self._waiting: deque[Trial] = deque()

    def free_slots(self) -> int:
        return 1 - len(self._waiting)

    def submit(self, trial: Trial) -> None:
        self._waiting.append(trial)

    def wait(self, seconds: float) -> Finished:
        return [(trial, run_trial(self._problem, trial)) for trial in [self._waiting.popleft()]]

    def close(self) -> None:
        self._waiting.clear()


class ProcessEngine:
    """Worker processes, each with one trial at a time.

    A worker is a new Python that reads a trial a line and writes an outcome a line; nothing is pickled. It ends when
    its standard input does, so it does not outlive this process.

    Args:
        problem: The `Problem`; its builder can be imported and its data are arrays.
        jobs: Number of workers. Integer >= 1.
    """

    def __init__(self, problem: Problem, jobs: int):
        text, arrays = problem.to_parts()
        self._folder = tempfile.TemporaryDirectory(prefix="kadence-")
        self._setup = str(Path(self._folder.name, "problem.json"))
        Path(self._setup).write_text(text, encoding="utf-8")
        for number, array in enumerate(arrays):
            np.save(Path(self._folder.name, f"{number}.npy"), array, allow_pickle=False)
        self._events: queue.Queue[tuple[_Worker, str]] = queue.Queue()
        self._waiting: deque[Trial] = deque()
        self._attempts: dict[str, int] = {}
        self._n_stillborn = 0
        self._shares = [",".join(map(str, share)) for share in _shares(jobs)]
        self._workers = [_Worker(self._setup, share, self._events) for share in self._shares]

    def free_slots(self) -> int:
        return sum(worker.trial is None for worker in self._workers) - len(self._waiting)

    def submit(self, trial: Trial) -> None:
        self._waiting.append(trial)
        self._hand_out()

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.trial is None and self._waiting:
                worker.begin(self._waiting.popleft())

    def wait(self, seconds: float) -> Finished:
        try:
            worker, line = self._events.get(timeout=seconds)
        except queue.Empty:
            return []
        trial, worker.trial = worker.trial, None
        if line:
            worker.has_answered, self._n_stillborn = True, 0
            self._hand_out()
            return [(trial, Outcome.from_json(line))] if trial is not None else []
        return self._replace(worker, trial)

    def _replace(self, worker: "_Worker", trial: Trial | None) -> Finished:
        """A worker is dead: start another one, and give it the trial, unless that has had its attempts."""
        code = worker.end()
        place = self._workers.index(worker)
        self._workers[place] = _Worker(self._setup, self._shares[place], self._events)
        if trial is None:
            self._n_stillborn += not worker.has_answered
            if self._n_stillborn >= ATTEMPTS:
                what = f"{ATTEMPTS} worker processes ended before they were given a trial"
                raise ChildProcessError(f"{what}, the last one with exit code {code}.")
            self._hand_out()
            return []
        self._attempts[trial.key] = self._attempts.get(trial.key, 0) + 1
        if self._attempts[trial.key] < ATTEMPTS:
            self._waiting.appendleft(trial)
            self._hand_out()
            return []
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        reason = f"The process that trained it {how}, {ATTEMPTS} times; the memory may not suffice."
        return [(trial, Outcome("failed", reason))]

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self._folder.cleanup()


class _Worker:
    """A worker process, and the trial it is at."""

    def __init__(self, setup: str, cores: str, events: "queue.Queue[tuple[_Worker, str]]"):
        self.trial: Trial | None = None
        self.has_answered = False
        code = "from kadence._worker import main; main()"
        self._process = subprocess.Popen(  # noqa: S603 - our own code, no shell
            [sys.executable, "-c", code, setup, cores],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for the process that waits for the workers
        )
        self._reader = threading.Thread(target=self._read, args=[self._process.stdout, events], daemon=True)
        self._reader.start()

    def _read(self, stdout: Any, events: "queue.Queue[tuple[_Worker, str]]") -> None:
        with stdout:
            for line in stdout:
                events.put((self, line))
        events.put((self, ""))

    def begin(self, trial: Trial) -> None:
        self.trial = trial
        with contextlib.suppress(BrokenPipeError):  # its end is an event
            stdin: Any = self._process.stdin
            stdin.write(trial.to_json() + "\n")
            stdin.flush()

    def end(self) -> int:
        """Kill it if it is alive; its exit code."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            stdin: Any = self._process.stdin
            stdin.close()
        self._reader.join()
        return self._process.wait()


def _shares(jobs: int) -> list[list[int]]:
    """The cores of each worker: a part of all of them, so that workers do not take turns on each; or no choice."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [cores[job::jobs] if jobs <= len(cores) else [] for job in range(jobs)]


def read_problem(setup: str) -> Problem:
    """The problem that `ProcessEngine` wrote into a folder.

    Args:
        setup: Path of its `problem.json`.

    Returns:
        `Problem`; its arrays are mapped from the disk, and shared between the workers.
    """
    text = Path(setup).read_text(encoding="utf-8")
    files = sorted(Path(setup).parent.glob("*.npy"), key=lambda path: int(path.stem))
    return Problem.from_parts(text, [np.load(path, mmap_mode="r", allow_pickle=False) for path in files])
