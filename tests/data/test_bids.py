import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from bids_tree import AFFINE, SHAPE, add_scan, make_tree, save, scan, scan_name
from hypothesis import given
from hypothesis import strategies as st

from ssl4neuro.data.readers.bids import BidsReader, confounds_file, header_tr, load_confounds, mean_displacement
from ssl4neuro.data.readers.bids_names import BidsName, parse_name, repetition_time, sidecars
from ssl4neuro.errors import UserError

KEYS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
VALUES = st.text("abcXYZ0123456789+.", min_size=1, max_size=8)
SUFFIXES = st.text("abcT12w", min_size=1, max_size=6)
EXTENSIONS = st.sampled_from([".nii", ".nii.gz", ".json", ".tsv", ".dtseries.nii"])


@given(entities=st.dictionaries(KEYS, VALUES, max_size=6), suffix=SUFFIXES, extension=EXTENSIONS)
def test_names_survive_a_round_trip(entities: dict[str, str], suffix: str, extension: str) -> None:
    name = BidsName(suffix, extension, entities)
    assert parse_name(str(name)) == name


@given(st.text(max_size=60))
def test_any_text_parses_to_itself_or_not_at_all(text: str) -> None:
    name = parse_name(text)
    assert name is None or str(name) == text


@given(st.text(alphabet=st.sampled_from("ab01-_./\\ \t\nsub"), max_size=30))
def test_no_entity_holds_a_path_or_a_control_character(text: str) -> None:
    name = parse_name(text)
    if name is not None:
        assert not set("".join([*name.entities, *name.entities.values(), name.suffix])) & set("/\\ \t\n_")


def test_fmriprep_name() -> None:
    name = parse_name("sub-01_ses-pre_task-rest_dir-AP_run-2_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz")
    assert name is not None
    assert (name.suffix, name.extension) == ("bold", ".nii.gz")
    assert list(name.entities) == ["sub", "ses", "task", "dir", "run", "space", "res", "desc"]
    assert name.get("run") == "2"
    assert name.get("acq") == ""


def test_an_entity_twice_is_no_name() -> None:
    assert parse_name("sub-01_sub-02_bold.nii.gz") is None


def test_scans_are_sorted_and_complete(tmp_path: Path) -> None:
    for subject, session, run in (("02", "pre", "1"), ("01", "pre", "2"), ("01", "post", "1"), ("01", "pre", "1")):
        add_scan(tmp_path, subject, 0, session=session, run=run)
    found = [(s.subject, s.session, s.run) for s in BidsReader(tmp_path).scans()]
    assert found == [
        ("sub-01", "ses-post", "run-1"),
        ("sub-01", "ses-pre", "run-1"),
        ("sub-01", "ses-pre", "run-2"),
        ("sub-02", "ses-pre", "run-1"),
    ]
    assert [f.suffix for f in BidsReader(tmp_path).scans()[0].files] == [".gz", ".json"]
    assert len(BidsReader(tmp_path, run="01").scans()) == 3


@pytest.mark.parametrize(("name", "option"), [({"task": "nback"}, "--task"), ({"space": "T1w"}, "--space")])
def test_ambiguity_is_refused_with_the_choices(tmp_path: Path, name: dict[str, str], option: str) -> None:
    add_scan(tmp_path, "01", 0)
    add_scan(tmp_path, "01", 1, **name)
    value = next(iter(name.values()))
    with pytest.raises(UserError, match=rf"{value}.*choose one with {option}|choose one with {option} {value}") as caught:
        BidsReader(tmp_path)
    assert {"--task": "rest", "--space": "MNI152"}[option] in str(caught.value)
    chosen = BidsReader(tmp_path, **{option[2:]: value}).scans()
    assert len(chosen) == 1
    assert value in chosen[0].files[0].name
    with pytest.raises(UserError, match=f"no scan with {option[2:]} 'absent'"):
        BidsReader(tmp_path, **{option[2:]: "absent"})


