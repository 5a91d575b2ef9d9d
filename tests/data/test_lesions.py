"""Lesion masks: finding, resampling, filling, and what they do to a simulated cohort with cavities."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_tree import AFFINE, make_tree, mask

from ssl4neuro.data.dual_regression import SpatialRegression
from ssl4neuro.data.prepare import prepare_ica
from ssl4neuro.data.readers.lesions import LesionMasks, fill, lesion_voxels
from ssl4neuro.data.scan import Grid, Scan
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.probe import probe_arrays
from ssl4neuro.simulate.cohort import IcaSettings, SimulatedCohort
from ssl4neuro.simulate.ica import simulate_ica

GRID = Grid(np.diag([8.0, 8, 8, 1]), np.ones((10, 12, 9), dtype=bool))


def _save(path: Path, data: np.ndarray, affine: np.ndarray = GRID.affine) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def _ball(shape: tuple[int, ...], affine: np.ndarray, centre: tuple[float, ...], radius: float) -> np.ndarray:
    where = nib.affines.apply_affine(affine, np.argwhere(np.ones(shape)))
    return (np.linalg.norm(where - centre, axis=1) <= radius).reshape(shape).astype(np.uint8)


def test_masks_are_found_by_their_entities(tmp_path: Path) -> None:
    one = np.ones((2, 2, 2), dtype=np.uint8)
    for name in ("sub-01/ses-pre/anat/lesion.nii.gz", "sub-01_ses-post_label-lesion_mask.nii.gz", "sub-02.nii", "readme.nii"):
        _save(tmp_path / name, one)
    masks = LesionMasks.find(tmp_path)
    assert {subject: [path.name for path in paths] for subject, paths in masks.files.items()} == {
        "01": ["lesion.nii.gz", "sub-01_ses-post_label-lesion_mask.nii.gz"],
        "02": ["sub-02.nii"],
    }
    for session in ("ses-pre", "ses-post"):
        assert len(masks.of(Scan("sub-01", (), session))) == 2  # both masks, in both scans
    assert masks.of(Scan("sub-03", ())) == ()
    _save(tmp_path / "sub-02_space-T1w_mask.nii", one)
    _save(tmp_path / "sub-02_space-MNI_mask.nii", one)
    with pytest.raises(UserError, match=r"masks of sub-02 are in several spaces \(MNI, T1w\)"):
        LesionMasks.find(tmp_path)
    with pytest.raises(UserError, match=r"no such folder; give --lesions"):
        LesionMasks.find(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"name the masks by subject and session"):
        LesionMasks.find(tmp_path / "empty")


def test_on_the_same_grid_the_mask_is_itself(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random(GRID.mask.shape) > 0.9
    path = _save(tmp_path / "sub-1.nii", data.astype(np.uint8))
    np.testing.assert_array_equal(lesion_voxels(path, GRID), data[GRID.mask])
    np.testing.assert_array_equal(lesion_voxels(_save(tmp_path / "f.nii", data * np.float32(255)), GRID), data[GRID.mask])


@pytest.mark.parametrize("size", [2.0, 3.0, 16.0])
def test_on_another_grid_it_touches_the_voxels_of_the_same_place(tmp_path: Path, size: float) -> None:
    """Flipped, shifted and of another voxel size; within a voxel's diagonal of both grids."""
    affine = np.diag([-size, size, size, 1.0])
    affine[:3, 3] = [80.0, -5.0, -3.0]
    shape = tuple(int(np.ceil(100 / size)) for _ in range(3))
    centre, radius = (40.0, 48.0, 30.0), 15.0
    path = _save(tmp_path / "sub-1.nii.gz", _ball(shape, affine, centre, radius), affine)
    found = lesion_voxels(path, GRID)
    distance = np.linalg.norm(np.argwhere(GRID.mask) * 8.0 - centre, axis=1)
    margin = (8 + size) * np.sqrt(3) / 2
    assert found[distance < radius - margin + 0.1].all() if radius > margin else True
    assert not found[distance > radius + margin].any()
    assert found.any()


def test_a_lesion_between_the_centres_is_not_lost(tmp_path: Path) -> None:
    fine = np.eye(4)
    data = np.zeros((70, 90, 65), dtype=np.uint8)
    data[36, 44, 28] = 1  # half way between centres of the grid, whose voxels have 8 mm
    found = lesion_voxels(_save(tmp_path / "sub-1.nii.gz", data, fine), GRID)
    assert found.sum() == 1


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match=r"not a mask .* keep only masks in --lesions"):
        lesion_voxels(_save(tmp_path / "t1.nii", rng.normal(300, 50, GRID.mask.shape).astype(np.float32)), GRID)
    away = np.diag([8.0, 8, 8, 1])
    away[:3, 3] = 500
    with pytest.raises(UserError, match=r"outside the brain of the maps, so it is of another space"):
        lesion_voxels(_save(tmp_path / "away.nii", np.ones(GRID.mask.shape, dtype=np.uint8), away), GRID)
    everything = LesionMasks(tmp_path, {"1": (_save(tmp_path / "all.nii", np.ones(GRID.mask.shape, dtype=np.uint8)),)})
    with pytest.raises(UserError, match=r"cover 100% of the brain"):
        everything.voxels(Scan("sub-1", ()), GRID)
    assert not lesion_voxels(_save(tmp_path / "none.nii", np.zeros(GRID.mask.shape, dtype=np.uint8)), GRID).any()


