"""Standard error of the AUC without resampling: DeLong et al. (Biometrics 1988), by subject as Obuchowski (Biometrics 1997).

A check beside the bootstrap: it holds the trained models fixed as well, but rests on a normal approximation.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats


class DeLong(NamedTuple):
    """AUC of every model and their covariance."""

    auc: Float[np.ndarray, "models"]
    covariance: Float[np.ndarray, "models models"]


def delong(
    positive: Bool[np.ndarray, "rows"],
    scores: Float[np.ndarray, "rows models"],
    subjects: Int[np.ndarray, "rows"] | None = None,
) -> DeLong:
    """AUCs with their covariance matrix; rows of one subject may depend on one another in any way.

    The covariance is NaN where either class comes from fewer than two subjects. With one row per subject it is DeLong's.
    """
    subjects = np.arange(len(positive)) if subjects is None else subjects
    return from_placements(positive, np.stack([placements(positive, column) for column in scores.T], axis=1), subjects)


def placements(positive: Bool[np.ndarray, "rows"], score: Float[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """For a positive the share of negatives below it, for a negative the share of positives above it; ties count half."""
    placed = np.empty(len(score))
    for own, sign in ((positive, 1.0), (~positive, -1.0)):
        other = np.sort(sign * score[~own])
        below, upto = (np.searchsorted(other, sign * score[own], side) for side in ("left", "right"))
        placed[own] = (below + upto) / (2 * max(len(other), 1))
    return placed


def from_placements(
    positive: Bool[np.ndarray, "rows"], placed: Float[np.ndarray, "rows models"], subjects: Int[np.ndarray, "rows"]
) -> DeLong:
    """From placements, which may be means over repeated cross-validations."""
    n_up, n_down = int(positive.sum()), int((~positive).sum())
    auc = placed[positive].mean(0) if n_up and n_down else np.full(placed.shape[1], np.nan)
    code = np.unique(subjects, return_inverse=True)[1]
    inside = np.zeros((2, code.max() + 1, placed.shape[1]))  # deviation of each subject's placements, positive and negative
    clusters = []
    for side, rows in enumerate((positive, ~positive)):
        np.add.at(inside[side], code[rows], placed[rows] - auc)
        clusters.append(len(np.unique(code[rows])))
    if min(clusters) < 2:
        return DeLong(auc, np.full((placed.shape[1],) * 2, np.nan))
    up, down = inside
    total = inside.shape[1]
    both = up.T @ down
    covariance = (
        clusters[0] / (clusters[0] - 1) * up.T @ up / n_up**2
        + clusters[1] / (clusters[1] - 1) * down.T @ down / n_down**2
        + total / (total - 1) * (both + both.T) / (n_up * n_down)
    )
    return DeLong(auc, covariance)


def delong_interval(auc: float, variance: float, level: float = 0.95) -> tuple[float, float]:
    """On the logit scale, so that it stays between 0 and 1. NaN for an AUC of 0 or 1, whose estimated variance is 0."""
    if not (0 < auc < 1 and variance > 0):
        return float("nan"), float("nan")
    centre, half = np.log(auc / (1 - auc)), stats.norm.ppf((1 + level) / 2) * np.sqrt(variance) / (auc * (1 - auc))
    low, high = 1 / (1 + np.exp(-np.array([centre - half, centre + half])))
    return float(low), float(high)


def delong_p(found: DeLong, first: int = 0, second: int = 1) -> float:
    """Two-sided p of equal AUCs; 1 where the models do not differ at all."""
    difference = found.auc[first] - found.auc[second]
    covariance = found.covariance
    variance = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    if np.isfinite(variance) and variance <= 1e-15:
        return 1.0 if abs(difference) < 1e-12 else float("nan")
    return float(2 * stats.norm.sf(abs(difference) / np.sqrt(variance)))
