"""What a probe does about sites and nuisance variables, from the options to candidates, tables and the check."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.baselines import NUISANCE_ONLY
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.combat import UnseenSites
from ssl4neuro.evaluate.covariates import covariate_table
from ssl4neuro.evaluate.crossval import Candidate, Row, Settings
from ssl4neuro.evaluate.features import NUISANCE_COLUMNS, NuisanceFeatures
from ssl4neuro.evaluate.harmonise import harmonised
from ssl4neuro.evaluate.nuisance_check import nuisance_check
from ssl4neuro.evaluate.problem import Problem
from ssl4neuro.evaluate.residualise import SUFFIX, ResidualFeatures
from ssl4neuro.evaluate.site_decodability import site_decodability

SITE_COLUMN = "site"  # of every participants table that has one


@dataclass(frozen=True)
class Confounds:
    """The user's choice.

    Attributes:
        site: column of the sites.
        harmonise: method, or None.
        preserve: columns whose effect harmonisation keeps.
        unseen_sites: what harmonisation does with sites that have no training rows.
        nuisance: columns of the nuisance-only model, also regressed out of every embedding; None for the usual ones, in the
            nuisance-only model alone.
    """

    site: str | None = None
    harmonise: str | None = None
    preserve: tuple[str, ...] = ()
    unseen_sites: UnseenSites = "refuse"
    nuisance: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.harmonise is None and (self.preserve or self.unseen_sites != "refuse"):
            option = "preserve" if self.preserve else "unseen-sites"
            raise UserError(f"{option}: belongs to --harmonise combat; give that too, or leave it out")

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that may be needed beside target and site."""
        return (*NUISANCE_COLUMNS, *(self.nuisance or ()), *self.preserve)

    def candidates(self, problem: Problem, given: Sequence[Candidate], leave_site_out: bool = False) -> list[Candidate]:
        """Harmonised candidates, and beside every embedding the same with the nuisances regressed out.

        Raises:
            UserError: what `harmonised` and `covariate_table` refuse.
        """
        found = list(given)
        if self.harmonise is not None:
            found = harmonised(
                problem, found, self.site, self.harmonise,
                preserve=self.preserve, unseen=self.unseen_sites, leave_site_out=leave_site_out,
            )  # fmt: skip
        if self.nuisance is None:
            return found
        table = covariate_table(problem.table, self.nuisance, problem.target, "nuisance")
        both = ([c] if c.baseline else [c, _residual(c, table)] for c in found)
        return [candidate for pair in both for candidate in pair]

    def tables(
        self, problem: Problem, given: Sequence[Candidate], settings: Settings
    ) -> tuple[dict[str, pd.DataFrame], list[str]]:
        """`site_decodability` wherever the sites are known, and notes.

        Args:
            given: candidates as they are before `candidates`.
        """
        site = self.site or (SITE_COLUMN if SITE_COLUMN in problem.table else None)
        if site is None or problem.table[site].nunique() < 2:
            return {}, []
        kept = covariate_table(problem.table, self.preserve, problem.target, "preserve") if self.preserve else None
        table, notes = site_decodability(problem, given, site, settings, kept)
        return ({"site_decodability": table} if len(table) else {}), notes

    def check(self, rows: Sequence[Row], candidates: Sequence[Candidate]) -> tuple[Check, list[str]]:
        """See `nuisance_check`."""
        alone = next((c.features for c in candidates if c.name == NUISANCE_ONLY), None)
        return nuisance_check(rows, list(alone.columns) if isinstance(alone, NuisanceFeatures) else [])

    def record(self) -> dict[str, Any]:
        """For the settings of a result."""
        return asdict(self)


def _residual(candidate: Candidate, table: pd.DataFrame) -> Candidate:
    return replace(candidate, name=candidate.name + SUFFIX, features=ResidualFeatures(candidate.features, table))
