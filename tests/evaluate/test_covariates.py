"""Regressors of training rows."""

import numpy as np
import pandas as pd
import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.covariates import Design, covariate_table


def test_everything_is_estimated_on_the_training_rows() -> None:
    train = pd.DataFrame({"age": [20.0, np.nan, 40.0, 60.0], "sex": ["F", "M", "M", "F"], "same": 1})
    test = pd.DataFrame({"age": [np.nan, 140.0], "sex": ["M", "X"], "same": [1, 5]})
    design = Design(train)
    assert design.names == ["age", "sex"]  # `same` does not vary in training
    filled = np.array([20, 40, 40, 60.0])
    np.testing.assert_allclose(design.matrix(train)[:, 0], (filled - 40) / filled.std())
    np.testing.assert_allclose(design.matrix(train)[:, 1], [-1, 1, 1, -1])
    np.testing.assert_allclose(design.matrix(test), [[0, 1], [100 / filled.std(), 0]])  # an unknown sex is the average one


def test_columns_are_checked_before_they_are_used() -> None:
    table = pd.DataFrame(
        {"group": ["p", "c"] * 3, "arm": ["x", "y"] * 3, "age": range(6), "sex": ["F", "F", "M", "M", "F", "M"]}
    )
    assert list(covariate_table(table, ["sex", "age", "sex"], "group", "preserve")) == ["sex", "age"]
    with pytest.raises(UserError, match=r"^preserve: 'group' is the target, so the answer would enter the features"):
        covariate_table(table, ["group"], "group", "preserve")
    with pytest.raises(UserError, match=r"'arm' says the same as the target 'group'"):
        covariate_table(table, ["age", "arm"], "group", "nuisance")
    with pytest.raises(UserError, match=r"^nuisance: no column 'agee' at this unit of analysis.*age"):
        covariate_table(table, ["agee"], "group", "nuisance")
