"""Intervals and p-values whose unit is the subject.

Rows of one subject are not independent, so both resampling schemes act on whole subjects:

- `Bootstrap`: subjects are drawn with replacement; where the label is a property of the subject, within each class, so that no
  resample lacks one. Percentiles are expanded for small samples: the plain percentile interval of few subjects is too
  narrow by about sqrt((n-1)/n) z/t (Hesterberg, The American Statistician 69, 2015, section 4.3).
- `permuted_labels`: labels change place *between subjects* when every row of a subject has the same label, and *within
  subjects* (between their scans) otherwise. scikit-learn's `permutation_test_score(groups=)` always does the latter and
  returns p = 1 for one label per subject (its issue 21543).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import stats

from ssl4neuro.errors import UserError

Scheme = Literal["between subjects", "within subjects", "within scans"]
CHUNK = 4_000_000  # numbers in one block of weights


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


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
        return Interval(value, edge, 1.0) if value == 1.0 else Interval(value, 0.0, 1 - edge)
    tail = expanded_tail(count, level)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, min(float(low), value), max(float(high), value))


def expanded_tail(count: int, level: float = 0.95) -> float:
    """Tail probability that gives a percentile interval of `count` subjects the width of a t interval."""
    t = stats.t.ppf((1 - level) / 2, count - 1) * np.sqrt(count / (count - 1))
    return float(stats.norm.cdf(t))


def _smallest_stratum(subjects: np.ndarray, strata: np.ndarray | None) -> int:
    if strata is None:
        return len(np.unique(subjects))
    return min(len(np.unique(subjects[strata == value])) for value in np.unique(strata))


def constant_within(values: Shaped[np.ndarray, "rows"], groups: Int[np.ndarray, "rows"]) -> Bool[np.ndarray, "groups"]:
    """For each group, in order of its code: do all of its rows have the same value?"""
    _, code = np.unique(values, return_inverse=True)
    order = np.lexsort((code, groups))
    ordered, group = code[order], groups[order]
    _, start = np.unique(group, return_index=True)
    return np.minimum.reduceat(ordered, start) == np.maximum.reduceat(ordered, start)


def permutation_scheme(
    values: Shaped[np.ndarray, "rows"], subjects: Int[np.ndarray, "rows"], scans: Int[np.ndarray, "rows"]
) -> Scheme:
    """How labels may change places when they mean nothing, from the level at which they vary.

    Constant in every subject: between subjects. Varying in at least half of them: within subjects, a scan's rows
    together; or, where rows of one scan differ (component labels), within scans. Few varying subjects: between subjects
    of equal layout, because permuting within a handful of them could never be significant.
    """
    if constant_within(values, subjects).mean() > 0.5:
        return "between subjects"
    return "within subjects" if constant_within(values, scans).mean() > 0.5 else "within scans"


def permuted_labels(
    values: Shaped[np.ndarray, "rows"],
    subjects: Int[np.ndarray, "rows"],
    scans: Int[np.ndarray, "rows"],
    scheme: Scheme,
    permutations: int,
    seed: int,
    blocks: Int[np.ndarray, "rows"] | None = None,
) -> Shaped[np.ndarray, "rows permutations"]:
    """Columns of labels, equally likely under the null hypothesis that they are unrelated to the features.

    `blocks` (sites, constant within a subject) confine an exchange between subjects to subjects of one block.

    Raises:
        UserError: nothing can change places, so that no p-value exists.
    """
    rng = np.random.default_rng([seed, 0x9E27])
    moves = _moves(values, subjects, scans, scheme, blocks)
    if not moves:
        raise UserError(f"permutations: no two labels can change places {scheme}; use more subjects or --permutations 0")
    source = np.tile(np.arange(len(values))[:, None], (1, permutations))
    for members in moves:  # [units, rows of a unit]: units change places as wholes
        order = rng.permuted(np.tile(np.arange(len(members))[:, None], (1, permutations)), axis=0)
        for position in range(members.shape[1]):
            source[members[:, position]] = members[order, position]
    return values[source]


def _moves(
    values: np.ndarray, subjects: np.ndarray, scans: np.ndarray, scheme: Scheme, blocks: np.ndarray | None
) -> list[np.ndarray]:
    """Sets of exchangeable units, each as an index array [units, rows per unit]."""
    unit, pool = {
        "between subjects": (subjects, np.zeros_like(subjects) if blocks is None else blocks),
        "within subjects": (scans, subjects),
        "within scans": (np.arange(len(values)), scans),
    }[scheme]
    rows_of = _rows_by(unit)
    uniform = bool(constant_within(values, unit).all())
    pools: dict[tuple[int, int], list[np.ndarray]] = {}
    for rows in rows_of:
        # Where a unit's rows share one label, units of different size may exchange it: one row stands for all.
        pools.setdefault((int(pool[rows[0]]), 0 if uniform else len(rows)), []).append(rows)
    moves = []
    for units in pools.values():
        labels = values[np.concatenate(units)]
        if len(units) > 1 and (labels != labels[0]).any():
            longest = max(len(rows) for rows in units)
            moves.append(np.stack([np.resize(rows, longest) for rows in units]))
    return moves


def _rows_by(unit: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(unit, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(unit[order])) + 1)


def p_value(observed: float, null: Float[np.ndarray, "permutations"], higher_is_better: bool = True) -> float:
    """One-sided permutation p-value (1 + #as extreme) / (1 + #permutations); never 0 (Phipson and Smyth 2010)."""
    if not np.isfinite(observed) or not len(null):
        return float("nan")
    null = null[np.isfinite(null)]
    slack = 1e-9 * max(1.0, abs(observed))  # equal arrangements must count as equal in spite of rounding
    extreme = null >= observed - slack if higher_is_better else null <= observed + slack
    return float((1 + extreme.sum()) / (1 + len(null)))
