"""Photos -> a fine-tuned classifier in a run folder: composes the other modules, computes nothing itself."""

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import keras

from kadence import _checks
from kadence._backend import versions
from kadence._findings import mid_cycle
from kadence._overlap import check_outside
from kadence._pipeline import fit
from kadence._rate_search import store_test, stored_test
from kadence._run_description import warn_of_versions
from kadence._setup import Photos, compile_classifier, load_photos
from kadence.batch_norm import FullBatches, recompute_batch_norm
from kadence.callbacks import EpochSeeds, RateRecorder, RunFolder, SnapshotSaver, save_model
from kadence.classifier import build_classifier, rates_of
from kadence.data import ImageBatches
from kadence.durations import run_length
from kadence.ensemble import SnapshotEnsemble
from kadence.finder import lr_range_test
from kadence.groups import LayerGroups
from kadence.plots import save_run_pictures
from kadence.records import RateRecord, full_disk_told, held, new_folder, remove_parts, write_text
from kadence.replicas import Replicas, find_replicas
from kadence.schedules import Schedule
from kadence.settings import FineTuneSettings

#: Folder of the snapshots in a run folder.
SNAPSHOTS = "snapshots"


@dataclass(frozen=True)
class FineTuneRun:
    """What came of a run.

    Args:
        folder: The run folder.
        best_epoch: Number of the epoch that `model.keras` holds, from 1.
        accuracy: Its validation accuracy, as `model.keras` gives it. Float in [0, 1].
        seconds: Time of all finished epochs, in seconds.
        groups: The layer groups.
        rates: Their peak rates, one float per group.
    """

    folder: Path
    best_epoch: int
    accuracy: float
    seconds: float
    groups: LayerGroups
    rates: tuple[float, ...]


def train_classifier(
    settings: FineTuneSettings,
    folder: str | Path,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    snapshots: bool = False,
    find_callbacks: Sequence[keras.callbacks.Callback] = (),
) -> FineTuneRun:
    """Fine-tune a pretrained backbone on a folder of photos, with a rate per layer group.

    The run folder then holds `model.keras` (the epoch with the best validation accuracy), `labels.json`, `run.json`,
    `history.csv`, `rates.json`, `rates.png` and `curves.png`; where the rates were found, also `range_test.json` and
    `range_test.png`.

    Args:
        settings: The `FineTuneSettings`.
        folder: Run folder to make, or to go on with.
        resume: Whether to go on after the last finished epoch of `folder`.
        callbacks: Further Keras callbacks.
        snapshots: Whether to keep the weights at the end of every cycle in `snapshots/`, for
            `predict_photos(..., ensemble=True)`. A run that began with them goes on with them.
        find_callbacks: Further Keras callbacks for the range test, where the settings ask for one.

    Returns:
        `FineTuneRun`.

    Raises:
        FileExistsError: If `folder` exists and `resume` is False.
        FileNotFoundError: If `resume` is True and there is no run in `folder`.
        ValueError: If the photos or the settings do not make a run, a resumed run had other settings or photos, or the
            range test has no clear answer.
        LossNotFiniteError: If the loss became NaN; `model.keras` is then the best epoch before.
    """
    folder = Path(folder)
    replicas = find_replicas(settings.replicas)
    settings = dataclasses.replace(settings, replicas=len(replicas))
    if settings.find_rates and len(replicas) > 1:
        remedy = "Find the rates on one device, with `kadence find`, and give them with --rates."
        raise ValueError(_checks.sentence("replicas", "be 1 where the rates are to be found", len(replicas), remedy))
    check_folder(folder, resume, settings)
    before = _read_description(folder / "run.json") if resume else None
    _checks.extra("matplotlib", "plot", "Drawing what a run did")
    keras.utils.set_random_seed(settings.seed)
    photos = load_photos(settings)
    if before is not None:
        kept = before.get("snapshots", snapshots or (folder / SNAPSHOTS).is_dir())
        _check_same_run(before, settings, photos, snapshots and not kept)
        warn_of_versions(before.get("versions"))
        snapshots = kept
    with held("out", folder), replicas.scope(), full_disk_told(folder):
        check_folder(folder, resume, settings)  # another process may have begun meanwhile
        return _train(settings, photos, folder, replicas, callbacks, snapshots, find_callbacks)


