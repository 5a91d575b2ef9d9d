"""One scan's images, for `doctor`: where they lie, what is broken in them, and the hash by which copies are known."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float, Int
from nibabel.spatialimages import SpatialImage

from ssl4neuro.data.checks import Finding, Level, Record
from ssl4neuro.data.grid import MIN_OVERLAP, image_data, same_grid, volume_chunks
from ssl4neuro.data.scan import Grid
from ssl4neuro.manifest import file_sha256

SILENT = 0.1  # share of the mask without signal that is worth a word
COVERED = 0.95  # share of the mask inside a scan's field of view below which it is


def check_orientation(record: Record, image: SpatialImage) -> list[Finding]:
    """A NIfTI header that does not say where the image lies."""
    header = image.header
    if not isinstance(header, nib.Nifti1Header) or header["sform_code"] > 0 or header["qform_code"] > 0:
        return []
    problem = "the header gives no orientation (sform and qform codes 0)"
    return [Finding("warning", record.file, problem, "check that it is in the maps' space")]


def check_voxels(record: Record, image: SpatialImage, grid: Grid | None) -> list[Finding]:
    """One pass through a 4-D image: its hash and mean, NaN, constant and repeated volumes, voxels without signal."""
    findings, inside = _placed(record, image, grid) if grid is not None else ([], None)
    digest = hashlib.sha256()
    space = int(np.prod(image.shape[:3])) if inside is None else len(inside)
    low, high = np.full(space, np.inf, np.float32), np.full(space, -np.inf, np.float32)
    total, finite_everywhere, finite_once = np.zeros(space), np.ones(space, bool), np.zeros(space, bool)
    constant, repeated, previous, number = [], [], None, 0
    for chunk in volume_chunks(image):
        digest.update(np.ascontiguousarray(chunk).tobytes())
        part = chunk if inside is None else chunk[:, inside]
        finite = np.isfinite(part)
        finite_everywhere &= finite.all(axis=0)
        finite_once |= finite.any(axis=0)
        low, high = np.fmin(low, np.fmin.reduce(part)), np.fmax(high, np.fmax.reduce(part))
        total += np.where(finite, part, 0).sum(axis=0, dtype=np.float64)
        for volume in part:
            number += 1
            if np.fmin.reduce(volume) == np.fmax.reduce(volume):
                constant.append(number)
            elif previous is not None and np.array_equal(volume, previous):
                repeated.append(number)
            previous = volume
    record.data_hash = digest.hexdigest()
    varies = finite_everywhere & (high > low)
    record.intensity = float(total[varies].mean() / number) if varies.any() else math.nan
    return findings + _signal_findings(record, inside is not None, finite_everywhere, finite_once, varies, constant, repeated)


def _signal_findings(
    record: Record,
    masked: bool,
    everywhere: Bool[np.ndarray, "voxels"],
    once: Bool[np.ndarray, "voxels"],
    varies: Bool[np.ndarray, "voxels"],
    constant: list[int],
    repeated: list[int],
) -> list[Finding]:
    """What the pass through a scan found: voxels finite at all times and at any, voxels that vary, volumes (1-based)."""
    found: list[tuple[Level, str, str]] = []
    broken = int((~everywhere).sum() if masked else (once & ~everywhere).sum())
    if broken:
        place = "of the mask" if masked else "at some time points"
        found.append(("fatal", f"NaN or infinite in {broken} voxels {place}", "repair it or give a smaller --mask"))
    if not masked and not once.all():
        found.append(("warning", f"{int((~once).sum())} voxels are always NaN", "give a --mask that leaves them out"))
    if not varies.any():
        found.append(("fatal", "does not change over time", "give the 4-D functional image"))
        return [Finding(level, record.file, problem, advice) for level, problem, advice in found]
    if constant:
        found.append(("fatal", f"constant volumes: {listed(constant)}", "export it again or leave this scan out"))
    if repeated:
        found.append(("warning", f"volumes equal to the one before: {listed(repeated)}", "check the export"))
    silent = 1 - varies.mean()
    if masked and silent > SILENT:
        found.append(("warning", f"{silent:.0%} of the mask is without signal", "check mask and registration"))
    return [Finding(level, record.file, problem, advice) for level, problem, advice in found]


def _placed(record: Record, image: SpatialImage, grid: Grid) -> tuple[list[Finding], Int[np.ndarray, "voxels"] | None]:
    """Where the mask lies in a scan (voxels in Fortran order; None if outside), and what is odd about it."""
    if same_grid(image, grid.affine, grid.mask.shape):
        return [], np.ravel_multi_index(np.nonzero(grid.mask), image.shape[:3], order="F")
    try:
        to_image = np.linalg.inv(image.affine) @ grid.affine
    except np.linalg.LinAlgError:
        return [Finding("fatal", record.file, "its affine is singular", "set the image's orientation again")], None
    where = np.rint(nib.affines.apply_affine(to_image, np.argwhere(grid.mask))).astype(np.int64)
    within = ((where >= 0) & (where < np.array(image.shape[:3]))).all(axis=1)
    share = float(within.mean())
    if share < MIN_OVERLAP:
        return [Finding("fatal", record.file, f"covers {share:.0%} of the mask", "register it to the maps' space")], None
    findings = [
        Finding("note", record.file, "another grid than the maps", "prepare interpolates it; check that the space is the same")
    ]
    if share < COVERED:
        findings.append(
            Finding("warning", record.file, f"covers {share:.0%} of the mask", "the rest becomes 0; check the field of view")
        )
    return findings, np.unique(np.ravel_multi_index(tuple(where[within].T), image.shape[:3], order="F"))


def check_components(
    record: Record,
    image: SpatialImage,
    courses: Float[np.ndarray, "components time"],
    files: tuple[Path, Path],
    root: Path,
    inside: Bool[np.ndarray, "x y z"] | None = None,
) -> list[Finding]:
    """Maps and courses of one ICA; `files` are theirs, `inside` is the folder's own mask."""
    maps_file, courses_file = (str(path.relative_to(root)) for path in files)
    record.shape, record.affine, record.volumes = image.shape[:3], np.asarray(image.affine, dtype=float), courses.shape[1]
    record.file_hash = "".join(map(file_sha256, files))
    findings = check_orientation(record, image)
    if len(courses) != image.shape[3]:
        problem = f"{len(courses)} courses for {image.shape[3]} maps"
        findings.append(Finding("fatal", courses_file, problem, "they are not from one run; decompose again"))
    volumes = np.moveaxis(image_data(image), -1, 0)
    record.data_hash = hashlib.sha256(courses.tobytes() + np.ascontiguousarray(volumes).tobytes()).hexdigest()
    brain = np.isfinite(volumes).any(axis=0) if inside is None or inside.shape != volumes.shape[1:] else inside
    maps = volumes[:, brain]
    broken = [number for number, values in enumerate(maps, start=1) if not np.isfinite(values).all()]
    if broken or not brain.any():
        findings.append(Finding("fatal", maps_file, f"NaN or infinite in maps {listed(broken)}", "export it again"))
    for file, what, rows in ((maps_file, "maps", maps), (courses_file, "courses", courses)):
        flat = [number for number, values in enumerate(rows, start=1) if values.size and values.min() == values.max()]
        if flat:
            findings.append(Finding("warning", file, f"constant {what}: {listed(flat)}", "prepare leaves these components out"))
    return findings


def listed(items: Sequence[object], most: int = 6) -> str:
    """`1, 2, 3 and 7 more`."""
    return ", ".join(map(str, items[:most])) + (f" and {len(items) - most} more" if len(items) > most else "")
