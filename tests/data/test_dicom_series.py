"""Sorting of DICOM frames by what their headers say, and single fields: no file is read, so pydicom is not needed."""

import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_tree import COLUMN, NORMAL, ROW, phantom, write
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4neuro.data.readers.dicom import is_dicom, read_dicom_study
from ssl4neuro.data.readers.dicom_fields import DicomProblem, guarded, moment, numbers, view_of
from ssl4neuro.data.readers.dicom_headers import DicomImage, Frame
from ssl4neuro.data.readers.dicom_series import Stack, sort_stack, stacks_of
from ssl4neuro.errors import UserError

TURN = (*(float(v) for v in ROW), *(float(v) for v in COLUMN))


def image(name: str, slice: int = 0, time: int = 0, step: float = 8.0, series: str = "1", **frame: object) -> DicomImage:
    """A single-frame file at a place along an oblique normal."""
    place = tuple(float(v) for v in np.array([3.0, -7.0, 11.0]) + slice * step * NORMAL)
    own: dict = {"position": place, "orientation": TURN, "trigger": 0.02 + 0.03 * time, "spacing": (1.5, 1.5)} | frame
    frames = (Frame(Path(name), 0, **own),)
    return DicomImage(Path(name), series, 1, "MR", "", 8, 8, 1, 1, frames, False, None, ())


def sorted_stacks(images: list[DicomImage], skip_bad: bool = False) -> list[Stack]:
    stacks = stacks_of(images)
    for stack in stacks:
        sort_stack(stack, skip_bad)
    return stacks


def layout(stack: Stack) -> dict[int, list[str]]:
    """Names of the files of every slice in the order of time."""
    return {course.slice: [frame.file.name for frame in course.frames] for course in stack.courses}


