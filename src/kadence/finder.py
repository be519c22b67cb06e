"""The learning-rate range test: a sweep over the rates, after which the model is as it was before."""

import contextlib
import types
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._batches import check_not_empty, no_data, one_batch
from kadence._loss_curve import HeldOutLossCurve, LossCurve
from kadence._randomness import preserved_randomness, seed_global
from kadence._rates import sample_rates
from kadence._restore import ModelState, given_back
from kadence._sweep import Sweep, layers_of
from kadence._updates import as_number, innermost
from kadence.callbacks import EpochSeeds
from kadence.range_test import Curve, RangeTest, check_range, sweep_rates
from kadence.schedules import Schedule

#: What Keras says of data that is gone through again, or in an order of its own.
_EXPECTED = ("Your input ran out of data", "`shuffle=True` was passed, but will be ignored")
_FEWEST_STEPS = 20


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

    rate(step) = lr_min * (lr_max / lr_min) ** (step / (n_steps - 1))

    The rates are computed in the compiled step. A stand-in with the settings and the state of the model's optimizer is
    trained with, so the optimizer itself, and a schedule in it, is not touched. Weights, BatchNorm statistics, seed
    generators, metrics, attributes that `fit` sets, and all global random generators are put back bit for bit, also
    after an error or Ctrl-C: training goes on as if there had been no test. What a data pipeline keeps to itself cannot
    be put back: a generator has moved on, a `tf.data` shuffle is in its next order.

    Args:
        model: Compiled model with any Keras optimizer, in a `DiscriminativeOptimizer` or `LossScaleOptimizer` or not.
            If it is not built, it is built with the first batch.
        x: Training data, whatever `fit` takes. If it has too few batches it is gone through again, and `notes` of the
            result says so; a generator can be gone through once only.
        y: Targets, where `x` does not hold them.
        batch_size: In samples, where `x` is arrays. Integer >= 1; None for 32.
        lr_min: First rate. Float > 0.
        lr_max: Last rate. Float > lr_min.
        n_steps: Length of a sweep, in optimizer steps. Integer >= 20. With gradient accumulation, a step is several
            batches.
        per_group: If False, all groups move together, their ratios kept, and the rates are those of
            `optimizer.learning_rate`. If True, each group is swept on its own, while the others train on at their
            current rates; a second sweep with the group at rate 0 shows what they did. That is 2 sweeps for each group.
        n_runs: Number of runs, each with a data order and dropout of its own. Integer >= 1.
        validation_data: Data to take the losses from, as `fit` takes it; None for the training batches. One batch of
            it, with samples from all over its first 32 batches, is evaluated after each step.
        stop_factor: A sweep ends when the smoothed loss is above this factor times its lowest. Float > 1.
        seed: Seed of data order and dropout. Integer >= 0; None to draw one from NumPy's global generator.
        callbacks: Further Keras callbacks, for each sweep; to them it is a `fit` of as many epochs as it takes.

    Returns:
        `RangeTest`.

    Raises:
        ValueError: If the model is not compiled, there is no data, an argument is out of range, or the optimizer cannot
            be made from its own config.
        TypeError: If an argument has the wrong type, or the optimizer is a wrapper that is not known.

    Example:
        >>> test = kadence.lr_range_test(model, x, y)
        >>> test.suggest().rate, test.interval().rates["all"]

    Source:
        Smith 2017, Cyclical Learning Rates for Training Neural Networks, section 3.3, arXiv:1506.01186.
    """
    lr_min, lr_max = check_range(lr_min, lr_max)
    n_steps = _checks.integer("n_steps", n_steps, minimum=_FEWEST_STEPS, unit="in optimizer steps")
    n_runs = _checks.integer("n_runs", n_runs, minimum=1, unit="a number of runs")
    _checks.boolean("per_group", per_group)
    stop_factor = _checks.number("stop_factor", stop_factor, above=1.0)
    if batch_size is not None:
        _checks.integer("batch_size", batch_size, minimum=1, unit="in samples")
    if seed is not None:
        _checks.integer("seed", seed, minimum=0, unit="a seed")
    _check_model(model, per_group)
    check_not_empty(x)
    _check_repeatable(x, 2 if per_group else 1, n_runs)
    data = {"x": x, "y": y, "batch_size": batch_size}
    with preserved_randomness():
        seed = int(np.random.randint(2**31 - 1)) if seed is None else int(seed)
        seed_global(_seed_of_run(seed, 0))
        held_out = None if validation_data is None else one_batch(validation_data, batch_size)
        with given_back(model, data) as state:
            sweeper = _Sweeper(model, state, data, sweep_rates(lr_min, lr_max, n_steps), stop_factor, held_out)
            moves = sweeper.moves(per_group)
            curves = [(move, sweeper.run(move, run, seed, callbacks)) for run in range(n_runs) for move in moves]
    return RangeTest(
        lr_min,
        lr_max,
        n_steps,
        per_group,
        sweeper.current_rates,
        sweeper.multipliers,
        [curve for move, curve in curves if any(move.factors)],
        [curve for move, curve in curves if not any(move.factors)],
        stop_factor,
        seed,
        "training" if held_out is None else "validation",
        sweeper.notes(),
    )


def _check_model(model: Any, per_group: bool) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(_checks.sentence("model", "be a keras.Model", model))
    if not model.compiled or model.optimizer is None:
        raise ValueError(_checks.sentence("model", "be compiled, with an optimizer", model.name, "Call compile first."))
    grouped, _ = layers_of(model.optimizer)
    if per_group and grouped is None:
        remedy = "Compile the model with a kadence.DiscriminativeOptimizer."
        raise ValueError(_checks.sentence("per_group", "be False for an optimizer without groups", per_group, remedy))


def _check_repeatable(x: Any, n_sweeps: int, n_runs: int) -> None:
    if n_sweeps * n_runs > 1 and isinstance(x, types.GeneratorType):
        rule = "be data that can be gone through again, for several sweeps"
        raise ValueError(_checks.sentence("x", rule, type(x).__name__, "Give arrays, a dataset or a PyDataset."))


def _seed_of_run(seed: int, run: int) -> int:
    return int(np.random.default_rng([seed, run]).integers(2**31))


@dataclass(frozen=True)
class _Move:
    """What a sweep does with each group: rate = factor * swept rate + still."""

    name: str
    factors: list[float]
    still: list[float]


def _strategy_of(model: Any) -> contextlib.AbstractContextManager[Any]:
    """Where an optimizer is made: on TensorFlow, in the strategy that the model was made in."""
    strategy = getattr(model, "distribute_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


class _Sweeper:
    """A model with a swept stand-in for its optimizer."""

    def __init__(
        self, model: Any, state: ModelState, data: dict[str, Any], rates: np.ndarray, stop_factor: float, held_out: Any
    ):
        self._model, self._state, self._data = model, state, data
        inner = innermost(model.optimizer)
        self._curve_settings = (len(rates), inner.gradient_accumulation_steps or 1, stop_factor)
        self._held_out = held_out
        self._passes: list[int] = []
        update = int(as_number(inner.iterations))
        self.current_rates = {name: float(r[0]) for name, r in sample_rates(model.optimizer, 1, update).items()}
        grouped, _ = layers_of(model.optimizer)
        factors = [1.0] if grouped is None else grouped.lr_multipliers
        factors = [float(f.at(update)) if isinstance(f, Schedule) else f for f in factors]
        self.multipliers = dict(zip(self.current_rates, factors, strict=True))
        with _strategy_of(model):
            self._sweep = Sweep(model.optimizer, rates)
            self._sweep.build(model.trainable_variables)
        # JAX finds a compiled step by its function: this one must not be taken for that of another optimizer.
        step = model.train_step
        vars(model).update(
            optimizer=self._sweep.optimizer,
            train_function=None,
            train_step=lambda *arguments: step(*arguments),
            steps_per_execution=1,
            _initial_epoch=None,
        )

    def moves(self, per_group: bool) -> list[_Move]:
        """The sweeps of a run."""
        current, n_groups = list(self.current_rates.values()), len(self.current_rates)
        if not per_group:
            return [_Move("all", list(self.multipliers.values()), [0.0] * n_groups)]
        moves = []
        for own, name in enumerate(self.current_rates):
            if self._sweep.has_variables(own):
                still = [0.0 if other == own else rate for other, rate in enumerate(current)]
                moves += [_Move(name, [float(other == own) for other in range(n_groups)], still)]
                moves += [_Move(name, [0.0] * n_groups, still)]
        return moves

    def run(self, move: _Move, run: int, seed: int, callbacks: Sequence[keras.callbacks.Callback]) -> Curve:
        """One sweep, from the state before the test."""
        self._state.put_back_variables()
        self._sweep.begin(move.factors, move.still)
        run_seed = _seed_of_run(seed, run)
        seed_global(run_seed)
        settings, batch = self._curve_settings, self._held_out
        losses = LossCurve(*settings) if batch is None else HeldOutLossCurve(*settings, batch)
        # Keras begins each epoch of a generator at its first two batches, which it keeps.
        epochs = 1 if isinstance(self._data["x"], types.GeneratorType) else settings[0] * settings[1]
        try:
            self._fit(epochs, [EpochSeeds(run_seed), losses, *callbacks])
        finally:
            losses.close()
        self._passes = max(self._passes, losses.passes, key=len)
        if not any(losses.passes):
            raise no_data(self._data["x"])
        return Curve(move.name, run, np.array(losses.losses), losses.stopped)

    def _fit(self, epochs: int, callbacks: list[keras.callbacks.Callback]) -> None:
        with warnings.catch_warnings():
            for message in _EXPECTED:
                warnings.filterwarnings("ignore", message)
            self._model.fit(**self._data, epochs=epochs, verbose=0, callbacks=callbacks)

    def notes(self) -> list[str]:
        """What should be known of the data."""
        n_steps, accumulation, _ = self._curve_settings
        batches, needed = self._passes[0], n_steps * accumulation
        if len(self._passes) > 1:
            count = f"{batches} batch{'es' * (batches != 1)}"
            return [f"The data has {count}, a sweep {needed}: it was gone through {len(self._passes)} times."]
        if batches < needed and isinstance(self._data["x"], types.GeneratorType):
            return [f"The generator ended after {batches} of {needed} batches."]
        return []
