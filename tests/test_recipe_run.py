"""The recipe on photos, as the command runs it."""

import json

import pytest
import tiny

from kadence import classifier
from kadence._recipe_run import fine_tune_classifier


@pytest.fixture(scope="module", autouse=True)
def tiny_backbone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "load_backbone", tiny.load_backbone)
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return tiny.write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def settings(photos):
    return tiny.settings(photos, rates=None, augment=False, epochs=2)


def test_photos_to_a_run_folder(settings, tmp_path):
    told = []
    result = fine_tune_classifier(settings, tmp_path / "run", tell=told.append)
    assert [row["phase"] for row in result.history] == ["head", "train"]
    assert [line.partition(":")[0] for line in told] == ["head", "head", "find", "train"]
    assert json.loads((tmp_path / "run" / "labels.json").read_text(encoding="utf-8")) == sorted(tiny.COLOURS)
    assert list(result.groups.names) == ["group_1", "group_2", "group_3"]
    before = tiny.snapshot(tmp_path / "run" / "phases")
    again = fine_tune_classifier(settings, tmp_path / "run", resume=True)
    assert again.history == result.history
    assert tiny.snapshot(tmp_path / "run" / "phases") == before


def test_bad_input_makes_no_folder(photos, settings, tmp_path):
    with pytest.raises(ValueError, match=r"`epochs` must be at least 2.*--recipe plain"):
        fine_tune_classifier(tiny.settings(photos, rates=None, epochs=1), tmp_path / "run")
    with pytest.raises(ValueError, match=r"`out` must not be in the folder of the photos"):
        fine_tune_classifier(settings, photos / "run")
    with pytest.raises(FileNotFoundError, match=r"`out` must be the folder of a run.*Start it without --resume"):
        fine_tune_classifier(settings, tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()
