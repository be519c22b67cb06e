"""A model whose optimizer is exchanged for one of which the rates are swept, and the runs of it."""

import contextlib
import gc
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._batches import begun, no_data
from kadence._loss_curve import HeldOutLossCurve, LossCurve
from kadence._pipeline import method
from kadence._randomness import seed_global
from kadence._rates import sample_rates
from kadence._restore import ModelState
from kadence._sweep import Sweep, layers_of
from kadence._updates import as_number, innermost, strategy_scope
from kadence.callbacks import EpochSeeds
from kadence.optimizer import DiscriminativeOptimizer
from kadence.range_test import Curve
from kadence.schedules import Schedule

#: What Keras says of data that is gone through again, or in an order of its own.
_EXPECTED = ("Your input ran out of data", "`shuffle=True` was passed, but will be ignored")


def check_model(model: Any) -> DiscriminativeOptimizer | None:
    """The optimizer that knows the groups of a compiled model, or None if there are none.

    Args:
        model: What has to be a compiled `keras.Model`.

    Returns:
        `DiscriminativeOptimizer` or None.

    Raises:
        TypeError: If it is no model, or its optimizer a wrapper that is not known.
        ValueError: If it is not compiled.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(_checks.sentence("model", "be a keras.Model", model))
    if not model.compiled or model.optimizer is None:
        raise ValueError(_checks.sentence("model", "be compiled, with an optimizer", model.name, "Call compile first."))
    return layers_of(model.optimizer)[0]


def check_repeatable(x: Any, n_sweeps: int) -> None:
    """Raise if several sweeps need data that can be gone through once only.

    Args:
        x: What `fit` takes as x.
        n_sweeps: Number of sweeps.

    Raises:
        ValueError: If `x` is a generator and there are several sweeps.
    """
    if n_sweeps > 1 and isinstance(x, types.GeneratorType):
        rule = "be data that can be gone through again, for several sweeps"
        raise ValueError(_checks.sentence("x", rule, type(x).__name__, "Give arrays, a dataset or a PyDataset."))


def seed_of_run(seed: int, run: int) -> int:
    """The seed of a run's data order and dropout.

    Args:
        seed: Seed of the test.
        run: Number of the run.

    Returns:
        Integer from 0 to 2**31 - 1.
    """
    return int(np.random.default_rng([seed, run]).integers(2**31))


@dataclass(frozen=True)
class Move:
    """What a sweep does with each group: rate = factor * swept rate + still.

    Args:
        name: The group that is swept, or "all".
        factors: Of each group, the factor on the swept rate.
        still: Of each group, the rate that is added.
        is_baseline: Whether the group is at rate 0, to see what the others do.
    """

    name: str
    factors: list[float]
    still: list[float]
    is_baseline: bool = False


def _step_of_one_batch(model: Any) -> Callable[..., Any]:
    """The `train_step` of a model with metrics that begin anew: what it logs is of its batch alone, of whatever size.

    JAX finds a compiled step by its function: each model has one of its own, not to be given that of another optimizer.
    """
    step = model.train_step
    if keras.backend.backend() != "jax":

        def train_step(data: Any) -> Any:
            model.reset_metrics()
            return step(data)

        return train_step

    def stateless_train_step(state: Any, data: Any) -> Any:
        *others, metrics = state
        with keras.StatelessScope(list(zip(model.metrics_variables, metrics, strict=True))) as scope:
            model.reset_metrics()
        return step((*others, [scope.get_current_value(variable) for variable in model.metrics_variables]), data)

    return stateless_train_step


class Sweeper:
    """A model with a swept stand-in for its optimizer; one compiled step serves all its runs.

    Args:
        model: The compiled model, within `given_back`.
        state: What `given_back` yields.
        data: Arguments of `fit`: x, y and batch_size.
        rates: The swept rate at each step. Array of shape (n_steps,).
        stop_factor: A run ends when the smoothed loss is above this factor times its lowest.
        held_out: A batch to take the losses from, or None for the training batches.
    """

    def __init__(
        self,
        model: Any,
        state: ModelState,
        data: dict[str, Any],
        rates: np.ndarray,
        stop_factor: float,
        held_out: Any = None,
    ):
        self._model, self._state, self._data = model, state, data
        inner = innermost(model.optimizer)
        self._curve_settings = (len(rates), inner.gradient_accumulation_steps or 1, stop_factor)
        self._held_out = held_out
        self._passes: list[int] = []
        self._update = update = int(as_number(inner.iterations))
        self.current_rates = {name: float(r[0]) for name, r in sample_rates(model.optimizer, 1, update).items()}
        grouped, _ = layers_of(model.optimizer)
        factors = [1.0] if grouped is None else grouped.lr_multipliers
        factors = [float(f.at(update)) if isinstance(f, Schedule) else f for f in factors]
        self.multipliers = dict(zip(self.current_rates, factors, strict=True))
        with strategy_scope(model):
            self._sweep = Sweep(model.optimizer, rates)
            self._sweep.build(model.trainable_variables)
        # TensorFlow would keep what it traces here, for single steps, in a `test_function` of the user's for several.
        vars(model).update(
            optimizer=self._sweep.optimizer,
            train_function=None,
            test_function=None,
            train_step=_step_of_one_batch(model),
            steps_per_execution=1,
            _initial_epoch=None,
        )

    def moves(self, per_group: bool) -> list[Move]:
        """The sweeps of a run.

        Raises:
            ValueError: If all groups are to move together, and their multipliers are 0 at the present update.
        """
        if not per_group and not any(self.multipliers.values()):
            rule = f"not all be 0 at the present update, {self._update}, for a test of all groups together"
            remedy = "Test with `per_group=True`, or with the warm-up in the base rate."
            raise ValueError(_checks.sentence("lr_multipliers", rule, self.multipliers, remedy))
        current, n_groups = list(self.current_rates.values()), len(self.current_rates)
        if not per_group:
            return [Move("all", list(self.multipliers.values()), [0.0] * n_groups)]
        moves = []
        for own, name in enumerate(self.current_rates):
            if self._sweep.has_variables(own):
                still = [0.0 if other == own else rate for other, rate in enumerate(current)]
                moves += [Move(name, [float(other == own) for other in range(n_groups)], still)]
                moves += [Move(name, [0.0] * n_groups, still, is_baseline=True)]
        return moves

    def run(self, move: Move, run: int, seed: int, callbacks: Sequence[keras.callbacks.Callback]) -> Curve:
        """One sweep, from the state before the test."""
        self._state.put_back_variables()
        self._sweep.begin(move.factors, move.still)
        run_seed = seed_of_run(seed, run)
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
        with _nothing_read_ahead(self._data["x"]), warnings.catch_warnings():
            for message in _EXPECTED:
                warnings.filterwarnings("ignore", message)
            data = {**self._data, "x": begun(self._data["x"])}
            method(self._model, "fit", data["x"])(**data, epochs=epochs, verbose=0, callbacks=callbacks)

    def notes(self, per_group: bool) -> list[str]:
        """What should be known of the data, and of groups that stand still at the present update."""
        return [*self._notes_on_data(), *self._notes_on_rates(per_group)]

    def _notes_on_data(self) -> list[str]:
        n_steps, accumulation, _ = self._curve_settings
        batches, needed = self._passes[0], n_steps * accumulation
        if len(self._passes) > 1:
            count = f"{batches} batch{'es' * (batches != 1)}"
            return [f"The data has {count}, a sweep {needed}: it was gone through {len(self._passes)} times."]
        if batches < needed and isinstance(self._data["x"], types.GeneratorType):
            return [f"The generator ended after {batches} of {needed} batches."]
        return []

    def _notes_on_rates(self, per_group: bool) -> list[str]:
        trained = [name for own, name in enumerate(self.current_rates) if self._sweep.has_variables(own)]
        still = [name for name in trained if per_group and not self.current_rates[name]]
        fixed = [name for name in trained if not per_group and not self.multipliers[name]]
        when, notes = f"at the present update, {self._update}", []
        if still:
            rate = f"The current rate of {', '.join(still)} is 0 {when}: trained at it, a group stands still."
            notes.append(f"{rate} They stood still while another group was swept.")
        if fixed:
            notes.append(f"The multiplier of {', '.join(fixed)} is 0 {when}: no rate was found for it but 0.")
        return notes


@contextlib.contextmanager
def _nothing_read_ahead(x: Any) -> Iterator[None]:
    """Stop, at the end, the workers of a parallel PyDataset, which go on where `fit` is stopped within an epoch."""
    before = set(map(id, _enqueuers(x)))
    try:
        yield
    finally:
        for enqueuer in _enqueuers(x):
            if id(enqueuer) not in before:
                with contextlib.suppress(Exception):  # that of a batch, which nobody asks for any more
                    enqueuer.stop()


def _enqueuers(x: Any) -> list[Any]:
    """What reads a PyDataset ahead at the moment; Keras has no way to it, and its thread may have ended before it."""
    if not isinstance(x, keras.utils.PyDataset) or (x.workers <= 1 and not x.use_multiprocessing):
        return []
    found = [known for known in gc.get_objects() if type(known).__name__ == "OrderedEnqueuer"]
    return [enqueuer for enqueuer in found if enqueuer.py_dataset is x and enqueuer.is_running()]
