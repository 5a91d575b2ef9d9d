"""Features of a probe or baseline. `fold` fits whatever is fitted (PCA, fill-in values) on the training rows alone."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.utils.extmath import randomized_svd

from ssl4neuro.data.cohort import Cohort

Rows = Int[np.ndarray, "_"]
Pair = tuple[np.ndarray, np.ndarray]
COMPONENTS = 50
BLOCK = 2048  # maps read at once


@runtime_checkable
class Features(Protocol):
    """Feature rows of the units of one problem."""

    def fold(self, train: Rows, test: Rows) -> Pair:
        """Training and test features; nothing about the training features may depend on the test rows."""
        ...


class ArrayFeatures:
    """Vectors that exist already: embeddings, FNC."""

    def __init__(self, matrix: Float[np.ndarray, "units *dim"]) -> None:
        self.matrix = matrix

    def fold(self, train: Rows, test: Rows) -> Pair:
        """The rows asked for."""
        return self.matrix[train], self.matrix[test]


class ConstantFeatures:
    """Nothing at all: what a probe answers that knows only how frequent the classes are."""

    def fold(self, train: Rows, test: Rows) -> Pair:
        """Zeros."""
        return np.zeros((len(train), 1), dtype=np.float32), np.zeros((len(test), 1), dtype=np.float32)


class MapRows:
    """In-mask voxels of single component maps, read from the cohort when needed."""

    def __init__(self, cohort: Cohort, rows: Int[np.ndarray, "units"]) -> None:
        self.cohort, self.rows = cohort, rows

    def fold(self, train: Rows, test: Rows) -> Pair:
        """Maps as float32."""
        return self._read(train), self._read(test)

    def _read(self, units: np.ndarray) -> np.ndarray:
        return self.cohort.fetch(self.rows[units], ("map",))["map"].astype(np.float32)


class MapPCA(MapRows):
    """The first principal components of single maps, fitted on the training rows."""

    def fold(self, train: Rows, test: Rows) -> Pair:
        """Component scores."""
        maps = self._read(train)
        mean = maps.mean(0)
        count = max(1, min(COMPONENTS, len(train) - 1, maps.shape[1]))
        axes = randomized_svd(maps - mean, count, random_state=0)[2].T
        scores = [(self._read(test[i : i + BLOCK]) - mean) @ axes for i in range(0, len(test), BLOCK)]
        return (maps - mean) @ axes, np.concatenate(scores)


class GramPCA:
    """Principal components of long vectors known only by their inner products; equal to PCA of the vectors themselves."""

    def __init__(self, gram: Float[np.ndarray, "units units"]) -> None:
        self.gram = gram.astype(np.float64)

    def fold(self, train: Rows, test: Rows) -> Pair:
        """Component scores; centred on the training mean."""
        among, between = self.gram[np.ix_(train, train)], self.gram[np.ix_(test, train)]
        column, grand = among.mean(0), among.mean()
        power, vectors = np.linalg.eigh(among - column - column[:, None] + grand)
        count = max(1, min(COMPONENTS, len(train) - 1))
        keep = np.flatnonzero(power > 1e-9 * max(power.max(), 1e-12))[::-1][:count]
        axes = vectors[:, keep] / np.sqrt(power[keep])
        centred = between - between.mean(1, keepdims=True) - column + grand
        return (vectors[:, keep] * np.sqrt(power[keep])).astype(np.float32), (centred @ axes).astype(np.float32)


class TangentFeatures:
    """Connectivity in the tangent space of the training scans; a unit with several scans has the mean of their vectors."""

    def __init__(self, scans: Sequence[Sequence[Float[np.ndarray, "_ components"]]]) -> None:
        self.scans = scans

    def fold(self, train: Rows, test: Rows) -> Pair:
        """One vector per unit."""
        from ssl4neuro.data.connectome import TangentSpace

        space = TangentSpace([scan for unit in train for scan in self.scans[unit]])
        left, right = ([space.vectors(self.scans[unit]).mean(axis=0) for unit in units] for units in (train, test))
        return np.stack(left), np.stack(right)


class NuisanceFeatures:
    """Motion, image quality, length, age, sex, site: numbers with a mark where missing, categories as indicators."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.columns = tuple(map(str, table))
        self.numbers = {c: table[c].to_numpy(dtype=np.float64) for c in table if pd.api.types.is_numeric_dtype(table[c])}
        self.words = {c: table[c].fillna("").astype(str).to_numpy(dtype=object) for c in table if c not in self.numbers}

    def fold(self, train: Rows, test: Rows) -> Pair:
        """Missing numbers become the training median; categories that no training row has become zeros."""
        left: list[np.ndarray] = []
        right: list[np.ndarray] = []
        for values in self.numbers.values():
            known = values[train][~np.isnan(values[train])]
            fill = float(np.median(known)) if len(known) else 0.0
            for rows, out in ((train, left), (test, right)):
                missing = np.isnan(values[rows])
                out += [np.where(missing, fill, values[rows]), missing.astype(np.float64)]
        for values in self.words.values():
            for level in sorted(set(values[train])):
                left.append((values[train] == level).astype(np.float64))
                right.append((values[test] == level).astype(np.float64))
        return np.stack(left, axis=1), np.stack(right, axis=1)


CODES = ("site", "scanner", "centre", "center", "batch", "sex", "gender")  # names, also where they are written as numbers
NUISANCE_COLUMNS = ("mean_fd", "tsnr", "n_volumes", "age", "sex", "site")


def nuisance_table(
    table: pd.DataFrame, target: str, extra: Sequence[str] = (), named: Sequence[str] | None = None
) -> pd.DataFrame | None:
    """Columns of `named`, or of `NUISANCE_COLUMNS`, and of `extra` that there are and that vary; None if there are none."""
    wanted = NUISANCE_COLUMNS if named is None else named
    columns = [c for c in dict.fromkeys((*wanted, *extra)) if c in table and c != target]
    varying = [c for c in columns if table[c].nunique(dropna=False) > 1]
    return table[varying].reset_index(drop=True) if varying else None


def with_scan_means(table: pd.DataFrame, scans: pd.DataFrame, columns: Sequence[str], target: str) -> pd.DataFrame:
    """A table of subjects with the mean over their scans of those `columns` that are numbers of a scan (motion, quality)."""
    own = [c for c in dict.fromkeys(columns) if c != target and c in scans and c not in table]
    own = [c for c in own if pd.api.types.is_numeric_dtype(scans[c]) and c not in CODES]  # no site lies between two others
    means = scans.groupby("subject", sort=False)[own].mean()
    return table.assign(**{c: table["subject"].map(means[c]) for c in own})
