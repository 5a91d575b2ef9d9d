"""Folders of any files: who is whose, which files count, the same motion from every format, DICOM under numbers only."""

import pickle
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ssl4neuro.data.clip import Clip, ClipRows
from ssl4neuro.data.readers import files as files_module
from ssl4neuro.data.readers.files import FileReader
from ssl4neuro.errors import UserError


def movie() -> np.ndarray:
    """[t, row, column]: the dot moves down by one row per frame, in column 3."""
    values = np.full((5, 10, 14), 20, dtype=np.uint8)
    for t in range(5):
        values[t, 2 + t, 3] = 250
    return values


def write(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, frames=values)
    elif path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(values.transpose(2, 1, 0)[:, :, None], np.diag([0.5, 0.25, 4.0, 1.0])), path)
    else:
        pages = [Image.fromarray(frame) for frame in values]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.nii", "a.nii.gz", "a.tif", "a.tiff", "a.gif"])
def test_every_format_has_the_same_axes(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, movie())
    reader = FileReader(tmp_path, view="v", interval=0.5)
    (scan,) = reader.scans()
    (clip,) = pickle.loads(pickle.dumps(reader)).read(scan).clips  # noqa: S301
    assert np.array_equal(clip.frames, movie())
    assert clip.view == "v"
    assert clip.times == pytest.approx(0.5 * np.arange(5) if not name.endswith("gif") else clip.times)
    assert clip.spacing == ((0.25, 0.5) if "nii" in name else None)
    assert reader.description() == {"cine": {"cyclic": None}}


def test_subjects_sessions_and_runs(tmp_path: Path) -> None:
    for name in ("ann/ses-2/x.npy", "ann/ses-1/y.npy", "bob/b.npy", "bob/a.npz", "carl.npy", ".hidden/z.npy"):
        write(tmp_path / name, movie())
    (tmp_path / "readme.txt").write_text("x")
    found = [(s.subject, s.session, s.run, s.files[0].name) for s in FileReader(tmp_path).scans()]
    assert found == [
        ("ann", "ses-1", "", "y.npy"),
        ("ann", "ses-2", "", "x.npy"),
        ("bob", "", "run-1", "a.npz"),
        ("bob", "", "run-2", "b.npy"),
        ("carl", "", "", "carl.npy"),
    ]
    table = tmp_path / "map.tsv"
    table.write_text("source\tparticipant_id\nann\tS1\nbob\tS2\ncarl\tS3\n")
    assert [scan.subject for scan in FileReader(tmp_path, subjects=table).scans()] == ["S1", "S1", "S2", "S2", "S3"]


def test_mask_beside_an_image(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz", movie())
    write(tmp_path / "a_mask.nii.gz", (movie() > 100).astype(np.uint8))
    (scan,) = FileReader(tmp_path).scans()
    (clip,) = FileReader(tmp_path).read(scan).clips
    assert clip.mask is not None
    assert np.array_equal(clip.mask, movie() > 100)
    write(tmp_path / "a_mask.nii.gz", np.ones((5, 14, 10), np.uint8))
    with pytest.raises(UserError, match=r"a_mask.nii.gz: is 10×14×1×5, but a.nii.gz is 14×10×1×5"):
        FileReader(tmp_path).read(scan)


def test_windows_and_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of its 0 files"):
        FileReader(tmp_path)
    path = write(tmp_path / "a.npy", movie())
    rows = FileReader(path, window=4).read(FileReader(path).scans()[0])
    assert [len(clip.frames) for clip in rows.clips] == [4]
    assert "1 frames at the end" in rows.left_out[0]
    np.save(path, np.full((4, 8, 8), 3.0))
    with pytest.raises(UserError, match="constant"):
        FileReader(path).read(FileReader(path).scans()[0])
    with pytest.raises(ValueError, match="window 0"):
        FileReader(path, window=0)
    with pytest.raises(UserError, match="no such file"):
        FileReader(tmp_path / "none")


@dataclass(frozen=True)
class Study:
    patient: str
    key: str
    session: str
    files: tuple[Path, ...]


def stand_in() -> types.SimpleNamespace:
    """What `readers/dicom.py` offers: one study per file `PATIENT.dcm`."""

    def read(files: Sequence[Path], **options: object) -> ClipRows:
        return ClipRows([Clip(movie(), str(options["view"]))])

    return types.SimpleNamespace(
        is_dicom=lambda path: path.suffix == ".dcm",
        dicom_studies=lambda root, files: [Study(f.stem, f.stem[::-1], "", (f,)) for f in files],
        read_dicom_study=read,
    )


def test_dicom_patients_are_numbered_or_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files_module, "_dicom", stand_in)
    source = tmp_path / "in"
    source.mkdir()
    for name in ("ROE^R.dcm", "DOE^J.dcm", "unknown.bin"):
        (source / name).write_bytes(b"x")
    reader = FileReader(source, view="4ch")
    assert [(s.subject, s.files[0].stem, s.anonymous) for s in reader.scans()] == [
        ("sub-0001", "DOE^J", True),
        ("sub-0002", "ROE^R", True),
    ]
    assert reader.read(reader.scans()[0]).clips[0].view == "4ch"
    said = capsys.readouterr()
    assert "--subjects" in said.err
    assert "OE^" not in said.out + said.err
    table = tmp_path / "map.tsv"
    table.write_text("source\tparticipant_id\nDOE^J\tP9\nROE^R\tP8\n")
    assert [(s.subject, s.files[0].stem) for s in FileReader(source, subjects=table).scans()] == [
        ("P8", "ROE^R"),
        ("P9", "DOE^J"),
    ]
    table.write_text("source\tparticipant_id\nDOE^J\tP9\n")
    with pytest.raises(UserError, match="does not list 1 of 2 patients") as caught:
        FileReader(source, subjects=table)
    assert "OE^" not in str(caught.value)


def test_real_microscopy(shared_data: Path) -> None:
    path = shared_data / "video-clips" / "intravital_vessel.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    reader = FileReader(path)
    (clip,) = reader.read(reader.scans()[0]).clips
    assert clip.frames.shape == (20, 131, 271, 3)
    assert clip.frames.dtype == np.uint8


def test_real_echo(shared_data: Path) -> None:
    pytest.importorskip("pydicom")
    path = shared_data / "video-clips" / "echo_multiframe.dcm"
    if not path.is_file():
        pytest.skip(f"no {path}")
    reader = FileReader(path)
    (scan,) = reader.scans()
    assert (scan.subject, scan.anonymous) == ("sub-0001", True)
    assert sum(len(clip.frames) for clip in reader.read(scan).clips) == 30
