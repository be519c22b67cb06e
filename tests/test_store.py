"""The store: each trial once, whatever happens to whom, and files of others left as they are."""

import contextlib
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import compare_models
import keras
import pytest
import tiny
from bad_input import assert_rejects
from compare_models import outcome, trial

from kadence import _store
from kadence._store import Store

TRIALS = [trial(seed=seed) for seed in range(6)]


def opened(path):
    store = Store(path)
    store.__enter__()
    return store


def test_what_is_finished_is_there_again(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        assert store.outcomes(TRIALS) == {}
        assert store.claim(TRIALS) == TRIALS[0]
        store.finish(TRIALS[0], outcome(0.7))
    with Store(tmp_path / "s.sqlite") as store:
        assert store.outcomes(TRIALS) == {TRIALS[0].key: outcome(0.7)}
        assert store.claim(TRIALS) == TRIALS[1]
    assert {path.name for path in tmp_path.iterdir()} == {"s.sqlite"}


def test_rows_can_be_read_by_anyone(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.finish(TRIALS[3], outcome(0.7))
    database = sqlite3.connect(tmp_path / "s.sqlite")
    row = database.execute("SELECT strategy, rate, seed, phase, status, validation, test FROM trials").fetchone()
    mode = database.execute("PRAGMA journal_mode").fetchone()
    database.close()
    assert row == ("constant", 0.01, 3, "judge", "done", 0.7, 0.7)
    assert mode == ("wal",)


def test_a_trial_is_written_once():
    with Store(None) as store:
        store.finish(TRIALS[0], outcome(0.1))
        store.finish(TRIALS[0], outcome(0.9))
        assert store.outcomes(TRIALS)[TRIALS[0].key].validation == 0.1


def test_a_claim_is_for_one_and_ends_with_its_store(tmp_path):
    one, other = opened(tmp_path / "s"), opened(tmp_path / "s")
    assert one.claim(TRIALS[:1]) == TRIALS[0]
    assert other.claim(TRIALS[:1]) is None
    one.__exit__()
    assert other.claim(TRIALS[:1]) == TRIALS[0]
    other.__exit__()


def test_a_claim_that_nobody_renews_runs_out(tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "_LEASE", 0.6)
    with Store(tmp_path / "s") as keeping, Store(tmp_path / "s") as other:
        keeping.claim(TRIALS[:1])
        time.sleep(1.0)
        assert other.claim(TRIALS[:1]) is None, "it was renewed"
        keeping._closed.set()
        time.sleep(1.0)
        assert other.claim(TRIALS[:1]) == TRIALS[0]


def test_failed_trials_can_be_forgotten():
    with Store(None) as store:
        store.finish(TRIALS[0], outcome(None, "failed", reason="no memory"))
        store.finish(TRIALS[1], outcome(0.1, "diverged"))
        store.forget_failed(TRIALS)
        assert set(store.outcomes(TRIALS)) == {TRIALS[1].key}


CLAIMING = """
import sys, time
from compare_models import outcome, trial
from kadence._store import Store
with Store(sys.argv[1]) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    while claimed := store.claim([trial(seed=seed) for seed in range(40)]):
        time.sleep(0.01)
        store.finish(claimed, outcome())
        print(claimed.seed, flush=True)
        if len(sys.argv) > 2 and claimed.seed > 5:
            store.claim([trial(seed=seed) for seed in range(40)])
            sys.stdin.readline()
"""


def start(*arguments):
    words = [sys.executable, "-c", CLAIMING, *map(str, arguments)]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=compare_models.environment()
    )
    return process


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="no backend takes part in it, but each is slow to import")
def test_two_processes_share_the_trials_and_a_killed_one_loses_nothing(tmp_path):
    """Both begin at once; one holds a claim when it is killed, and the other takes the trial over."""
    steady, doomed = start(tmp_path / "s"), start(tmp_path / "s", "stop")
    assert steady.stdout.readline() == doomed.stdout.readline() == "ready\n"
    for process in (doomed, steady):
        process.stdin.write("\n")
        process.stdin.flush()
    done = []
    while not done or done[-1] <= 5:
        done.append(int(doomed.stdout.readline()))
    time.sleep(0.3)
    doomed.send_signal(signal.SIGKILL)
    doomed.communicate()
    left, _ = steady.communicate(timeout=60)
    done += map(int, left.split())
    with Store(tmp_path / "s") as store:
        assert len(store.outcomes(trial(seed=seed) for seed in range(40))) == 40 or start_again(tmp_path)
    assert len(done) == len(set(done))


def start_again(folder):
    """The steady process may have ended before the other was killed: what that one had claimed is left."""
    with Store(folder / "s") as store:
        trials = [trial(seed=seed) for seed in range(40)]
        while claimed := store.claim(trials):
            store.finish(claimed, outcome())
        return len(store.outcomes(trials)) == 40


def foreign(path):
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE trials (x)")
    database.close()


def newer(path):
    with Store(path):
        pass
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 7")
    database.close()


def cut(path):
    with Store(path) as store:
        for seed in range(60):
            store.finish(trial(seed=seed), outcome())
    path.write_bytes(path.read_bytes()[:20_000])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda path: path.write_text("not a database, but long enough to be read as one" * 20),
            "SQLite says: file is",
        ),
        (foreign, "It is another database."),
        (newer, "It is of version 7; this Kadence reads version 1."),
        (cut, "SQLite says: "),
    ],
)
def test_a_file_that_is_no_store_is_one_error_and_stays_as_it_is(tmp_path, spoil, words):
    path = tmp_path / "s.sqlite"
    spoil(path)
    before = tiny.snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"`store` must be .*Received: store='{re.escape(str(path))}'") as caught:
        Store(path)
    assert words in str(caught.value)
    assert tiny.snapshot(tmp_path) == before


def test_a_file_that_another_process_is_making_is_waited_for(tmp_path):
    """SQLite does not wait when two ask for the log at once, whatever its timeout."""
    other = sqlite3.connect(tmp_path / "s", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.3, other.execute, ["COMMIT"])
    timer.start()
    with Store(tmp_path / "s") as store:
        store.finish(TRIALS[0], outcome())
    timer.join()
    other.close()


def test_a_file_that_is_never_free_is_an_error_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "_PATIENCE", 0.1)
    monkeypatch.setattr(_store, "_TIMEOUT", 0.1)
    with contextlib.closing(sqlite3.connect(tmp_path / "s", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ValueError, match=r"`store` must be free within a minute.*try again when that has ended"):
            Store(tmp_path / "s")


def test_a_full_disk_is_not_laid_to_the_file(tmp_path):
    with Store(tmp_path / "s") as store:
        pages = store._database.execute("PRAGMA page_count").fetchone()[0]
        store._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(ValueError, match=r"`store` must be a file that can be written.*make room on the disk"):
            list(map(store.finish, map(compare_models.trial, ["constant"] * 500), [outcome(reason="x" * 5000)] * 500))


def test_a_store_needs_a_place(tmp_path):
    for path in (tmp_path, tmp_path / "none" / "s.sqlite"):
        with pytest.raises(ValueError, match="`store` must be"):
            Store(path)
    assert_rejects(Store, "store", 3, TypeError)


def test_an_empty_file_becomes_a_store(tmp_path):
    (tmp_path / "s").touch()
    with Store(tmp_path / "s") as store:
        store.finish(TRIALS[0], outcome())
