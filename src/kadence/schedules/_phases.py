"""Schedules for a whole run, each a few phases joined: ramps between two rates, and plateaus."""

import itertools
from typing import Any, NamedTuple

import keras

from kadence import _checks
from kadence.schedules._base import ArrayOps, Schedule
from kadence.schedules._curves import Constant
from kadence.schedules._join import join
from kadence.schedules._points import from_points
from kadence.schedules._shapes import CURVES

_STEPS = "in optimizer steps"


class _Phases(Schedule):
    """A schedule that is made of others: a subclass sets `_parts`."""

    _parts: Schedule

    def _set_parts(self, parts: Schedule) -> None:
        self._parts = parts
        self.lr_max, self.lr_min = parts.lr_max, parts.lr_min

    def _formula(self, step: Any, xp: ArrayOps) -> Any:
        return self._parts._formula(step, xp)


@keras.saving.register_keras_serializable(package="kadence")
class OneCycle(_Phases):
    """Up from a low rate to the peak, and down to a far lower one.

    With two phases, and `peak = round(peak_fraction * n_steps) - 1`:
    lr rises from lr_max / div_factor to lr_max over the steps 0 to peak,
    and falls from lr_max to lr_max / (div_factor * final_div_factor) over the steps peak to n_steps - 1.
    With three phases it falls to lr_max / div_factor over the steps peak to 2 * peak, and to the end from there.

    Args:
        lr_max: Rate at the peak. Float > 0.
        n_steps: Length in optimizer steps. Integer >= 4; the last rate holds from its last step on.
        peak_fraction: Share of the steps before the peak, pct_start. Float, 0 < fraction < 1; < 0.5 with three phases.
        div_factor: lr_max over the first rate. Float >= 1.
        final_div_factor: The first rate over the last. Float >= 1.
        curve: Shape of the phases, "cosine" or "linear".
        three_phase: Whether the fall has two phases, the first of them as long as the rise.

    Raises:
        ValueError: If an argument is out of range, or a phase would have no step.
        TypeError: If an argument has the wrong type.

    Example:
        >>> kadence.OneCycle(1.0, n_steps=10, curve="linear", div_factor=4).sample(4)
        array([0.25 , 0.625, 1.   , 0.857...])

    Source:
        Smith & Topin 2018, Super-Convergence, section 3, arXiv:1708.07120. The step convention is PyTorch's.
    """

    def __init__(
        self,
        lr_max: float,
        n_steps: int,
        peak_fraction: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        curve: str = "cosine",
        three_phase: bool = False,
    ):
        self._lr_peak = lr_max = _checks.number("lr_max", lr_max, above=0.0)
        self.n_steps = _checks.integer("n_steps", n_steps, minimum=4, unit=_STEPS)
        self.peak_fraction = _checks.number("peak_fraction", peak_fraction, above=0.0, below=1.0)
        self.div_factor = _checks.number("div_factor", div_factor, minimum=1.0)
        self.final_div_factor = _checks.number("final_div_factor", final_div_factor, minimum=1.0)
        self.curve = _checks.one_of("curve", curve, ("cosine", "linear"))
        self.three_phase = _checks.boolean("three_phase", three_phase)
        turns = _turns(self.n_steps, self.peak_fraction, self.three_phase)
        first = lr_max / self.div_factor
        rates = [first, lr_max, *([first] if self.three_phase else []), first / self.final_div_factor]
        self._set_parts(from_points(turns, rates, self.curve))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "lr_max": self._lr_peak,
            "n_steps": self.n_steps,
            "peak_fraction": self.peak_fraction,
            "div_factor": self.div_factor,
            "final_div_factor": self.final_div_factor,
            "curve": self.curve,
            "three_phase": self.three_phase,
        }


class OneCyclePair(NamedTuple):
    """The two schedules of a one-cycle run.

    Args:
        learning_rate: The `OneCycle` of the base rate.
        momentum: The schedule of the momentum, or of beta_1, which falls while the rate rises.
    """

    learning_rate: Schedule
    momentum: Schedule


