import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from kadence.records import RateRecord, held, made, new_folder, remove_parts, write_text

pytestmark = pytest.mark.once


def record(steps=(0, 1, 2), losses=(3.0, 2.0, 1.0), **rates):
    rates = rates or {"low": [1e-5, 1e-7, 1e-300], "head": [0.1, 1 / 3, 0.0]}
    return RateRecord(np.array(steps), {name: np.array(rate) for name, rate in rates.items()}, np.array(losses))


def test_arrays_have_fixed_types():
    made = RateRecord([0, 1], {"all": (1, 2)}, [1, 2])
    assert (made.steps.dtype, made.rates["all"].dtype, made.losses.dtype) == (np.int64, np.float64, np.float64)
    assert len(made) == 2
    with pytest.raises(AttributeError):
        made.steps = np.zeros(2)


@pytest.mark.parametrize(
    ("steps", "rates", "losses"),
    [([0], {"all": [1.0]}, []), ([0, 1], {"a": [1.0, 2.0], "b": [1.0]}, [1.0, 2.0]), ([], {"all": [1.0]}, [])],
)
def test_arrays_of_different_lengths(steps, rates, losses):
    with pytest.raises(ValueError, match="one length"):
        RateRecord(steps, rates, losses)


@pytest.mark.parametrize("losses", [[[1.0], [2.0]], [[1.0, 2.0], [3.0, 4.0]]])
def test_arrays_have_one_dimension(losses):
    with pytest.raises(ValueError, match=r"shape|dimension|length"):
        RateRecord([0, 1], {"all": [0.1, 0.1]}, losses)


@pytest.mark.parametrize(
    "made",
    [
        record(),
        record(losses=[np.nan, 2.0, np.nan]),
        record(steps=[5, 5, 2**31 - 1]),
        record(steps=[], losses=[], all=[]),
        record(**{"größe/☃": [0.1, 0.2, 1e-17]}),
    ],
    ids=["plain", "NaN", "large", "empty", "name"],
)
def test_json_gives_back_every_bit(made):
    text = made.to_json()
    again = RateRecord.from_json(text)
    assert again == made
    np.testing.assert_array_equal(again.steps, made.steps)
    np.testing.assert_array_equal(again.losses, made.losses)
    assert list(again.rates) == list(made.rates)
    for name in made.rates:
        np.testing.assert_array_equal(again.rates[name], made.rates[name])
    # JSON itself knows neither NaN nor infinity.
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_an_infinite_loss_comes_back_as_not_known():
    again = RateRecord.from_json(record(losses=[np.inf, -np.inf, 1.0]).to_json())
    np.testing.assert_array_equal(again.losses, [np.nan, np.nan, 1.0])


def test_equality():
    assert record() == record()
    assert record() != record(steps=[0, 1, 3])
    assert record(losses=[np.nan] * 3) == record(losses=[np.nan] * 3)
    assert record() != "record"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '"kadence"',
        record().to_json()[:-20],
        record().to_json().replace('"rates", "version"', '"range test", "version"'),
        record().to_json().replace('"version": 1', '"version": 2'),
        *(
            json.dumps({key: value for key, value in json.loads(record().to_json()).items() if key != left_out})
            for left_out in ("kadence", "version", "steps", "rates", "losses")
        ),
        *(
            json.dumps({**json.loads(record().to_json()), **changed})
            for changed in (
                {"steps": [0, 1]},
                {"steps": "abc"},
                {"steps": [0, "x", 2]},
                {"steps": [0.5, 1, 2]},
                {"steps": None},
                {"rates": [1, 2, 3]},
                {"rates": {"all": None}},
                {"rates": {"all": "abc"}},
                {"rates": {"all": [0.1, 0.2]}},
                {"losses": 3},
                {"losses": ["a", 1, 2]},
                {"losses": [[1], [2], [3]]},
            )
        ),
    ],
)
def test_text_that_is_not_a_record(text):
    with pytest.raises(ValueError, match=r"`\w+` must .* Received: "):
        RateRecord.from_json(text)


@pytest.mark.parametrize("text", [None, 3, record()])
def test_what_is_not_text(text):
    with pytest.raises((TypeError, ValueError), match=r"`text` must "):
        RateRecord.from_json(text)


def test_before():
    made = record(steps=[3, 3, 4])
    assert len(made.before(3)) == 0
    assert list(made.before(3).rates) == ["low", "head"]
    assert made.before(4) == record(steps=[3, 3], losses=[3.0, 2.0], low=[1e-5, 1e-7], head=[0.1, 1 / 3])
    assert made.before(100) == made


def test_then():
    first, second = record(), record(steps=[3], losses=[0.5], head=[0.2], low=[0.1])
    both = first.then(second)
    assert both.steps.tolist() == [0, 1, 2, 3]
    assert both.rates["low"].tolist() == [1e-5, 1e-7, 1e-300, 0.1]
    assert both.rates["head"].tolist() == [0.1, 1 / 3, 0.0, 0.2]
    assert both.losses.tolist() == [3.0, 2.0, 1.0, 0.5]
    assert both.before(3) == first


