"""Maps over clips as NIfTI files that lie on their source voxel by voxel: x = column, y = row, z = slice, t = frame."""

import gzip
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, UInt8

from ssl4neuro.data.clip_cohort import ClipCohort

LONGEST = 120  # characters of a file's name before what it holds
UNSAFE = re.compile(r"[^A-Za-z0-9.+_-]+")
Maps = UInt8[np.ndarray, "places frames height width"] | Float32[np.ndarray, "places frames height width"]


@dataclass(frozen=True)
class SourceImage:
    """The clips of a cohort that came from one image, and the grid of that image."""

    name: str  # of files about it, safe and the cohort's only one: `sub-01_ses-1_view-sax`
    rows: tuple[int, ...]  # of the cohort
    places: tuple[int, ...]  # slice of the image that each row shows
    slices: int  # of the image; as far as its clips go where the cohort does not know
    affine: Float[np.ndarray, "4 4"] | None
    spacing: tuple[float, float] | None  # mm between rows, between columns
    thickness: float | None  # mm from slice to slice


def source_images(cohort: ClipCohort) -> list[SourceImage]:
    """The images of a cohort, in its order. Slices of one file or series are one image; a window of a recording is its own."""
    index = cohort.index
    images: list[SourceImage] = []
    names: Counter[str] = Counter()
    for _, study in index.assign(row=np.arange(len(index))).groupby("group_code", sort=True):
        found = list(_images_of(cohort, study).values())
        first = study.iloc[0]
        views = [str(index["view"][rows[0]]) for rows in found]
        for rows, view in zip(found, views, strict=True):
            alone = len(rows) == 1 and views.count(view) > 1 and index["slice"][rows[0]] >= 0
            parts = [first["subject"], first["session"], first["run"], f"view-{view}" if view else ""]
            name = safe_name(*parts, f"slice-{index['slice'][rows[0]]}" if alone else "")[:LONGEST]
            names[name.casefold()] += 1  # names that differ in capitals are one file on many disks
            unique = name if names[name.casefold()] == 1 else _unused(name, names)
            images.append(_image(cohort, rows, unique))
    return images


def safe_name(*parts: str) -> str:
    """A file name of letters, digits and `.+_-` from any words; it leads out of no folder and is not hidden."""
    clean = (UNSAFE.sub("-", part).strip(".-_") for part in parts)
    return "_".join(part for part in clean if part) or "scan"


def write_masks(
    folder: Path,
    name: str,
    values: Maps,
    places: Sequence[int],
    *,
    slices: int = 0,
    affine: Float[np.ndarray, "4 4"] | None = None,
    spacing: tuple[float, float] | None = None,
    thickness: float | None = None,
) -> Path:
    """Write `NAME.nii.gz`: labels or maps on the grid of their source, 0 in slices that are not given.

    Args:
        folder: where to write; it exists.
        name: of the file, without extension; made safe.
        values: one map per place and frame; a single frame gives a 3-D file.
        places: slice of the source that each map belongs to.
        slices: of the source; by default as many as are needed.
        affine: of the source; by default its axes are those of the picture, with steps of `spacing` and `thickness`, else of 1.
        spacing: mm between rows and between columns; without it the header claims no unit.
        thickness: mm from slice to slice.

    Raises:
        ValueError: places that are not one per map, distinct and within the source.
    """
    total = slices or max(places) + 1
    if len(places) != len(values) or len(set(places)) < len(places) or not all(0 <= place < total for place in places):
        raise ValueError(f"places {list(places)} of {len(values)} maps in an image of {total} slices")
    grid = np.zeros((*values.shape[:0:-1], total), dtype=values.dtype)  # x, y, t, z
    grid[..., list(places)] = values.transpose(3, 2, 1, 0)
    grid = grid.transpose(0, 1, 3, 2)
    rows, columns = spacing or (1.0, 1.0)
    if affine is None:
        affine = np.diag([columns, rows, thickness or 1.0, 1.0])
    image = nib.Nifti1Image(np.ascontiguousarray(grid[..., 0] if grid.shape[3] == 1 else grid), affine)
    image.set_sform(affine, code=1)
    agree = spacing is None or np.allclose(np.linalg.norm(affine[:3, :2], axis=0), (columns, rows), rtol=1e-3)
    image.set_qform(affine, code=int(agree))  # for programs that look at this one only; its steps are those of the header
    if spacing is not None:
        image.header["pixdim"][1:3] = columns, rows
        image.header["pixdim"][3] = thickness or image.header["pixdim"][3]
    image.header.set_xyzt_units("mm" if spacing is not None else "unknown")
    path = folder / f"{safe_name(name)}.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=3, mtime=0))
    return path


def _images_of(cohort: ClipCohort, study: pd.DataFrame) -> dict[tuple[object, ...], list[int]]:
    """Rows of one study by image.

    Clips of one image have its grid, and their slices increase. The same slice again is the next window of a recording, a
    smaller one the next series with an equal grid.
    """
    found: dict[tuple[object, ...], list[int]] = {}
    state: dict[tuple[object, ...], tuple[int, int, int]] = {}  # grid -> slice before, series, window
    for line in study.to_dict("records"):
        row, number, affine = line["row"], line["slice"], cohort.affine(line["row"])
        if number < 0 or line["slices"] == 1:
            found[(row,)] = [row]
            continue
        spacing = f"{line['spacing_row']} {line['spacing_column']}"  # as text, for NaN is not equal to itself
        size = (line["height"], line["width"], line["slices"])
        grid = (line["view"], *size, spacing, b"" if affine is None else affine.tobytes())
        before, series, window = state.get(grid, (-1, 0, 0))
        if number == before:
            window += 1
        else:
            series, window = series + (number < before), 0
        state[grid] = (number, series, window)
        found.setdefault((*grid, series, window), []).append(row)
    return found


def _image(cohort: ClipCohort, rows: Sequence[int], name: str) -> SourceImage:
    index = cohort.index
    spacing = (float(index["spacing_row"][rows[0]]), float(index["spacing_column"][rows[0]]))
    slices = int(index["slices"][rows[0]])
    alone = slices == 1 or index["slice"][rows[0]] < 0
    places = (0,) if alone else tuple(int(index["slice"][row]) for row in rows)
    known = None if np.isnan(spacing).any() else spacing
    step = float(index["thickness"][rows[0]])
    thickness = None if np.isnan(step) else step
    return SourceImage(name, tuple(rows), places, slices or max(places) + 1, cohort.affine(rows[0]), known, thickness)


def _unused(name: str, names: Counter[str]) -> str:
    number = 2
    while f"{name}_part-{number}".casefold() in names:
        number += 1
    names[f"{name}_part-{number}".casefold()] += 1
    return f"{name}_part-{number}"
