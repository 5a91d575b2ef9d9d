"""`doctor`: a clean data set of each kind gives no finding, and every planted defect is named."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ssl4neuro.data.checks import Record, check_intensity
from ssl4neuro.data.doctor import Finding, examine, render
from ssl4neuro.errors import UserError

AFFINE = np.array([[-8.0, 0, 0, 30], [0, 8, 0, -40], [0, 0, 8, -30], [0, 0, 0, 1]])
SHAPE = (6, 7, 5)
BRAIN = np.zeros(SHAPE, dtype=bool)
BRAIN[1:5, 1:6, 1:4] = True
SUBJECTS = [f"sub-{number:02d}" for number in range(1, 7)]


def save(path: Path, data: np.ndarray, tr: float | None = None, affine: np.ndarray = AFFINE) -> None:
    image = nib.Nifti1Image(data, affine)
    if tr is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
        image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def scan_path(root: Path, subject: str, extra: str = "") -> Path:
    return root / subject / "func" / f"{subject}_task-rest{extra}_space-MNI_desc-preproc_bold.nii.gz"


def write_scan(path: Path, seed: int, volumes: int = 110, tr: float | None = 2.0, header_tr: float = 2.0) -> None:
    rng = np.random.default_rng(seed)
    data = np.zeros((*SHAPE, volumes), dtype=np.float32)
    data[BRAIN] = 1000 + rng.normal(size=(int(BRAIN.sum()), volumes))
    save(path, data, header_tr)
    if tr is not None:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({"RepetitionTime": tr}))


def change(path: Path, edit: Callable[[np.ndarray], np.ndarray | None], **header: object) -> None:
    image = nib.load(path)
    data = image.get_fdata(dtype=np.float32)
    data = data if (changed := edit(data)) is None else changed
    save(path, data, float(image.header.get_zooms()[3]) if data.ndim == 4 else None, **header)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Six clean subjects with maps, mask and participants.tsv."""
    root = tmp_path / "study"
    for seed, subject in enumerate(SUBJECTS):
        write_scan(scan_path(root, subject), seed)
    maps = np.zeros((*SHAPE, 4), dtype=np.float32)
    maps[BRAIN] = np.random.default_rng(99).normal(size=(int(BRAIN.sum()), 4))
    save(root / "group_maps.nii.gz", maps)
    save(root / "mask.nii.gz", BRAIN.astype(np.uint8))
    (root / "participants.tsv").write_text("participant_id\tage\n" + "".join(f"{s}\t30\n" for s in SUBJECTS))
    return root


def found(root: Path, level: str, file: str, problem: str, **options: Path) -> Finding:
    """The one finding with this level, file and problem; it must be the only one of its level and problem."""
    findings = examine(root, **options)
    fitting = [f for f in findings if f.level == level and problem in f.problem]
    assert len(fitting) == 1, render(findings)
    assert file in fitting[0].file, render(findings)
    assert not Path(fitting[0].file).is_absolute()
    assert str(root) not in render(findings)
    assert fitting[0].advice
    return fitting[0]


def test_clean_tree(tree: Path) -> None:
    findings = examine(tree)
    assert findings == []
    text = render(findings)
    assert "No finding" in text
    assert "\n" not in text
    for checked in ("readable", "NaN", "repetition times", "intensities", "scan twice"):
        assert checked in text


def test_truncated(tree: Path) -> None:
    path = scan_path(tree, "sub-03")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found(tree, "fatal", "sub-03/func", "cannot be read to its end")
    assert len(examine(tree)) == 1


def test_not_an_image(tree: Path) -> None:
    scan_path(tree, "sub-03").write_bytes(gzip.compress(b"nothing"))
    found(tree, "fatal", "sub-03/func", "not a readable image")


def test_three_dimensional(tree: Path) -> None:
    change(scan_path(tree, "sub-03"), lambda data: data[..., 0])
    found(tree, "fatal", "sub-03/func", "is 3-D")


def test_nan_in_the_mask(tree: Path) -> None:
    def plant(data: np.ndarray) -> None:
        data[2, 2, 2, 5:8] = np.nan
        data[2, 3, 2, :] = np.inf

    change(scan_path(tree, "sub-02"), plant)
    found(tree, "fatal", "sub-02", "NaN or infinite in 2 voxels of the mask")
    assert len(examine(tree)) == 1


