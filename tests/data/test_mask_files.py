"""Maps written for a cohort lie on the images that the cohort was prepared from, voxel by voxel."""

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dicom_tree import COLUMN, NORMAL, ROW, phantom, write_stack

from ssl4neuro.data.clip import Clip, ClipRows
from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.clip_rows import ClipFormat
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.cohort_writer import CohortParts, PreparedScan, write_cohort
from ssl4neuro.data.mask_files import safe_name, source_images, write_masks
from ssl4neuro.data.prepare_clips import prepare_clips
from ssl4neuro.data.readers.nifti_clips import read_masks
from ssl4neuro.data.scan import Scan

OBLIQUE = np.array([[-1.3, 0.4, 2.0, 91.5], [0.35, 1.25, -3.0, -40.25], [0.2, 0.3, 7.0, 12.125], [0.0, 0.0, 0.0, 1.0]])
SHAPE = (12, 9, 4, 6)  # x, y, z, t: all different


def save(path: Path, values: np.ndarray, affine: np.ndarray = OBLIQUE, unit: str = "mm") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


def movie(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 900, shape).astype(np.int16)


def labels(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 5, shape).astype(np.uint8)


def opened(tmp_path: Path, layout: str, **options: object) -> ClipCohort:
    cohort = prepare_clips(tmp_path / "cohort", source=tmp_path / "source", layout=layout, **options)
    assert isinstance(cohort, ClipCohort)
    return cohort


def written(cohort: ClipCohort, folder: Path) -> Iterator[tuple[str, nib.Nifti1Image]]:
    """The cohort's own masks, written for each of its images."""
    folder.mkdir()
    for image in source_images(cohort):
        clips = [cohort.clip(row) for row in image.rows]
        values = np.stack([clip.mask for clip in clips if clip.mask is not None])
        path = write_masks(
            folder, image.name, values, image.places,
            slices=image.slices, affine=image.affine, spacing=image.spacing, thickness=image.thickness,
        )  # fmt: skip
        yield image.name, nib.load(path)


def test_masks_of_acdc_lie_on_their_source(tmp_path: Path) -> None:
    folder, values = tmp_path / "source" / "patient001", movie()
    values[:, :, 3] = 7  # shows nothing, is left out, and stays a slice of the image
    truth = {1: labels(1, SHAPE[:3]), 4: labels(2, SHAPE[:3])}
    save(folder / "patient001_4d.nii.gz", values)
    for frame, mask in truth.items():
        save(folder / f"patient001_frame{frame:02d}_gt.nii.gz", mask)
    cohort = opened(tmp_path, "acdc", skip_bad=True)
    assert cohort.index["slices"].tolist() == [4, 4, 4]
    assert cohort.index["thickness"].tolist() == pytest.approx([np.sqrt(2**2 + 3**2 + 7**2)] * 3)
    ((name, image),) = written(cohort, tmp_path / "out")
    assert name == "patient001_view-sax"
    expected = np.stack([truth[1], truth[4]], axis=3)
    expected[:, :, 3] = 0
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.affine, OBLIQUE, rtol=1e-6)
    assert image.shape[:3] == nib.load(folder / "patient001_4d.nii.gz").shape[:3]
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(read_masks(tmp_path / "out" / f"{name}.nii.gz")[1], cohort.clip(1).mask)


def test_slices_in_files_of_their_own_get_masks_of_their_own(tmp_path: Path) -> None:
    cine = tmp_path / "source" / "sub-01" / "cine"
    truth = {}
    for number in (1, 2, 3):
        affine = OBLIQUE.copy()
        affine[:3, 3] += (number - 1) * OBLIQUE[:3, 2]
        save(cine / f"sub-01_slice-{number}_view-sax_cine.nii.gz", movie(number, (12, 9, 1, 6)), affine)
        truth[number] = (labels(number, (12, 9, 1)), affine)
        save(cine / f"sub-01_slice-{number}_view-sax_mask.nii.gz", truth[number][0], affine)
    found = dict(written(opened(tmp_path, "bids"), tmp_path / "out"))
    assert list(found) == [f"sub-01_view-sax_slice-{number}" for number in (0, 1, 2)]
    for (mask, affine), image in zip(truth.values(), found.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(image.dataobj), mask)
        np.testing.assert_allclose(image.affine, affine, rtol=1e-6)


def test_two_images_of_one_view_and_grid_are_two_files(tmp_path: Path) -> None:
    cine = tmp_path / "source" / "sub-01" / "cine"
    for run in (1, 2):
        save(cine / f"sub-01_run-{run}_view-sax_cine.nii.gz", movie(run))
    truths = {run: labels(run, SHAPE[:3]) for run in (1, 2)}
    for run, truth in truths.items():
        save(cine / f"sub-01_run-{run}_view-sax_mask.nii.gz", truth)
    found = dict(written(opened(tmp_path, "bids"), tmp_path / "out"))
    assert list(found) == ["sub-01_run-1_view-sax", "sub-01_run-2_view-sax"]
    for truth, image in zip(truths.values(), found.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(image.dataobj), truth)


