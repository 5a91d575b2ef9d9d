"""A prepared cohort of clips: one row is one clip, memory-mapped, so that reading one touches no other."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float, Int, UInt8

from ssl4neuro.data.clip import Clip
from ssl4neuro.data.clip_rows import affine_of
from ssl4neuro.data.cohort import SCAN_COLUMNS, Cohort

NUMBERS = ("count", "height", "width", "channels", "interval", "spacing_row", "spacing_column", "centre_row", "centre_column")
PLACE = ("affine", "slices", "thickness")  # absent from cohorts of earlier versions


class ClipCohort(Cohort):
    """Rows of a study are contiguous. `cine` are the frames, `motion` what changes from each to the next."""

    row_columns = (*SCAN_COLUMNS, "view", "slice")
    places = ("view", "slice")

    @cached_property
    def index(self) -> pd.DataFrame:
        """One line per clip: `row_columns`, codes, frames (count), height, width, channels, interval (s), spacing_row and
        spacing_column (mm), centre_row and centre_column (pixel, of the moving region), thickness (mm between slices, where
        the spacing is known too), slices (of the image that it came from, 0 where unknown); NaN where unknown."""
        table = super().index
        numbers = self._table.select([*NUMBERS]).to_pandas().rename(columns={"count": "frames"})
        known = self._table.column_names
        steps = self._table["thickness"].to_numpy() if "thickness" in known else np.full(len(self), np.nan, dtype=np.float32)
        numbers["thickness"] = np.where(numbers[["spacing_row", "spacing_column"]].notna().all(axis=1), steps, np.nan)
        numbers["slices"] = self._table["slices"].to_numpy() if "slices" in known else 0
        return pd.concat([table, numbers], axis=1)

    def affine(self, row: int) -> Float[np.ndarray, "4 4"] | None:
        """Where the voxels of the clip's image lie, see `Clip`; None where unknown."""
        return affine_of(self._affines[row])

    def content_hashes(self) -> dict[str, set[str]]:
        """By subject the sha256 of its sources and of the frames of every clip, for the leakage firewall.

        A study has many files, and the same clip may come back in another format, folder or selection of series.
        """
        hashes = super().content_hashes()
        for subject, content in zip(*(self._table[name].to_pylist() for name in ("subject", "content")), strict=True):
            hashes[subject].add(content)
        return hashes

    def clip(self, row: int) -> Clip:
        """One clip; its arrays are read-only views of the memory map."""
        return self._clip(*(place[0] for place in self.locate(np.array([row]))))

    def fetch(self, rows: Int[np.ndarray, "rows"], modalities: Sequence[str] | None = None) -> dict[str, Any]:
        """`cine`: the clips of the rows, in the order asked."""
        return {"cine": [self._clip(*place) for place in zip(*self.locate(rows), strict=True)]}

    def _clip(self, batch: int, place: int) -> Clip:
        line = {name: column[batch][place] for name, column in self._columns.items() if name not in ("frames", "mask")}
        count, height, width = (line[name].as_py() for name in ("count", "height", "width"))
        colour = (3,) if line["channels"].as_py() == 3 else ()
        stored = _bytes(self._columns["frames"][batch], place)
        frames = stored.view(line["type"].as_py()).reshape(count, height, width, *colour)
        spacing = (line["spacing_row"].as_py(), line["spacing_column"].as_py())
        labelled = np.array(line["mask_frames"].as_py(), dtype=np.int32)
        mask = _bytes(self._columns["mask"][batch], place) if len(labelled) else None
        return Clip(
            frames=frames,
            view=line["view"].as_py(),
            slice=line["slice"].as_py(),
            times=np.array(line["times"].as_py(), dtype=np.float32) if len(line["times"]) else None,
            spacing=None if np.isnan(spacing).any() else spacing,
            mask=None if mask is None else mask.reshape(len(labelled), height, width),
            mask_frames=labelled if mask is not None else None,
            affine=affine_of(line["affine"].as_py()) if "affine" in line else None,
            slices=line["slices"].as_py() if "slices" in line else 0,
            thickness=line["thickness"].as_py() if "thickness" in line and np.isfinite(line["thickness"].as_py()) else None,
        )

    @cached_property
    def _affines(self) -> list[list[float]]:
        return self._table["affine"].to_pylist() if "affine" in self._table.column_names else [[]] * len(self)

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        names = ("view", "slice", "type", "frames", "times", "mask", "mask_frames", *NUMBERS[:4], *NUMBERS[5:7])
        place = [name for name in PLACE if name in self._table.column_names]
        return {name: self._table[name].chunks for name in (*names, *place)}


def _bytes(column: pa.LargeBinaryArray, place: int) -> UInt8[np.ndarray, "bytes"]:
    """Bytes of one row where they lie; Arrow's own scalars would copy them."""
    _, offsets, data = column.buffers()
    start, stop = np.frombuffer(offsets, dtype=np.int64)[column.offset + place : column.offset + place + 2]
    values = np.frombuffer(data, dtype=np.uint8)[start:stop]
    values.flags.writeable = False
    return values
