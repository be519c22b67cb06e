"""The whole recipe in one call: head first, rates from a range test, then all groups at their rates."""

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from kadence import _checks
from kadence._compiled import Compiled, described
from kadence._head import groups_with_head
from kadence._job import Job, Row
from kadence._recipe import given_phases, make_phases
from kadence._run_description import begin_run, digest_of_data, digest_of_groups, digest_of_model
from kadence._trial_data import Data
from kadence._walk import Layers
from kadence.fine_tune_result import FineTuneResult
from kadence.freezing import groups_of
from kadence.groups import LayerGroups
from kadence.phases import Phase, TrainPhase, check_phases, run_phases
from kadence.records import full_disk_told, held


def fine_tune(
    model: keras.Model,
    train: Any,
    validation: Any = None,
    *,
    epochs: int,
    head: str | keras.layers.Layer | None = None,
    groups: LayerGroups | None = None,
    rates: str | float | Sequence[float] = "find",
    schedule: str = "auto",
    freeze_epochs: int = 1,
    batch_norm: str = "frozen",
    snapshots: int = 0,
    augment: keras.layers.Layer | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    seed: int | None = None,
    verbose: Any = "auto",
    batch_size: int = 32,
    phases: Sequence[Phase] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    find_callbacks: Sequence[keras.callbacks.Callback] = (),
    tell: Callable[[str], None] | None = None,
) -> FineTuneResult:
    """Fine-tune a pretrained model: the head first, then all layer groups at a ladder of rates, from a range test.

    1. `HeadPhase`: everything but the head is frozen, for `freeze_epochs`.
    2. `FindPhase`: a joint range test bounds the rates, lower towards the input; the model is as before afterwards.
    3. `TrainPhase`: all groups train, for the rest of the epochs, under a schedule that ends with them.

    The model is trained in place, with loss and metrics that it was compiled with, and with a new optimizer of the same
    kind and settings, of which only the rate is another one. Layers before the head that were frozen are unfrozen; rate
    0 freezes a group. Afterwards the model has the weights of the last epoch.

    With a run folder, a run that is killed at any moment is resumed by the same call with `resume=True`: in the phase
    and epoch that was not finished, to the same weights. Its start is kept there too, so that the model need not begin
    with the same random head.

    Args:
        model: Built and compiled `keras.Model`: functional, Sequential, subclassed or nested. Parts of subclassed
            models cannot be run once and stored, so their head phase takes longer.
        train: Arrays (x, y) or (x, y, sample_weight), an `ImageBatches`, or another dataset of batches with a length
            that can be gone through again.
        validation: Data of the same kind, or None.
        epochs: Length of all of it, in epochs, `freeze_epochs` included. Integer > freeze_epochs.
        head: First layer of the head: a layer, an address or a unique name. None for what follows the largest nested
            model, or the last global pooling or flattening, or for the last layer with weights.
        groups: Layer groups, the last being the head, instead of `head`. None for those of the model's
            `DiscriminativeOptimizer`, or two halves before the head.
        rates: "find"; the peak rate of the head, 100 times that of the first group; or one rate per group, 0
            to freeze it.
        schedule: Of the last phase: "one-cycle", "cosine", "warm-restarts", "constant", or "auto": warm restarts where
            snapshots are asked for, otherwise a cosine.
        freeze_epochs: Length of the head phase, in epochs. Integer >= 0.
        batch_norm: "frozen" keeps BatchNorm layers before the head as they are; "train" trains them, and computes their
            statistics anew from the training data at the end.
        snapshots: Number of cycles, at the end of which the weights are kept in `run_dir`; 0 for none. Integer >= 0.
        augment: Layer, such as a `keras.Sequential` of random ones, for the inputs in training, or None.
        run_dir: Run folder to make, or None to keep everything in memory.
        resume: Whether to go on with the run of `run_dir`.
        seed: Seed of order, dropout and augmentation. Integer >= 0; None to draw one.
        verbose: As for `fit`; 0 says nothing.
        batch_size: Rows in a batch, where the data is arrays; a dataset has its own. Integer >= 1.
        phases: Other phases instead of these three, of `HeadPhase`, `FindPhase`, `TrainPhase`, in any number, such as
            `[HeadPhase(1), TrainPhase(4, rates=(1e-4, 3e-4, 1e-3), unfreeze_every=1)]`; `epochs` is their sum, and
            rates, schedule, freeze_epochs and snapshots are theirs.
        callbacks: Further Keras callbacks of both trainings.
        find_callbacks: Further Keras callbacks of the range tests.
        tell: Called with a line of text when a phase begins; None to write it to the standard output unless `verbose`
            is 0.

    Returns:
        `FineTuneResult`.

    Raises:
        ValueError: If the model is not compiled, no head is found, the epochs are too few for the phases, an argument
            is out of range, or a resumed run had another model, other data or settings.
        TypeError: If an argument has the wrong type.
        FileExistsError: If `run_dir` holds something and `resume` is False.
        FileNotFoundError: If `resume` is True and there is no run in `run_dir`.
        LossNotFiniteError: If the loss became NaN.

    Example:
        >>> model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> result = kadence.fine_tune(model, (x, y), (x_val, y_val), epochs=5, run_dir="runs/first")
        >>> print(result)

    Source:
        Howard & Ruder 2018, Universal Language Model Fine-tuning, section 3, arXiv:1801.06146; the order of the phases
        is that of fastai's `fine_tune`.
    """
    layers = Layers(model)
    compiled = Compiled(model)
    snapshots = _checks.integer("snapshots", snapshots, minimum=0, unit="a number of cycles")
    _checks.one_of("batch_norm", batch_norm, ("frozen", "train"))
    if augment is not None and not isinstance(augment, keras.layers.Layer):
        raise TypeError(_checks.sentence("augment", "be a keras layer, or None", augment))
    groups = _groups(model, compiled, head, groups)
    given = {"rates": rates, "schedule": schedule, "freeze_epochs": freeze_epochs, "snapshots": snapshots}
    chosen = make_phases(epochs, groups, **given) if phases is None else given_phases(phases, epochs, given)
    if run_dir is None and any(isinstance(phase, TrainPhase) and phase.snapshots for phase in chosen):
        raise ValueError(_checks.sentence("run_dir", "be a folder, to keep snapshots", run_dir))
    batch_size = _checks.integer("batch_size", batch_size, minimum=1, unit="in rows")
    fitted = Data("train", train, batch_size)
    held_out = None if validation is None else Data("validation", validation, batch_size)
    began = time.perf_counter()
    folder = None if run_dir is None else Path(run_dir)
    told = tell or ((lambda line: None) if verbose == 0 else _write_line)
    settings = {"phases": [repr(phase) for phase in chosen], "batch_norm": batch_norm, "batch_size": batch_size}
    fingerprint = {
        **settings,
        "groups": digest_of_groups(groups, layers),
        "model": digest_of_model(layers),
        "data": [None if part is None else digest_of_data(part) for part in (fitted, held_out)],
        **compiled.describe(),
        "augment": described(augment),
    }
    job = Job(
        model,
        compiled,
        groups,
        fitted,
        held_out,
        seed=0,
        batch_norm=batch_norm,
        augment=augment,
        folder=folder,
        callbacks=callbacks,
        find_callbacks=find_callbacks,
        verbose=verbose,
        tell=told,
    )
    check_phases(job, chosen)
    with held("run_dir", folder), full_disk_told(folder):
        job.seed = begin_run(folder, resume, fingerprint, seed, model)
        keras.utils.set_random_seed(job.seed)
        run_phases(job, chosen)
        result = _result(job, chosen, time.perf_counter() - began)
        if folder is not None:
            result.write(folder)
    return result


def _groups(
    model: keras.Model, compiled: Compiled, head: str | keras.layers.Layer | None, groups: LayerGroups | None
) -> LayerGroups:
    """The layer groups that are given, those of the optimizer, or those that a head makes."""
    if groups is not None and head is not None:
        raise ValueError(_checks.sentence("head", "be None beside `groups`, of which the last is the head", head))
    if groups is None and head is None:
        groups = compiled.groups
    return groups_with_head(model, head) if groups is None else groups_of(model, groups)


def _result(job: Job, phases: tuple[Phase, ...], seconds: float) -> FineTuneResult:
    unjudged = [] if job.validation is not None else ["Without validation data there is no best epoch."]
    return FineTuneResult(
        job.model,
        job.groups,
        phases,
        tuple(job.rates or ()),
        tuple(job.rows),
        job.record,
        job.found,
        _best_epoch(job.rows),
        seconds,
        (*job.notes, *unjudged),
        job.folder,
    )


def _write_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _best_epoch(rows: Sequence[Row]) -> int | None:
    judged = [row for row in rows if math.isfinite(row.get("val_loss", math.nan))]
    return min(judged, key=lambda row: row["val_loss"])["epoch"] if judged else None
