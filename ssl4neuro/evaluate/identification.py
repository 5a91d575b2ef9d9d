"""Whose scan is it? A subject's second vector (other half of the scan, other session) is matched to a gallery of first ones.

Method of Finn et al. (Nature Neuroscience 18, 2015): the best correlation wins; both directions are averaged. Chance is one in
the gallery's size, so the gallery belongs to the number.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.embeddings import SCAN_KEY, Embeddings
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate import connectivity
from ssl4neuro.evaluate.folds import subject_folds
from ssl4neuro.evaluate.statistics import bootstrap_interval, p_value


@dataclass(frozen=True)
class Identification:
    """Share of subjects identified, mean of both directions, with its interval over subjects."""

    accuracy: float
    ci_low: float
    ci_high: float
    p: float
    chance: float
    n_subjects: int
    gallery: float  # mean number of candidates

    def __str__(self) -> str:
        return (
            f"{self.accuracy:.3f} (95 % CI {self.ci_low:.3f} to {self.ci_high:.3f}, p {self.p:.4f}, chance {self.chance:.3f},"
            f" gallery of {self.gallery:.3g}, n = {self.n_subjects} subjects)"
        )


def identify(
    first: Float[np.ndarray, "n dim"],
    second: Float[np.ndarray, "n dim"],
    subjects: Shaped[np.ndarray, "n"],
    *,
    galleries: Int[np.ndarray, "n"] | None = None,
    bootstrap: int = 2000,
    permutations: int = 1000,
    seed: int = 0,
) -> Identification:
    """Match line i of `second` against `first` and the reverse; right is any line of the same subject.

    Args:
        galleries: a code per line; candidates are only those of the same code, e.g. the held-out subjects of one fold.
            A subject belongs to one gallery.

    Raises:
        UserError: fewer than two subjects, or a vector that is not finite or constant.
    """
    names, code = np.unique(subjects, return_inverse=True)
    if len(names) < 2:
        raise UserError(f"identification: needs two subjects, got {len(names)}")
    for vectors in (first, second):
        if not np.isfinite(vectors).all():
            raise UserError("identification: a vector is not finite; look for NaN in the embeddings or courses")
    gallery = np.zeros(len(code), dtype=np.int64) if galleries is None else galleries
    allowed = gallery[:, None] == gallery[None, :]
    similarity = np.where(allowed, _correlate(first, second), -np.inf)
    best_first, best_second = similarity.argmax(0), similarity.argmax(1)
    hits = ((code[best_first] == code) + (code[best_second] == code).astype(float)) / 2
    chance = float(((code[:, None] == code[None, :]) & allowed).sum(0).astype(float) @ (1 / allowed.sum(0)) / len(code))
    found = bootstrap_interval(lambda weights: weights @ hits / weights.sum(1), code, draws=bootstrap, seed=seed, bounded=True)
    null = _null(code, gallery, best_first, best_second, permutations, seed)
    p = p_value(found.value, null) if permutations else float("nan")
    return Identification(found.value, found.low, found.high, p, chance, len(names), float(allowed.sum(0).mean()))


def _correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of every line of `a` with every line of `b`."""
    scaled = []
    for vectors in (a, b):
        centred = vectors.astype(np.float64) - vectors.mean(1, keepdims=True, dtype=np.float64)
        scaled.append(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12))
    return scaled[0] @ scaled[1].T


