"""Confidence intervals by resampling subjects.

Rows of one subject are not independent, so subjects are drawn with replacement; where the label is a property of the subject,
within each class, so that no resample lacks one. Percentiles are expanded for small samples: the plain percentile interval
of few subjects is too narrow by about sqrt((n-1)/n) z/t (Hesterberg, The American Statistician 69, 2015, section 4.3).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

CHUNK = 4_000_000  # numbers in one block of weights


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float
    resampled: Float[np.ndarray, "draws"] = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)
    count: int = 0  # subjects in the smallest stratum


def bootstrap_weights(
    subjects: Int[np.ndarray, "rows"], strata: Int[np.ndarray, "rows"] | None, draws: int, seed: int
) -> Iterator[Float[np.ndarray, "draws rows"]]:
    """Blocks of row weights: how often each row's subject was drawn. `strata` are constant within a subject."""
    codes, first = np.unique(subjects, return_index=True)
    row_of = np.searchsorted(codes, subjects)
    layer = np.zeros(len(codes), dtype=np.int64) if strata is None else strata[first]
    rng = np.random.default_rng([seed, 0xB007])
    block = max(1, min(draws, CHUNK // max(len(subjects), 1)))
    for start in range(0, draws, block):
        counts = np.zeros((min(block, draws - start), len(codes)), dtype=np.float64)
        for value in np.unique(layer):
            members = np.flatnonzero(layer == value)
            counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=len(counts))
        yield counts[:, row_of]


def bootstrap_interval(
    metric: Callable[[np.ndarray], np.ndarray],
    subjects: Int[np.ndarray, "rows"],
    *,
    strata: Int[np.ndarray, "rows"] | None = None,
    draws: int = 2000,
    seed: int = 0,
    bounded: bool = False,
    level: float = 0.95,
) -> Interval:
    """Cluster-bootstrap interval of `metric(weights [draws, rows]) -> [draws]`.

    When all resamples of a `bounded` metric agree at 0 or 1 (perfect separation), the bootstrap knows nothing of the
    uncertainty; the interval is then Clopper and Pearson's for as many trials as there are subjects.
    """
    value = float(metric(np.ones((1, len(subjects))))[0])
    count = _smallest_stratum(subjects, strata)
    if draws < 1 or count < 2 or not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"))
    resampled = np.concatenate([metric(block) for block in bootstrap_weights(subjects, strata, draws, seed)])
    resampled = resampled[np.isfinite(resampled)]
    if not len(resampled):
        return Interval(value, float("nan"), float("nan"))
    if bounded and np.ptp(resampled) == 0 and value in (0.0, 1.0):
        n = len(np.unique(subjects))
        edge = ((1 - level) / 2) ** (1 / n)
        low, high = (edge, 1.0) if value == 1.0 else (0.0, 1 - edge)
        return Interval(value, low, high, resampled, count)
    tail = expanded_tail(count, level)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, min(float(low), value), max(float(high), value), resampled, count)


def expanded_tail(count: int, level: float = 0.95) -> float:
    """Tail probability that gives a percentile interval of `count` subjects the width of a t interval."""
    t = stats.t.ppf((1 - level) / 2, count - 1) * np.sqrt(count / (count - 1))
    return float(stats.norm.cdf(t))


def equivalence_p(interval: Interval, centre: float, margin: float) -> float:
    """p of two one-sided tests (Schuirmann 1987): small when the estimate lies within `centre` ± `margin` for certain.

    Each side is the level at which the one-sided, expanded percentile bound would touch the margin; the larger counts. So
    p <= 0.05 just when the 90 % interval lies inside. NaN without resamples, and where all agree on a place inside (a probe
    that always answers the same): they know nothing of the uncertainty.
    """
    if not len(interval.resampled) or (np.ptp(interval.resampled) == 0 and abs(interval.value - centre) < margin):
        return float("nan")
    outside = [(interval.resampled <= centre - margin).sum(), (interval.resampled >= centre + margin).sum()]
    share = (1 + max(outside)) / (1 + len(interval.resampled))
    if share >= 1:
        return 1.0
    n = interval.count
    return float(stats.t.cdf(stats.norm.ppf(share) * np.sqrt((n - 1) / n), n - 1))


def _smallest_stratum(subjects: np.ndarray, strata: np.ndarray | None) -> int:
    if strata is None:
        return len(np.unique(subjects))
    return min(len(np.unique(subjects[strata == value])) for value in np.unique(strata))
