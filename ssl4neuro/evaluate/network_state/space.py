"""What held-out embeddings look like: neighbours, silhouette, and what their variance goes with (network_state.md §6).

Encoders of different folds have different spaces, so everything is measured within the held-out subjects of one fold and then
averaged. Separation of training subjects would prove nothing.
"""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped
from sklearn.metrics import silhouette_score

from ssl4neuro.evaluate.metrics import weighted_auc
from ssl4neuro.evaluate.network_state.items import SCAN
from ssl4neuro.evaluate.statistics import bootstrap_interval

NEIGHBOURS = 5
KEY = [*SCAN, "component"]
COLUMNS = ["measure", "network", "value", "ci_low", "ci_high", "chance", "n_subjects"]


def space_table(embeddings: pd.DataFrame, after: str, *, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """kNN AUC of the state per network, silhouettes of network and state, and shares of variance.

    Args:
        embeddings: see `FoldScores`.
        after: the later state.

    Returns:
        measure, network (empty for all), value, interval over subjects for the AUC, chance, n_subjects.
    """
    n = int(embeddings["subject"].nunique())
    found = _neighbour_rows(embeddings, after, draws, seed)
    parts = pd.concat([_fold_measures(own) for _, own in embeddings.groupby(["repeat", "fold"])])
    means = parts.groupby("measure", sort=False).mean()
    found += [(name, "", line["value"], np.nan, np.nan, line["chance"], n) for name, line in means.iterrows()]
    return pd.DataFrame(found, columns=COLUMNS)


def _neighbour_rows(embeddings: pd.DataFrame, after: str, draws: int, seed: int) -> list[tuple]:
    lines = []
    for _, own in embeddings.groupby(["repeat", "fold", "network"]):
        later = (own["state"] == after).to_numpy()
        score = neighbour_scores(np.stack(own["embedding"].to_list()), later, own["subject"].to_numpy(dtype=str))
        lines.append(own[["repeat", "network", *KEY]].assign(score=score, later=later))
    table = pd.concat(lines, ignore_index=True)
    rows = []
    for network, own in table.groupby("network"):
        # a line per component, a column per repeat, so that a weight is of the same component in all of them
        wide = own.pivot(index=[*KEY, "later"], columns="repeat", values="score").dropna()
        if not len(wide):
            continue
        scores, y = wide.to_numpy().T, wide.index.get_level_values("later").to_numpy(dtype=bool)
        order = wide.index.get_level_values("subject")

        def metric(weights: np.ndarray, scores: np.ndarray = scores, y: np.ndarray = y) -> np.ndarray:
            return np.mean([weighted_auc(s, weights * y, weights * ~y) for s in scores], axis=0)

        codes = pd.factorize(order, sort=True)[0].astype(np.int64)
        auc = bootstrap_interval(metric, codes, draws=draws, seed=seed, bounded=True)
        rows.append(("kNN AUC of the state", network, auc.value, auc.low, auc.high, 0.5, int(order.nunique())))
    return rows


def neighbour_scores(
    vectors: Float[np.ndarray, "n dim"], later: Bool[np.ndarray, "n"], subject: Shaped[np.ndarray, "n"], k: int = NEIGHBOURS
) -> Float[np.ndarray, "n"]:
    """Share of the later state among the k nearest of other subjects, by cosine; NaN where there is no other subject."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similarity = np.where(subject[:, None] == subject, -np.inf, unit @ unit.T)
    score = np.full(len(unit), np.nan)
    for i, row in enumerate(similarity):
        near = np.argsort(-row, kind="stable")[:k]
        near = near[np.isfinite(row[near])]
        score[i] = later[near].mean() if len(near) else np.nan
    return score


def _fold_measures(own: pd.DataFrame) -> pd.DataFrame:
    """measure, value, chance: without structure a silhouette is 0 and a factor's share of variance that of its parameters."""
    vectors = np.stack(own["embedding"].to_list()).astype(np.float64)
    network, state, subject = (own[name].to_numpy(dtype=str) for name in ("network", "state", "subject"))
    within = [_silhouette(vectors[network == name], state[network == name]) for name in np.unique(network)]
    known = [value for value in within if np.isfinite(value)]
    lines = [
        ("silhouette of the network", _silhouette(vectors, network), 0.0),
        ("silhouette of the state within a network", float(np.mean(known)) if known else np.nan, 0.0),
    ]
    shares = variance_shares(vectors, network, state, subject)
    lines += [(f"variance with {name}", value, chance) for name, (value, chance) in shares.items()]
    return pd.DataFrame(lines, columns=["measure", "value", "chance"])


def _silhouette(vectors: np.ndarray, labels: np.ndarray) -> float:
    if not 1 < len(np.unique(labels)) < len(labels):
        return float("nan")
    return float(silhouette_score(vectors, labels, metric="cosine"))


def variance_shares(
    vectors: Float[np.ndarray, "n dim"],
    network: Shaped[np.ndarray, "n"],
    state: Shaped[np.ndarray, "n"],
    subject: Shaped[np.ndarray, "n"],
) -> dict[str, tuple[float, float]]:
    """Shares of the embeddings' total variance that network, subject, state and network × state explain, added in this order.

    Returns:
        Share, and what it would be of vectors without structure: the factor's parameters over all degrees of freedom.
    """
    pairs = np.array([f"{a}\t{b}" for a, b in zip(network, state, strict=True)])
    centred = vectors - vectors.mean(0)
    total, freedom = float((centred**2).sum()), len(vectors) - 1
    design, before, used = np.ones((len(vectors), 1)), 0.0, 1
    shares: dict[str, tuple[float, float]] = {}
    for name, labels in (("network", network), ("subject", subject), ("state", state), ("network × state", pairs)):
        design = np.column_stack([design, labels[:, None] == np.unique(labels)])
        weights, _, rank, _ = np.linalg.lstsq(design, centred, rcond=None)
        explained = float(((design @ weights) ** 2).sum()) / total if total > 0 else float("nan")
        shares[name] = (explained - before, (rank - used) / max(freedom, 1))
        before, used = explained, int(rank)
    return {**shares, "nothing of these": (1 - before, 1 - (used - 1) / max(freedom, 1))}
