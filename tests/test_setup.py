import shutil

import keras
import pytest
import tiny

from kadence import Constant, classifier
from kadence._setup import compile_classifier, load_photos
from kadence.classifier import build_classifier, rates_of


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return tiny.write_photos(tmp_path_factory.mktemp("photos"))


def test_photos_are_split_as_the_settings_say(photos, tmp_path):
    parts = load_photos(tiny.settings(photos))
    assert (len(parts.train.paths), len(parts.validation.paths)) == (18, 6)
    other = tiny.write_photos(tmp_path / "val", n=2, seed=1)
    parts = load_photos(tiny.settings(photos, validation=str(other)))
    assert (len(parts.train.paths), len(parts.validation.paths)) == (24, 6)
    assert parts.train.class_names == parts.validation.class_names


def test_photos_to_judge_on_are_not_trained_on(photos, tmp_path):
    for inside in (photos, photos / "apfel", photos.parent):
        with pytest.raises(ValueError, match="`validation` must be another folder than that of the photos"):
            load_photos(tiny.settings(photos, validation=str(inside)))
    same = shutil.copytree(photos, tmp_path / "val")
    with pytest.warns(UserWarning, match="24 photos to judge on are trained on too, so the accuracy is too good"):
        load_photos(tiny.settings(photos, validation=str(same)))
    copied = tiny.write_photos(tmp_path / "train", n=4)
    (copied / "apfel" / "copy.png").write_bytes((copied / "apfel" / "00.png").read_bytes())
    with pytest.warns(UserWarning, match="1 photo in .* is a copy of others, and left out"):
        parts = load_photos(tiny.settings(copied))
    assert len(parts.train.paths) + len(parts.validation.paths) == 12


def test_the_fingerprint_is_of_names_labels_and_sizes(photos, tmp_path):
    print_of = load_photos(tiny.settings(photos)).fingerprint()
    assert load_photos(tiny.settings(photos)).fingerprint() == print_of
    assert load_photos(tiny.settings(photos, seed=1)).fingerprint() != print_of
    assert load_photos(tiny.settings(tiny.write_photos(tmp_path, seed=1))).fingerprint() != print_of


def test_a_classifier_is_compiled_with_a_rate_per_group(photos, monkeypatch):
    monkeypatch.setattr(classifier, "load_backbone", tiny.load_backbone)
    settings = tiny.settings(photos, optimizer="sgd")
    model, groups = build_classifier(settings, 3)
    compile_classifier(model, settings, groups, rates_of(settings, groups), Constant(1e-2))
    assert list(model.optimizer.learning_rates.values()) == pytest.approx([1e-3, 3e-3, 1e-2])
    assert isinstance(model.optimizer.inner_optimizer, keras.optimizers.SGD)
