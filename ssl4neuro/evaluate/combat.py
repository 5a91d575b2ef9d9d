"""ComBat: additive and multiplicative site effects of every feature, shrunk by empirical Bayes, taken out of any rows.

Johnson, Li, Rabinovic (2007), "Adjusting batch effects in microarray expression data using empirical Bayes methods",
Biostatistics 8:118; Fortin et al. (2017) NeuroImage 161:149 and (2018) NeuroImage 167:104 for imaging. Parametric priors.
The estimates are those of the training rows alone, and `apply` uses nothing else: kept libraries fit on all rows at once, test
rows included. Equal to neuroCombat 0.2.12 on the rows it is fitted on, apart from two things: the iteration runs until it has
converged, and a feature that does not vary is left as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.covariates import Design

UnseenSites = Literal["refuse", "pool"]
TOLERANCE, MAX_STEPS = 1e-9, 1000
Rows = Float[np.ndarray, "rows features"]
Sites = Shaped[np.ndarray, "rows"] | Sequence[str]
PerSite = Float[np.ndarray, "sites features"]


@dataclass(frozen=True)
class Combat:
    """Site effects as estimated on training rows."""

    sites: tuple[str, ...]
    design: Design | None  # of the covariates to preserve
    mean: Float[np.ndarray, "features"]  # grand mean, sites weighted by their rows, at average covariates
    slopes: Float[np.ndarray, "regressors features"]
    scale: Float[np.ndarray, "features"]  # pooled standard deviation
    shift: PerSite  # posterior additive effect, in units of `scale`
    spread: PerSite  # posterior multiplicative effect on the standard deviation

    @classmethod
    def fit(cls, train: Rows, sites: Sites, covariates: pd.DataFrame | None = None, *, mean_only: bool = False) -> "Combat":
        """Estimate the effects of the sites.

        Args:
            train: training rows, in any unit.
            sites: of each row.
            covariates: columns whose effect is preserved (age, sex); never the target, whose effect would be written into the
                features of the test rows.
            mean_only: sites shift features but do not scale them.

        Raises:
            UserError: a site with one row, too few rows, or a covariate that goes with the sites.
        """
        x = np.asarray(train, dtype=np.float64)
        names, member = _membership(sites)
        design = None if covariates is None else Design(covariates)
        regressors = np.zeros((len(x), 0)) if design is None or covariates is None else design.matrix(covariates)
        counts = member.sum(axis=0)
        _check(names, counts, member, regressors, design)
        full = np.concatenate([member, regressors], axis=1)
        weights = np.linalg.lstsq(full, x, rcond=None)[0]
        mean, slopes = counts / len(x) @ weights[: len(names)], weights[len(names) :]
        variance = ((x - full @ weights) ** 2).mean(axis=0)
        varies = variance > 1e-12 * np.maximum((x**2).mean(axis=0), 1e-30)
        scale = np.sqrt(np.where(varies, variance, 1.0))
        z = (x - mean - regressors @ slopes) / scale
        shift, spread = np.zeros((len(names), x.shape[1])), np.ones((len(names), x.shape[1]))
        for i in range(len(names)):
            # a feature that is constant within every site is nothing but the site; one that never varies has no shift
            shift[i, ~varies] = z[member[:, i]][:, ~varies].mean(axis=0)
            if varies.any():
                shift[i, varies], spread[i, varies] = _posterior(z[member[:, i]][:, varies], mean_only)
        return cls(tuple(names), design, mean, slopes, scale, shift, spread)

    def apply(
        self, rows: Rows, sites: Sites, covariates: pd.DataFrame | None = None, *, unseen: UnseenSites = "refuse"
    ) -> Rows:
        """Rows without the effects of their sites.

        Args:
            rows: any rows with the features of training.
            sites: of each row.
            covariates: the columns of training.
            unseen: what to do with a site without training rows. `pool` takes its effect to be none: the grand mean and the
                pooled variance hold for it, and its rows come back as they are.

        Raises:
            UserError: a site without training rows, unless `unseen` is `pool`.
        """
        x = np.asarray(rows, dtype=np.float64)
        given = np.asarray(sites).astype(str)
        strange = sorted(set(given) - set(self.sites))
        if strange and unseen == "refuse":
            raise UserError(
                f"harmonise: no training rows of {_list(strange)}, so their effect is unknown; leave these rows out, or take"
                " them as they are with --unseen-sites pool"
            )
        expected = np.broadcast_to(self.mean, x.shape)
        if self.design is not None and covariates is not None:
            expected = expected + self.design.matrix(covariates) @ self.slopes
        place = np.array([self.sites.index(site) if site in self.sites else len(self.sites) for site in given], dtype=np.int64)
        shift = np.concatenate([self.shift, np.zeros((1, x.shape[1]))])[place]
        spread = np.concatenate([self.spread, np.ones((1, x.shape[1]))])[place]
        return ((x - expected) / self.scale - shift) / spread * self.scale + expected


def _posterior(z: Rows, mean_only: bool) -> tuple[Float[np.ndarray, "features"], Float[np.ndarray, "features"]]:
    """Shift and spread of one site from its standardised rows: normal and inverse-gamma priors across features (§3.2)."""
    n, features = z.shape
    mean = z.mean(axis=0)
    if features < 2:  # nothing to borrow strength from
        return mean, np.ones(features) if mean_only else _no_zero(z.std(axis=0, ddof=1))
    prior_mean, prior_variance = mean.mean(), mean.var(ddof=1)
    if mean_only:  # neuroCombat takes one row and unit variance here, whatever the site's size
        return (prior_variance * mean + prior_mean) / (prior_variance + 1), np.ones(features)
    variance = _no_zero(z.var(axis=0, ddof=1))
    centre = variance.mean()
    width = max(float(variance.var(ddof=1)), 1e-12 * centre**2)  # equal variances: the prior is a point
    a, b = 2 + centre**2 / width, centre + centre**3 / width
    shift, delta = mean, variance
    for _ in range(MAX_STEPS):
        new_shift = (prior_variance * n * mean + delta * prior_mean) / (prior_variance * n + delta)
        new_delta = (0.5 * ((z - new_shift) ** 2).sum(axis=0) + b) / (n / 2 + a - 1)
        change = max(np.abs(new_shift - shift).max(), np.abs(new_delta / delta - 1).max())
        shift, delta = new_shift, new_delta
        if change < TOLERANCE:
            break
    return shift, np.sqrt(delta)


def _no_zero(values: Float[np.ndarray, "features"]) -> Float[np.ndarray, "features"]:
    return np.where(values == 0, 1.0, values)


def _membership(sites: Sites) -> tuple[list[str], Bool[np.ndarray, "rows sites"]]:
    names, code = np.unique(np.asarray(sites).astype(str), return_inverse=True)
    return names.tolist(), code[:, None] == np.arange(len(names))


def _check(names: list[str], counts: np.ndarray, member: np.ndarray, regressors: np.ndarray, design: Design | None) -> None:
    alone = [name for name, count in zip(names, counts, strict=True) if count < 2]
    if alone:
        raise UserError(
            f"harmonise: one training row of {_list(alone)}, which says nothing of its variance; leave it out or join it with"
            " another site"
        )
    if len(member) <= len(names) + regressors.shape[1]:
        raise UserError(
            f"harmonise: {len(member)} training rows for {len(names)} sites and {regressors.shape[1]} covariates;"
            " preserve fewer"
        )
    full = member.astype(np.float64)
    for column, owner in zip(regressors.T, design.names if design else [], strict=True):
        wider = np.column_stack([full, column])
        if np.linalg.matrix_rank(wider) < wider.shape[1]:
            raise UserError(
                f"harmonise: '{owner}' cannot be told apart from the sites or the other covariates in the training rows, so it"
                " cannot be preserved; leave it out of --preserve"
            )
        full = wider


def _list(sites: list[str]) -> str:
    shown = ", ".join(f"'{site}'" for site in sites[:5])
    return f"site{'s' if len(sites) > 1 else ''} {shown}{f' and {len(sites) - 5} more' if len(sites) > 5 else ''}"
