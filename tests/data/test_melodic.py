"""MELODIC folders: names, repetition time, maps and courses as they are on disk, networks, and what can be wrong with them."""

import gzip
import pickle
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from ssl4neuro.data.readers.melodic import MelodicReader
from ssl4neuro.errors import UserError

AFFINE = np.array([[-8.0, 0, 0, 30], [0, 8, 0, -40], [0, 0, 8, -30], [0, 0, 0, 1]])
SHAPE = (8, 9, 7)
BRAIN = np.zeros(SHAPE, dtype=bool)
BRAIN[1:7, 1:8, 1:6] = True


def write_ica(
    folder: Path, seed: int = 0, components: int = 5, volumes: int = 40, maps: np.ndarray | None = None, tr: float = 1.0
):
    """A MELODIC folder; returns its in-mask maps [C, V] and courses [C, T]."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(components, int(BRAIN.sum()))).astype(np.float32) if maps is None else maps.astype(np.float32)
    data = np.zeros((*SHAPE, len(values)), dtype=np.float32)
    data[BRAIN] = values.T
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_zooms((8, 8, 8, tr))
    nib.save(image, folder / "melodic_IC.nii.gz")
    nib.save(nib.Nifti1Image(BRAIN.astype(np.uint8), AFFINE), folder / "mask.nii.gz")
    courses = rng.normal(size=(len(values), volumes))
    np.savetxt(folder / "melodic_mix", courses.T)
    return values, courses


def names(reader: MelodicReader) -> list[str]:
    return [scan.name for scan in reader.scans()]


def test_reads_what_is_on_disk(tmp_path: Path) -> None:
    maps, courses = write_ica(tmp_path / "sub-01" / "ses-pre")
    reader = MelodicReader([tmp_path])
    rows = reader.read(reader.scans()[0])
    assert np.array_equal(reader.grid().mask, BRAIN)
    assert np.array_equal(reader.grid().affine, AFFINE)
    assert np.array_equal(rows.maps, maps)
    np.testing.assert_allclose(rows.courses, courses, rtol=1e-12)
    assert rows.component.tolist() == [1, 2, 3, 4, 5]
    assert rows.network == [""] * 5
    assert rows.assignment == []
    assert rows.nuisance["n_volumes"] == 40
    assert np.isnan(rows.tr)  # 1 in the header is what FSL leaves when nobody told it


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("sub-01/ses-pre", "sub-01 ses-pre"),
        ("sub-01/ses-pre/rest.ica", "sub-01 ses-pre"),
        ("sub-01_ses-pre.ica", "sub-01 ses-pre"),
        ("sub-01_ses-pre_task-rest_run-2_bold.ica", "sub-01 ses-pre run-2"),
        ("sub-01.ica/filtered_func_data.ica", "sub-01"),
        ("sub-01/func/sub-01_ses-post_run-01_bold.feat/filtered_func_data.ica", "sub-01 ses-post run-01"),
    ],
)
def test_naming(tmp_path: Path, folder: str, name: str) -> None:
    write_ica(tmp_path / folder)
    write_ica(tmp_path / "sub-02")
    assert names(MelodicReader([tmp_path])) == sorted([name, "sub-02"])


def test_subject_above_the_given_folders(tmp_path: Path) -> None:
    for session in ("ses-1", "ses-2"):
        write_ica(tmp_path / "sub-07" / session)
    assert names(MelodicReader([tmp_path / "sub-07" / "ses-1", tmp_path / "sub-07" / "ses-2"])) == [
        "sub-07 ses-1",
        "sub-07 ses-2",
    ]


def test_a_scan_named_twice_on_the_command_line_is_read_once(tmp_path: Path) -> None:
    write_ica(tmp_path / "sub-01")
    assert names(MelodicReader([tmp_path, tmp_path / "sub-01"])) == ["sub-01"]


def test_sessions_table_maps_folders(tmp_path: Path) -> None:
    for folder in ("A17/first", "A17/second", "B2/first"):
        write_ica(tmp_path / "data" / folder / "filtered_func_data.ica")
    with pytest.raises(UserError, match=r"no sub-<name> in its path.*--sessions"):
        MelodicReader([tmp_path / "data"])
    table = tmp_path / "sessions.tsv"
    table.write_text(
        "folder\tparticipant_id\tsession_id\ttr\tstate\n"
        "A17/first\tP1\tpre\t2.5\tx\nA17/second\tP1\tpost\tn/a\tx\ndata/B2\tP2\tpre\t0.72\tx\n"
    )
    (tmp_path / "participants.tsv").write_text("participant_id\tsite\nP1\tX\nP2\tY\n")
    reader = MelodicReader([tmp_path / "data"], sessions=table, participants=tmp_path / "participants.tsv")
    assert [(s.subject, s.session, s.site) for s in reader.scans()] == [
        ("P1", "post", "X"),
        ("P1", "pre", "X"),
        ("P2", "pre", "Y"),
    ]
    tr = [reader.read(scan).tr for scan in reader.scans()]
    assert np.isnan(tr[0])
    assert tr[1:] == [2.5, 0.72]
    assert reader.shared_files() == {"sessions": table}
    table.write_text("folder\tparticipant_id\nA17/first\tP1\n")
    with pytest.raises(UserError, match="second"):
        MelodicReader([tmp_path / "data"], sessions=table)


def test_a_table_of_labels_is_not_a_source(tmp_path: Path) -> None:
    write_ica(tmp_path / "sub-01" / "ses-1")
    table = tmp_path / "sessions.tsv"
    table.write_text("participant_id\tsession_id\tstate\nsub-01\tses-1\tpre\n")
    assert MelodicReader([tmp_path], sessions=table).shared_files() == {}


@pytest.mark.parametrize("source", ["sessions", "json", "json beside", "log", "header"])
def test_repetition_time(tmp_path: Path, source: str) -> None:
    folder = tmp_path / "sub-01_ses-1.ica"
    write_ica(folder, tr=2.2 if source == "header" else 1.0)
    table = None
    if source == "sessions":
        table = tmp_path / "sessions.tsv"
        table.write_text("participant_id\tsession_id\ttr\n01\t1\t2.2\n")
        (folder / "log.txt").write_text("melodic --tr=3")
    elif source == "json":
        (folder / "a.json").write_text('{"RepetitionTime": 2.2}')
        (folder / "log.txt").write_text("melodic --tr=3")
    elif source == "json beside":
        (tmp_path / "sub-01_ses-1.json").write_text('{"RepetitionTime": 2.2}')
    elif source == "log":
        (folder / "log.txt").write_text("Melodic Version 3.15\n\nmelodic -i bold.nii.gz -o out --nobet --tr=2.2 --report\n")
    reader = MelodicReader([tmp_path], sessions=table)
    assert reader.read(reader.scans()[0]).tr == pytest.approx(2.2)


def test_side_files_count_as_sources(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01"
    write_ica(folder)
    (folder / "log.txt").write_text("--tr=2")
    (folder / "melodic_networks.tsv").write_text("component\tnetwork\n2\tDMN\n")
    reader = MelodicReader([tmp_path])
    files = {path.name for path in reader.scans()[0].files}
    assert files == {"melodic_IC.nii.gz", "melodic_mix", "mask.nii.gz", "log.txt", "melodic_networks.tsv"}
    assert reader.read(reader.scans()[0]).network == ["", "DMN", "", "", ""]


@pytest.fixture
def templated(tmp_path: Path) -> Path:
    """Two sessions made of three templates in another order and sign, plus one component of noise."""
    rng = np.random.default_rng(1)
    templates = rng.normal(size=(3, int(BRAIN.sum())))
    noise = rng.normal(size=(1, templates.shape[1]))
    write_ica(tmp_path / "templates", maps=templates)
    (tmp_path / "networks.tsv").write_text("component\tnetwork\n1\tDMN\n2\tVIS\n3\tSMN\n")
    write_ica(tmp_path / "ica" / "sub-01" / "ses-1", maps=np.vstack([templates[[2, 0, 1]], noise]))
    write_ica(tmp_path / "ica" / "sub-01" / "ses-2", maps=np.vstack([noise, -templates[[1, 0]], templates[[0]]]))
    return tmp_path


def test_template_assignment_and_review(templated: Path) -> None:
    options = {"templates": templated / "templates" / "melodic_IC.nii.gz", "networks": templated / "networks.tsv"}
    reader = MelodicReader([templated / "ica"], **options)
    rows = [reader.read(scan) for scan in reader.scans()]
    assert [r.network for r in rows] == [["SMN", "DMN", "VIS", ""], ["", "VIS", "DMN", "DMN"]]
    assert reader.shared_files() == options
    table = pd.DataFrame([line for r in rows for line in r.assignment])
    columns = ["participant_id", "session_id", "run_id", "component", "network", "template", "template_network"]
    assert list(table.columns) == [*columns, "correlation", "second_network", "second_correlation", "assigned"]
    assert len(table) == 8
    assert table.correlation.iloc[5] == pytest.approx(-1, abs=1e-3)

    table.loc[0, "network"] = "FPN"
    table.loc[4, ["network", "assigned"]] = ["AUD", "yes"]
    table.loc[5, ["network", "assigned"]] = ["", "no"]
    edited = templated / "edited.tsv"
    table.to_csv(edited, sep="\t", index=False)
    reader = MelodicReader([templated / "ica"], **options, assignment=edited)
    rows = [reader.read(scan) for scan in reader.scans()]
    assert [r.network for r in rows] == [["FPN", "DMN", "VIS", ""], ["AUD", "", "DMN", "DMN"]]
    assert [line["assigned"] for line in rows[1].assignment] == ["yes", "no", "yes", "yes"]
    assert [line["network"] for line in rows[1].assignment] == rows[1].network
    only_table = MelodicReader([templated / "ica"], assignment=edited)  # no templates needed any more
    assert [only_table.read(scan).network for scan in only_table.scans()] == [r.network for r in rows]


def test_templates_of_another_grid_and_without_names(templated: Path) -> None:
    image = nib.load(templated / "templates" / "melodic_IC.nii.gz")
    padded = np.zeros((12, 13, 11, 3), dtype=np.float32)
    padded[2:10, 2:11, 2:9] = image.get_fdata()
    affine = AFFINE.copy()
    affine[:3, 3] -= AFFINE[:3, :3] @ [2, 2, 2]
    nib.save(nib.Nifti1Image(padded, affine), templated / "padded.nii.gz")
    reader = MelodicReader([templated / "ica"], templates=templated / "padded.nii.gz")
    rows = reader.read(reader.scans()[0])
    assert rows.network == ["template 3", "template 1", "template 2", ""]
    assert rows.assignment[0]["correlation"] == pytest.approx(1, abs=1e-4)


def test_networks_without_templates_name_the_components(tmp_path: Path) -> None:
    write_ica(tmp_path / "sub-01")
    (tmp_path / "n.tsv").write_text("component\tnetwork\n1\tA\n5\tB\n")
    reader = MelodicReader([tmp_path], networks=tmp_path / "n.tsv")
    assert reader.read(reader.scans()[0]).network == ["A", "", "", "", "B"]
    (tmp_path / "n.tsv").write_text("component\tnetwork\n6\tA\n")
    with pytest.raises(UserError, match="component 6 of only 5"):
        reader.read(reader.scans()[0])


def test_review_table_of_other_scans_or_too_many_components(templated: Path) -> None:
    table = templated / "t.tsv"
    table.write_text("participant_id\tsession_id\tcomponent\tnetwork\nsub-99\tses-1\t1\tA\n")
    with pytest.raises(UserError, match="names none of these scans"):
        MelodicReader([templated / "ica"], assignment=table)
    table.write_text("participant_id\tsession_id\tcomponent\tnetwork\nsub-01\tses-1\t9\tA\n")
    reader = MelodicReader([templated / "ica"], assignment=table)
    with pytest.raises(UserError, match="has 4 components, no 9"):
        reader.read(reader.scans()[0])


def test_grid_is_what_all_folders_share(tmp_path: Path) -> None:
    first, _ = write_ica(tmp_path / "sub-01")
    write_ica(tmp_path / "sub-02")
    smaller = BRAIN.copy()
    smaller[1] = False
    nib.save(nib.Nifti1Image(smaller.astype(np.uint8), AFFINE), tmp_path / "sub-02" / "mask.nii.gz")
    reader = MelodicReader([tmp_path])
    assert np.array_equal(reader.grid().mask, smaller)
    full = np.zeros(SHAPE)
    full[BRAIN] = first[0]
    assert np.array_equal(reader.read(reader.scans()[0]).maps[0], full[smaller].astype(np.float32))
    (tmp_path / "sub-01" / "mask.nii.gz").unlink()  # without one: where its maps are not 0
    assert np.array_equal(MelodicReader([tmp_path]).grid().mask, smaller)


def test_given_mask_and_resolution(tmp_path: Path) -> None:
    write_ica(tmp_path / "sub-01")
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[2:5, 2:5, 2:5] = 1
    nib.save(nib.Nifti1Image(mask, AFFINE), tmp_path / "m.nii.gz")
    reader = MelodicReader([tmp_path], mask=tmp_path / "m.nii.gz")
    assert np.array_equal(reader.grid().mask, mask > 0)
    assert reader.read(reader.scans()[0]).maps.shape == (5, 27)
    coarse = MelodicReader([tmp_path], resolution=16.0)
    assert np.allclose(nib.affines.voxel_sizes(coarse.grid().affine), 16)
    assert coarse.read(coarse.scans()[0]).maps.shape == (5, int(coarse.grid().mask.sum()))


def test_folders_of_different_spaces(tmp_path: Path) -> None:
    write_ica(tmp_path / "sub-01")
    write_ica(tmp_path / "sub-02")
    for name in ("melodic_IC.nii.gz", "mask.nii.gz"):
        image = nib.load(tmp_path / "sub-02" / name)
        moved = image.affine.copy()
        moved[0, 3] += 30
        nib.save(nib.Nifti1Image(image.get_fdata().astype(np.float32), moved), tmp_path / "sub-02" / name)
    with pytest.raises(UserError, match=r"sub-02.*one space"):
        MelodicReader([tmp_path]).grid()


def test_goes_to_a_worker_process(templated: Path) -> None:
    reader = MelodicReader([templated / "ica"], templates=templated / "templates" / "melodic_IC.nii.gz")
    reader.grid()
    copy = pickle.loads(pickle.dumps(reader))  # noqa: S301 - our own bytes
    scan = reader.scans()[1]
    assert np.array_equal(copy.read(scan).maps, reader.read(scan).maps)
    assert copy.read(scan).network == reader.read(scan).network


def _break(folder: Path, what: str) -> None:
    mix, ic = folder / "melodic_mix", folder / "melodic_IC.nii.gz"
    lines = mix.read_text().splitlines()
    image = nib.load(ic)
    data = image.get_fdata().astype(np.float32)
    if what == "no mix":
        mix.unlink()
    elif what == "ragged mix":
        mix.write_text("\n".join([*lines[:-1], lines[-1][:30]]))
    elif what == "text mix":
        mix.write_text("not numbers\n")
    elif what == "empty mix":
        mix.write_text("")
    elif what == "one volume":
        mix.write_text(lines[0])
    elif what == "nan mix":
        mix.write_text("\n".join([*lines[:3], "nan " * 5, *lines[4:]]))
    elif what == "fewer columns":
        np.savetxt(mix, np.loadtxt(mix)[:, :4])
    elif what == "transposed":
        np.savetxt(mix, np.loadtxt(mix).T)
    elif what == "3-D":
        nib.save(nib.Nifti1Image(data[..., 0], AFFINE), ic)
    elif what == "nan maps":
        data[3, 3, 3, 1] = np.nan
        nib.save(nib.Nifti1Image(data, AFFINE), ic)
    elif what == "truncated":
        ic.write_bytes(ic.read_bytes()[: ic.stat().st_size // 2])
    elif what == "not an image":
        ic.write_bytes(gzip.compress(b"hello"))
    elif what == "bad json":
        (folder / "x.json").write_text("{")


@pytest.mark.parametrize(
    ("what", "file", "problem"),
    [
        ("no mix", "melodic_mix", "no such file"),
        ("ragged mix", "melodic_mix", "rows of one length"),
        ("text mix", "melodic_mix", "not a table of numbers"),
        ("empty mix", "melodic_mix", "has 0 rows"),
        ("one volume", "melodic_mix", "has 1 rows"),
        ("nan mix", "melodic_mix", "NaN or infinite in row 4"),
        ("fewer columns", "melodic_mix", "4 columns for 5 maps"),
        ("transposed", "melodic_mix", "looks transposed"),
        ("3-D", "melodic_IC.nii.gz", "3-D"),
        ("nan maps", "melodic_IC.nii.gz", "NaN"),
        ("truncated", "melodic_IC.nii.gz", "copy it again"),
        ("not an image", "melodic_IC.nii.gz", "not a readable image"),
        ("bad json", "x.json", "not valid JSON"),
    ],
)
def test_bad_folder(tmp_path: Path, what: str, file: str, problem: str) -> None:
    write_ica(tmp_path / "sub-01")
    _break(tmp_path / "sub-01", what)
    reader = MelodicReader([tmp_path])
    with pytest.raises(UserError, match=problem) as error:
        reader.read(reader.scans()[0])
    assert file in str(error.value).split(":")[0]
    assert "\n" not in str(error.value)


def test_rows_against_the_source_image(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01.feat" / "filtered_func_data.ica"
    write_ica(folder, volumes=40)
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 41), dtype=np.uint8), AFFINE), folder.parent / "filtered_func_data.nii.gz")
    reader = MelodicReader([tmp_path])
    with pytest.raises(UserError, match=r"40 rows, but .*filtered_func_data\.nii\.gz has 41 volumes"):
        reader.read(reader.scans()[0])
    (folder.parent / "filtered_func_data.nii.gz").unlink()
    (tmp_path / "s.tsv").write_text("participant_id\tn_volumes\nsub-01\t39\n")
    reader = MelodicReader([tmp_path], sessions=tmp_path / "s.tsv")
    with pytest.raises(UserError, match="says 39 volumes"):
        reader.read(reader.scans()[0])


def test_nothing_there_and_the_same_scan_twice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        MelodicReader([tmp_path / "none"])
    with pytest.raises(UserError, match=r"no melodic_IC\.nii\.gz"):
        MelodicReader([tmp_path])
    write_ica(tmp_path / "a" / "sub-01")
    shutil.copytree(tmp_path / "a" / "sub-01", tmp_path / "b" / "sub-01")
    with pytest.raises(UserError, match="is sub-01, and so is"):
        MelodicReader([tmp_path])
    with pytest.raises(UserError, match="threshold"):
        MelodicReader([tmp_path / "a"], threshold=25.0)


@pytest.mark.parametrize("tr", ["fast", "2000", "0"])
def test_repetition_time_that_is_none(tmp_path: Path, tr: str) -> None:
    write_ica(tmp_path / "sub-01")
    (tmp_path / "s.tsv").write_text(f"participant_id\ttr\nsub-01\t{tr}\n")
    with pytest.raises(UserError, match="line 2: tr"):
        MelodicReader([tmp_path], sessions=tmp_path / "s.tsv")


def test_a_broken_folder_does_not_spoil_the_grid(tmp_path: Path) -> None:
    """So that `prepare --skip-bad` can go on with the others."""
    for name in ("sub-01", "sub-02", "sub-03"):
        write_ica(tmp_path / name)
    _break(tmp_path / "sub-01", "3-D")
    _break(tmp_path / "sub-02", "truncated")
    (tmp_path / "sub-02" / "mask.nii.gz").unlink()
    reader = MelodicReader([tmp_path])
    assert np.array_equal(reader.grid().mask, BRAIN)
    assert reader.read(reader.scans()[2]).maps.shape == (5, int(BRAIN.sum()))
    with pytest.raises(UserError, match="3-D"):
        reader.read(reader.scans()[0])
    with pytest.raises(UserError, match="copy it again"):
        reader.read(reader.scans()[1])
    shutil.rmtree(tmp_path / "sub-03")
    with pytest.raises(UserError, match="sub-0"):
        MelodicReader([tmp_path]).grid()


def test_prepare_stores_the_review_table_and_takes_it_back(templated: Path) -> None:
    """Through the real `prepare`: assignment.tsv, edited, decides the networks of the next cohort."""
    from ssl4neuro.data.prepare import prepare_ica

    for number in (2, 3):
        shutil.copytree(templated / "ica" / "sub-01", templated / "ica" / f"sub-0{number}")
        for session in ("ses-1", "ses-2"):
            mix = templated / "ica" / f"sub-0{number}" / session / "melodic_mix"
            np.savetxt(mix, np.random.default_rng(number).normal(size=(40, 4)))
            maps = nib.load(mix.parent / "melodic_IC.nii.gz")
            nib.save(nib.Nifti1Image(maps.get_fdata().astype(np.float32) * number, AFFINE), mix.parent / "melodic_IC.nii.gz")
    options = {"templates": templated / "templates" / "melodic_IC.nii.gz", "networks": templated / "networks.tsv"}
    first = prepare_ica(templated / "first", melodic=[templated / "ica"], **options)
    assert first.index.network.tolist() == ["SMN", "DMN", "VIS", "", "", "VIS", "DMN", "DMN"] * 3
    table = pd.read_csv(templated / "first" / "assignment.tsv", sep="\t", keep_default_na=False)
    assert table.network.tolist() == first.index.network.tolist()
    table.loc[3, ["network", "assigned"]] = ["AUD", "yes"]
    table.to_csv(templated / "edited.tsv", sep="\t", index=False)
    second = prepare_ica(templated / "second", melodic=[templated / "ica"], assignment=templated / "edited.tsv", **options)
    assert second.index.network.tolist() == ["SMN", "DMN", "VIS", "AUD", *first.index.network[4:]]


def test_real_group_components(shared_data: Path, tmp_path: Path) -> None:
    """ABIDE's 4 mm components as one folder: recognised from templates on a coarser grid."""
    source = shared_data / "abide-group-ica"
    table = pd.read_csv(source / "RSNs32.csv")
    folder = tmp_path / "sub-abide"
    folder.mkdir()
    shutil.copy(source / "melodic_IC_32_4mm.nii.gz", folder / "melodic_IC.nii.gz")
    np.savetxt(folder / "melodic_mix", np.random.default_rng(0).normal(size=(50, 32)))
    (tmp_path / "n.tsv").write_text(
        "component\tnetwork\n" + "".join(f"{number}\t{name.strip()}\n" for number, name in table.itertuples(index=False))
    )
    reader = MelodicReader([tmp_path], templates=folder / "melodic_IC.nii.gz", networks=tmp_path / "n.tsv", resolution=12.0)
    rows = reader.read(reader.scans()[0])
    truth = dict(zip(table.iloc[:, 0], table.iloc[:, 1].str.strip(), strict=True))
    assert rows.network == [truth.get(number, "") for number in range(1, 33)]
    assert np.isnan(rows.tr)
