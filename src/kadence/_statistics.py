"""What a few seeds allow to say about a difference: interval, probability, and what is too small to be told.

A few seeds may agree by chance, all the more where the metric is a count: of two differences in accuracy on 100 rows,
each some rows, many a pair is equal, and a spread of 0 would make the smallest difference certain. So a spread is taken
to be no smaller than the `grain` of the metric, the smallest difference there can be, which is one row more or less:
the variance is sd**2 + grain**2. Measured on normal differences that are rounded to whole rows, with a mean of 0 and a
standard deviation of 0.2 to 20 rows: without the grain, two seeds find a difference at 95% in up to 12% of the cases;
with it, 2, 3, 5 or 10 seeds do in at most 5%.

A metric that is no count has no such grain. There, equal values from all seeds mean that the seed changes nothing: they
are one measurement, and nothing is said, as for one seed.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from kadence import _checks

_LEVEL = 0.95
_RESAMPLES = 9_999
#: Keras counts metrics in float32: values that differ by less of themselves are equal.
_ROUNDING = 1e-6
#: Metrics that are a share of the rows; the last two are one of some of the rows, and have a larger grain than is said.
_SHARES = re.compile(r"^acc$|accuracy$|^precision$|^recall$", re.IGNORECASE)


def grain_of(metric: str, n_rows: int) -> float:
    """The smallest difference that a metric can have: one row more or less, of those that it is a share of.

    Args:
        metric: Name of the metric.
        n_rows: Number of rows that are judged on. Integer >= 1.

    Returns:
        Float: 1 / n_rows, or 0.0 for a metric that is no share of rows, such as a loss.
    """
    return 1.0 / n_rows if _SHARES.search(metric) else 0.0


def interval(
    values: Sequence[float], grain: float = 0.0, possible: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float] | None:
    """95% interval of the mean: the bootstrap over the seeds, widened for small samples and for the grain.

    Of n values, the plain percentile interval of the bootstrap is too narrow by about sqrt((n - 1) / n) and by the
    ratio of the normal to Student's t quantile: it covers about 84% for n = 5. The wider percentiles alpha' / 2 =
    Phi(-sqrt(n / (n - 1)) * t(alpha / 2, n - 1)) make up for most of it: measured on normal values, they cover 75, 87,
    92, 93 and 95% for n = 3, 4, 5, 6 and 10. No interval of percentiles leaves the range of the values, which covers
    1 - 2**(1 - n). BCa, SciPy's default, estimates its two corrections from these same few values, and is undefined
    where they are equal. A count of whole rows stands for half a row more or less, so half a grain is added to both
    ends; measured on rounded normal values, the intervals then cover no less than 1 - 2**(1 - n) for n = 2, 3 and 5.

    Args:
        values: One value per seed; for a paired interval, the differences.
        grain: Smallest difference that two values can have. Float >= 0.
        possible: The least and the largest mean there can be, which the interval does not leave.

    Returns:
        The pair (low, high); None for fewer than two values, or equal ones without a grain.

    Raises:
        ImportError: If SciPy is not installed.

    Source:
        Hesterberg 2015, What Teachers Should Know about the Bootstrap, section 4.1, arXiv:1411.5279.
    """
    array = np.asarray(values, np.float64)
    if _says_nothing(array, grain):
        return None
    low, high = (float(array.mean()),) * 2 if _all_equal(array) else _bootstrap(array)
    return max(low - grain / 2, possible[0]), min(high + grain / 2, possible[1])


def _bootstrap(array: np.ndarray) -> tuple[float, float]:
    found = _stats().bootstrap(
        (array,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=_widened_level(len(array)),
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _widened_level(n: int) -> float:
    return float(1.0 - 2.0 * _stats().norm.sf(math.sqrt(n / (n - 1)) * _t_quantile(n)))


def probability(differences: Sequence[float], grain: float = 0.0) -> float | None:
    """Probability that the mean difference is above 0, given these: Student's t.

    P(mu > 0) = T_{n-1}(mean / (s / sqrt(n))) with s**2 = sd**2 + grain**2; without the grain, the posterior of the mean
    of normal differences under the prior 1 / s. The share of bootstrap resamples above 0 would be 1 as soon as all
    seeds agree, which for 5 seeds happens by chance once in 16.

    Args:
        differences: One per seed.
        grain: Smallest difference that the metric can have. Float >= 0.

    Returns:
        Float in [0, 1]; None for fewer than two differences, or equal ones without a grain.

    Raises:
        ImportError: If SciPy is not installed.

    Source:
        Gelman et al. 2013, Bayesian Data Analysis, 3rd edition, section 3.2.
    """
    array = np.asarray(differences, np.float64)
    if _says_nothing(array, grain):
        return None
    spread = math.sqrt(_variance(array, grain) / len(array))
    return float(_stats().t.cdf(float(array.mean()) / spread, len(array) - 1))


def smallest_told(differences: Sequence[Sequence[float]], grain: float = 0.0) -> float | None:
    """The smallest mean difference that can be told from noise: t(0.975, n - 1) * s / sqrt(n), s**2 = sd**2 + grain**2.

    Args:
        differences: For each strategy, its differences to the baseline, one per seed.
        grain: Smallest difference that the metric can have. Float >= 0.

    Returns:
        Float: of the typical s, the root of the mean variance; None where no strategy has two differences, or all have
        equal ones without a grain.

    Raises:
        ImportError: If SciPy is not installed.
    """
    samples = [array for sample in differences if not _says_nothing(array := np.asarray(sample, np.float64), grain)]
    if not samples:
        return None
    n = min(map(len, samples))
    return _t_quantile(n) * math.sqrt(np.mean([_variance(sample, grain) for sample in samples]) / n)


def _says_nothing(array: np.ndarray, grain: float) -> bool:
    return len(array) < 2 or (grain == 0.0 and _all_equal(array))


def _all_equal(array: np.ndarray) -> bool:
    return bool(np.ptp(array) <= _ROUNDING * np.abs(array).max())


def _variance(array: np.ndarray, grain: float) -> float:
    return float(array.var(ddof=1)) + grain**2


def _t_quantile(n: int) -> float:
    return float(_stats().t.ppf((1 + _LEVEL) / 2, n - 1))


def _stats() -> Any:
    return _checks.extra("scipy.stats", "compare", "Comparing strategies")
