"""The same scan under two IDs, although re-saved, rescaled or resampled: two subjects far closer than neighbours are.

The distances r1 < r2 of a scan to its two nearest scans of other subjects have a ratio with P(r1 / r2 < t) = t^d, whatever the
density, d being the intrinsic dimension of the features (Facco et al., Scientific Reports 7, 2017, the "two-NN" estimator); the
median ratio gives d, and the few copies do not move it.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ssl4neuro.evaluate.audit.evidence import Evidence
from ssl4neuro.evaluate.check import Check

NAME, TABLE = "same scan under two IDs", "same_scans"
MOST = 4000  # scans compared; more are drawn at random
LEVEL, CLOSER = 1e-3, 0.3  # family-wise p, and how much closer than the second neighbour
EQUAL = 1e-3  # of the median distance: copies whatever the neighbours are
LEAST_DIMS = 3


class Copies(NamedTuple):
    """Pairs of scans of different subjects that are taken for one and the same."""

    pairs: Int[np.ndarray, "pairs 2"]
    dimension: float


def copies(evidence: Evidence) -> Check:
    """Nearest pairs in the embeddings and in the first baseline made of vectors."""
    compared = _compared(evidence)
    if not compared or len(np.unique(evidence.problem.subjects)) < 4:
        what = "needs four subjects" if compared else f"needs vectors of {LEAST_DIMS} or more features"
        return Check(NAME, "not checkable", what)
    for name, (means, first) in compared.items():
        count = len(same_scans(means, evidence.problem.subjects[first]).pairs)
        if count:
            scans = "a pair of scans" if count == 1 else f"{count} pairs of scans"
            return Check(NAME, "flagged", f"{scans} of different subjects with nearly the same {name}, see {TABLE}.tsv")
    drawn = f" (of {MOST} scans drawn at random)" if len(np.unique(evidence.problem.scans)) > MOST else ""
    return Check(NAME, "passed", f"no two subjects are closer than neighbours are, in {' and '.join(compared)}{drawn}")


def copy_table(evidence: Evidence) -> pd.DataFrame:
    """The pairs that `copies` counts: features, subject, session, other_subject, other_session."""
    table, lines = evidence.problem.table, []
    for name, (means, first) in _compared(evidence).items():
        for pair in same_scans(means, evidence.problem.subjects[first]).pairs:
            one, other = (table.iloc[first[scan]] for scan in pair)
            lines.append((name, one["subject"], one.get("session", ""), other["subject"], other.get("session", "")))
    return pd.DataFrame(lines, columns=["features", "subject", "session", "other_subject", "other_session"])


def _compared(evidence: Evidence) -> dict[str, tuple[Float[np.ndarray, "scans dim"], Int[np.ndarray, "scans"]]]:
    """Mean vectors of scans and the first row of each, by what they are vectors of."""
    matrices = {**dict(list(evidence.matrices().items())[:1]), **dict(list(evidence.matrices(baselines=True).items())[:1])}
    scans = evidence.problem.scans
    first = np.unique(scans, return_index=True)[1]
    chosen = np.arange(len(first))
    if len(first) > MOST:
        chosen = np.sort(np.random.default_rng(evidence.seed).choice(len(first), MOST, replace=False))
    usable = {name: m for name, m in matrices.items() if m.shape[1] >= LEAST_DIMS}
    return {name: (_scan_means(matrix, scans)[chosen], first[chosen]) for name, matrix in usable.items()}


def same_scans(features: Float[np.ndarray, "scans dim"], subjects: Int[np.ndarray, "scans"]) -> Copies:
    """Pairs of scans of different subjects that are implausibly close; features are standardised first."""
    x = features.astype(np.float64)
    spread = x.std(0)
    x = (x[:, spread > 0] - x[:, spread > 0].mean(0)) / spread[spread > 0]
    none = Copies(np.empty((0, 2), dtype=np.int64), float("nan"))
    if x.shape[1] < LEAST_DIMS:
        return none
    square = (x**2).sum(1)
    distance = np.sqrt(np.maximum(square[:, None] + square - 2 * x @ x.T, 0))
    distance[subjects[:, None] == subjects] = np.inf
    near = np.argpartition(distance, 1, axis=1)[:, :2]
    ordered = np.sort(np.take_along_axis(distance, near, axis=1), axis=1)
    ratio = ordered[:, 0] / np.maximum(ordered[:, 1], 1e-12)
    middle = np.median(ratio)
    if not np.isfinite(ordered).all() or middle <= 0:
        return none
    dimension = float(np.log(2) / -np.log(min(middle, 1 - 1e-9)))
    typical = float(np.median(distance[np.isfinite(distance)]))
    close = (ratio < CLOSER) & (len(x) * ratio**dimension < LEVEL)
    close |= ordered[:, 0] < max(EQUAL * typical, 1e-6)
    mine = np.flatnonzero(close)
    pairs = np.sort(np.stack([mine, distance[mine].argmin(1)], axis=1), axis=1)
    return Copies(np.unique(pairs, axis=0), dimension)


def _scan_means(matrix: np.ndarray, scans: np.ndarray) -> np.ndarray:
    codes = np.unique(scans, return_inverse=True)[1]
    total = np.zeros((codes.max() + 1, matrix.shape[1]))
    np.add.at(total, codes, np.nan_to_num(matrix.astype(np.float64)))
    return total / np.bincount(codes)[:, None]
