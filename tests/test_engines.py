"""Engines: trials go out, outcomes come back, and a worker that is killed costs nothing but time."""

import os
import signal
from pathlib import Path

import compare_models
import pytest
from compare_models import trial

from kadence import _engines
from kadence._engines import ATTEMPTS, LocalEngine, ProcessEngine


@pytest.fixture
def engines():
    made = []
    yield lambda *arguments: made.append(ProcessEngine(*arguments)) or made[-1]
    for engine in made:
        engine.close()


@pytest.fixture(autouse=True)
def workers_find_the_builders(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def finished(engine, number, seconds=100):
    """Seed -> outcome of that many trials."""
    found = {}
    for _ in range(number + 3):
        found |= {done.seed: outcome for done, outcome in engine.wait(seconds)}
        if len(found) == number:
            return found
    raise TimeoutError(found)


def test_the_local_engine_has_one_slot():
    engine = LocalEngine(compare_models.problem(compare_models.build_without_memory))
    assert engine.free_slots() == 1
    engine.submit(trial(seed=7))
    assert engine.free_slots() == 0
    ((done, outcome),) = engine.wait(0.0)
    assert (done, outcome.status, engine.free_slots()) == (trial(seed=7), "failed", 1)
    engine.submit(trial())
    engine.close()
    assert engine.free_slots() == 1


def test_workers_train_as_here_and_a_killed_one_is_replaced(engines, tmp_path):
    """The first worker that builds a model is killed by it: its trial is begun anew, and each is finished once."""
    problem = compare_models.problem(compare_models.build_or_die, epochs=1, flag=str(tmp_path / "killed"))
    engine = engines(problem, 2)
    assert engine.free_slots() == 2
    folder = Path(engine._setup).parent
    for seed in range(3):
        engine.submit(trial(seed=seed))
    assert engine.free_slots() == -1
    found = finished(engine, 3)
    assert (tmp_path / "killed").exists()
    assert {seed: outcome.status for seed, outcome in found.items()} == dict.fromkeys(range(3), "done")
    assert found[0].curves["loss"] == pytest.approx(here(problem, 0).curves["loss"], rel=1e-4)
    assert engine.free_slots() == 2
    processes = [worker._process.pid for worker in engine._workers]
    engine.close()
    assert not folder.exists()
    for pid in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def here(problem, seed):
    engine = LocalEngine(problem)
    engine.submit(trial(seed=seed))
    return engine.wait(0.0)[0][1]


class _Dead:
    """A worker that is killed as soon as it has a trial."""

    def __init__(self, setup, cores, events):
        self.trial, self.events, self.has_answered = None, events, False

    def begin(self, given):
        self.trial = given
        self.events.put((self, ""))

    def end(self):
        return -signal.SIGKILL


def test_a_trial_that_kills_its_process_each_time_is_failed(engines, monkeypatch):
    monkeypatch.setattr(_engines, "_Worker", _Dead)
    engine = engines(compare_models.problem(), 1)
    engine.submit(trial(seed=5))
    rounds = [engine.wait(1.0) for _ in range(ATTEMPTS)]
    assert rounds[:-1] == [[]] * (ATTEMPTS - 1)
    ((done, outcome),) = rounds[-1]
    assert (done.seed, outcome.status) == (5, "failed")
    assert outcome.reason == "The process that trained it was killed by signal 9, 3 times; the memory may not suffice."
    assert engine.free_slots() == 1


def test_cores_are_shared_out(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 1, 2, 0}, raising=False)
    assert _engines._shares(2) == [[0, 2], [1, 3]]
    assert _engines._shares(5) == [[]] * 5
    monkeypatch.delattr(os, "sched_getaffinity")
    assert _engines._shares(2) == [[], []]


def test_nothing_to_wait_for_is_nothing(engines, monkeypatch):
    monkeypatch.setattr(_engines, "_Worker", _Dead)
    engine = engines(compare_models.problem(), 1)
    assert engine.wait(0.01) == []
    for _ in range(ATTEMPTS - 1):
        engine._events.put((engine._workers[0], ""))
        assert engine.wait(1.0) == []
    engine._events.put((engine._workers[0], ""))
    with pytest.raises(ChildProcessError, match=r"3 worker processes ended before .* the last one with exit code -9"):
        engine.wait(1.0)


def test_an_idle_worker_that_is_killed_is_replaced(engines, monkeypatch):
    """However often: it has shown that it can do its work."""
    monkeypatch.setattr(_engines, "_Worker", _Dead)
    engine = engines(compare_models.problem(), 1)
    for _ in range(2 * ATTEMPTS):
        idle = engine._workers[0]
        engine._events.put((idle, compare_models.outcome().to_json()))
        engine._events.put((idle, ""))
        assert engine.wait(1.0) == engine.wait(1.0) == []
        assert engine._workers[0] is not idle
    assert engine.free_slots() == 1
