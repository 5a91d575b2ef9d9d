"""The original ICA inputs in short, for stage two beside the embedding: R of the map, S of the course (network_state.md §5)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from sklearn.decomposition import PCA

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.ica_cohort import IcaCohort
from ssl4neuro.data.parcels import make_parcels
from ssl4neuro.data.scan import Grid
from ssl4neuro.evaluate.features import Pair, Rows
from ssl4neuro.evaluate.network_state.course_features import course_features

BLOCK = 2048

Fitted = Literal["per network", "shared"]


@dataclass(frozen=True)
class Compact:
    """What the cohort says of every item without any fitting.

    Attributes:
        regions: mean loading in each region [items, regions]; no columns without maps.
        course: see `course_features` [items, 9]; no columns without courses.
    """

    regions: Float[np.ndarray, "items regions"]
    course: Float[np.ndarray, "items numbers"]


def compact_features(cohort: Cohort, rows: Int[np.ndarray, "items"], atlas: str = "dosenbach") -> Compact:
    """Mean loadings and course features of rows of a cohort.

    Args:
        atlas: regions, see `make_parcels`.
    """
    mean = _region_means(cohort, atlas) if isinstance(cohort, IcaCohort) and "map" in cohort.modalities else None
    tr = cohort.index["tr"].to_numpy(dtype=np.float64)
    regions, courses = [], []
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        values = cohort.fetch(part, ("map", "course"))
        if mean is not None:
            regions.append(values["map"].astype(np.float32) @ mean)
        if "course" in values:
            courses.append(course_features(values["course"], tr[part]))
    nothing = np.zeros((len(rows), 0), dtype=np.float32)
    return Compact(np.concatenate(regions) if regions else nothing, np.concatenate(courses) if courses else nothing)


def _region_means(cohort: IcaCohort, atlas: str) -> Float[np.ndarray, "voxels regions"]:
    assert cohort.mask is not None
    assert cohort.affine is not None
    parcels = make_parcels(atlas, Grid(cohort.affine, cohort.mask))
    inside = parcels.labels[cohort.mask]
    member = inside[:, None] == parcels.table["code"].to_numpy()
    return (member / member.sum(0)).astype(np.float32)


class StageTwoFeatures:
    """[embedding ; R ; S], standardised, R reduced by PCA; all of it fitted on the training rows (a `Features`).

    Each of the three blocks has the same total variance, so that the 128 numbers of an embedding do not outvote the rest.

    Args:
        embedding: [items, dim]; None for the compact features alone.
        networks: name of each item's network.
        components: of the PCA of the regions.
        fitted: each network for itself, or all together after taking away each network's mean.
    """

    def __init__(
        self,
        compact: Compact,
        networks: Shaped[np.ndarray, "items"],
        embedding: Float[np.ndarray, "items dim"] | None = None,
        *,
        components: int = 20,
        fitted: Fitted = "per network",
    ) -> None:
        self.compact, self.networks, self.embedding = compact, networks, embedding
        self.components, self.fitted = components, fitted

    def fold(self, train: Rows, test: Rows) -> Pair:
        """Training and test features; a network without training rows gets zeros."""
        blocks = [self._regions(train, test), self._scaled(self.compact.course, train, test)]
        if self.embedding is not None:
            blocks.insert(0, self._scaled(self.embedding, train, test))
        left = np.concatenate([a for a, _ in blocks], axis=1)
        return left.astype(np.float32), np.concatenate([b for _, b in blocks], axis=1).astype(np.float32)

    @property
    def dim(self) -> int:
        """Number of columns that come from the embedding; they stand first."""
        return 0 if self.embedding is None else self.embedding.shape[1]

    def _regions(self, train: Rows, test: Rows) -> Pair:
        x, groups = self.compact.regions, self._groups()
        smallest = min((int((groups[train] == g).sum()) for g in np.unique(groups[train])), default=0)
        count = min(self.components, x.shape[1], max(smallest - 1, 0))
        left, right = np.zeros((len(train), count)), np.zeros((len(test), count))
        centre_left, centre_right = self._centred(x, train, test)
        for group in np.unique(groups[train]):
            a, b = groups[train] == group, groups[test] == group
            if count:
                pca = PCA(count, svd_solver="full").fit(centre_left[a])
                left[a] = pca.transform(centre_left[a])
                right[b] = pca.transform(centre_right[b]) if b.any() else right[b]
        return self._standardised(left, right, groups[train], groups[test])

    def _scaled(self, x: np.ndarray, train: Rows, test: Rows) -> Pair:
        groups = self._groups()
        left, right = self._centred(x, train, test)
        return self._standardised(left, right, groups[train], groups[test])

    def _centred(self, x: np.ndarray, train: Rows, test: Rows) -> Pair:
        """Without each network's training mean: which network it is, is no news to stage two."""
        left, right = np.zeros((len(train), x.shape[1])), np.zeros((len(test), x.shape[1]))
        for name in np.unique(self.networks[train]):
            a, b = self.networks[train] == name, self.networks[test] == name
            mean = x[train][a].mean(0, dtype=np.float64)
            left[a], right[b] = x[train][a] - mean, x[test][b] - mean
        return left, right

    @staticmethod
    def _standardised(left: np.ndarray, right: np.ndarray, train: np.ndarray, test: np.ndarray) -> Pair:
        for group in np.unique(train):
            a, b = train == group, test == group
            spread = left[a].std(0)
            scale = np.where(spread > 1e-7, np.sqrt(left.shape[1]) * np.maximum(spread, 1e-7), np.inf)
            left[a], right[b] = left[a] / scale, right[b] / scale
        return left, right

    def _groups(self) -> Int[np.ndarray, "items"]:
        if self.fitted == "shared":
            return np.zeros(len(self.networks), dtype=np.int64)
        return pd.factorize(self.networks, sort=True)[0].astype(np.int64)
