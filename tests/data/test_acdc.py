"""ACDC's layout: axis order, masks on their frames, what headers may be believed, contradictions."""

import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ssl4neuro.data.readers.acdc import AcdcReader
from ssl4neuro.data.readers.clips import LAYOUTS
from ssl4neuro.data.scan import Reader
from ssl4neuro.errors import UserError

SHAPE = (12, 9, 3, 6)  # x, y, z, t


def moving_dot(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """[x, y, z, t]: over a background the dot moves down (y) by one row per frame, and right (x) by two columns per slice."""
    values = np.full(shape, 10, dtype=np.int16)
    for z in range(shape[2]):
        for t in range(shape[3]):
            values[1 + 2 * z, 2 + t, z, t] = 500
    return values


def save(path: Path, values: np.ndarray, zooms: tuple[float, ...] = (1.5, 1.25, 8.0, 1.0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, np.diag([*zooms[:3], 1.0]))
    image.header.set_zooms(zooms[: values.ndim])
    nib.save(image, path)
    return path


def patient(root: Path, name: str = "patient001", zooms: tuple[float, ...] = (1.5, 1.25, 8.0, 1.0), info: str = "") -> Path:
    folder, movie = root / name, moving_dot()
    save(folder / f"{name}_4d.nii.gz", movie, zooms)
    for number, label in ((1, 3), (4, 2)):
        save(folder / f"{name}_frame{number:02d}.nii.gz", movie[..., number - 1], zooms)
        save(folder / f"{name}_frame{number:02d}_gt.nii.gz", (movie[..., number - 1] > 100).astype(np.uint8) * label, zooms)
    (folder / "Info.cfg").write_text(info or "ED: 1\nES: 4\nGroup: DCM\nHeight: 180.0\nNbFrame: 6\nWeight: 70.0\n")
    return folder


def test_axis_order_of_clips_and_masks(tmp_path: Path) -> None:
    patient(tmp_path)
    reader = AcdcReader(tmp_path)
    rows = reader.read(reader.scans()[0])
    assert [clip.slice for clip in rows.clips] == [0, 1, 2]
    for z, clip in enumerate(rows.clips):
        assert clip.frames.shape == (6, 9, 12)
        assert clip.frames.dtype == np.int16
        for t, frame in enumerate(clip.frames):
            assert np.unravel_index(frame.argmax(), frame.shape) == (2 + t, 1 + 2 * z)  # row, column
        assert clip.mask is not None
        assert clip.mask_frames is not None
        assert clip.mask_frames.tolist() == [0, 3]
        for mask, t, label in zip(clip.mask, clip.mask_frames, (3, 2), strict=True):
            assert np.array_equal(mask > 0, clip.frames[t] > 100)
            assert mask.max() == label
        assert clip.spacing == (1.25, 1.5)
        assert clip.times is None  # the header's 1.0 is a placeholder
        assert clip.view == "sax"
    assert rows.nuisance == {"n_frames": 6.0, "n_slices": 3.0}
    assert reader.description() == {"cine": {"cyclic": True}}
    assert isinstance(reader, Reader)
    assert LAYOUTS["acdc"] is AcdcReader
    assert len(pickle.loads(pickle.dumps(reader)).read(reader.scans()[0]).clips) == 3  # noqa: S301


def test_scaled_integers_come_back_as_they_were_scanned(tmp_path: Path) -> None:
    folder = patient(tmp_path)
    image = nib.Nifti1Image(moving_dot().astype(np.float32), np.eye(4))
    image.set_data_dtype(np.int16)  # nibabel now stretches 10..500 over all of int16
    path = folder / "patient001_4d.nii.gz"
    nib.save(image, path)
    assert nib.load(path).dataobj.slope != 1
    reader = AcdcReader(tmp_path)
    frames = reader.read(reader.scans()[0]).clips[1].frames
    assert frames.dtype == np.int16
    assert np.array_equal(frames, moving_dot()[:, :, 1].transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("header", "interval", "wanted"), [(0.04, None, 0.04), (0.04, 0.1, 0.04), (1.0, 0.1, 0.1), (60.0, None, None)]
)
def test_frame_time(tmp_path: Path, header: float, interval: float | None, wanted: float | None) -> None:
    patient(tmp_path, zooms=(1.5, 1.25, 8.0, header))
    reader = AcdcReader(tmp_path, interval=interval)
    times = reader.read(reader.scans()[0]).clips[0].times
    assert times is None if wanted is None else times == pytest.approx(wanted * np.arange(6))


@pytest.mark.parametrize(
    ("size", "stated", "wanted"), [(1.0, None, None), (1.0, "True", (1.0, 1.0)), (1.5, "False", None), (1.5, None, (1.5, 1.5))]
)
def test_spacing_is_what_is_known(tmp_path: Path, size: float, stated: str | None, wanted: object) -> None:
    patient(tmp_path, zooms=(size, size, 8.0, 1.0))
    column = "" if stated is None else f"\t{stated}"
    head = "" if stated is None else "\tspacing_known"
    (tmp_path / "participants.tsv").write_text(f"participant_id{head}\npatient001{column}\n")
    reader = AcdcReader(tmp_path)
    assert reader.read(reader.scans()[0]).clips[0].spacing == wanted
    assert ("participants" in reader.shared_files()) == (stated is not None)


def test_official_nesting_subjects_and_labels(tmp_path: Path) -> None:
    patient(tmp_path / "training", "patient002")
    patient(tmp_path / "testing", "patient001", info="ED: 1\nES: 4\nGroup: NOR\nNbFrame: 6\n")
    assert [scan.subject for scan in AcdcReader(tmp_path).scans()] == ["patient001", "patient002"]
    labels = AcdcReader(tmp_path).labels()
    assert labels is not None
    assert labels.to_dict("list") == {
        "participant_id": ["patient001", "patient002"],
        "group": ["NOR", "DCM"],
        "height": ["", "180.0"],
        "weight": ["", "70.0"],
    }
    table = tmp_path / "map.tsv"
    table.write_text("source\tparticipant_id\npatient001\tsub-b\npatient002\tsub-a\n")
    assert [scan.subject for scan in AcdcReader(tmp_path, subjects=table).scans()] == ["sub-a", "sub-b"]
    table.write_text("source\tparticipant_id\npatient001\tsub-b\n")
    with pytest.raises(UserError, match="does not list 'patient002'"):
        AcdcReader(tmp_path, subjects=table)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: save(f / "patient001_frame09_gt.nii.gz", np.zeros(SHAPE[:3], np.uint8)), "is frame 9.*frames 1 to 6"),
        (lambda f: save(f / "patient001_frame01_gt.nii.gz", np.zeros((9, 12, 3), np.uint8)), "9×12×3.*12×9×3"),
        (lambda f: save(f / "patient001_frame01.nii.gz", np.zeros((12, 9, 2), np.int16)), "12×9×2.*12×9×3"),
        (lambda f: (f / "Info.cfg").write_text("NbFrame: 7\n"), "NbFrame 7.*6 frames"),
        (lambda f: (f / "Info.cfg").write_text("ES: 8\n"), "ES 8.*6 frames"),
        (lambda f: (f / "Info.cfg").write_text("ED: first\n"), "ED 'first'"),
        (lambda f: save(f / "patient001_4d.nii.gz", moving_dot()[..., 0]), "is 3-D"),
        (lambda f: save(f / "patient001_frame01_gt.nii.gz", np.full(SHAPE[:3], 0.5, np.float32)), "no labels"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, spoil: object, message: str) -> None:
    spoil(patient(tmp_path))  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        AcdcReader(tmp_path).read(AcdcReader(tmp_path).scans()[0])


def test_cut_short_constant_slice_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no patientXXX"):
        AcdcReader(tmp_path)
    path = patient(tmp_path) / "patient001_4d.nii.gz"
    movie = moving_dot()
    movie[:, :, 1] = 7
    save(path, movie)
    with pytest.raises(UserError, match=r"slice 2 is constant.*--skip-bad"):
        AcdcReader(tmp_path).read(AcdcReader(tmp_path).scans()[0])
    lenient = AcdcReader(tmp_path, skip_bad=True)
    rows = lenient.read(lenient.scans()[0])
    assert [clip.slice for clip in rows.clips] == [0, 2]
    assert len(rows.left_out) == 1
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UserError, match="cannot be read to its end"):
        AcdcReader(tmp_path).read(AcdcReader(tmp_path).scans()[0])
    path.unlink()
    with pytest.raises(UserError, match=r"no \*_4d"):
        AcdcReader(tmp_path)


