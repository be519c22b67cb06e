"""The learning-rate range test: a sweep over the rates, after which the model is as it was before."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._batches import check_not_empty, one_batch
from kadence._pipeline import prepared
from kadence._randomness import preserved_randomness, seed_global
from kadence._restore import given_back
from kadence._sweeper import Sweeper, check_model, check_repeatable, seed_of_run
from kadence.range_test import RangeTest, check_range, sweep_rates

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
            Current are the rates, and the ratios, of the present update: at the start of a warm-up they are 0, which
            `notes` of the result says.
        n_runs: Number of runs, each with a data order and dropout of its own. Integer >= 1.
        validation_data: Data to take the losses from, as `fit` takes it; None for the training batches. One batch of
            it is evaluated after each step: with samples from all over arrays, or the first 32 batches of a dataset; of
            batches that differ in shape, the first.
        stop_factor: A sweep ends when the smoothed loss is above this factor times its lowest. Float > 1.
        seed: Seed of data order and dropout. Integer >= 0; None to draw one from NumPy's global generator.
        callbacks: Further Keras callbacks, for each sweep; to them it is a `fit` of as many epochs as it takes.

    Returns:
        `RangeTest`.

    Raises:
        ValueError: If the model is not compiled, there is no data, an argument is out of range, the optimizer cannot be
            made from its own config, or all groups are to move together and their multipliers are all 0.
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
    if check_model(model) is None and per_group:
        remedy = "Compile the model with a kadence.DiscriminativeOptimizer."
        raise ValueError(_checks.sentence("per_group", "be False for an optimizer without groups", per_group, remedy))
    if isinstance(x, keras.utils.PyDataset):
        x = prepared(model, x)
    check_not_empty(x)
    check_repeatable(x, n_runs * (2 if per_group else 1))
    data = {"x": x, "y": y, "batch_size": batch_size}
    with preserved_randomness():
        seed = int(np.random.randint(2**31 - 1)) if seed is None else int(seed)
        seed_global(seed_of_run(seed, 0))
        held_out, notes = (None, []) if validation_data is None else one_batch(validation_data, batch_size)
        with given_back(model, data) as state:
            sweeper = Sweeper(model, state, data, sweep_rates(lr_min, lr_max, n_steps), stop_factor, held_out)
            moves = sweeper.moves(per_group)
            curves = [(move, sweeper.run(move, run, seed, callbacks)) for run in range(n_runs) for move in moves]
    return RangeTest(
        lr_min,
        lr_max,
        n_steps,
        per_group,
        sweeper.current_rates,
        sweeper.multipliers,
        [curve for move, curve in curves if not move.is_baseline],
        [curve for move, curve in curves if move.is_baseline],
        stop_factor,
        seed,
        "training" if held_out is None else "validation",
        [*sweeper.notes(per_group), *notes],
    )
