"""Ridge regression for many columns against scikit-learn, and the inner errors by quadratic forms against the predictions."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from ssl4neuro.evaluate.folds import inner_folds
from ssl4neuro.evaluate.linear import PENALTIES, LinearProbe, RidgeProbe
from ssl4neuro.evaluate.ridge import InnerErrors, principal_axes


def _data(dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(20), 2)
    return rng.normal(size=(40, dim)), rng.normal(size=(15, dim)), who


@pytest.mark.parametrize("dim", [5, 60])
@pytest.mark.parametrize("whole", [True, False])
def test_quadratic_forms_equal_the_held_out_errors(dim: int, whole: bool) -> None:
    x, _, who = _data(dim)
    rng = np.random.default_rng(1)
    labels = rng.normal(size=(20, 50))[who] if whole else rng.normal(size=(40, 50))
    fit = np.stack([labels, labels**2], axis=2).astype(np.float32)  # two outputs
    folds = inner_folds(who, 3, 0)
    axes = [principal_axes(x[f.train], x[f.test]) for f in folds]
    errors = InnerErrors(folds, axes, who, np.asarray(PENALTIES, dtype=np.float32))
    found = errors(fit)
    assert set(errors.forms) == {whole}
    expected = np.zeros((len(PENALTIES), 50))
    for fold in folds:
        scaler = StandardScaler().fit(x[fold.train])
        for i, penalty in enumerate(PENALTIES):
            flat = fit.reshape(40, -1)
            guess = (
                Ridge(penalty).fit(scaler.transform(x[fold.train]), flat[fold.train]).predict(scaler.transform(x[fold.test]))
            )
            expected[i] += ((guess - flat[fold.test]) ** 2).sum(0).reshape(50, 2).sum(1)
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    np.testing.assert_allclose(errors(fit[:, :1]), expected[:, :1], rtol=2e-3)  # few columns: by the predictions themselves


def test_regression_of_memberships_is_ridge_and_its_columns_do_not_meet() -> None:
    x, test, who = _data(6)
    y = np.random.default_rng(2).integers(0, 2, (40, 30)).astype(float)
    scores = RidgeProbe(penalties=(10.0,)).prepare(x, test, who, "binary", 2, 0)(y)
    scaler = StandardScaler().fit(x)
    for column in (0, 17):
        model = Ridge(10.0).fit(scaler.transform(x), y[:, column])
        spread = model.predict(scaler.transform(x)).std()
        expected = (model.predict(scaler.transform(test)) - y[:, column].mean()) / spread
        np.testing.assert_allclose(scores.values[:, column, 0], expected, rtol=1e-3, atol=1e-4)
    assert scores.probability is None
    assert (scores.offset == 0).all()
    alone = RidgeProbe().prepare(x, test, who, "multiclass", 3, 0)(y[:, :1])
    among = RidgeProbe().prepare(x, test, who, "multiclass", 3, 0)(y)
    np.testing.assert_allclose(alone.values[:, 0], among.values[:, 0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 3)])
def test_probabilities_are_the_fitted_logistic_models_own(task: str, classes: int) -> None:
    from sklearn.linear_model import LogisticRegression

    x, test, who = _data(4, seed=3)
    y = (np.arange(40) % 5 % classes).astype(float)
    found = LinearProbe(penalties=(1.0,)).prepare(x, test, who, task, classes, 0)(y[:, None])
    assert found.probability is not None
    scaler = StandardScaler().fit(x)
    expected = (
        LogisticRegression(C=1.0, tol=1e-8, max_iter=2000).fit(scaler.transform(x), y).predict_proba(scaler.transform(test))
    )
    got = found.probability[:, 0]
    np.testing.assert_allclose(got if classes > 2 else np.c_[1 - got, got], expected, atol=0.01)
