"""Site harmonisation inside the fold: ComBat fitted on the training rows, applied to training and test rows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Shaped

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.combat import Combat, UnseenSites
from ssl4neuro.evaluate.covariates import covariate_table
from ssl4neuro.evaluate.crossval import Candidate
from ssl4neuro.evaluate.features import ConstantFeatures, Features, NuisanceFeatures, Pair, Rows
from ssl4neuro.evaluate.problem import Problem
from ssl4neuro.registry import suggest

METHODS = ("combat",)


class HarmonisedFeatures:
    """Features of `inner` without site effects. A row is one unit of analysis: repeated scans of a subject count each."""

    def __init__(
        self,
        inner: Features,
        sites: Shaped[np.ndarray, "units"],
        covariates: pd.DataFrame | None = None,
        unseen: UnseenSites = "refuse",
    ) -> None:
        self.inner, self.sites, self.covariates, self.unseen = inner, np.asarray(sites).astype(str), covariates, unseen

    def fold(self, train: Rows, test: Rows) -> Pair:
        """Harmonised features; a site's effect is that of its training rows.

        Raises:
            UserError: what `Combat` refuses, or features that are no vectors.
        """
        x, x_test = self.inner.fold(train, test)
        if x.ndim != 2:
            raise UserError(
                "harmonise: this probe reads bags of samples, and ComBat needs one vector per row; use --probe linear"
            )
        model = Combat.fit(x, self.sites[train], self._of(train))
        left = model.apply(x, self.sites[train], self._of(train))
        right = model.apply(x_test, self.sites[test], self._of(test), unseen=self.unseen)
        return left.astype(np.float32), right.astype(np.float32)

    def _of(self, rows: Rows) -> pd.DataFrame | None:
        return None if self.covariates is None else self.covariates.iloc[rows]


def harmonised(
    problem: Problem,
    candidates: Sequence[Candidate],
    site: str | None,
    method: str,
    *,
    preserve: Sequence[str] = (),
    unseen: UnseenSites = "refuse",
    leave_site_out: bool = False,
) -> list[Candidate]:
    """Embeddings and baselines alike, harmonised in every fold; nuisance variables and the majority class stay as they are.

    Args:
        site: column of the sites.
        method: name in `METHODS`.
        preserve: columns whose effect is kept; never the target.
        unseen: see `Combat.apply`.
        leave_site_out: whether test sites have no training rows by design.

    Raises:
        UserError: unknown method, no site column, one site only, the target among the columns to preserve, or sites that are
            left out and refused.
    """
    if method not in METHODS:
        raise UserError(f"harmonise: no method '{method}'{suggest(method, METHODS)}")
    if site is None:
        raise UserError("harmonise: name the column of the scanner or centre with --site")
    if leave_site_out and unseen == "refuse":
        raise UserError(
            "harmonise: with --leave-site-out a test site has no training rows, so its effect is unknown; take its rows as they"
            " are with --unseen-sites pool, or leave out --harmonise"
        )
    sites = problem.table[site].astype(str).to_numpy(dtype=str)
    if len(set(sites)) < 2:
        raise UserError(f"harmonise: all rows have the same '{site}', so there is nothing to harmonise; leave it out")
    covariates = covariate_table(problem.table, preserve, problem.target, "preserve") if preserve else None
    return [
        replace(c, features=HarmonisedFeatures(c.features, sites, covariates, unseen)) if from_data(c) else c
        for c in candidates
    ]


def from_data(candidate: Candidate) -> bool:
    """Whether its features come from scans, and not from the tables or from nothing."""
    return not isinstance(candidate.features, NuisanceFeatures | ConstantFeatures)