def test_real_patients(shared_data: Path) -> None:
    source = shared_data / "acdc-cine25"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    reader = AcdcReader(source)
    assert len(reader.scans()) == 25
    clips = 0
    for scan in reader.scans():
        rows = reader.read(scan)
        clips += len(rows.clips)
        assert {(clip.spacing is None, clip.times is None) for clip in rows.clips} <= {(True, True), (False, True)}
        for clip in rows.clips:
            assert clip.frames.shape[1:] == (95, 100)
            assert clip.frames.dtype.kind in "iu"
    assert clips == 169
    # The labelled frames are the frames that they are numbered after: their own files hold the same image.
    scan = next(scan for scan in reader.scans() if scan.subject == "patient061")
    frame = nib.load(source / "patient061" / "patient061_frame10.nii.gz").get_fdata()
    rows = reader.read(scan)
    for z, clip in enumerate(rows.clips):
        agreement = [np.corrcoef(image.ravel(), frame[:, :, z].T.ravel())[0, 1] for image in clip.frames]
        assert int(np.argmax(agreement)) == 9
        assert agreement[9] > 0.999
    labels = reader.labels()
    assert labels is not None
    assert labels["group"].value_counts().to_dict() == dict.fromkeys(["DCM", "HCM", "MINF", "NOR", "RV"], 5)
