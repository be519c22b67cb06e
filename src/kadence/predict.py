"""A run folder and photos -> classes and probabilities."""

import json
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._images import PICTURES, find_images, read_image
from kadence._snapshot_files import INDEX
from kadence.ensemble import SnapshotEnsemble
from kadence.run import SNAPSHOTS
from kadence.tta import predict_augmented

_BATCH_SIZE = 64


@dataclass(frozen=True)
class Prediction:
    """What a model says of a photo.

    Args:
        path: The photo.
        class_name: The most probable class.
        probability: Its probability. Float in [0, 1].
        truth: The class whose folder the photo is in, or None if it is in no folder named like a class.
    """

    path: Path
    class_name: str
    probability: float
    truth: str | None = None


def predict_photos(
    run: str | Path,
    photos: str | Path | Sequence[str | Path],
    ensemble: bool = False,
    tta: int = 1,
    seed: int = 0,
) -> list[Prediction]:
    """Classify photos with the model of a run folder; a photo that cannot be read is left out with a warning.

    Args:
        run: Run folder of `kadence finetune`.
        photos: A photo or a folder that is searched for photos, or a sequence of them.
        ensemble: Whether to average the run's snapshots, instead of taking `model.keras`.
        tta: Number of predictions of each photo to average: of the photo itself and of augmented views of it, as
            `predict_augmented` makes them. Integer >= 1.
        seed: Seed of the views. Integer >= 0.

    Returns:
        List of `Prediction`, in the order of `photos`, those of a folder sorted.

    Raises:
        FileNotFoundError: If there is no model in `run`, there are no snapshots where they are asked for, or a photo
            or folder does not exist.
        ValueError: If there is no readable photo, or `tta` or `seed` is out of range.
    """
    run = Path(run)
    tta = _checks.integer("tta", tta, minimum=1, unit="a number of predictions")
    seed = _checks.integer("seed", seed, minimum=0, unit="a seed")
    model_file, labels_file = run / "model.keras", run / "labels.json"
    for file in (model_file, labels_file):
        if not file.is_file():
            rule = f"be a run folder of `kadence finetune`, with {file.name} in it"
            raise FileNotFoundError(_checks.sentence("run", rule, str(run)))
    labels = _read_labels(labels_file)
    if isinstance(photos, (str, Path)):
        photos = [photos]
    photos = _checks.sequence("photos", photos, "be a sequence of photos and folders", minimum_length=0)
    found = [pair for photo in photos for pair in _with_truth(Path(photo), labels)]
    model: Any = keras.saving.load_model(model_file)
    predict, at_once = _predictor(run, model, ensemble, tta, seed)
    image_size = model.input_shape[1]
    if model.output_shape[-1] != len(labels):
        rule = f"hold as many labels as the model has classes, {model.output_shape[-1]}"
        raise ValueError(_checks.sentence("labels.json", rule, labels))
    predictions: list[Prediction] = []
    unread: list[str] = []
    for start in range(0, len(found), at_once):
        read, images = _read_batch(found[start : start + at_once], image_size, unread)
        if read:
            for (path, truth), row in zip(read, np.asarray(predict(images)), strict=True):
                best = int(row.argmax())
                predictions.append(Prediction(path, labels[best], float(row[best]), truth))
    if not predictions:
        raise ValueError(
            _checks.sentence("photos", "hold at least one readable photo", [str(photo) for photo in photos])
        )
    if unread:
        photos_word = "photo" if len(unread) == 1 else "photos"
        warnings.warn(f"{len(unread)} {photos_word} could not be read: {', '.join(unread[:5])}", stacklevel=2)
    return predictions


def _read_batch(
    pairs: Sequence[tuple[Path, str | None]], image_size: int, unread: list[str]
) -> tuple[list[tuple[Path, str | None]], np.ndarray]:
    """The pairs of photo and class whose photo can be read, with the photos; `unread` takes the names of the others."""
    read, images = [], []
    for pair in pairs:
        try:
            images.append(read_image(pair[0], image_size))
            read.append(pair)
        except (ValueError, OSError):
            unread.append(pair[0].name)
    return read, np.asarray(images, np.float32)


def _predictor(
    run: Path, model: Any, ensemble: bool, tta: int, seed: int
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """What gives the probabilities of photos, and of how many at once."""

    def predict(images: np.ndarray) -> np.ndarray:
        if tta == 1:
            return model.predict(images, batch_size=_BATCH_SIZE, verbose=0)
        return predict_augmented(
            model, images, tta, seed, lambda views: model.predict(views, batch_size=_BATCH_SIZE, verbose=0)
        )

    if not ensemble:
        return predict, _BATCH_SIZE
    if not (run / SNAPSHOTS / INDEX).is_file():
        rule = f"hold snapshots, {SNAPSHOTS}/{INDEX}, to predict with all of them"
        remedy = "`kadence finetune --snapshots` keeps them; without --ensemble `model.keras` predicts."
        raise FileNotFoundError(_checks.sentence("run", rule, str(run), remedy))
    members = SnapshotEnsemble.load(run / SNAPSHOTS, model)
    # The snapshots take turns in one model, so that more photos at once are fewer turns.
    return lambda images: members.predict(images, predict=predict), _BATCH_SIZE * 8


def _read_labels(path: Path) -> list[str]:
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        labels = None
    if not isinstance(labels, list) or len(labels) < 2 or not all(isinstance(label, str) for label in labels):
        raise ValueError(_checks.sentence("labels.json", "be a list of the names of the classes", str(path)))
    return labels


def accuracy(predictions: Sequence[Prediction]) -> float | None:
    """Share of the photos in class folders that are classified as their folder says.

    Args:
        predictions: Sequence of `Prediction`.

    Returns:
        Float in [0, 1], or None if no photo is in a class folder.
    """
    judged = [prediction for prediction in predictions if prediction.truth is not None]
    if not judged:
        return None
    return sum(prediction.class_name == prediction.truth for prediction in judged) / len(judged)


def _with_truth(photo: Path, labels: Sequence[str]) -> list[tuple[Path, str | None]]:
    """The photos at a path, each with the class whose folder it is in, if that is the folder's form."""
    if photo.is_file():
        return [(photo, None)]
    if not photo.is_dir():
        raise FileNotFoundError(_checks.sentence("photos", "name existing photos or folders", str(photo)))
    pairs = []
    for path in find_images(photo, PICTURES):  # some are among those that could not be read
        parts = path.relative_to(photo).parts
        name = unicodedata.normalize("NFC", parts[0]).strip() if len(parts) > 1 else ""
        pairs.append((path, name if name in labels else None))
    return pairs
