"""RateRecorder: what every batch was trained with."""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._rates import rate_scale, sample_rates
from kadence._updates import as_number, innermost
from kadence.records import RateRecord, write_text


class LossNotFiniteError(ArithmeticError):
    """Training was stopped because the loss became NaN or infinite."""


class RateRecorder(keras.callbacks.Callback):
    """Records each group's learning rate and the loss of every batch, at no cost per step.

    Rates are computed afterwards, from the schedule, in NumPy. A rate that is a variable is read once an epoch, before
    its first batch; a callback that sets the rate within an epoch needs `every_batch=True`.
    The loss of a batch is recovered from the running mean that Keras logs, which takes batches to be of one size: a
    shorter last batch is drawn towards the mean, and after a shorter one that is not the last, as in a shuffled
    PyDataset, the losses of the epoch are off. The logs of a `train_step` that returns the loss of the batch itself are
    taken as they are. At the end of an epoch, the rate of its last update goes into the logs under
    `learning_rate_<group>`, for History and for every callback that stands after this one in the list.

    Args:
        path: File to which the record is written as JSON at the end of every epoch, or None. Its folder is made then.
        previous: `RateRecord` of the run that this one continues, or None; its part before the first update stays in
            front.
        every_batch: If True, read a rate that is a variable before every batch. On JAX this makes Keras copy
            the whole state from the device at each step.
        stop_on_nan: If True, raise `LossNotFiniteError` out of `fit`, with the step and its rates, when the loss
            stops being a finite number.

    Attributes:
        record: The `RateRecord` so far; complete when `fit` has returned. It starts anew with each `fit`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: From `fit`, before the first step, if `previous` is of other groups.

    Example:
        >>> recorder = kadence.RateRecorder()
        >>> history = model.fit(x, y, callbacks=[recorder])
        >>> recorder.record.rates["group_1"]
    """

    #: Keras may call `on_train_batch_end` from a thread of its own, so that the device is not waited for.
    async_safe = True

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        previous: RateRecord | None = None,
        every_batch: bool = False,
        stop_on_nan: bool = False,
    ):
        super().__init__()
        self.model: Any
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise TypeError(_checks.sentence("path", "be the path of a file, or None", path))
        if previous is not None and not isinstance(previous, RateRecord):
            raise TypeError(_checks.sentence("previous", "be a RateRecord, or None", previous))
        self.path = path
        self.previous = previous
        self.every_batch = _checks.boolean("every_batch", every_batch)
        self.stop_on_nan = _checks.boolean("stop_on_nan", stop_on_nan)
        self.record = _empty()
        self._start: int | None = None
        self._logs_are_means: bool | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start a new record."""
        self._resumed = False
        self._logs_are_means = None
        self.record = _empty()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start an epoch without batches."""
        self._epoch = epoch
        self._logged: dict[int, float] = {}
        self._scales: dict[int, float] = {}
        self._start = None
        self._metrics: list[np.ndarray] | None = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Read the state that an epoch starts with; other callbacks have restored and set it by now."""
        if self._start is not None and not self.every_batch:
            return
        self._optimizer = self.model.optimizer
        if self._start is None:
            self._start = int(as_number(innermost(self._optimizer)._iterations))
            self._check_previous(self._start)
        self._scales[batch] = rate_scale(self._optimizer)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the loss that is logged."""
        self._logged[batch] = float((logs or {}).get("loss", np.nan))
        if self.stop_on_nan and "loss" in (logs or {}) and not np.isfinite(self._logged[batch]):
            raise LossNotFiniteError(self._not_finite("loss", self._logged[batch], batch))

    def _check_previous(self, start: int) -> None:
        """Raise if the record before cannot be joined to that of this optimizer."""
        if self.previous is None:
            return
        before = self.previous.before(start // (innermost(self._optimizer).gradient_accumulation_steps or 1))
        groups = sample_rates(self._optimizer, 0)
        if len(before) and set(before.rates) != set(groups):
            rule = f"be a record of the groups {list(groups)}"
            raise ValueError(_checks.sentence("previous", rule, list(before.rates)))

    def _not_finite(self, name: str, value: float, batch: int) -> str:
        step = ((self._start or 0) + batch) // (innermost(self._optimizer).gradient_accumulation_steps or 1)
        read = max(earlier for earlier in list(self._scales) if earlier <= batch)
        rates = sample_rates(self._optimizer, 1, step, scale=self._scales[read])
        shown = ", ".join(f"{group} {rate[0]:.3g}" for group, rate in rates.items())
        where = f"at optimizer step {step} (epoch {self._epoch + 1}, batch {batch + 1}), with learning rates {shown}"
        remedy = "Lower the rates, or look for bad labels and empty pictures."
        return _checks.sentence(name, f"stay finite; {where}, it did not", value, remedy)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Keep the metrics of the first epoch, which the validation resets."""
        if self._start is not None and self._logs_are_means is None:
            self._metrics = self._metrics_now()

    def _metrics_now(self) -> list[np.ndarray]:
        values = keras.tree.flatten(self.model.get_metrics_result())
        return [np.asarray(keras.ops.convert_to_numpy(value)) for value in values]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compute the epoch's part of the record, and put the last rates into the logs."""
        if self._start is None or not self._logged:
            return
        last, held_out = max(self._logged), (logs or {}).get("val_loss", 0.0)
        if self.stop_on_nan and not np.isfinite(held_out):
            # The last update may have spoilt the weights; the loss would show it one batch later.
            raise LossNotFiniteError(self._not_finite("val_loss", float(held_out), last))
        if self._logs_are_means is None and not _has_own_step(self.model):
            self._logs_are_means = True
        if self._logs_are_means is None:
            # A `train_step` of the user's may return the loss of the batch, which then is in no metric.
            metrics = self._metrics_now() if self._metrics is None else self._metrics
            self._logs_are_means = any(np.isclose(m, self._logged[last], 1e-5, equal_nan=True).any() for m in metrics)
        first_update = self._start // (innermost(self.model.optimizer).gradient_accumulation_steps or 1)
        if not self._resumed:
            self.record = self.previous.before(first_update) if self.previous is not None else self.record
            self._resumed = True
        part = self._epoch_record(self._start)
        self.record = self.record.then(part)
        if logs is not None:
            rates = part.rates if len(part) else sample_rates(self.model.optimizer, 1, first_update)
            logs.update({f"learning_rate_{name}": float(rate[-1]) for name, rate in rates.items()})
        if self.path is not None:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, self.record.to_json())

    def _epoch_record(self, start: int) -> RateRecord:
        optimizer = self.model.optimizer
        inner = innermost(optimizer)
        done = int(as_number(inner._iterations)) - start
        n_batches = max(self._logged) + 1
        if self.model.steps_per_execution > 1:
            # Keras counts the last execution as whole.
            n_batches = min(n_batches, (self.params or {}).get("steps") or done)
        losses = losses_of_logs(
            self._logged, self.model.steps_per_execution, n_batches, are_means=bool(self._logs_are_means)
        )
        # Where a loss scale skipped batches, fewer updates were done: the first batches are the ones it skips.
        batches = np.arange(len(losses))[len(losses) - done :]
        steps = (start + np.arange(len(batches))) // (inner.gradient_accumulation_steps or 1)
        first = start // (inner.gradient_accumulation_steps or 1)
        rates = sample_rates(optimizer, int(steps.max(initial=first)) - first + 1, first, scale=1.0)
        read = np.array(sorted(self._scales))
        scales = np.array([self._scales[batch] for batch in read.tolist()])
        # An update has the rate that was read before the last of its batches.
        last = batches[np.searchsorted(steps, steps, side="right") - 1]
        scale = scales[np.searchsorted(read, last, side="right") - 1]
        return RateRecord(
            steps,
            {name: rate[steps - first] * scale for name, rate in rates.items()},
            losses[batches],
        )


def _has_own_step(model: Any) -> bool:
    return "train_step" in vars(model) or type(model).train_step is not keras.Model.train_step


def losses_of_logs(
    logged: dict[int, float], steps_per_execution: int, n_batches: int, are_means: bool = True
) -> np.ndarray:
    """The loss of each batch, from what is logged at the end of each execution.

    Args:
        logged: Index at the end of each execution, as Keras counts -> loss.
        steps_per_execution: Batches in one execution, which share their mean loss; the last may have fewer. Integer
            number of steps >= 1.
        n_batches: Number of batches in all. Integer >= 1.
        are_means: Whether what is logged is the mean over all batches up to it, or the loss of the last one.

    Returns:
        Array of shape (n_batches,), float64.
    """
    batches = sorted(logged)
    stops = np.minimum(np.arange(1, len(batches) + 1) * steps_per_execution, n_batches)
    counts = np.diff(stops, prepend=0)
    losses = np.array([logged[batch] for batch in batches], np.float64)
    return np.repeat(np.diff(losses * stops, prepend=0.0) / counts if are_means else losses, counts)


def _empty() -> RateRecord:
    return RateRecord(np.zeros(0, np.int64), {}, np.zeros(0))
