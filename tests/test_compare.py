"""A comparison from end to end: the same budget for all, nothing lost, nothing twice, whoever is stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import compare_models
import pytest
from bad_input import assert_integer, assert_number, assert_rejects

import kadence
from kadence import Strategy, _engines
from kadence._trials import Outcome

STRATEGIES = ["constant", "discriminative+cosine"]


@pytest.fixture
def no_training(monkeypatch):
    """The metric of a trial is made of its rate and seed; hands out the list of the trials that were run."""
    ran = []

    def run(problem, trial):
        ran.append(trial)
        return compare_models.outcome(min(trial.rate, 0.5) + trial.seed % 1000 / 1000)

    monkeypatch.setattr(_engines, "run_trial", run)
    return ran


def compare(strategies=STRATEGIES, builder=compare_models.build, **changes):
    known = {"epochs": 1, "seeds": 2, "rates": [0.01, 0.1], "batch_size": 8, "test": compare_models.data(8, 2)}
    parts = compare_models.data(), compare_models.data(8, 1)
    return kadence.compare(builder, *parts, strategies, **{**known, **changes})


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_strategies_are_compared_and_kept(tmp_path):
    seen = []
    with pytest.warns(UserWarning, match="`seeds` is 1: no interval"):
        found = compare(
            seeds=1, rates=[0.1], store=tmp_path / "s", on_trial=lambda trial, outcome, done, n: seen.append((done, n))
        )
    assert seen == [(1, 2), (2, 2)]
    assert [result.strategy for result in found.results] == STRATEGIES
    assert all(0.0 <= row.mean <= 1.0 and row.n == 1 for row in found.rows)
    assert found.results[1].settings["schedule"] == "cosine"
    with pytest.warns(UserWarning, match="`seeds` is 1"):
        again = compare(seeds=1, rates=[0.1], store=tmp_path / "s", on_trial=lambda *words: seen.append(words))
    assert len(seen) == 2, "nothing is repeated"
    assert again.to_json() == found.to_json()


def test_each_strategy_tries_the_rates_and_is_judged_from_fresh_seeds(no_training):
    found = compare(rates=None, search=3)
    assert [len([t for t in no_training if t.strategy.name == name]) for name in STRATEGIES] == [5, 5]
    assert {t.seed for t in no_training if t.phase == "search"}.isdisjoint(range(1000))
    assert [row.rate for row in found.rows] == [0.00316, 0.00316]
    assert found.judged_on == "test"
    assert compare(test=None).judged_on == "validation"


def test_more_seeds_add_to_what_is_there(no_training, tmp_path):
    compare(store=tmp_path / "s")
    n = len(no_training)
    compare(store=tmp_path / "s", seeds=4)
    assert [(t.seed, t.phase) for t in no_training[n:]] == [(2, "judge")] * 2 + [(3, "judge")] * 2
    compare(store=tmp_path / "s", seeds=4, strategies=[*STRATEGIES, Strategy("mine", layer_decay=0.9)])
    assert {t.strategy.name for t in no_training[n + 4 :]} == {"mine"}
    renamed = [Strategy("plain"), Strategy.from_name(STRATEGIES[1])]
    n = len(no_training)
    compare(store=tmp_path / "s", strategies=renamed)
    assert len(no_training) == n, "a name is not a setting"


def test_a_failed_trial_does_not_stop_the_others(no_training, monkeypatch, tmp_path):
    def run(problem, trial):
        no_training.append(trial)
        bad = trial.strategy.schedule == "cosine" and trial.seed == 1
        return Outcome("failed", "out of memory: x") if bad else compare_models.outcome(0.5)

    monkeypatch.setattr(_engines, "run_trial", run)
    found = compare(store=tmp_path / "s")
    assert found.results[1].failures == ("failed, out of memory: x",)
    assert (found.rows[1].n, found.rows[0].n) == (1, 2)
    n = len(no_training)
    compare(store=tmp_path / "s")
    assert len(no_training) == n
    compare(store=tmp_path / "s", retry_failed=True)
    assert [(t.seed, t.strategy.schedule) for t in no_training[n:]] == [(1, "cosine")]


def test_a_comparison_in_which_all_fails_is_an_error(monkeypatch):
    monkeypatch.setattr(_engines, "run_trial", lambda problem, trial: Outcome("failed", "out of memory: x"))
    with pytest.raises(ValueError, match=r"`trials` must give a model.*out of memory: x"):
        compare()


def test_ctrl_c_leaves_a_store_that_goes_on(no_training, monkeypatch, tmp_path):
    run = _engines.run_trial

    def interrupted(problem, trial):
        if len(no_training) == 3:
            raise KeyboardInterrupt
        return run(problem, trial)

    monkeypatch.setattr(_engines, "run_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(store=tmp_path / "s")
    monkeypatch.setattr(_engines, "run_trial", run)
    done = list(no_training)
    compare(store=tmp_path / "s")
    assert len(done) == 3
    assert len({trial.key for trial in no_training}) == len(no_training) == 8


KILLED = """
import os, signal, sys
import compare_models, kadence
def on_trial(trial, outcome, done, n):
    print(trial.key, flush=True)
    if done == 2:
        print(*(worker._process.pid for worker in engines[0]._workers), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
from kadence import compare as _, _engines
engines = []
class Engine(_engines.ProcessEngine):
    def __init__(self, *arguments):
        engines.append(self)
        super().__init__(*arguments)
sys.modules["kadence.compare"].ProcessEngine = Engine
parts = compare_models.data(), compare_models.data(8, 1)
kadence.compare(compare_models.build, *parts, ["constant", "discriminative+cosine"], epochs=1, seeds=2, rates=[0.1],
                batch_size=8, test=compare_models.data(8, 2), store=sys.argv[1], jobs=1, on_trial=on_trial)
"""


def test_a_killed_driver_goes_on_from_the_store(tmp_path):
    """SIGKILL in mid-run, with a worker at work: that one ends by itself, and what was finished is not done again."""
    words = [sys.executable, "-c", KILLED, str(tmp_path / "s")]
    killed = subprocess.run(words, env=compare_models.environment(), capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    *before, workers = killed.stdout.splitlines()
    after = []
    found = compare(rates=[0.1], store=tmp_path / "s", on_trial=lambda trial, *_: after.append(trial.key))
    assert len(before) == len(after) == 2
    assert len({*before, *after}) == 4
    assert [row.n for row in found.rows] == [2, 2]
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers.split()) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in workers.split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_arguments_are_checked_before_anything_is_trained(no_training, tmp_path):
    assert_integer(lambda value: compare(epochs=value), "epochs", minimum=1)
    assert_rejects(lambda value: compare(seeds=value), "seeds", 0, ValueError)
    assert_rejects(lambda value: compare(search=value, rates=None), "search", 0, ValueError)
    assert_rejects(lambda value: compare(search=value, rates=None), "search", 5000, ValueError)
    assert_rejects(lambda value: compare(jobs=value), "jobs", 0, ValueError)
    assert_rejects(lambda value: compare(batch_size=value), "batch_size", 0, ValueError)
    assert_rejects(lambda value: compare(engine=value), "engine", "dask", ValueError)
    assert_rejects(lambda value: compare(ray_address=value), "ray_address", "auto", ValueError)
    assert_rejects(lambda value: compare(target=value), "target", "high", TypeError)
    assert_rejects(lambda value: compare(builder=value), "build_model", None, TypeError)
    assert_rejects(lambda value: compare(on_trial=value), "on_trial", 3, TypeError)
    assert_rejects(lambda value: compare(retry_failed=value), "retry_failed", "yes", TypeError)
    assert_rejects(lambda value: compare(store=value), "store", 3, TypeError)
    assert_number(lambda value: compare(rates=[value] if value is not None else [None]), "rates", out_of_range=[0, -1])
    assert not no_training
    assert list(tmp_path.iterdir()) == []


def test_without_scipy_the_pip_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r'pip install "kadence\[compare\]"'):
        compare()
