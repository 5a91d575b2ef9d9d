"""How well the site can be told from the features of unseen subjects, as given and harmonised: what a site effect is worth.

The machinery is that of the probe: folds by subject, interval over subjects, permutation of sites between subjects. Harmonised
features hold no linear trace of the site among training rows, so that values somewhat below chance mean the same as chance.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.crossval import Candidate, Settings, evaluate
from ssl4neuro.evaluate.features import Features
from ssl4neuro.evaluate.harmonise import HarmonisedFeatures, from_data
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.problem import Problem, pose

PERMUTATIONS = 200
COLUMNS = ("features", "model", "metric", "value", "ci_low", "ci_high", "p", "chance", "n_subjects")


class SomeRows:
    """Features of some rows of a problem, numbered anew."""

    def __init__(self, inner: Features, rows: np.ndarray) -> None:
        self.inner, self.rows = inner, rows

    def fold(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inner features of these rows."""
        return self.inner.fold(self.rows[train], self.rows[test])


def site_decodability(
    problem: Problem, candidates: Sequence[Candidate], site: str, settings: Settings, covariates: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """AUC (macro) of the site from each embedding and data baseline, and notes on what could not be told.

    Args:
        problem: its rows; the target plays no part.
        candidates: not harmonised.
        site: column of the sites.
        settings: folds, seed and bootstrap are used; permutations are at most 200.
        covariates: whose effect harmonisation preserves.
    """
    if site == problem.target:
        return pd.DataFrame(columns=list(COLUMNS)), []
    try:
        question = pose(
            problem.table, problem.table[site].astype(str), site, problem.unit, task="multiclass",
            allow_overlap=bool(problem.wall.stamp),
        )  # fmt: skip
    except UserError as error:
        return pd.DataFrame(columns=list(COLUMNS)), [f"site decodability was left out: {_reason(error)}"]
    lines, notes = [], []
    settings = replace(settings, leave_site_out=False, repeats=1, permutations=min(settings.permutations, PERMUTATIONS))
    shown = question.table[site].astype(str).to_numpy(dtype=str)
    preserved = None if covariates is None else covariates.iloc[question.kept].reset_index(drop=True)
    for kind, chosen in _versions(question, candidates, shown, preserved):
        try:
            outcomes, _ = evaluate(question, chosen, settings)
        except UserError as error:
            notes.append(f"site decodability, {kind}: left out, {_reason(error)}")
            continue
        for row in (outcome.rows[0] for outcome in outcomes):
            values = (row.name, row.metric, row.value, row.ci_low, row.ci_high, row.p, row.chance, row.n_subjects)
            lines.append((kind, *values))
    return pd.DataFrame(lines, columns=list(COLUMNS)), notes


def _versions(
    question: Problem, candidates: Sequence[Candidate], sites: np.ndarray, covariates: pd.DataFrame | None
) -> Iterator[tuple[str, list[Candidate]]]:
    """Vectors alone, all with the linear probe; a site that a fold never trains on is no matter here: it stays as it is."""
    plain = [
        replace(c, features=SomeRows(c.features, question.kept), probe=LinearProbe())
        for c in candidates
        if from_data(c) and not getattr(c.probe, "bags", False) and (isinstance(c.probe, LinearProbe) or not c.baseline)
    ]
    if not plain:
        return
    yield "as given", plain
    wrapped = [replace(c, features=HarmonisedFeatures(c.features, sites, covariates, "pool")) for c in plain]
    yield "harmonised", wrapped


def _reason(error: UserError) -> str:
    return str(error).removeprefix("harmonise: ").removeprefix("target: ")
