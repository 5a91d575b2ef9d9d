"""Linear support vector machine (Cortes & Vapnik 1995) through scikit-learn's liblinear, C chosen in inner folds by subject.

Classes count alike whatever their size (`class_weight="balanced"`), several classes are one against the rest, and values are
fitted with the epsilon-insensitive loss. C is the one of least held-out loss of the same kind. Each label column is fitted on
its own, so permutations are slow: thousands of them are for the linear and ridge probes.
"""

import numpy as np
from jaxtyping import Float, Int
from sklearn.svm import LinearSVC, LinearSVR

from ssl4neuro.evaluate.folds import Fold, inner_folds
from ssl4neuro.evaluate.metrics import Task
from ssl4neuro.evaluate.protocol import Apply, Scores, joined, targets
from ssl4neuro.evaluate.ridge import principal_axes
from ssl4neuro.evaluate.trained import pooled_scores

CS = (0.01, 0.1, 1.0, 10.0, 100.0)  # for training rows of mean squared length 1; strongest penalty first
EPSILON = 0.1  # error that costs nothing, in standard deviations of the target
INTERCEPT = 10.0  # liblinear penalises the intercept as the weight of a feature of this size

Pair = tuple[np.ndarray, np.ndarray]


class SvmProbe:
    """Linear SVM for classes, linear support vector regression for values.

    Args:
        cs: inverse penalties to choose from, strongest penalty first.
        inner: folds by subject for that choice.
    """

    columns_at_once = 10  # of permuted labels, between two signs of life

    def __init__(self, cs: tuple[float, ...] = CS, inner: int = 3) -> None:
        self.cs, self.inner = cs, inner

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
        outer = _unit_axes(train, test)
        splits = inner_folds(groups, self.inner, seed) if len(self.cs) > 1 else []
        inner = [(fold, *_unit_axes(train[fold.train], train[fold.test])) for fold in splits]

        def apply(labels: np.ndarray) -> Scores:
            wanted = targets(labels, task, classes).astype(np.float64)
            return joined([self._column(outer, inner, wanted[:, i], task) for i in range(labels.shape[1])])

        return apply

    def _column(self, outer: Pair, inner: list, wanted: Float[np.ndarray, "train outputs"], task: Task) -> Scores:
        if task != "regression":
            wanted = 2 * wanted - 1
        c = self.cs[len(self.cs) // 2]
        if inner:
            error = [sum(_error(left, right, wanted, fold, c, task) for fold, left, right in inner) for c in self.cs]
            c = self.cs[int(np.argmin(error))]
        weights, intercept = _fit(outer[0], wanted, c, task)
        left, right = outer[0] @ weights, outer[1] @ weights
        if task == "regression":
            return Scores(right[:, None].astype(np.float32), intercept[None].astype(np.float32))
        return pooled_scores((left + intercept)[:, None], (right + intercept)[:, None])


def _unit_axes(train: np.ndarray, test: np.ndarray) -> Pair:
    """Both on the principal axes of the training rows, whose mean squared length becomes 1."""
    axes = principal_axes(train, test)
    length = np.sqrt(max(float(axes.power.sum(dtype=np.float64)) / len(train), 1e-12))
    return axes.train.astype(np.float64) / length, axes.test.astype(np.float64) / length


def _fit(x: np.ndarray, wanted: np.ndarray, c: float, task: Task) -> Pair:
    """Weights [axes, outputs] and intercept [outputs]; an output without two values is answered by its one."""
    weights, intercept = np.zeros((x.shape[1], wanted.shape[1])), wanted.mean(0)
    for i, goal in enumerate(wanted.T):
        centre, scale = (goal.mean(), goal.std()) if task == "regression" else (0.0, 1.0)
        if not x.shape[1] or np.ptp(goal) == 0:
            continue
        shared = {"C": c, "dual": False, "intercept_scaling": INTERCEPT, "max_iter": 2000}
        if task == "regression":
            model = LinearSVR(epsilon=EPSILON, loss="squared_epsilon_insensitive", **shared)
        else:
            model = LinearSVC(class_weight="balanced", **shared)
        model.fit(x, (goal - centre) / scale)
        weights[:, i] = model.coef_.ravel() * scale
        intercept[i] = np.ravel(model.intercept_)[0] * scale + centre
    return weights, intercept


def _error(left: np.ndarray, right: np.ndarray, wanted: np.ndarray, fold: Fold, c: float, task: Task) -> float:
    """Held-out loss of an inner fold: squared error, or the squared hinge with classes of equal weight."""
    weights, intercept = _fit(left, wanted[fold.train], c, task)
    truth = wanted[fold.test]
    guess = right @ weights + intercept
    if task == "regression":
        return float(np.square(guess - truth).sum())
    share = np.maximum((wanted > 0).mean(0), 0.5 / len(wanted)), np.maximum((wanted < 0).mean(0), 0.5 / len(wanted))
    weight = np.where(truth > 0, 0.5 / share[0], 0.5 / share[1])
    return float((weight * np.square(np.maximum(0, 1 - truth * guess))).sum())
