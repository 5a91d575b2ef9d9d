"""DICOM studies read from files: order, geometry, values, privacy, and every bad file a line."""

import importlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from dicom_tree import (
    BIG,
    COLUMN,
    CT,
    ENHANCED_MR,
    EXPLICIT,
    IMPLICIT,
    NORMAL,
    RLE,
    ROW,
    SECRETS,
    SR,
    US,
    phantom,
    write,
    write_stack,
)

from ssl4neuro.data.clip import ClipRows
from ssl4neuro.data.readers.dicom import DicomStudy, dicom_studies, is_dicom, read_dicom_study
from ssl4neuro.errors import UserError

pytest.importorskip("pydicom")  # what a study becomes without reading files is in test_dicom_series


def read(*paths: Path, skip_bad: bool = False, **options: object) -> ClipRows:
    settings: dict = {"view": None, "interval": None, "window": None} | options
    return read_dicom_study(paths, skip_bad=skip_bad, **settings)


def outcome(path: Path) -> ClipRows | str:
    """Clips, or the line that says why not; any other exception is a failure."""
    try:
        return read(path)
    except UserError as error:
        return str(error)


def dots(frames: np.ndarray) -> list[tuple[int, int]]:
    """Row and column of the brightest pixel of every frame."""
    return [tuple(int(i) for i in np.unravel_index(frame.argmax(), frame.shape)) for frame in frames]


def words(rows: ClipRows | list[DicomStudy]) -> str:
    """Everything in a result that is text, as records and logs might print it."""
    if isinstance(rows, list):
        return repr(rows)
    return repr(rows) + json.dumps(asdict(rows), default=lambda value: np.asarray(value).tolist())


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, RLE])
@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_stack_comes_back_in_the_order_of_place_and_time(tmp_path, syntax, seed):
    truth = phantom()
    paths = write_stack(tmp_path, truth, seed=seed, syntax=syntax)
    rows = read(*reversed(paths))
    assert [clip.slice for clip in rows.clips] == [0, 1, 2, 3]
    for s, clip in enumerate(rows.clips):
        assert clip.frames.dtype == np.int16
        np.testing.assert_array_equal(clip.frames, truth[s])
        assert dots(clip.frames) == [(1 + t, 2 + s) for t in range(5)]  # down over time, right over slices
        np.testing.assert_allclose(clip.times, 0.04 * np.arange(5), atol=1e-9)
        assert clip.spacing == (1.5, 1.25)
    assert rows.left_out == []


