"""Regions on a grid: the nearest coordinate for every voxel, or a user's label image with its names."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from ssl4neuro.data.parcels import SETS, make_parcels
from ssl4neuro.data.scan import Grid
from ssl4neuro.errors import UserError
from ssl4neuro.simulate.networks import load_brain


def grid() -> Grid:
    brain = load_brain(8.0)
    return Grid(brain.affine, brain.mask)


@pytest.mark.parametrize("name", SETS)
def test_every_voxel_belongs_to_the_nearest_coordinate(name: str) -> None:
    place = grid()
    parcels = make_parcels(name, place)
    assert (parcels.labels[place.mask] > 0).all()
    assert not parcels.labels[~place.mask].any()
    assert parcels.table["voxels"].sum() == place.mask.sum()
    assert parcels.table["region"].is_unique
    _, centres, _ = SETS[name]()
    where = np.argwhere(place.mask)[::97]
    mm = where @ place.affine[:3, :3].T + place.affine[:3, 3]
    expected = 1 + ((mm[:, None] - centres) ** 2).sum(2).argmin(1)
    assert np.array_equal(parcels.labels[tuple(where.T)], expected)


def label_image(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def test_a_users_atlas_is_brought_to_the_grid_with_its_names(tmp_path: Path) -> None:
    place = grid()
    fine = np.zeros(tuple(2 * n for n in place.mask.shape), dtype=np.int16)  # voxels of 4 mm
    fine[: fine.shape[0] // 2], fine[fine.shape[0] // 2 :] = 3, 7
    affine = place.affine.copy()
    affine[:3, :3] /= 2
    affine[:3, 3] -= affine[:3, :3].sum(1) / 2  # corners coincide
    pd.DataFrame({"index": [3, 9], "name": ["one side", "nowhere"]}).to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    parcels = make_parcels(label_image(tmp_path / "a.nii.gz", fine, affine), place)
    assert parcels.table["region"].tolist() == ["one side", "region 7"]
    assert parcels.source == "a.nii.gz"
    half = place.mask.shape[0] // 2
    assert set(np.unique(parcels.labels[:half][place.mask[:half]])) == {3}
    assert set(np.unique(parcels.labels[half:][place.mask[half:]])) == {7}


def test_what_is_no_atlas_is_refused(tmp_path: Path) -> None:
    place = grid()
    with pytest.raises(UserError, match=r"--atlas seitzmann: .*did you mean 'seitzman'"):
        make_parcels("seitzmann", place)
    with pytest.raises(UserError, match="no such file"):
        make_parcels(tmp_path / "none.nii.gz", place)
    weights = np.random.default_rng(0).random(place.mask.shape).astype(np.float32)
    with pytest.raises(UserError, match="not a label image"):
        make_parcels(label_image(tmp_path / "w.nii.gz", weights, place.affine), place)
    nothing = np.zeros(place.mask.shape, dtype=np.int16)
    nothing[~place.mask] = 5
    with pytest.raises(UserError, match="none of its regions lies in the mask"):
        make_parcels(label_image(tmp_path / "n.nii.gz", nothing, place.affine), place)
    labels = place.mask.astype(np.int16)
    (tmp_path / "c.tsv").write_text("code\tregion\n1\tx\n")
    with pytest.raises(UserError, match="'index' and 'name' are needed"):
        make_parcels(label_image(tmp_path / "c.nii.gz", labels, place.affine), place)
