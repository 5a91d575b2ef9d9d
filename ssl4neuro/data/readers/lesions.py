"""Lesion masks: what an operation or a stroke has taken is cut out of all maps of a subject, before they are standardised.

A surgical cavity is in the scan after the operation only, and alone would tell it from the one before. So the masks of all
sessions of a subject are united, and the voxels of the union get the mean of the rest in every map of every session, which
standardisation turns into 0: of the lesion only the place is left, and that is the same in all of the subject's scans.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from ssl4neuro.data.grid import image_data, load_image, voxel_positions
from ssl4neuro.data.readers.naming import bare, entities
from ssl4neuro.data.scan import Grid, Reader, Scan, ScanRows
from ssl4neuro.errors import UserError

SPACE = re.compile(r"_space-([A-Za-z0-9]+)")
MAX_LABELS = 20  # a mask has few distinct values unless it is a probability; an anatomical image has many
Voxels = Bool[np.ndarray, "voxels"]


@dataclass(frozen=True)
class LesionMasks:
    """The lesion masks below a folder, by subject (without `sub-`)."""

    folder: Path
    files: dict[str, tuple[Path, ...]]

    @classmethod
    def find(cls, folder: Path) -> "LesionMasks":
        """Every `sub-01[_ses-post]*.nii[.gz]` below `folder`; the deepest part of the path that names a subject counts.

        Raises:
            UserError: no such folder, no mask in it, or masks of one subject in several spaces.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give --lesions the folder of the lesion masks")
        found: dict[str, list[Path]] = {}
        for path in sorted(p for p in folder.rglob("*") if p.name.endswith((".nii", ".nii.gz"))):
            subject = entities(path.relative_to(folder).parts).get("sub")
            if subject is not None:
                found.setdefault(bare(subject), []).append(path)
        if not found:
            raise UserError(
                f"{folder}: no sub-<name>[_ses-<name>]*.nii.gz in or below it; name the masks by subject and session"
            )
        for subject, paths in found.items():
            spaces = sorted({match[1] for path in paths if (match := SPACE.search(path.name))})
            if len(spaces) > 1:
                raise UserError(
                    f"{folder}: the masks of sub-{subject} are in several spaces ({', '.join(spaces)}); keep those of the maps'"
                )
        return cls(folder, {subject: tuple(paths) for subject, paths in found.items()})

    def of(self, scan: Scan) -> tuple[Path, ...]:
        """All masks of the scan's subject, of whatever session."""
        return self.files.get(bare(scan.subject), ())

    def voxels(self, scan: Scan, grid: Grid) -> Voxels:
        """The union of the subject's masks on the grid.

        Raises:
            UserError: a file that is no mask, an empty one, one that lies elsewhere, or a union that leaves no brain.
        """
        union = np.zeros(int(grid.mask.sum()), dtype=bool)
        for path in self.of(scan):
            union |= lesion_voxels(path, grid)
        if union.mean() > 0.5:
            raise UserError(
                f"{self.of(scan)[0]}: the masks of {scan.subject} cover {union.mean():.0%} of the brain; check them"
            )
        return union


