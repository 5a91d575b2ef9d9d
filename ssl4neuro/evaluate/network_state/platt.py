"""Platt calibration of logits, fitted on inner folds, each network drawn towards what all of them say."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import expit

SPREAD = 0.5  # prior sd of a network's log slope and intercept around those of all networks


class Platt(NamedTuple):
    """Calibrated logit = slope * logit + intercept."""

    slope: float = 1.0  # positive: calibration never reverses an order
    intercept: float = 0.0

    def __call__(self, logit: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Calibrated logits."""
        return self.slope * logit + self.intercept


def fit_platt(logit: Float[np.ndarray, "n"], y: Int[np.ndarray, "n"], prior: Platt | None = None) -> Platt:
    """Slope and intercept of the largest likelihood with smoothed targets (Platt, Advances in Large Margin Classifiers, 1999).

    The smoothed targets keep the slope finite where an inner fold separates the states perfectly. Few points of a single
    network say little: with `prior`, log slope and intercept are drawn to it as by normal priors of sd 0.5. One class alone
    leaves the logits as they are, or as `prior` has them.
    """
    positive, negative = int((y == 1).sum()), int((y == 0).sum())
    scale = float(logit.std()) if len(logit) else 0.0
    if not positive or not negative or scale < 1e-9:
        return prior or Platt()
    target = np.where(y == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    start = np.array([-np.log(scale), 0.0] if prior is None else [np.log(prior.slope), prior.intercept])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope = np.exp(parameters[0])
        z = slope * logit + parameters[1]
        residual = expit(z) - target
        value = float((np.logaddexp(0, z) - target * z).sum())
        gradient = np.array([(residual * slope * logit).sum(), residual.sum()])
        pull = (parameters - start) / (SPREAD if prior else 10.0) ** 2
        return value + float(pull @ (parameters - start)) / 2, gradient + pull

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(start[0] - 7, start[0] + 7), (-20, 20)])
    return Platt(float(np.exp(found.x[0])), float(found.x[1]))
