"""How long a run is; times in epochs, per cent of it, or minutes -> optimizer steps, here and nowhere else."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from kadence import _checks

_STEPS = "in optimizer steps"
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?(ep|%|st)?", re.ASCII)
_FORMS = 'be a duration such as "5ep" (epochs), "10%" (of the run), "500st" or the integer 500 (optimizer steps)'


@dataclass(frozen=True)
class RunLength:
    """How long a run is, in optimizer steps and, where they are known, in epochs; made by `run_length`.

    Args:
        n_steps: Optimizer updates in the run. Integer >= 1.
        epochs: Epochs in the run, or None where the length of an epoch is not known. Float > 0.
        batches_per_epoch: Batches in an epoch, or None. Integer >= 1.
        accumulation: Batches in one update. Integer >= 1.
    """

    n_steps: int
    epochs: float | None = None
    batches_per_epoch: int | None = None
    accumulation: int = 1

    @property
    def steps_per_epoch(self) -> float | None:
        """Optimizer updates in an epoch, or None; not a whole number where updates reach across epochs."""
        return None if self.batches_per_epoch is None else self.batches_per_epoch / self.accumulation

    def steps(self, duration: str | int, name: str = "duration", within: bool = True) -> int:
        """A duration in this run, in optimizer steps.

        Args:
            duration: Such as "5ep", "10%", "500st" or 500; see `parse_duration`.
            name: What an error calls the duration.
            within: Whether the duration may not be longer than the run.

        Returns:
            Integer number of optimizer steps.
        """
        known = {"n_steps": self.n_steps, "steps_per_epoch": self.steps_per_epoch}
        return parse_duration(duration, **known, name=name, within=within)

    def steps_in_epochs(self, epochs: int) -> int | None:
        """Updates done after a number of whole epochs, or None where the length of an epoch is not known.

        Args:
            epochs: Number of epochs. Integer >= 0.

        Returns:
            Integer number of optimizer steps, or None.
        """
        return None if self.batches_per_epoch is None else epochs * self.batches_per_epoch // self.accumulation

    def epoch_of(self, step: int) -> int | None:
        """The epoch in which an update is done, or None where the length of an epoch is not known.

        Args:
            step: Optimizer step, from 0.

        Returns:
            Number of the epoch, from 1, or None.
        """
        if self.batches_per_epoch is None:
            return None
        return ((step + 1) * self.accumulation - 1) // self.batches_per_epoch + 1

    def whole_epochs(self) -> "RunLength":
        """The same run without its last epoch if that one is cut short; a run of less than one epoch is an error."""
        if self.batches_per_epoch is None:
            return self
        epochs = self.n_steps * self.accumulation // self.batches_per_epoch
        if epochs < 1:
            rule = f"be at least one epoch, {self.steps_per_epoch:g} optimizer steps"
            raise ValueError(_checks.sentence("n_steps", rule, self.n_steps))
        steps = epochs * self.batches_per_epoch // self.accumulation
        return RunLength(steps, epochs, self.batches_per_epoch, self.accumulation)

    def __str__(self) -> str:
        if self.epochs is None:
            return f"{self.n_steps:,} updates"
        return f"{self.epochs:g} epochs of {self.steps_per_epoch:g} updates: {self.n_steps:,} updates"


def run_length(
    *,
    epochs: int | None = None,
    n_steps: int | None = None,
    n_samples: int | None = None,
    batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    accumulation: int = 1,
) -> RunLength:
    """How long a run is.

    Its length is `epochs` or `n_steps`, one of the two. The length of an epoch is `steps_per_epoch`, or `n_samples`
    with `batch_size`; `epochs` needs one of these, and `n_steps` goes without. Keras counts micro-batches on across
    epochs: where an update is not done at the end of an epoch, it is done in the next, and at the end of the run never.

    Args:
        epochs: Length of the run in epochs. Integer >= 1.
        n_steps: Length of the run in optimizer steps. Integer >= 1.
        n_samples: Samples in the training data; the last batch of an epoch may be smaller. Integer >= 1.
        batch_size: Samples in a batch. Integer >= 1.
        steps_per_epoch: Optimizer updates in an epoch. Integer >= 1.
        accumulation: Batches in one update, Keras's `gradient_accumulation_steps`. Integer >= 1.

    Returns:
        `RunLength`.

    Raises:
        ValueError: If the length is given not at all or twice, a value is out of range, or no update would be done.
        TypeError: If a value is not an integer.

    Example:
        >>> kadence.durations.run_length(epochs=10, n_samples=2_650, batch_size=32).n_steps
        830
    """
    accumulation = _checks.integer("accumulation", accumulation, minimum=1, unit="in batches")
    batches = _batches_per_epoch(n_samples, batch_size, steps_per_epoch, accumulation)
    if (epochs is None) == (n_steps is None):
        received = {"epochs": epochs, "n_steps": n_steps}
        raise ValueError(_checks.sentence("length", "be exactly one of the two, `epochs` or `n_steps`", received))
    if n_steps is not None:
        n_steps = _checks.integer("n_steps", n_steps, minimum=1, unit=_STEPS)
        return RunLength(n_steps, n_steps * accumulation / batches if batches else None, batches, accumulation)
    epochs = _checks.integer("epochs", epochs, minimum=1, unit="in epochs")
    if batches is None:
        rule = "come with the length of an epoch, `steps_per_epoch`, or `n_samples` with `batch_size`"
        raise ValueError(_checks.sentence("epochs", rule, epochs))
    if epochs * batches < accumulation:
        rule = f"be at most the number of batches in the run, {epochs * batches}, or no update is done"
        raise ValueError(_checks.sentence("accumulation", rule, accumulation))
    n_steps = _checks.integer("n_steps", epochs * batches // accumulation, minimum=1, unit=_STEPS)
    return RunLength(n_steps, epochs, batches, accumulation)


def _batches_per_epoch(n_samples: Any, batch_size: Any, steps_per_epoch: Any, accumulation: int) -> int | None:
    received = {"n_samples": n_samples, "batch_size": batch_size, "steps_per_epoch": steps_per_epoch}
    known = [value is not None for value in received.values()]
    if known not in ([False] * 3, [True, True, False], [False, False, True]):
        rule = "be `steps_per_epoch`, or `n_samples` with `batch_size`"
        raise ValueError(_checks.sentence("epoch", rule, received))
    if steps_per_epoch is not None:
        return _checks.integer("steps_per_epoch", steps_per_epoch, minimum=1, unit=_STEPS) * accumulation
    if n_samples is None:
        return None
    n_samples = _checks.integer("n_samples", n_samples, minimum=1, unit="in samples")
    return -(-n_samples // _checks.integer("batch_size", batch_size, minimum=1, unit="in samples"))


def parse_duration(
    duration: str | int,
    *,
    n_steps: int | None = None,
    steps_per_epoch: float | None = None,
    name: str = "duration",
    within: bool = True,
) -> int:
    """A time with its unit, in optimizer steps, rounded to the nearest, halves up.

    Args:
        duration: Time in epochs, "5ep" or "0.5ep"; in per cent of the run, "10%"; or in optimizer steps, "500st",
            "500" or the integer 500.
        n_steps: Length of the run in optimizer steps, or None where it is not known. Integer >= 1.
        steps_per_epoch: Optimizer updates in an epoch, or None where they are not known. Number > 0.
        name: What an error calls the duration.
        within: Whether the duration may not be longer than the run.

    Returns:
        Integer number of optimizer steps. 0 only for a duration of 0.

    Raises:
        ValueError: If the text is not such a duration, it is longer than the run or rounds to no step at all, or it
            needs `n_steps` or `steps_per_epoch` and there is none.
        TypeError: If the duration is neither a string nor an integer.

    Example:
        >>> [kadence.parse_duration(text, n_steps=830, steps_per_epoch=83) for text in ("2ep", "10%", "500st", 7)]
        [166, 83, 500, 7]
    """
    longest = n_steps if n_steps is not None and within else _checks.MAX_STEPS
    if not isinstance(duration, str):
        if isinstance(duration, bool) or not hasattr(duration, "__index__"):
            raise TypeError(_checks.sentence(name, _FORMS, duration))
        return _checks.integer(name, duration, minimum=0, unit=_STEPS, maximum=longest)
    match = _DURATION.fullmatch(duration.strip())
    if match is None or (match[2] in (None, "st") and "." in match[1]):
        raise ValueError(_checks.sentence(name, _FORMS, duration))
    exact = Fraction(match[1]) * _unit(name, match[2], duration, n_steps, steps_per_epoch)
    steps = int(exact + Fraction(1, 2))
    if exact and not steps:
        raise ValueError(_checks.sentence(name, "be 0 or at least one optimizer step", duration))
    if steps > longest:
        rule = f"be at most {longest} optimizer steps" + (", the length of the run" if longest == n_steps else "")
        raise ValueError(_checks.sentence(name, rule, duration, f"It is {steps}."))
    return steps


def _unit(name: str, unit: str | None, duration: str, n_steps: int | None, steps_per_epoch: float | None) -> Fraction:
    """Optimizer steps in one unit."""
    if unit == "%":
        if n_steps is None:
            raise ValueError(_checks.sentence(name, "not be a share of a run of unknown length", duration))
        return Fraction(_checks.integer("n_steps", n_steps, minimum=1, unit=_STEPS), 100)
    if unit == "ep":
        if steps_per_epoch is None:
            rule = "not be in epochs where the length of an epoch is not known"
            raise ValueError(_checks.sentence(name, rule, duration, 'Give it in optimizer steps, such as "500st".'))
        return Fraction(_checks.number("steps_per_epoch", steps_per_epoch, above=0.0, unit=_STEPS))
    return Fraction(1)


def minutes_to_steps(minutes: float, seconds_per_step: float) -> int:
    """Optimizer steps that fit into a time.

    Args:
        minutes: Time in minutes. Float > 0.
        seconds_per_step: Measured time of one optimizer step, in seconds. Float > 0.

    Returns:
        Integer number of optimizer steps >= 1, rounded down.

    Raises:
        ValueError: If an argument is out of range, or not one step fits.
        TypeError: If an argument is not a number.

    Example:
        >>> kadence.minutes_to_steps(30, seconds_per_step=0.12)
        15000
    """
    exact = Fraction(repr(_checks.number("minutes", minutes, above=0.0, unit="in minutes")))
    each = Fraction(repr(_checks.number("seconds_per_step", seconds_per_step, above=0.0, unit="in seconds")))
    rule = f"be at least one optimizer step of {seconds_per_step:g} seconds, and at most 2**31 - 1"
    steps = int(60 * exact / each)
    if not 1 <= steps <= _checks.MAX_STEPS:
        raise ValueError(_checks.sentence("minutes", rule, minutes))
    return steps