def test_nan_outside_the_mask_is_nothing(tree: Path) -> None:
    change(scan_path(tree, "sub-02"), lambda data: np.where(BRAIN[..., None], data, np.nan))
    assert examine(tree) == []


def test_nan_without_a_mask(tree: Path) -> None:
    for name in ("group_maps.nii.gz", "mask.nii.gz"):
        (tree / name).unlink()

    def plant(data: np.ndarray) -> None:
        data[2, 2, 2, 5] = np.nan
        data[0] = np.nan

    change(scan_path(tree, "sub-02"), plant)
    found(tree, "fatal", "sub-02", "NaN or infinite in 1 voxels at some time points")
    found(tree, "warning", "sub-02", f"{SHAPE[1] * SHAPE[2]} voxels are always NaN")


def test_constant_and_repeated_volumes(tree: Path) -> None:
    def plant(data: np.ndarray) -> None:
        data[..., [3, 40]] = 0
        data[..., 20] = data[..., 19]

    change(scan_path(tree, "sub-02"), plant)
    found(tree, "fatal", "sub-02", "constant volumes: 4, 41")
    found(tree, "warning", "sub-02", "equal to the one before: 21")


def test_nothing_changes_over_time(tree: Path) -> None:
    change(scan_path(tree, "sub-02"), lambda data: np.repeat(data[..., :1], data.shape[3], axis=3))
    found(tree, "fatal", "sub-02", "does not change over time")


def test_mask_without_signal(tree: Path) -> None:
    def plant(data: np.ndarray) -> None:
        data[1:3] = 0

    change(scan_path(tree, "sub-02"), plant)
    found(tree, "warning", "sub-02", "50% of the mask is without signal")


@pytest.mark.parametrize(
    ("volumes", "level", "problem"),
    [
        (20, "fatal", "20 volumes, fewer than 32"),
        (1, "fatal", "1 volume, fewer than 32"),
        (60, "warning", "60 volumes, fewer than 100"),
    ],
)
def test_few_volumes(tree: Path, volumes: int, level: str, problem: str) -> None:
    write_scan(scan_path(tree, "sub-05"), 50, volumes=volumes)
    found(tree, level, "sub-05", problem)


def test_fewer_volumes_than_maps(tree: Path) -> None:
    save(tree / "group_maps.nii.gz", np.random.default_rng(0).normal(size=(*SHAPE, 39)).astype(np.float32))
    write_scan(scan_path(tree, "sub-05"), 50, volumes=40)
    found(tree, "fatal", "sub-05", "40 volumes for 39 maps")


@pytest.mark.parametrize(
    ("told", "header", "level", "problem"),
    [
        (None, 0.0, "warning", "repetition time unknown (0 in the header, none in a JSON)"),
        (2.0, 0.0, "warning", "repetition time 0 in the header, 2 s in the JSON"),
        (2.0, 2.5, "warning", "repetition time 2.5 s in the header, 2 s in the JSON"),
        (2000.0, 2.0, "fatal", "RepetitionTime 2000 in its JSON is not in seconds"),
    ],
)
def test_repetition_time(tree: Path, told: float | None, header: float, level: str, problem: str) -> None:
    path = scan_path(tree, "sub-04")
    path.with_name(path.name.replace(".nii.gz", ".json")).unlink()
    write_scan(path, 3, tr=told, header_tr=header)
    found(tree, level, "sub-04", problem)
    assert len(examine(tree)) == 1


def test_repetition_time_in_the_header_alone_is_enough(tree: Path) -> None:
    path = scan_path(tree, "sub-04")
    path.with_name(path.name.replace(".nii.gz", ".json")).unlink()
    assert examine(tree) == []


def test_repetition_times_differ(tree: Path) -> None:
    write_scan(scan_path(tree, "sub-04"), 3, tr=0.8, header_tr=0.8)
    found(tree, "warning", "sub-04", "repetition times differ: 0.8 s (1 scan), 2 s (5 scans)")


def test_broken_json(tree: Path) -> None:
    path = scan_path(tree, "sub-04")
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text("{")
    found(tree, "fatal", "sub-04_task-rest_space-MNI_desc-preproc_bold.json", "not valid JSON")


def test_shifted_scan(tree: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 3] += 8
    change(scan_path(tree, "sub-06"), lambda data: None, affine=affine)
    found(tree, "warning", "sub-06", "other affine than most scans (origin differs by up to 8 mm)")
    found(tree, "note", "sub-06", "another grid than the maps")


