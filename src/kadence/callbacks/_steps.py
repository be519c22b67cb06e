"""When an optimizer step is reached, without a look at the device in every batch."""

from typing import Any

import numpy as np

from kadence import _checks
from kadence._updates import UpdatesByGroup, as_number, innermost
from kadence.schedules import Schedule

#: Steps that are searched for the end of a cycle, one block after the other.
_BLOCKS = (2**8, 2**12, 2**16, 2**20)


class StepClock:
    """Counts the steps of a schedule from batch to batch.

    The count is an upper bound: batches that a loss scale skips are no steps. So when it reaches a step that matters,
    read the optimizer once more.
    """

    def read(self, optimizer: Any, batch: int = 0) -> int:
        """Set the clock by the optimizer's own count.

        Args:
            optimizer: The compiled optimizer; on JAX its state must be synced.
            batch: Index within the epoch of the next batch.

        Returns:
            Steps done. Integer.
        """
        inner = innermost(optimizer)
        # Without groups, Keras passes the count of micro-batches to a schedule.
        self._micro = (inner.gradient_accumulation_steps or 1) if isinstance(inner, UpdatesByGroup) else 1
        self._offset = int(as_number(inner._iterations)) - batch
        return self.done(batch)

    def done(self, batch: int) -> int:
        """Steps done before a batch, at most.

        Args:
            batch: Index within the epoch.

        Returns:
            Integer.
        """
        return (self._offset + batch) // self._micro


def schedule_of(optimizer: Any, remedy: str) -> Schedule:
    """The Kadence schedule of an optimizer's base rate.

    Args:
        optimizer: Any Keras optimizer, wrapped or not.
        remedy: Sentence for the error.

    Returns:
        `Schedule`.

    Raises:
        ValueError: If the rate is something else.
    """
    rate = getattr(innermost(optimizer), "_learning_rate", None)
    if not isinstance(rate, Schedule):
        rule = "be a kadence.Schedule, which says where its cycles end"
        shown = as_number(rate) if hasattr(rate, "assign") else rate
        raise ValueError(_checks.sentence("learning_rate", rule, shown, remedy))
    return rate


def next_cycle_end(schedule: Schedule, step: int) -> int | None:
    """The first step, from a given one on, that is the last of a cycle.

    Args:
        schedule: The schedule.
        step: Optimizer step to begin at. Integer >= 0.

    Returns:
        Index of the optimizer step, or None if no cycle ends within the next million of steps.
    """
    for block in _BLOCKS:
        steps = np.arange(step, min(step + block, _checks.MAX_STEPS + 1))
        ends = steps[schedule.cycle_of(steps)[1] == steps]
        if len(ends):
            return int(ends[0])
    return None


def check_single_steps(model: Any) -> None:
    """Raise if `fit` hands out several steps at once.

    Args:
        model: The compiled model.

    Raises:
        ValueError: If it does.
    """
    if model.steps_per_execution > 1:
        rule = "be 1, so that `fit` can stop at the last step of a cycle"
        raise ValueError(_checks.sentence("steps_per_execution", rule, model.steps_per_execution))
