"""What a worker does with its lines; the life and death of the process are in test_engines.py and test_compare.py."""

import io
import json
import os
import sys
import time

import compare_models
import numpy as np
from compare_models import trial

from kadence import _worker


def written(folder, **changes):
    """The folder of a problem, as the engine writes it."""
    text, arrays = compare_models.problem(compare_models.build_without_memory).to_parts()
    (folder / "problem.json").write_text(json.dumps({**json.loads(text), **changes}))
    for number, array in enumerate(arrays):
        np.save(folder / f"{number}.npy", array)
    return str(folder / "problem.json")


def test_a_worker_runs_the_problem_of_the_folder(tmp_path):
    assert _worker._runner(written(tmp_path))(trial()).reason.startswith("out of memory: MemoryError")


def test_a_problem_that_cannot_be_made_fails_each_trial(tmp_path):
    run = _worker._runner(written(tmp_path, builder={"function": "nowhere:build", "arguments": {}}))
    for seed in (0, 1):
        reason = "The worker process cannot make the problem: ModuleNotFoundError: No module named 'nowhere'"
        assert (run(trial(seed=seed)).status, run(trial(seed=seed)).reason) == ("failed", reason)


def test_the_end_of_the_input_is_the_end(monkeypatch, tmp_path):
    """Of the process, and of the folder, whose maker is gone."""
    ended = []
    written(tmp_path)
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    lines = _worker._lines(tmp_path)
    assert [lines.get(timeout=10), lines.get(timeout=10)] == ["one\n", "two\n"]
    end = time.monotonic() + 10
    while not ended and time.monotonic() < end:
        time.sleep(0.01)
    assert ended == [0]
    assert not tmp_path.exists()
