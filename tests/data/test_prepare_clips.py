"""`prepare clips` from the folder to the cohort: whole, restartable, and without anybody's name in it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from clip_sources import acdc
from dicom_tree import SECRETS, phantom, write_stack

from ssl4neuro.cli import main
from ssl4neuro.data.clip import Clip, ClipRows
from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.doctor import examine
from ssl4neuro.data.prepare_clips import prepare_clips
from ssl4neuro.data.readers.acdc import AcdcReader
from ssl4neuro.data.readers.clips import LAYOUTS
from ssl4neuro.data.scan import Scan
from ssl4neuro.errors import UserError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return acdc(tmp_path / "acdc", patients=4)


def test_a_folder_becomes_a_cohort(source: Path, tmp_path: Path) -> None:
    cohort = prepare_clips(tmp_path / "c", source=source, layout="acdc")
    assert isinstance(cohort, ClipCohort)
    assert (len(cohort), cohort.info["subjects"], cohort.name) == (8, 4, "acdc")
    assert cohort.labels("group").tolist() == ["NOR"] * 2 + ["DCM"] * 2 + ["NOR"] * 2 + ["DCM"] * 2, "from Info.cfg"
    assert cohort.info["contract"]["cine"]["cyclic"] is True
    assert {record["file"] for record in cohort.info["sources"]} >= {"patient001/patient001_4d.nii.gz"}
    assert cohort.sessions["n_clips"].tolist() == [2] * 4
    cohort.verify()


def test_the_second_time_nothing_is_read_and_later_only_what_changed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare_clips(tmp_path / "c", source=source, layout="acdc")
    frames = first.clip(5).frames.copy()
    read: list[str] = []
    original = AcdcReader.read

    def spy(self: AcdcReader, scan: Scan) -> ClipRows:
        read.append(scan.subject)
        return original(self, scan)

    monkeypatch.setattr(AcdcReader, "read", spy)
    prepare_clips(tmp_path / "c", source=source, layout="acdc")
    assert read == []
    shutil.rmtree(source / "patient002")
    acdc(tmp_path / "again", patients=5)
    shutil.copytree(tmp_path / "again" / "patient005", source / "patient005")
    changed = prepare_clips(tmp_path / "c", source=source, layout="acdc")
    assert read == ["patient005"]
    assert changed.index["subject"].unique().tolist() == ["patient001", "patient003", "patient004", "patient005"]
    np.testing.assert_array_equal(changed.clip(3).frames, frames)


def test_workers_change_nothing(source: Path, tmp_path: Path) -> None:
    one = prepare_clips(tmp_path / "one", source=source, layout="acdc", name="n")
    two = prepare_clips(tmp_path / "two", source=source, layout="acdc", name="n", workers=2)
    assert one.info["files"]["rows.arrow"]["sha256"] == two.info["files"]["rows.arrow"]["sha256"]


def test_bad_studies_stop_or_are_listed(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = source / "patient003" / "patient003_4d.nii.gz"
    whole.write_bytes(whole.read_bytes()[:2000])
    assert main(["prepare", "clips", str(tmp_path / "c"), "--source", str(source), "--layout", "acdc"]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith(f"error: {whole}: ")
    assert not (tmp_path / "c").exists()
    words = ["prepare", "clips", str(tmp_path / "c"), "--source", str(source), "--layout", "acdc", "--skip-bad"]
    assert main(words) == 0
    cohort = Cohort.open(tmp_path / "c")
    assert cohort.info["subjects"] == 3
    assert cohort.info["skipped"][0]["file"] == "patient003/patient003_4d.nii.gz"
    levels = {finding.level for finding in examine(source)}
    assert "fatal" in levels


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "acdcc"}, "unknown layout 'acdcc'"),
        ({"layout": "acdc", "source": "nowhere"}, "no such folder"),
        ({"layout": "acdc", "interval": -1.0}, "number of seconds"),
        ({"layout": "acdc", "window": 0}, "at least one frame"),
        ({"layout": "emidec"}, "Case_"),
    ],
)
def test_what_cannot_be_is_one_line(source: Path, tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        prepare_clips(tmp_path / "c", **{"source": source, **options})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "c").exists()


class Clinic:
    """A reader of files whose names are patients' names."""

    def __init__(self, source: Path, **options: object) -> None:
        self.source = source

    def scans(self) -> list[Scan]:
        files = sorted(self.source.glob("*/*.dcm"))
        return [Scan(f"sub-{n}", (file,), anonymous=True) for n, file in enumerate(files)]

    def grid(self) -> None:
        return None

    def shared_files(self) -> dict[str, Path]:
        return {}

    def description(self) -> dict[str, dict[str, object]]:
        return {"cine": {"cyclic": True}}

    def read(self, scan: Scan) -> ClipRows:
        if "broken" in scan.files[0].read_text():
            raise UserError(f"{scan.files[0]}: cannot be decoded; export it again")
        seed = int(scan.subject.removeprefix("sub-"))
        frames = np.random.default_rng(seed).integers(0, 99, (6, 32, 32), dtype=np.uint8)
        return ClipRows([Clip(frames)], left_out=[f"{scan.files[0].name}: series 3 has one frame, left out"])


