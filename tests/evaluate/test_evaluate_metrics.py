"""Weighted metrics against scikit-learn and scipy, with weights standing for repeated rows."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn import metrics as sk

from ssl4neuro.evaluate.metrics import METRICS, Held, balanced_accuracy, f1, macro_auc, mean_absolute_error, r2, spearman


def _repeat(held: Held, counts: np.ndarray) -> Held:
    rows = np.repeat(np.arange(len(counts)), counts)
    return Held(held.truth[rows], held.values[rows], held.decision[rows])


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 4, size=(5, 60))


def _classes(k: int) -> Held:
    rng = np.random.default_rng(k)
    truth = rng.integers(0, k, 60).astype(float)
    values = np.round(rng.normal(size=(60, 1 if k == 2 else k)), 1)  # rounding makes ties
    decision = (values[:, 0] > 0).astype(int) if k == 2 else values.argmax(1)
    return Held(truth, values, decision)


@pytest.mark.parametrize("k", [2, 4])
def test_classification_metrics_equal_sklearn_on_repeated_rows(k: int, counts: np.ndarray) -> None:
    held = _classes(k)
    for i, row in enumerate(counts):
        plain = _repeat(held, row)
        if k == 2:
            auc = sk.roc_auc_score(plain.truth, plain.values[:, 0])
            f_one = sk.f1_score(plain.truth, plain.decision)
        else:
            auc = np.mean([sk.roc_auc_score(plain.truth == c, plain.values[:, c]) for c in range(k)])
            f_one = sk.f1_score(plain.truth, plain.decision, average="macro")
        weights = counts.astype(float)
        assert macro_auc(held, weights)[i] == pytest.approx(auc)
        assert balanced_accuracy(held, weights)[i] == pytest.approx(sk.balanced_accuracy_score(plain.truth, plain.decision))
        assert f1(held, weights)[i] == pytest.approx(f_one)


def test_regression_metrics_equal_sklearn_and_scipy_on_repeated_rows(counts: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    truth = np.round(rng.normal(size=60), 1)
    guess = np.round(truth + rng.normal(size=60), 1)
    held = Held(truth, guess[:, None] - 5, guess)
    for i, row in enumerate(counts):
        plain = _repeat(held, row)
        weights = counts.astype(float)
        assert r2(held, weights)[i] == pytest.approx(sk.r2_score(plain.truth, plain.decision))
        assert mean_absolute_error(held, weights)[i] == pytest.approx(sk.mean_absolute_error(plain.truth, plain.decision))
        assert spearman(held, weights)[i] == pytest.approx(spearmanr(plain.truth, plain.values[:, 0]).statistic)


def test_a_missing_class_is_nan_and_a_constant_score_is_chance() -> None:
    held = _classes(2)
    only_negative = (held.truth == 0).astype(float)[None]
    assert np.isnan(macro_auc(held, only_negative)[0])
    assert np.isnan(balanced_accuracy(held, only_negative)[0])
    flat = Held(held.truth, np.zeros((60, 1)), np.zeros(60, dtype=int))
    ones = np.ones((1, 60))
    assert macro_auc(flat, ones)[0] == METRICS["binary"]["AUC"].chance(2) == 0.5
    assert balanced_accuracy(flat, ones)[0] == METRICS["binary"]["balanced accuracy"].chance(2) == 0.5
