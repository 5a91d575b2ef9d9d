"""What `simulate ica` writes: formats, geometry, truth, the same bytes for the same seed, readable by our own reader."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from ssl4neuro.data.readers.melodic import MelodicReader
from ssl4neuro.errors import UserError
from ssl4neuro.simulate.cohort import IcaSettings, SimulatedCohort
from ssl4neuro.simulate.ica import simulate_ica


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_ica(tmp_path_factory.mktemp("simulated") / "data", subjects=3, seed=5, show=False)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes(folder: Path, tmp_path: Path):
    assert hashes(folder) == hashes(simulate_ica(tmp_path / "again", subjects=3, seed=5, show=False))


def test_more_subjects_leave_the_first_ones_as_they_are(folder: Path, tmp_path: Path):
    larger = hashes(simulate_ica(tmp_path / "larger", subjects=5, seed=5, show=False))
    shared = {name: value for name, value in hashes(folder).items() if name.startswith("sub-")}
    assert len(shared) == 3 * 2 * 4
    assert shared.items() <= larger.items()
    assert (tmp_path / "larger" / "sub-005" / "ses-post" / "melodic_mix").is_file()


def test_images_hold_the_cohort(folder: Path):
    cohort = SimulatedCohort(IcaSettings(subjects=3, seed=5))
    _, scans = cohort.subject(1)
    for scan in scans:
        image = nib.load(folder / "sub-002" / scan.session / "melodic_IC.nii.gz")
        assert image.get_data_dtype() == np.float32
        assert image.shape == (*cohort.brain.mask.shape, 5)
        np.testing.assert_array_equal(image.affine, cohort.brain.affine)
        assert image.header["sform_code"] == 4
        assert image.header["qform_code"] == 4
        assert image.header.get_zooms()[3] == 2.0
        assert image.header.get_xyzt_units() == ("mm", "sec")
        data = np.moveaxis(np.asarray(image.dataobj), -1, 0)
        np.testing.assert_array_equal(data[:, cohort.brain.mask], scan.maps)
        assert not data[:, ~cohort.brain.mask].any()
        mask = nib.load(folder / "sub-002" / scan.session / "mask.nii.gz")
        np.testing.assert_array_equal(np.asarray(mask.dataobj) > 0, cohort.brain.mask)
        mix = np.loadtxt(folder / "sub-002" / scan.session / "melodic_mix")
        np.testing.assert_allclose(mix, scan.courses.T, rtol=1e-4, atol=1e-6)


def test_language_lies_on_the_left_in_the_written_template(folder: Path):
    image = nib.load(folder / "templates.nii.gz")
    names = pd.read_csv(folder / "networks.tsv", sep="\t").network.tolist()
    language = np.asarray(image.dataobj)[..., names.index("language")]
    peak = nib.affines.apply_affine(image.affine, np.unravel_index(language.argmax(), language.shape))
    assert peak[0] < -40
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")


def test_tables(folder: Path):
    people = pd.read_csv(folder / "participants.tsv", sep="\t")
    sessions = pd.read_csv(folder / "sessions.tsv", sep="\t")
    assert list(people.columns) == ["participant_id", "age", "sex", "site"]
    assert len(people) == 3
    assert set(people.site) == {"site-1", "site-2"}
    assert list(sessions.columns) == ["participant_id", "session_id", "state", "tr", "mean_fd", "tsnr"]
    assert sessions.groupby("participant_id").state.apply(list).tolist() == [["pre", "post"]] * 3
    assert json.loads((folder / "dataset_description.json").read_text())["Name"] == "ssl4neuro simulated ICA, seed 5"


def test_truth_undoes_what_was_done(folder: Path):
    truth = folder / "ground_truth"
    components = pd.read_csv(truth / "components.tsv", sep="\t")
    templates = np.asarray(nib.load(folder / "templates.nii.gz").dataobj)
    names = pd.read_csv(folder / "networks.tsv", sep="\t").network.tolist()
    for (subject, session), rows in components.groupby(["participant_id", "session_id"]):
        labels = pd.read_csv(folder / subject / session / "melodic_networks.tsv", sep="\t")
        assert labels.network.tolist() == rows.network.tolist()
        maps = np.asarray(nib.load(folder / subject / session / "melodic_IC.nii.gz").dataobj)
        for row in rows.itertuples():
            own = maps[..., row.component - 1] * row.sign
            assert np.corrcoef(own.ravel(), templates[..., names.index(row.network)].ravel())[0, 1] > 0
    numbers = json.loads((truth / "truth.json").read_text())
    assert numbers["settings"]["seed"] == 5
    assert numbers["settings"]["maps"]["noise"] > 0
    assert 0.5 < numbers["difficulty"]["oracle"]["session"]["auc"] <= 1
    effect = nib.load(truth / "effect_motor.nii.gz")
    assert effect.shape == templates.shape[:3]
    assert np.asarray(effect.dataobj).max() > 0.1
    assert nib.load(truth / "subjects" / "sub-003.nii.gz").shape == templates.shape
    assert len(pd.read_csv(truth / "subjects.tsv", sep="\t")) == 3 * 5


def test_our_reader_takes_it(folder: Path):
    reader = MelodicReader([folder], sessions=folder / "sessions.tsv", participants=folder / "participants.tsv")
    scans = reader.scans()
    assert [(s.subject, s.session) for s in scans[:2]] == [("sub-001", "ses-post"), ("sub-001", "ses-pre")]
    rows = reader.read(scans[0])
    told = pd.read_csv(folder / "sub-001" / "ses-post" / "melodic_networks.tsv", sep="\t")
    assert rows.network == told.network.tolist()
    assert rows.tr == 2.0
    assert rows.maps.shape == (5, int(reader.grid().mask.sum()))
    assert rows.courses.shape[0] == 5


def test_summary_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture):
    simulate_ica(tmp_path / "tiny", subjects=2, networks=1)
    text = capsys.readouterr().out
    assert "oracle" in text
    assert "PCA + logistic" in text
    assert "2 subjects x 2 sessions" in text


def test_existing_folder_and_unknown_format_are_refused(folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match="exists already"):
        simulate_ica(folder, subjects=2)
    with pytest.raises(UserError, match="--format gift"):
        simulate_ica(tmp_path / "other", subjects=2, format="gift")
    with pytest.raises(UserError, match="subjects 1"):
        simulate_ica(tmp_path / "other", subjects=1)
    assert not list(tmp_path.iterdir())
