"""Cross-modal retrieval: is a row's own partner found among all candidates? With the exact chance level beside it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from ssl4neuro.data.embedding_table import open_embeddings
from ssl4neuro.data.embeddings import Embeddings
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.statistics import Interval, bootstrap_interval

BLOCK = 1024  # queries compared at once


@dataclass(frozen=True)
class RetrievalMetric:
    """One number of a retrieval evaluation; n queries of n_subjects subjects against galleries of mean size `gallery`."""

    direction: str  # e.g. "course to map"
    metric: str  # "top-1", "top-5", "MRR"
    value: float
    ci_low: float
    ci_high: float
    chance: float
    n_queries: int
    n_subjects: int
    gallery: float
    stamp: str | None = None

    def __str__(self) -> str:
        note = f" [{self.stamp}]" if self.stamp else ""
        return (
            f"{self.direction} {self.metric} {self.value:.4f} (95 % CI {self.ci_low:.4f} to {self.ci_high:.4f},"
            f" chance {self.chance:.4f}, gallery of {self.gallery:.4g}, {self.n_queries} queries,"
            f" {self.n_subjects} subjects){note}"
        )


def rank_counts(
    query: Float[np.ndarray, "n dim"], key: Float[np.ndarray, "n dim"], groups: Int[np.ndarray, "n"] | None = None
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """For query i with partner key i: how many other candidates are more similar, how many equally, and the gallery's size.

    Cosine similarity. `groups` confine a query's candidates to its own group (a scan).
    """
    a = query / np.maximum(np.linalg.norm(query, axis=1, keepdims=True), 1e-12)
    b = key / np.maximum(np.linalg.norm(key, axis=1, keepdims=True), 1e-12)
    better, equal, size = (np.empty(len(a), dtype=np.int64) for _ in range(3))
    for start in range(0, len(a), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(a)))
        similarity = a[rows] @ b.T
        # One product for partner and rivals: identical keys then give identical numbers, as a tie has to.
        own = similarity[np.arange(len(rows)), rows][:, None]
        allowed = np.ones_like(similarity, dtype=bool) if groups is None else groups[rows][:, None] == groups
        better[rows] = ((similarity > own) & allowed).sum(1)
        equal[rows] = ((similarity == own) & allowed).sum(1) - 1
        size[rows] = allowed.sum(1)
    return better, equal, size


def score_ranks(
    better: Int[np.ndarray, "n"], equal: Int[np.ndarray, "n"], size: Int[np.ndarray, "n"], ks: tuple[int, ...]
) -> dict[str, tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]]:
    """Per query: metric -> (value, chance). Ties are broken at random in expectation, so collapsed embeddings score chance."""
    scores = {}
    for k in ks:
        scores[f"top-{k}"] = (np.clip((k - better) / (equal + 1), 0, 1), np.minimum(k / size, 1.0))
    harmonic = np.r_[0.0, np.cumsum(1 / np.arange(1, size.max() + 1))]
    scores["MRR"] = ((harmonic[better + equal + 1] - harmonic[better]) / (equal + 1), harmonic[size] / size)
    return scores


def retrieval(
    query: Float[np.ndarray, "n dim"],
    key: Float[np.ndarray, "n dim"],
    subjects: Shaped[np.ndarray, "n"],
    *,
    groups: Int[np.ndarray, "n"] | None = None,
    direction: str = "query to key",
    ks: tuple[int, ...] = (1, 5),
    bootstrap: int = 2000,
    seed: int = 0,
    stamp: str | None = None,
) -> list[RetrievalMetric]:
    """Top-k rates and mean reciprocal rank with subject-level intervals and exact chance.

    Raises:
        UserError: fewer than two rows.
    """
    if len(query) < 2:
        raise UserError(f"retrieval: needs two rows, got {len(query)}")
    code = np.unique(subjects, return_inverse=True)[1]
    better, equal, size = rank_counts(query, key, groups)
    found = []
    for name, (value, chance) in score_ranks(better, equal, size, ks).items():
        interval = _interval(value, code, bootstrap, seed)
        found.append(
            RetrievalMetric(
                direction, name, interval.value, interval.low, interval.high, float(chance.mean()), len(query),
                int(code.max()) + 1, float(size.mean()), stamp,
            )
        )  # fmt: skip
    return found


def _interval(value: np.ndarray, subjects: np.ndarray, draws: int, seed: int) -> Interval:
    return bootstrap_interval(lambda weights: weights @ value / weights.sum(1), subjects, draws=draws, seed=seed, bounded=True)


def _modalities(embeddings: Embeddings, source: str | None, goal: str | None) -> tuple[str, str]:
    shared = [c.removesuffix("_projected") for c in embeddings.columns_of("sample") if c.endswith("_projected")]
    shared.sort(key=lambda name: ("course", "map").index(name) if name in ("course", "map") else 2)
    left = source or next((name for name in shared if name != goal), None)
    right = goal or next((name for name in shared if name != left), None)
    if left is None or right is None:
        told = f"only {shared[0]} is" if shared else "none is"
        raise UserError(
            f"{embeddings.path}: retrieval needs two modalities in one space, and {told}; train a cross-modal objective"
        )
    return left, right


def retrieval_from_embeddings(
    embeddings: Path | Embeddings, source: str | None = None, goal: str | None = None, *, within_scan: bool = False,
    allow_overlap: bool = False, bootstrap: int = 2000, seed: int = 0,
) -> list[RetrievalMetric]:  # fmt: skip
    """Retrieval between two modalities of an embeddings folder, both directions, among rows of unseen subjects.

    Args:
        source, goal: modalities; by default course and map, or the first two with a shared space.
        within_scan: candidates are only the components of the same scan: which component, not whose.

    Raises:
        UserError: a modality has no shared-space column, or no two unseen rows exist.
    """
    opened = embeddings if isinstance(embeddings, Embeddings) else open_embeddings(embeddings)
    source, goal = _modalities(opened, source, goal)
    table = opened.table("sample").reset_index(drop=True)
    seen = table["seen"].to_numpy(dtype=bool)
    use = np.ones_like(seen) if allow_overlap else ~seen
    people = table["subject"].to_numpy(dtype=str)
    vectors = {name: opened.matrix("sample", f"{name}_projected") for name in (source, goal)}
    for matrix in vectors.values():
        use = use & np.isfinite(matrix).all(1)  # a row without the modality is no candidate
    if use.sum() < 2:
        raise UserError(
            f"{opened.path}: {int(use.sum())} rows of unseen subjects have both '{source}' and '{goal}', and 2 are needed;"
            " hold out more subjects in pretraining or stamp the result with --allow-overlap"
        )
    stamp = None
    if seen[use].any():
        old, all_tested = np.unique(people[use & seen]), np.unique(people[use])
        stamp = f"overlap: {len(old)} of {len(all_tested)} test subjects were seen in pretraining"
    keys = ["subject", "session", "run"]
    groups = table[keys].groupby(keys, dropna=False).ngroup().to_numpy(dtype=np.int64)[use] if within_scan else None
    found = []
    for left, right in ((source, goal), (goal, source)):
        found += retrieval(
            vectors[left][use], vectors[right][use], people[use], groups=groups, direction=f"{left} to {right}",
            bootstrap=bootstrap, seed=seed, stamp=stamp,
        )  # fmt: skip
    return found
