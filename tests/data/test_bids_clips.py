"""BIDS-like folders of cine and dynamic series: axis order, times, masks on their frames, names."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl4neuro.data.readers.bids_clips import BidsClipReader
from ssl4neuro.data.readers.bids_names import BidsName, parse_name
from ssl4neuro.errors import UserError

TIMES = [0.0, 0.03, 0.07, 0.1]


def moving_dot(slices: int = 3, frames: int = 4) -> np.ndarray:
    """[x, y, z, t]: the dot moves down (y) over time and right (x) over slices."""
    values = np.full((12, 9, slices, frames), 10, dtype=np.int16)
    for z in range(slices):
        for t in range(frames):
            values[1 + 2 * z, 2 + t, z, t] = 500
    return values


def add(root: Path, name: str, values: np.ndarray, folder: str = "sub-01/cine", note: dict[str, object] | None = None) -> Path:
    path = root / folder / f"{name}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([1.5, 1.25, 8.0, 1.0])), path)
    if note is not None:
        path.with_name(f"{name}.json").write_text(json.dumps(note))
    return path


def test_axis_order_times_and_masks(tmp_path: Path) -> None:
    movie = moving_dot()
    add(tmp_path, "sub-01_ses-1_view-sax_cine", movie, "sub-01/ses-1/cine", {"FrameTimes": [t + 5 for t in TIMES]})
    add(
        tmp_path,
        "sub-01_ses-1_view-sax_dseg",
        (movie[..., [3, 0]] > 100) * np.uint8(2),
        "sub-01/ses-1/cine",
        {"Frames": [3, 0]},
    )
    reader = BidsClipReader(tmp_path)
    (scan,) = reader.scans()
    assert (scan.subject, scan.session, scan.run, len(scan.files)) == ("sub-01", "ses-1", "", 4)
    clips = reader.read(scan).clips
    assert [clip.slice for clip in clips] == [0, 1, 2]
    for z, clip in enumerate(clips):
        for t, frame in enumerate(clip.frames):
            assert np.unravel_index(frame.argmax(), frame.shape) == (2 + t, 1 + 2 * z)
        assert clip.times == pytest.approx(TIMES)
        assert (clip.spacing, clip.view) == ((1.25, 1.5), "sax")
        assert clip.mask is not None
        assert clip.mask_frames is not None
        assert clip.mask_frames.tolist() == [3, 0]
        for mask, frame in zip(clip.mask, clip.mask_frames, strict=True):
            assert np.array_equal(mask == 2, clip.frames[frame] > 100)
    assert reader.description() == {"cine": {"cyclic": True}}


def test_one_file_per_slice_counts_from_zero(tmp_path: Path) -> None:
    movie = moving_dot()
    for number in range(3):
        add(tmp_path, f"sub-01_slice-{number + 1}_cine", movie[:, :, number : number + 1], note={"FrameTimes": TIMES})
    reader = BidsClipReader(tmp_path, view="sax")
    (scan,) = reader.scans()
    clips = reader.read(scan).clips
    assert [(clip.slice, clip.view) for clip in clips] == [(0, "sax"), (1, "sax"), (2, "sax")]
    for z, clip in enumerate(clips):
        assert np.unravel_index(clip.frames[1].argmax(), (9, 12)) == (3, 1 + 2 * z)


@pytest.mark.parametrize(
    ("folder", "note", "interval", "wanted"),
    [
        ("dce", {"RepetitionTime": 0.008, "TemporalResolution": 33.2}, None, 33.2),
        ("dce", {"RepetitionTime": 0.008}, None, None),
        ("perf", {"RepetitionTime": 1.5}, None, 1.5),
        ("cine", {"RepetitionTime": 0.003}, 0.04, 0.04),
        ("cine", {"TemporalResolution": 0.03}, 0.04, 0.03),
        ("cine", {}, None, None),
    ],
)
def test_where_the_frame_interval_comes_from(
    tmp_path: Path, folder: str, note: dict[str, object], interval: float | None, wanted: float | None
) -> None:
    add(tmp_path, "sub-01_x", moving_dot(), f"sub-01/{folder}", note)
    reader = BidsClipReader(tmp_path, interval=interval)
    times = reader.read(reader.scans()[0]).clips[0].times
    assert times is None if wanted is None else times == pytest.approx(wanted * np.arange(4))
    assert reader.description() == {"cine": {"cyclic": folder == "cine"}}


def test_three_axes_are_slices_unless_the_sidecar_counts_frames(tmp_path: Path) -> None:
    movie = moving_dot(slices=4)
    add(tmp_path, "sub-01_a", movie[:, :, 0], note={"FrameTimes": TIMES})
    add(tmp_path, "sub-02_a", movie[..., 0], "sub-02/cine", {})
    reader = BidsClipReader(tmp_path)
    one, many = (reader.read(scan).clips for scan in reader.scans())
    assert [clip.frames.shape for clip in one] == [(4, 9, 12)]
    assert [int(frame.argmax()) // 12 for frame in one[0].frames] == [2, 3, 4, 5]
    assert [clip.frames.shape for clip in many] == [(1, 9, 12)] * 4


def test_folder_names_the_subject_and_mixed_kinds_are_no_cycle(tmp_path: Path) -> None:
    add(tmp_path, "sub-01_run-1_cine", moving_dot(), "sub-05phantom/ses-01/cine")
    add(tmp_path, "sub-01_run-2_cine", moving_dot(), "sub-05phantom/ses-01/cine")
    add(tmp_path, "sub-01_DCE", moving_dot(), "sub-05phantom/ses-02/dce")
    reader = BidsClipReader(tmp_path)
    identity = [(scan.subject, scan.session, scan.run) for scan in reader.scans()]
    assert identity == [("sub-05phantom", f"ses-0{s}", run) for s, run in ((1, "run-1"), (1, "run-2"), (2, ""))]
    assert reader.read(reader.scans()[2]).clips[0].view == "dce"
    assert reader.description() == {"cine": {"cyclic": None}}
    table = tmp_path / "map.tsv"
    table.write_text("source\tparticipant_id\nsub-05phantom\tP5\n")
    assert {scan.subject for scan in BidsClipReader(tmp_path, subjects=table).scans()} == {"P5"}


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ({"FrameTimes": [0, 1]}, "4 frames, but its sidecar 2"),
        ({"FrameTimes": [0.0, 0.2, 0.1, 0.3]}, "do not increase: frame 3"),
        ({"FrameTimes": "0.1"}, "no list of times"),
        ({"TemporalResolution": -1}, "no time in seconds"),
    ],
)
def test_wrong_times_are_refused_or_left_out(tmp_path: Path, note: dict[str, object], message: str) -> None:
    add(tmp_path, "sub-01_run-1_view-a_cine", moving_dot(), note=note)
    reader = BidsClipReader(tmp_path)
    with pytest.raises(UserError, match=message):
        reader.read(reader.scans()[0])
    add(tmp_path, "sub-01_run-1_view-b_cine", moving_dot(), note={"FrameTimes": TIMES})
    lenient = BidsClipReader(tmp_path, skip_bad=True)
    rows = lenient.read(lenient.scans()[0])
    assert {clip.view for clip in rows.clips} == {"b"}
    assert rows.left_out


@pytest.mark.parametrize(
    ("shape", "frames", "message"),
    [
        ((9, 12, 3, 1), [0], "9×12×3.*12×9×3"),
        ((12, 9, 3, 2), [0], "2 masks of frames"),
        ((12, 9, 3, 1), [4], "frames 0 to 3"),
        ((12, 9, 3, 2), None, "no list of their frames"),
        ((12, 9, 3, 2), [1, 1], "2 masks of frames"),
    ],
)
def test_masks_that_do_not_fit(tmp_path: Path, shape: tuple[int, ...], frames: list[int] | None, message: str) -> None:
    add(tmp_path, "sub-01_view-a_cine", moving_dot())
    add(tmp_path, "sub-01_view-a_mask", np.ones(shape, np.uint8), note={} if frames is None else {"Frames": frames})
    reader = BidsClipReader(tmp_path)
    with pytest.raises(UserError, match=message):
        reader.read(reader.scans()[0])


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sub-"):
        BidsClipReader(tmp_path)
    five = add(tmp_path, "sub-01_cine", np.zeros((4, 4, 2, 3, 2), np.uint8))
    with pytest.raises(UserError, match="5-D"):
        BidsClipReader(tmp_path).read(BidsClipReader(tmp_path).scans()[0])
    colours = np.zeros((4, 4, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, np.eye(4)), five)
    with pytest.raises(UserError, match="colours"):
        BidsClipReader(tmp_path).read(BidsClipReader(tmp_path).scans()[0])
    values = moving_dot().astype(np.float32)
    values[3, 3, 1, 2] = np.nan
    nib.save(nib.Nifti1Image(values, np.eye(4)), five)
    with pytest.raises(UserError, match=r"slice 2 has NaN.*frame 3 of 4"):
        BidsClipReader(tmp_path).read(BidsClipReader(tmp_path).scans()[0])
    add(tmp_path, "sub-01_other_name", moving_dot())
    with pytest.raises(UserError, match="not BIDS"):
        BidsClipReader(tmp_path)


LABEL = st.text("abcXYZ019", min_size=1, max_size=5)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=4), LABEL, max_size=4), LABEL)
def test_names_survive_a_round_trip(entities: dict[str, str], suffix: str) -> None:
    name = BidsName(suffix, ".nii.gz", entities)
    assert parse_name(str(name)) == name


@given(st.text(max_size=30))
def test_any_name_is_parsed_or_refused(text: str) -> None:
    name = parse_name(text)
    assert name is None or str(name) == text


def test_real_phantoms(shared_data: Path) -> None:
    source = shared_data / "dce-osipi" / "phantoms"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    reader = BidsClipReader(source)
    assert [(scan.subject, scan.session) for scan in reader.scans()] == [
        ("sub-05phantom", "ses-01"),
        ("sub-06phantom", "ses-01"),
    ]
    found = []
    for scan in reader.scans():
        clips = reader.read(scan).clips
        found.append((len(clips), clips[0].frames.shape))
        assert clips[0].times is not None
        assert 33 < clips[0].times[1] < 35  # not the 8.6 ms between pulses
        assert clips[0].spacing is None  # 2812 "mm" are µm
        values = nib.load(scan.files[0]).get_fdata()
        assert np.allclose(clips[2].frames[5], values[:, :, 2, 5].T)
    assert found == [(6, (27, 64, 64)), (6, (23, 64, 64))]
    assert reader.description() == {"cine": {"cyclic": False}}