def one_cycle(
    lr_max: float,
    n_steps: int,
    peak_fraction: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    curve: str = "cosine",
    three_phase: bool = False,
    momentum_max: float = 0.95,
    momentum_min: float = 0.85,
) -> OneCyclePair:
    """One cycle of the rate, and the momentum that cycles against it.

    The momentum falls from momentum_max to momentum_min while the rate rises to its peak, and comes back while the
    rate falls; in a third phase it stays at momentum_max.

    Args:
        lr_max: As in `OneCycle`.
        n_steps: As in `OneCycle`, in optimizer steps.
        peak_fraction: As in `OneCycle`, a fraction of the steps.
        div_factor: As in `OneCycle`.
        final_div_factor: As in `OneCycle`.
        curve: As in `OneCycle`.
        three_phase: As in `OneCycle`.
        momentum_max: Momentum at the lowest rates. Float, 0 <= momentum_max < 1.
        momentum_min: Momentum at the peak of the rate. Float, 0 <= momentum_min <= momentum_max.

    Returns:
        `OneCyclePair`.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    Example:
        >>> rate, momentum = kadence.one_cycle(0.1, n_steps=1000)
        >>> sgd = keras.optimizers.SGD(rate, momentum=0.9)
        >>> optimizer = kadence.DiscriminativeOptimizer(sgd, groups, [0.1, 1], schedules={"momentum": momentum})

    Source:
        Smith 2018, A Disciplined Approach to Neural Network Hyper-Parameters, section 4.3, arXiv:1803.09820.
    """
    rate = OneCycle(lr_max, n_steps, peak_fraction, div_factor, final_div_factor, curve, three_phase)
    high = _checks.number("momentum_max", momentum_max, minimum=0.0, below=1.0)
    low = _checks.number("momentum_min", momentum_min, minimum=0.0, maximum=high)
    turns = _turns(rate.n_steps, rate.peak_fraction, three_phase)
    momenta = [high, low, high, high][: len(turns)]
    return OneCyclePair(rate, from_points(turns, momenta, curve))


def _turns(n_steps: int, peak_fraction: float, three_phase: bool) -> list[int]:
    """The steps at which the phases of one cycle begin, and the last step."""
    peak = int(peak_fraction * n_steps + 0.5) - 1
    turns = [0, peak, 2 * peak, n_steps - 1] if three_phase else [0, peak, n_steps - 1]
    if any(later <= earlier for earlier, later in itertools.pairwise(turns)):
        rule = f"leave every phase at least one step; the phases would turn at the steps {turns}"
        raise ValueError(_checks.sentence("peak_fraction", rule, peak_fraction))
    return turns


@keras.saving.register_keras_serializable(package="kadence")
class SlantedTriangular(_Phases):
    """A short straight rise to the peak and a long straight fall, as in ULMFiT.

    lr = lr_max * (1 + p * (ratio - 1)) / ratio, with cut = floor(n_steps * cut_fraction) and
    p = step / cut for step < cut, p = 1 - (step - cut) / (n_steps - cut) from there on, p = 0 from n_steps on.

    The paper divides by cut * (1 / cut_fraction - 1), which is n_steps - cut where n_steps * cut_fraction is whole;
    where it is not, the paper's rate falls below lr_max / ratio and this one does not.

    Args:
        lr_max: Rate at the peak, eta_max. Float > 0.
        n_steps: Length in optimizer steps, T. Integer >= 2.
        cut_fraction: Share of the steps that rise, cut_frac. Float, 0 < cut_fraction < 1.
        ratio: The peak over the lowest rate. Float >= 1.

    Raises:
        ValueError: If an argument is out of range, or no step would rise.
        TypeError: If an argument has the wrong type.

    Example:
        >>> kadence.SlantedTriangular(1.0, n_steps=20, cut_fraction=0.1, ratio=4).sample(3)
        array([0.25 , 0.625, 1.   ])

    Source:
        Howard & Ruder 2018, Universal Language Model Fine-tuning, eq. (3), arXiv:1801.06146.
    """

    def __init__(self, lr_max: float, n_steps: int, cut_fraction: float = 0.1, ratio: float = 32.0):
        lr_max = _checks.number("lr_max", lr_max, above=0.0)
        self.n_steps = _checks.integer("n_steps", n_steps, minimum=2, unit=_STEPS)
        self.cut_fraction = _checks.number("cut_fraction", cut_fraction, above=0.0, below=1.0)
        self.ratio = _checks.number("ratio", ratio, minimum=1.0)
        # The product of two floats may fall just short of the whole number that is meant: 0.29 * 100.
        cut = int(self.n_steps * self.cut_fraction + 1e-9)
        if not 1 <= cut < self.n_steps:
            rule = f"leave at least one step to the rise and one to the fall; it gives the rise {cut} of {self.n_steps}"
            raise ValueError(_checks.sentence("cut_fraction", rule, cut_fraction))
        low = lr_max / self.ratio
        self._set_parts(from_points([0, cut, self.n_steps], [low, lr_max, low]))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "lr_max": self.lr_max,
            "n_steps": self.n_steps,
            "cut_fraction": self.cut_fraction,
            "ratio": self.ratio,
        }