def _train(
    settings: FineTuneSettings,
    photos: Photos,
    folder: Path,
    replicas: Replicas,
    callbacks: Sequence[keras.callbacks.Callback],
    snapshots: bool,
    find_callbacks: Sequence[keras.callbacks.Callback],
) -> FineTuneRun:
    size, n = settings.image_size, len(replicas)
    batches = ImageBatches(photos.train, size, n * settings.batch_size, shuffle=True, seed=settings.seed, multiple_of=n)
    held_out = ImageBatches(photos.validation, size, n * settings.batch_size, shuffle=False, multiple_of=n)
    model, groups = build_classifier(settings, len(photos.train.class_names))
    rates = [rate * replicas.rate_factor(settings.optimizer) for rate in rates_of(settings, groups)]
    schedule = settings.make_schedule(max(rates), len(batches))
    compile_classifier(model, settings, groups, rates, schedule, weighted=n > 1)
    warn_of_mid_cycle(schedule, settings.total_epochs(), len(batches))
    test = None
    if settings.find_rates:
        test = stored_test(folder) or lr_range_test(model, batches, seed=settings.seed, callbacks=find_callbacks)
        rates = test.suggest().learning_rates()
        schedule = settings.make_schedule(max(rates), len(batches))
        compile_classifier(model, settings, groups, rates, schedule)
    if not (folder / "run.json").exists():
        description = _description(settings, photos, snapshots)
        if n > 1:
            description["replicas"] = replicas.describe(settings.optimizer, settings.batch_size)
        # With it, a run that is killed can be resumed.
        write_text(folder / "run.json", json.dumps(description, ensure_ascii=False, indent=1))
    write_text(folder / "labels.json", json.dumps(list(photos.train.class_names), ensure_ascii=False, indent=1))
    if test is not None:
        store_test(test, folder)
    remove_parts(folder)
    recorder = RateRecorder(folder / "rates.json", RateRecord.stored(folder / "rates.json"), stop_on_nan=True)
    run = RunFolder(folder, monitor="val_accuracy" if settings.batch_norm == "frozen" else None)
    # Before `run`, whose backup makes an epoch count as finished.
    savers = [SnapshotSaver(folder / SNAPSHOTS, resume=True)] if snapshots else []
    with _pictures_afterwards(run, recorder):
        told = [EpochSeeds(settings.seed), recorder, *savers, run, *callbacks]
        fit(model, batches, told, validation_data=held_out, epochs=settings.total_epochs(), verbose=0)
    best = run.best or {}
    accuracy = best["val_accuracy"]
    if settings.batch_norm == "train":
        batches.set_epoch(settings.total_epochs() - 1)  # the same batches, also where a finished run is resumed
        _recompute_statistics(model, batches, folder, snapshots)
        accuracy = model.evaluate(held_out, verbose=cast(Any, 0), return_dict=True)["accuracy"]
    seconds = sum(row["seconds"] for row in run.rows)
    return FineTuneRun(folder, int(best["epoch"]), float(accuracy), seconds, groups, tuple(rates))


def _recompute_statistics(model: keras.Model, batches: ImageBatches, folder: Path, snapshots: bool) -> None:
    """Compute the statistics of what was trained anew, and write the model and its snapshots again."""
    batches.multiple_of = 1  # one device computes them
    full = FullBatches(batches)
    if snapshots:
        SnapshotEnsemble.load(folder / SNAPSHOTS, model).recompute_batch_norm(full)
    recompute_batch_norm(model, full)
    save_model(model, folder / "model.keras")


def warn_of_mid_cycle(schedule: Schedule, epochs: int, steps_per_epoch: int) -> None:
    """Warn if a run would end within a cycle, and name the nearest budgets that do not.

    Args:
        schedule: The schedule.
        epochs: Length of the run, in epochs. Integer >= 1.
        steps_per_epoch: Optimizer steps in an epoch. Integer >= 1.
    """
    finding = mid_cycle(schedule, run_length(epochs=epochs, steps_per_epoch=steps_per_epoch))
    if finding is not None:
        warnings.warn(f"{finding.what} {finding.change}", stacklevel=2)


def check_folder(folder: Path, resume: bool, settings: FineTuneSettings) -> None:
    """Raise unless a run folder is new, or with `resume` that of a run; and not in a folder of photos.

    Args:
        folder: The run folder.
        resume: Whether to go on with it.
        settings: The `FineTuneSettings`.

    Raises:
        FileExistsError: If `folder` holds something and `resume` is False.
        FileNotFoundError: If `resume` is True and there is no run in `folder`.
        ValueError: If it is in a folder of photos.
    """
    check_outside("out", folder, (settings.photos, settings.validation))
    if not resume:
        new_folder("out", folder, "Choose another folder, or go on with that run with --resume.")
    elif not (folder / "run.json").is_file():
        rule = "be the folder of a run, to resume it"
        raise FileNotFoundError(_checks.sentence("out", rule, str(folder), "Start it without --resume."))


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(description, dict) and isinstance(description.get("settings"), dict):
            return description
    except ValueError:
        pass
    remedy = "It is spoilt, or of a run that another recipe trained: go on with the flags of that one."
    raise ValueError(_checks.sentence("run.json", "be the description of a run", str(path), remedy))


def _check_same_run(before: dict[str, Any], settings: FineTuneSettings, photos: Photos, late: bool) -> None:
    now = _description(settings, photos, False)
    # A run that an older version began lacks the settings that are new.
    known = dataclasses.asdict(FineTuneSettings(photos="")) | before["settings"]
    changed = [
        f"{name} was {known.get(name)!r}, is {value!r}"
        for name, value in now["settings"].items()
        if known.get(name) != value and name not in ("photos", "validation")  # which photos they hold is what counts
    ]
    known_photos, photos_now = before.get("photos") or {}, now["photos"]
    if any(known_photos.get(name) != photos_now[name] for name in ("train", "validation", "fingerprint")):
        changed.append("the photos are others")
    changed += ["it was begun without snapshots"] * late
    if changed:
        raise ValueError(
            _checks.sentence("resume", "go on with the same settings and photos", True, f"{'; '.join(changed)}.")
        )


def _description(settings: FineTuneSettings, photos: Photos, snapshots: bool) -> dict[str, Any]:
    return {
        "settings": json.loads(json.dumps(dataclasses.asdict(settings))),
        "photos": {
            "train": len(photos.train.paths),
            "validation": len(photos.validation.paths),
            "skipped": len(photos.train.skipped) + len(photos.validation.skipped),
            "fingerprint": photos.fingerprint(),
        },
        "snapshots": snapshots,
        "versions": versions(),
    }


@contextlib.contextmanager
def _pictures_afterwards(run: RunFolder, recorder: RateRecorder) -> Iterator[None]:
    """Draw what there is, also when training stopped early."""
    try:
        yield
    finally:
        record = recorder.record if len(recorder.record) else recorder.previous
        if run.rows and record is not None and len(record):
            save_run_pictures(run.folder, record, run.rows)
