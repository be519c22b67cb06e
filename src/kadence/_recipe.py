"""The arguments of `fine_tune` -> its phases."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kadence import _checks
from kadence._phase_rates import spread_factors
from kadence._phase_schedules import SCHEDULES
from kadence.groups import LayerGroups
from kadence.phases import FindPhase, HeadPhase, Phase, TrainPhase


def make_phases(
    epochs: int,
    groups: LayerGroups,
    rates: str | float | Sequence[float] = "find",
    schedule: str = "auto",
    freeze_epochs: int = 1,
    snapshots: int = 0,
) -> tuple[Phase, ...]:
    """The phases that `fine_tune` runs.

    Args:
        epochs: As for `fine_tune`, in epochs.
        groups: The layer groups.
        rates: As for `fine_tune`.
        schedule: As for `fine_tune`.
        freeze_epochs: As for `fine_tune`, in epochs.
        snapshots: As for `fine_tune`.

    Returns:
        Tuple of phases.

    Raises:
        ValueError: If the epochs are too few, or the number of rates is not that of the groups.
        TypeError: If an argument has the wrong type.
    """
    epochs = _checks.integer("epochs", epochs, minimum=1, unit="in epochs")
    freeze_epochs = _checks.integer("freeze_epochs", freeze_epochs, minimum=0, unit="in epochs")
    if epochs <= freeze_epochs:
        rule = f"be more than the {freeze_epochs} of `freeze_epochs`, which are a part of them"
        raise ValueError(_checks.sentence("epochs", rule, epochs, "Take more epochs, or `freeze_epochs=0`."))
    given = _given_rates(rates, groups)
    _checks.one_of("schedule", schedule, ("auto", *SCHEDULES))
    if snapshots and schedule not in ("auto", "warm-restarts"):
        rule = "be 'warm-restarts' or 'auto' for snapshots, which are kept at the end of cycles"
        raise ValueError(_checks.sentence("schedule", rule, schedule))
    if schedule == "auto":
        schedule = "warm-restarts" if snapshots else "cosine"
    if given and not given[-1]:
        freeze_epochs = 0  # nothing trains in a head phase
    head = [HeadPhase(freeze_epochs, given[-1] if given else None)] if freeze_epochs else []
    last = TrainPhase(epochs - freeze_epochs, given, schedule, snapshots or 3, snapshots > 0)
    return (*head, last) if given else (*head, FindPhase(), last)


def given_phases(phases: Any, epochs: Any, others: Mapping[str, Any]) -> tuple[Phase, ...]:
    """Phases that the user made.

    Args:
        phases: As for `fine_tune`.
        epochs: As for `fine_tune`, in epochs.
        others: Name -> value of what the phases say instead: rates, schedule, freeze_epochs, snapshots.

    Returns:
        Tuple of phases.

    Raises:
        ValueError: If `epochs` is not their sum, or something else is given that they say.
        TypeError: If one of them is something else.
    """
    rule = "be phases: HeadPhase, FindPhase, TrainPhase"
    chosen = tuple(_checks.sequence("phases", phases, rule))
    for phase in chosen:
        if not isinstance(phase, Phase):
            raise TypeError(_checks.sentence("phases", rule, phase))
    total = sum(getattr(phase, "epochs", 0) for phase in chosen)
    if epochs != total or not total:
        raise ValueError(_checks.sentence("epochs", f"be the sum of those of the phases, {total}", epochs))
    usual = inspect.signature(make_phases).parameters
    for name, value in others.items():
        default = usual[name].default
        if type(value) is not type(default) or value != default:
            raise ValueError(_checks.sentence(name, "be left out beside `phases`, which say it themselves", value))
    return chosen


def _given_rates(rates: Any, groups: LayerGroups) -> tuple[float, ...] | None:
    rule = f"be 'find', a rate, or one rate per group, {len(groups)}: {', '.join(groups.names)}"
    if isinstance(rates, str):
        if rates != "find":
            raise ValueError(_checks.sentence("rates", rule, rates))
        return None
    if isinstance(rates, (int, float, np.number)) or (isinstance(rates, np.ndarray) and not rates.ndim):
        top = _checks.number("rates", rates.item() if isinstance(rates, np.ndarray) else rates, above=0.0)
        return tuple(top * factor for factor in spread_factors(len(groups)))
    values = tuple(_checks.number("rates", rate, minimum=0.0) for rate in _checks.sequence("rates", rates, rule))
    if len(values) != len(groups) or not any(values):
        raise ValueError(_checks.sentence("rates", rule, list(values)))
    return values
