"""Ridge regression for many label columns at once: principal axes of a fold, and the penalty chosen in inner folds by subject.

The features are standardised and rotated to their principal axes once per fold; there the ridge solution of any penalty is a
division. Held-out predictions of the inner folds are linear in the labels (a hat matrix per penalty), so their squared error
is a quadratic form of the labels whose matrix is the same for all columns: a permutation test with its own choice of penalty
in every permutation costs one small matrix product per penalty.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ssl4neuro.evaluate.folds import Fold

UNITS_AT_MOST = 1000  # larger quadratic forms cost more than the predictions themselves


class Axes(NamedTuple):
    """Standardised training rows on their principal axes, and test rows on the same."""

    train: Float[np.ndarray, "train axes"]
    test: Float[np.ndarray, "test axes"]
    power: Float[np.ndarray, "axes"]  # sum of squares of each column of `train`


def principal_axes(train: Float[np.ndarray, "train dim"], test: Float[np.ndarray, "test dim"]) -> Axes:
    """Mean, spread and rotation come from the training rows alone. Features without spread are dropped."""
    mean, spread = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    keep = spread > 1e-7 * np.maximum(1.0, np.abs(mean))
    a = (train[:, keep] - mean[keep]) / spread[keep]
    b = (test[:, keep] - mean[keep]) / spread[keep]
    if a.shape[1] > len(a):
        power, left = np.linalg.eigh(a @ a.T)
        good = power > 1e-9 * max(power.max(initial=0), 1.0)
        rotation = a.T @ (left[:, good] / np.sqrt(power[good]))
    else:
        power, right = np.linalg.eigh(a.T @ a)
        good = power > 1e-9 * max(power.max(initial=0), 1.0)
        rotation = right[:, good]
    return Axes((a @ rotation).astype(np.float32), (b @ rotation).astype(np.float32), power[good].astype(np.float32))


def cross_products(axes: Axes, fit: Float[np.ndarray, "train columns outputs"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean of every column, and its products with the axes [axes, columns * outputs]."""
    mean = fit.mean(0)
    return mean, axes.train.T @ (fit - mean).reshape(len(fit), -1)


class InnerErrors:
    """Squared held-out error of ridge regression in the inner folds, for every penalty.

    Args:
        folds: rows of the training set that fit and that are predicted.
        axes: of each inner fold.
        groups: subject of each training row.
        penalties: of the squared weights.
    """

    def __init__(
        self, folds: list[Fold], axes: list[Axes], groups: Int[np.ndarray, "train"], penalties: Float[np.ndarray, "penalties"]
    ) -> None:
        self.folds, self.axes, self.penalties = folds, axes, penalties
        self.first, self.unit = np.unique(groups, return_index=True, return_inverse=True)[1:]
        self.forms: dict[bool, np.ndarray] = {}

    def __call__(self, fit: Float[np.ndarray, "train columns outputs"]) -> Float[np.ndarray, "penalties columns"]:
        """Summed over rows and outputs."""
        flat = fit.reshape(len(fit), -1)
        whole = bool((flat[self.first][self.unit] == flat).all())  # every subject has one label: subjects stand for rows
        units = len(self.first) if whole else len(fit)
        if units > min(UNITS_AT_MOST, flat.shape[1]):
            return self._direct(fit)
        if whole not in self.forms:
            self.forms[whole] = self._quadratic_forms(self.unit if whole else np.arange(len(fit)), units)
        flat = flat[self.first] if whole else flat
        error = [np.einsum("uc,uc->c", flat, form @ flat) for form in self.forms[whole]]
        return np.stack(error).reshape(len(error), *fit.shape[1:]).sum(2)

    def _direct(self, fit: np.ndarray) -> np.ndarray:
        error = np.zeros((len(self.penalties), fit.shape[1]))
        for fold, axes in zip(self.folds, self.axes, strict=True):
            mean, cross = cross_products(axes, fit[fold.train])
            for i, penalty in enumerate(self.penalties):
                guess = (axes.test @ (cross / (axes.power + penalty)[:, None])).reshape(len(fold.test), *fit.shape[1:]) + mean
                error[i] += ((guess - fit[fold.test]) ** 2).sum(axis=(0, 2))
        return error

    def _quadratic_forms(self, unit: Int[np.ndarray, "train"], units: int) -> Float[np.ndarray, "penalties units units"]:
        """M'M with M = what turns labels of units into held-out residuals; axes are centred, so the mean adds 1/n."""
        forms = np.zeros((len(self.penalties), units, units))
        member = (unit[:, None] == np.arange(units)).astype(np.float64)
        for fold, axes in zip(self.folds, self.axes, strict=True):
            known, truth = member[fold.train], member[fold.test]
            cross, test = axes.train.T.astype(np.float64) @ known, axes.test.astype(np.float64)
            middle = known.mean(0)
            for i, penalty in enumerate(self.penalties):
                residual = truth - middle - test @ (cross / (axes.power + penalty)[:, None])
                forms[i] += residual.T @ residual
        return forms.astype(np.float32)
