"""Columns of a table as regressors; what is estimated (means, levels, fill-in values) comes from the training rows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from ssl4neuro.errors import UserError
from ssl4neuro.registry import suggest


class Design:
    """Regressors of training rows: numbers standardised, categories as indicators without the first level, all centred.

    A missing number becomes the training median. A category that no training row has counts as the average training row, since
    nothing is known of it. Columns that do not vary in training are left out.

    Attributes:
        names: the table's column that each regressor comes from.
    """

    def __init__(self, train: pd.DataFrame) -> None:
        self.numbers = {c: _fill(train[c]) for c in map(str, train) if pd.api.types.is_numeric_dtype(train[c])}
        self.levels = {c: sorted(set(_words(train[c]))) for c in map(str, train) if c not in self.numbers}
        raw, owners = self._raw(train)
        self._mean, spread = raw.mean(axis=0), raw.std(axis=0)
        self._varies = spread > 1e-9 * np.maximum(1.0, np.abs(self._mean))
        self._spread = np.where(self._varies, spread, 1.0)
        self.names = [owner for owner, varies in zip(owners, self._varies, strict=True) if varies]

    def matrix(self, table: pd.DataFrame) -> Float[np.ndarray, "rows regressors"]:
        """Regressors of any rows of a table with the same columns."""
        raw, _ = self._raw(table)
        scaled = (np.where(np.isnan(raw), self._mean, raw) - self._mean) / self._spread
        return scaled[:, self._varies]

    def _raw(self, table: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
        """Uncentred columns, NaN where a category is unknown, and their owners."""
        columns: list[np.ndarray] = [np.zeros((len(table), 0))]
        owners: list[str] = []
        for name, fill in self.numbers.items():
            columns.append(table[name].astype(np.float64).fillna(fill).to_numpy()[:, None])
            owners.append(name)
        for name, levels in self.levels.items():
            words = _words(table[name])
            indicators = (words[:, None] == np.array(levels[1:], dtype=object)).astype(np.float64)
            indicators[~np.isin(words, levels)] = np.nan
            columns.append(indicators)
            owners += [name] * (len(levels) - 1)
        return np.concatenate(columns, axis=1), owners


def covariate_table(table: pd.DataFrame, columns: Sequence[str], target: str, option: str) -> pd.DataFrame:
    """The named columns of the problem's rows.

    Raises:
        UserError: a column is not there, or it is the target under its own or another name.
    """
    for column in columns:
        if column not in table:
            raise UserError(
                f"{option}: no column '{column}' at this unit of analysis{suggest(column, map(str, table.columns))}"
            )
        if column == target or (target in table and _same_partition(table[column], table[target])):
            what = "is the target" if column == target else f"says the same as the target '{target}'"
            raise UserError(f"{option}: '{column}' {what}, so the answer would enter the features; leave it out")
    return table[list(dict.fromkeys(columns))].reset_index(drop=True)


def _same_partition(one: pd.Series, other: pd.Series) -> bool:
    """Whether two categorical columns are the same up to the names of their values; every two quantities would be."""
    a, b = pd.factorize(one)[0], pd.factorize(other)[0]
    pairs = len(set(zip(a.tolist(), b.tolist(), strict=True)))
    return pairs == len(set(a)) == len(set(b)) and 1 < pairs <= len(a) / 2


def _fill(values: pd.Series) -> float:
    known = values.astype(np.float64).dropna()
    return float(known.median()) if len(known) else 0.0


def _words(values: pd.Series) -> np.ndarray:
    return values.astype(object).where(values.notna(), "").astype(str).to_numpy(dtype=object)