def test_no_name_of_a_patient_reaches_cohort_or_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, "files", Clinic)
    for name, text in (("DOE_JANE", "a"), ("ROE_RICHARD", "broken"), ("MUSTER_MAX", "b")):
        (tmp_path / "HOSPITAL_DOE" / name).mkdir(parents=True)
        (tmp_path / "HOSPITAL_DOE" / name / f"{name}_1970.dcm").write_text(text)
    cohort = prepare_clips(tmp_path / "c", source=tmp_path / "HOSPITAL_DOE", layout="files", skip_bad=True)
    assert cohort.info["subjects"] == 2
    assert len(cohort.info["skipped"]) == 3
    record = json.dumps(cohort.info)
    assert "sha256:" in record
    written = [
        record,
        *[f.read_bytes().decode("latin-1") for f in sorted(tmp_path.rglob("*")) if f.is_file() and f.suffix != ".dcm"],
    ]
    for secret in ("DOE", "JANE", "ROE", "RICHARD", "MUSTER", "1970"):
        assert not any(secret in text for text in written), secret
    assert len(cohort.content_hashes()) == 2


def test_doctor_knows_the_layouts_and_the_cohort(source: Path, tmp_path: Path) -> None:
    found = examine(source)
    assert {f.level for f in found} <= {"note", "warning"}
    assert any("frame times unknown" in f.problem for f in found)
    prepare_clips(tmp_path / "c", source=source, layout="acdc")
    assert not [f for f in examine(tmp_path / "c") if f.level == "fatal"]
    shutil.copytree(source / "patient001", source / "patient009")
    for file in (source / "patient009").iterdir():
        file.rename(file.with_name(file.name.replace("patient001", "patient009")))
    assert any(f.level == "fatal" and "same" in f.problem for f in examine(source))


def test_acdc_as_published(shared_data: Path, tmp_path: Path) -> None:
    cohort = prepare_clips(tmp_path / "c", source=shared_data / "acdc-cine25", layout="acdc")
    assert (cohort.info["subjects"], len(cohort)) == (25, 169)
    assert cohort.info["statistics"]["cine"]["masks"] == 338
    assert not [f for f in examine(shared_data / "acdc-cine25") if f.level == "fatal"]


def test_a_clinics_dicom_folder_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two patients, files in random order, names everywhere: the cohort has the frames in order and nobody's name."""
    source = tmp_path / "EXPORT_DOE_JANE"
    for number, patient in enumerate(("PAT-7781", "PAT-0042")):
        frames = phantom(times=6, slices=3, rows=40, columns=36) + number
        write_stack(source / f"DOE_JANE_{number}", frames, seed=number, PatientID=patient, StudyInstanceUID=f"1.2.{number}")
    table = tmp_path / "names.tsv"
    table.write_text("source\tparticipant_id\nPAT-0042\tsub-a\nPAT-7781\tsub-b\n")
    words = ["prepare", "clips", str(tmp_path / "c"), "--source", str(source), "--layout", "files", "--subjects", str(table)]
    assert main(words) == 0
    cohort = Cohort.open(tmp_path / "c")
    assert isinstance(cohort, ClipCohort)
    assert cohort.index["subject"].tolist() == ["sub-a"] * 3 + ["sub-b"] * 3
    first = phantom(times=6, slices=3, rows=40, columns=36)
    for row in range(3):
        clip = cohort.clip(3 + row)
        np.testing.assert_array_equal(clip.frames, first[clip.slice])
        assert clip.spacing == (1.5, 1.25)
        np.testing.assert_allclose(clip.times, 0.04 * np.arange(6), atol=1e-6)
    assert not [f for f in examine(source) if f.level == "fatal"]
    told = capsys.readouterr()
    written = [
        f.read_bytes().decode("latin-1")
        for folder in (tmp_path / "c", tmp_path / ".c.work")
        for f in folder.rglob("*")
        if f.is_file()
    ]
    for secret in (*SECRETS, "PAT-", "DOE"):
        assert not any(secret in text for text in written), secret
        if secret != "DOE":  # the user's own path
            assert secret not in told.out + told.err, secret
