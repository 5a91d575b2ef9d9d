"""A feature that is the label, and a covariate that is the label under another name."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from ssl4neuro.data.association import Labels, as_property, associate, least_p
from ssl4neuro.evaluate.audit.evidence import Evidence
from ssl4neuro.evaluate.audit.properties import KEYS
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.features import NUISANCE_COLUMNS

FEATURE, COVARIATE = "a feature is the target", "a covariate is the target"
TELLING = (
    0.95  # share of a feature's variance that lies between classes; for two even classes, means 8.7 standard deviations apart
)
TELLING_VALUES = 0.98  # r² with a target of values
LEVEL = 0.01


def giveaways(evidence: Evidence) -> list[Check]:
    """Both checks."""
    return [_feature(evidence), _covariate(evidence)]


def _feature(evidence: Evidence) -> Check:
    matrices = evidence.matrices()
    if not matrices:
        return Check(FEATURE, "not checkable", "the features are not vectors in memory")
    for name, matrix in matrices.items():
        units = _unit_means(matrix, evidence.codes)
        place = telling(units, evidence.labels)
        if place is not None:
            detail = f"feature {place + 1} of {matrix.shape[1]} in '{name}' alone tells '{evidence.problem.target}'"
            return Check(FEATURE, "flagged", detail)
    return Check(FEATURE, "passed", "no single feature tells the target")


def telling(features: Float[np.ndarray, "units dim"], labels: Labels) -> int | None:
    """Number of the feature that is the label, exactly or with a little noise; None if there is none."""
    x = np.nan_to_num(features.astype(np.float64))
    x = x - x.mean(0)
    total = (x**2).sum(0)
    varies = total > 1e-12
    codes, y = np.unique(labels.values, return_inverse=True)
    if labels.classes:
        sums = np.zeros((len(codes), x.shape[1]))
        np.add.at(sums, y, x)
        share = np.divide((sums**2 / np.bincount(y)[:, None]).sum(0), total, out=np.zeros_like(total), where=varies)
        dims, limit = len(codes) - 1, TELLING
    else:
        target = labels.values - labels.values.mean()
        share = np.divide((x.T @ target) ** 2, total * (target @ target), out=np.zeros_like(total), where=varies)
        dims, limit = 1, TELLING_VALUES
    best = int(share.argmax())
    rest = len(x) - dims - 1
    if share[best] < limit or rest < 2:
        return None
    value = min(share[best], 1 - 1e-12)
    p = float(stats.f.sf(value / (1 - value) * rest / dims, dims, rest))
    if len(np.unique(x[:, best])) <= len(codes) + 2:  # a feature of few values hits the label by chance more easily
        p = max(p, least_p(labels))
    return best if p * x.shape[1] < LEVEL else None


def _covariate(evidence: Evidence) -> Check:
    problem = evidence.problem
    used = [c for c in dict.fromkeys((*NUISANCE_COLUMNS, *evidence.covariates)) if c in problem.table and c != problem.target]
    if evidence.scheme == "within scans":
        return Check(COVARIATE, "passed", "the target varies within scans, and covariates do not")
    same = [c for c in used if _stands_for(evidence, c)]
    if same:
        return Check(
            COVARIATE, "flagged", f"{', '.join(same)} tells '{problem.target}' completely; leave it out of the covariates"
        )
    others = [c for c in map(str, problem.table) if c not in used and c not in KEYS and c != problem.target]
    unused = [c for c in others if _stands_for(evidence, c)]
    told = f"; not used as one: {', '.join(unused)}, which tells it completely" if unused else ""
    return Check(COVARIATE, "passed", f"none of {len(used)} covariates tells the target completely{told}")


def _stands_for(evidence: Evidence, column: str) -> bool:
    values = as_property(evidence.per_unit(evidence.problem.table[column]))
    if not pd.api.types.is_numeric_dtype(values) and values.nunique() > len(values) / 3:
        return False  # a name for everybody tells everything and means nothing
    found = associate(column, values, evidence.labels)
    return found is not None and found.complete and found.p < LEVEL


def _unit_means(matrix: np.ndarray, codes: np.ndarray) -> np.ndarray:
    total = np.zeros((codes.max() + 1, matrix.shape[1]))
    np.add.at(total, codes, matrix)
    return total / np.bincount(codes)[:, None]
