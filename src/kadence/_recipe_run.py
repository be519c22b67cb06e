"""Photos -> a classifier that `fine_tune` trains, in a run folder that `predict_photos` reads."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from kadence import _checks
from kadence._setup import compile_classifier, load_photos
from kadence.classifier import build_classifier
from kadence.data import ImageBatches
from kadence.fine_tune_result import FineTuneResult
from kadence.finetune import fine_tune
from kadence.records import write_text
from kadence.run import check_folder
from kadence.schedules import Constant
from kadence.settings import FineTuneSettings


def fine_tune_classifier(
    settings: FineTuneSettings,
    folder: str | Path,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    snapshots: bool = False,
    tell: Callable[[str], None] = lambda line: None,
    find_callbacks: Sequence[keras.callbacks.Callback] = (),
) -> FineTuneResult:
    """Fine-tune a pretrained backbone on a folder of photos, by the recipe of `fine_tune`.

    Args:
        settings: The `FineTuneSettings`, of which rates and schedule play no part.
        folder: Run folder to make, or to go on with.
        resume: Whether to go on with `folder`.
        callbacks: Further Keras callbacks.
        snapshots: Whether to keep the weights at the end of every cycle; there are `settings.cycles` of them then.
        tell: Called with a line of text when a phase begins.
        find_callbacks: Further Keras callbacks of the range tests.

    Returns:
        `FineTuneResult`.

    Raises:
        FileExistsError: If `folder` holds something and `resume` is False.
        FileNotFoundError: If `resume` is True and there is no run in `folder`.
        ValueError: If the photos or the settings do not make a run, or a resumed run had others.
        LossNotFiniteError: If the loss became NaN.
    """
    folder = Path(folder)
    check_folder(folder, resume, settings)
    _checks.extra("matplotlib", "plot", "Drawing what a run did")
    epochs = settings.total_epochs()
    if epochs < 2:
        remedy = "Take more epochs, or `--recipe plain`."
        raise ValueError(_checks.sentence("epochs", "be at least 2, one of them for the head alone", epochs, remedy))
    keras.utils.set_random_seed(settings.seed)
    photos = load_photos(settings)
    size, batch = settings.image_size, settings.batch_size
    model, groups = build_classifier(settings, len(photos.train.class_names))
    compile_classifier(model, settings, groups, [1.0] * len(groups), Constant(1.0))
    result = fine_tune(
        model,
        ImageBatches(photos.train, size, batch, shuffle=True, seed=settings.seed),
        ImageBatches(photos.validation, size, batch, shuffle=False),
        epochs=epochs,
        groups=groups,
        batch_norm=settings.batch_norm,
        snapshots=settings.cycles if snapshots else 0,
        run_dir=folder,
        resume=resume,
        seed=settings.seed,
        verbose=0,
        callbacks=callbacks,
        tell=tell,
        find_callbacks=find_callbacks,
    )
    write_text(folder / "labels.json", json.dumps(list(photos.train.class_names), ensure_ascii=False, indent=1))
    return result
