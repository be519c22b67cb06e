import re

import keras
import numpy as np
import pytest
import rich.console
import tiny
from command import command, one_message

from kadence import RangeTest, classifier
from kadence._find_command import _table
from kadence.range_test import Curve

pytestmark = pytest.mark.filterwarnings("default", "ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setattr(classifier, "load_backbone", tiny.load_backbone)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return tiny.write_photos(tmp_path_factory.mktemp("photos"))


def find(photos, out, *words):
    sweep = ["--steps", 20, "--lr-min", 1e-4, "--lr-max", 1.0]
    flags = ["--no-augment", "--batch-size", 6, "--image-size", tiny.SIZE, "--validation-fraction", 0.25]
    return command("find", photos, "--out", out, *flags, *sweep, *words)


@pytest.mark.parametrize("words", [(), ("--per-group", "--rates", "1e-3,3e-3,1e-2")], ids=["joint", "per group"])
def test_from_photos_to_table_file_and_picture(words, photos, tmp_path, capsys):
    assert find(photos, tmp_path / "new" / "out", *words) == 0
    output = capsys.readouterr().out
    for word in ("valley", "steepest", "minimum", "slide", "group_1", "group_3", "range_test.json"):
        assert word in output
    assert "The data has 3 batches, a sweep 20" in re.sub(r"\s+", " ", output)
    test = RangeTest.from_json((tmp_path / "new" / "out" / "range_test.json").read_text())
    assert test.per_group == bool(words)
    assert (test.n_steps, test.lr_min, test.lr_max) == (20, 1e-4, 1.0)
    assert (tmp_path / "new" / "out" / "range_test.png").read_bytes().startswith(b"\x89PNG")
    for name in test.names:
        rate = test.suggest().rates[name]
        assert (f"{rate:.2g}" if rate is not None else f"{name}: ") in output


def test_results_are_not_written_among_photos_or_over_a_file(photos, tmp_path, capsys):
    for inside in (photos, photos / "new"):
        assert find(photos, inside) == 1
        one_message(capsys, "`out` must not be in the folder of the photos")
    (tmp_path / "file").write_text("mine")
    assert find(photos, tmp_path / "file") == 1
    one_message(capsys, "`out` must be a folder")


@pytest.mark.parametrize("per_group", [False, True])
def test_the_table_fits_80_columns_without_folding(per_group):
    names = ["group_1", "group_2", "group_3"]
    groups = dict.fromkeys(names, 1.23e-5)
    losses = np.linspace(2.0, 1.0, 60)
    curves = [Curve(name, 0, losses, "end") for name in (names if per_group else ["all"])]
    test = RangeTest(1.1e-5, 1.1e-1, 60, per_group, groups, groups, curves)
    console = rich.console.Console(width=80)
    with console.capture() as capture:
        console.print(_table(test))
    lines = [line for line in capture.get().splitlines() if line.strip()]
    assert len(lines) == 2 + (3 if per_group else 4), "a heading, a rule, and a line a row"
    assert "steepest" in lines[0]


@pytest.mark.parametrize("name", ["range_test.json", "range_test.png"])
def test_an_existing_test_is_not_overwritten(name, photos, tmp_path, capsys):
    (tmp_path / name).write_text("mine")
    assert find(photos, tmp_path) == 1
    one_message(capsys, "`out` must be a folder without range_test.json and range_test.png", f"{name} is there")
    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--steps", "5"], ["`n_steps` must be an integer >= 20", "n_steps=5"]),
        (["--lr-min", "2"], ["`lr_max` must be > lr_min"]),
        (["--runs", "0"], ["`n_runs` must be"]),
        (["--rates", "1,2"], ["`rates` must have one rate per group"]),
    ],
)
def test_bad_flags(words, fragments, photos, tmp_path, capsys):
    assert find(photos, tmp_path, *words) == 1
    one_message(capsys, *fragments)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing(photos, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "fit", interrupted)
    assert find(photos, tmp_path) == 130
    assert "Stopped." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