def test_a_space_at_several_resolutions(tmp_path: Path) -> None:
    for res in ("1", "2"):
        add_scan(tmp_path, "01", int(res), space=f"MNI152_res-{res}")
    with pytest.raises(UserError, match="MNI152_res-1, MNI152_res-2"):
        BidsReader(tmp_path, space="MNI152")
    for wanted in ("MNI152_res-2", "MNI152:res-2"):
        assert [s.files[0].name for s in BidsReader(tmp_path, space=wanted).scans()] == [scan_name("01", space="MNI152_res-2")]


def test_other_entities_tell_runs_apart(tmp_path: Path) -> None:
    for direction in ("AP", "PA"):
        add_scan(tmp_path, "01", 0, task=f"rest_dir-{direction}")
    assert [s.run for s in BidsReader(tmp_path).scans()] == ["dir-AP", "dir-PA"]


def test_folder_and_name_disagree(tmp_path: Path) -> None:
    path = add_scan(tmp_path, "01", 0)
    path.rename(path.with_name(path.name.replace("sub-01", "sub-02")))
    with pytest.raises(UserError, match="lies in sub-01 but its name says sub-02"):
        BidsReader(tmp_path)


def test_two_files_for_one_scan(tmp_path: Path) -> None:
    path = add_scan(tmp_path, "01", 0)
    save(path.with_name(path.name.removesuffix(".gz")), scan(0))
    with pytest.raises(UserError, match="keep one of the two files"):
        BidsReader(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        BidsReader(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no sub-\*"):
        BidsReader(tmp_path)
    save(tmp_path / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz", scan(0))
    with pytest.raises(UserError, match="raw scans"):
        BidsReader(tmp_path)
    add_scan(tmp_path / "derivatives" / "fmriprep", "01", 0)
    with pytest.raises(UserError, match="derivatives/fmriprep"):
        BidsReader(tmp_path)


def test_sidecars_are_inherited_nearest_last(tmp_path: Path) -> None:
    path = add_scan(tmp_path, "01", 0, tr=3.0)
    for file, tr in (
        (tmp_path / "task-rest_bold.json", 1.5),
        (tmp_path / "task-other_bold.json", 9.0),
        (tmp_path / "bold.json", 0.9),
    ):
        file.write_text(json.dumps({"RepetitionTime": tr}))
    (tmp_path / "sub-01" / "sub-01_task-rest_T1w.json").write_text(json.dumps({"RepetitionTime": 8.0}))
    files = sidecars(path, tmp_path)
    assert [f.name for f in files] == ["bold.json", "task-rest_bold.json", path.name.replace(".nii.gz", ".json")]
    assert repetition_time(files) == 3.0
    files[-1].write_text("{}")
    assert repetition_time(files) == 1.5


@pytest.mark.parametrize("value", ["2.0", 0, -1, 2000, True, [2.0]])
def test_repetition_times_that_are_none(tmp_path: Path, value: object) -> None:
    (tmp_path / "bold.json").write_text(json.dumps({"RepetitionTime": value}))
    with pytest.raises(UserError, match=r"bold\.json: RepetitionTime"):
        repetition_time([tmp_path / "bold.json"])


def test_damaged_sidecar(tmp_path: Path) -> None:
    for text in ("{", "[1]"):
        (tmp_path / "bold.json").write_text(text)
        with pytest.raises(UserError, match="JSON"):
            repetition_time([tmp_path / "bold.json"])


@pytest.mark.parametrize(
    ("zoom", "unit", "expected"), [(0.0, "sec", None), (1.0, "sec", None), (2.5, "sec", 2.5), (720, "msec", 0.72)]
)
def test_header_time(tmp_path: Path, zoom: float, unit: str, expected: float | None) -> None:
    image = nib.Nifti1Image(np.zeros((2, 2, 2, 3), dtype=np.float32), AFFINE)
    image.header.set_zooms((8, 8, 8, zoom))
    image.header.set_xyzt_units("mm", unit)
    nib.save(image, tmp_path / "a.nii")
    found = header_tr(nib.load(tmp_path / "a.nii"))
    assert np.isnan(found) if expected is None else found == pytest.approx(expected)


def write_confounds(path: Path, volumes: int = 40, seed: int = 0) -> Path:
    """A table with the columns of nilearn's strategy `simple` and of scrubbing."""
    rng = np.random.default_rng(seed)
    motion = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    names = [*motion, "white_matter", "csf", "global_signal"]
    columns = {}
    for name in names:
        values = rng.standard_normal(volumes) * 0.01
        columns[name] = values
        columns[f"{name}_derivative1"] = np.r_[np.nan, np.diff(values)]
        columns[f"{name}_power2"] = values**2
        columns[f"{name}_derivative1_power2"] = columns[f"{name}_derivative1"] ** 2
    columns["cosine00"] = np.cos(np.pi * np.arange(volumes) / volumes)
    columns["framewise_displacement"] = np.r_[np.nan, np.linspace(0.1, 0.3, volumes - 1)]
    columns["std_dvars"] = np.r_[np.nan, np.ones(volumes - 1)]
    file = path.with_name("sub-01_task-rest_desc-confounds_timeseries.tsv")
    pd.DataFrame(columns).to_csv(file, sep="\t", na_rep="n/a", index=False)
    meta = {name: {"Method": "Mean"} for name in ("white_matter", "csf", "global_signal")}
    file.with_suffix(".json").write_text(json.dumps(meta))
    return file


def test_mean_displacement(tmp_path: Path) -> None:
    path = add_scan(tmp_path, "01", 0)
    assert np.isnan(mean_displacement(path))
    file = write_confounds(path)
    assert confounds_file(path) == file
    assert mean_displacement(path) == pytest.approx(0.2)
    assert mean_displacement(path, drop=20) == pytest.approx(np.linspace(0.1, 0.3, 39)[19:].mean())
    assert file in BidsReader(tmp_path).scans()[0].files


def test_simple_confounds_and_dropped_volumes(tmp_path: Path) -> None:
    path = add_scan(tmp_path, "01", 0)
    write_confounds(path)
    values, kept = load_confounds(path, "simple", 40, drop=3)
    assert values is not None
    assert values.shape[0] == 37
    assert np.isfinite(values).all()
    assert kept is None
    with pytest.raises(UserError, match=r"has 40 rows, but .* 41 volumes"):
        load_confounds(path, "simple", 41)


def test_scrubbing_keeps_still_volumes(tmp_path: Path) -> None:
    path = add_scan(tmp_path, "01", 0)
    file = write_confounds(path)
    table = pd.read_csv(file, sep="\t", na_values="n/a")
    table.loc[20, "framewise_displacement"] = 5.0
    table.to_csv(file, sep="\t", na_rep="n/a", index=False)
    _, kept = load_confounds(path, "scrubbing", 40, drop=2)
    assert kept is not None
    assert 18 not in kept
    assert kept.max() <= 37


def test_missing_confounds(tmp_path: Path) -> None:
    path = add_scan(tmp_path, "01", 0)
    with pytest.raises(UserError, match="desc-confounds_timeseries"):
        load_confounds(path, "simple", 40)
    with pytest.raises(UserError, match=r"--confounds simpel.*did you mean 'simple'"):
        BidsReader(tmp_path, confounds="simpel")
    file = write_confounds(path)
    pd.read_csv(file, sep="\t")[["trans_x"]].to_csv(file, sep="\t", index=False)
    with pytest.raises(UserError, match="--confounds simple is not possible") as caught:
        load_confounds(path, "simple", 40)
    assert "\n" not in str(caught.value)


def test_read_with_confounds_and_band(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", 1)
    write_confounds(root / "sub-01" / "func" / scan_name("01"))
    reader = BidsReader(root, maps=root / "maps.nii.gz", mask=root / "mask.nii.gz", networks=root / "networks.tsv")
    plain = reader.read(reader.scans()[0])
    assert plain.network == ["motor", "vision", "language", "frontal"]
    assert plain.tr == 2.0
    assert plain.maps is not None
    assert plain.maps.shape == (4, 60)
    assert plain.nuisance["mean_fd"] == pytest.approx(0.2)
    assert plain.nuisance["tsnr"] > 1
    options = {"confounds": "simple", "band": (0.02, 0.2), "drop_volumes": 2}
    cleaned = BidsReader(root, maps=root / "maps.nii.gz", mask=root / "mask.nii.gz", **options)
    rows = cleaned.read(cleaned.scans()[0])
    assert rows.courses.shape == (4, 38)
    assert rows.nuisance["n_volumes"] == 38
    assert cleaned.description()["course"]["band"] == [0.02, 0.2]
    power = np.abs(np.fft.rfft(rows.courses, axis=1)) ** 2
    frequency = np.fft.rfftfreq(38, 2.0)
    assert power[:, frequency > 0.23].sum() < 0.05 * power.sum()


@pytest.mark.parametrize(
    ("values", "message"), [(scan(0)[..., 0], "3-D"), (scan(0)[..., :1], "has 1 volume,"), (scan(0)[..., :5], "5 vol")]
)
def test_too_few_volumes(tmp_path: Path, values: np.ndarray, message: str) -> None:
    root = make_tree(tmp_path, 1)
    path = save(root / "sub-01" / "func" / scan_name("01"), values)
    reader = BidsReader(root, maps=root / "maps.nii.gz")
    with pytest.raises(UserError, match=message) as caught:
        reader.read(reader.scans()[0])
    assert str(caught.value).startswith(str(path))


def test_maps_must_be_4d_and_given(tmp_path: Path) -> None:
    root = make_tree(tmp_path, 1)
    flat = save(root / "flat.nii.gz", np.ones(SHAPE, dtype=np.float32))
    with pytest.raises(UserError, match=r"flat\.nii\.gz: is 3-D"):
        BidsReader(root, maps=flat).grid()
    with pytest.raises(UserError, match="no such file"):
        BidsReader(root, maps=root / "absent.nii.gz").grid()
    with pytest.raises(UserError, match="--maps FILE or --canica K"):
        BidsReader(root).grid()


def test_halves_of_a_scan_keep_the_templates_sign(shared_data: Path, tmp_path: Path) -> None:
    """Skewness flips 37 % of the components between the halves of one scan of rest20; the template does not."""
    import nibabel as nib

    from ssl4neuro.data.prepare import prepare_ica

    source = shared_data / "rest20"
    courses = []
    for half in range(2):
        for subject in ("sub-14R", "sub-1DH"):
            folder = tmp_path / f"half{half}" / subject / "func"
            folder.mkdir(parents=True)
            bold = next((source / subject / "func").glob("*_bold.nii.gz"))
            image = nib.load(bold)
            nib.save(image.slicer[..., half * 74 : (half + 1) * 74], folder / bold.name)
            json_file = bold.with_name(bold.name.replace(".nii.gz", ".json"))
            (folder / json_file.name).write_text(json_file.read_text())
        maps, mask = source / "neuromark53_maps.nii.gz", source / "mask.nii.gz"
        cohort = prepare_ica(tmp_path / f"cohort{half}", bids=tmp_path / f"half{half}", maps=maps, mask=mask, name="halves")
        assert cohort.info["contract"]["map"]["sign"] == "of the template"
        courses.append(np.stack(cohort.fetch(np.arange(106))["course"]).reshape(2, 53, 74))
    edges = [np.stack([np.corrcoef(c)[np.triu_indices(53, 1)] for c in half]) for half in courses]
    same = [np.corrcoef(edges[0][s], edges[1][s])[0, 1] for s in range(2)]
    other = [np.corrcoef(edges[0][s], edges[1][1 - s])[0, 1] for s in range(2)]
    assert min(same) > 0.4
    assert min(same) > max(other)
