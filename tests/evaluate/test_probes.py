"""Probes against scikit-learn; the same contract for every probe in the table."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

from ssl4neuro.evaluate.folds import inner_folds
from ssl4neuro.evaluate.knn import KnnProbe, knn_score, nearest
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.probes import PROBES
from ssl4neuro.evaluate.template import TemplateProbe


def _data(classes: int, n: int = 90, d: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, weights = rng.normal(2.0, 3.0, size=(n + 20, d)), rng.normal(size=(d, classes))
    y = (x @ weights * 0.2 + rng.gumbel(size=(n + 20, classes))).argmax(1)
    return x[:n].astype(np.float32), x[n:].astype(np.float32), y[:n].astype(float)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("penalty", [100.0, 1.0])
@pytest.mark.parametrize("d", [12, 120])
def test_linear_probe_is_logistic_regression(classes: int, penalty: float, d: int) -> None:
    x, x_test, y = _data(classes, d=d)
    task = "binary" if classes == 2 else "multiclass"
    scores = LinearProbe(penalties=(penalty,)).prepare(x, x_test, np.arange(len(y)), task, classes, 0)(y[:, None])
    mean, spread = x.mean(0), x.std(0)
    fitted = LogisticRegression(C=1 / penalty, max_iter=5000, tol=1e-8).fit((x - mean) / spread, y)
    logits = fitted.decision_function((x_test - mean) / spread)
    prior = np.bincount(y.astype(int)) / len(y)
    got = (scores.values + scores.offset)[:, 0]
    expected = logits[:, None] - np.log(prior[1] / prior[0]) if classes == 2 else logits - np.log(prior)
    if classes > 2:
        expected = expected - expected.mean(1, keepdims=True)
    scale = (got * expected).sum() / (expected**2).sum()  # scores are in units of their training spread
    assert scale > 0
    np.testing.assert_allclose(got / scale, expected, atol=0.03 * np.abs(expected).max())


def test_linear_probe_is_ridge_regression_for_values() -> None:
    x, x_test, _ = _data(2)
    y = np.random.default_rng(1).normal(50, 10, size=len(x))
    scores = LinearProbe(penalties=(10.0,)).prepare(x, x_test, np.arange(len(y)), "regression", 0, 0)(y[:, None])
    mean, spread = x.mean(0), x.std(0)
    expected = Ridge(alpha=10.0).fit((x - mean) / spread, y).predict((x_test - mean) / spread)
    np.testing.assert_allclose((scores.values + scores.offset)[:, 0, 0], expected, rtol=1e-4)


def test_penalty_is_the_one_of_least_error_in_inner_folds_by_subject() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(60, 30)).astype(np.float32), rng.normal(size=60)
    y += x[:, 0]
    groups = np.repeat(np.arange(15), 4)
    penalties = (1e4, 1e2, 1e0, 1e-2)
    error = dict.fromkeys(penalties, 0.0)
    for fold in inner_folds(groups, 3, seed=0):
        mean, spread = x[fold.train].mean(0), x[fold.train].std(0)
        for penalty in penalties:
            ridge = Ridge(alpha=penalty).fit((x[fold.train] - mean) / spread, y[fold.train])
            error[penalty] += ((ridge.predict((x[fold.test] - mean) / spread) - y[fold.test]) ** 2).sum()
    best = min(error, key=error.get)
    x_test = rng.normal(size=(9, 30)).astype(np.float32)
    chosen = LinearProbe(penalties).prepare(x, x_test, groups, "regression", 0, 0)(y[:, None])
    fixed = LinearProbe((best,)).prepare(x, x_test, groups, "regression", 0, 0)(y[:, None])
    np.testing.assert_allclose(chosen.values, fixed.values, rtol=1e-5)


def test_knn_votes_as_sklearn_does() -> None:
    x, x_test, y = _data(3)
    centre = x.mean(0)

    def weights(distance: np.ndarray) -> np.ndarray:
        return np.maximum(np.exp(-distance / 0.07), 1e-6)

    reference = KNeighborsClassifier(5, metric="cosine", weights=weights, algorithm="brute").fit(x - centre, y)
    got = KnnProbe(neighbours=(5,)).prepare(x, x_test, np.arange(len(y)), "multiclass", 3, 0)(y[:, None])
    prior = np.bincount(y.astype(int)) / len(y)
    np.testing.assert_allclose(got.values[:, 0], reference.predict_proba(x_test - centre) - prior, atol=1e-4)


def test_knn_chooses_k_in_inner_folds() -> None:
    """Labels that repeat in tight pairs of rows: one neighbour is right, many are wrong."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 16))
    x = (np.repeat(points, 2, axis=0) + 0.01 * rng.normal(size=(80, 16))).astype(np.float32)
    y = np.repeat(rng.integers(0, 2, 40), 2).astype(float)
    groups = np.tile([0, 1], 40)  # the twin is always another subject's
    apply = KnnProbe(neighbours=(1, 40), inner=2).prepare(x, x[::2] + 0.001, groups, "binary", 2, 0)
    assert ((apply(y[:, None]).values[:, 0, 0] > 0) == (y[::2] == 1)).all()