@keras.saving.register_keras_serializable(package="kadence")
class WarmupStableDecay(_Phases):
    """A straight warm-up, a plateau, and a cooldown.

    lr rises from lr_start to lr_max over `warmup_steps`, stays until n_steps - decay_steps, and falls to lr_min at
    n_steps: with f the fraction of the cooldown that is done, lr_min + (lr_max - lr_min) * height, and the height is
    1 - f ("linear"), (1 + cos(pi * f)) / 2 ("cosine") or 1 - sqrt(f) ("1-sqrt").

    Args:
        lr_max: Rate of the plateau. Float > 0.
        n_steps: Length in optimizer steps. Integer >= 1.
        warmup_steps: Length of the warm-up in optimizer steps. Integer >= 0.
        decay_steps: Length of the cooldown in optimizer steps. Integer >= 1; warmup_steps + decay_steps <= n_steps.
        lr_start: Rate at step 0 of the warm-up. Float, 0 <= lr_start <= lr_max.
        lr_min: Rate from step n_steps on. Float, 0 <= lr_min < lr_max.
        curve: Shape of the cooldown, "linear", "cosine" or "1-sqrt".

    Raises:
        ValueError: If an argument is out of range, or the phases are longer than the run.
        TypeError: If an argument has the wrong type.

    Example:
        >>> kadence.WarmupStableDecay(1.0, n_steps=8, warmup_steps=2, decay_steps=4).sample(9)
        array([0.  , 0.5 , 1.  , 1.  , 1.  , 0.75, 0.5 , 0.25, 0.  ])

    Source:
        Hu et al. 2024, MiniCPM, section 4, arXiv:2404.06395; the cooldown 1 - sqrt: Haegele et al. 2024, eq. (1),
        arXiv:2405.18392.
    """

    def __init__(
        self,
        lr_max: float,
        n_steps: int,
        warmup_steps: int,
        decay_steps: int,
        lr_start: float = 0.0,
        lr_min: float = 0.0,
        curve: str = "linear",
    ):
        lr_max = _checks.number("lr_max", lr_max, above=0.0)
        self.n_steps = _checks.integer("n_steps", n_steps, minimum=1, unit=_STEPS)
        self.warmup_steps = _checks.integer("warmup_steps", warmup_steps, minimum=0, unit=_STEPS)
        self.decay_steps = _checks.integer("decay_steps", decay_steps, minimum=1, unit=_STEPS)
        self.lr_start = _checks.number("lr_start", lr_start, minimum=0.0, maximum=lr_max)
        self._lr_end = _checks.number("lr_min", lr_min, minimum=0.0)
        self.curve = _checks.one_of("curve", curve, tuple(CURVES))
        if self._lr_end >= lr_max:
            raise ValueError(_checks.sentence("lr_min", f"be < lr_max, which is {lr_max:g}", lr_min))
        stable = self.n_steps - self.warmup_steps - self.decay_steps
        if stable < 0:
            rule = f"be >= warmup_steps + decay_steps, which is {self.warmup_steps + self.decay_steps}, {_STEPS}"
            raise ValueError(_checks.sentence("n_steps", rule, n_steps))
        cooldown = from_points([0, self.decay_steps], [lr_max, self._lr_end], self.curve)
        start = self.n_steps - self.decay_steps
        before: Schedule = Constant(lr_max)
        if self.warmup_steps:
            before = from_points([0, self.warmup_steps], [self.lr_start, lr_max])
        self._set_parts(join([before, cooldown], at_steps=[start]) if start else cooldown)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "lr_max": self.lr_max,
            "n_steps": self.n_steps,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
            "lr_start": self.lr_start,
            "lr_min": self._lr_end,
            "curve": self.curve,
        }
