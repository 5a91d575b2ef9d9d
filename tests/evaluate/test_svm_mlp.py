"""Linear SVM against scikit-learn; a perceptron that sees what a line cannot, stopped where its inner folds say."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC, LinearSVR

from ssl4neuro.evaluate.folds import inner_folds
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.mlp import LOOK_EVERY, MlpProbe, Weights, forward
from ssl4neuro.evaluate.svm import EPSILON, INTERCEPT, SvmProbe


def _data(n: int = 60, d: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(1.0, 2.0, size=(n + 20, d)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=len(x)) > 1).astype(float)
    return x[:n], x[n:], y[:n]


def _unit(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Standardised, with a mean squared length of 1: the space in which C is meant."""
    mean, spread = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    return [(part - mean) / spread / np.sqrt(train.shape[1]) for part in (train, *others)]


@pytest.mark.parametrize("c", [0.1, 10.0])
def test_svm_is_the_linear_svm_of_scikit_learn(c: float) -> None:
    x, x_test, y = _data()
    scores = SvmProbe(cs=(c,)).prepare(x, x_test, np.arange(len(y)), "binary", 2, 0)(y[:, None])
    a, b = _unit(x, x_test)
    model = LinearSVC(C=c, dual=False, class_weight="balanced", intercept_scaling=INTERCEPT, tol=1e-8).fit(a, y)
    expected, spread = model.decision_function(b), model.decision_function(a).std()
    np.testing.assert_allclose((scores.values + scores.offset)[:, 0, 0] * spread, expected, atol=2e-3)
    assert scores.probability is None  # a margin is no probability


def test_support_vector_regression_is_in_the_units_of_the_target() -> None:
    x, x_test, _ = _data()
    y = 40 + 10 * x[:, 1].astype(float)
    scores = SvmProbe(cs=(1.0,)).prepare(x, x_test, np.arange(len(y)), "regression", 0, 0)(y[:, None])
    a, b = _unit(x, x_test)
    model = LinearSVR(
        C=1.0, epsilon=EPSILON, loss="squared_epsilon_insensitive", dual=False, intercept_scaling=INTERCEPT, tol=1e-8
    ).fit(a, (y - y.mean()) / y.std())
    expected = model.predict(b) * y.std() + y.mean()
    np.testing.assert_allclose((scores.values + scores.offset)[:, 0, 0], expected, atol=0.02)


def test_c_is_the_one_of_least_held_out_hinge_loss() -> None:
    x, x_test, y = _data(seed=3)
    groups, cs = np.repeat(np.arange(20), 3), (0.01, 1.0, 100.0)
    loss = dict.fromkeys(cs, 0.0)
    weight = np.where(y == 1, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    for fold in inner_folds(groups, 3, seed=0):
        a, b = _unit(x[fold.train], x[fold.test])
        for c in cs:
            model = LinearSVC(C=c, dual=False, class_weight="balanced", intercept_scaling=INTERCEPT).fit(a, y[fold.train])
            margin = np.where(y[fold.test] == 1, 1, -1) * model.decision_function(b)
            loss[c] += (weight[fold.test] * np.maximum(0, 1 - margin) ** 2).sum()
    best = min(loss, key=loss.get)  # type: ignore[arg-type]
    chosen = SvmProbe(cs).prepare(x, x_test, groups, "binary", 2, 0)(y[:, None])
    fixed = SvmProbe((best,)).prepare(x, x_test, groups, "binary", 2, 0)(y[:, None])
    np.testing.assert_array_equal(chosen.values, fixed.values)


@pytest.mark.parametrize("probe", [SvmProbe(), MlpProbe()])
def test_a_class_that_an_inner_fold_lacks_is_no_crash(probe: SvmProbe | MlpProbe) -> None:
    x, x_test, y = _data(12)
    y[:] = 0
    y[0] = 1  # in two of three inner folds alone among the tested
    scores = probe.prepare(x, x_test, np.arange(12), "binary", 2, 0)(y[:, None])
    assert np.isfinite(scores.values).all()
    few = probe.prepare(x[:2], x_test, np.arange(2), "binary", 2, 0)(y[:2, None])  # one subject per class
    assert np.isfinite(few.values).all()


def test_the_perceptron_sees_what_a_line_cannot() -> None:
    """Exclusive or of two features: every linear score is at chance."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(260, 3)).astype(np.float32)
    y = ((x[:, 0] > 0) != (x[:, 1] > 0)).astype(float)
    auc = {}
    for probe in (MlpProbe(), LinearProbe()):
        scores = probe.prepare(x[:160], x[160:], np.arange(160), "binary", 2, 0)(y[:160, None])
        auc[type(probe).__name__] = roc_auc_score(y[160:], scores.values[:, 0, 0])
    assert auc["MlpProbe"] > 0.9
    assert auc["LinearProbe"] < 0.65


def test_the_perceptron_stops_early_where_there_is_nothing() -> None:
    rng = np.random.default_rng(1)
    x, y = torch.from_numpy(rng.normal(size=(60, 20)).astype(np.float32)), rng.permuted(np.tile([0.0, 1.0], (10, 30)), axis=1).T
    probe = MlpProbe()
    inner = [(f, x[f.train], x[f.test]) for f in inner_folds(np.arange(60), 3, 0)]
    looks = probe._steps(inner, torch.from_numpy(y[:, :, None].astype(np.float32)), "binary", 0)
    assert looks.float().mean() < 0.3 * probe.steps / LOOK_EVERY
    signal = torch.sign(x[:, :1, None])
    assert probe._steps(inner, (signal + 1) / 2, "binary", 0) > looks.float().mean()


def test_stopping_returns_the_network_of_that_step() -> None:
    rng = np.random.default_rng(2)
    x, y = (
        torch.from_numpy(rng.normal(size=(30, 4)).astype(np.float32)),
        torch.from_numpy(rng.normal(size=(30, 3, 1)).astype(np.float32)),
    )
    probe = MlpProbe(steps=20)
    looks = [Weights(*(part.clone() for part in model)) for model in probe._train(x, y, "regression", 0)]
    assert len(looks) == 1 + 20 // LOOK_EVERY
    stopped = probe._stopped(x, y, torch.tensor([0, 2, 4]), "regression", 0)
    for column, look in enumerate((0, 2, 4)):
        for part, expected in zip(stopped, looks[look], strict=True):
            torch.testing.assert_close(part[column], expected[column], atol=0, rtol=0)


def test_the_network_equals_a_loop_over_columns() -> None:
    torch.manual_seed(0)
    model = Weights(torch.randn(3, 5, 4), torch.randn(3, 5), torch.randn(3, 2, 5), torch.randn(3, 2))
    x = torch.randn(7, 4)
    for i in range(3):
        expected = torch.relu(x @ model.hidden[i].T + model.bias[i]) @ model.head[i].T + model.intercept[i]
        torch.testing.assert_close(forward(model, x)[:, i], expected)
