"""The learning-rate range test: a sweep over the rates, after which the model is as it was before."""

import threading
import types
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._randomness import preserved_randomness, seed_global
from kadence._rates import sample_rates
from kadence._restore import ModelState, given_back
from kadence._suggestions import smoothing
from kadence._sweep import Sweep, layers_of
from kadence._updates import as_number, innermost
from kadence.callbacks import EpochSeeds
from kadence.range_test import Curve, RangeTest, sweep_rates
from kadence.schedules import Schedule

#: What Keras says of data that is gone through again, or in its own order.
_KNOWN = ("Your input ran out of data", "`shuffle=True` was passed, but will be ignored")


def lr_range_test(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    batch_size: int | None = None,
    lr_min: float = 1e-7,
    lr_max: float = 10.0,
    n_steps: int = 100,
    per_group: bool = False,
    n_runs: int = 1,
    validation_data: Any = None,
    stop_factor: float = 4.0,
    seed: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> RangeTest:
    """Train for a few steps at rates that grow from `lr_min` to `lr_max`, record the losses, and put everything back.

    Args:
        model: Compiled model, with any Keras optimizer.
        x: Training data, whatever `fit` takes.
        y: Targets, where `x` does not hold them.
        batch_size: In samples, where `x` is arrays; 32 if None.
        lr_min: First rate. Float > 0.
        lr_max: Last rate. Float > lr_min.
        n_steps: Length of a sweep, in optimizer steps. Integer >= 20.
        per_group: If False, all groups move together with their ratios kept, and the rates are those of
            `optimizer.learning_rate`. If True, each group moves on its own while the others stand still at their
            current rate.
        n_runs: Number of runs, each with a data order and dropout of its own. Integer >= 1.
        validation_data: Data to take the losses from instead.
        stop_factor: A sweep ends when the smoothed loss is above this factor times its lowest. Float > 1.
        seed: Seed of data order and dropout. Integer >= 0, or None to draw one.
        callbacks: Further Keras callbacks, given to each sweep.

    Returns:
        `RangeTest`.
    """
    lr_min = _checks.number("lr_min", lr_min, above=0.0)
    lr_max = _checks.number("lr_max", lr_max, above=0.0)
    if lr_max <= lr_min:
        raise ValueError(_checks.sentence("lr_max", f"be > lr_min, which is {lr_min!r}", lr_max))
    n_steps = _checks.integer("n_steps", n_steps, minimum=20, unit="in optimizer steps")
    n_runs = _checks.integer("n_runs", n_runs, minimum=1, unit="a number of runs")
    per_group = _checks.boolean("per_group", per_group)
    stop_factor = _checks.number("stop_factor", stop_factor, above=1.0)
    if seed is not None:
        seed = _checks.integer("seed", seed, minimum=0, unit="a seed")
    with preserved_randomness():
        drawn = int(np.random.randint(2**31 - 1)) if seed is None else seed  # noqa: NPY002
        data = {"x": x, "y": y, "batch_size": batch_size}
        with given_back(model, data) as state:
            test = _Test(model, state, data, sweep_rates(lr_min, lr_max, n_steps), stop_factor, callbacks)
            plan = test.sweeps(per_group)
            curves = [test.run(name, run, drawn, *moves) for run in range(n_runs) for name, *moves in plan]
    return RangeTest(
        lr_min,
        lr_max,
        n_steps,
        per_group,
        test.current_rates,
        test.multipliers,
        [curve for curve in curves if curve.group],
        [curve for curve in curves if not curve.group],
        stop_factor,
        drawn,
        notes=test.notes,
    )


class _Test:
    """A model with a swept stand-in for its optimizer, and the sweeps of it."""

    def __init__(
        self,
        model: Any,
        state: ModelState,
        data: dict[str, Any],
        rates: np.ndarray,
        stop_factor: float,
        callbacks: Sequence[keras.callbacks.Callback],
    ):
        self._model, self._state, self._callbacks = model, state, callbacks
        self._data = data
        self._n_steps, self._stop_factor = len(rates), stop_factor
        self._sweep = Sweep(model.optimizer, rates)
        self._sweep.build(model.trainable_variables)
        inner = innermost(model.optimizer)
        self._accumulation = inner.gradient_accumulation_steps or 1
        update = int(as_number(inner.iterations))
        self.current_rates = {name: float(r[0]) for name, r in sample_rates(model.optimizer, 1, update).items()}
        grouped, _ = layers_of(model.optimizer)
        factors = [1.0] if grouped is None else grouped.lr_multipliers
        factors = [float(f.at(update)) if isinstance(f, Schedule) else f for f in factors]
        self.multipliers = dict(zip(self.current_rates, factors, strict=True))
        self.notes: list[str] = []
        # JAX finds a compiled step by its function: this one must not be taken for that of another optimizer.
        step = model.train_step
        vars(model).update(
            optimizer=self._sweep.optimizer,
            train_function=None,
            train_step=lambda *arguments: step(*arguments),
            steps_per_execution=1,
            _initial_epoch=None,
        )

    def sweeps(self, per_group: bool) -> list[tuple[str, list[float], list[float]]]:
        """What moves in each sweep of a run: name, factors on the swept rate, rates that stand still."""
        n_groups, current = len(self.current_rates), list(self.current_rates.values())
        if not per_group:
            return [("all", list(self.multipliers.values()), [0.0] * n_groups)]
        alone = [
            (name, [float(i == g) for i in range(n_groups)], [0.0 if i == g else r for i, r in enumerate(current)])
            for g, name in enumerate(self.current_rates)
        ]
        return [("", [0.0] * n_groups, current), *alone]

    def run(self, name: str, run: int, seed: int, factors: list[float], still: list[float]) -> Curve:
        """One sweep."""
        self._state.put_back_variables()
        self._sweep.begin(factors, still)
        run_seed = int(np.random.default_rng([seed, run]).integers(2**31))
        seed_global(run_seed)
        losses = _Losses(self._n_steps, self._accumulation, self._stop_factor)
        total = self._n_steps * self._accumulation
        # An epoch has at least one batch; a generator begins at its first two batches in every epoch, so has one epoch.
        epochs = 1 if isinstance(self._data["x"], types.GeneratorType) else total
        with warnings.catch_warnings():
            for message in _KNOWN:
                warnings.filterwarnings("ignore", message)
            try:
                callbacks = [EpochSeeds(run_seed), losses, *self._callbacks]
                self._model.fit(**self._data, epochs=epochs, verbose=0, callbacks=callbacks)
            finally:
                losses.close()
        return Curve(name, run, np.array(losses.losses), losses.stopped)


class _Losses(keras.callbacks.Callback):
    """The loss of each step of a sweep, from the running mean that Keras logs; ends the sweep."""

    #: Keras may call `on_train_batch_end` from a thread of its own, so that the device is not waited for.
    async_safe = True

    def __init__(self, n_steps: int, accumulation: int, stop_factor: float):
        super().__init__()
        self._model: Any
        self._n_steps, self._accumulation, self._stop_factor = n_steps, accumulation, stop_factor
        self._beta = smoothing(n_steps)
        self._average, self._best = 0.0, np.inf
        self._lock, self._closed = threading.Lock(), False
        self._batches_before = 0
        self._micro: list[float] = []
        self.losses: list[float] = []
        self.stopped = "data"

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start a running mean."""
        self._means: dict[int, float] = {}
        self._mean, self._n_read = 0.0, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Let the last batch be the last, on time: what follows runs behind."""
        if self._batches_before + batch + 1 >= self._n_steps * self._accumulation:
            self._model.stop_training = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Read the losses as far as they are there without a gap."""
        with self._lock:
            self._means[batch] = float((logs or {})["loss"])
            while not self._closed and self._n_read in self._means:
                mean, n = self._means[self._n_read], self._n_read
                self._micro.append(mean * (n + 1) - self._mean * n)
                self._mean, self._n_read = mean, n + 1
                if len(self._micro) == self._accumulation:
                    self._add(float(np.mean(self._micro)))
                    self._micro = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Go on with the data from its start, unless the sweep is over or the data is used up."""
        self._batches_before += len(self._means)
        done = self._batches_before >= self._n_steps * self._accumulation
        self._model.stop_training = self._closed or done or not self._means

    def close(self) -> None:
        """Take no notice of what comes later."""
        with self._lock:
            self._closed = True

    def _add(self, loss: float) -> None:
        if not np.isfinite(loss):
            self._stop("not finite")
            return
        self.losses.append(loss)
        self._average = self._beta * self._average + (1 - self._beta) * loss
        smoothed = self._average / (1 - self._beta ** len(self.losses))
        self._best = min(self._best, smoothed)
        if smoothed > self._best + (self._stop_factor - 1.0) * abs(self._best):
            self._stop("rose")
        elif len(self.losses) == self._n_steps:
            self._stop("end")

    def _stop(self, why: str) -> None:
        self.stopped, self._closed = why, True
        self._model.stop_training = True
