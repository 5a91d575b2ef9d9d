"""Regressing nuisances out of features, fold by fold."""

import numpy as np
import pandas as pd
import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.residualise import ResidualFeatures

TRAIN, TEST = np.arange(30), np.arange(30, 40)


def _data() -> tuple[np.ndarray, pd.DataFrame]:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"fd": rng.gamma(2, 0.1, 40), "sex": rng.choice(["F", "M"], 40)})
    table.loc[[3, 35], "fd"] = np.nan
    x = rng.normal(size=(40, 5)) + 4 * table["fd"].fillna(0).to_numpy()[:, None] + (table["sex"] == "M").to_numpy()[:, None]
    return x, table


def test_residuals_are_those_of_least_squares_on_the_training_rows() -> None:
    x, table = _data()
    left, right = ResidualFeatures(ArrayFeatures(x), table).fold(TRAIN, TEST)
    filled = table["fd"].fillna(table["fd"][TRAIN].median()).to_numpy()
    design = np.column_stack([np.ones(40), filled, table["sex"] == "M"]).astype(float)
    weights = np.linalg.lstsq(design[TRAIN], x[TRAIN], rcond=None)[0]
    expected = x - design @ weights + x[TRAIN].mean(axis=0)  # the mean is kept
    np.testing.assert_allclose(left, expected[TRAIN], atol=1e-5)
    np.testing.assert_allclose(right, expected[TEST], atol=1e-5)
    np.testing.assert_allclose(design[TRAIN].T @ (left - left.mean(axis=0)), 0, atol=1e-3)


def test_test_rows_change_nothing_in_training() -> None:
    x, table = _data()
    left, _ = ResidualFeatures(ArrayFeatures(x), table).fold(TRAIN, TEST)
    x[TEST] += 100
    table.loc[TEST, "fd"] = 50.0
    np.testing.assert_array_equal(left, ResidualFeatures(ArrayFeatures(x), table).fold(TRAIN, TEST)[0])


def test_too_many_regressors_are_refused() -> None:
    x, table = _data()
    many = table.assign(operator=[f"o{i % 20}" for i in range(40)])
    with pytest.raises(UserError, match=r"21 regressors for 30 training rows.*largest: 'operator' with 19"):
        ResidualFeatures(ArrayFeatures(x), many).fold(TRAIN, TEST)
    with pytest.raises(UserError, match=r"reads bags of samples"):
        ResidualFeatures(ArrayFeatures(np.zeros((40, 3, 2))), table).fold(TRAIN, TEST)
