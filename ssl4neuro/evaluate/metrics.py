"""Metrics of pooled held-out predictions, evaluated for many row weightings at once.

Every metric takes `weights` [draws, rows]: how often each row counts. One draw of ones is the plain metric; a subject-level
bootstrap is the counts of the resampled subjects' rows. So the interval costs one sort, not one sort per resample.
A draw in which a metric is undefined (a class is missing) gives NaN.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

Task = Literal["binary", "multiclass", "regression"]
Draws = Float[np.ndarray, "draws rows"]


class Held(NamedTuple):
    """Truth and held-out prediction of every row."""

    truth: Float[np.ndarray, "rows"]  # class code 0..K-1, or the value
    values: Float[np.ndarray, "rows outputs"]  # ranking scores without intercept (one per class, one for binary and regression)
    decision: Int[np.ndarray, "rows"] | Float[np.ndarray, "rows"]  # predicted class code, or predicted value
    probability: Float[np.ndarray, "rows outputs"] | None = None  # as fitted, where the probe has one; no metric uses it


def weighted_auc(
    score: Float[np.ndarray, "rows"], positive: Float[np.ndarray, "draws rows"], negative: Float[np.ndarray, "draws rows"]
) -> Float[np.ndarray, "draws"]:
    """Probability that a positive outranks a negative, ties counted half (Mann-Whitney), for each weighting."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    up = np.add.reduceat(positive[:, order].astype(np.float64), starts, axis=1)
    down = np.add.reduceat(negative[:, order].astype(np.float64), starts, axis=1)
    below = np.cumsum(down, axis=1) - 0.5 * down
    with np.errstate(invalid="ignore", divide="ignore"):
        return (up * below).sum(1) / (up.sum(1) * down.sum(1))


def macro_auc(held: Held, weights: Draws) -> Float[np.ndarray, "draws"]:
    """One-against-rest AUC averaged over the classes; the plain AUC for two classes."""
    if held.values.shape[1] == 1:
        positive = held.truth == 1
        return weighted_auc(held.values[:, 0], weights * positive, weights * ~positive)
    aucs = []
    for code in range(held.values.shape[1]):
        positive = held.truth == code
        aucs.append(weighted_auc(held.values[:, code], weights * positive, weights * ~positive))
    return np.mean(aucs, axis=0)


def confusion(held: Held, weights: Draws, classes: int) -> Float[np.ndarray, "draws true predicted"]:
    """Weighted counts: rows are the true class, columns the predicted one."""
    cell = held.truth.astype(np.int64) * classes + held.decision
    onehot = (cell[:, None] == np.arange(classes * classes)).astype(np.float64)
    return (weights @ onehot).reshape(-1, classes, classes)


def balanced_accuracy(held: Held, weights: Draws) -> Float[np.ndarray, "draws"]:
    """Mean of the classes' recalls."""
    table = confusion(held, weights, _classes(held))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (np.diagonal(table, axis1=1, axis2=2) / table.sum(2)).mean(1)


def f1(held: Held, weights: Draws) -> Float[np.ndarray, "draws"]:
    """F1 of the second class in a two-class problem, otherwise the classes' mean F1."""
    table = confusion(held, weights, _classes(held))
    hit = np.diagonal(table, axis1=1, axis2=2)
    total = table.sum(2) + table.sum(1)
    score = np.divide(2 * hit, total, out=np.full_like(hit, np.nan), where=total > 0)
    return score[:, 1] if table.shape[1] == 2 else score.mean(1)


def r2(held: Held, weights: Draws) -> Float[np.ndarray, "draws"]:
    """1 - squared error / variance around the mean of the test rows; below 0 when worse than that mean."""
    mean = weights @ held.truth / weights.sum(1)
    error = weights @ (held.truth - held.decision) ** 2
    spread = weights @ held.truth**2 - weights.sum(1) * mean**2
    return 1 - np.divide(error, spread, out=np.full_like(error, np.nan), where=spread > 1e-12)


def mean_absolute_error(held: Held, weights: Draws) -> Float[np.ndarray, "draws"]:
    """Mean absolute error, in the target's units."""
    return weights @ np.abs(held.truth - held.decision) / weights.sum(1)


def spearman(held: Held, weights: Draws) -> Float[np.ndarray, "draws"]:
    """Rank correlation with mid-ranks; 0 where the prediction is constant, which ranks nobody.

    On the scores without intercept: a left-out subject with a high value lowers the training mean, and predictions that
    carry that mean are anti-correlated with the truth without any information.
    """
    x, y = _weighted_ranks(held.truth, weights), _weighted_ranks(held.values[:, 0], weights)
    total = weights.sum(1, keepdims=True)
    x, y = x - (weights * x).sum(1, keepdims=True) / total, y - (weights * y).sum(1, keepdims=True) / total
    scale = np.sqrt((weights * x * x).sum(1) * (weights * y * y).sum(1))
    return np.divide((weights * x * y).sum(1), scale, out=np.zeros_like(scale), where=scale > 1e-9)


def _weighted_ranks(value: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(value, kind="stable")
    first = np.r_[True, np.diff(value[order]) != 0]
    group = np.cumsum(first) - 1
    mass = np.add.reduceat(weights[:, order].astype(np.float64), np.flatnonzero(first), axis=1)
    middle = np.cumsum(mass, axis=1) - 0.5 * mass
    ranks = np.empty(weights.shape)
    ranks[:, order] = middle[:, group]
    return ranks


def _classes(held: Held) -> int:
    return max(held.values.shape[1], 2)


class Metric(NamedTuple):
    """A metric with what is needed to read it."""

    function: Callable[[Held, np.ndarray], np.ndarray]
    chance: Callable[[int], float | None]  # expected value without information, given the number of classes
    higher_is_better: bool = True
    bounded: bool = True  # between 0 and 1: a proportion-like interval makes sense when the bootstrap is degenerate
    equivalence: bool = False  # a margin around chance means something on its scale


CLASSIFICATION = {
    "AUC": Metric(macro_auc, lambda classes: 0.5, equivalence=True),
    "balanced accuracy": Metric(balanced_accuracy, lambda classes: 1 / classes, equivalence=True),
    "F1": Metric(f1, lambda classes: None),
}
METRICS: dict[str, dict[str, Metric]] = {
    "binary": CLASSIFICATION,
    "multiclass": CLASSIFICATION,
    "regression": {
        "R2": Metric(r2, lambda classes: 0.0, bounded=False),
        "MAE": Metric(mean_absolute_error, lambda classes: None, higher_is_better=False, bounded=False),
        "Spearman": Metric(spearman, lambda classes: 0.0, bounded=False),
    },
}
