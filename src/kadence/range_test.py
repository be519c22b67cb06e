"""RangeTest: the frozen record of a learning-rate range test, and what follows from it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kadence import _checks
from kadence._suggestions import RULES, doubt, kept, smooth, smoothing

#: Why a sweep ended -> what is said of it.
STOPS = {
    "end": "went through to lr_max",
    "rose": "the smoothed loss rose above stop_factor times its lowest",
    "not finite": "the loss was not finite any more",
    "data": "the data ended",
}


@dataclass(frozen=True, eq=False)
class Curve:
    """The losses of one sweep.

    Args:
        group: The group that moved; "all" where all moved together, "" where none did.
        run: Number of the run, from 0.
        losses: Loss of each optimizer step, before its update. Array of shape (n,), float64, finite.
        stopped: Why it ended: "end", "rose", "not finite" or "data".
    """

    group: str
    run: int
    losses: np.ndarray
    stopped: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "losses", np.asarray(self.losses, np.float64))
        _checks.one_of("stopped", self.stopped, list(STOPS))
        if self.losses.ndim != 1 or not np.isfinite(self.losses).all():
            raise ValueError(_checks.sentence("losses", "be a list of finite numbers", self.losses.tolist()))


@dataclass(frozen=True)
class Suggestion:
    """What a rule answers, or why it does not.

    Args:
        rule: Name of the rule.
        rates: Group -> the suggested rate, or None where there is no clear answer. Where all groups moved together the
            only key is "all", and its rate is that of `optimizer.learning_rate`.
        reasons: Group -> why there is no clear answer, for the groups that have none.
        multipliers: Group -> its factor on the rate of "all".
    """

    rule: str
    rates: Mapping[str, float | None]
    reasons: Mapping[str, str]
    multipliers: Mapping[str, float]

    @property
    def rate(self) -> float | None:
        """The base rate, where all groups moved together; None where there is no clear answer."""
        if list(self.rates) != ["all"]:
            rule = "come from a test in which all groups moved together"
            raise ValueError(_checks.sentence("rate", rule, dict(self.rates), "Take `learning_rates()` instead."))
        return self.rates["all"]

    def learning_rates(self, fallback: Mapping[str, float] | None = None) -> list[float]:
        """One rate per group, as `DiscriminativeOptimizer(learning_rates=...)` takes it.

        Args:
            fallback: Group -> the rate of a group without a clear answer, such as `RangeTest.current_rates`.

        Returns:
            List of one float per group.

        Raises:
            ValueError: If a group has no clear answer and no fallback.
        """
        joint = "all" in self.rates
        found: dict[str, float | None] = {
            name: _times(self.rates["all"], factor) if joint else self.rates[name]
            for name, factor in self.multipliers.items()
        }
        filled = {name: (fallback or {}).get(name) if rate is None else rate for name, rate in found.items()}
        missing = [name for name, rate in filled.items() if rate is None]
        if missing:
            why = "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())
            rule = f"have a clear answer for {', '.join(missing)}, or a fallback"
            raise ValueError(_checks.sentence("suggestion", rule, dict(self.rates), f"{why}."))
        return [float(rate) for rate in filled.values() if rate is not None]


def _times(rate: float | None, factor: float) -> float | None:
    return None if rate is None else rate * factor


@dataclass(frozen=True, eq=False)
class RangeTest:
    """What a learning-rate range test measured; from `kadence.lr_range_test`.

    Args:
        lr_min: First rate of the sweep. Float > 0.
        lr_max: Last rate of the sweep. Float > lr_min.
        n_steps: Length of the sweep, in optimizer steps. Integer >= 2.
        per_group: Whether each group moved on its own.
        current_rates: Group -> the rate that it stands at in the compiled optimizer.
        multipliers: Group -> its factor on the swept rate where all moved together.
        curves: The sweeps, a `Curve` for each group and run.
        baselines: The same steps with all rates standing still, a `Curve` for each run; empty unless `per_group`.
        stop_factor: The sweep ends when the smoothed loss is above this factor times its lowest. Float > 1.
        seed: Seed of data order and dropout.
        loss: "training" or "validation": what the losses are of.
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
            object.__setattr__(self, name, {key: float(rate) for key, rate in getattr(self, name).items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeTest) and self.to_json() == other.to_json()

    @property
    def rates(self) -> np.ndarray:
        """The swept rate at each step. Array of shape (n_steps,), float64."""
        return sweep_rates(self.lr_min, self.lr_max, self.n_steps)

    @property
    def names(self) -> list[str]:
        """What moved: the groups, or "all"."""
        return list(self.multipliers) if self.per_group else ["all"]

    def losses(self, name: str = "all") -> np.ndarray:
        """The mean loss over the runs at each step, as long as all of them went on.

        Where groups moved on their own, the others went on learning at their own rates. What they did is taken off: the
        loss of the same steps with this group at its own rate too, but for a constant.

        Args:
            name: A group, or "all".

        Returns:
            Array of shape (n,), float64.
        """
        raw = {curve.run: curve.losses for curve in self.curves if curve.group == name}
        if not raw:
            return np.zeros(0)
        bases = {curve.run: curve.losses for curve in self.baselines}
        length = min(map(len, [*raw.values(), *bases.values()]))
        mean = np.mean([losses[:length] for losses in raw.values()], axis=0)
        if not bases or not length:
            return mean
        base = np.mean([losses[:length] for losses in bases.values()], axis=0)
        return mean - base + base.mean()

    def smoothed(self, name: str = "all") -> np.ndarray:
        """The losses of `losses`, smoothed by an exponential moving average as in fastai.

        Args:
            name: A group, or "all".

        Returns:
            Array of shape (n,), float64.
        """
        return smooth(self.losses(name), smoothing(self.n_steps))

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
        rates: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        for name in self.names:
            part = kept(len(self.losses(name)), self.n_steps)
            losses, smoothed = self.losses(name)[part], self.smoothed(name)[part]
            reason = doubt(losses, smoothed)
            rates[name] = None if reason else apply(self.rates[part], smoothed, self.n_steps / 100)
            if reason:
                reasons[name] = reason
        return Suggestion(rule, rates, reasons, self.multipliers)

    def to_json(self) -> str:
        """The record as JSON text."""
        content = {
            "kadence": "range test",
            "version": 1,
            **{name: getattr(self, name) for name in _PLAIN},
            **{name: [_curve_to_dict(curve) for curve in getattr(self, name)] for name in ("curves", "baselines")},
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
            curves = {name: [Curve(**curve) for curve in content[name]] for name in ("curves", "baselines")}
            return cls(**{name: content[name] for name in _PLAIN}, **curves, notes=content["notes"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(_checks.sentence("text", rule, text[:80])) from error


_PLAIN = ("lr_min", "lr_max", "n_steps", "per_group", "current_rates", "multipliers", "stop_factor", "seed", "loss")


def _curve_to_dict(curve: Curve) -> dict[str, Any]:
    return {"group": curve.group, "run": curve.run, "losses": curve.losses.tolist(), "stopped": curve.stopped}


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
