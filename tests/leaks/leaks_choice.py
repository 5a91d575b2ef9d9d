"""Something chosen by the labels of the test fold, and labels permuted at the wrong level."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from leak_world import Leak, patients, study

from ssl4neuro.evaluate.audit import fold_invariance, label_invariance
from ssl4neuro.evaluate.audit.permuting import permuting
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.crossval import Settings, null_labels
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.knn import KnnProbe
from ssl4neuro.evaluate.linear import LinearProbe, RidgeProbe
from ssl4neuro.evaluate.mlp import MlpProbe
from ssl4neuro.evaluate.problem import pose
from ssl4neuro.evaluate.template import TemplateProbe

TRAIN, TEST = np.arange(40), np.arange(40, 60)
Scores = Callable[[np.ndarray], np.ndarray]


def of_probe(probe: object, x: np.ndarray) -> Scores:
    """Full held-out scores (class decisions included) of a fold, from labels of all rows."""

    def scores(y: np.ndarray) -> np.ndarray:
        made = probe.prepare(x[TRAIN], x[TEST], TRAIN, "binary", 2, 0)(y[TRAIN, None])
        return (made.values + made.offset)[:, 0]

    return scores


def best_on_test(probes: list, x: np.ndarray) -> Scores:
    """Of several probes the one that is right most often on the test fold."""

    def scores(y: np.ndarray) -> np.ndarray:
        return max((of_probe(probe, x)(y) for probe in probes), key=lambda s: ((s[:, 0] > 0) == (y[TEST] == 1)).mean())

    return scores


def threshold_on_test(probe: object, x: np.ndarray) -> Scores:
    """The decision threshold at the test fold's best accuracy."""

    def scores(y: np.ndarray) -> np.ndarray:
        values = of_probe(probe, x)(y)[:, 0]
        cuts = np.sort(values)
        accuracy = [((values >= cut) == (y[TEST] == 1)).mean() for cut in cuts]
        return values - cuts[int(np.argmax(accuracy))]

    return scores


def stopped_by_test(x: np.ndarray) -> Scores:
    """Gradient descent of a logistic regression, stopped where the loss of the test fold is least."""
    z = (x - x[TRAIN].mean(0)) / x[TRAIN].std(0)

    def scores(y: np.ndarray) -> np.ndarray:
        weights, found = np.zeros(z.shape[1]), []
        for _ in range(60):
            weights = weights - 0.1 * z[TRAIN].T @ (1 / (1 + np.exp(-z[TRAIN] @ weights)) - y[TRAIN]) / len(TRAIN)
            found.append(z[TEST] @ weights)
        losses = [np.logaddexp(0, -(2 * y[TEST] - 1) * score).mean() for score in found]
        return found[int(np.argmin(losses))]

    return scores


def neighbours_of_all(x: np.ndarray) -> Scores:
    """A kNN index that holds the test rows, so that everybody is the own nearest neighbour."""

    def scores(y: np.ndarray) -> np.ndarray:
        made = KnnProbe(neighbours=(1, 3)).prepare(x, x[TEST], np.arange(len(x)), "binary", 2, 0)(y[:, None])
        return (made.values + made.offset)[:, 0]

    return scores


def templates_of_all(x: np.ndarray) -> Scores:
    """Class means over all rows."""

    def scores(y: np.ndarray) -> np.ndarray:
        return TemplateProbe().prepare(x, x[TEST], np.arange(len(x)), "binary", 2, 0)(y[:, None]).values[:, 0]

    return scores


def chosen(leaky: Callable[[np.ndarray], Scores], ours: object) -> Callable[[bool, Path], list[Check]]:
    """Scores under a choice on the test fold, against the toolkit's probe, which chooses in inner folds."""

    def run(planted: bool, folder: Path) -> list[Check]:
        table, x = study()
        y = patients(table).astype(float)
        x += 2 * y[:, None].astype(np.float32)  # so that there is something to choose by
        return [label_invariance(leaky(x) if planted else of_probe(ours, x), y, TEST)]

    return run


class BestFeatures(ArrayFeatures):
    """The five features that go best with the labels of all rows."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        apart = np.abs(np.array([np.corrcoef(column, y)[0, 1] for column in x.T]))
        super().__init__(x[:, np.sort(np.argsort(-apart)[:5])])


def selected(planted: bool, folder: Path) -> list[Check]:
    table, x = study()
    make = BestFeatures if planted else lambda x, y: ArrayFeatures(x)
    return [fold_invariance(make, x, patients(table).astype(int), train=TRAIN, test=TEST)]


def permuted(how: str) -> Callable[[bool, Path], list[Check]]:
    """Labels of two scans per subject, exchanged between rows or within subjects, against the toolkit's own exchange."""

    def run(planted: bool, folder: Path) -> list[Check]:
        table, _ = study(subjects=20)
        table = table.loc[np.repeat(table.index, 2)].reset_index(drop=True).assign(session=["ses-1", "ses-2"] * 20)
        problem = pose(table, table["group"], "group", "session")
        labels = null_labels(problem, Settings(permutations=20))[0][:, 1:]
        if planted:
            rng = np.random.default_rng(0)
            rows = np.tile(problem.y[:, None], (1, 20))
            labels = rng.permuted(rows, axis=0)
            if how == "within":
                labels = rng.permuted(rows.reshape(20, 2, 20), axis=1).reshape(40, 20)
        return [permuting(problem.y, labels, problem.subjects)]

    return run


_PENALTIES = [LinearProbe(penalties=(10.0**power,)) for power in range(-2, 4)]

LEAKS = [
    Leak(
        "threshold chosen on the test fold",
        "cannot happen",
        "evaluation",
        chosen(lambda x: threshold_on_test(LinearProbe(), x), LinearProbe()),
    ),
    Leak(
        "penalty chosen on the test fold",
        "cannot happen",
        "evaluation",
        chosen(lambda x: best_on_test(_PENALTIES, x), LinearProbe()),
    ),
    Leak(
        "model chosen on the test fold",
        "cannot happen",
        "evaluation",
        chosen(lambda x: best_on_test([RidgeProbe(), KnnProbe()], x), KnnProbe()),
    ),
    Leak(
        "training stopped by the test fold",
        "cannot happen",
        "evaluation",
        chosen(stopped_by_test, MlpProbe(axes=4, steps=10, inner=2)),
    ),
    Leak("kNN index that holds the test subjects", "cannot happen", "evaluation", chosen(neighbours_of_all, KnnProbe())),
    Leak("class templates made of all labels", "cannot happen", "evaluation", chosen(templates_of_all, TemplateProbe())),
    Leak("features selected by all labels", "cannot happen", "BestFeatures", selected),
    Leak("rows permuted instead of subjects", "cannot happen", "labels permuted at the wrong level", permuted("rows")),
    Leak(
        "labels of subjects permuted within subjects", "cannot happen", "labels permuted at the wrong level", permuted("within")
    ),
]
