"""A worker process: a trial a line in, an outcome a line out."""

import os
import queue
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from kadence._engines import read_problem
from kadence._trials import Outcome, Trial, run_trial


def main() -> None:
    """Run the trials of the standard input; `sys.argv` holds the path of the problem and the cores to run on."""
    setup, cores = sys.argv[1:]
    if cores:
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    # What a model or a backend prints must not be taken for an outcome.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        lines = _lines(Path(setup).parent)
        run = _runner(setup)
        while True:
            out.write(run(Trial.from_json(lines.get())).to_json() + "\n")
            out.flush()


def _runner(setup: str) -> Callable[[Trial], Outcome]:
    """What runs a trial: where the problem cannot be made here, each trial fails and says why."""
    try:
        problem = read_problem(setup)
    except Exception as error:
        outcome = Outcome("failed", f"The worker process cannot make the problem: {type(error).__name__}: {error}")
        return lambda trial: outcome
    return lambda trial: run_trial(problem, trial)


def _lines(folder: Path) -> "queue.Queue[str]":
    """The lines of the standard input; at its end the process ends at once, also in the middle of a trial.

    That is the end of the process that made the folder of the problem, which could not remove it if it was killed.
    """
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines
