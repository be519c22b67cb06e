"""RateRecorder: what every batch was trained with."""

import os
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
    shorter last batch is drawn towards the mean. At the end of an epoch, the rate of its last update goes into the
    logs under `learning_rate_<group>`, for History and for every callback that stands after this one in the list.

    Args:
        path: File to which the record is written as JSON at the end of every epoch, or None.
        previous: `RateRecord` of the run that this one continues; its part before the first update stays in front.
        every_batch: If True, read a rate that is a variable before every batch. On JAX this makes Keras copy
            the whole state from the device at each step.
        stop_on_nan: If True, raise `LossNotFiniteError` out of `fit`, with the step and its rates, when the loss
            stops being a finite number.

    Attributes:
        record: The `RateRecord` so far; complete when `fit` has returned. It starts anew with each `fit`.

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
        self.path = path
        self.previous = previous
        self.every_batch = every_batch
        self.stop_on_nan = stop_on_nan
        self.record = _empty()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start a new record."""
        self._resumed = False
        self.record = _empty()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start an epoch without batches."""
        self._epoch = epoch
        self._means: dict[int, float] = {}
        self._scales: dict[int, float] = {}
        self._start: int | None = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Read the state that an epoch starts with; other callbacks have restored and set it by now."""
        if self._start is not None and not self.every_batch:
            return
        self._optimizer = self.model.optimizer
        if self._start is None:
            self._start = int(as_number(innermost(self._optimizer)._iterations))
        self._scales[batch] = rate_scale(self._optimizer)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the running mean of the loss."""
        self._means[batch] = float((logs or {}).get("loss", np.nan))
        if self.stop_on_nan and "loss" in (logs or {}) and not np.isfinite(self._means[batch]):
            raise LossNotFiniteError(self._not_finite(batch))

    def _not_finite(self, batch: int) -> str:
        step = ((self._start or 0) + batch) // (innermost(self._optimizer).gradient_accumulation_steps or 1)
        rates = sample_rates(self._optimizer, 1, step, scale=next(iter(self._scales.values())))
        shown = ", ".join(f"{name} {rate[0]:.3g}" for name, rate in rates.items())
        where = f"at optimizer step {step} (epoch {self._epoch + 1}, batch {batch + 1}), with learning rates {shown}"
        remedy = "Lower the rates, or look for bad labels and empty pictures."
        return _checks.sentence("loss", f"stay finite; {where}, it did not", self._means[batch], remedy)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compute the epoch's part of the record, and put the last rates into the logs."""
        if self._start is None or not self._means:
            return
        if self.stop_on_nan and not np.isfinite((logs or {}).get("val_loss", 0.0)):
            # The last update spoilt the weights; a loss would show it one batch later.
            raise LossNotFiniteError(self._not_finite(max(self._means)))
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
            write_text(self.path, self.record.to_json())

    def _epoch_record(self, start: int) -> RateRecord:
        optimizer = self.model.optimizer
        inner = innermost(optimizer)
        done = int(as_number(inner._iterations)) - start
        n_batches = max(self._means) + 1
        if self.model.steps_per_execution > 1:
            # Keras counts the last execution as whole.
            n_batches = min(n_batches, (self.params or {}).get("steps") or done)
        losses = losses_of_means(self._means, self.model.steps_per_execution, n_batches)
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


def losses_of_means(means: dict[int, float], steps_per_execution: int, n_batches: int) -> np.ndarray:
    """The loss of each batch, from the mean over the batches up to it.

    Args:
        means: Index at the end of each execution, as Keras counts -> mean of the losses up to it.
        steps_per_execution: Batches in one execution, which share their mean loss; the last may have fewer. Integer
            number of steps >= 1.
        n_batches: Number of batches in all. Integer >= 1.

    Returns:
        Array of shape (n_batches,), float64.
    """
    batches = sorted(means)
    stops = np.minimum(np.arange(1, len(batches) + 1) * steps_per_execution, n_batches)
    counts = np.diff(stops, prepend=0)
    totals = np.array([means[batch] for batch in batches], np.float64) * stops
    return np.repeat(np.diff(totals, prepend=0.0) / counts, counts)


def _empty() -> RateRecord:
    return RateRecord(np.zeros(0, np.int64), {}, np.zeros(0))
