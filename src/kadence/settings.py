"""What decides how a run goes: every setting of `kadence finetune`, checked, and what follows from them alone."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from kadence import _checks
from kadence.durations import parse_duration, run_length
from kadence.replicas import check_replicas
from kadence.schedules import Constant, Cosine, Schedule, WarmRestarts, epochs_to_steps, warmup

#: What AdamW has in Keras.
_ADAMW_DECAY = 0.004
#: Name -> maker of the optimizer, from a schedule and a weight decay (None for none).
OPTIMIZERS: dict[str, Callable[[Any, float | None], Any]] = {
    "adam": lambda rate, decay: keras.optimizers.Adam(rate, weight_decay=decay),
    "adamw": lambda rate, decay: keras.optimizers.AdamW(rate, weight_decay=decay or 0.0),
    "lion": lambda rate, decay: keras.optimizers.Lion(rate, weight_decay=decay),
    "nadam": lambda rate, decay: keras.optimizers.Nadam(rate, weight_decay=decay),
    "rmsprop": lambda rate, decay: keras.optimizers.RMSprop(rate, weight_decay=decay),
    "sgd": lambda rate, decay: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay),
}
SCHEDULES = ("warm-restarts", "cosine", "constant")
BATCH_NORM = ("frozen", "train")


@dataclass(frozen=True)
class FineTuneSettings:
    """Everything that decides how a run goes.

    Args:
        photos: Folder with one folder of photos per class.
        validation: Folder of the same form to validate on, or None to hold out `validation_fraction` of `photos`.
        validation_fraction: Share of each class that is held out. Float, 0 < fraction < 1.
        backbone: Name of a pretrained backbone, from `backbone_names()`.
        split: Names of the layers at which the next group begins; None for the backbone's default and the head.
        rates: Peak learning rate of each group; 0 freezes the group's layers. None for 1e-5, 1e-4, 1e-3, ascending
            to the head by factors of 10.
        find_rates: Whether a range test finds the rates before the run; it keeps the ratios of `rates`.
        optimizer: One of "adam", "adamw", "lion", "nadam", "rmsprop", "sgd" (Nesterov momentum 0.9).
        weight_decay: Decoupled weight decay, scaled by each group's rate. Float >= 0; None for 0.004 with "adamw" and 0
            with the others.
        schedule: "warm-restarts", "cosine" or "constant".
        first_cycle_epochs: Length of the first cycle of warm restarts, in epochs. Float > 0.
        cycle_mult: Growth of the cycles. Float >= 1.
        cycles: Number of cycles, unless `epochs` is given; it sets the length of the other schedules too. Integer >= 1.
        epochs: Length of the run in epochs, or None for `cycles` cycles. Integer >= 1.
        warmup: Length of a straight rise of the rates from 0 at the start of the run, and of each cycle of
            warm restarts: in epochs, "0.5ep", as a share of the run, "5%", or in optimizer steps, "50st".
        batch_size: Images in a batch, that of one replica. Integer >= 1.
        image_size: Side of the images in pixels. Integer >= 32.
        augment: Whether to flip, shift and zoom the photos at random in training.
        batch_norm: "frozen" keeps the backbone's BatchNorm layers as they are; "train" trains them and computes their
            statistics anew from the training photos at the end.
        seed: Seed of weights, order, augmentation and dropout. Integer >= 0.
        strict: Whether a broken photo is an error rather than left out with a warning.
        replicas: Devices that share a step, on JAX; "auto" for all there are. With n of them a step has n batches, and
            all rates are scaled for it, by `scale_for_batch`: "linear" for sgd, "sqrt" for the others. Integer >= 1.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.
    """

    photos: str
    validation: str | None = None
    validation_fraction: float = 0.2
    backbone: str = "efficientnet_lite0"
    split: tuple[str, ...] | None = None
    rates: tuple[float, ...] | None = None
    find_rates: bool = False
    optimizer: str = "adam"
    weight_decay: float | None = None
    schedule: str = "warm-restarts"
    first_cycle_epochs: float = 1.0
    cycle_mult: float = 2.0
    cycles: int = 3
    epochs: int | None = None
    warmup: str = "0"
    batch_size: int = 32
    image_size: int = 128
    augment: bool = True
    batch_norm: str = "frozen"
    seed: int = 0
    strict: bool = False
    replicas: int | str = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "photos", os.fspath(self.photos))
        if self.validation is not None:
            object.__setattr__(self, "validation", os.fspath(self.validation))
        _checks.number("validation_fraction", self.validation_fraction, above=0.0, maximum=0.999)
        _checks.one_of("optimizer", self.optimizer, list(OPTIMIZERS))
        for name in ("find_rates", "augment", "strict"):
            _checks.boolean(name, getattr(self, name))
        _checks.one_of("schedule", self.schedule, SCHEDULES)
        _checks.one_of("batch_norm", self.batch_norm, BATCH_NORM)
        if self.weight_decay is None:
            object.__setattr__(self, "weight_decay", _ADAMW_DECAY if self.optimizer == "adamw" else 0.0)
        _checks.number("weight_decay", self.weight_decay, minimum=0.0)
        _checks.number("first_cycle_epochs", self.first_cycle_epochs, above=0.0, unit="in epochs")
        _checks.number("cycle_mult", self.cycle_mult, minimum=1.0)
        _checks.integer("cycles", self.cycles, minimum=1, unit="a number of cycles")
        if self.epochs is not None:
            _checks.integer("epochs", self.epochs, minimum=1, unit="in epochs")
        _checks.integer("batch_size", self.batch_size, minimum=1, unit="in images")
        check_replicas(self.replicas)
        _checks.integer("image_size", self.image_size, minimum=32, unit="in pixels")
        _checks.integer("seed", self.seed, minimum=0, unit="a seed")
        if self.split is not None:
            names = _checks.sequence("split", self.split, "name at least one layer")
            if not all(isinstance(name, str) for name in names):
                raise TypeError(_checks.sentence("split", "name layers by string", self.split))
        if self.rates is not None:
            rule = "be a sequence of rates, one per group"
            items = _checks.sequence("rates", self.rates, rule, minimum_length=0)
            rates = [_checks.number("rates", rate, minimum=0.0) for rate in items]
            if not any(rates):
                raise ValueError(_checks.sentence("rates", "hold at least one rate > 0", self.rates))
        parse_duration(self.warmup, n_steps=_checks.MAX_STEPS, steps_per_epoch=1e4, name="warmup")
        self.total_epochs()

    def total_epochs(self) -> int:
        """Length of the run in whole epochs: `epochs`, or as many as hold `cycles` cycles."""
        if self.epochs is not None:
            return self.epochs
        epochs, length = 0.0, self.first_cycle_epochs
        for _ in range(self.cycles):
            epochs, length = epochs + length, length * self.cycle_mult
            if epochs > _checks.MAX_STEPS:
                rule = f"make a run of at most {_checks.MAX_STEPS} epochs, with cycle_mult={self.cycle_mult:g}"
                raise ValueError(_checks.sentence("cycles", rule, self.cycles))
        return max(1, math.ceil(round(epochs, 6)))

    def make_schedule(self, lr_max: float, steps_per_epoch: int) -> Schedule:
        """The schedule of the base rate.

        Args:
            lr_max: Its peak. Float > 0.
            steps_per_epoch: Optimizer steps in an epoch. Integer >= 1.

        Returns:
            `Schedule`.

        Raises:
            ValueError: If a cycle has no step, or the warm-up is longer than the run or the first cycle.
        """
        length = run_length(epochs=self.total_epochs(), steps_per_epoch=steps_per_epoch)
        rise = length.steps(self.warmup, "warmup")
        if self.schedule != "warm-restarts":
            left = length.n_steps - rise
            if left < 1:
                rule = f"be shorter than the run of {length.n_steps} optimizer steps"
                raise ValueError(_checks.sentence("warmup", rule, self.warmup))
            schedule = Constant(lr_max) if self.schedule == "constant" else Cosine(lr_max, left)
            return warmup(schedule, rise) if rise else schedule
        first_cycle_steps = epochs_to_steps(self.first_cycle_epochs, steps_per_epoch)
        if first_cycle_steps < 1:
            rule = f"make a cycle of at least one step; an epoch has {steps_per_epoch}"
            raise ValueError(_checks.sentence("first_cycle_epochs", rule, self.first_cycle_epochs))
        if rise >= first_cycle_steps:
            rule = f"be shorter than the first cycle of {first_cycle_steps} optimizer steps"
            raise ValueError(_checks.sentence("warmup", rule, self.warmup))
        return WarmRestarts(lr_max, first_cycle_steps, self.cycle_mult, warmup_steps=rise)

    def make_optimizer(self, schedule: Schedule) -> keras.optimizers.Optimizer:
        """A new optimizer.

        Args:
            schedule: The schedule of its base rate.

        Returns:
            `keras.optimizers.Optimizer`.
        """
        return OPTIMIZERS[self.optimizer](schedule, self.weight_decay or None)
