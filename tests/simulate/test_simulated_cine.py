"""The cine phantom: what it says about its hearts is what lies in its files, and hypokinesia shows in motion alone."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from ssl4neuro.cli import main
from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.prepare_clips import prepare_clips
from ssl4neuro.errors import UserError
from ssl4neuro.simulate.cine import simulate_cine
from ssl4neuro.simulate.cine_cohort import SimulatedCine
from ssl4neuro.simulate.cine_oracle import CineDifficulty
from ssl4neuro.simulate.cine_settings import CineSettings, ContractionModel
from ssl4neuro.simulate.heart_motion import polar

SMALL = {"frames": (10, 12), "slices": (3, 4)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "p"
    return simulate_cine(out, CineSettings(subjects=6, sites=2, **SMALL), show=False)


@pytest.fixture(scope="module")
def cohort(folder: Path) -> ClipCohort:
    found = prepare_clips(folder.parent / "c", source=folder, layout="bids")
    assert isinstance(found, ClipCohort)
    return found


def digest(folder: Path) -> dict[str, str]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_files_are_what_prepare_reads(folder: Path, cohort: ClipCohort) -> None:
    assert cohort.info["subjects"] == 6
    assert cohort.info["skipped"] == []
    contract = cohort.info["contract"]["cine"]
    assert (contract["cyclic"], contract["channels"], contract["views"]) == (True, [1], ["sax"])
    assert contract["spacing"] == [1.6, 1.75]
    truth = pd.read_csv(folder / "ground_truth" / "scans.tsv", sep="\t").set_index("participant_id")
    for row, line in cohort.index.iterrows():
        clip = cohort.clip(int(row))
        assert line["interval"] == pytest.approx(truth.loc[line["subject"], "interval"], abs=1e-4)
        assert clip.mask_frames is not None
        assert clip.mask_frames.tolist() == [0, truth.loc[line["subject"], "es_frame"]]
    image = nib.load(next(folder.rglob("sub-001*_cine.nii.gz")))
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert image.get_data_dtype() == np.int16


def test_volumes_of_the_masks_are_those_written(folder: Path, cohort: ClipCohort) -> None:
    """Simpson's rule over the slices, as a reader would do it."""
    for subject, rows in cohort.index.groupby("subject"):
        cavity, muscle = np.zeros(2), np.zeros(2)
        for row in rows.index:
            clip = cohort.clip(int(row))
            assert clip.mask is not None
            assert clip.spacing is not None
            area = clip.spacing[0] * clip.spacing[1]
            cavity += area * (clip.mask == 3).sum(axis=(1, 2))
            muscle += area * (clip.mask == 2).sum(axis=(1, 2))
        sidecar = json.loads(next(folder.rglob(f"{subject}*_cine.json")).read_text())
        volumes = cavity * sidecar["SliceThickness"] / 1000
        known = cohort.participants.set_index("participant_id").loc[subject]
        assert volumes == pytest.approx([known["edv"], known["esv"]], rel=0.03)
        assert 100 * (1 - volumes[1] / volumes[0]) == pytest.approx(known["ef"], abs=2)
        assert muscle[1] == pytest.approx(muscle[0], rel=0.03), "muscle is not compressed"


def test_groups_differ_as_their_names_say() -> None:
    simulated = SimulatedCine(CineSettings(subjects=60, sites=1, **SMALL))
    people = [simulated.person(index) for index in range(60)]
    of = {name: [p.body for p in people if p.group == name] for name in ("NOR", "DCM", "HCM", "MINF", "RV")}
    assert all(len(bodies) == 12 for bodies in of.values())
    mean = {
        name: {k: np.mean([getattr(b, k) for b in bodies]) for k in ("edv", "ef", "wall", "rv_edv")}
        for name, bodies in of.items()
    }
    assert mean["DCM"]["edv"] > mean["NOR"]["edv"] + 50
    assert mean["DCM"]["ef"] < mean["NOR"]["ef"] - 0.15
    assert mean["HCM"]["wall"] > mean["NOR"]["wall"] + 2
    assert mean["MINF"]["ef"] < mean["NOR"]["ef"] - 0.1
    assert mean["RV"]["rv_edv"] > mean["NOR"]["rv_edv"] + 40
    assert {p.hypokinetic for p in people if p.group == "MINF"} == {True}
    assert not any(p.hypokinetic for p in people if p.group != "MINF")


def test_hypokinesia_leaves_the_first_frame_alone() -> None:
    """With and without effect the same subject has the same ED frame, bit for bit, and another ES frame."""
    settings = {"subjects": 4, "study": "hypokinesia", "hypokinesia": 1.0, "sites": 1, **SMALL}
    sick, well = (SimulatedCine(CineSettings(**settings, effect=effect)).subject(1) for effect in (1.0, 0.0))
    there, here = sick[1][0], well[1][0]
    np.testing.assert_array_equal(there.frames[:, 0], here.frames[:, 0])
    np.testing.assert_array_equal(there.region, here.region)
    assert there.region.any()
    assert sick[0].severity > 0.2
    assert well[0].severity == 0
    inside = there.region > 0
    es = there.es
    assert es == here.es
    moved = np.abs(there.frames[:, es].astype(float) - here.frames[:, es])
    assert moved[inside].mean() > 3 * moved[:, :10].mean()