class LesionMaskedReader:
    """A reader of maps whose scans come without the lesions of their subject."""

    def __init__(self, reader: Reader, lesions: LesionMasks) -> None:
        self.reader, self.lesions = reader, lesions

    def scans(self) -> list[Scan]:
        """See `Reader`; the masks are files of the scan, so that a changed mask changes the cohort.

        Raises:
            UserError: no scan has a mask.
        """
        return self._scans

    @cached_property
    def _scans(self) -> list[Scan]:
        scans = self.reader.scans()
        if not any(self.lesions.of(scan) for scan in scans):
            example = f"sub-{min(self.lesions.files)}"
            raise UserError(
                f"{self.lesions.folder}: its masks (e.g. of {example}) are of none of the subjects; check the names"
            )
        return [replace(scan, files=(*scan.files, *self.lesions.of(scan))) for scan in scans]

    def grid(self) -> Grid:
        """See `Reader`."""
        grid = self.reader.grid()
        assert grid is not None  # readers of maps have one
        return grid

    def read(self, scan: Scan) -> ScanRows:
        """See `Reader`."""
        rows = self.reader.read(scan)
        assert isinstance(rows, ScanRows)
        assert rows.maps is not None
        if not self.lesions.of(scan):
            return rows
        lesion = self.lesions.voxels(scan, self.grid())
        volume = float(lesion.sum() * abs(np.linalg.det(self.grid().affine[:3, :3])) / 1000)  # ml
        nuisance = {**rows.nuisance, "lesion_ml": round(volume, 3)}
        return replace(rows, maps=fill(rows.maps, lesion), lesion=lesion, nuisance=nuisance)

    def shared_files(self) -> dict[str, Path]:
        """See `Reader`."""
        return self.reader.shared_files()

    def description(self) -> dict[str, dict[str, object]]:
        """See `Reader`."""
        return self.reader.description()

    def notes(self) -> list[str]:
        """How many subjects have masks, and whose masks are not used."""
        subjects = {bare(scan.subject) for scan in self._scans}
        masked = subjects & set(self.lesions.files)
        notes = [f"lesions masked in all scans of {len(masked)} of {len(subjects)} subjects"]
        if missing := len(subjects) - len(masked):
            notes.append(f"{missing} subjects have no lesion mask and were left whole")
        if unused := len(set(self.lesions.files) - subjects):
            notes.append(f"lesion masks of {unused} subjects without a scan were not used")
        return notes


def fill(maps: Float[np.ndarray, "components voxels"], lesion: Voxels) -> Float[np.ndarray, "components voxels"]:
    """Maps whose lesion has the mean of the other voxels, so that it is 0 once they are standardised."""
    filled = maps.copy()
    filled[:, lesion] = maps[:, ~lesion].mean(axis=1, keepdims=True, dtype=np.float64)
    return filled


def lesion_voxels(path: Path, grid: Grid) -> Voxels:
    """Which voxels of the grid's mask a lesion mask touches: its voxels at their centres, and theirs at its own.

    Nearest neighbours in both directions, so that a lesion smaller than a voxel of the grid is not lost between centres.

    Raises:
        UserError: not a mask, nothing in it, or all of it outside the grid's brain.
    """
    image = load_image(path, dimensions=3)
    values = image_data(image).reshape(image.shape[:3])
    _check_values(path, values)
    lesion = values > 0.5
    if not lesion.any():
        return np.zeros(int(grid.mask.sum()), dtype=bool)
    at_centres = _nearest(lesion, voxel_positions(image, grid))
    touched = np.zeros(grid.mask.shape, dtype=bool)
    to_grid = np.linalg.inv(grid.affine) @ image.affine
    place = np.rint(np.argwhere(lesion) @ to_grid[:3, :3].T + to_grid[:3, 3]).astype(np.int64)
    place = place[np.all((place >= 0) & (place < np.array(grid.mask.shape)), axis=1)]
    touched[tuple(place.T)] = True
    found = at_centres | touched[grid.mask]
    if not found.any():
        raise UserError(
            f"{path}: its lesion lies outside the brain of the maps, so it is of another space; register it to theirs"
        )
    return found


def _nearest(values: Bool[np.ndarray, "x y z"], where: Float[np.ndarray, "points 3"]) -> Bool[np.ndarray, "points"]:
    """Values at voxel coordinates, False outside."""
    place = np.rint(where).astype(np.int64)
    inside = np.all((place >= 0) & (place < np.array(values.shape)), axis=1)
    found = np.zeros(len(place), dtype=bool)
    found[inside] = values[tuple(place[inside].T)]
    return found


def _check_values(path: Path, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise UserError(f"{path}: NaN or infinite values in a lesion mask; set them to 0")
    levels = np.unique(values)
    probability = levels[0] >= 0 and levels[-1] <= 1
    if levels[0] < 0 or (not probability and (len(levels) > MAX_LABELS or np.any(levels != np.rint(levels)))):
        raise UserError(
            f"{path}: not a mask ({len(levels)} values from {levels[0]:g} to {levels[-1]:g}); keep only masks in --lesions"
        )
