"""Signs in the features themselves that something was fitted on all rows before they were handed in, test rows among them.

A scaler leaves means of exactly 0 and spreads of exactly 1; PCA and whitening leave correlations of exactly 0; removing a
nuisance by regression leaves no correlation with it at all; harmonisation leaves sites more alike than chance would. None of
these survives when the fit was made on some of the rows only.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ssl4neuro.data.association import as_property
from ssl4neuro.evaluate.audit.evidence import Evidence
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.features import NUISANCE_COLUMNS

SCALED, ROTATED = "scaling fitted on all rows", "PCA or whitening fitted on all rows"
REMOVED, ALIGNED = "nuisances removed over all rows", "sites harmonised over all rows"
EXACT = 1e-4
LEAST_ROWS = 8
MOST = 256  # features looked at
PERMUTATIONS, FEATURES_OF_SITES = 299, 128


def fitted(evidence: Evidence) -> list[Check]:
    """Four checks on the features as they were handed in."""
    whole = {name: pair for name, pair in evidence.whole().items() if len(pair[1]) >= LEAST_ROWS and pair[1].ndim == 2}
    if not whole:
        return [Check(n, "not checkable", "no vectors of eight or more rows") for n in (SCALED, ROTATED, REMOVED, ALIGNED)]
    again = "; hand in features as the encoder gives them, the probe scales by training fold"
    scaled = [f"{name}: {how}" for name, (_, matrix) in whole.items() if (how := scaling(matrix))]
    rotated = [name for name, (_, matrix) in whole.items() if decorrelated(matrix)]
    removed = [f"{c} from {name}" for name, (table, m) in whole.items() for c in uncorrelated(m, _nuisances(evidence, table))]
    checks = [
        _check(SCALED, scaled, "; ".join(scaled) + again, "means and spreads are not those of a scaler fitted on all rows"),
        _check(ROTATED, rotated, f"uncorrelated over all rows: {', '.join(rotated)}{again}", "features are correlated"),
        _check(
            REMOVED, removed, f"removed over all rows: {', '.join(removed)}; use --nuisance", "features go with the nuisances"
        ),
    ]
    return [*checks, _aligned(evidence, whole)]


def scaling(matrix: Float[np.ndarray, "rows dim"]) -> str:
    """How the columns were scaled over exactly these rows; empty if they were not."""
    x = _columns(matrix)
    if not x.shape[1]:
        return ""
    n, spread = len(x), x.std(0)
    corrected = spread * np.sqrt(n / (n - 1))
    if (np.abs(x.mean(0)) < EXACT).all() and ((np.abs(spread - 1) < EXACT).all() or (np.abs(corrected - 1) < EXACT).all()):
        return "mean 0 and standard deviation 1 over all rows"
    if x.shape[1] > 1 and (np.abs(x.min(0)) < 1e-6).all() and (np.abs(x.max(0) - 1) < 1e-6).all():
        return "minimum 0 and maximum 1 over all rows"
    low, middle, high = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
    if (np.abs(middle) < EXACT).all() and (np.abs(high - low - 1) < EXACT).all():
        return "median 0 and interquartile range 1 over all rows"
    return ""


def decorrelated(matrix: Float[np.ndarray, "rows dim"]) -> bool:
    """Three or more columns that have nothing in common over exactly these rows."""
    x = _columns(matrix)
    if not 3 <= x.shape[1] < len(x):
        return False
    correlation = np.corrcoef(x, rowvar=False)
    return bool(np.abs(correlation - np.eye(len(correlation))).max() < EXACT)


def uncorrelated(matrix: Float[np.ndarray, "rows dim"], nuisances: dict[str, pd.Series]) -> list[str]:
    """Nuisances with which not one of two or more features correlates."""
    x = _columns(matrix)
    if x.shape[1] < 2:
        return []
    found = []
    for name, values in nuisances.items():
        known = values.notna().to_numpy()
        if known.sum() < LEAST_ROWS or (x[known].std(0) < 1e-12).any():
            continue
        z = _design(values[known])
        if z.shape[1] and z.shape[1] < known.sum() - 1:
            own = x[known] - x[known].mean(0)
            if np.abs(z.T @ (own / np.linalg.norm(own, axis=0))).max() < EXACT:
                found.append(name)
    return found


def site_shares(x: Float[np.ndarray, "rows dim"], sites: Int[np.ndarray, "draws rows"]) -> Float[np.ndarray, "draws"]:
    """Share of the standardised features' variance that lies between sites, for each way to deal out the sites."""
    counts = np.bincount(sites[0])
    x = ((x - x.mean(0)) / np.maximum(x.std(0), 1e-12)).astype(np.float32)
    between = np.zeros(len(sites))
    for code, count in enumerate(counts):
        between += (((sites == code).astype(np.float32) @ x) ** 2).sum(1) / count
    return between / max(float((x**2).sum()), 1e-12)


