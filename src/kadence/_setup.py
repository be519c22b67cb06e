"""Settings -> the photos, and a compiled classifier."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from kadence import _checks
from kadence._overlap import warn_of_shared, without_copies
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
        return hashlib.sha256(self.train.listing() + self.validation.listing()).hexdigest()


def load_photos(settings: FineTuneSettings) -> Photos:
    """The photos that the settings name, split as they say.

    Args:
        settings: The `FineTuneSettings`.

    Returns:
        `Photos`.

    Raises:
        ValueError: If they are no photos in folders of classes, or those to validate on are a part of the others.
    """
    if settings.validation is None:
        train = without_copies(scan_folder(settings.photos, strict=settings.strict))
        return Photos(*split_validation(train, settings.validation_fraction, settings.seed))
    ours, theirs = Path(settings.photos).resolve(), Path(settings.validation).resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        rule = "be another folder than that of the photos, beside it"
        remedy = "Leave it out to hold out a part of each class."
        raise ValueError(_checks.sentence("validation", rule, settings.validation, remedy))
    train = scan_folder(settings.photos, strict=settings.strict)
    held_out = scan_folder(settings.validation, strict=settings.strict, class_names=train.class_names)
    warn_of_shared(train, held_out)
    return Photos(train, held_out)


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
