"""Photos -> a range test of the classifier that would be trained on them, and where a run keeps it."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from kadence import _checks
from kadence._setup import compile_classifier, load_photos
from kadence.classifier import build_classifier, rates_of
from kadence.data import ImageBatches
from kadence.finder import lr_range_test
from kadence.plots import save_range_picture
from kadence.range_test import RangeTest
from kadence.records import write_text
from kadence.schedules import Constant
from kadence.settings import FineTuneSettings

#: Length of a sweep in optimizer steps.
FIND_STEPS = 100
FILES = ("range_test.json", "range_test.png")


def find_rates(
    settings: FineTuneSettings, callbacks: Sequence[keras.callbacks.Callback] = (), **sweep: Any
) -> RangeTest:
    """A range test of the classifier that `train_classifier` would train, on the same photos.

    Args:
        settings: The `FineTuneSettings`; the schedule and the length of the run play no part.
        callbacks: Further Keras callbacks, for each sweep.
        **sweep: What else `lr_range_test` takes.

    Returns:
        `RangeTest`.

    Raises:
        ValueError: If the photos, the settings or the sweep do not make a test.
    """
    keras.utils.set_random_seed(settings.seed)
    photos = load_photos(settings)
    batches = ImageBatches(photos.train, settings.image_size, settings.batch_size, shuffle=True, seed=settings.seed)
    model, groups = build_classifier(settings, len(photos.train.class_names))
    rates = rates_of(settings, groups)
    compile_classifier(model, settings, groups, rates, Constant(max(rates)))
    return lr_range_test(model, batches, seed=settings.seed, callbacks=callbacks, **sweep)


def store_test(test: RangeTest, folder: Path) -> None:
    """Write `range_test.json`, and `range_test.png` where matplotlib is installed.

    Args:
        test: The `RangeTest`.
        folder: Where to; it exists.
    """
    write_text(folder / FILES[0], test.to_json())
    if importlib.util.find_spec("matplotlib") is not None:
        save_range_picture(test, folder / FILES[1])


def stored_test(folder: Path) -> RangeTest | None:
    """The range test in a run folder, or None if there is none.

    Args:
        folder: The run folder.

    Raises:
        ValueError: If the file holds anything else.
    """
    path = folder / FILES[0]
    if not path.is_file():
        return None
    try:
        return RangeTest.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        remedy = "It was spoilt: start anew in another folder."
        raise ValueError(_checks.sentence(FILES[0], "be a range test", str(path), remedy)) from error
