"""A prepared cohort of ICA components (maps and courses) or of courses alone: one row is one component of one scan."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from ssl4neuro.data.cohort import MASK, SCAN_COLUMNS, Cohort
from ssl4neuro.data.grid import image_data, load_image


class IcaCohort(Cohort):
    """Rows of a scan are contiguous; `map` holds the in-mask voxels, `course` is as long as its scan."""

    row_columns = (*SCAN_COLUMNS, "network", "component", "tr")
    places = ("network", "component")

    @property
    def modalities(self) -> tuple[str, ...]:
        """`("map", "course")`, or `("course",)` where there are no maps."""
        return tuple(m for m in ("map", "course") if m in self.info["contract"])

    @cached_property
    def index(self) -> pd.DataFrame:
        """One line per row: subject, session, run, site, network, component, tr (s, NaN unknown), codes, length (volumes)."""
        table = super().index
        table["length"] = np.concatenate([np.diff(part.offsets.to_numpy()) for part in self._table["course"].chunks])
        return table

    @cached_property
    def mask(self) -> Bool[np.ndarray, "x y z"] | None:
        """Voxels that `map` holds, in C order; None without maps."""
        if "map" not in self.modalities:
            return None
        return image_data(load_image(self.path / MASK, dimensions=3)) > 0

    @property
    def affine(self) -> Float[np.ndarray, "4 4"] | None:
        """Voxel index to mm; None without maps."""
        return np.array(self.info["contract"]["map"]["affine"], dtype=np.float64) if "map" in self.modalities else None

    def fetch(self, rows: Int[np.ndarray, "rows"], modalities: Sequence[str] | None = None) -> dict[str, Any]:
        """Values of many rows in one read, in the order asked; a row may be asked for several times.

        Returns:
            `map`: float16 [rows, voxels]; `course`: list of float32 arrays [time].

        Raises:
            IndexError: a row outside the cohort.
        """
        wanted = self.modalities if modalities is None else modalities
        batch, within = self.locate(rows)
        values: dict[str, Any] = {}
        if "map" in wanted and "map" in self.modalities:
            maps = np.empty((len(rows), int(self.info["contract"]["map"]["voxels"])), dtype=np.float16)
            for i, (b, r) in enumerate(zip(batch, within, strict=True)):
                maps[i] = self._maps[b][r]
            values["map"] = maps
        if "course" in wanted and "course" in self.modalities:
            pairs = zip(batch, within, strict=True)
            values["course"] = [self._courses[b][0][slice(*self._courses[b][1][r : r + 2])].copy() for b, r in pairs]
        return values

    @cached_property
    def _maps(self) -> list[np.ndarray]:
        voxels = int(self.info["contract"]["map"]["voxels"])
        return [part.flatten().to_numpy(zero_copy_only=True).reshape(-1, voxels) for part in self._table["map"].chunks]

    @cached_property
    def _courses(self) -> list[tuple[np.ndarray, list[int]]]:
        parts = self._table["course"].chunks
        return [(part.values.to_numpy(zero_copy_only=True), part.offsets.to_pylist()) for part in parts]