def test_then_with_an_empty_record():
    empty = RateRecord(np.zeros(0), {}, np.zeros(0))
    assert empty.then(record()) == record()
    assert record().then(empty) == record()
    assert record().before(0).then(record()) == record()


def test_then_of_other_groups():
    with pytest.raises(ValueError, match=r"`later` must have the groups \['low', 'head'\].*\['all'\]"):
        record().then(record(all=[1.0, 2.0, 3.0]))


def test_a_file_is_written_as_utf_8(tmp_path):
    write_text(tmp_path / "räte.json", "größe ☃\n")
    assert (tmp_path / "räte.json").read_bytes() == "größe ☃\n".encode()
    write_text(str(tmp_path / "räte.json"), "shorter")
    assert (tmp_path / "räte.json").read_text() == "shorter"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("when", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(when, tmp_path, monkeypatch):
    file = tmp_path / "rates.json"
    write_text(file, "old")

    def fail(*args):
        raise OSError("No space left on device")

    if when == "fsync":
        monkeypatch.setattr("kadence.records.os.fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "new")
    monkeypatch.undo()
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["rates.json"]


def test_two_processes_may_write_the_same_file_at_once(tmp_path, monkeypatch):
    def meanwhile(*args):
        monkeypatch.undo()
        monkeypatch.setattr(os, "getpid", lambda: 0)
        write_text(tmp_path / "rates.json", "of another process")

    monkeypatch.setattr("kadence.records.os.fsync", meanwhile)
    write_text(tmp_path / "rates.json", "of this one")
    assert (tmp_path / "rates.json").read_text() == "of this one"
    assert [path.name for path in tmp_path.iterdir()] == ["rates.json"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "rates.json"
    write_text(file, "old")

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("kadence.records.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["rates.json"]


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "nowhere" / "rates.json", "text")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_text_is_written_as_an_escape(tmp_path):
    # The name of a photo may hold bytes that are no text.
    write_text(tmp_path / "run.json", "\udce9")
    assert (tmp_path / "run.json").read_text() == r"\udce9"


def test_only_what_kadence_left_half_written_is_removed(tmp_path):
    """A file of the user whose name has a part of its own is not."""
    ours = ["run.json.12.part", "rates.png.3.part", "history.csv.4.part", "end.part.weights.h5", "model.part.keras"]
    theirs = ["film.part", "notes.part1.txt", "spare.particulars", "my.json.part", "1.part.zip"]
    (tmp_path / "deep").mkdir()
    for name in [*ours, *theirs]:
        (tmp_path / "deep" / name).write_text("half")
    remove_parts(tmp_path)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == sorted(theirs)


@pytest.mark.parametrize(("name", "new"), [("run.json.12.part", True), ("film.part", False), ("run.json", False)])
def test_a_folder_is_new_unless_it_holds_something_of_the_user(tmp_path, name, new):
    new_folder("run_dir", tmp_path / "missing")
    new_folder("run_dir", tmp_path)
    (tmp_path / name).write_text("half")
    if new:
        new_folder("run_dir", tmp_path)
        return
    with pytest.raises(FileExistsError, match=r"`run_dir` must be a new or empty folder\..* Choose another\."):
        new_folder("run_dir", tmp_path, "Choose another.")


def test_links_are_followed_and_pipes_written_to(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for text in ("first", "second"):
        write_text(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_text() == text
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "through")
    assert os.read(reading, 100) == b"through"
    os.close(reading)
    assert {path.name for path in tmp_path.iterdir()} == {"link", "real", "pipe"}


def test_a_folder_that_stays_empty_goes_again(tmp_path):
    with pytest.raises(ZeroDivisionError), made(tmp_path / "a" / "b"):
        1 / 0  # noqa: B018
    assert not (tmp_path / "a").exists()
    with made(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").write_text("")
    with made(tmp_path / "a" / "b"):
        pass
    assert (tmp_path / "a" / "b" / "result").exists()


def test_a_run_folder_is_held_by_one(tmp_path):
    with held("out", tmp_path / "run"):
        told = pytest.raises(FileExistsError, match=r"`out` must be a folder in which no other process trains")
        with told, held("out", tmp_path / "run"):
            pass
        (tmp_path / "run" / "run.json").write_text("")
    with held("out", tmp_path / "run"), held("out", None):
        pass


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are looked up as on Linux")
def test_a_process_that_was_forked_does_not_hold_it_on(tmp_path):
    """As the workers of a PyDataset, which Keras leaves running where `fit` is stopped."""
    with held("out", tmp_path / "run"):
        (tmp_path / "run" / "run.json").write_text("")
        child = subprocess.Popen(["sleep", "60"], pass_fds=_open_folders())
    try:
        with held("out", tmp_path / "run"):
            pass
    finally:
        child.kill()
        child.wait()


def _open_folders():
    """Descriptors of folders; the child has those that a fork would give it."""
    return tuple(int(path.name) for path in Path("/proc/self/fd").iterdir() if path.exists() and path.is_dir())
