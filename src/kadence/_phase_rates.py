"""Peak rates of the phases: a bold one for the head, a ladder below it, and a range test as their bound."""

from collections.abc import Sequence

import numpy as np

from kadence._job import Job, TrainedPart
from kadence.finder import lr_range_test
from kadence.groups import LayerGroups
from kadence.range_test import RULES, RangeTest
from kadence.schedules import Constant

#: Rate that a new head bears above pretrained layers at less, with an optimizer that scales its steps and with SGD: the
#: best ones of a steep ladder on groceries, see docs/what-helps.md. Lion has a tenth, as its authors advise.
_BOLD = 1e-2
_BOLD_OF = {"SGD": 3e-2, "Lion": 1e-3}
#: What the group before the head bears of it; at more the same networks lost what they knew.
_BEFORE = 0.1
#: Share of the rate at which the loss rose in a range test that is still taken.
_SAFE = 0.1
#: How many times the rate of the first group that of the head is, as in fastai's `fine_tune`.
SPREAD = 100.0
#: Where a rate comes from: "bold", or a rule of `RangeTest.suggest`.
RATE_RULES = ("bold", *RULES)
#: Fewest and most optimizer steps of a range test: as a bound, over fewer decades, and as an answer.
_BOUND_STEPS, _ANSWER_STEPS = (20, 60), (30, 100)
#: First rate of a range test, as pretrained layers do not learn at less, and last rate of one that answers.
_LOWEST, _HIGHEST = 1e-5, 10.0


def spread_factors(n_groups: int, spread: float = SPREAD) -> list[float]:
    """Factor on the rate of the head of each group, from 1 / spread to 1.

    Args:
        n_groups: Number of groups. Integer >= 1.
        spread: As for `FindPhase`.

    Returns:
        List of floats.
    """
    return np.geomspace(1.0 / spread, 1.0, n_groups).tolist() if n_groups > 1 else [1.0]


def bold_rate(job: Job, before: float) -> float:
    """The peak rate of the head that a range test may lower.

    Args:
        job: What the phase works on.
        before: Factor on the rate of the head of the group before it; 0 where that is frozen.

    Returns:
        Float.
    """
    return _BOLD_OF.get(type(job.compiled.optimizer).__name__, _BOLD) * _BEFORE / max(before, _BEFORE)


def range_test_of(
    job: Job,
    part: TrainedPart,
    rule: str,
    bold: float,
    n_steps: int | None = None,
    groups: LayerGroups | None = None,
    factors: Sequence[float] | None = None,
) -> RangeTest:
    """The range test of a phase, which is made unless the run has it already.

    A test that is only a bound ends where the loss may rise without lowering the bold rate.

    Args:
        job: What the phase works on.
        part: The job's model, or the part of it that trains.
        rule: As for `FindPhase`.
        bold: From `bold_rate`.
        n_steps: Length, in optimizer steps. Integer >= 20; None for that of an epoch where it is a bound, of two where
            it answers, within limits. Of stored features the longest, which cost little.
        groups: The layer groups, or None for one rate.
        factors: Factor on the rate of each group.

    Returns:
        `RangeTest`.
    """
    is_bound = rule == "bold"
    shortest, longest = _BOUND_STEPS if is_bound else _ANSWER_STEPS
    n_updates = job.compiled.updates(len(part.batches) * (1 if is_bound else 2))
    length = n_steps or (min(max(n_updates, shortest), longest) if part.is_whole else longest)
    highest = bold / _SAFE if is_bound else _HIGHEST

    def make() -> RangeTest:
        job.tell(f"{job.phase}: range test of {length} steps")
        job.compiled.compile(part.model, Constant(_LOWEST), groups, multipliers=factors)
        return lr_range_test(
            part.model,
            part.batches,
            lr_min=_LOWEST,
            lr_max=highest,
            n_steps=length,
            seed=job.seed,
            callbacks=job.find_callbacks,
        )

    return job.range_test(make)


def peak_of(job: Job, test: RangeTest, of: str, rule: str, bold: float) -> float:
    """Peak rate of the head.

    Args:
        job: What the phase works on; a rate that the test lowered, or a rule without a clear answer, becomes a note.
        test: The range test.
        of: What was tested, for the note.
        rule: As for `FindPhase`.
        bold: From `bold_rate`.

    Returns:
        Float.
    """
    if rule != "bold":
        suggestion = test.suggest(rule)
        found = suggestion.rates["all"]
        if found is not None:
            return found
        job.notes.append(f"The range test of the {of} has no clear answer ({suggestion.reasons['all']}).")
    curve = test.curves[0]
    bearable = _SAFE * float(test.rates[len(curve.losses) - 1])
    if curve.stopped == "end" or bearable >= bold:
        return bold
    job.notes.append(f"In the range test of the {of} the loss rose early: {bearable:.3g}, a tenth of there, is taken.")
    return bearable
