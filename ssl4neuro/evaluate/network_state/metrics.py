"""Metrics of calibrated probabilities for many weightings of the scans at once, mean over repeats (network_state.md §6)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ssl4neuro.evaluate.metrics import Held, confusion, weighted_auc
from ssl4neuro.evaluate.network_state.cells import Cells

BINS = 5  # of the expected calibration error; a hundred scans fill no more

Draws = Float[np.ndarray, "draws cells"]
Values = Float[np.ndarray, "draws"]


class Metric(NamedTuple):
    """A number per weighting, and what it is without information."""

    function: Callable[[Cells, Draws], Values]
    chance: float | None = None
    bounded: bool = True


def auc(cells: Cells, weights: Draws) -> Values:
    """Of calibrated logits, which folds share a scale in."""
    positive = cells.y == 1
    return np.mean([weighted_auc(z, weights * positive, weights * ~positive) for z in cells.logit.T], axis=0)


def _from_table(
    formula: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> Callable[[Cells, Draws], Values]:
    """A metric of the counts at a probability of 0.5: formula(tn, fp, fn, tp)."""

    def metric(cells: Cells, weights: Draws) -> Values:
        found = []
        for z in cells.logit.T:
            held = Held(cells.y.astype(np.float64), z[:, None], (z > 0).astype(np.int64))
            table = confusion(held, weights, 2)
            with np.errstate(invalid="ignore", divide="ignore"):
                found.append(formula(table[:, 0, 0], table[:, 0, 1], table[:, 1, 0], table[:, 1, 1]))
        return np.mean(found, axis=0)

    return metric


def brier(cells: Cells, weights: Draws) -> Values:
    """Mean squared distance of probability and state; 0.25 for 0.5 everywhere (Brier, Mon Weather Rev 78, 1950)."""
    error = ((cells.probability - cells.y[:, None]) ** 2).mean(1)
    return weights @ error / weights.sum(1)


def calibration_error(cells: Cells, weights: Draws) -> Values:
    """Mean distance of probability and frequency over five bins of equal width; chance alone makes it positive."""
    found = []
    for p in cells.probability.T:
        member = (np.minimum((p * BINS).astype(int), BINS - 1)[:, None] == np.arange(BINS)).astype(np.float64)
        gap = weights @ (member * (p - cells.y)[:, None])
        found.append(np.abs(gap).sum(1) / weights.sum(1))
    return np.mean(found, axis=0)


METRICS: dict[str, Metric] = {
    "AUC": Metric(auc, 0.5),
    "accuracy": Metric(_from_table(lambda tn, fp, fn, tp: (tn + tp) / (tn + fp + fn + tp))),
    "balanced accuracy": Metric(_from_table(lambda tn, fp, fn, tp: (tp / (tp + fn) + tn / (tn + fp)) / 2), 0.5),
    "sensitivity": Metric(_from_table(lambda tn, fp, fn, tp: tp / (tp + fn))),
    "specificity": Metric(_from_table(lambda tn, fp, fn, tp: tn / (tn + fp))),
    "precision": Metric(_from_table(lambda tn, fp, fn, tp: tp / (tp + fp))),
    "F1": Metric(_from_table(lambda tn, fp, fn, tp: 2 * tp / (2 * tp + fp + fn))),
    "Brier": Metric(brier, 0.25, bounded=False),
    "ECE": Metric(calibration_error, bounded=False),
}
