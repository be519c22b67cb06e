"""The Ray engine: its dealings with Ray against a stand-in, and, where Ray is installed, with Ray itself."""

import importlib.util
import json
import subprocess
import sys
import types

import compare_models
import pytest
from compare_models import trial

from kadence import _checks, _ray_engine
from kadence._ray_engine import RayEngine
from kadence._trials import Outcome


class FakeRay:
    """Tasks run when they are waited for; `lost` ones end as Ray ends what it gave up on."""

    def __init__(self, there=True):
        self.there, self.calls, self.options, self.lost, self.started = there, [], None, set(), False
        self.exceptions = types.SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def is_initialized(self):
        return False

    def init(self, **options):
        if not self.there:
            raise ConnectionError("nobody")
        self.calls.append(("init", options))

    def cluster_resources(self):
        return {"CPU": 3.0}

    def put(self, value):
        return value

    def remote(self, function):
        def begin(*arguments):
            self.calls.append(("begin", arguments[0]))
            return (function, arguments)

        def configure(**options):
            self.options = options
            return types.SimpleNamespace(remote=begin)

        return types.SimpleNamespace(options=configure)

    def wait(self, tasks, timeout):
        return tasks[:1], tasks[1:]

    def get(self, task):
        function, arguments = task
        if arguments[0] in self.lost:
            raise self.exceptions.RayError("the worker died\nunexpectedly")
        return function(*arguments)

    def cancel(self, task, force):
        self.calls.append(("cancel", task[1][0]))

    def shutdown(self):
        self.calls.append(("shutdown",))


@pytest.fixture
def ray(monkeypatch):
    fake = FakeRay()
    monkeypatch.setattr(_checks, "extra", lambda *words: fake)
    monkeypatch.setattr(_ray_engine, "_problems", {})
    return fake


def engine(**options):
    problem = compare_models.problem(compare_models.build_without_memory)
    # Arrays are not hashable, as they are not in Ray, where a reference stands for them.
    made = RayEngine(problem, **{"address": None, "jobs": None, **options})
    made._parts = tuple(made._parts)
    made._running = Running()
    return made


class Running(dict):
    """A dict of tasks, known by their trial."""

    def __setitem__(self, task, value):
        super().__setitem__(Task(task), value)


class Task(tuple):
    def __hash__(self):
        return hash(self[1][0])

    def __eq__(self, other):
        return self[1][0] == other[1][0]


def test_trials_are_tasks_that_are_retried(ray):
    made = engine()
    assert made.free_slots() == 3
    for seed in (0, 1):
        made.submit(trial(seed=seed))
    assert made.free_slots() == 1
    ((done, outcome),) = made.wait(1.0)
    assert done == trial(seed=0)
    assert outcome.reason.startswith("out of memory")
    assert ray.options["max_retries"] == 2
    assert ray.options["runtime_env"]["env_vars"]["KERAS_BACKEND"]
    made.close()
    assert ray.calls[-2:] == [("cancel", trial(seed=1).to_json()), ("shutdown",)]


def test_a_task_that_ray_gives_up_on_is_failed(ray):
    made = engine(jobs=1)
    assert made.free_slots() == 1
    made.submit(trial())
    ray.lost = {trial().to_json()}
    ((_, outcome),) = made.wait(1.0)
    assert (outcome.status, outcome.reason) == ("failed", "RayError: the worker died unexpectedly")


def test_a_cluster_is_joined_or_started(ray):
    engine(jobs=2)
    engine(address="auto")
    (_, here), (_, there) = (call for call in ray.calls if call[0] == "init")
    assert here["num_cpus"] == 2
    assert there["address"] == "auto"
    ray.there = False
    with pytest.raises(ConnectionError, match="`ray_address` must be the address of a Ray cluster that runs"):
        engine(address="10.0.0.1:6379")


def test_without_ray_the_pip_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "kadence\[ray\]"'):
        engine()


REAL = """
import json, sys
import compare_models
from kadence._ray_engine import RayEngine
problem = compare_models.problem(compare_models.build_or_die, epochs=1, flag=sys.argv[1])
engine = RayEngine(problem, None, 2)
for seed in range(3):
    engine.submit(compare_models.trial(seed=seed))
done = []
while len(done) < 3:
    done += engine.wait(200)
engine.close()
print(json.dumps([[trial.seed, outcome.to_json()] for trial, outcome in done]))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `ray`")
def test_ray_retries_a_killed_worker(tmp_path):
    words = [sys.executable, "-c", REAL, str(tmp_path / "killed")]
    done = subprocess.run(words, env=compare_models.environment(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    found = {seed: Outcome.from_json(text) for seed, text in json.loads(done.stdout.splitlines()[-1])}
    assert (tmp_path / "killed").exists()
    assert {seed: outcome.status for seed, outcome in found.items()} == dict.fromkeys(range(3), "done")
