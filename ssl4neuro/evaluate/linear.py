"""Linear probe: L2-penalised logistic regression for classes, ridge for values, fitted for many label columns at once.

The features are standardised and rotated to their principal axes once per fold; there the ridge solution for any
penalty is a division, and the logistic one a few accelerated majorise-minimise steps whose curvature bound is diagonal (Böhning
1992), started at the ridge solution. So 1,000 permutations, each with its own choice of the penalty, cost a few matrix
products. The penalty is chosen in inner folds by subject on the squared error of the ridge form (the Brier score, for classes).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ssl4neuro.evaluate.folds import inner_folds
from ssl4neuro.evaluate.metrics import Task
from ssl4neuro.evaluate.protocol import Apply, Scores, columns_per_block, targets

PENALTIES = tuple(10.0**power for power in range(5, -3, -1))  # 1 / C of scikit-learn's logistic regression, strongest first
CURVATURE = {"binary": 0.25, "multiclass": 0.5, "regression": 1.0}  # bounds of the second derivative of the loss
MAX_STEPS, TOLERANCE = 200, 1e-3


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


class LinearProbe:
    """Logistic regression (binary, multinomial) or ridge regression with the penalty chosen inside the fold."""

    def __init__(self, penalties: tuple[float, ...] = PENALTIES, inner: int = 3) -> None:
        self.penalties, self.inner = penalties, inner

    def prepare(
        self,
        train: Float[np.ndarray, "train dim"],
        test: Float[np.ndarray, "test dim"],
        groups: Int[np.ndarray, "train"],
        task: Task,
        classes: int,
        seed: int,
    ) -> Apply:
        outer = principal_axes(train, test)
        splits = inner_folds(groups, self.inner, seed) if len(self.penalties) > 1 else []
        inner = [(fold, principal_axes(train[fold.train], train[fold.test])) for fold in splits]
        outputs = classes if task == "multiclass" else 1

        def apply(labels: np.ndarray) -> Scores:
            block = columns_per_block(len(train), outputs)
            parts = []
            for start in range(0, labels.shape[1], block):
                fit = targets(labels[:, start : start + block], task, classes)
                parts.append(_fit_predict(outer, fit, self._choose(inner, fit, task), task))
            return Scores(np.concatenate([p.values for p in parts], axis=1), np.concatenate([p.offset for p in parts]))

        return apply

    def _choose(self, inner: list, fit: np.ndarray, task: Task) -> np.ndarray:
        """Penalty of every label column: the least squared error on the inner folds, the stronger one where equal."""
        if not inner:
            return np.full(fit.shape[1], self.penalties[len(self.penalties) // 2], dtype=np.float32)
        error = np.zeros((len(self.penalties), fit.shape[1]))
        for fold, axes in inner:
            mean, cross = _cross(axes, fit[fold.train])
            for i, penalty in enumerate(self.penalties):
                weights = cross / (axes.power + penalty / CURVATURE[task])[:, None]
                guess = (axes.test @ weights).reshape(len(fold.test), *fit.shape[1:]) + mean
                error[i] += ((guess - fit[fold.test]) ** 2).sum(axis=(0, 2))
        return np.asarray(self.penalties, dtype=np.float32)[error.argmin(0)]


def _cross(axes: Axes, fit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = fit.mean(0)
    return mean, axes.train.T @ (fit - mean).reshape(len(fit), -1)


def _fit_predict(axes: Axes, fit: np.ndarray, penalty: np.ndarray, task: Task) -> Scores:
    columns, outputs = fit.shape[1:]
    penalties = np.repeat(penalty, outputs)
    mean, cross = _cross(axes, fit)
    curvature = CURVATURE[task]
    weights = cross / (curvature * axes.power[:, None] + penalties)  # ridge for values, the first step for classes
    if task == "regression":
        return Scores((axes.test @ weights)[:, :, None], mean)
    prior = np.clip(mean, 0.5 / len(fit), 1 - 0.5 / len(fit))
    log_prior = np.log(prior / (1 - prior)) if task == "binary" else np.log(prior)
    weights, intercept = _descend(axes, fit, weights, log_prior, penalties, curvature)
    return _pool(axes, weights.reshape(-1, columns, outputs), intercept - log_prior)


def _pool(axes: Axes, weights: np.ndarray, offset: np.ndarray) -> Scores:
    """Scores without intercept, in units of their spread on the training rows."""
    if weights.shape[2] > 1:  # only differences between classes mean anything
        weights, offset = weights - weights.mean(2, keepdims=True), offset - offset.mean(1, keepdims=True)
    flat = weights.reshape(len(weights), -1)
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
        logits = (axes.train @ w_look.reshape(len(w_look), -1)).reshape(rows, len(active), outputs) + b_look
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
    return w.reshape(len(w), -1), b


def _probability(logits: np.ndarray) -> np.ndarray:
    if logits.shape[2] == 1:
        return 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    shifted = np.exp(logits - logits.max(2, keepdims=True))
    return shifted / shifted.sum(2, keepdims=True)
