"""Within-subject permutation of held-out scores, the models fixed (network_state.md §6), and Holm's correction.

If the states mean nothing, a subject's scans may exchange them. That is exact for one test set. Over the folds of a
cross-validation it is not: two subjects of different folds meet twice, for each has trained the model that scores the other. A
score is, to first order, a sum over the training subjects of terms that are symmetric in the two (the inner product of their
features); the pooled statistic therefore counts every pair twice and has twice the variance that exchanges with fixed models
show. In simulations with no effect 8 to 14 % of the plain p-values fall below 0.05; with the null's spread widened by the
square root of two it is 1 to 6 % (`tests/benchmarks/bench_network_state.py`).
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.network_state.cells import Cells
from ssl4neuro.evaluate.network_state.metrics import auc
from ssl4neuro.evaluate.statistics import p_value, permuted_labels


def swapped_labels(cells: Cells, permutations: int, seed: int) -> Int[np.ndarray, "permutations cells"]:
    """States exchanged between the scans of each subject; no rows where no subject has both."""
    scan = np.arange(len(cells.y))
    try:
        found = permuted_labels(cells.y, cells.subject, scan, "within subjects", permutations, seed)
    except UserError:  # nobody has two states
        return np.zeros((0, len(cells.y)), dtype=np.int64)
    return np.ascontiguousarray(found.T)


def swap_p(cells: Cells, permutations: int, seed: int) -> float | None:
    """One-sided p of the AUC; None without permutations or without a subject that has both states."""
    if not permutations:
        return None
    labels = swapped_labels(cells, permutations, seed)
    if not len(labels):
        return None
    ones = np.ones((1, len(cells.y)))
    observed = float(auc(cells, ones)[0])
    null = _auc_of_labels(cells, labels)
    centre = float(null.mean())
    widening = np.sqrt(2.0) if cells.folds > 1 else 1.0
    return p_value(observed, centre + widening * (null - centre))


def _auc_of_labels(cells: Cells, labels: np.ndarray) -> np.ndarray:
    """By ranks, which do not change: AUC = (rank sum of the positives - its minimum) / number of pairs."""
    from scipy.stats import rankdata

    positive = labels == 1
    count = positive.sum(1)
    pairs = count * (labels.shape[1] - count)
    found = [(positive @ rankdata(z) - count * (count + 1) / 2) / pairs for z in cells.logit.T]
    return np.mean(found, axis=0)


def holm(p: Mapping[str, float | None]) -> dict[str, float]:
    """Adjusted p-values (Holm, Scand J Stat 6, 1979) of those that are there."""
    known = sorted((value, name) for name, value in p.items() if value is not None and np.isfinite(value))
    adjusted, highest = {}, 0.0
    for rank, (value, name) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        adjusted[name] = highest
    return adjusted