def test_filled_voxels_carry_nothing() -> None:
    rng = np.random.default_rng(0)
    maps, lesion = rng.normal(2, 3, (3, 50)).astype(np.float32), np.arange(50) < 7
    filled = fill(maps, lesion)
    np.testing.assert_array_equal(filled[:, ~lesion], maps[:, ~lesion])
    np.testing.assert_allclose(filled[:, lesion], np.repeat(maps[:, ~lesion].mean(axis=1)[:, None], 7, axis=1), rtol=1e-6)
    maps[:, lesion] = 99
    np.testing.assert_array_equal(filled, fill(maps, lesion))


def test_courses_of_dual_regression_do_not_see_the_lesion() -> None:
    rng = np.random.default_rng(0)
    group, lesion = rng.normal(size=(4, 80)), np.arange(80) % 9 == 0
    scan = rng.normal(size=(30, 80)).astype(np.float32)
    spatial = SpatialRegression.of(group, "maps", lesion)
    expected = SpatialRegression.of(group[:, ~lesion], "maps").courses(np.ascontiguousarray(scan[:, ~lesion]))
    np.testing.assert_allclose(spatial.courses(scan), expected, atol=1e-4)


def test_a_bids_cohort_is_masked_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = make_tree(tmp_path / "tree")
    shared = {"bids": tree, "maps": tree / "maps.nii.gz", "mask": tree / "mask.nii.gz"}
    whole = prepare_ica(tmp_path / "whole", **shared)
    lesion = np.zeros(mask().shape, dtype=np.uint8)
    inside = np.argwhere(mask())[:10]
    lesion[tuple(inside.T)] = 1
    _save(tmp_path / "lesions" / "sub-02_label-lesion_mask.nii.gz", lesion, AFFINE)
    masked = prepare_ica(tmp_path / "masked", **shared, lesions=tmp_path / "lesions")
    rows = masked.index["subject"] == "sub-02"
    before, after = whole.fetch(np.arange(len(whole))), masked.fetch(np.arange(len(masked)))
    np.testing.assert_array_equal(after["map"][~rows], before["map"][~rows])
    np.testing.assert_array_equal(after["map"][rows][:, :10], 0)
    assert not np.array_equal(np.stack(after["course"])[rows], np.stack(before["course"])[rows])
    np.testing.assert_allclose(after["map"][rows].astype(float).mean(axis=1), 0, atol=2e-3)  # still in-mask z values
    np.testing.assert_allclose(after["map"][rows].astype(float).std(axis=1), 1, atol=1e-2)
    info = json.loads((masked.path / "cohort.json").read_text())
    assert info["settings"]["lesions"] == "masked"
    assert info["warnings"] == [
        "lesions masked in all scans of 1 of 3 subjects",
        "2 subjects have no lesion mask and were left whole",
    ]
    assert "lesions masked in all scans of 1 of 3" in capsys.readouterr().err
    assert [s["file"] for s in info["sources"] if "lesion" in s["file"]] == ["sub-02_label-lesion_mask.nii.gz"]
    assert info["contract"]["map"] == whole.info["contract"]["map"]  # the same kind of input, for the same encoders
    with pytest.raises(UserError, match=r"made with other settings \(lesions"):
        prepare_ica(tmp_path / "masked", **shared)
    # A changed mask is a changed source: this subject alone is redone.
    lesion[tuple(np.argwhere(mask())[10])] = 1
    _save(tmp_path / "lesions" / "sub-02_label-lesion_mask.nii.gz", lesion, AFFINE)
    again = prepare_ica(tmp_path / "masked", **shared, lesions=tmp_path / "lesions")
    np.testing.assert_array_equal(again.fetch(np.arange(len(again)))["map"][rows.to_numpy()][:, :11], 0)
    _save(tmp_path / "others" / "sub-77.nii.gz", lesion, AFFINE)
    with pytest.raises(UserError, match=r"its masks \(e.g. of sub-77\) are of none of the subjects"):
        prepare_ica(tmp_path / "third", **shared, lesions=tmp_path / "others")


def test_a_cavity_tells_post_from_pre_until_it_is_masked(tmp_path: Path) -> None:
    """Without any state effect the cavity alone makes the answer: how much is in the voxels where most subjects have it."""
    settings = IcaSettings(subjects=16, networks=1, resolution=10.0, effect=0.0, cavity=True, seed=1)
    data = simulate_ica(tmp_path / "hh", subjects=16, networks=1, resolution=10.0, effect=0.0, cavity=True, seed=1, show=False)
    cavities = np.stack([SimulatedCohort(settings).lesion(subject)[1] for subject in range(16)])
    usual = cavities.mean(axis=0) >= 0.5
    found = {}
    for name, lesions in (("whole", None), ("masked", data / "lesions")):
        cohort = prepare_ica(tmp_path / name, melodic=sorted(data.glob("sub-*/ses-*")), lesions=lesions)
        maps = np.abs(cohort.fetch(np.arange(len(cohort)), ("map",))["map"].astype(np.float32))
        features = {"cavity": maps[:, usual].mean(axis=1, keepdims=True)}
        result = probe_arrays(
            features, cohort.index["session"].tolist(), cohort.index["subject"].tolist(), permutations=99, bootstrap=200
        )
        found[name] = result.row("cavity")
    empty = maps.reshape(16, 2, -1) == 0  # of the masked cohort: ses-post, ses-pre
    np.testing.assert_array_equal(empty[:, 0], cavities)
    np.testing.assert_array_equal(empty[:, 1], cavities)  # the hole is the same before and after
    assert found["whole"].value > 0.9
    assert found["whole"].p < 0.05
    assert found["masked"].value < 0.7
    assert found["masked"].p > 0.05