def _aligned(evidence: Evidence, whole: dict) -> Check:
    """Sites more alike than with labels of sites dealt out at random: below all permutations, and below half their mean."""
    problem = evidence.problem
    if problem.sites is None and "site" not in problem.table:
        return Check(ALIGNED, "not checkable", "no column of sites")
    told = pd.Series(problem.sites) if problem.sites is not None else problem.table["site"].astype(str)
    by_subject = dict(zip(problem.table["subject"].astype(str), told, strict=True))
    rng = np.random.default_rng([evidence.seed, 0x517E])
    compared = False
    for name, (table, matrix) in whole.items():
        subjects = table["subject"].astype(str).reset_index(drop=True)
        kept = subjects.isin(by_subject).to_numpy()
        means = pd.DataFrame(_columns(matrix)[kept]).groupby(subjects[kept].to_numpy()).mean()
        sites = np.array([by_subject[s] for s in means.index])
        if len(np.unique(sites)) < 2 or len(means) < LEAST_ROWS:
            continue
        compared, dealt = True, np.tile(np.unique(sites, return_inverse=True)[1], (PERMUTATIONS + 1, 1))
        dealt[1:] = rng.permuted(dealt[1:], axis=1)
        observed, *null = site_shares(means.to_numpy()[:, :FEATURES_OF_SITES], dealt)
        if observed < min(null) and observed < 0.5 * np.mean(null):
            detail = f"{name}: {observed:.1%} of the variance lies between sites, by chance it would be {np.mean(null):.1%}"
            return Check(ALIGNED, "flagged", f"{detail}; use --harmonise, which fits inside the fold")
    if not compared:
        return Check(ALIGNED, "not checkable", "fewer than two sites")
    return Check(ALIGNED, "passed", "sites are no more alike than chance makes them")


def _check(name: str, found: list[str], flagged: str, passed: str) -> Check:
    return Check(name, "flagged", flagged) if found else Check(name, "passed", passed)


def _columns(matrix: np.ndarray) -> np.ndarray:
    """Columns that vary, at most `MOST` of them, without missing values."""
    step = max(1, matrix.shape[1] // MOST)
    x = matrix[:, ::step].astype(np.float64)
    return x[:, np.isfinite(x).all(0) & (x.std(0) > 1e-9)] if len(x) else x


def _nuisances(evidence: Evidence, table: pd.DataFrame) -> dict[str, pd.Series]:
    names = [c for c in dict.fromkeys((*NUISANCE_COLUMNS, *evidence.covariates)) if c in table and c != evidence.problem.target]
    return {c: as_property(table[c].reset_index(drop=True)) for c in names if table[c].nunique() > 1}


def _design(values: pd.Series) -> np.ndarray:
    """Centred unit columns: the number itself, or indicators."""
    numeric = pd.api.types.is_numeric_dtype(values)
    z = values.to_numpy(dtype=float)[:, None] if numeric else pd.get_dummies(values).to_numpy(dtype=float)
    z = z - z.mean(0)
    norm = np.linalg.norm(z, axis=0)
    return z[:, norm > 0] / norm[norm > 0]