@pytest.mark.parametrize("told", [True, False])
def test_a_spacing_that_is_not_known_is_not_claimed_by_the_place(tmp_path: Path, told: bool) -> None:
    folder = tmp_path / "source" / "patient001"
    save(folder / "patient001_4d.nii.gz", movie())
    save(folder / "patient001_frame01_gt.nii.gz", labels(1, SHAPE[:3]))
    pd.DataFrame({"participant_id": ["patient001"], "spacing_known": [told]}).to_csv(
        tmp_path / "source" / "participants.tsv", sep="\t", index=False
    )
    cohort = opened(tmp_path, "acdc")
    assert (cohort.clip(0).spacing is not None) is told
    assert cohort.index["thickness"].notna().all() == told
    ((_, image),) = written(cohort, tmp_path / "out")
    np.testing.assert_allclose(image.affine, OBLIQUE, rtol=1e-6)
    assert image.header.get_xyzt_units()[0] == ("mm" if told else "unknown")


def test_a_header_in_metres_gives_mm(tmp_path: Path) -> None:
    metres = OBLIQUE.copy()
    metres[:3] *= 1e-3
    source = save(tmp_path / "source" / "someone.nii.gz", movie(), metres, unit="meter")
    save(source.with_name("someone_mask.nii.gz"), labels(3, SHAPE[:3]), metres, unit="meter")
    ((_, image),) = written(opened(tmp_path, "files"), tmp_path / "out")
    np.testing.assert_allclose(image.affine, OBLIQUE, rtol=1e-5)


def test_a_grid_that_is_none_is_not_kept(tmp_path: Path) -> None:
    cine = tmp_path / "source" / "sub-01" / "cine"
    save(cine / "sub-01_cine.nii.gz", movie(shape=(12, 9, 6)))  # the third axis is time: nothing says where slices would lie
    (cine / "sub-01_cine.json").write_text(json.dumps({"FrameTimes": [0.03 * t for t in range(6)]}))
    cohort = opened(tmp_path, "bids")
    assert (cohort.affine(0), cohort.clip(0).affine, cohort.clip(0).slices) == (None, None, 1)
    assert np.isnan(cohort.index["thickness"][0])


def test_a_place_with_steps_of_1_is_kept_and_not_believed(tmp_path: Path) -> None:
    """As in many copies of ACDC: the sizes of voxels are right, and the affine has them all 1."""
    folder, unit = (
        tmp_path / "source" / "patient001",
        np.array([[0.0, -1, 0, -85], [-1, 0, 0, -50], [0, 0, 1, 1], [0, 0, 0, 1]]),
    )
    for name, values in (("4d", movie()), ("frame01_gt", labels(1, SHAPE[:3]))):
        image = nib.Nifti1Image(values, unit)
        image.header["pixdim"][1:4] = 1.25, 1.5, 10.0
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(image, folder / f"patient001_{name}.nii.gz")
    cohort = opened(tmp_path, "acdc")
    assert (cohort.clip(1).spacing, cohort.clip(1).thickness, cohort.index["thickness"][1]) == ((1.5, 1.25), 10.0, 10.0)
    ((_, image),) = written(cohort, tmp_path / "out")
    np.testing.assert_array_equal(image.affine, unit)
    assert image.header.get_zooms()[:3] == (1.25, 1.5, 10.0)
    assert int(image.header["qform_code"]) == 0, "a second place that contradicts the first would be worse than none"


@pytest.mark.parametrize(("size", "unit", "known"), [(1.0, "unknown", None), (1.0, "mm", 1.0), (8.0, "unknown", 8.0)])
def test_a_distance_of_1_without_unit_was_never_told(tmp_path: Path, size: float, unit: str, known: float | None) -> None:
    save(tmp_path / "source" / "someone.nii.gz", movie(), np.diag([1.5, 1.25, size, 1.0]), unit)
    assert opened(tmp_path, "files").clip(0).thickness == known


def test_dicom_stacks_know_their_place(tmp_path: Path) -> None:
    write_stack(tmp_path / "source" / "a", phantom())
    cohort = opened(tmp_path, "files")
    affine = cohort.affine(2)
    assert affine is not None
    np.testing.assert_array_equal(affine, cohort.affine(0))
    for column, row, number in ((0, 0, 0), (3, 5, 2), (11, 1, 3)):
        place = np.array([-20.0, 30.0, -5.0]) + column * 1.25 * ROW + row * 1.5 * COLUMN + number * 8.0 * NORMAL  # LPS
        np.testing.assert_allclose(affine @ [column, row, number, 1], [-place[0], -place[1], place[2], 1], atol=1e-3)
    assert cohort.index["thickness"].tolist() == pytest.approx([8.0] * 4, abs=1e-3)
    (image,) = source_images(cohort)
    assert (image.places, image.slices) == ((0, 1, 2, 3), 4)


def study(clips: list[Clip], subject: str = "sub-1") -> PreparedScan:
    return PreparedScan(Scan(subject, ()), ClipFormat().finalise(ClipRows(clips), "study")[0], subject, subject, [])


