"""The callbacks of a sweep: the loss of each step, and the end of the sweep."""

import threading
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._suggestions import smoothing


class LossCurve(keras.callbacks.Callback):
    """The training loss of each step of a sweep, from logs that are each of one batch; ends the sweep.

    Args:
        n_steps: Length of the sweep, in optimizer steps. Integer >= 1.
        accumulation: Batches in a step. Integer >= 1.
        stop_factor: The sweep ends when the smoothed loss is above this factor times its lowest.

    Attributes:
        losses: The losses so far, finite floats.
        stopped: Why it ended, one of the codes of `Curve`.
    """

    #: Keras may call `on_train_batch_end` from threads of its own, so that the device is not waited for.
    async_safe = True

    def __init__(self, n_steps: int, accumulation: int, stop_factor: float):
        super().__init__()
        # Not `model`, which on JAX copies the whole state from the device.
        self._model: Any
        self._n_steps, self._accumulation, self._stop_factor = n_steps, accumulation, stop_factor
        self._beta = smoothing(n_steps)
        self._average, self._lowest = 0.0, np.inf
        self._lock, self._closed = threading.Lock(), False
        self._batches_before = 0
        self._parts: list[float] = []
        #: Batches in each pass through the data.
        self.passes: list[int] = []
        self.losses: list[float] = []
        self.stopped = "data"

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Go on with the first batch."""
        self._logged: dict[int, float] = {}
        self._n_read = 0

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Let the last batch be the last, on time: what reads the losses runs behind."""
        if self._batches_before + batch + 1 >= self._n_steps * self._accumulation:
            self._model.stop_training = True

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Read the losses, in the order of the batches, as far as they are there."""
        with self._lock:
            self._logged[batch] = _loss_in(logs)
            while self._n_read in self._logged and not self._closed:
                self._n_read += 1
                self._read_batch(self._logged[self._n_read - 1])

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Go on with the data from its start, unless the sweep is over or the data is used up."""
        self.passes.append(len(self._logged))
        self._batches_before += len(self._logged)
        done = self._batches_before >= self._n_steps * self._accumulation
        self._model.stop_training = self._closed or done or not self._logged

    def close(self) -> None:
        """Take no notice of what comes later."""
        with self._lock:
            self._closed = True

    def _read_batch(self, loss: float) -> None:
        self._parts.append(loss)
        if len(self._parts) == self._accumulation:
            self._read_step(float(np.mean(self._parts)))
            self._parts.clear()

    def _read_step(self, loss: float) -> None:
        if not np.isfinite(loss):
            self._stop("not finite")
            return
        self.losses.append(loss)
        self._average = self._beta * self._average + (1.0 - self._beta) * loss
        smoothed = self._average / (1.0 - self._beta ** len(self.losses))
        self._lowest = min(self._lowest, smoothed)
        # For a loss above 0 that is stop_factor * lowest.
        if smoothed > self._lowest + (self._stop_factor - 1.0) * abs(self._lowest):
            self._stop("rose")
        elif len(self.losses) == self._n_steps:
            self._stop("end")

    def _stop(self, why: str) -> None:
        self.stopped, self._closed = why, True
        self._model.stop_training = True


class HeldOutLossCurve(LossCurve):
    """The loss on one fixed batch after each step of a sweep.

    Args:
        n_steps: Length of the sweep, in optimizer steps. Integer >= 1.
        accumulation: Batches in a step. Integer >= 1.
        stop_factor: The sweep ends when the smoothed loss is above this factor times its lowest.
        batch: What `test_on_batch` takes: x, y and sample weights.
    """

    async_safe = False

    def __init__(self, n_steps: int, accumulation: int, stop_factor: float, batch: tuple[Any, ...]):
        super().__init__(n_steps, accumulation, stop_factor)
        self._batch = batch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Evaluate, where the batch ended a step."""
        self._logged[batch] = _loss_in(logs)
        if (self._batches_before + batch + 1) % self._accumulation == 0 and not self._closed:
            # `model` and not `_model`: this wants the weights as they are now.
            model: Any = self.model
            model.reset_metrics()  # older Keras answers with the mean of this batch and those before
            self._read_step(float(model.test_on_batch(*self._batch, return_dict=True)["loss"]))


def _loss_in(logs: Mapping[str, Any] | None) -> float:
    if "loss" not in (logs or {}):
        remedy = "The model's own `train_step` has to return it."
        raise ValueError(_checks.sentence("logs", "hold the loss of the batches", sorted(logs or {}), remedy))
    return float((logs or {})["loss"])