def test_slice_location_counts_only_without_geometry(tmp_path):
    truth = phantom(slices=2)
    lying = [{"SliceLocation": 10 - s} for s in range(2)]
    for s in range(2):
        for t in range(5):
            place = {"ImagePositionPatient": [0, 0, 8 * s], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
            write(tmp_path / f"a{s}{t}.dcm", truth[s, t], TriggerTime=t * 30, InstanceNumber=1, **place, **lying[s])
            write(tmp_path / "b" / f"b{s}{t}.dcm", truth[s, t], TriggerTime=t * 30, InstanceNumber=1, **lying[s])
    with_geometry = read(*sorted(tmp_path.glob("*.dcm")))
    without = read(*sorted((tmp_path / "b").glob("*.dcm")))
    assert [dots(clip.frames)[0][1] for clip in with_geometry.clips] == [2, 3]
    assert [dots(clip.frames)[0][1] for clip in without.clips] == [3, 2]


@pytest.mark.parametrize("apart", ["SeriesInstanceUID", "SeriesNumber", "ImageOrientationPatient", "matrix"])
def test_two_series_in_one_folder_are_separate(tmp_path, apart):
    truth = phantom(slices=3)
    second = truth[:, :, :, ::-1]
    first_fields, fields = {}, {}
    if apart == "SeriesInstanceUID":
        fields = {"SeriesInstanceUID": "1.2.3.99", "SeriesNumber": 2}
    if apart == "SeriesNumber":
        first_fields, fields = {"SeriesInstanceUID": None}, {"SeriesInstanceUID": None, "SeriesNumber": 2}
    if apart == "ImageOrientationPatient":
        fields = {"ImageOrientationPatient": [*ROW, *-COLUMN]}
    if apart == "matrix":
        second = truth[:, :, :14]
    paths = write_stack(tmp_path / "a", truth, **first_fields) + write_stack(tmp_path / "b", second, **fields)
    rows = read(*paths)
    assert len(rows.clips) == 6
    assert sorted(clip.slice for clip in rows.clips) == [0, 0, 1, 1, 2, 2]
    assert {clip.frames.shape for clip in rows.clips} == {(5, *truth.shape[2:]), (5, *second.shape[2:])}
    for clip in rows.clips:
        wanted = [array for array in (truth, second) if any(np.array_equal(clip.frames, stack) for stack in array)]
        assert len(wanted) == 1


def test_missing_slice_is_refused_or_leaves_a_hole(tmp_path):
    truth = phantom(slices=6)
    paths = write_stack(tmp_path, truth, skip=[(2, t) for t in range(5)])
    with pytest.raises(UserError, match=r"series 1: slice 2 is missing"):
        read(*paths)
    rows = read(*paths, skip_bad=True)
    assert [clip.slice for clip in rows.clips] == [0, 1, 3, 4, 5]
    assert rows.left_out == ["series 1: slice 2 is missing (gap in the positions); left out"]


def test_slices_with_another_number_of_frames(tmp_path):
    paths = write_stack(tmp_path, phantom(), skip=[(1, 4)])
    with pytest.raises(UserError, match="slice 1 has 4 frames, others 5"):
        read(*paths)
    rows = read(*paths, skip_bad=True)
    assert [clip.slice for clip in rows.clips] == [0, 2, 3]
    assert rows.left_out == ["series 1: slice 1 has 4 frames, others 5; left out"]


def test_gap_in_the_trigger_times_is_a_note(tmp_path):
    paths = write_stack(tmp_path, phantom(times=9), skip=[(s, 4) for s in range(4)])
    rows = read(*paths)
    np.testing.assert_allclose(np.diff(rows.clips[0].times), [0.04, 0.04, 0.04, 0.08, 0.04, 0.04, 0.04])
    assert "note: series 1, slice 0: a gap in the frame times, used as it is" in rows.left_out


def test_frames_given_twice(tmp_path):
    paths = write_stack(tmp_path, phantom())
    copy = tmp_path / "copy of im0001.dcm"
    copy.write_bytes(paths[0].read_bytes())
    with pytest.raises(UserError, match="same position and trigger time"):
        read(*paths, copy)
    rows = read(*paths, copy, skip_bad=True)
    assert len(rows.clips) == 3
    assert len(rows.left_out) == 1


def test_time_points_against_the_clock_go_backwards(tmp_path):
    frames = phantom(slices=1)[0]
    for t in range(5):
        stamps = {"AcquisitionTime": f"10000{9 - t}.5", "TemporalPositionIdentifier": t + 1}
        write(tmp_path / f"{t}.dcm", frames[t], ImagePositionPatient=[0, 0, 0], **stamps)
    with pytest.raises(UserError, match="time stamps go backwards"):
        read(*tmp_path.glob("*.dcm"))
    with pytest.raises(UserError, match="no cine or video among 5 DICOM files"):
        read(*tmp_path.glob("*.dcm"), skip_bad=True)


def test_dynamic_series_times_from_the_clock_over_midnight(tmp_path):
    frames = phantom(slices=1)[0]
    clocks = ["235950.0", "235955.25", "000000.5", "000006.0", "000012.75"]
    for t, clock in enumerate(clocks):
        stamps = {"AcquisitionTime": clock, "AcquisitionDate": "20200131" if t < 2 else "20200201", "TriggerTime": 0}
        write(tmp_path / f"{9 - t}.dcm", frames[t], ImagePositionPatient=[0, 0, 0], InstanceNumber=3, **stamps)
    (clip,) = read(*tmp_path.glob("*.dcm"), view="dce").clips
    np.testing.assert_allclose(clip.times, [0, 5.25, 10.5, 16, 22.75], atol=1e-4)
    np.testing.assert_array_equal(clip.frames, frames)
    assert (clip.view, clip.slice) == ("dce", -1)


def test_order_by_number_has_no_times_unless_an_interval_is_given(tmp_path):
    frames = phantom(slices=1)[0]
    for t in range(5):
        write(tmp_path / f"{9 - t}.dcm", frames[t], InstanceNumber=t)
    assert read(*tmp_path.glob("*.dcm")).clips[0].times is None
    clip = read(*tmp_path.glob("*.dcm"), interval=0.05).clips[0]
    np.testing.assert_allclose(clip.times, 0.05 * np.arange(5))
    np.testing.assert_array_equal(clip.frames, frames)


def test_rescaling_gives_quantities_and_identity_keeps_integers(tmp_path):
    frames = phantom(slices=1)
    paths = write_stack(tmp_path / "a", frames, RescaleSlope="0.5", RescaleIntercept="-100")
    (clip,) = read(*paths).clips
    assert clip.frames.dtype == np.float32
    np.testing.assert_array_equal(clip.frames, frames[0] * 0.5 - 100)
    paths = write_stack(tmp_path / "b", frames.astype(np.uint16), RescaleSlope="1.0", RescaleIntercept="0")
    assert read(*paths).clips[0].frames.dtype == np.uint16
    with pytest.raises(UserError, match="RescaleSlope is 0"):
        read(*write_stack(tmp_path / "c", frames, RescaleSlope=0))


def enhanced(path: Path, truth: np.ndarray, order: np.ndarray, syntax: str = EXPLICIT, **fields: object) -> Path:
    """An enhanced MR file with the frames of all slices in the given order; slope 2 in the groups of each frame."""
    cells = [(s, t) for s in range(truth.shape[0]) for t in range(truth.shape[1])]
    groups = [
        {
            "FrameContentSequence": [{"FrameAcquisitionDateTime": "20200101101010.5"}],
            "PlanePositionSequence": [{"ImagePositionPatient": [f"{v:.5f}" for v in 8 * cells[i][0] * NORMAL]}],
            "CardiacSynchronizationSequence": [{"NominalCardiacTriggerDelayTime": 10.0 + 35 * cells[i][1]}],
            "PixelValueTransformationSequence": [{"RescaleSlope": 2, "RescaleIntercept": 1}],
        }
        for i in order
    ]
    shared = {
        "PlaneOrientationSequence": [{"ImageOrientationPatient": [f"{value:.6f}" for value in (*ROW, *COLUMN)]}],
        "PixelMeasuresSequence": [{"PixelSpacing": [1.4, 1.2]}],
    }
    pixels = np.stack([truth[cells[i]] for i in order])
    header: dict[str, object] = {
        "SOPClassUID": ENHANCED_MR,
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": groups,
    }
    return write(path, pixels, syntax, **(header | fields))


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, RLE])
def test_enhanced_file_sorted_by_its_functional_groups(tmp_path, syntax):
    truth = phantom()
    path = enhanced(tmp_path / "e.dcm", truth, np.random.default_rng(3).permutation(20), syntax)
    rows = read(path)
    assert [clip.slice for clip in rows.clips] == [0, 1, 2, 3]
    for s, clip in enumerate(rows.clips):
        np.testing.assert_array_equal(clip.frames, 2 * truth[s] + 1)
        np.testing.assert_allclose(clip.times, 0.035 * np.arange(5))
        assert clip.spacing == (1.4, 1.2)


