"""Parcels of the brain on a cohort's grid: a user's atlas, or published coordinates with the voxels nearest to each.

nilearn bundles no volumetric atlas, and no command reaches for the network; it does bundle the coordinates of three sets of
regions. A voxel belongs to the nearest of them, so that the parcels cover the whole mask: they tile, they do not outline.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from ssl4neuro.data.grid import check_overlap, image_data, load_image
from ssl4neuro.data.scan import Grid
from ssl4neuro.errors import UserError
from ssl4neuro.registry import suggest

MOST = 2000  # regions; each costs one pass of the encoder over all rows
COLUMNS = ("code", "region", "x", "y", "z", "voxels")


@dataclass(frozen=True)
class Parcels:
    """Regions on a grid."""

    labels: Int[np.ndarray, "x y z"]  # code of each voxel's region, 0 where there is none or outside the mask
    table: pd.DataFrame  # code, region, x, y, z (mm, mean of its voxels), voxels; only regions that have any
    source: str  # what to call them in a Methods section


def make_parcels(atlas: str | Path, grid: Grid) -> Parcels:
    """Regions within the mask of a grid in MNI space.

    Args:
        atlas: `seitzman` (300 regions, cerebellum and deep nuclei included), `dosenbach` (160) or `power` (264); or a 3-D image
            of whole-number labels in the space of the maps, whose names are read from the `.tsv` beside it (BIDS: columns
            `index` and `name`).
        grid: where and within what.

    Raises:
        UserError: no such set or file, no label image, or none of its regions lies in the mask.
    """
    if str(atlas) in SETS:
        return _nearest(str(atlas), grid)
    if not Path(atlas).suffix:
        raise UserError(f"--atlas {atlas}: no such set of regions{suggest(str(atlas), SETS)}; or give a label image (.nii.gz)")
    return _label_image(Path(atlas), grid)


def _nearest(name: str, grid: Grid) -> Parcels:
    names, places, source = SETS[name]()
    where = _mm(grid)
    labels = np.zeros(grid.mask.shape, dtype=np.int64)
    labels[grid.mask] = cKDTree(places).query(where)[1] + 1
    return _parcels(labels, grid, dict(enumerate(names, start=1)), f"voxels nearest to the {source}")


def _label_image(path: Path, grid: Grid) -> Parcels:
    from nilearn.image import resample_img

    image = load_image(path, dimensions=3)
    check_overlap(image, grid)
    values = image_data(image)
    if not np.isfinite(values).all() or (values != np.round(values)).any() or (values < 0).any():
        raise UserError(f"{path}: not a label image (its values are no whole numbers); give one with a number per region")
    moved = resample_img(
        image, target_affine=grid.affine, target_shape=grid.mask.shape, interpolation="nearest", force_resample=True,
        copy_header=True,
    )  # fmt: skip
    labels = np.where(grid.mask, np.asarray(moved.dataobj).reshape(grid.mask.shape).astype(np.int64), 0)
    if not labels.any():
        raise UserError(f"{path}: none of its regions lies in the mask of the maps; is it in the same space?")
    if len(np.unique(labels)) > MOST:
        raise UserError(f"{path}: {len(np.unique(labels))} regions in the mask; more than {MOST} would take too long")
    return _parcels(labels, grid, _names(path), path.name)


def _parcels(labels: Int[np.ndarray, "x y z"], grid: Grid, names: dict[int, str], source: str) -> Parcels:
    inside = labels[grid.mask]
    codes, which, counts = np.unique(inside, return_inverse=True, return_counts=True)
    centres = np.stack([np.bincount(which, weights=axis) / counts for axis in _mm(grid).T], axis=1)
    lines = [
        (int(code), names.get(int(code), f"region {code}"), *centre.round(1).tolist(), int(count))
        for code, centre, count in zip(codes, centres, counts, strict=True)
        if code
    ]
    return Parcels(labels, pd.DataFrame(lines, columns=list(COLUMNS)), source)


def _names(path: Path) -> dict[int, str]:
    """`index` and `name` of the table beside a label image; empty where there is none."""
    table = path.parent / f"{path.name.removesuffix('.gz').removesuffix('.nii')}.tsv"
    if not table.is_file():
        return {}
    found = pd.read_csv(table, sep="\t")
    if not {"index", "name"} <= set(found.columns):
        raise UserError(f"{table}: has the columns {', '.join(map(str, found.columns))}; 'index' and 'name' are needed")
    return {int(code): str(name) for code, name in zip(found["index"], found["name"], strict=True)}


def _mm(grid: Grid) -> Float[np.ndarray, "voxels 3"]:
    return np.argwhere(grid.mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3]


Named = tuple[list[str], Float[np.ndarray, "regions 3"], str]


def _seitzman() -> Named:
    from nilearn.datasets import fetch_coords_seitzman_2018

    found = fetch_coords_seitzman_2018()
    places = found.rois[["x", "y", "z"]].to_numpy(dtype=np.float64)
    words = [f"{network} {region}" for network, region in zip(found.networks, found.regions, strict=True)]
    return _numbered(words), places, "300 coordinates of Seitzman et al. (NeuroImage 2020)"


def _dosenbach() -> Named:
    from nilearn.datasets import fetch_coords_dosenbach_2010

    found = fetch_coords_dosenbach_2010()
    places = found.rois[["x", "y", "z"]].to_numpy(dtype=np.float64)
    return list(found.labels), places, "160 coordinates of Dosenbach et al. (Science 2010)"


def _power() -> Named:
    from nilearn.datasets import fetch_coords_power_2011

    places = fetch_coords_power_2011().rois[["x", "y", "z"]].to_numpy(dtype=np.float64)
    return [f"Power {n}" for n in range(1, len(places) + 1)], places, "264 coordinates of Power et al. (Neuron 2011)"


def _numbered(words: list[str]) -> list[str]:
    count = pd.Series(words).groupby(words).cumcount() + 1
    return [f"{word} {number}" for word, number in zip(words, count, strict=True)]


SETS: dict[str, Callable[[], Named]] = {"seitzman": _seitzman, "dosenbach": _dosenbach, "power": _power}
