"""GradualUnfreeze: layer groups join the training one by one, from the head down."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kadence import _checks
from kadence.callbacks._steps import StepClock, check_single_steps, next_cycle_end, schedule_of
from kadence.freezing import freeze_to, groups_of
from kadence.groups import LayerGroups
from kadence.multipliers import check_points


class GradualUnfreeze(keras.callbacks.Callback):
    """Trains the head first, and unfreezes one layer group after the other below it.

    How much is unfrozen follows from the epoch, or from the step of the schedule, alone: training that is resumed goes
    on in the right phase. Groups below are frozen, as `freeze_to` does it: no backward pass, nothing moves, and the
    optimizer keeps the state of the weights that stay. Each change compiles the training step once more; where that
    is too dear, `gradual_multipliers` does without.

    Where a backup holds the optimizer, its state is that of the weights which trained then: call `apply` before the
    backup is restored.

    Args:
        groups: `LayerGroups` of the model; None for those of its `DiscriminativeOptimizer`.
        at_epochs: Numbers of finished epochs after which the next group joins: at most as many strictly increasing
            integers >= 1 as there are groups below the head. None, without `at_cycles`: 1, 2, 3, ..., in epochs.
        at_cycles: The same in finished cycles of the optimizer's `Schedule`, which may end within an epoch.
        batch_norm: What becomes of the BatchNormalization layers of a group that joins, "frozen" or "train", or a
            sequence of one per group; see `freeze_to`.

    Attributes:
        recompilations: How often the training step was compiled again within the last `fit`: once for each group that
            joined after its first batch. Integer.

    Raises:
        ValueError: If both `at_epochs` and `at_cycles` are given, or a value is out of range; from `fit`, if the
            optimizer has no `Schedule` with so many cycles where they are asked for.
        TypeError: If an argument has the wrong type.

    Example:
        >>> model.fit(x, y, epochs=4, callbacks=[kadence.GradualUnfreeze(groups)])

    Source:
        Howard & Ruder 2018, Universal Language Model Fine-tuning, section 3.3, arXiv:1801.06146.
    """

    def __init__(
        self,
        groups: LayerGroups | None = None,
        at_epochs: Sequence[int] | None = None,
        at_cycles: Sequence[int] | None = None,
        batch_norm: str | Sequence[str] = "frozen",
    ):
        super().__init__()
        self.model: Any
        if at_epochs is not None and at_cycles is not None:
            received = {"at_epochs": at_epochs, "at_cycles": at_cycles}
            raise ValueError(_checks.sentence("at", "be in one unit, epochs or cycles", received))
        if groups is not None and not isinstance(groups, LayerGroups):
            raise TypeError(_checks.sentence("groups", "be LayerGroups, from `kadence.split` for example", groups))
        self.groups = groups
        self.at_epochs = at_epochs
        self.at_cycles = at_cycles
        self.batch_norm = batch_norm
        if groups is not None:
            self._points(groups)
        self.recompilations = 0
        self._clock = StepClock()
        self._next: int | None = None

    def apply(self, model: keras.Model, done: int) -> tuple[str, ...]:
        """Freeze as at a moment of the training.

        Args:
            model: The model, built, compiled or not.
            done: What is finished by then, in epochs, or with `at_cycles` in optimizer steps. Integer >= 0.

        Returns:
            Names of the groups that train then.
        """
        groups = groups_of(model, self.groups)
        done = _checks.integer("done", done, minimum=0, unit="in epochs, or with `at_cycles` in optimizer steps")
        points = self._points(groups)
        if self.at_cycles is not None:
            points = _steps_of_cycles(model.optimizer, points)
        joined = sum(point <= done for point in points)
        self._next = points[joined] if joined < len(points) else None
        return freeze_to(model, len(groups) - 1 - joined, groups, batch_norm=self.batch_norm)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Count anew."""
        self.recompilations, self._trained = 0, False

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Freeze as it is at the beginning of this epoch."""
        if self.at_cycles is not None:
            check_single_steps(self.model)
            self._advance(self._clock.read(self.model.optimizer))
        else:
            self._advance(epoch)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Let the next group join, where a cycle ended with the batch before."""
        self._trained = True
        if self.at_cycles is None or self._next is None or self._clock.done(batch) < self._next:
            return
        step = self._clock.read(self.model.optimizer, batch)
        if step >= self._next:
            self._advance(step)

    def _advance(self, done: int) -> None:
        before = self.model.train_function
        self.apply(self.model, done)
        self.recompilations += self._trained and self.model.train_function is not before

    def _points(self, groups: LayerGroups) -> list[int]:
        if self.at_cycles is not None:
            return check_points("at_cycles", self.at_cycles, groups, "in cycles")
        if self.at_epochs is not None:
            return check_points("at_epochs", self.at_epochs, groups, "in epochs")
        return list(range(1, len(groups)))


def _steps_of_cycles(optimizer: Any, cycles: Sequence[int]) -> list[int]:
    """The steps at which so many cycles of the optimizer's schedule are done."""
    schedule = schedule_of(optimizer, "Give `at_epochs`.")
    starts = [0]
    while len(starts) <= max(cycles):
        end = next_cycle_end(schedule, starts[-1])
        if end is None:
            rule = f"be cycles that the schedule has; it has {len(starts) - 1}"
            raise ValueError(_checks.sentence("at_cycles", rule, list(cycles)))
        starts.append(end + 1)
    return [starts[cycle] for cycle in cycles]
