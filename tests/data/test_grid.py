import gzip
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_tree import AFFINE, SHAPE, mask, save, scan
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4neuro.data import grid
from ssl4neuro.data.scan import Grid
from ssl4neuro.errors import UserError


@pytest.fixture
def target() -> Grid:
    return Grid(affine=AFFINE, mask=mask())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64, ">f4", ">i2"])
def test_data_equal_nibabels(tmp_path: Path, ending: str, dtype: object) -> None:
    values = (np.random.default_rng(0).random((3, 4, 5, 7)) * 100).astype(dtype)
    path = save(tmp_path / f"a{ending}", values)
    assert np.array_equal(grid.image_data(path), nib.load(path).get_fdata(dtype=np.float32))


def test_scaled_integers_and_small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "CHUNK_BYTES", 4 * 60 * 2)  # two volumes at a time
    image = nib.Nifti1Image(np.random.default_rng(0).random((3, 4, 5, 7)), AFFINE)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.nii.gz")
    expected = nib.load(tmp_path / "a.nii.gz")
    assert expected.dataobj.slope != 1
    assert np.allclose(grid.image_data(tmp_path / "a.nii.gz"), expected.get_fdata(), atol=1e-6)


def test_in_memory_image(target: Grid) -> None:
    values = scan(0)
    assert np.array_equal(grid.to_grid(nib.Nifti1Image(values, AFFINE), target), values[target.mask].T)


def test_same_grid_is_picked_exactly(tmp_path: Path, target: Grid) -> None:
    values = scan(0)
    assert np.array_equal(grid.to_grid(save(tmp_path / "a.nii.gz", values), target), values[target.mask].T)


@settings(max_examples=15, deadline=None)
@given(
    shift=st.tuples(*[st.floats(-3, 3)] * 3),
    size=st.sampled_from([3.0, 8.0, 5.5]),
    flip=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
)
def test_interpolation_equals_nilearn(shift: tuple, size: float, flip: tuple) -> None:
    from nilearn.image import resample_img

    # A source that is larger than the target on all sides: at the rim, nilearn's rounding decides between 0 and the value.
    shape = (23, 26, 21)
    affine = np.diag([*(size * np.array(flip)), 1.0])
    affine[:3, 3] = AFFINE[:3, :3] @ (np.array(SHAPE) / 2) + AFFINE[:3, 3] - affine[:3, :3] @ (np.array(shape) / 2) + shift
    image = nib.Nifti1Image(np.random.default_rng(0).random((*shape, 2)).astype(np.float32), affine)
    target = Grid(affine=AFFINE, mask=mask())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = resample_img(image, target_affine=AFFINE, target_shape=SHAPE, interpolation="linear")
    assert np.allclose(grid.to_grid(image, target), expected.get_fdata()[target.mask].T, atol=1e-4)


def test_rotated_source_equals_nilearn() -> None:
    from nilearn.image import resample_img

    angle = 0.3
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = 4 * rotation
    affine[:3, 3] = AFFINE[:3, :3] @ (np.array(SHAPE) / 2) + AFFINE[:3, 3] - affine[:3, :3] @ np.array([12, 12, 12])
    image = nib.Nifti1Image(np.random.default_rng(0).random((25, 25, 25, 1)).astype(np.float32), affine)
    expected = resample_img(image, target_affine=AFFINE, target_shape=SHAPE, interpolation="linear")
    target = Grid(affine=AFFINE, mask=mask())
    assert np.allclose(grid.to_grid(image, target), expected.get_fdata()[mask()].T, atol=1e-4)


def test_grid_of_the_maps_where_any_is_not_zero() -> None:
    values = np.zeros((*SHAPE, 2), dtype=np.float32)
    values[1, 2, 3, 0] = -1
    values[4, 5, 1, 1] = 2
    values[0, 0, 0, :] = np.nan
    made = grid.make_grid(nib.Nifti1Image(values, AFFINE))
    assert np.argwhere(made.mask).tolist() == [[1, 2, 3], [4, 5, 1]]
    assert np.array_equal(made.affine, AFFINE)


def test_a_mask_fixes_the_grid(tmp_path: Path) -> None:
    coarse = AFFINE @ np.diag([2, 2, 2, 1])
    path = save(tmp_path / "mask.nii.gz", np.full((3, 3, 2), 255, dtype=np.uint8), coarse)
    made = grid.make_grid(nib.Nifti1Image(scan(0), AFFINE), path)
    assert made.mask.shape == (3, 3, 2)
    assert np.allclose(made.affine, coarse)


def test_resolution_keeps_the_field_of_view() -> None:
    image = nib.Nifti1Image(np.ones((*SHAPE, 1), dtype=np.float32), AFFINE)
    made = grid.make_grid(image, resolution=4.0)
    assert made.mask.shape == tuple(2 * n for n in SHAPE)
    corner = nib.affines.apply_affine(AFFINE, [-0.5] * 3)
    assert np.allclose(nib.affines.apply_affine(made.affine, [-0.5] * 3), corner)
    assert np.allclose(nib.affines.voxel_sizes(made.affine), 4)


