"""RangeTest: the frozen record of a learning-rate range test, and what follows from it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kadence import _checks
from kadence._answers import Interval, Suggestion
from kadence._suggestions import RULES, doubt, kept, rates_that_learn, smooth, smoothing

#: Why a sweep ended -> what is said of it.
STOPS = {
    "end": "went through to lr_max",
    "rose": "the smoothed loss rose above stop_factor times its lowest",
    "not finite": "the loss was not finite any more",
    "data": "the data ended",
}
_PLAIN = ("lr_min", "lr_max", "n_steps", "per_group", "current_rates", "multipliers", "stop_factor", "seed", "loss")
_CURVES = ("curves", "baselines")


@dataclass(frozen=True, eq=False)
class Curve:
    """The losses of one sweep.

    Args:
        group: The group that was swept; "all" where all were, together.
        run: Number of the run, from 0.
        losses: Loss at each optimizer step. Array of shape (n,), float64, finite.
        stopped: Why the sweep ended: "end" (it went through), "rose" (the smoothed loss is above `stop_factor` times
            its lowest), "not finite" (the loss), or "data" (it was used up).

    Raises:
        ValueError: If a loss is not finite, or `stopped` is something else.
    """

    group: str
    run: int
    losses: np.ndarray
    stopped: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "losses", np.asarray(self.losses, np.float64))
        _checks.integer("run", self.run, minimum=0, unit="the number of a run")
        _checks.one_of("stopped", self.stopped, list(STOPS))
        if self.losses.ndim != 1 or not np.isfinite(self.losses).all():
            raise ValueError(_checks.sentence("losses", "be a list of finite numbers", self.losses.tolist()))


@dataclass(frozen=True, eq=False)
class RangeTest:
    """What a learning-rate range test measured; from `kadence.lr_range_test`.

    Args:
        lr_min: First rate of the sweep. Float > 0.
        lr_max: Last rate of the sweep. Float > lr_min.
        n_steps: Length of the sweep, in optimizer steps. Integer >= 2.
        per_group: Whether each group was swept on its own.
        current_rates: Group -> its rate in the compiled optimizer, at the time of the test; 0 as a warm-up begins.
        multipliers: Group -> its factor on the swept rate where all groups moved together.
        curves: The sweeps, a `Curve` for each group and run.
        baselines: The same steps with this group at rate 0, a `Curve` for each group and run, if `per_group`.
        stop_factor: The sweep ends when the smoothed loss is above this factor times its lowest. Float > 1.
        seed: Seed of data order and dropout. Integer >= 0.
        loss: What the losses are of, "training" or "validation".
        notes: Sentences on what should be known of the test.
    """

    lr_min: float
    lr_max: float
    n_steps: int
    per_group: bool
    current_rates: Mapping[str, float]
    multipliers: Mapping[str, float]
    curves: Sequence[Curve]
    baselines: Sequence[Curve] = ()
    stop_factor: float = 4.0
    seed: int = 0
    loss: str = "training"
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("curves", "baselines", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("current_rates", "multipliers"):
            checked = {key: _checks.number(name, rate, minimum=0.0) for key, rate in getattr(self, name).items()}
            object.__setattr__(self, name, checked)
        check_range(self.lr_min, self.lr_max)
        _checks.integer("n_steps", self.n_steps, minimum=2, unit="in optimizer steps")
        _checks.boolean("per_group", self.per_group)
        _checks.one_of("loss", self.loss, ("training", "validation"))
        _checks.number("stop_factor", self.stop_factor, above=1.0)
        _checks.integer("seed", self.seed, minimum=0, maximum=2**63 - 1, unit="a seed")
        for curve in (*self.curves, *self.baselines):
            _checks.one_of("group", curve.group, self.names)
            if len(curve.losses) > self.n_steps:
                rule = f"have at most n_steps={self.n_steps} losses"
                raise ValueError(_checks.sentence("curves", rule, len(curve.losses)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeTest) and self.to_json() == other.to_json()

    @property
    def rates(self) -> np.ndarray:
        """The swept rate at each step. Array of shape (n_steps,), float64."""
        return sweep_rates(self.lr_min, self.lr_max, self.n_steps)

    @property
    def names(self) -> list[str]:
        """What was swept: the groups, or "all"."""
        return list(self.multipliers) if self.per_group else ["all"]

    def runs(self, name: str = "all") -> list[np.ndarray]:
        """The losses of each run of a group, cut to the shortest.

        Where a group was swept on its own, the others went on learning at their own rates. What they did is taken off:
        a loss is that of the sweep less that of the same step, on the same batch, with this group at rate 0.

        Args:
            name: A group, or "all".

        Returns:
            A list of arrays of shape (n,), one per run; empty for a group without trainable weights.

        Raises:
            ValueError: If there is no such group.
        """
        _checks.one_of("name", name, self.names)
        swept = [curve.losses for curve in self.curves if curve.group == name]
        bases = [curve.losses for curve in self.baselines if curve.group == name]
        length = min(map(len, [*swept, *bases]), default=0)
        if not bases:
            return [losses[:length] for losses in swept]
        return [losses[:length] - base[:length] for losses, base in zip(swept, bases, strict=True)]

    def losses(self, name: str = "all") -> np.ndarray:
        """The mean over the runs of what `runs` gives.

        Args:
            name: A group, or "all".

        Returns:
            Array of shape (n,), float64.
        """
        return np.mean(self.runs(name) or [np.zeros(0)], axis=0)

    def smoothed(self, name: str = "all") -> np.ndarray:
        """The losses of `losses` as an exponential moving average, without the bias of its start.

        average = beta * average + (1 - beta) * loss, divided by 1 - beta ** (step + 1), with
        beta = 0.98 ** (100 / n_steps): that of fastai in 100 steps, and as many decades of rates in any other number.

        Args:
            name: A group, or "all".

        Returns:
            Array of shape (n,), float64.
        """
        return smooth(self.losses(name), smoothing(self.n_steps))

    def doubt(self, name: str = "all") -> str:
        """Why there is no clear answer for a group.

        An answer is clear if the raw losses up to the lowest smoothed one fall beyond their noise, by Kendall's test of
        a trend (z < -3).

        Args:
            name: A group, or "all".

        Returns:
            The reason, or an empty string where the answer is clear.
        """
        stops = [curve.stopped for curve in self.curves if curve.group == name]
        if not stops:
            return "it has no trainable weights"
        losses = self.losses(name)
        part = kept(len(losses), self.n_steps)
        shortest = min((c for c in self.curves if c.group == name), key=lambda curve: len(curve.losses))
        return doubt(losses[part], self.smoothed(name)[part], shortest.stopped)

    def suggest(self, rule: str = "valley") -> Suggestion:
        """The rate that a rule reads from the smoothed curve.

        Rules look at the curve without its first tenth and its last twentieth, and take slopes against log(rate).

        Args:
            rule: One of
                "valley": the longest fall, which is the longest falling subsequence, ends at step e and has k points;
                with s = e - k, it is the rate at step s + (e - s) / 3 + (e - s) / 6.
                "steepest": argmin of (loss[i + 1] - loss[i]) / (log rate[i + 1] - log rate[i]).
                "minimum": a tenth of the rate at the lowest loss.
                "slide": from the right end, a window of 15 steps in 100 slides left while the slopes at its ends differ
                by more than 0.005 per step; the rate at its left end.

        Returns:
            `Suggestion`; its rate is None, with the reason, where the loss does not fall beyond its noise.

        Raises:
            ValueError: If there is no such rule.

        Source:
            The functions valley, steep, minimum and slide of fastai 2 (Howard & Gugger 2020, arXiv:2002.04688); the
            range test is of Smith 2017, section 3.3, arXiv:1506.01186.
        """
        apply = RULES[_checks.one_of("rule", rule, list(RULES))]
        reasons = {name: self.doubt(name) for name in self.names}
        rates: dict[str, float | None] = dict.fromkeys(self.names)
        for name in self.names:
            if not reasons[name]:
                smoothed = self.smoothed(name)
                part = kept(len(smoothed), self.n_steps)
                rates[name] = apply(self.rates[part], smoothed[part], self.n_steps / 100)
        return Suggestion(rule, rates, {name: why for name, why in reasons.items() if why}, self.multipliers)

    def interval(self) -> Interval:
        """The rates that learn: from where a tenth of the fall of the loss is done to where the loss is lowest.

        They are those that nine of ten curves agree on; each run is resampled, block by block of its residuals.

        Returns:
            `Interval`; None, with the reason, for a group without a clear answer or without such rates.

        Source:
            The wild bootstrap of Liu 1988, Annals of Statistics 16, on blocks as in Shao 2010, JASA 105.
        """
        reasons = {name: self.doubt(name) for name in self.names}
        rates: dict[str, tuple[float, float] | None] = dict.fromkeys(self.names)
        for name in self.names:
            if not reasons[name]:
                runs = self.runs(name)
                part = kept(len(runs[0]), self.n_steps)
                rates[name] = rates_that_learn(self.rates[part], [losses[part] for losses in runs], self.n_steps)
                reasons[name] = "" if rates[name] else "the runs do not agree on any rate; more steps or runs may tell"
        return Interval(rates, {name: why for name, why in reasons.items() if why})

    def to_json(self) -> str:
        """The record as JSON text."""
        content = {
            "kadence": "range test",
            "version": 1,
            **{name: getattr(self, name) for name in _PLAIN},
            **{name: [_curve_to_dict(curve) for curve in getattr(self, name)] for name in _CURVES},
            "notes": list(self.notes),
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> "RangeTest":
        """The record that `to_json` wrote.

        Args:
            text: Result of `to_json`.

        Returns:
            `RangeTest`.

        Raises:
            ValueError: If the text is not such a record.
        """
        rule = 'be JSON of a range test, {"kadence": "range test", "version": 1, ...}'
        if not isinstance(text, str):
            raise TypeError(_checks.sentence("text", "be a string", text))
        try:
            content: Any = json.loads(text)
            if not isinstance(content, dict) or content.get("kadence") != "range test" or content.get("version") != 1:
                raise ValueError(_checks.sentence("text", rule, text[:80]))
            values: dict[str, Any] = {name: content[name] for name in _PLAIN}
            values |= {name: [Curve(**curve) for curve in content[name]] for name in _CURVES}
            return cls(**values, notes=content["notes"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(_checks.sentence("text", rule, text[:80])) from error


def _curve_to_dict(curve: Curve) -> dict[str, Any]:
    return {"group": curve.group, "run": curve.run, "losses": curve.losses.tolist(), "stopped": curve.stopped}


def check_range(lr_min: Any, lr_max: Any) -> tuple[float, float]:
    """The two ends of a sweep as floats, lr_max > lr_min > 0.

    Args:
        lr_min: First rate. Float > 0.
        lr_max: Last rate. Float > lr_min.

    Returns:
        The pair (lr_min, lr_max).

    Raises:
        ValueError: If `lr_min` is not positive, or `lr_max <= lr_min`.
        TypeError: If one is not a number.
    """
    lr_min = _checks.number("lr_min", lr_min, above=0.0)
    lr_max = _checks.number("lr_max", lr_max, above=0.0)
    if lr_max <= lr_min:
        raise ValueError(_checks.sentence("lr_max", f"be > lr_min, which is {lr_min!r}", lr_max))
    return lr_min, lr_max


def sweep_rates(lr_min: float, lr_max: float, n_steps: int) -> np.ndarray:
    """Rates that grow by one factor a step, rate = lr_min * (lr_max / lr_min) ** (step / (n_steps - 1)).

    Args:
        lr_min: First rate. Float > 0.
        lr_max: Last rate. Float > 0.
        n_steps: Length in optimizer steps. Integer >= 2.

    Returns:
        Array of shape (n_steps,), float64.
    """
    rates = np.exp(np.linspace(math.log(lr_min), math.log(lr_max), n_steps))
    rates[0], rates[-1] = lr_min, lr_max
    return rates
