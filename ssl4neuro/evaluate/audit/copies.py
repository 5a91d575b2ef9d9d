"""The same scan under two IDs, although re-saved, rescaled or resampled: two subjects far closer than neighbours are.

The distances r1 < r2 of a scan to its two nearest scans of other subjects have a ratio with P(r1 / r2 < t) = t^d, whatever the
density, d being the intrinsic dimension of the features (Facco et al., Scientific Reports 7, 2017, the "two-NN" estimator); the
median ratio gives d, and the few copies do not move it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ssl4neuro.evaluate.audit.evidence import Evidence
from ssl4neuro.evaluate.check import Check

NAME = "same scan under two IDs"
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
    matrices = {**dict(list(evidence.matrices().items())[:1]), **dict(list(evidence.matrices(baselines=True).items())[:1])}
    usable = {name: m for name, m in matrices.items() if m.shape[1] >= LEAST_DIMS}
    subjects, scans = evidence.problem.subjects, evidence.problem.scans
    units, first = np.unique(scans, return_index=True)
    if not usable or len(np.unique(subjects)) < 4:
        what = f"needs vectors of {LEAST_DIMS} or more features" if not usable else "needs four subjects"
        return Check(NAME, "not checkable", what)
    chosen = np.arange(len(units))
    if len(units) > MOST:
        chosen = np.sort(np.random.default_rng(evidence.seed).choice(len(units), MOST, replace=False))
    for name, matrix in usable.items():
        means = _scan_means(matrix, scans)[chosen]
        found = same_scans(means, subjects[first][chosen])
        if len(found.pairs):
            return Check(
                NAME, "flagged", f"{len(found.pairs)} pairs of scans of different subjects have nearly the same {name}"
            )
    drawn = f" (of {MOST} scans drawn at random)" if len(units) > MOST else ""
    return Check(NAME, "passed", f"no two subjects are closer than neighbours are, in {' and '.join(usable)}{drawn}")


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
