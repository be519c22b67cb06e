"""One curve, rates and losses -> the rate that a rule suggests, the rates that learn, or why neither; pure NumPy."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

#: Weight of the past in the smoothed loss of a sweep of 100 steps; other lengths look back over the same decades.
_SMOOTHING = 0.98
#: Kendall's z below which a loss is taken to fall. Of curves that are nothing but noise, one in a hundred passes.
_FALLS = -3.0
#: Fewer points than this say nothing.
_FEWEST = 8
#: Resampled curves for an interval, and the share of them that a rate has to learn in.
_RESAMPLES = 400
_SHARE = 0.9
#: Share of the fall after which a curve is taken to be falling.
_BEGUN = 0.1


def smoothing(n_steps: int) -> float:
    """Weight of the past in the smoothed loss of a sweep of `n_steps` steps.

    Args:
        n_steps: Length of the whole sweep, in steps. Integer >= 1.

    Returns:
        beta of `smooth`. Float, 0 < beta < 1.
    """
    return _SMOOTHING ** (100 / n_steps)


def smooth(losses: np.ndarray, beta: float) -> np.ndarray:
    """Exponential moving average without the bias of its start.

    average = beta * average + (1 - beta) * loss, divided by 1 - beta ** (step + 1)

    Args:
        losses: Raw losses, step by step. Array of shape (n,).
        beta: Weight of the past. Float, 0 <= beta < 1.

    Returns:
        Array of shape (n,), float64.
    """
    smoothed, average = np.empty(len(losses)), 0.0
    for step, loss in enumerate(losses.tolist()):
        average = beta * average + (1.0 - beta) * loss
        smoothed[step] = average / (1.0 - beta ** (step + 1))
    return smoothed


def kept(n_points: int, n_steps: int) -> slice:
    """The part of a curve that rules look at: without its first tenth and the last twentieth of `n_steps`.

    Args:
        n_points: Points of the curve, fewer than `n_steps` where the sweep ended early. Integer >= 0.
        n_steps: Length of the whole sweep, in steps. Integer >= 1.

    Returns:
        Slice of the points; nothing is left of a curve that is too short.
    """
    return slice(n_steps // 10, max(n_points - max(1, n_steps // 20), 0))


def valley(rates: np.ndarray, losses: np.ndarray, scale: float) -> float:
    """Half of the way down the longest fall; see `RangeTest.suggest`.

    Args:
        rates: Rates of the part that the rules look at, ascending. Array of shape (n,), n >= 2, floats > 0.
        losses: Smoothed losses at these rates. Array of shape (n,).
        scale: Length of the whole sweep in steps, divided by 100. Float > 0; this rule does without.

    Returns:
        The rate there. Float > 0.
    """
    falls = np.ones(len(losses), np.int64)
    for i in range(1, len(losses)):
        falls[i] += np.max(falls[:i][losses[:i] > losses[i]], initial=0)
    end = int(falls.argmax())
    start = end - int(falls[end]) if end else 0
    third = (end - start) / 3
    return float(rates[max(start + int(third) + int(third / 2), 0)])


def steepest(rates: np.ndarray, losses: np.ndarray, scale: float) -> float:
    """Where the loss falls fastest against the logarithm of the rate; see `RangeTest.suggest`.

    Args:
        rates: Rates of the part that the rules look at, ascending. Array of shape (n,), n >= 2, floats > 0.
        losses: Smoothed losses at these rates. Array of shape (n,).
        scale: Length of the whole sweep in steps, divided by 100. Float > 0; this rule does without.

    Returns:
        The rate there. Float > 0.
    """
    return float(rates[np.argmin(np.diff(losses) / np.diff(np.log(rates)))])


def minimum(rates: np.ndarray, losses: np.ndarray, scale: float) -> float:
    """A tenth of the rate with the lowest loss; see `RangeTest.suggest`.

    Args:
        rates: Rates of the part that the rules look at, ascending. Array of shape (n,), n >= 2, floats > 0.
        losses: Smoothed losses at these rates. Array of shape (n,).
        scale: Length of the whole sweep in steps, divided by 100. Float > 0; this rule does without.
    """
    return float(rates[np.argmin(losses)]) / 10.0


def slide(rates: np.ndarray, losses: np.ndarray, scale: float) -> float:
    """The right-most place where the slope settles; see `RangeTest.suggest`.

    Args:
        rates: Rates of the part that the rules look at, ascending. Array of shape (n,), n >= 2, floats > 0.
        losses: Smoothed losses at these rates. Array of shape (n,).
        scale: Length of the whole sweep in steps, divided by 100. Float > 0.

    Returns:
        The rate there. Float > 0.
    """
    width = max(1, round(15 * scale))
    slope = np.gradient(losses) * scale
    right, left = len(losses) - 1, max(len(losses) - 1 - width, 0)
    answer = left
    while left >= 0 and abs(slope[right] - slope[left]) > 0.005:
        answer, right, left = left, right - 1, left - 1
    return float(rates[answer])


#: Name -> rule, of rates, smoothed losses, and the number of steps as a multiple of 100.
RULES: Mapping[str, Callable[[np.ndarray, np.ndarray, float], float]] = MappingProxyType(
    {"valley": valley, "steepest": steepest, "minimum": minimum, "slide": slide}
)


def kendall(values: np.ndarray) -> float:
    """Kendall's statistic of a trend: standard normal without one, negative for a fall.

    Args:
        values: Numbers in the order in which they came, such as the losses of a sweep. Array of shape (n,).

    Returns:
        z. Float; 0 for fewer than two values.
    """
    n = len(values)
    above = np.sign(values[None, :] - values[:, None])
    score = float(np.triu(above, 1).sum())
    return score / math.sqrt(n * (n - 1) * (2 * n + 5) / 18) if n > 1 else 0.0


def doubt(losses: np.ndarray, smoothed: np.ndarray, stopped: str) -> str:
    """Why a curve has no clear answer, or nothing if it falls beyond its noise.

    Args:
        losses: Raw losses of the part that the rules look at.
        smoothed: The same, smoothed.
        stopped: Why the sweep ended, one of the codes of `Curve`.
    """
    if len(losses) < _FEWEST:
        return f"{_TOO_SHORT[stopped]} before the loss could fall"
    lowest = int(np.argmin(smoothed))
    if lowest + 1 >= _FEWEST and kendall(losses[: lowest + 1]) < _FALLS:
        return ""
    if kendall(losses) > -_FALLS:
        return "the loss rises with the rate and falls nowhere; a lower lr_min may tell"
    return "the loss does not fall beyond its noise at any rate; more steps, larger batches or more runs may tell"


_TOO_SHORT = {
    "end": "the sweep was over",
    "rose": "the loss rose (lower lr_min)",
    "not finite": "the loss was not finite any more (lower lr_min)",
    "data": "the data ended",
}


def rates_that_learn(rates: np.ndarray, curves: Sequence[np.ndarray], n_steps: int) -> tuple[float, float] | None:
    """The rates at which the loss falls in nine of ten curves, or None if there are none.

    A curve falls from where a tenth of its fall is done to its lowest point. Each curve stands for many: around its
    centred moving average, blocks of its residuals keep or change their sign at random.

    Args:
        rates: Rates of the part that the rules look at. Array of shape (n,).
        curves: Raw losses of that part, one array of shape (n,) per run.
        n_steps: Length of the whole sweep, in steps.

    Source:
        The wild bootstrap of Liu 1988, Annals of Statistics 16, on blocks as in Shao 2010, JASA 105.
    """
    rng = np.random.default_rng(0)
    width = max(3, n_steps // 10 | 1)
    lows, highs = [], []
    for losses in curves:
        trend = _centred(losses, width)
        for _ in range(-(-_RESAMPLES // len(curves))):
            signs = np.repeat(rng.choice([-1.0, 1.0], -(-len(losses) // width)), width)[: len(losses)]
            low, high = _fall(_centred(trend + (losses - trend) * signs, width))
            lows.append(low)
            highs.append(high)
    low, high = np.quantile(lows, _SHARE), np.quantile(highs, 1.0 - _SHARE)
    if low >= high:
        return None
    return float(rates[math.ceil(low)]), float(rates[math.floor(high)])


def _centred(losses: np.ndarray, width: int) -> np.ndarray:
    """Moving average around each point; of fewer points at the ends."""
    window = np.ones(min(width, len(losses)))
    return np.convolve(losses, window, "same") / np.convolve(np.ones(len(losses)), window, "same")


def _fall(losses: np.ndarray) -> tuple[int, int]:
    """Where a smooth curve has begun to fall, and where it is lowest."""
    lowest = int(np.argmin(losses))
    highest = float(np.max(losses[: lowest + 1]))
    above = losses[: lowest + 1] > highest - _BEGUN * (highest - losses[lowest])
    return int(np.flatnonzero(above)[-1]) if above.any() else 0, lowest