def _null(
    code: np.ndarray, gallery: np.ndarray, to_first: np.ndarray, to_second: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """Accuracies when the second vectors' names are exchanged among the subjects of a gallery."""
    rng = np.random.default_rng([seed, 0x1D])
    home = np.zeros(code.max() + 1, dtype=np.int64)
    home[code] = gallery
    null = np.empty(count)
    for i in range(count):
        shuffled = rng.permutation(len(home))
        name = np.empty(len(home), dtype=np.int64)
        name[np.argsort(home, kind="stable")] = shuffled[np.argsort(home[shuffled], kind="stable")]
        null[i] = ((code[to_first] == name[code]).mean() + (name[code[to_second]] == code).mean()) / 2
    return null


def fold_galleries(subjects: Shaped[np.ndarray, "n"], folds: int, seed: int = 0) -> Int[np.ndarray, "n"]:
    """Gallery code of each line when the subjects are dealt into `folds` galleries, as the probe's outer folds are."""
    code = np.unique(subjects, return_inverse=True)[1]
    out = np.empty(len(code), dtype=np.int64)
    for number, fold in enumerate(subject_folds(code, np.ones(len(code), dtype=bool), folds, seed)):
        out[fold.test] = number
    return out


Kind = Literal["fnc", "maps"]


def split_half_fnc(cohort: Cohort) -> tuple[Float[np.ndarray, "scans pairs"], Float[np.ndarray, "scans pairs"], pd.DataFrame]:
    """FNC of the first and of the second half of every scan, and the scans' subject, session and run.

    Raises:
        UserError: no courses, or the scans share fewer than two components or networks.
    """
    table, parts = _scan_parts(cohort, "course")
    halves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for scan in connectivity.scan_courses(cohort, parts):
        for courses in scan:  # a unit is one scan here
            middle = min(len(course) for course in courses) // 2
            halves[0].append(connectivity.fnc([course[:middle] for course in courses]))
            halves[1].append(connectivity.fnc([course[-middle:] for course in courses]))
    return np.stack(halves[0]), np.stack(halves[1]), table


def scan_vectors(cohort: Cohort, kind: Kind) -> tuple[Float[np.ndarray, "scans dim"], pd.DataFrame]:
    """FNC, or the concatenated maps, of every scan, with its subject, session and run.

    Raises:
        UserError: the modality is missing, or the scans share fewer than two components or networks.
    """
    table, parts = _scan_parts(cohort, "course" if kind == "fnc" else "map")
    if kind == "fnc":
        return connectivity.unit_fnc(cohort, parts), table
    maps = [np.concatenate([cohort.fetch(p, ("map",))["map"].astype(np.float32).mean(0) for p in unit]) for unit in parts.rows]
    return np.stack(maps), table


def _scan_parts(cohort: Cohort, modality: str) -> tuple[pd.DataFrame, connectivity.Layout]:
    if modality not in cohort.modalities:
        raise UserError(f"{cohort.path}: has no modality '{modality}', which this identification compares")
    groups = cohort.index.groupby("group_code", sort=True)
    parts = connectivity.layout(cohort.index, [np.asarray(rows) for _, rows in sorted(groups.indices.items())])
    if parts is None:
        raise UserError(f"{cohort.path}: its scans share fewer than two components or networks, so they cannot be compared")
    return groups[SCAN_KEY].first().reset_index(drop=True), parts


def identify_embeddings(
    first: Embeddings, second: Embeddings | None = None, *, column: str | None = None, allow_overlap: bool = False,
    galleries: int = 1, bootstrap: int = 2000, permutations: int = 1000, seed: int = 0,
) -> Identification:  # fmt: skip
    """Identify unseen subjects from session embeddings: two folders (two halves, two visits), or two scans in one.

    Args:
        second: folder with the other vectors; None takes each subject's first and second scan in `first`.
        column: embedding; by default `joint`, otherwise the first modality.
        galleries: deal the subjects into so many galleries (1: all in one).

    Raises:
        UserError: fewer than two unseen subjects with two vectors.
    """
    name = column or ("joint" if "joint" in first.columns_of("session") else first.columns_of("session")[0])
    pairs = []
    if second is not None and second.matrix("session", name).shape[1] != first.matrix("session", name).shape[1]:
        raise UserError(f"{second.path}: '{name}' has other dimensions than in {first.path}; embed both with the same model")
    for source, which in ((first, 0), (second or first, 0 if second is not None else 1)):
        table = source.table("session").reset_index(drop=True)
        rank = table.groupby("subject").cumcount()
        lines = table.index[(rank == which) & (allow_overlap | ~table["seen"])]
        pairs.append(dict(zip(table["subject"][lines], source.matrix("session", name)[lines], strict=True)))
    shared = sorted(set(pairs[0]) & set(pairs[1]))
    if len(shared) < 2:
        raise UserError(
            f"{first.path}: {len(shared)} unseen subjects have two vectors, and 2 are needed;"
            " embed a second set of scans, hold out more subjects, or use --allow-overlap"
        )
    subjects = np.array(shared)
    a, b = (np.stack([side[subject] for subject in shared]) for side in pairs)
    codes = fold_galleries(subjects, galleries, seed) if galleries > 1 else None
    return identify(a, b, subjects, galleries=codes, bootstrap=bootstrap, permutations=permutations, seed=seed)
