"""Conditions on the metadata of an index: `site==A`, `subject!=sub-01`, `network in DMN,SC`, `age>=60`.

A missing value satisfies `!=` and `not in` and nothing else. A word that no row has is an error rather than an empty or a
full answer: `subject!=sub-1` instead of `sub-01` would silently leave the subject in.
"""

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from ssl4neuro.errors import UserError
from ssl4neuro.registry import suggest

MEMBERSHIP = re.compile(r"^\s*(?P<column>\S+)\s+(?P<operator>not\s+in|in)\s+(?P<value>.+?)\s*$")
COMPARISON = re.compile(r"^\s*(?P<column>.+?)\s*(?P<operator>==|!=|<=|>=|<|>)\s*(?P<value>.*?)\s*$")
ORDER: dict[str, Callable[[Any, Any], Any]] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
MANY = 12  # a cohort has thousands of subjects: list the choices only where a reader can take them in


def select(metadata: pd.DataFrame, where: str | Sequence[str]) -> Bool[np.ndarray, "rows"]:
    """Rows of `metadata` that satisfy every condition.

    Args:
        metadata: one line per row of the index.
        where: a condition, or several that must all hold.

    Raises:
        UserError: a condition that cannot be read, an unknown column, a value that no row has, or conditions that leave no row.
    """
    conditions = [where] if isinstance(where, str) else list(where)
    keep = np.ones(len(metadata), dtype=bool)
    for condition in conditions:
        keep &= _holds(metadata, condition)
    if conditions and not keep.any():
        raise UserError(f"where {' and '.join(map(repr, conditions))}: no row is left; loosen a condition")
    return keep


def _holds(metadata: pd.DataFrame, condition: str) -> Bool[np.ndarray, "rows"]:
    match = MEMBERSHIP.match(condition) or COMPARISON.match(condition)
    if match is None:
        raise UserError(
            f"where {condition!r}: not a condition; write COLUMN==VALUE, !=, <, <=, >, >=, 'in A,B' or 'not in A,B'"
        )
    column, kind = match["column"], re.sub(r"\s+", " ", match["operator"])
    if column not in metadata.columns:
        raise UserError(f"where {condition!r}: the index has no column '{column}'{suggest(column, map(str, metadata.columns))}")
    values = metadata[column]
    words = [w.strip().strip("'\"") for w in (match["value"].split(",") if "in" in kind else [match["value"]])]
    wanted = [_typed(values, word, condition) for word in words]
    if kind in ORDER:
        if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            raise UserError(f"where {condition!r}: column '{column}' holds words, which have no order; use ==, != or in")
        return ORDER[kind](values.to_numpy(float, na_value=np.nan), wanted[0])
    inside = (_words(values) if isinstance(wanted[0], str) else values).isin(wanted).to_numpy(bool)
    return ~inside if kind in {"!=", "not in"} else inside


def _typed(values: pd.Series, word: str, condition: str) -> Any:
    """`word` as the column's type: number, truth value, or a word that some row has."""
    if pd.api.types.is_bool_dtype(values):
        if word.lower() not in TRUTH:
            raise UserError(f"where {condition!r}: '{word}' is neither true nor false")
        return TRUTH[word.lower()]
    if pd.api.types.is_numeric_dtype(values):
        try:
            return float(word)
        except ValueError:
            raise UserError(
                f"where {condition!r}: '{word}' is not a number, but column '{values.name}' holds numbers"
            ) from None
    known = set(_words(values).dropna())
    if word not in known:
        hint = suggest(word, known) if len(known) <= MANY else suggest(word, known).partition(" (choose from")[0]
        raise UserError(f"where {condition!r}: no row has {values.name} '{word}'{hint}")
    return word


def _words(values: pd.Series) -> pd.Series:
    """Values as text, missing ones kept missing."""
    return values.map(str, na_action="ignore")
