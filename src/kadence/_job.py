"""What the phases of `fine_tune` have in common: the model, the data, where files go, and one way to `fit`."""

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._compiled import Compiled
from kadence._pipeline import fit, method, prepared
from kadence._rate_search import store_test, stored_test
from kadence._snapshot_files import load_weights, save_weights
from kadence._trial_data import Augmented, Data
from kadence.callbacks import EpochSeeds, RateRecorder, RunFolder
from kadence.callbacks.run_folder import as_numbers
from kadence.features import CachedFeatures, cache_features
from kadence.freezing import set_trained
from kadence.groups import LayerGroups
from kadence.range_test import RangeTest
from kadence.records import RateRecord, write_text

Row = dict[str, Any]
_END, _RECORD, _NOTES = "end.weights.h5", "rates.json", "notes.json"


class _Rows(keras.callbacks.Callback):
    """The history, a dict per epoch, of a phase without a folder."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        seconds = round(time.perf_counter() - self._began, 2)
        self.rows.append({"epoch": epoch + 1, "seconds": seconds, **as_numbers(logs)})


@dataclass(frozen=True)
class TrainedPart:
    """A model, or the part of it behind stored features, and its batches.

    Args:
        model: The model to train.
        batches: What it trains on.
        held_out: What it is evaluated on, or None.
        is_whole: Whether it is the whole model.
    """

    model: Any
    batches: Any
    held_out: Any
    is_whole: bool


@dataclass
class Job:
    """A fine-tuning on its way through the phases.

    Args:
        model: The compiled model, which is trained in place.
        compiled: What it was compiled with.
        groups: Its layer groups; the last is the head.
        train: The training `Data`.
        validation: The validation `Data`, or None.
        seed: Seed of order, dropout and augmentation. Integer >= 0.
        batch_norm: "frozen" or "train", for the layers before the head.
        augment: Layer for the training inputs, or None.
        folder: The run folder, or None.
        callbacks: Further callbacks of every `fit`.
        find_callbacks: Further callbacks of every range test.
        verbose: As for `fit`.
        tell: Called with a line of text when a phase begins.
        phase: Name of the phase at hand: that of its folder, and of its rows of the history.
        rates: Peak rate of each group, once it is known.
        found: The `RangeTest` that found them, or None.
        notes: Sentences about what went another way than asked for.
        rows: The history so far.
        record: The `RateRecord` so far.

    Raises:
        TypeError: If there is an augmentation, or a preparation by the model, and data that it cannot be applied to.
    """

    model: Any
    compiled: Compiled
    groups: LayerGroups
    train: Data
    validation: Data | None
    seed: int
    batch_norm: str = "frozen"
    augment: keras.layers.Layer | None = None
    folder: Path | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()
    find_callbacks: Sequence[keras.callbacks.Callback] = ()
    verbose: Any = "auto"
    tell: Callable[[str], None] = lambda line: None
    phase: str = ""
    rates: list[float] | None = None
    found: RangeTest | None = None
    notes: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    record: RateRecord = field(default_factory=lambda: RateRecord(np.zeros(0, np.int64), {}, np.zeros(0)))

    def __post_init__(self) -> None:
        self.train_batches()  # raises where it cannot
        self.validation_batches()

    def train_batches(self) -> Any:
        """The training batches, in the orders of the seed, augmented, as `keras.Model.fit` takes them."""
        batches = self.train.batches(self.seed)
        if self.augment is None:
            return prepared(self.model, batches)
        if not (isinstance(batches, keras.utils.PyDataset) and hasattr(batches, "set_epoch")):
            remedy = "Augment inside the dataset, or in the model."
            raise TypeError(_checks.sentence("augment", "be None unless `train` is arrays or images", batches, remedy))
        return prepared(self.model, Augmented(batches, self.augment, self.seed))

    def plain_batches(self, seed: int | None = None) -> Any:
        """The training batches without augmentation, in the orders of a seed, or None for the data's own."""
        return prepared(self.model, self.train.batches(seed))

    def validation_batches(self) -> Any:
        """The validation batches, or None."""
        return None if self.validation is None else prepared(self.model, self.validation.batches())

    @property
    def policies(self) -> list[str]:
        """The policy for BatchNorm layers of each group."""
        return [self.batch_norm] * (len(self.groups) - 1) + ["train"]

    def train_groups(self, wanted: Sequence[bool]) -> None:
        """Freeze and unfreeze the groups; BatchNorm layers before the head follow the policy."""
        # A group that trains already is left as it is: freeze first, so that the policy holds for all.
        for now in ([False] * (len(self.groups) - 1) + [True], wanted):
            set_trained(self.model, self.groups, now, self.policies)

    @property
    def place(self) -> Path | None:
        """The folder of the phase at hand; None without a run folder."""
        return None if self.folder is None else self.folder / "phases" / self.phase

    @contextlib.contextmanager
    def part(self) -> Iterator[None]:
        """A phase that trains: it leaves its notes and the weights at its end in its folder."""
        place, n_notes = self.place, len(self.notes)
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        yield
        if place is not None:
            write_text(place / _NOTES, json.dumps(self.notes[n_notes:], ensure_ascii=False))
            save_weights(self.model, place / _END)

    def finished(self) -> bool:
        """Whether the phase was finished before a run was resumed; takes over what it left."""
        place = self.place
        if place is None or not (place / _END).exists():
            return False
        load_weights(self.model, place / _END)
        self.notes += json.loads((place / _NOTES).read_text(encoding="utf-8"))
        self._keep(RunFolder(place).rows, RateRecord.stored(place / _RECORD))
        return True

    def judge_again(self) -> None:
        """Put the scores of the model as it is into the last row: those in it are of statistics that lagged behind."""
        held_out = self.validation_batches()
        if held_out is not None and self.rows:
            scores = method(self.model, "evaluate", held_out)(held_out, verbose=0, return_dict=True)
            self.rows[-1] |= {f"val_{name}": value for name, value in as_numbers(scores).items()}

    def range_test(self, make: Callable[[], RangeTest]) -> RangeTest:
        """The range test of the phase, which is made once."""
        place = self.place
        test = None if place is None else stored_test(place)
        if test is None:
            test = make()
            if place is not None:
                place.mkdir(parents=True, exist_ok=True)
                store_test(test, place)
        return test

    @property
    def epochs_done(self) -> int:
        """Number of epochs of the phase that a run which is resumed has finished."""
        return 0 if self.place is None else RunFolder(self.place).epochs_done

    @contextlib.contextmanager
    def stretches(self) -> Iterator[Callable[..., None]]:
        """What trains a stretch of the phase, see `_fit`; at the end, rows and record of all of them are kept."""
        place = self.place
        keeper: Any = _Rows() if place is None else RunFolder(place, keep_model=False)
        path = None if place is None else place / _RECORD
        recorder = RateRecorder(path, path and RateRecord.stored(path), stop_on_nan=True)
        yield functools.partial(self._fit, keeper, recorder)
        self._keep(keeper.rows, recorder.previous)

    def _fit(
        self,
        keeper: Any,
        recorder: RateRecorder,
        part: "TrainedPart",
        epochs: range,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        """Train the model, or a part of it, for some epochs; goes on where a run that was killed left its backup."""
        part.model._initial_epoch = None  # where an earlier stretch of it was resumed
        fit(
            part.model,
            part.batches,
            [EpochSeeds(self.seed), recorder, *callbacks, keeper, *self.callbacks],
            validation_data=part.held_out,
            epochs=epochs.stop,
            initial_epoch=epochs.start,
            verbose=self.verbose,
        )
        if len(recorder.record):
            recorder.previous = recorder.record

    @contextlib.contextmanager
    def trained_part(self, first: int, cached: bool, noted: bool = True) -> Iterator["TrainedPart"]:
        """The part of the model that trains while the groups before the first are frozen.

        Args:
            first: Index of the first group that trains.
            cached: Whether what is before it may run once, and its outputs be stored.
            noted: Whether it is worth a note where it cannot.

        Yields:
            `TrainedPart`: where it cannot, the whole model.
        """
        if cached and first and self.augment is None and self.compiled.is_plain:
            try:
                features = self._features(first)
            except (ValueError, TypeError) as error:
                note = f"Features could not be stored: {error}"
                self.notes += [note] if noted and note not in self.notes else []
            else:
                with features:
                    size, held_out = self.train.batch_rows, self.validation_batches()
                    batches = features.batches(size, shuffle=True, seed=self.seed)
                    seen = None if held_out is None else features.of(held_out).batches(size)
                    yield TrainedPart(features.model, batches, seen, False)
                    return
        yield TrainedPart(self.model, self.train_batches(), self.validation_batches(), True)

    def _features(self, first: int) -> CachedFeatures:
        """What comes out of the groups before the first; raises where that is not the same in each epoch."""
        if not self.train.is_same_each_time:
            raise TypeError("`train` is a dataset, which may give other rows in each epoch; arrays do not.")
        return cache_features(self.model, self.groups[first], self.plain_batches())

    def _keep(self, rows: Sequence[Row], record: RateRecord | None) -> None:
        offset = len(self.rows)
        self.rows += [{"phase": self.phase, **row, "epoch": offset + int(row["epoch"])} for row in rows]
        if record is not None and len(record):
            steps = record.steps + (int(self.record.steps[-1]) + 1 if len(self.record) else 0)
            self.record = self.record.then(RateRecord(steps, record.rates, record.losses))