def test_scan_of_another_resolution(tree: Path) -> None:
    affine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    change(scan_path(tree, "sub-06"), lambda data: data.repeat(2, 0).repeat(2, 1).repeat(2, 2), affine=affine)
    found(tree, "warning", "sub-06", "grid 12×14×10 at 4×4×4 mm, most scans have 6×7×5 at 8×8×8 mm")
    assert not any("signal" in f.problem or f.level == "fatal" for f in examine(tree))


def test_scan_beside_the_mask(tree: Path) -> None:
    affine = AFFINE.copy()
    affine[2, 3] += 300
    change(scan_path(tree, "sub-06"), lambda data: None, affine=affine)
    found(tree, "fatal", "sub-06", "covers 0% of the mask")


def test_no_orientation(tree: Path) -> None:
    path = scan_path(tree, "sub-06")
    image = nib.load(path)
    data, header = image.get_fdata(dtype=np.float32), image.header.copy()
    header.set_sform(None, 0)
    header.set_qform(None, 0)
    plain = nib.Nifti1Image(data, None, header)
    nib.save(plain, path)
    found(tree, "warning", "sub-06", "the header gives no orientation")


def test_same_file_under_two_names(tree: Path) -> None:
    shutil.copy(scan_path(tree, "sub-01"), scan_path(tree, "sub-06"))
    finding = found(tree, "fatal", "sub-06", "the same file as")
    assert "sub-01" in finding.problem


def test_same_values_under_another_header(tree: Path) -> None:
    image = nib.load(scan_path(tree, "sub-01"))
    image.header["descrip"] = b"another"
    nib.save(image, scan_path(tree, "sub-06"))
    finding = found(tree, "fatal", "sub-06", "the same values under another header as")
    assert "sub-01" in finding.problem


def test_participants(tree: Path) -> None:
    table = tree / "participants.tsv"
    table.write_text("participant_id\nsub-01\nsub-02\nsub-02\nsub-03\nsub-04\nsub-05\nsub-99\n")
    found(tree, "warning", "participants.tsv", "no line for 06")
    found(tree, "warning", "participants.tsv", "no scan of 99")
    found(tree, "fatal", "participants.tsv", "02 is listed 2 times")
    table.write_text("id\n" + "".join(f"{s.removeprefix('sub-')}\n" for s in SUBJECTS))  # as `prepare` takes it
    assert examine(tree) == []
    table.write_text("name\nx\n")
    found(tree, "fatal", "participants.tsv", "no column participant_id (it has name)")
    table.write_bytes(b"\xff\xfe\x81\x00")
    found(tree, "fatal", "participants.tsv", "not a readable table")


def test_sessions(tree: Path) -> None:
    table = tree / "sessions.tsv"
    table.write_text("participant_id\tstate\n" + "".join(f"{s}\tpre\n" for s in SUBJECTS))
    assert examine(tree) == []
    table.write_text("participant_id\tsession_id\nsub-01\t\nsub-01\t\nsub-02\tses-9\n")
    found(tree, "warning", "sessions.tsv", "no line for 02, 03, 04, 05, 06")
    found(tree, "warning", "sessions.tsv", "no scan of 02 9")
    found(tree, "fatal", "sessions.tsv", "01 is listed 2 times")


def test_tasks_and_spaces(tree: Path) -> None:
    other = tree / "sub-01" / "func" / "sub-01_task-nback_space-T1w_desc-preproc_bold.nii.gz"
    write_scan(other, 77)
    assert found(tree, "warning", ".", "several tasks: nback, rest").advice.startswith("choose one with --task")
    found(tree, "warning", ".", "several spaces: MNI, T1w")


def test_two_files_for_one_scan(tree: Path) -> None:
    write_scan(tree / "sub-01" / "func" / "sub-01_task-rest_space-MNI_label-a_desc-preproc_bold.nii.gz", 77)
    found(tree, "fatal", "sub-01", "is sub-01, and so is")
    shutil.rmtree(tree / "sub-01")
    for run in ("_run-1", "_run-2"):
        write_scan(scan_path(tree, "sub-01", run), 70 + len(run) + int(run[-1]))
    assert examine(tree) == []


def test_single_subject(tree: Path) -> None:
    for subject in SUBJECTS[1:]:
        shutil.rmtree(tree / subject)
    (tree / "participants.tsv").unlink()
    found(tree, "fatal", ".", "a single subject (sub-01)")


