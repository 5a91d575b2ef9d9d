"""GIFT output: naming, orientation, NaN outside the mask, subjects and sessions, and everything that can be wrong."""

import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.io import savemat

from ssl4neuro.data.readers.gift import GiftReader
from ssl4neuro.errors import UserError

AFFINE = np.array([[-8.0, 0, 0, 30], [0, 8, 0, -40], [0, 0, 8, -30], [0, 0, 0, 1]])
SHAPE = (7, 8, 6)
BRAIN = np.zeros(SHAPE, dtype=bool)
BRAIN[1:6, 1:7, 1:5] = True


def write_scan(
    folder: Path, stem: str = "rest_sub001", session: int = 1, *, seed: int = 0, components: int = 4, volumes: int = 40,
    transposed: bool = False, outside: float = np.nan,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Maps and courses of one scan as GIFT writes them; returns maps [C, V] and courses [C, T]."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(components, int(BRAIN.sum()))).astype(np.float32)
    data = np.full((*SHAPE, components), outside, dtype=np.float32)
    data[BRAIN] = maps.T
    nib.save(nib.Nifti1Image(data, AFFINE), folder / f"{stem}_component_ica_s{session}_.nii")
    courses = rng.normal(size=(components, volumes)).astype(np.float32)
    nib.save(nib.Nifti1Image(courses if transposed else courses.T, AFFINE), folder / f"{stem}_timecourses_ica_s{session}_.nii")
    return maps, courses


def names(reader: GiftReader) -> list[str]:
    return [scan.name for scan in reader.scans()]


def read(folder: Path, **options: object):
    reader = GiftReader(folder, **options)
    return reader.read(reader.scans()[0])


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("outside", [0.0, np.nan])
def test_reads_what_is_on_disk(tmp_path: Path, transposed: bool, outside: float) -> None:
    maps, courses = write_scan(tmp_path, transposed=transposed, outside=outside)
    reader = GiftReader(tmp_path)
    rows = reader.read(reader.scans()[0])
    assert np.array_equal(reader.grid().mask, BRAIN)
    assert np.array_equal(rows.maps, maps)
    assert np.array_equal(rows.courses, courses)
    assert rows.component.tolist() == [1, 2, 3, 4]
    assert rows.network == [""] * 4
    assert rows.nuisance["n_volumes"] == 40
    assert np.isnan(rows.tr)
    assert [path.name for path in reader.scans()[0].files] == [
        "rest_sub001_component_ica_s1_.nii",
        "rest_sub001_timecourses_ica_s1_.nii",
    ]


def test_group_files_are_no_scans(tmp_path: Path) -> None:
    write_scan(tmp_path, "study_a_sub02")
    write_scan(tmp_path, "study_a_sub01")
    for stem in ("study_a_mean", "study_a_std", "study_a_tmap", "study_a"):
        write_scan(tmp_path, stem)
    (tmp_path / "study_a_agg__component_ica_.nii").write_bytes(b"x")
    assert names(GiftReader(tmp_path)) == ["sub-01", "sub-02"]


def test_sessions_are_numbered_when_there_are_several(tmp_path: Path) -> None:
    for session in (1, 2):
        write_scan(tmp_path, session=session)
    write_scan(tmp_path, "rest_sub010", session=1)
    assert names(GiftReader(tmp_path)) == ["sub-001 ses-1", "sub-001 ses-2", "sub-010 ses-1"]


def test_participants_table_names_subjects(tmp_path: Path) -> None:
    write_scan(tmp_path / "g", "rest_sub001")
    write_scan(tmp_path / "g", "rest_sub012")
    table = tmp_path / "participants.tsv"
    table.write_text("participant_id\tgift\tsite\ttr\nsub-ZZ\t1\tA\t1.5\nsub-AA\t12\tB\t\n")
    reader = GiftReader(tmp_path / "g", participants=table)
    assert [(s.subject, s.site) for s in reader.scans()] == [("sub-AA", "B"), ("sub-ZZ", "A")]
    assert reader.scans()[1].files[0].name == "rest_sub001_component_ica_s1_.nii"
    assert reader.read(reader.scans()[1]).tr == 1.5
    assert reader.shared_files() == {"participants": table}
    table.write_text("participant_id\tgift\nsub-ZZ\t1\n")
    with pytest.raises(UserError, match="no line with gift 12"):
        GiftReader(tmp_path / "g", participants=table)
    table.write_text("participant_id\tgift\nsub-ZZ\t1\nsub-ZZ\t12\n")
    with pytest.raises(UserError, match="is sub-ZZ, and so is"):
        GiftReader(tmp_path / "g", participants=table)


def test_sessions_table_names_scans(tmp_path: Path) -> None:
    for session in (1, 2):
        write_scan(tmp_path / "g", session=session)
    table = tmp_path / "sessions.tsv"
    table.write_text(
        "participant_id\tsession_id\tgift\tgift_session\ttr\nsub-A\tses-post\t1\t2\t0.8\nsub-A\tses-pre\t1\t1\t2\n"
    )
    reader = GiftReader(tmp_path / "g", sessions=table)
    assert names(reader) == ["sub-A ses-post", "sub-A ses-pre"]
    assert [reader.read(scan).tr for scan in reader.scans()] == [0.8, 2.0]
    assert reader.scans()[0].files[1].name == "rest_sub001_timecourses_ica_s2_.nii"
    assert reader.shared_files() == {"sessions": table}


def test_networks_are_the_same_in_all_scans(tmp_path: Path) -> None:
    write_scan(tmp_path / "g")
    table = tmp_path / "n.tsv"
    table.write_text("component\tnetwork\n1\tDMN\n4\tVIS\n")
    assert read(tmp_path / "g", networks=table).network == ["DMN", "", "", "VIS"]
    table.write_text("component\tnetwork\n5\tDMN\n")
    with pytest.raises(UserError, match="component 5 of only 4"):
        read(tmp_path / "g", networks=table)


def test_own_mask_given_mask_and_resolution(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    maps, _ = write_scan(folder)
    own, given = BRAIN.copy(), BRAIN.copy()
    own[1], given[:, 1] = False, False
    nib.save(nib.Nifti1Image(own.astype(np.int16), AFFINE), folder / "restMask.nii")
    nib.save(nib.Nifti1Image(given.astype(np.int16), AFFINE), tmp_path / "m.nii")
    assert np.array_equal(GiftReader(folder).grid().mask, own)
    assert GiftReader(folder).shared_files() == {"mask": folder / "restMask.nii"}
    reader = GiftReader(folder, mask=tmp_path / "m.nii")
    assert np.array_equal(reader.grid().mask, given)
    full = np.zeros(SHAPE, dtype=np.float32)
    full[BRAIN] = maps[2]
    assert np.array_equal(reader.read(reader.scans()[0]).maps[2], full[given])
    coarse = GiftReader(folder, resolution=12.0)
    assert coarse.read(coarse.scans()[0]).maps.shape == (4, int(coarse.grid().mask.sum()))


def test_a_mask_larger_than_gifts_is_filled_with_zeros(tmp_path: Path) -> None:
    maps, _ = write_scan(tmp_path / "g")
    nib.save(nib.Nifti1Image(np.ones(SHAPE, dtype=np.int16), AFFINE), tmp_path / "m.nii")
    rows = read(tmp_path / "g", mask=tmp_path / "m.nii")
    assert np.array_equal(rows.maps[:, BRAIN.ravel()], maps)
    assert (rows.maps[:, ~BRAIN.ravel()] == 0).all()


@pytest.mark.parametrize(("tr", "expected"), [(2.0, 2.0), ([2.0, 2.0], 2.0), ([2.0, 1.0], np.nan), (None, np.nan)])
def test_repetition_time_of_the_analysis(tmp_path: Path, tr: object, expected: float) -> None:
    write_scan(tmp_path)
    savemat(tmp_path / "rest_ica_parameter_info.mat", {"sesInfo": {"numComp": 4} | ({} if tr is None else {"TR": tr})})
    assert read(tmp_path).tr == pytest.approx(expected, nan_ok=True)
    assert "parameters" in GiftReader(tmp_path).shared_files()


def test_parameter_file_of_another_kind(tmp_path: Path) -> None:
    write_scan(tmp_path)
    (tmp_path / "rest_ica_parameter_info.mat").write_bytes(b"MATLAB 7.3 MAT-file" + bytes(200))
    assert np.isnan(read(tmp_path).tr)


def test_compressed_files(tmp_path: Path) -> None:
    maps, courses = write_scan(tmp_path)
    for path in list(tmp_path.iterdir()):
        nib.save(nib.load(path), f"{path}.gz")
        path.unlink()
    rows = read(tmp_path)
    assert np.array_equal(rows.maps, maps)
    assert np.array_equal(rows.courses, courses)


def test_goes_to_a_worker_process(tmp_path: Path) -> None:
    write_scan(tmp_path)
    reader = pickle.loads(pickle.dumps(GiftReader(tmp_path)))  # noqa: S301 - our own bytes
    assert reader.read(reader.scans()[0]).maps.shape == (4, int(BRAIN.sum()))


def test_through_prepare(tmp_path: Path) -> None:
    """A broken scan can be skipped; signs and scales are `prepare`'s."""
    from ssl4neuro.data.prepare import prepare_ica

    folder = tmp_path / "g"
    for number in (1, 2, 3, 4):
        maps, courses = write_scan(folder, f"rest_sub00{number}", seed=number)
    (folder / "rest_sub001_component_ica_s1_.nii").write_bytes(b"x")
    (folder / "rest_sub002_timecourses_ica_s1_.nii").unlink()
    cohort = prepare_ica(tmp_path / "out", gift=folder, skip_bad=True)
    assert cohort.index.subject.unique().tolist() == ["sub-003", "sub-004"]
    assert len(cohort.info["skipped"]) == 2
    assert np.array_equal(cohort.mask, BRAIN)
    stored = cohort.fetch(np.arange(4, 8), ["map", "course"])
    for i in range(4):
        r = np.corrcoef(stored["map"][i].astype(float), maps[i])[0, 1]
        assert abs(r) > 0.999
        trend = np.polyval(np.polyfit(np.arange(40), courses[i], 1), np.arange(40))
        assert np.corrcoef(stored["course"][i], courses[i] - trend)[0, 1] * np.sign(r) > 0.999


def test_square_courses_are_ambiguous(tmp_path: Path) -> None:
    write_scan(tmp_path, components=4, volumes=4)
    with pytest.raises(UserError, match="4 × 4, so whether volumes are rows or columns cannot be told"):
        read(tmp_path)


def _break(folder: Path, what: str) -> None:
    maps, tc = folder / "rest_sub001_component_ica_s1_.nii", folder / "rest_sub001_timecourses_ica_s1_.nii"
    data, courses = nib.load(maps).get_fdata().astype(np.float32), nib.load(tc).get_fdata().astype(np.float32)
    if what == "no courses":
        tc.unlink()
    elif what == "other count":
        nib.save(nib.Nifti1Image(courses[:, :3], AFFINE), tc)
    elif what == "4-D courses":
        nib.save(nib.Nifti1Image(np.zeros((4, 40, 2)), AFFINE), tc)
    elif what == "nan courses":
        courses[3, 2] = np.nan
        nib.save(nib.Nifti1Image(courses, AFFINE), tc)
    elif what == "one volume":
        nib.save(nib.Nifti1Image(courses[:1], AFFINE), tc)
    elif what == "3-D":
        nib.save(nib.Nifti1Image(data[..., 0], AFFINE), maps)
    elif what == "nan inside":
        data[3, 3, 3, 1] = np.nan
        nib.save(nib.Nifti1Image(data, AFFINE), maps)
    elif what == "all nan":
        nib.save(nib.Nifti1Image(np.full_like(data, np.nan), AFFINE), maps)
    elif what == "truncated maps":
        maps.write_bytes(maps.read_bytes()[:1000])
    elif what == "truncated courses":
        tc.write_bytes(tc.read_bytes()[:400])
    elif what == "elsewhere":
        nib.save(nib.Nifti1Image(np.where(BRAIN, 0, 1).astype(np.int16), AFFINE), folder / "restMask.nii")


@pytest.mark.parametrize(
    ("what", "file", "problem"),
    [
        ("no courses", "timecourses", "no such file"),
        ("other count", "timecourses", "40 × 3, but there are 4 maps"),
        ("4-D courses", "timecourses", "time courses are a 2-D image"),
        ("nan courses", "timecourses", "NaN or infinite in 1 of 4 courses"),
        ("one volume", "timecourses", "single volume"),
        ("3-D", "component", "3-D"),
        ("nan inside", "component", "1 voxels are NaN in some components only"),
        ("all nan", "component", "nothing but NaN"),
        ("truncated maps", "component", "copy it again"),
        ("truncated courses", "timecourses", "copy it again"),
        ("elsewhere", "component", "all maps are 0 inside the mask"),
    ],
)
def test_bad_files(tmp_path: Path, what: str, file: str, problem: str) -> None:
    write_scan(tmp_path)
    _break(tmp_path, what)
    with pytest.raises(UserError, match=problem) as error:
        read(tmp_path)
    assert file in str(error.value).split(":")[0]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (None, "give the folder that holds GIFT's output"),
        ("x_mean_component_ica_s_all_.nii", "only group maps"),
        ("x_component_ica_s1_.nii", "only group maps"),
        ("x_sub01_component_ica_s1_.zip", "unzip them"),
        ("x_sub01_component_ica_s1_001.img", "Analyze images"),
        ("below/x_sub01_component_ica_s1_.nii", "there are some in .*below"),
    ],
)
def test_nothing_to_read(tmp_path: Path, file: str | None, problem: str) -> None:
    if file:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    with pytest.raises(UserError, match=problem):
        GiftReader(tmp_path)


def test_two_analyses_and_no_folder(tmp_path: Path) -> None:
    write_scan(tmp_path, "a_sub01")
    write_scan(tmp_path, "b_sub01")
    with pytest.raises(UserError, match="holds the analyses a, b"):
        GiftReader(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        GiftReader(tmp_path / "none")
