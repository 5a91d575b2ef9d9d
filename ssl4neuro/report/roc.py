"""ROC curves of held-out scores with a band over subjects, at a fixed set of false-alarm rates."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

GRID = np.linspace(0, 1, 101)  # 1 - specificity
DRAWS = 1000


class Scored(NamedTuple):
    """Held-out scores of one repeat of the cross-validation, pooled over its folds."""

    score: Float[np.ndarray, "n"]
    positive: Bool[np.ndarray, "n"]
    subject: Shaped[np.ndarray, "n"]


class Band(NamedTuple):
    """Sensitivity at every false-alarm rate of `GRID`."""

    mean: Float[np.ndarray, "grid"]
    low: Float[np.ndarray, "grid"]
    high: Float[np.ndarray, "grid"]


def sensitivities(scored: Scored, weights: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, "draws grid"]:
    """Sensitivity of weighted rows at `GRID`; equal scores move in one step, a resample that lacks a class gives NaN."""
    order = np.argsort(-scored.score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scored.score[order])), len(order) - 1)
    weights, positive = weights[:, order], scored.positive[order]
    found, alarms = (np.cumsum(weights * which, axis=1)[:, last] for which in (positive, ~positive))
    curves = np.full((len(weights), len(GRID)), np.nan)
    for i in np.flatnonzero((found[:, -1] > 0) & (alarms[:, -1] > 0)):
        # where the curve rises, several sensitivities stand at one rate; np.interp takes the last, which is the highest
        x, y = np.append(0, alarms[i] / alarms[i, -1]), np.append(0, found[i] / found[i, -1])
        curves[i] = np.interp(GRID, x, y)
    return curves


def subject_band(repeats: Sequence[Scored], *, draws: int = DRAWS, seed: int = 0) -> Band:
    """Mean curve over repeats, with the pointwise 95 % percentile band of resampled subjects.

    Repeats of the same subjects share the resamples, and their curves are averaged at equal false-alarm rates (vertical
    averaging: Fawcett, Pattern Recognition Letters 27, 2006, section 8). Where the class is a property of the subject,
    subjects are drawn within each class, as for the interval of the AUC.
    """
    from ssl4neuro.evaluate.statistics import bootstrap_weights

    mean = np.mean([sensitivities(r, np.ones((1, len(r.score))))[0] for r in repeats], axis=0)
    drawn = []
    for r in repeats:
        codes = np.unique(r.subject, return_inverse=True)[1].ravel()
        mixed = len(np.unique(2 * codes + r.positive)) > codes.max() + 1  # a subject with both classes
        strata = None if mixed else r.positive.astype(np.int64)
        drawn.append(np.concatenate([sensitivities(r, w) for w in bootstrap_weights(codes, strata, draws, seed)]))
    low, high = np.nanquantile(np.mean(drawn, axis=0), [0.025, 0.975], axis=0)
    return Band(mean, low, high)