def test_intensity(tree: Path) -> None:
    def scale(data: np.ndarray) -> np.ndarray:
        return data / 20

    change(scan_path(tree, "sub-06"), scale)
    finding = found(tree, "warning", "sub-06", "mean intensity 50, usual is 1,000")
    assert "robust z" in finding.problem
    for subject in SUBJECTS[3:5]:
        change(scan_path(tree, subject), scale)
    found(tree, "warning", ".", "2 clusters: 3 scans around 50 and 3 scans around 1,000")
    assert len(examine(tree)) == 1


def test_intensity_needs_a_notion_of_usual() -> None:
    assert check_intensity([Record("a", intensity=1.0), Record("b", intensity=1000.0)]) == []
    assert check_intensity([Record(str(i), intensity=100.0 + i) for i in range(20)]) == []
    assert check_intensity([Record(str(i), intensity=1e-9 * (-1) ** i) for i in range(20)]) == []  # demeaned data


def test_maps_that_cannot_be_used(tree: Path) -> None:
    save(tree / "group_maps.nii.gz", np.ones(SHAPE, dtype=np.float32))
    found(tree, "fatal", "group_maps.nii.gz", "is 3-D")


def test_several_candidates_for_maps(tree: Path) -> None:
    shutil.copy(tree / "group_maps.nii.gz", tree / "other_maps.nii.gz")
    found(tree, "note", ".", "several images could be the maps: group_maps.nii.gz, other_maps.nii.gz")
    assert examine(tree, maps=tree / "other_maps.nii.gz") == []


def test_given_maps_and_mask(tree: Path, tmp_path: Path) -> None:
    small = np.zeros(SHAPE, dtype=np.uint8)
    small[2, 2, 2] = 1
    small[3, 3, 2] = 1
    save(tmp_path / "small.nii.gz", small)

    def plant(data: np.ndarray) -> None:
        data[4, 4, 3] = np.nan

    change(scan_path(tree, "sub-02"), plant)
    assert [f.level for f in examine(tree)] == ["fatal"]
    assert examine(tree, mask=tmp_path / "small.nii.gz") == []


def test_unprocessed_scans(tree: Path) -> None:
    for subject in SUBJECTS:
        path = scan_path(tree, subject)
        for suffix in (".nii.gz", ".json"):
            old = path.with_name(path.name.replace(".nii.gz", suffix))
            old.rename(old.with_name(old.name.replace("_desc-preproc", "")))
    found(tree, "warning", ".", "these scans look unprocessed")


def test_equal_findings_are_folded_and_sorted(tree: Path) -> None:
    for seed, subject in enumerate(SUBJECTS[:5]):
        write_scan(scan_path(tree, subject), seed, header_tr=0.0)
    path = scan_path(tree, "sub-06")
    path.write_bytes(path.read_bytes()[:200])
    findings = examine(tree)
    assert [f.level for f in findings] == ["fatal", "warning"]
    assert findings[1].file.endswith(" and 4 more")
    lines = render(findings).splitlines()
    assert len(lines) == 1 + len(findings) + 2
    assert lines[-1] == "1 fatal, 1 warning"
    column = lines[0].index("problem")
    assert all(line[column - 2 : column] == "  " and line[column] != " " for line in lines[1:3])


# --- MELODIC


