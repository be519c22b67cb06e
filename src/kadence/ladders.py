"""Which ladder of rates: a short training with each of a few, judged on held-out data, after which all is as before."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._batches import check_not_empty
from kadence._randomness import preserved_randomness, seed_global
from kadence._restore import given_back
from kadence._sweeper import Move, Sweeper, check_model, check_repeatable, seed_of_run
from kadence._text import table
from kadence.groups import LayerGroups, layer_decay
from kadence.schedules import Cosine, warmup

_FEWEST_STEPS = 20
#: Share of a training in which the rate rises.
_WARMUP = 0.1


@dataclass(frozen=True)
class LadderTrial:
    """Short trainings with one ladder at one base rate.

    Args:
        ladder: Name of the ladder.
        lr: The base rate: a group's peak rate is this times its factor. Float > 0.
        losses: Held-out loss at the end, one float per run; infinite where it was not finite.
    """

    ladder: str
    lr: float
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Mean of the held-out losses over the runs."""
        return float(np.mean(self.losses))


@dataclass(frozen=True)
class LadderTest:
    """What a test of ladders measured, from `kadence.lr_ladder_test`; `str()` gives a table.

    Args:
        ladders: Name -> factor on the base rate of each group, from the input towards the head.
        trials: A `LadderTrial` for each ladder and base rate.
        start: Held-out loss before any training.
        n_steps: Length of a training, in optimizer steps.
        seed: Seed of data order and dropout.
    """

    ladders: Mapping[str, tuple[float, ...]]
    trials: tuple[LadderTrial, ...]
    start: float
    n_steps: int
    seed: int

    @property
    def best(self) -> LadderTrial | None:
        """The trial with the lowest held-out loss; None where none is below that before the training."""
        best = min(self.trials, key=lambda trial: trial.loss)
        return best if best.loss < self.start else None

    def learning_rates(self) -> list[float]:
        """One peak rate per group, as `DiscriminativeOptimizer(learning_rates=...)` takes it.

        Returns:
            List of one float per group.

        Raises:
            ValueError: If no training lowered the held-out loss.
        """
        if self.best is None:
            losses = [round(trial.loss, 4) for trial in self.trials]
            rule = f"hold a held-out loss below that before the training, {self.start:.4g}"
            raise ValueError(_checks.sentence("trials", rule, losses, "Try lower rates or more steps."))
        return [self.best.lr * factor for factor in self.ladders[self.best.ladder]]

    def __str__(self) -> str:
        rows = [["ladder", "factors", "base rate", "held-out loss", ""]]
        for trial in sorted(self.trials, key=lambda trial: trial.loss):
            factors = " ".join(f"{factor:.3g}" for factor in self.ladders[trial.ladder])
            mark = "best" if trial is self.best else ""
            rows.append([trial.ladder, factors, f"{trial.lr:.2g}", f"{trial.loss:.4f}", mark])
        said = f"Before the training the held-out loss is {self.start:.4f}; each training has {self.n_steps} steps."
        return "\n".join([*table(rows, n_left=2), "", said, self._about_noise()])

    def _about_noise(self) -> str:
        runs = len(self.trials[0].losses)
        if runs == 1:
            return "One run each: it cannot say which differences are noise; `n_runs` can."
        spread = [float(np.std(trial.losses, ddof=1)) for trial in self.trials if math.isfinite(trial.loss)]
        return f"{runs} runs each, of which the losses have a standard deviation of up to {max(spread, default=0):.2g}."

    def to_json(self) -> str:
        """The record as JSON text; a loss that is not finite becomes null."""
        content = {"kadence": "ladder test", "version": 1, **asdict(self)}
        for trial in content["trials"]:
            trial["losses"] = [loss if math.isfinite(loss) else None for loss in trial["losses"]]
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> "LadderTest":
        """The record that `to_json` wrote.

        Args:
            text: Result of `to_json`.

        Returns:
            `LadderTest`.

        Raises:
            ValueError: If the text is not such a record.
        """
        rule = 'be JSON of a ladder test, {"kadence": "ladder test", "version": 1, ...}'
        if not isinstance(text, str):
            raise TypeError(_checks.sentence("text", "be a string", text))
        try:
            content = json.loads(text)
            if (content.pop("kadence"), content.pop("version")) != ("ladder test", 1):
                raise ValueError(rule)
            ladders = {name: tuple(map(float, factors)) for name, factors in content.pop("ladders").items()}
            trials = tuple(_trial(**entry) for entry in content.pop("trials"))
            return cls(ladders, trials, **content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(_checks.sentence("text", rule, text[:80])) from error


def _trial(ladder: str, lr: float, losses: Sequence[float | None]) -> LadderTrial:
    return LadderTrial(ladder, float(lr), tuple(math.inf if loss is None else float(loss) for loss in losses))


def lr_ladder_test(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    validation_data: Any,
    rates: Mapping[str, Sequence[float]] | Sequence[float],
    ladders: Mapping[str, Sequence[float]] | None = None,
    batch_size: int | None = None,
    n_steps: int = 100,
    n_runs: int = 1,
    seed: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> LadderTest:
    """Train for a short time with each of a few ladders of rates, judge each on held-out data, put everything back.

    How far the early layers have to move depends on the data: a range test per group does not tell, since each group
    alone lowers the training loss at much the same rates. A short training with one cosine after a warm-up of a tenth
    does. All trainings are one compiled step. The model is given back bit for bit, as after `lr_range_test`.

    Args:
        model: Compiled model with a `DiscriminativeOptimizer`, which knows the groups; its rates play no part.
        x: Training data that can be gone through again, whatever `fit` takes.
        y: Targets, where `x` does not hold them.
        validation_data: Held-out data as `fit` takes it, but no generator; all of it is evaluated after each training.
        rates: Base rates to try with each ladder: floats > 0, or name of the ladder -> its own.
        ladders: Name -> factor on the base rate of each group, floats >= 0, one of them > 0. None for "one rate",
            "gentle" (1/2.6 from a group to the one before) and "steep" (1/10).
        batch_size: In samples, where `x` is arrays. Integer >= 1; None for 32.
        n_steps: Length of a training, in optimizer steps. Integer >= 20. The nearer to that of the run, the better the
            answer: a short training favours higher rates in the early layers less than a long one.
        n_runs: Number of runs, each with a data order and dropout of its own. Integer >= 1.
        seed: Seed of data order and dropout. Integer >= 0; None to draw one from NumPy's global generator.
        callbacks: Further Keras callbacks, for each training.

    Returns:
        `LadderTest`.

    Raises:
        ValueError: If the model is not compiled with groups, there is no data, data can be gone through once only, or
            an argument is out of range.
        TypeError: If an argument has the wrong type.

    Example:
        >>> test = kadence.lr_ladder_test(model, x, y, validation_data=(x_val, y_val), rates=[3e-4, 1e-3, 3e-3])
        >>> print(test)
        >>> rates = test.learning_rates()
        >>> optimizer = kadence.DiscriminativeOptimizer(keras.optimizers.Adam(), groups, learning_rates=rates)

    Source:
        The gentle ladder: Howard & Ruder 2018, section 3.2, arXiv:1801.06146.
    """
    grouped = check_model(model)
    if grouped is None:
        remedy = "Compile the model with a kadence.DiscriminativeOptimizer."
        raise ValueError(_checks.sentence("optimizer", "have layer groups", type(model.optimizer).__name__, remedy))
    shapes = _checked_ladders(ladders, grouped._groups)
    bases = _checked_rates(rates, shapes)
    n_steps = _checks.integer("n_steps", n_steps, minimum=_FEWEST_STEPS, unit="in optimizer steps")
    n_runs = _checks.integer("n_runs", n_runs, minimum=1, unit="a number of runs")
    if batch_size is not None:
        _checks.integer("batch_size", batch_size, minimum=1, unit="in samples")
    if seed is not None:
        _checks.integer("seed", seed, minimum=0, unit="a seed")
    check_not_empty(x)
    check_repeatable(x, n_sweeps=2)
    _check_held_out(validation_data)
    rise = int(n_steps * _WARMUP)
    shape = warmup(Cosine(1.0, n_steps - rise), rise).sample(n_steps)
    data = {"x": x, "y": y, "batch_size": batch_size}
    with preserved_randomness():
        seed = int(np.random.randint(2**31 - 1)) if seed is None else int(seed)
        seed_global(seed_of_run(seed, 0))
        with given_back(model, data) as state:
            sweeper = Sweeper(model, state, data, shape, stop_factor=math.inf)
            start = _held_out_loss(model, validation_data, batch_size)
            trials = []
            for name, lr in [(ladder, rate) for ladder in shapes for rate in bases[ladder]]:
                move = Move(name, [lr * factor for factor in shapes[name]], [0.0] * len(shapes[name]))
                losses = []
                for run in range(n_runs):
                    curve = sweeper.run(move, run, seed, callbacks)
                    finite = curve.stopped != "not finite"
                    losses.append(_held_out_loss(model, validation_data, batch_size) if finite else math.inf)
                trials.append(LadderTrial(name, lr, tuple(losses)))
    return LadderTest(shapes, tuple(trials), start, n_steps, seed)


def _check_held_out(data: Any) -> None:
    rule = "be held-out data that can be gone through again, after each training"
    if data is None:
        raise TypeError(_checks.sentence("validation_data", rule, data))
    if isinstance(data, Iterator):
        remedy = "Give arrays, a dataset or a PyDataset."
        raise ValueError(_checks.sentence("validation_data", rule, type(data).__name__, remedy))


def _held_out_loss(model: Any, data: Any, batch_size: int | None) -> float:
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    logs = model.evaluate(x, y, batch_size, sample_weight=sample_weight, verbose=0, return_dict=True)
    loss = float(logs["loss"])
    return loss if math.isfinite(loss) else math.inf


def _checked_ladders(
    ladders: Mapping[str, Sequence[float]] | None, groups: LayerGroups
) -> dict[str, tuple[float, ...]]:
    if ladders is None:
        decays = {"one rate": 1.0, "gentle": 1 / 2.6, "steep": 0.1}
        return {name: tuple(layer_decay(groups, decay)) for name, decay in decays.items()}
    rule = f"map names to factors >= 0, one per group, {len(groups)}, one of them > 0"
    if not isinstance(ladders, Mapping):
        raise TypeError(_checks.sentence("ladders", rule, ladders))
    if not ladders:
        raise ValueError(_checks.sentence("ladders", rule, ladders))
    checked = {}
    for name, values in ladders.items():
        factors = tuple(_checks.number("ladders", v, minimum=0.0) for v in _checks.sequence("ladders", values, rule))
        if len(factors) != len(groups) or not any(factors):
            raise ValueError(_checks.sentence("ladders", rule, dict(ladders)))
        checked[str(name)] = factors
    return checked


def _checked_rates(rates: Any, ladders: Mapping[str, Any]) -> dict[str, list[float]]:
    rule = "be base rates > 0, or map each ladder to its own"
    of_ladder = rates if isinstance(rates, Mapping) else dict.fromkeys(ladders, rates)
    if set(of_ladder) != set(ladders):
        raise ValueError(_checks.sentence("rates", f"{rule}: {', '.join(ladders)}", rates))
    return {
        name: [_checks.number("rates", rate, above=0.0) for rate in _checks.sequence("rates", values, rule)]
        for name, values in of_ladder.items()
    }