def test_enhanced_file_that_describes_fewer_frames(tmp_path):
    path = enhanced(tmp_path / "e.dcm", phantom(), np.arange(20), NumberOfFrames=19)
    with pytest.raises(UserError, match="describes 20 frames but says it has 19"):
        read(path)


@pytest.mark.parametrize(
    ("fields", "times"),
    [
        ({"FrameTime": "40"}, [0, 0.04, 0.08, 0.12]),
        ({"FrameTimeVector": [0, 10, 20, 30]}, [0, 0.01, 0.03, 0.06]),
        ({"CineRate": 50}, [0, 0.02, 0.04, 0.06]),
        ({}, None),
    ],
)
def test_ultrasound_recording(tmp_path, fields, times):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 10, 8, 3)).astype(np.uint8)
    region = {"PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3, "PhysicalDeltaX": 0.05, "PhysicalDeltaY": -0.04}
    header = {"SOPClassUID": US, "Modality": "US", "SequenceOfUltrasoundRegions": [region]}
    path = write(tmp_path / "us.dcm", pixels, **header, **fields)
    (clip,) = read(path).clips
    np.testing.assert_array_equal(clip.frames, pixels)
    assert clip.spacing == pytest.approx((0.4, 0.5))
    assert (clip.times is None) == (times is None)
    if times is not None:
        np.testing.assert_allclose(clip.times, times)
    path = write(tmp_path / "us2.dcm", pixels, RLE, **(header | {"SequenceOfUltrasoundRegions": [region, region]}))
    (clip,) = read(path).clips
    np.testing.assert_array_equal(clip.frames, pixels)
    assert clip.spacing is None


@pytest.mark.parametrize("vector", [[0, 10, -20, 30], [0, 10, 0, 30], [0, 10, 20]])
def test_recording_whose_times_go_backwards_or_do_not_fit(tmp_path, vector):
    path = write(tmp_path / "us.dcm", np.zeros((4, 8, 8), np.uint8), Modality="US", FrameTimeVector=vector)
    with pytest.raises(UserError, match=r"go backwards|for 3 frames but there are 4"):
        read(path)


def test_palette_and_inverted_grey(tmp_path):
    pixels = np.array([[[0, 1], [2, 3]]] * 2, dtype=np.uint8)
    lut = np.array([[0, 10, 20, 255], [1, 2, 3, 4], [9, 8, 7, 6]])
    fields = {}
    for name, values in zip(("Red", "Green", "Blue"), lut, strict=True):
        fields[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        fields[f"{name}PaletteColorLookupTableData"] = (values * 257).astype("<u2").tobytes()
    path = write(tmp_path / "palette.dcm", pixels, Modality="US", PhotometricInterpretation="PALETTE COLOR", **fields)
    (clip,) = read(path).clips
    np.testing.assert_array_equal(clip.frames, lut.T[pixels])
    assert clip.frames.dtype == np.uint8
    path = write(tmp_path / "xa.dcm", pixels, Modality="XA", PhotometricInterpretation="MONOCHROME1", BitsStored=8)
    np.testing.assert_array_equal(read(path).clips[0].frames, 255 - pixels)


def test_windows_of_a_recording(tmp_path):
    pixels = np.arange(10 * 16, dtype=np.uint8).reshape(10, 4, 4)
    path = write(tmp_path / "us.dcm", pixels, Modality="US", FrameTime=50)
    rows = read(path, window=4)
    assert [len(clip.frames) for clip in rows.clips] == [4, 4, 2]
    np.testing.assert_array_equal(rows.clips[1].frames, pixels[4:8])
    np.testing.assert_allclose(rows.clips[1].times, [0, 0.05, 0.1, 0.15])
    rows = read(path, window=9)
    assert [len(clip.frames) for clip in rows.clips] == [9]
    assert rows.left_out == ["series 1: 1 frames at the end, fewer than half a window of 9"]


def test_slices_without_contrast(tmp_path):
    truth = phantom()
    truth[2] = 7
    paths = write_stack(tmp_path, truth)
    with pytest.raises(UserError, match="series 1, slice 2 is constant"):
        read(*paths)
    rows = read(*paths, skip_bad=True)
    assert [clip.slice for clip in rows.clips] == [0, 1, 3]
    assert len(rows.left_out) == 1


def test_single_frames_are_clips_with_a_note(tmp_path):
    rows = read(write(tmp_path / "loc.dcm", phantom()[0, 0], ImagePositionPatient=[0, 0, 0]))
    assert rows.clips[0].frames.shape == (1, 16, 12)
    assert rows.clips[0].times is None
    assert rows.left_out == ["note: series 1: single frames, used as clips without motion"]


def test_other_modalities_are_named_and_refused(tmp_path):
    report = write(tmp_path / "report.dcm", None, Modality="SR", SOPClassUID=SR)
    volume = write_stack(tmp_path / "ct", phantom(times=1), Modality="CT", SOPClassUID=CT)
    stack = write_stack(tmp_path / "mr", phantom(), SeriesInstanceUID="1.2.9")
    with pytest.raises(UserError, match=r"report.dcm: no cine or video but SR"):
        read(report, *stack)
    with pytest.raises(UserError, match="CT without a time axis"):
        read(*volume, *stack)
    rows = read(report, *volume, *stack, skip_bad=True)
    assert len(rows.clips) == 4
    assert len(rows.left_out) == 2
    with pytest.raises(UserError, match="unknown modality"):
        read(write(tmp_path / "odd.dcm", None, Modality="MR PLANTED"))


@pytest.mark.parametrize(
    "fields",
    [
        {"NumberOfFrames": 2_000_000_000},
        {"NumberOfFrames": -3},
        {"NumberOfFrames": "many"},
        {"Rows": None},
        {"Rows": 0},
        {"Rows": 65535, "Columns": 65535},
        {"BitsAllocated": 0},
        {"SamplesPerPixel": 7},
        {"PixelData": None},
        {"PixelData": b"\0" * 10},
        {"ImagePositionPatient": [1, 2]},
        {"TriggerTime": "PLANTED"},
        {"RescaleSlope": "nan"},
    ],
)
@pytest.mark.parametrize("syntax", [EXPLICIT, RLE])
def test_absurd_headers_are_a_line(tmp_path, fields, syntax):
    path = write(tmp_path / "a.dcm", phantom()[0], syntax, **fields)
    with pytest.raises(UserError) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "PLANTED" not in str(error.value)


@pytest.mark.parametrize("cut", [130, 140, 300, 600, -50])
def test_files_cut_short_are_a_line(tmp_path, cut):
    path = write(tmp_path / "a.dcm", phantom()[0])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"a\.dcm"):
        read(path)
    stack = write_stack(tmp_path / "mr", phantom())
    assert len(read(path, *stack, skip_bad=True).clips) == 4


def test_bytes_changed_at_random_never_give_a_traceback(tmp_path):
    good = write(tmp_path / "a.dcm", phantom()[0], SeriesDescription=SECRETS[4], TriggerTime=4).read_bytes()
    rng = np.random.default_rng(5)
    for trial in range(150):
        bad = bytearray(good)
        for place in rng.integers(132, 900, 1 + trial % 4):
            bad[place] = rng.integers(256)
        path = tmp_path / "bad.dcm"
        path.write_bytes(bytes(bad))
        found = outcome(path)
        if isinstance(found, str):
            assert "\n" not in found
            assert not any(secret in found for secret in SECRETS)
        else:
            assert found.clips


def test_identities_reach_nothing_that_is_returned_or_said(tmp_path, capfd):
    folder = tmp_path / "study"
    paths = write_stack(folder, phantom(), skip=[(1, 4)], SeriesDescription=f"{SECRETS[4]} SAX", StudyTime="101010")
    other = write_stack(folder / "b", phantom(), StudyInstanceUID=f"{SECRETS[2]}.7", StudyDate="19991231")
    broken = folder / "broken.dcm"
    broken.write_bytes(paths[0].read_bytes()[:500])
    rows = read(*paths, broken, skip_bad=True)
    assert {clip.view for clip in rows.clips} == {"sax"}
    studies = dicom_studies(tmp_path, [*paths, *other])
    said = words(rows) + words(studies) + "".join(capfd.readouterr())
    with pytest.raises(UserError) as error:
        read(*paths)
    assert "im0001" not in said
    said += str(error.value).replace(str(tmp_path), "")
    for secret in (*SECRETS, "1999", str(tmp_path), "Planted"):
        assert secret not in said


def test_studies_by_patient_and_date(tmp_path):
    frames = phantom(slices=1, times=1)[0, 0]
    write(tmp_path / "x" / "1.dcm", frames, PatientID="B", StudyInstanceUID="1.9", StudyDate="20200301")
    write(tmp_path / "x" / "2.dcm", frames, PatientID="B", StudyInstanceUID="1.2", StudyDate="20210301")
    write(tmp_path / "y" / "3.dcm", frames, PatientID="B", StudyInstanceUID="1.9", StudyDate="20200301")
    write(tmp_path / "y" / "4.dcm", frames, PatientID="A", StudyInstanceUID="1.5", StudyDate="20200301")
    write(tmp_path / "anon" / "deep" / "5.dcm", frames, PatientID=None, StudyInstanceUID="1.6")
    (tmp_path / "anon" / "deep" / "6.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x08\x00\xff")
    studies = dicom_studies(tmp_path, list(tmp_path.rglob("*.dcm")))
    found = [(study.patient, study.session, [path.name for path in study.files]) for study in studies]
    assert found == [
        ("A", "", ["4.dcm"]),
        ("B", "ses-01", ["1.dcm", "3.dcm"]),
        ("B", "ses-02", ["2.dcm"]),
        ("anon", "", ["5.dcm", "6.dcm"]),
    ]
    assert len({study.key for study in studies}) == 4


def test_echo_of_a_real_scanner(shared_data):
    path = shared_data / "video-clips" / "echo_multiframe.dcm"
    assert is_dicom(path)
    rows = read(path)
    (clip,) = rows.clips
    assert clip.frames.shape == (30, 240, 320, 3)
    assert clip.frames.dtype == np.uint8
    np.testing.assert_allclose(np.diff(clip.times), 1 / 30, atol=1e-4)
    assert clip.spacing == pytest.approx((0.5105, 0.5105), abs=1e-3)
    assert np.abs(np.diff(clip.frames.astype(int), axis=0)).mean() > 0.1  # it moves


def bundled() -> list[Path]:
    """pydicom's own test files that came with it."""
    pydicom = importlib.import_module("pydicom")
    root = Path(pydicom.__file__).parent / "data"
    return sorted(path for path in root.rglob("*") if path.is_file() and is_dicom(path) and os.access(path, os.R_OK))


@pytest.mark.parametrize("path", bundled(), ids=lambda path: path.name)
def test_files_of_pydicom_give_clips_or_a_line(path):
    found = outcome(path)
    if isinstance(found, str):
        assert found.startswith(str(path))
        assert "\n" not in found
        return
    assert found.clips
    for clip in found.clips:
        assert clip.frames.ndim in (3, 4)
        assert clip.times is None or (np.diff(clip.times) > 0).all()