def write_melodic(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = np.zeros((*SHAPE, 4), dtype=np.float32)
    maps[BRAIN] = rng.normal(size=(int(BRAIN.sum()), 4))
    save(folder / "melodic_IC.nii.gz", maps, 2.0)
    save(folder / "mask.nii.gz", BRAIN.astype(np.uint8))
    np.savetxt(folder / "melodic_mix", rng.normal(size=(120, 4)))


@pytest.fixture
def melodic(tmp_path: Path) -> Path:
    root = tmp_path / "ica"
    for seed, subject in enumerate(SUBJECTS[:3]):
        for session in ("ses-1", "ses-2"):
            write_melodic(root / subject / session, 2 * seed + (session == "ses-2"))
    return root


def test_clean_melodic(melodic: Path) -> None:
    assert examine(melodic) == []


def test_melodic_defects(melodic: Path) -> None:
    mix = melodic / "sub-01" / "ses-1" / "melodic_mix"
    np.savetxt(mix, np.loadtxt(mix)[:, :3])
    found(melodic, "fatal", "sub-01/ses-1/melodic_mix", "3 courses for 4 maps")
    (melodic / "sub-01" / "ses-2" / "melodic_mix").write_text("1 2\n3\n")
    found(melodic, "fatal", "sub-01/ses-2/melodic_mix", "rows of one length")

    def constant(data: np.ndarray) -> None:
        data[..., 2] = 0

    def broken(data: np.ndarray) -> None:
        data[2, 2, 2, 1] = np.nan

    change(melodic / "sub-02" / "ses-1" / "melodic_IC.nii.gz", constant)
    found(melodic, "warning", "sub-02/ses-1/melodic_IC.nii.gz", "constant maps: 3")
    change(melodic / "sub-02" / "ses-2" / "melodic_IC.nii.gz", broken)
    found(melodic, "fatal", "sub-02/ses-2/melodic_IC.nii.gz", "NaN or infinite in maps 2")
    shutil.rmtree(melodic / "sub-03" / "ses-2")
    shutil.copytree(melodic / "sub-03" / "ses-1", melodic / "sub-03" / "ses-2")
    found(melodic, "fatal", "sub-03/ses-2", "the same file as sub-03/ses-1")


def test_melodic_nan_outside_its_mask_is_nothing(melodic: Path) -> None:
    change(melodic / "sub-02" / "ses-2" / "melodic_IC.nii.gz", lambda data: np.where(BRAIN[..., None], data, np.nan))
    assert examine(melodic) == []


def test_melodic_without_tr_or_subject(melodic: Path) -> None:
    folder = melodic / "sub-02" / "ses-1"
    save(folder / "melodic_IC.nii.gz", nib.load(folder / "melodic_IC.nii.gz").get_fdata(dtype=np.float32), 1.0)
    found(melodic, "warning", "sub-02/ses-1", "repetition time unknown")
    write_melodic(melodic / "extra", 50)
    found(melodic, "fatal", "extra", "no sub-<name> in its path")


# --- GIFT


@pytest.fixture
def gift(tmp_path: Path) -> Path:
    root = tmp_path / "gift"
    rng = np.random.default_rng(0)
    for number in (1, 2, 3):
        maps = np.full((*SHAPE, 4), np.nan, dtype=np.float32)
        maps[BRAIN] = rng.normal(size=(int(BRAIN.sum()), 4))
        save(root / f"g_sub00{number}_component_ica_s1_.nii", maps)
        save(root / f"g_sub00{number}_timecourses_ica_s1_.nii", rng.normal(size=(120, 4)).astype(np.float32))
    (root / "participants.tsv").write_text("participant_id\ttr\nsub-001\t2\nsub-002\t2\nsub-003\t2\n")
    return root


def test_gift(gift: Path) -> None:
    findings = examine(gift)
    assert [f.problem for f in findings] == ["repetition time unknown"] * 3  # the table is an option of prepare, not GIFT's
    (gift / "g_sub002_timecourses_ica_s1_.nii").unlink()
    found(gift, "fatal", "g_sub002_timecourses_ica_s1_.nii", "no such file")
    for name in ("component", "timecourses"):
        shutil.copy(gift / f"g_sub001_{name}_ica_s1_.nii", gift / f"g_sub003_{name}_ica_s1_.nii")
    found(gift, "fatal", "g_sub003", "the same file as")


# --- time series


@pytest.fixture
def series(tmp_path: Path) -> Path:
    root = tmp_path / "series"
    root.mkdir()
    rng = np.random.default_rng(0)
    np.savez(root / "all.npz", **{f"p{number}": rng.normal(size=(100 + number, 8)) for number in range(6)})
    (root / "all.json").write_text('{"RepetitionTime": 2}')
    (root / "participants.csv").write_text("id,group\n" + "".join(f"p{number},a\n" for number in range(6)))
    return root


def test_clean_series(series: Path) -> None:
    assert examine(series) == []
    assert examine(series / "all.npz") == []


def test_series_defects(series: Path) -> None:
    arrays = dict(np.load(series / "all.npz"))
    arrays["p1"][:, 3] = 7
    arrays["p2"][4, 4] = np.nan
    arrays["p3"] = arrays["p3"][:20]
    arrays["p4"] = arrays["p0"]
    arrays["p5"] = arrays["p5"][:, :7]
    arrays["p6"] = np.array(["a", "b"])
    np.savez(series / "all.npz", **arrays)
    found(series, "warning", "all.npz[p1]", "constant regions: 4")
    found(series, "fatal", "all.npz[p2]", "NaN or infinite in 1 places")
    found(series, "fatal", "all.npz[p3]", "20 volumes, fewer than 32")
    found(series, "fatal", "all.npz[p4]", "the same file as all.npz[p0]")
    found(series, "fatal", "all.npz[p5]", "7 regions, most have 8")
    found(series, "fatal", "all.npz[p6]", "is 1-D")
    found(series, "warning", "participants.csv", "no line for p6")


def test_series_without_tr_or_damaged(series: Path) -> None:
    (series / "all.json").unlink()
    found(series, "note", "all.npz", "no repetition time")
    data = (series / "all.npz").read_bytes()
    (series / "all.npz").write_bytes(data[: len(data) // 2])
    found(series, "fatal", "all.npz", "not a readable npz")


def test_transposed_series_are_understood(series: Path) -> None:
    arrays = {name: values.T for name, values in np.load(series / "all.npz").items()}
    np.savez(series / "all.npz", **arrays)
    assert examine(series) == []


# --- nothing to examine


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        examine(tmp_path / "none")
    with pytest.raises(UserError, match="is empty"):
        examine(tmp_path)
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(UserError, match=r"that this version knows; looked for .*melodic_IC.*_bold\.nii\.gz.*give the folder"):
        examine(tmp_path)
    save(tmp_path / "group" / "maps.nii.gz", np.zeros((2, 2, 2, 3), dtype=np.uint8))
    with pytest.raises(UserError, match=r"its images \(such as group/maps\.nii\.gz\) are cine"):
        examine(tmp_path)


# --- prepared cohort


@pytest.fixture
def cohort(melodic: Path, tmp_path: Path) -> Path:
    from ssl4neuro.data.prepare import prepare_ica

    (melodic / "n.tsv").write_text("component\tnetwork\n" + "".join(f"{n}\tN{n}\n" for n in range(1, 5)))
    prepare_ica(tmp_path / "cohort", melodic=[melodic], networks=melodic / "n.tsv")
    return tmp_path / "cohort"


def test_clean_cohort(cohort: Path) -> None:
    assert examine(cohort) == []


def test_cohort_defects(cohort: Path) -> None:
    rows = cohort / "rows.arrow"
    data = bytearray(rows.read_bytes())
    data[len(data) // 2] ^= 0xFF
    rows.write_bytes(data)
    found(cohort, "fatal", "rows.arrow", "altered since it was written")
    rows.write_bytes(bytes(data)[:-100])
    found(cohort, "fatal", "rows.arrow", "bytes instead of")


def test_cohort_with_skipped_scans_and_without_names(melodic: Path, tmp_path: Path) -> None:
    from ssl4neuro.data.prepare import prepare_ica

    (melodic / "sub-01" / "ses-1" / "melodic_mix").write_text("1 2\n3\n")
    (melodic / "sub-02" / "ses-1" / "melodic_IC.nii.gz").write_bytes(b"x")
    (melodic / "sub-03" / "ses-1" / "melodic_mix").unlink()
    prepare_ica(tmp_path / "cohort", melodic=[melodic], skip_bad=True)
    findings = examine(tmp_path / "cohort")
    assert sum("was skipped" in f.problem for f in findings) == 3, render(findings)
    found(tmp_path / "cohort", "note", ".", "no component has a network name")


# --- real data


def test_rest20(shared_data: Path) -> None:
    findings = examine(shared_data / "rest20")
    assert {f.level for f in findings} == {"warning"}
    problems = " | ".join(f.problem for f in findings)
    assert "repetition time 0 in the header, 2 s in the JSON" in problems
    assert "2 clusters" in problems
    outlier = [f for f in findings if "robust z" in f.problem]
    assert [("sub-33N" in f.file, "748" in f.problem) for f in outlier] == [(True, True)]
    assert len(findings) == 3


def test_stroke_and_cine(shared_data: Path) -> None:
    assert {f.level for f in examine(shared_data / "stroke-aal116")} == {"note"}
    with pytest.raises(UserError, match="no data here that this version knows; looked for"):
        examine(shared_data / "abide-group-ica")
    for folder in ("acdc-cine25", "emidec30", "video-clips", "dce-osipi/phantoms"):
        assert {f.level for f in examine(shared_data / folder)} <= {"note", "warning"}, folder
