"""Recovery scores: how much more a subject's later scan looks like `after` than the earlier one (network_state.md §5).

The model has not seen the subject. Without controls there is no norm: a score says how far a network moved along the axis that
the model learned from other patients, not whether it is healthy.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats
from scipy.special import expit

from ssl4neuro.evaluate.network_state.items import WHOLE
from ssl4neuro.evaluate.statistics import bootstrap_interval

COLUMNS = ["subject", "network", "before", "after", "recovery", "ci_low", "ci_high", "distance"]


def recovery_scores(scores: pd.DataFrame, after: str, embeddings: pd.DataFrame | None = None) -> pd.DataFrame:
    """One line per subject and network, and per subject for the whole brain, for subjects with both states.

    Args:
        scores: lines of one model.
        after: the later state.
        embeddings: with a column `change` (preset `change_aware`), for the distance between the states.

    Returns:
        `before`, `after`: mean calibrated probability of the later state in either scan; `recovery`: their difference; its
        interval, over the components of the cells, where each has two or more, NaN elsewhere; `distance`: of the mean `change`
        parts, NaN without.
    """
    logit = np.log(scores["probability"].clip(1e-6, 1 - 1e-6)) - np.log1p(-scores["probability"].clip(1e-6, 1 - 1e-6))
    lines = scores.assign(logit=logit, later=(scores["state"] == after).to_numpy())
    far = _distances(embeddings, after) if embeddings is not None and "change" in embeddings else {}
    found = []
    for (subject, network), own in lines.groupby(["subject", "network"], sort=True):
        if own["later"].nunique() < 2:
            continue
        cell = own.groupby(["repeat", "session", "run", "later"])["logit"].mean()
        s = pd.Series(expit(cell)).groupby("later").mean()
        low, high = _interval(own, float(s[True] - s[False])) if network != WHOLE else (np.nan, np.nan)
        distance = far.get((str(subject), str(network)), np.nan)
        found.append((subject, network, s[False], s[True], s[True] - s[False], low, high, distance))
    return pd.DataFrame(found, columns=COLUMNS)


def mean_recovery(table: pd.DataFrame, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Mean over subjects of each network with its bootstrap interval: network, value, ci_low, ci_high, n_subjects."""
    found = []
    for network, own in table.groupby("network", sort=False):
        change = own["recovery"].to_numpy(dtype=np.float64)
        codes = np.arange(len(own))
        mean = bootstrap_interval(lambda w, x=change: w @ x / w.sum(1), codes, draws=draws, seed=seed)  # type: ignore[misc]
        found.append((network, mean.value, mean.low, mean.high, len(own)))
    return pd.DataFrame(found, columns=["network", "value", "ci_low", "ci_high", "n_subjects"])


def _interval(own: pd.DataFrame, recovery: float, level: float = 0.95) -> tuple[float, float]:
    """Welch's interval around the score; components repeat the measurement of their scan, a state's scans weigh the same."""
    # a component of several repeats is one measurement
    point = own.groupby(["later", "session", "run", "component"])["logit"].mean().reset_index()
    cells = point.assign(p=expit(point["logit"])).groupby(["later", "session", "run"])["p"].agg(["var", "size"]).reset_index()
    scans = cells.groupby("later")["size"].transform("size")
    errors, sizes = (cells["var"] / cells["size"] / scans**2).to_numpy(), cells["size"].to_numpy()
    total = errors.sum()
    if sizes.min() < 2 or total <= 0:
        return float("nan"), float("nan")
    freedom = total**2 / (errors**2 / (sizes - 1)).sum()
    half = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(total)
    return float(recovery - half), float(recovery + half)


def _distances(embeddings: pd.DataFrame, after: str) -> dict[tuple[str, str], float]:
    """Within each fold's own space, mean over repeats; the whole brain's is the mean over networks."""
    found: dict[tuple[str, str], list[float]] = {}
    for (_, subject, network), own in embeddings.groupby(["repeat", "subject", "network"]):
        later = (own["state"] == after).to_numpy()
        if 0 < later.sum() < len(own):
            change: Float[np.ndarray, "components part"] = np.stack(own["change"].to_list()).astype(np.float64)
            gap = float(np.linalg.norm(change[later].mean(0) - change[~later].mean(0)))
            found.setdefault((str(subject), str(network)), []).append(gap)
            found.setdefault((str(subject), WHOLE), []).append(gap)
    return {key: float(np.mean(values)) for key, values in found.items()}