@pytest.mark.parametrize("resolution", [0.0, -1.0, 100.0, 1e-3])
def test_senseless_resolution(resolution: float) -> None:
    with pytest.raises(UserError, match="--resolution"):
        grid.make_grid(nib.Nifti1Image(np.ones((*SHAPE, 1), dtype=np.float32), AFFINE), resolution=resolution)


def test_mask_hash_tells_grids_apart(target: Grid) -> None:
    other = target.mask.copy()
    other[0, 0, 0] = True
    moved = AFFINE.copy()
    moved[0, 3] += 0.5
    hashes = {grid.mask_sha256(g) for g in (target, Grid(AFFINE, other), Grid(moved, target.mask))}
    assert len(hashes) == 3
    assert grid.mask_sha256(Grid(AFFINE + 1e-7, np.asfortranarray(target.mask))) == grid.mask_sha256(target)


def test_image_hash_ignores_the_file_format(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 100, (3, 4, 5, 2)).astype(np.int16)
    first = grid.image_sha256(save(tmp_path / "a.nii", values))
    assert grid.image_sha256(save(tmp_path / "b.nii.gz", values.astype(np.float32))) == first
    assert grid.image_sha256(save(tmp_path / "c.nii.gz", values + 1)) != first


def test_grid_image_inverts_to_grid(target: Grid) -> None:
    values = np.random.default_rng(0).random((3, int(target.mask.sum()))).astype(np.float32)
    assert np.array_equal(grid.to_grid(grid.grid_image(values, target), target), values)


def cut(path: Path, keep: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_truncated_file_is_named(tmp_path: Path, target: Grid, ending: str) -> None:
    path = cut(save(tmp_path / f"cut{ending}", scan(0)), 0.6)
    for call in (lambda: grid.image_data(path), lambda: grid.to_grid(path, target)):
        with pytest.raises(UserError, match=f"cut{ending}: .*copy") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_flipped_byte_in_gz(tmp_path: Path, target: Grid) -> None:
    path = save(tmp_path / "a.nii.gz", scan(0))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"a\.nii\.gz"):
        grid.to_grid(path, target)


def test_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"no image"))
    (tmp_path / "empty.nii").write_bytes(b"")
    for name in ("text.nii.gz", "empty.nii"):
        with pytest.raises(UserError, match="not a readable image"):
            grid.load_image(tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        grid.load_image(tmp_path / "absent.nii.gz")


def test_dimensions(tmp_path: Path) -> None:
    flat = save(tmp_path / "flat.nii.gz", np.ones(SHAPE, dtype=np.float32))
    one = save(tmp_path / "one.nii.gz", np.ones((*SHAPE, 1), dtype=np.float32))
    many = save(tmp_path / "many.nii.gz", np.ones((*SHAPE, 2), dtype=np.float32))
    with pytest.raises(UserError, match=r"flat\.nii\.gz: is 3-D \(6×7×5\), a 4-D image .* is needed"):
        grid.load_image(flat, dimensions=4)
    with pytest.raises(UserError, match=r"many\.nii\.gz: is 4-D"):
        grid.load_image(many, dimensions=3)
    assert grid.image_data(grid.load_image(one, dimensions=3)).shape == (*SHAPE, 1)
    assert grid.load_image(one, dimensions=4).shape == (*SHAPE, 1)


def test_nan_inside_the_mask_only_matters(target: Grid) -> None:
    values = scan(0)
    values[0, 0, 0] = np.nan
    assert np.isfinite(grid.to_grid(nib.Nifti1Image(values, AFFINE), target)).all()
    values[2, 2, 2, 5] = np.nan
    with pytest.raises(UserError, match="NaN or infinite in 1 of 60 voxels"):
        grid.to_grid(nib.Nifti1Image(values, AFFINE), target)


def test_nan_background_does_not_leak_in_when_interpolating(target: Grid) -> None:
    fine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    values = np.ones((13, 15, 11, 2), dtype=np.float32)
    values[:2] = np.nan  # reaches neither the centres of in-mask voxels nor, by half, their surroundings
    assert np.isfinite(grid.to_grid(nib.Nifti1Image(values, fine), target)).all()
    values[4:9] = np.nan
    with pytest.raises(UserError, match="NaN"):
        grid.to_grid(nib.Nifti1Image(values, fine), target)


def test_no_overlap(target: Grid) -> None:
    elsewhere = AFFINE.copy()
    elsewhere[:3, 3] += 500
    with pytest.raises(UserError, match="covers 0% of the mask"):
        grid.to_grid(nib.Nifti1Image(scan(0), elsewhere), target)
    with pytest.raises(UserError, match="covers 0% of the mask"):
        grid.make_grid(nib.Nifti1Image(scan(0), elsewhere), nib.Nifti1Image(mask().astype(np.uint8), AFFINE))


def test_empty_mask() -> None:
    with pytest.raises(UserError, match="no voxel is inside the brain"):
        grid.make_grid(nib.Nifti1Image(scan(0), AFFINE), nib.Nifti1Image(np.zeros(SHAPE, dtype=np.uint8), AFFINE))
