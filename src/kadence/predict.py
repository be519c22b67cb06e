"""A run folder and photos -> classes and probabilities."""

import json
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence.data import find_images, read_image

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


def predict_photos(run: str | Path, photos: str | Path | Sequence[str | Path]) -> list[Prediction]:
    """Classify photos with the model of a run folder; a photo that cannot be read is left out with a warning.

    Args:
        run: Run folder of `kadence finetune`.
        photos: A photo or a folder that is searched for photos, or a sequence of them.

    Returns:
        List of `Prediction`, in the order of `photos`, those of a folder sorted.

    Raises:
        FileNotFoundError: If there is no model in `run`, or a photo or folder does not exist.
        ValueError: If there is no readable photo.
    """
    run = Path(run)
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
    image_size = model.input_shape[1]
    if model.output_shape[-1] != len(labels):
        rule = f"hold as many labels as the model has classes, {model.output_shape[-1]}"
        raise ValueError(_checks.sentence("labels.json", rule, labels))
    predictions: list[Prediction] = []
    unread: list[str] = []
    for start in range(0, len(found), _BATCH_SIZE):
        batch, images = [], []
        for path, truth in found[start : start + _BATCH_SIZE]:
            try:
                images.append(read_image(path, image_size))
                batch.append((path, truth))
            except (ValueError, OSError):
                unread.append(path.name)
        if images:
            probabilities = model.predict_on_batch(np.stack(images).astype(np.float32))
            for (path, truth), row in zip(batch, np.asarray(probabilities), strict=True):
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
    for path in find_images(photo):
        parts = path.relative_to(photo).parts
        name = unicodedata.normalize("NFC", parts[0]).strip() if len(parts) > 1 else ""
        pairs.append((path, name if name in labels else None))
    return pairs