def clip(seed: int, **options: object) -> Clip:
    return Clip(np.random.default_rng(seed).integers(0, 99, (3, 9, 12)).astype(np.uint8), view="sax", **options)


def test_windows_and_series_on_one_grid_are_kept_apart(tmp_path: Path) -> None:
    """Rows: two windows of slices 0 and 1, then a longer series of the same view and size."""
    numbers = [0, 0, 1, 1, 0, 1, 2]
    scans = [study([clip(n, slice=number) for n, number in enumerate(numbers)])]
    cohort = write_cohort(tmp_path / "c", scans, CohortParts(name="c", kind="clips"))
    assert isinstance(cohort, ClipCohort)
    images = source_images(cohort)
    assert [image.rows for image in images] == [(0, 2), (1, 3), (4, 5, 6)]
    assert [image.name for image in images] == ["sub-1_view-sax", "sub-1_view-sax_part-2", "sub-1_view-sax_part-3"]
    assert [image.slices for image in images] == [2, 2, 3]


def test_names_stay_in_the_folder_and_apart(tmp_path: Path) -> None:
    subjects = [
        "../../../etc/passwd",
        "Müller, Jürgen",
        "a/b",
        "a-b",
        "A-B",
        ".hidden",
        "x" * 300,
        "x" * 301,
        "~",
        "a-b_part-2",
    ]
    scans = [study([clip(n)], subject) for n, subject in enumerate(sorted(subjects))]
    cohort = write_cohort(tmp_path / "c", scans, CohortParts(name="c", kind="clips"))
    assert isinstance(cohort, ClipCohort)
    (tmp_path / "out").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for image in source_images(cohort):
        write_masks(tmp_path / "out", f"{image.name}_mask", np.ones((1, 1, 9, 12), np.uint8), image.places)
    new = sorted(set(tmp_path.rglob("*")) - set(before))
    assert len({path.name.casefold() for path in new}) == len(subjects)
    assert {path.parent for path in new} == {tmp_path / "out"}
    assert not any(path.name.startswith(".") or len(path.name) > 200 for path in new)
    assert safe_name("..", "/", "") == "scan"


def test_maps_without_a_place_lie_on_the_picture(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(0, 1, (2, 1, 9, 12)).astype(np.float32)
    path = write_masks(tmp_path, "map", values, [2, 0], spacing=(2.0, 1.5), thickness=9.0)
    image = nib.load(path)
    assert (image.shape, image.get_data_dtype()) == ((12, 9, 3), np.float32)
    np.testing.assert_array_equal(image.affine, np.diag([1.5, 2.0, 9.0, 1.0]))
    assert image.dataobj[7, 3, 2] == values[0, 0, 3, 7]
    assert image.dataobj[7, 3, 0] == values[1, 0, 3, 7]
    assert not np.asarray(image.dataobj)[:, :, 1].any()
    again = path.read_bytes()
    write_masks(tmp_path, "map", values, [2, 0], spacing=(2.0, 1.5), thickness=9.0)
    assert path.read_bytes() == again, "equal maps are equal files"
    for places, slices in (([0, 0], 0), ([0, 5], 5), ([0], 0), ([-1, 0], 0)):
        with pytest.raises(ValueError, match="places"):
            write_masks(tmp_path, "map", values, places, slices=slices)


def test_cohorts_of_earlier_versions_open_without_places(tmp_path: Path) -> None:
    cohort = write_cohort(
        tmp_path / "c", [study([clip(0, affine=OBLIQUE, slices=4, slice=1, thickness=8.0)])], CohortParts("c", "clips")
    )
    assert isinstance(cohort, ClipCohort)
    np.testing.assert_array_equal(cohort.clip(0).affine, OBLIQUE)
    arrays, meta = ClipFormat().pack(ClipRows([cohort.clip(0)]))
    again = ClipFormat().unpack(arrays, json.loads(json.dumps(meta))).clips[0]
    np.testing.assert_array_equal(again.affine, OBLIQUE)
    assert (again.slices, again.thickness) == (4, 8.0)
    taken = ClipFormat().take_over(cohort, np.array([0]), {"nuisance": {}}).clips[0]
    np.testing.assert_array_equal(taken.affine, OBLIQUE)
    rows = tmp_path / "c" / "rows.arrow"
    with pa.memory_map(str(rows)) as source:
        table = pa.ipc.open_stream(source).read_all().drop_columns(["affine", "slices", "thickness"])
    with pa.OSFile(str(tmp_path / "rows"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "rows").replace(rows)
    info = json.loads((tmp_path / "c" / "cohort.json").read_text())
    info["files"]["rows.arrow"]["bytes"] = rows.stat().st_size
    (tmp_path / "c" / "cohort.json").write_text(json.dumps(info))
    old = Cohort.open(tmp_path / "c")
    assert isinstance(old, ClipCohort)
    assert (old.affine(0), old.clip(0).affine, old.clip(0).slices, old.clip(0).thickness) == (None, None, 0, None)
    assert (old.index["slices"][0], old.index["thickness"].isna().all()) == (0, True)
    (image,) = source_images(old)
    assert (image.places, image.slices, image.affine) == ((1,), 2, None)
