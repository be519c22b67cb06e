"""Settings -> the photos, and a compiled classifier."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from kadence.data import ImageFolder, scan_folder, split_validation
from kadence.groups import LayerGroups
from kadence.optimizer import DiscriminativeOptimizer
from kadence.schedules import Schedule
from kadence.settings import FineTuneSettings


@dataclass(frozen=True)
class Photos:
    """The photos to train on and those that are held out.

    Args:
        train: The `ImageFolder` to train on.
        validation: The `ImageFolder` to validate on.
    """

    train: ImageFolder
    validation: ImageFolder

    def fingerprint(self) -> str:
        """Digest of the names, labels and sizes of all photos."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation):
            for path, label in zip(part.paths, part.labels, strict=True):
                digest.update(os.fsencode(path.relative_to(part.folder)))
                digest.update(f"\0{label}\0{path.stat().st_size}\n".encode())
        return digest.hexdigest()


def load_photos(settings: FineTuneSettings) -> Photos:
    """The photos that the settings name, split as they say.

    Args:
        settings: The `FineTuneSettings`.

    Returns:
        `Photos`.

    Raises:
        ValueError: If they are no photos in folders of classes.
    """
    train = scan_folder(settings.photos, strict=settings.strict)
    if settings.validation is None:
        return Photos(*split_validation(train, settings.validation_fraction, settings.seed))
    return Photos(train, scan_folder(settings.validation, strict=settings.strict, class_names=train.class_names))


def compile_classifier(
    model: keras.Model,
    settings: FineTuneSettings,
    groups: LayerGroups,
    rates: Sequence[float],
    schedule: Schedule,
    weighted: bool = False,
) -> None:
    """Compile a classifier with a new optimizer.

    Args:
        model: The model, from `build_classifier`.
        settings: The `FineTuneSettings`.
        groups: Its layer groups.
        rates: Peak rate of each group.
        schedule: The schedule of the base rate; its peak is the largest of `rates`.
        weighted: Whether the accuracy leaves out samples of weight 0, with which batches are filled up.
    """
    model.compile(
        DiscriminativeOptimizer(settings.make_optimizer(schedule), groups, learning_rates=rates),
        loss="sparse_categorical_crossentropy",
        metrics=None if weighted else ["accuracy"],
        weighted_metrics=["accuracy"] if weighted else None,
    )
