"""What the audit looks at, and the units between which the labels could change places."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ssl4neuro.data.association import Labels
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.embeddings import SCAN_KEY, Embeddings, Unit
from ssl4neuro.evaluate.crossval import Candidate
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.folds import Fold
from ssl4neuro.evaluate.problem import Problem
from ssl4neuro.evaluate.statistics import Scheme, permutation_scheme

UNITS: tuple[Unit, ...] = ("sample", "session", "subject")


@dataclass(frozen=True)
class Evidence:
    """One evaluation, as far as it can be looked into.

    Attributes:
        folds: outer folds of every repeat.
        source: where the features come from; None for arrays in memory.
        cohort: prepared cohort of the same scans; None where there is none.
        covariates: columns that were removed from features, preserved, or given to a probe.
    """

    problem: Problem
    candidates: Sequence[Candidate]
    folds: Sequence[Sequence[Fold]]
    source: Embeddings | None = None
    cohort: Cohort | None = None
    covariates: tuple[str, ...] = ()
    seed: int = 0

    @cached_property
    def scheme(self) -> Scheme:
        """The level at which the target varies."""
        problem = self.problem
        return permutation_scheme(problem.y, problem.subjects, problem.scans)

    @cached_property
    def codes(self) -> Int[np.ndarray, "rows"]:
        """Exchangeable unit of each row: its subject, or its scan where the target varies within subjects."""
        of = self.problem.subjects if self.scheme == "between subjects" else self.problem.scans
        return np.unique(of, return_inverse=True)[1]

    @cached_property
    def first(self) -> Int[np.ndarray, "units"]:
        """First row of each unit."""
        return np.unique(self.codes, return_index=True)[1]

    @cached_property
    def labels(self) -> Labels:
        """The target of each unit; mixed ones are rare (see `permutation_scheme`) and go by their first row."""
        problem = self.problem
        blocks = None if self.scheme == "between subjects" else problem.subjects[self.first]
        return Labels(problem.y[self.first], len(problem.classes), blocks, seed=self.seed)

    def per_unit(self, values: pd.Series) -> pd.Series:
        """A property of rows as one of units: the mean of numbers, categories joined where they differ."""
        groups = values.reset_index(drop=True).groupby(self.codes)
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            return groups.mean()
        if (groups.nunique() <= 1).all():
            return groups.first()
        return groups.agg(lambda part: "+".join(sorted(set(map(str, part.dropna())))) or None)

    @cached_property
    def names(self) -> list[tuple[str, ...]]:
        """What each unit is called in cohorts: (subject,), or (subject, session, run)."""
        keys = ["subject"] if self.scheme == "between subjects" else [c for c in SCAN_KEY if c in self.problem.table]
        return [tuple(map(str, line)) for line in self.problem.table[keys].iloc[self.first].itertuples(index=False)]

    def of_scans(self, table: pd.DataFrame) -> pd.DataFrame:
        """Properties of a cohort's scans (index: subject, session, run) as properties of the units; missing where unknown."""
        levels = list(range(len(self.names[0])))
        grouped = table.groupby(level=levels, sort=False)
        columns = {}
        for name in map(str, table):
            numeric = pd.api.types.is_numeric_dtype(table[name])
            columns[name] = grouped[name].mean() if numeric else grouped[name].agg(lambda part: "+".join(sorted(set(part))))
        keys = pd.Index([name[0] for name in self.names]) if len(levels) == 1 else pd.MultiIndex.from_tuples(self.names)
        return pd.DataFrame(columns).reindex(keys).reset_index(drop=True)

    def matrices(self, baselines: bool = False) -> dict[str, Float[np.ndarray, "rows dim"]]:
        """Feature vectors of the problem's rows, by candidate."""
        return {
            c.name: c.features.matrix
            for c in self.candidates
            if isinstance(c.features, ArrayFeatures) and c.features.matrix.ndim == 2 and c.baseline == baselines
        }

    def whole(self) -> dict[str, tuple[pd.DataFrame, Float[np.ndarray, "rows dim"]]]:
        """The features of every row there is, labelled or not, as they were handed in, with their table."""
        if self.source is None:
            return {name: (self.problem.table, matrix) for name, matrix in self.matrices().items()}
        asked = {c.name for c in self.candidates if not c.baseline}
        found: dict[str, tuple[pd.DataFrame, np.ndarray]] = {}
        for unit in UNITS:
            there = self.source.columns_of(unit) if unit != "subject" else []  # means over scans tell less
            for name in [c for c in there if c in asked] or list(there)[:1]:
                found.setdefault(name, (self.source.table(unit), self.source.matrix(unit, name)))
        return found


def bare_name(subject: str) -> str:
    """An ID without `sub-`, capitals and separators: how two spellings of one person agree."""
    return re.sub(r"[\s_.\-]+", "", re.sub(r"^sub[-_]?", "", str(subject).strip().casefold()))