def test_knn_score_is_the_balanced_accuracy_of_the_vote() -> None:
    x, x_test, y = _data(3)
    y_test = np.random.default_rng(0).integers(0, 3, len(x_test))
    index, weight = nearest(x, x_test, 7)
    votes = np.stack([(weight * (y[index] == c)).sum(1) for c in range(3)], axis=1).argmax(1)
    expected = np.mean([(votes[y_test == c] == c).mean() for c in range(3)])
    labels = torch.tensor(np.append(y, -1)).long()  # the last row has no label
    tensors = torch.tensor(np.vstack([x, 100 * x[:1]])), labels, torch.tensor(x_test), torch.tensor(y_test)
    assert knn_score(*tensors, k=7) == pytest.approx(expected, abs=1e-6)
    nothing = torch.full((len(labels),), -1)
    assert np.isnan(knn_score(tensors[0], nothing, tensors[2], tensors[3]))


def test_template_scores_are_correlations_with_class_means() -> None:
    x, x_test, y = _data(3, d=40)
    scores = TemplateProbe().prepare(x, x_test, np.arange(len(y)), "multiclass", 3, 0)(y[:, None])
    z = (x - x.mean(1, keepdims=True)) / np.linalg.norm(x - x.mean(1, keepdims=True), axis=1, keepdims=True)
    for code in range(3):
        template = z[y == code].mean(0)
        expected = [np.corrcoef(row, template)[0, 1] for row in x_test]
        np.testing.assert_allclose(scores.values[:, 0, code], expected, atol=1e-5)


@pytest.mark.parametrize("name", sorted(PROBES))
@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 3), ("regression", 0)])
def test_contract_of_every_probe(name: str, task: str, classes: int) -> None:
    """Columns of labels do not influence each other, nor do test rows; shapes are as promised; equal calls give equal bits."""
    if name == "template" and task == "regression":
        return
    x, x_test, y = _data(max(classes, 2))
    rng = np.random.default_rng(0)
    labels = np.stack([y, rng.permutation(y), rng.permutation(y)], axis=1)
    groups = np.repeat(np.arange(30), 3)
    probe = PROBES[name]()
    scores = probe.prepare(x, x_test, groups, task, classes, 0)(labels)
    outputs = classes if task == "multiclass" else 1
    assert scores.values.shape == (len(x_test), 3, outputs)
    assert scores.offset.shape == (3, outputs)
    assert np.isfinite(scores.values).all()
    if scores.probability is not None:
        assert task != "regression"
        assert scores.probability.shape == scores.values.shape
        assert ((scores.probability >= 0) & (scores.probability <= 1)).all()
        if outputs > 1:
            np.testing.assert_allclose(scores.probability.sum(2), 1, atol=1e-4)
    for column in range(3):
        alone = probe.prepare(x, x_test, groups, task, classes, 0)(labels[:, column : column + 1])
        np.testing.assert_allclose(alone.values[:, 0], scores.values[:, column], atol=2e-3)
    moved = x_test.copy()
    moved[0] = 1e3
    other = probe.prepare(x, moved, groups, task, classes, 0)(labels)
    np.testing.assert_allclose(other.values[1:], scores.values[1:], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(probe.prepare(x, x_test, groups, task, classes, 0)(labels).values, scores.values)
