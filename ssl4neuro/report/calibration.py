"""Whether predicted probabilities mean what they say: reliability in bins, Brier score, expected calibration error."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

BINS = 10
LEAST = 8  # predictions in a bin; fewer say nothing


class Reliability(NamedTuple):
    """Bins of equal size along the predicted probability."""

    predicted: Float[np.ndarray, "bins"]  # mean probability
    observed: Float[np.ndarray, "bins"]  # share in which it came true
    low: Float[np.ndarray, "bins"]  # Wilson's 95 % interval for as many trials as there are subjects in the bin
    high: Float[np.ndarray, "bins"]
    size: Int[np.ndarray, "bins"]


def reliability(
    probability: Float[np.ndarray, "n"], outcome: Bool[np.ndarray, "n"], subject: Shaped[np.ndarray, "n"], bins: int = BINS
) -> Reliability:
    """Observed frequency against predicted probability; equal probabilities share a bin, small data get fewer bins.

    Rows of one subject are no independent trials, so a bin's interval counts its subjects.
    """
    bins = max(1, min(bins, len(probability) // LEAST))
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1]))
    where = np.searchsorted(edges, probability, side="left")
    rows = [np.flatnonzero(where == b) for b in np.unique(where)]
    observed = np.array([outcome[r].mean() for r in rows])
    low, high = wilson(observed, np.array([len(np.unique(subject[r])) for r in rows]))
    predicted = np.array([probability[r].mean(dtype=np.float64) for r in rows])
    return Reliability(predicted, observed, low, high, np.array([len(r) for r in rows]))


def brier(probability: Float[np.ndarray, "n"], outcome: Bool[np.ndarray, "n"]) -> float:
    """Mean squared distance of probability and outcome: 0 at best (Brier, Monthly Weather Review 78, 1950)."""
    return float(np.mean((probability - outcome) ** 2))


def expected_calibration_error(probability: Float[np.ndarray, "n"], outcome: Bool[np.ndarray, "n"], bins: int = BINS) -> float:
    """Mean distance of probability and frequency over the bins, by their size (Naeini, AAAI 2015; bins of equal size).

    Chance alone makes it positive, the more so the fewer predictions there are.
    """
    found = reliability(probability, outcome, np.arange(len(outcome)), bins)
    return float(np.average(np.abs(found.predicted - found.observed), weights=found.size))


def wilson(
    share: Float[np.ndarray, "n"], trials: Int[np.ndarray, "n"], z: float = 1.959964
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Wilson's score interval of a binomial proportion (JASA 22, 1927)."""
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
