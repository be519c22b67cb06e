"""Predictions of a model whose answer is known: the colour of the photo decides."""

import json
import shutil
import unicodedata
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from kadence import Prediction, predict_photos
from kadence._snapshot_files import Snapshot, save_weights, write_index
from kadence.predict import accuracy

# Keras hands torch tensors to NumPy >= 2.4 in a way that NumPy is about to forbid; `pytest.warns` reports it anew.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

RED, GREEN, BLUE = (230, 10, 20), (0, 200, 30), (5, 15, 180)
LABELS = ["apfel", "gr\u00fcn", "りんご"]  # "ü" as one letter, as in `labels.json`
SHARPNESS = 3.0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder; class i is the more probable the brighter channel i is."""
    folder = tmp_path_factory.mktemp("run")
    pixels = keras.Input((32, 32, 3))
    means = keras.layers.GlobalAveragePooling2D()(pixels)
    model = keras.Model(pixels, keras.layers.Dense(3, activation="softmax", name="head")(means))
    model.get_layer("head").set_weights([np.eye(3, dtype=np.float32) * SHARPNESS / 255, np.zeros(3, np.float32)])
    model.save(folder / "model.keras")
    (folder / "labels.json").write_text(json.dumps(LABELS, ensure_ascii=False), encoding="utf-8")
    return folder


def photo(path, colour=RED, size=(40, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def softmax(colour):
    powers = np.exp(np.asarray(colour) * SHARPNESS / 255)
    return powers / powers.sum()


@pytest.mark.parametrize(("colour", "label"), [(RED, LABELS[0]), (GREEN, LABELS[1]), (BLUE, LABELS[2])])
def test_class_and_probability(run, tmp_path, colour, label):
    (prediction,) = predict_photos(run, [photo(tmp_path / "photo.png", colour)])
    assert (prediction.path, prediction.class_name) == (tmp_path / "photo.png", label)
    assert prediction.probability == pytest.approx(softmax(colour).max(), rel=1e-5)
    assert isinstance(prediction.probability, float)
    assert prediction.truth is None


def test_order_and_truth(run, tmp_path):
    single = photo(tmp_path / "z.png", BLUE)
    for name, colour in (
        ("apfel/b.png", RED),
        ("apfel/deep/a.png", GREEN),
        ("りんご/c.jpg", BLUE),
        ("other/d.png", RED),
    ):
        photo(tmp_path / "folder" / name, colour)
    photo(tmp_path / "folder" / "loose.png", GREEN)
    found = predict_photos(str(run), [single, tmp_path / "folder", str(single)])
    assert [(p.path.name, p.class_name, p.truth) for p in found] == [
        ("z.png", "りんご", None),
        ("b.png", "apfel", "apfel"),
        ("a.png", "grün", "apfel"),
        ("loose.png", "grün", None),
        ("d.png", "apfel", None),
        ("c.jpg", "りんご", "りんご"),
        ("z.png", "りんご", None),
    ]
    assert accuracy(found) == pytest.approx(2 / 3)


def test_a_class_folder_is_a_class_in_either_unicode_form(run, tmp_path):
    decomposed = unicodedata.normalize("NFD", "grün")
    assert decomposed != LABELS[1]
    photo(tmp_path / "folder" / decomposed / "ä.png", GREEN)
    (prediction,) = predict_photos(run, [tmp_path / "folder"])
    assert prediction.truth == prediction.class_name == LABELS[1]


def test_more_photos_than_a_batch_keep_their_order(run, tmp_path):
    colours = [(RED, GREEN, BLUE)[i * i % 7 % 3] for i in range(70)]
    for i, colour in enumerate(colours):
        photo(tmp_path / "folder" / f"{i:02d}.png", colour, size=(4, 4))
    (tmp_path / "folder" / "00a.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="00a.png"):
        found = predict_photos(run, [tmp_path / "folder"])
    assert [p.path.name for p in found] == [f"{i:02d}.png" for i in range(70)]
    assert [p.class_name for p in found] == [LABELS[(RED, GREEN, BLUE).index(colour)] for colour in colours]


def test_unreadable_photos_are_named_and_left_out(run, tmp_path):
    photo(tmp_path / "good.png")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a photo", encoding="utf-8")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    with pytest.warns(UserWarning, match="^3 photos") as caught:
        found = predict_photos(run, [tmp_path])
    assert [p.path.name for p in found] == ["good.png"]
    (message,) = (str(warning.message) for warning in caught if warning.category is UserWarning)
    for name in ("empty.jpg", "text.jpg", "cut.png"):
        assert name in message


def test_one_unreadable_photo_is_not_plural(run, tmp_path):
    photo(tmp_path / "good.png")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"^1 photo could not be read: .*empty\.jpg"):
        predict_photos(run, [tmp_path])


def test_no_readable_photo_is_an_error(run, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    for photos in ([tmp_path], [tmp_path / "empty.jpg"]):
        with pytest.raises(ValueError, match=r"`photos` must hold at least one readable photo\. Received: photos="):
            predict_photos(run, photos)


def test_nothing_to_predict_is_an_error(run, tmp_path):
    with pytest.raises(ValueError, match="`photos` must hold at least one readable photo"):
        predict_photos(run, [])
    with pytest.raises(ValueError, match="`photos` must hold at least one readable photo"):
        predict_photos(run, [tmp_path])


def test_one_photo_needs_no_list(run, tmp_path, monkeypatch):
    # Letter by letter, "/photos" would begin with the whole disk.
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "photo.png")
    for one in ("photo.png", Path("photo.png")):
        assert [prediction.path for prediction in predict_photos(run, one)] == [Path("photo.png")]
    with pytest.raises(TypeError, match="`photos` must "):
        predict_photos(run, 3)


def test_missing_photo(run, tmp_path):
    photo(tmp_path / "there.png")
    with pytest.raises(FileNotFoundError, match=r"`photos` must name existing photos or folders\..*not_there\.png"):
        predict_photos(run, [tmp_path / "there.png", tmp_path / "not_there.png"])


@pytest.mark.parametrize("missing", ["model.keras", "labels.json"])
def test_a_folder_that_is_no_run(run, tmp_path, missing):
    folder = shutil.copytree(run, tmp_path / "run")
    (Path(folder) / missing).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"`run` must be a run folder of `kadence finetune`, with {missing} in it"
    ):
        predict_photos(folder, [photo(tmp_path / "photo.png")])


def test_no_run_at_all(tmp_path):
    for folder in (tmp_path / "none", photo(tmp_path / "photo.png")):
        with pytest.raises(FileNotFoundError, match="`run` must be a run folder"):
            predict_photos(folder, [tmp_path / "photo.png"])


@pytest.mark.parametrize("text", ["", "[", "{}", '["apfel", "birne"]', "3", '["a", "b", "c", "d"]'])
def test_spoilt_labels_are_a_clear_error(run, tmp_path, text):
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    (folder / "labels.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"labels\.json"):
        predict_photos(folder, [photo(tmp_path / "photo.png", BLUE)])


def test_a_spoilt_model_is_a_clear_error(run, tmp_path):
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    (folder / "model.keras").write_bytes((run / "model.keras").read_bytes()[:1000])
    with pytest.raises((ValueError, OSError), match=r"model\.keras"):
        predict_photos(folder, [photo(tmp_path / "photo.png")])


def test_accuracy_judges_photos_in_class_folders_only():
    def prediction(class_name, truth):
        return Prediction(Path("photo.png"), class_name, 0.9, truth)

    assert accuracy([]) is None
    assert accuracy([prediction("a", None)]) is None
    judged = [prediction("a", "a"), prediction("b", "a"), prediction("a", None), prediction("b", "b")]
    assert accuracy(judged) == pytest.approx(2 / 3)


# Ensembles and views


@pytest.fixture(scope="module")
def run_with_snapshots(run, tmp_path_factory):
    """The run with two snapshots: one that sees the brightest channel, and one that always says the third class."""
    folder = Path(shutil.copytree(run, tmp_path_factory.mktemp("runs") / "run"))
    (folder / "snapshots").mkdir()
    model = keras.saving.load_model(folder / "model.keras")
    heads = [model.get_layer("head").get_weights(), [np.zeros((3, 3)), np.array([0.0, 0.0, 1.5])]]
    for number, head in enumerate(heads):
        model.get_layer("head").set_weights(head)
        save_weights(model, folder / "snapshots" / f"{number}.weights.h5")
    write_index(folder / "snapshots", [Snapshot(f"{number}.weights.h5", number, 1) for number in range(2)])
    return folder


def test_the_snapshots_are_averaged(run_with_snapshots, tmp_path):
    photo(tmp_path / "photo.png", RED)
    third = np.exp([0.0, 0.0, 1.5]) / np.exp([0.0, 0.0, 1.5]).sum()
    mean = (softmax(RED) + third) / 2
    (prediction,) = predict_photos(run_with_snapshots, tmp_path, ensemble=True)
    assert prediction.class_name == LABELS[mean.argmax()]
    assert prediction.probability == pytest.approx(mean.max(), rel=1e-5)
    (alone,) = predict_photos(run_with_snapshots, tmp_path)
    assert alone.probability == pytest.approx(softmax(RED).max(), rel=1e-5)


def test_views_of_an_even_colour_change_nothing(run_with_snapshots, tmp_path):
    photo(tmp_path / "photo.png", RED)
    (once,) = predict_photos(run_with_snapshots, tmp_path, ensemble=True)
    (often,) = predict_photos(run_with_snapshots, tmp_path, ensemble=True, tta=3, seed=4)
    assert often.probability == pytest.approx(once.probability, rel=1e-5)
    assert often.class_name == once.class_name


def test_views_of_a_photo_change_its_probability(run, tmp_path):
    half = Image.new("RGB", (32, 32), RED)
    half.paste(GREEN, (0, 0, 20, 32))
    half.save(tmp_path / "half.png")
    once, often, again = (predict_photos(run, tmp_path, tta=n)[0].probability for n in (1, 6, 6))
    assert once != often
    assert often == again


def test_a_run_without_snapshots_and_too_few_views(run, tmp_path):
    photo(tmp_path / "photo.png")
    with pytest.raises(FileNotFoundError, match=r"`run` must hold snapshots, snapshots/snapshots\.json.*--snapshots"):
        predict_photos(run, tmp_path, ensemble=True)
    with pytest.raises(ValueError, match=r"`tta` must be an integer >= 1.*Received: tta=0\."):
        predict_photos(run, tmp_path, tta=0)
    with pytest.raises(ValueError, match=r"`seed` must be an integer >= 0"):
        predict_photos(run, tmp_path, seed=-1)
