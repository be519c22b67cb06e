"""Strategy: what is compared, as a small record; a name is made of parts with "+" between them."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kadence import _checks
from kadence.budgets import solve_cycles
from kadence.durations import RunLength, parse_duration
from kadence.groups import LayerGroups, layer_decay, split, split_evenly
from kadence.schedules import Constant, Schedule, WarmRestarts, join
from kadence.settings import FineTuneSettings

#: Part of a name -> what it changes. 1 / 2.6 is the decay of ULMFiT, Howard & Ruder 2018, section 3.2.
PARTS: dict[str, dict[str, Any]] = {
    "constant": {"schedule": "constant"},
    "cosine": {"schedule": "cosine"},
    "warm-restarts": {"schedule": "warm-restarts"},
    "warmup": {"warmup": "10%"},
    "discriminative": {"layer_decay": 1 / 2.6},
    "steep": {"layer_decay": 0.1},
    "frozen": {"phases": ((1, "100%"),)},
    "head-first": {"phases": ((1, "20%"),)},
    "train-batch-norm": {"batch_norm": "train"},
    "sgd": {"optimizer": "sgd"},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
}


@dataclass(frozen=True)
class Strategy:
    """How a model is trained, but for its base rate, which `compare` looks for.

    Args:
        name: What tables call it. Not empty.
        groups: How to make the layer groups: names of the first layers of the later groups; a number of groups of
            equally many layers; or None for the groups that come with the model.
        lr_multipliers: Factor on the base rate, one per group, floats >= 0, one of them > 0; None for `layer_decay`.
        layer_decay: Factor on the rate from a group to the one before it, 0 < decay <= 1. 1 is one rate for all.
        schedule: "constant", "cosine" or "warm-restarts"; the last two end with the run.
        cycles: Number of cycles of warm restarts, which fill the run. Integer >= 1.
        cycle_mult: Growth of the cycles. Float >= 1.
        warmup: Length of a straight rise from 0 at the start of the run, and of each cycle: "0.5ep" (epochs), "5%" of
            the run, or "50st" (optimizer steps).
        optimizer: "adam", "adamw", "lion", "nadam", "rmsprop" or "sgd" (Nesterov momentum 0.9).
        weight_decay: Decoupled weight decay, scaled by each group's rate. Float >= 0.
        batch_norm: "frozen" keeps all BatchNorm layers as they are; "train" trains them, and computes their statistics
            anew from the training data at the end.
        phases: Pairs (number of groups that train, counted from the head; how long, such as "2ep" or "20%"), one after
            another. After the last one all groups train. A group that no phase trains is frozen.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has the wrong type.

    Example:
        >>> kadence.Strategy("head, then all", layer_decay=0.3, schedule="cosine", phases=((1, "2ep"),))

    Source:
        Howard & Ruder 2018, Universal Language Model Fine-tuning, section 3.2 and 3.3, arXiv:1801.06146.
    """

    name: str
    groups: tuple[str, ...] | int | None = None
    lr_multipliers: tuple[float, ...] | None = None
    layer_decay: float = 1.0
    schedule: str = "constant"
    cycles: int = 3
    cycle_mult: float = 2.0
    warmup: str = "0"
    optimizer: str = "adam"
    weight_decay: float = 0.0
    batch_norm: str = "frozen"
    phases: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(_checks.sentence("name", "be a string", self.name))
        if not self.name.strip():
            raise ValueError(_checks.sentence("name", "not be empty", self.name))
        if self.groups is not None:
            object.__setattr__(self, "groups", _checked_groups(self.groups))
        if self.lr_multipliers is not None:
            object.__setattr__(self, "lr_multipliers", _checked_multipliers(self.lr_multipliers, self.layer_decay))
        decay = _checks.number("layer_decay", self.layer_decay, above=0.0, maximum=1.0)
        object.__setattr__(self, "layer_decay", decay)
        object.__setattr__(self, "phases", tuple(_checked_phase(phase) for phase in self.phases))
        self._settings(epochs=1)

    @property
    def content(self) -> dict[str, Any]:
        """All but the name, as JSON types: strategies of the same content are equal."""
        return {name: value for name, value in json.loads(self.to_json()).items() if name != "name"}

    def to_json(self) -> str:
        """The strategy as JSON text."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Strategy":
        """The strategy that `to_json` wrote.

        Args:
            text: Result of `to_json`.

        Returns:
            `Strategy`.

        Raises:
            ValueError: If the text is not such a strategy, or a value is out of range.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        rule = "be JSON of a strategy, an object with a name"
        try:
            content = json.loads(text)
        except (ValueError, TypeError) as error:
            raise ValueError(_checks.sentence("text", rule, text)) from error
        if not isinstance(content, dict) or "name" not in content:
            raise ValueError(_checks.sentence("text", rule, text))
        for name in content.keys() - set(names):
            remedy = _checks.did_you_mean(name, names)
            raise ValueError(_checks.sentence("text", "have only fields of a strategy", name, remedy))
        return cls(**{name: _tuples(value) for name, value in content.items()})

    @classmethod
    def from_name(cls, name: str) -> "Strategy":
        """A strategy by its name, such as "constant", "frozen" or "discriminative+warm-restarts".

        Args:
            name: Parts with "+" between them. Without a schedule among them the rate is constant.

        Returns:
            `Strategy`.

        Raises:
            ValueError: If a part is unknown, or two parts change the same thing.

        Example:
            >>> kadence.Strategy.from_name("discriminative+cosine").schedule
            'cosine'
        """
        if not isinstance(name, str):
            raise TypeError(_checks.sentence("strategies", "be names or `Strategy` records", name))
        changes: dict[str, Any] = {}
        for part in name.split("+"):
            rule = f"be made of {', '.join(map(repr, PARTS))}, with + between them"
            if part.strip() not in PARTS:
                raise ValueError(_checks.sentence("strategies", rule, name, _checks.did_you_mean(part.strip(), PARTS)))
            change = PARTS[part.strip()]
            if both := changes.keys() & change.keys():
                raise ValueError(_checks.sentence("strategies", f"say its {min(both)} once", name))
            changes |= change
        return cls(name, **changes)

    def make_groups(self, model: keras.Model, own: LayerGroups) -> LayerGroups:
        """The layer groups of a model under this strategy.

        Args:
            model: The built `keras.Model`.
            own: The groups that come with it.

        Returns:
            `LayerGroups`.
        """
        if self.groups is None:
            return own
        return split_evenly(model, self.groups) if isinstance(self.groups, int) else split(model, self.groups)

    def make_schedule(self, lr_max: float, length: RunLength) -> Schedule:
        """The schedule of the base rate.

        Args:
            lr_max: Its peak. Float > 0.
            length: The `RunLength` of the run.

        Returns:
            `Schedule`, which ends with the run.

        Raises:
            ValueError: If the run is too short for the cycles or the warm-up.
        """
        if self.schedule != "warm-restarts":
            epochs = int(length.epochs or 0)
            return self._settings(epochs).make_schedule(lr_max, length.n_steps // epochs)
        cycles = solve_cycles(length.n_steps, self.cycles, self.cycle_mult)
        return WarmRestarts(lr_max, *cycles, warmup_steps=length.steps(self.warmup, "warmup"))

    def make_multipliers(self, groups: LayerGroups, length: RunLength) -> list[float | Schedule]:
        """Factor on the base rate of each group; a schedule where a phase changes it, 0.0 where nothing trains it.

        Args:
            groups: The layer groups.
            length: The `RunLength` of the run.

        Returns:
            List of one float or `Schedule` per group.

        Raises:
            ValueError: If the number of multipliers is not that of the groups, or the phases do not fit the run.
        """
        factors = layer_decay(groups, self.layer_decay) if self.lr_multipliers is None else self.lr_multipliers
        if len(factors) != len(groups):
            rule = f"be one factor per group, {len(groups)}: {', '.join(groups.names)}"
            raise ValueError(_checks.sentence("lr_multipliers", rule, factors))
        trained, bounds = self._phase_bounds(len(groups), length)
        return [
            _in_phases(factor, [len(groups) - index <= number for number in trained], bounds, length.n_steps)
            for index, factor in enumerate(factors)
        ]

    def _phase_bounds(self, n_groups: int, length: RunLength) -> tuple[list[int], list[int]]:
        """Number of groups that train in each phase, and the step at which each phase ends."""
        for number, _ in self.phases:
            _checks.integer("phases", number, minimum=1, maximum=n_groups, unit="the number of groups that train")
        ends = itertools.accumulate(length.steps(duration, "phases", within=False) for _, duration in self.phases)
        bounds = list(ends)
        if bounds and bounds[-1] > length.n_steps:
            rule = f"fit into the run of {length.n_steps} optimizer steps; they take {bounds[-1]}"
            raise ValueError(_checks.sentence("phases", rule, self.phases, "Take more epochs, or shorter phases."))
        return [*(number for number, _ in self.phases), n_groups], bounds

    def make_optimizer(self, schedule: Schedule) -> keras.optimizers.Optimizer:
        """A new optimizer.

        Args:
            schedule: The schedule of its base rate.

        Returns:
            `keras.optimizers.Optimizer`.
        """
        return self._settings(epochs=1).make_optimizer(schedule)

    def _settings(self, epochs: int) -> FineTuneSettings:
        """The settings of `kadence finetune` that say the same."""
        return FineTuneSettings(
            photos="",
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            cycle_mult=self.cycle_mult,
            cycles=self.cycles,
            epochs=epochs,
            warmup=self.warmup,
            batch_norm=self.batch_norm,
        )


def _in_phases(factor: float, trains: Sequence[bool], bounds: Sequence[int], n_steps: int) -> float | Schedule:
    """`factor` where the group trains and 0 elsewhere: a number if it does not change within the run."""
    values: list[float] = []
    at_steps: list[int] = []
    for begin, end, does in zip([0, *bounds], [*bounds, n_steps], trains, strict=True):
        value = factor if does else 0.0
        if begin < end and (not values or values[-1] != value):
            at_steps += [begin] if values else []
            values.append(value)
    return join([Constant(value) for value in values], at_steps) if at_steps else values[0]


def _checked_groups(groups: Any) -> tuple[str, ...] | int:
    if isinstance(groups, int):
        return _checks.integer("groups", groups, minimum=1, unit="a number of groups")
    names = tuple(_checks.sequence("groups", groups, "be names of layers, a number of groups, or None"))
    if not all(isinstance(name, str) for name in names):
        raise TypeError(_checks.sentence("groups", "be names of layers, a number of groups, or None", names))
    return names


def _checked_multipliers(multipliers: Any, decay: Any) -> tuple[float, ...]:
    if decay != 1.0:
        rule = "be None beside `layer_decay`, which gives the multipliers"
        raise ValueError(_checks.sentence("lr_multipliers", rule, multipliers))
    rule = "be factors >= 0, one per group and one of them > 0"
    factors = tuple(
        _checks.number("lr_multipliers", factor, minimum=0.0)
        for factor in _checks.sequence("lr_multipliers", multipliers, rule)
    )
    if not any(factors):
        raise ValueError(_checks.sentence("lr_multipliers", rule, multipliers))
    return factors


def _checked_phase(phase: Any) -> tuple[int, str]:
    rule = 'be pairs of a number of groups and a duration, such as (1, "2ep")'
    if not isinstance(phase, Sequence) or isinstance(phase, str) or len(phase) != 2:
        raise TypeError(_checks.sentence("phases", rule, phase))
    number = _checks.integer("phases", phase[0], minimum=1, unit="the number of groups that train")
    parse_duration(phase[1], n_steps=_checks.MAX_STEPS, steps_per_epoch=1e4, name="phases", within=False)
    return number, phase[1]


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
