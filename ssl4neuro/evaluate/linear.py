"""Linear probe: L2-penalised logistic regression for classes, ridge for values, fitted for many label columns at once.

The features are standardised and rotated to their principal axes once per fold; there the ridge solution for any
penalty is a division, and the logistic one a few accelerated majorise-minimise steps whose curvature bound is diagonal (Böhning
1992), started at the ridge solution. So 1,000 permutations, each with its own choice of the penalty, cost a few matrix
products. The penalty is chosen in inner folds by subject on the squared error of the ridge form (the Brier score, for classes).
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ssl4neuro.evaluate.folds import inner_folds
from ssl4neuro.evaluate.metrics import Task
from ssl4neuro.evaluate.protocol import Apply, Scores, columns_per_block, joined, targets
from ssl4neuro.evaluate.ridge import Axes, InnerErrors, cross_products, principal_axes

PENALTIES = tuple(10.0**power for power in range(5, -3, -1))  # 1 / C of scikit-learn's logistic regression, strongest first
CURVATURE = {"binary": 0.25, "multiclass": 0.5, "regression": 1.0}  # bounds of the second derivative of the loss
MAX_STEPS, TOLERANCE = 200, 1e-3


class LinearProbe:
    """Logistic regression (binary, multinomial) or ridge regression with the penalty chosen inside the fold.

    Args:
        penalties: of half the squared weights, against the summed loss; strongest first.
        inner: folds by subject for their choice.
        loss: of classes. With `squared` the memberships are regressed: no probabilities, but far faster permutations.
    """

    def __init__(
        self, penalties: tuple[float, ...] = PENALTIES, inner: int = 3, loss: Literal["logistic", "squared"] = "logistic"
    ) -> None:
        self.penalties, self.inner, self.loss = penalties, inner, loss

    def prepare(
        self,
        train: Float[np.ndarray, "train dim"],
        test: Float[np.ndarray, "test dim"],
        groups: Int[np.ndarray, "train"],
        task: Task,
        classes: int,
        seed: int,
    ) -> Apply:
        """See `Probe`."""
        outer = principal_axes(train, test)
        curvature = 1.0 if self.loss == "squared" else CURVATURE[task]
        penalties = np.asarray(self.penalties, dtype=np.float32)
        splits = inner_folds(groups, self.inner, seed) if len(penalties) > 1 else []
        inner = [principal_axes(train[fold.train], train[fold.test]) for fold in splits]
        errors = InnerErrors(splits, inner, groups, penalties / curvature)
        outputs = classes if task == "multiclass" else 1

        def fit_block(labels: np.ndarray) -> Scores:
            fit = targets(labels, task, classes)
            # the least error, the stronger penalty where equal; without inner folds the middle one
            best = errors(fit).argmin(0) if splits else np.full(fit.shape[1], len(penalties) // 2)
            ridge = _ridge(outer, fit, penalties[best], curvature)
            if task == "regression":
                return Scores((outer.test @ ridge)[:, :, None], fit.mean(0))
            if self.loss == "squared":
                return _pool(outer, ridge.reshape(-1, *fit.shape[1:]), np.zeros(fit.shape[1:], dtype=np.float32))
            return _logistic(outer, fit, ridge, penalties[best], curvature)

        def apply(labels: np.ndarray) -> Scores:
            block = columns_per_block(len(train), outputs)
            return joined([fit_block(labels[:, start : start + block]) for start in range(0, labels.shape[1], block)])

        return apply


class RidgeProbe(LinearProbe):
    """Ridge regression of values and of class memberships (a linear discriminant), for many thousands of permutations."""

    def __init__(self, penalties: tuple[float, ...] = PENALTIES, inner: int = 3) -> None:
        super().__init__(penalties, inner, "squared")


def _ridge(axes: Axes, fit: np.ndarray, penalty: Float[np.ndarray, "columns"], curvature: float) -> np.ndarray:
    """Weights [axes, columns * outputs]: ridge regression, and the first majorise-minimise step of the logistic one."""
    cross = cross_products(axes, fit)[1]
    return cross / (curvature * axes.power[:, None] + np.repeat(penalty, fit.shape[2]))


def _logistic(axes: Axes, fit: np.ndarray, weights: np.ndarray, penalty: np.ndarray, curvature: float) -> Scores:
    outputs = fit.shape[2]
    prior = np.clip(fit.mean(0), 0.5 / len(fit), 1 - 0.5 / len(fit))
    log_prior = np.log(prior / (1 - prior)) if outputs == 1 else np.log(prior)
    weights, intercept = _descend(axes, fit, weights, log_prior, np.repeat(penalty, outputs), curvature)
    probability = _probability((axes.test @ weights).reshape(-1, *fit.shape[1:]) + intercept)
    pooled = _pool(axes, weights.reshape(-1, *fit.shape[1:]), intercept - log_prior)
    return pooled._replace(probability=probability.astype(np.float32))


def _pool(axes: Axes, weights: np.ndarray, offset: np.ndarray) -> Scores:
    """Scores without intercept, in units of their spread on the training rows."""
    if weights.shape[2] > 1:  # only differences between classes mean anything
        weights, offset = weights - weights.mean(2, keepdims=True), offset - offset.mean(1, keepdims=True)
    flat = weights.reshape(len(weights), int(np.prod(weights.shape[1:])))  # no axis is left of constant features
    variance = (axes.power @ flat**2).reshape(weights.shape[1:]).mean(1) / len(axes.train)
    scale = np.sqrt(np.maximum(variance, 1e-20))
    values = (axes.test @ flat).reshape(-1, *weights.shape[1:]) / scale[:, None]
    return Scores(values.astype(np.float32), (offset / scale[:, None]).astype(np.float32))


def _descend(
    axes: Axes, fit: np.ndarray, weights: np.ndarray, intercept: np.ndarray, penalties: np.ndarray, curvature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise log loss + penalty/2 |weights|^2 for every column; columns leave when they have converged.

    `weights` [axes, columns * outputs], `intercept` [columns, outputs].
    """
    rows, columns, outputs = fit.shape
    weights, intercept = weights.copy(), intercept.astype(np.float32).copy()
    active = np.arange(columns)
    w, b = weights.reshape(-1, columns, outputs), intercept
    w_now, b_now, w_old, b_old = w.copy(), b.copy(), w.copy(), b.copy()
    penalty = penalties.reshape(columns, outputs)
    for step in range(MAX_STEPS):
        momentum = step / (step + 3)  # Nesterov
        w_look, b_look = w_now + momentum * (w_now - w_old), b_now + momentum * (b_now - b_old)
        logits = (axes.train @ w_look.reshape(len(w_look), len(active) * outputs)).reshape(rows, len(active), outputs) + b_look
        residual = _probability(logits) - fit[:, active]
        slope = (axes.train.T @ residual.reshape(rows, -1)).reshape(w_look.shape) + penalty[active] * w_look
        w_new = w_look - slope / (curvature * axes.power[:, None, None] + penalty[active])
        b_new = b_look - residual.mean(0) / curvature
        moved = np.abs(w_new - w_now).max(axis=(0, 2), initial=0)
        size = np.abs(w_new).max(axis=(0, 2), initial=0)
        w_old, b_old, w_now, b_now = w_now, b_now, w_new, b_new
        w[:, active], b[active] = w_new, b_new
        left = moved > TOLERANCE * size
        if step >= 2 and not left.all():
            active = active[left]
            w_old, b_old, w_now, b_now = w_old[:, left], b_old[left], w_now[:, left], b_now[left]
        if not len(active):
            break
    return w.reshape(len(w), columns * outputs), b


def _probability(logits: np.ndarray) -> np.ndarray:
    if logits.shape[2] == 1:
        return 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    shifted = np.exp(logits - logits.max(2, keepdims=True))
    return shifted / shifted.sum(2, keepdims=True)