@given(slices=st.integers(2, 6), times=st.integers(1, 5), step=st.floats(0.1, 500), order=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_of_files_does_not_matter(slices, times, step, order):
    images = [image(f"{s}-{t}", s, t, step) for s in range(slices) for t in range(times)]
    order.shuffle(images)
    (stack,) = sorted_stacks(images)
    assert layout(stack) == {s: [f"{s}-{t}" for t in range(times)] for s in range(slices)}
    for course in stack.courses:
        if times > 1:
            np.testing.assert_allclose(course.times, 0.03 * np.arange(times), atol=1e-9)


@given(slices=st.integers(4, 9), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_hole_in_the_stack_is_found_and_keeps_its_number(slices, data):
    hole = data.draw(st.integers(1, slices - 2))
    images = [image(f"{s}-{t}", s, t) for s in range(slices) for t in range(2) if s != hole]
    with pytest.raises(DicomProblem, match=f"slice {hole} is missing"):
        sorted_stacks(images)
    (stack,) = sorted_stacks(images, skip_bad=True)
    assert [course.slice for course in stack.courses] == [s for s in range(slices) if s != hole]


def test_magnitude_and_phase_of_one_series_are_two_stacks():
    images = [image(f"{kind}{t}", 0, t, kind=(kind,)) for t in range(3) for kind in ("phase", "magnitude")]
    stacks = sorted_stacks(images)
    assert sorted(layout(stack)[-1] for stack in stacks) == [[f"{k}{t}" for t in range(3)] for k in ("magnitude", "phase")]


def test_tilted_views_of_one_series_are_apart_and_noise_in_the_cosines_is_not():
    other = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    nearly = tuple(v + 1e-4 for v in TURN)
    turns = [TURN, nearly, TURN, other, other, other]
    stacks = sorted_stacks([image(str(i), 0, i % 3, orientation=turn) for i, turn in enumerate(turns)])
    assert [layout(stack) for stack in stacks] == [{-1: ["0", "1", "2"]}, {-1: ["3", "4", "5"]}]


@pytest.mark.parametrize(
    ("stamps", "line"),
    [
        ([{"trigger": 0.1}, {"trigger": 0.1}, {"trigger": 0.2}], "same position and trigger time"),
        ([{"number": 4}, {"number": 4}, {"number": 5}], "same position and time"),
        ([{}, {}, {}], "same position and time"),
        ([{"number": 1, "acquired": 9.0}, {"number": 2, "acquired": 9.0}, {"number": 3, "acquired": 8.0}], "backwards"),
        ([{"trigger": 0.1, "temporal": 3}, {"trigger": 0.2, "temporal": 2}, {"trigger": 0.3, "temporal": 1}], "backwards"),
    ],
)
def test_contradictory_times_are_refused(stamps, line):
    images = [image(str(i), **({"trigger": None} | stamp)) for i, stamp in enumerate(stamps)]
    with pytest.raises(DicomProblem, match=line):
        sorted_stacks(images)
    (stack,) = sorted_stacks(images, skip_bad=True)
    assert stack.courses == []
    assert line in stack.left_out[0]


def test_first_usable_clock_counts():
    stamps = [{"trigger": 0.0, "acquired": 10.0 - t, "number": t} for t in range(4)]  # trigger times of a dynamic series
    (stack,) = sorted_stacks([image(str(t), **stamp) for t, stamp in enumerate(stamps)])
    assert layout(stack) == {-1: ["3", "2", "1", "0"]}
    stamps = [{"trigger": None, "acquired": 10.0, "number": 9 - t} for t in range(4)]
    (stack,) = sorted_stacks([image(str(t), **stamp) for t, stamp in enumerate(stamps)])
    assert layout(stack) == {-1: ["3", "2", "1", "0"]}
    assert stack.courses[0].times is None


@pytest.mark.parametrize(
    ("description", "view"),
    [
        ("cine_SAX_stack", "sax"), ("Short Axis 8mm", "sax"), ("CINE 4-chamber", "4ch"), ("tfi 2ch", "2ch"), ("3CH", "3ch"),
        ("12ch coil", ""), ("4ch 2ch", ""), ("saxony", ""), ("Mr Fourchet", ""), ("", ""),
    ],
)  # fmt: skip
def test_view_from_keywords(description, view):
    assert view_of(description) == view


def test_moments():
    assert moment("", "010203.5") == 3723.5
    assert moment("", "01:02:03") == 3723.0
    assert moment("20200201", "000000") - moment("20200131", "235959") == 1.0
    assert moment("", "noon") is None
    assert moment("20209999", "0100") == 3600.0


@given(st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=100, deadline=None)
def test_any_text_as_a_moment(day, clock):
    found = moment(day, clock)
    assert found is None or found >= 0


def test_numbers_that_are_none():
    file = Path("a.dcm")
    assert numbers({}, "Rows", file) == ()
    assert numbers({"Rows": ""}, "Rows", file) == ()
    assert numbers({"FrameTimeVector": ["1", 2.5]}, "FrameTimeVector", file) == (1.0, 2.5)
    for bad in ("SECRET", [1, "SECRET"], float("nan"), b"xx", object()):
        with pytest.raises(DicomProblem, match="header field Rows is not a number") as error:
            numbers({"Rows": bad}, "Rows", file)
        assert "SECRET" not in str(error.value)


def test_errors_of_the_parser_become_a_line_without_what_they_quote(recwarn):
    with pytest.raises(DicomProblem, match=r"a\.dcm: broken \(ValueError\)") as error, guarded(Path("a.dcm"), "broken"):
        raise ValueError("invalid value\nSECRET^NAME")
    assert "SECRET" not in str(error.value)
    copy = pickle.loads(pickle.dumps(error.value))  # noqa: S301 - as between worker processes
    assert (str(copy), copy.what) == (str(error.value), error.value.what)


def test_without_pydicom_the_line_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "a.dcm", phantom()[0, 0])
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r"a\.dcm: reading DICOM needs pydicom.*pip install"):
        read_dicom_study([path], view=None, interval=None, window=None, skip_bad=True)


def test_what_counts_as_dicom(tmp_path):
    good = write(tmp_path / "noname", phantom()[0, 0])
    assert is_dicom(good)
    assert not is_dicom(write(tmp_path / "DICOMDIR", None))
    assert not is_dicom(write(tmp_path / "index.dcm", None, SOPClassUID="1.2.840.10008.1.3.10"))
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(struct.pack("<HHL", 8, 0x60, 2) + b"MR" + b"\0" * 40)
    assert is_dicom(bare)
    bare.write_bytes(b"not an image at all")
    assert not is_dicom(bare)
    assert not is_dicom(tmp_path / "absent.dcm")
