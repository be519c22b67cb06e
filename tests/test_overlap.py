"""Photos in two places: what is told, and what is left out."""

from pathlib import Path

import pytest
from pictures import save

from kadence._overlap import check_outside, warn_of_shared, without_copies
from kadence.data import scan_folder

pytestmark = pytest.mark.once


def folder(root, *names):
    """Each picture is another, and those of one number are of one colour."""
    for name in names:
        save(root / f"{name}.png", (10 * int(name[-1]), 0, 0))
    return root


def names(found):
    return [path.relative_to(found.folder).as_posix() for path in found.paths]


def test_the_first_of_equal_files_stays(tmp_path):
    found = scan_folder(folder(tmp_path, "a/x1", "a/y2", "b/x1", "b/z3"))
    with pytest.warns(UserWarning, match=r"1 photo in .* is a copy of others, and left out"):
        kept = without_copies(found)
    assert names(kept) == ["a/x1.png", "a/y2.png", "b/z3.png"]
    assert kept.labels == (0, 0, 1)
    assert without_copies(kept) is kept


def test_files_of_one_size_are_compared_and_others_are_not_read(tmp_path, monkeypatch):
    found = scan_folder(folder(tmp_path, "a/x1", "b/y2"))
    other = tmp_path / "b" / "y2.png"
    other.write_bytes(other.read_bytes() + b"more")  # a picture of another size
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"read {path}"))
    assert without_copies(found) is found
    warn_of_shared(found.select([0]), found.select([1]))


def test_a_class_of_copies_alone_is_an_error(tmp_path):
    found = scan_folder(folder(tmp_path, "a/x1", "b/x1"))
    with pytest.raises(ValueError, match=r"All photos of 'b' are copies of photos of other classes"):
        without_copies(found)


def test_photos_that_are_trained_on_and_judged_on_are_named(tmp_path):
    train = scan_folder(folder(tmp_path / "train", "a/x1", "b/y2"))
    held_out = scan_folder(folder(tmp_path / "val", "a/other1", "b/new3"), class_names=train.class_names)
    with pytest.warns(UserWarning, match=r"1 photo to judge on is trained on too, .* too good: '.*other1\.png'\."):
        warn_of_shared(train, held_out)
    warn_of_shared(train, held_out.select([1]))


def test_results_lie_outside_of_photos(tmp_path):
    (tmp_path / "photos").mkdir()
    check_outside("out", tmp_path / "photos results", [tmp_path / "photos", None])
    for inside in ("photos", "photos/cat", "x/../photos"):
        with pytest.raises(ValueError, match=r"`out` must not be in the folder of the photos\..* taken for photos"):
            check_outside("out", tmp_path / inside, [None, str(tmp_path / "photos")])