def test_a_texture_goes_with_its_tissue() -> None:
    """A point of the muscle has the same brightness wherever it is, in a phantom without noise, blur and shading."""
    simulated = SimulatedCine(CineSettings(subjects=2, sites=1, noise=0.0, **SMALL))
    person, (scan,) = simulated.subject(0)
    motion, spacing = scan.motion[1], scan.spacing[0]
    radius = np.sqrt((person.heart.endo[1, 0] ** 2 + person.heart.epi[1, 0] ** 2) / 2)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    r0, theta0 = polar(scan.frames.shape[2:], spacing, tuple(scan.centres[1]))
    for t in range(scan.frames.shape[1]):
        back_r, back_theta = motion.to_material(*motion.to_frame(np.full(40, radius), angles, t), t)
        np.testing.assert_allclose(back_r, radius, rtol=0.02)
        np.testing.assert_allclose(np.exp(1j * back_theta), np.exp(1j * angles), atol=1e-3)
    assert r0.shape == theta0.shape == scan.frames.shape[2:]
    volumes = scan.lv_volume(person.heart)
    assert int(volumes.argmin()) == scan.es
    assert volumes[0] == pytest.approx(volumes.max(), rel=0.02)


def test_the_same_seed_gives_the_same_bytes_and_others_do_not_matter(folder: Path, tmp_path: Path) -> None:
    fewer = simulate_cine(tmp_path / "fewer", CineSettings(subjects=3, sites=2, **SMALL), show=False)
    there, here = digest(folder), digest(fewer)
    subjects = [name for name in here if name.startswith("sub-")]
    assert len(subjects) == 3 * 4
    assert all(there[name] == here[name] for name in subjects)
    other = simulate_cine(tmp_path / "other", CineSettings(subjects=3, sites=2, seed=1, **SMALL), show=False)
    assert all(digest(other)[name] != here[name] for name in subjects if name.endswith("_cine.nii.gz"))


def test_the_region_is_the_mask_when_asked_for(tmp_path: Path) -> None:
    settings = CineSettings(subjects=4, study="hypokinesia", hypokinesia=1.0, mask="hypokinesia", sites=1, sessions=2, **SMALL)
    out = simulate_cine(tmp_path / "p", settings, show=False)
    found = prepare_clips(tmp_path / "c", source=out, layout="bids")
    assert found.info["scans"] == 8
    slices = pd.read_csv(out / "ground_truth" / "slices.tsv", sep="\t")
    for row, line in found.index.iterrows():
        own = slices[(slices["participant_id"] == line["subject"]) & (slices["session_id"] == line["session"])]
        clip = found.fetch(np.array([row]))["cine"][0]
        area = (clip.mask[0] > 0).sum() * clip.spacing[0] ** 2
        assert area == pytest.approx(float(own["region_mm2"].iloc[line["slice"]]), rel=1e-3)
    assert (int(found.participants["hypokinesia"].sum()), len(found.participants)) == (4, 4)
    assert len(list((out / "ground_truth" / "masks").glob("*_dseg.nii.gz"))) == 8


def test_oracles_see_a_strong_region_in_motion_and_nothing_at_rest() -> None:
    model = ContractionModel(severity=0.8, severity_sd=0.01, scatter=0.1)
    settings = CineSettings(subjects=16, study="hypokinesia", sites=1, contraction=model, **SMALL)
    difficulty = CineDifficulty(settings)
    for person, scans in SimulatedCine(settings):
        for scan in scans:
            difficulty.add(person, scan)
    numbers = json.loads(json.dumps(difficulty.numbers(), allow_nan=False))
    assert numbers["motion_oracle"]["subject"]["auc"] > 0.9
    assert numbers["ed_oracle"]["subject"]["auc"] < 0.85
    assert numbers["ef_oracle"]["r2"] > 0.8
    assert 0 <= numbers["position"]["slice"]["auc"] < numbers["motion_oracle"]["slice"]["auc"]


def test_the_command_tells_how_hard_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "simulate",
        "cine",
        str(tmp_path / "p"),
        "--subjects",
        "4",
        "--frames",
        "8",
        "9",
        "--slices",
        "2",
        "2",
        "--seed",
        "3",
    ]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "oracle that knows the motion model" in told
    assert "nan" not in told
    assert main(words) == 2, "it is there already"
    with pytest.raises(UserError, match="frames"):
        CineSettings(frames=(30, 20))
    assert main(["simulate", "cine", str(tmp_path / "q"), "--subjects", "1"]) == 2
    assert not (tmp_path / "q").exists()
