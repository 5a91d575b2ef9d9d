"""Arrays and animated images as clips: which axis is which, what belongs together, windows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from ssl4neuro.data.clip import Clip
from ssl4neuro.data.readers.arrays import clip_frames, read_npy, read_npz, read_pages
from ssl4neuro.data.readers.clip_checks import collect, fault, windows
from ssl4neuro.data.readers.subject_names import SubjectNames
from ssl4neuro.errors import UserError


def movie(frames: int = 5, height: int = 10, width: int = 14) -> np.ndarray:
    """[t, row, column]: the dot moves down by one row per frame, in column 3."""
    values = np.full((frames, height, width), 20, dtype=np.uint8)
    for t in range(frames):
        values[t, 2 + t, 3] = 250
    return values


def rows_of_dot(frames: np.ndarray) -> list[tuple[int, int]]:
    grey = frames if frames.ndim == 3 else frames.max(axis=-1)
    return [tuple(int(i) for i in np.unravel_index(frame.argmax(), frame.shape)) for frame in grey]  # type: ignore[misc]


DOT = [(2 + t, 3) for t in range(5)]


@given(st.integers(1, 40), st.integers(16, 40), st.integers(16, 40), st.sampled_from([None, 1, 3]))
def test_time_first_is_kept(t: int, h: int, w: int, colours: int | None) -> None:
    array = np.arange(t * h * w * (colours or 1)).reshape((t, h, w) if colours is None else (t, h, w, colours)).astype(np.int32)
    if colours is None and 2 * w < min(t, h) and max(t, h) < 1.5 * min(t, h):
        with pytest.raises(UserError, match=f"{t}×{h}×{w}"):
            clip_frames(array, "x")
        return
    result = clip_frames(array, "x")
    assert result.shape == ((t, h, w, 3) if colours == 3 else (t, h, w))
    assert np.array_equal(result.ravel(), array.ravel())


@given(st.permutations("THW"))
def test_named_axes_are_put_in_order(axes: list[str]) -> None:
    array = movie()
    other = array.transpose(["THW".index(axis) for axis in axes])
    assert np.array_equal(clip_frames(other, "x", "".join(axes)), array)


@given(st.lists(st.integers(0, 4), max_size=6).filter(lambda shape: len(shape) != 4 or shape[-1] != 1))
def test_small_or_odd_shapes_are_named(shape: list[int]) -> None:
    array = np.zeros(shape, dtype=np.uint8)
    if 0 not in shape and (len(shape) == 2 or (len(shape) == 4 and shape[-1] == 3)):
        assert clip_frames(array, "x").shape == ((1, *shape) if len(shape) == 2 else tuple(shape))
    else:  # three axes of which the last has at most 4 elements may be (height, width, colour)
        with pytest.raises(UserError, match="×".join(map(str, shape)) or r"\(\)"):
            clip_frames(array, "x")


@pytest.mark.parametrize("shape", [(128, 128, 3), (64, 60, 20), (5, 3, 32, 32), (7,), (2, 3, 4, 5, 6)])
def test_ambiguous_and_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="×".join(map(str, shape))):
        clip_frames(np.zeros(shape), "x")


def test_npz_with_everything(tmp_path: Path) -> None:
    mask = np.zeros((2, 10, 14), np.int64)
    mask[:, 4] = 3
    np.savez(
        tmp_path / "a.npz", frames=movie(), times=np.arange(5) * 0.1 + 7, spacing=[0.5, 0.4], mask=mask, mask_frames=[4, 1]
    )
    (clip,) = read_npz(tmp_path / "a.npz", view="vessel", interval=9.0)
    assert rows_of_dot(clip.frames) == DOT
    assert clip.times == pytest.approx(np.arange(5) * 0.1)
    assert (clip.spacing, clip.view, clip.slice) == ((0.5, 0.4), "vessel", -1)
    assert clip.mask is not None
    assert clip.mask_frames is not None
    assert np.array_equal(clip.mask, mask)
    assert clip.mask_frames.tolist() == [4, 1]
    assert fault(clip) is None
    np.save(tmp_path / "a.npy", movie())
    (clip,) = read_npy(tmp_path / "a.npy", interval=0.5)
    assert rows_of_dot(clip.frames) == DOT
    assert clip.times == pytest.approx(np.arange(5) * 0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": movie(), "b": movie()}, "has arrays a, b"),
        ({"frames": np.array([{}], dtype=object)}, "Python objects"),
        ({"frames": np.array(["x"])}, "not numbers"),
        ({"frames": movie(), "times": np.arange(4)}, "does not fit 5 frames"),
        ({"frames": movie(), "spacing": [1.0]}, "no pair of mm"),
        ({"frames": movie(), "mask": np.zeros((2, 10, 14), int)}, "add `mask_frames`"),
        ({"frames": movie(), "mask": np.zeros((9, 14), int)}, "9×14 pixels on frames of 10×14"),
        ({"frames": movie(), "mask": np.full((10, 14), 0.5)}, "labels 0 to 255"),
        ({"frames": movie(), "axes": "HHW"}, "do not name"),
    ],
)
def test_npz_that_makes_no_sense(tmp_path: Path, content: dict[str, object], message: str) -> None:
    np.savez(tmp_path / "a.npz", **content)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        read_npz(tmp_path / "a.npz")


def test_cut_short_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", frames=movie())
    np.save(tmp_path / "a.npy", movie())
    save_pages(tmp_path / "a.tif", movie())
    readers: dict[str, Callable[..., list[Clip]]] = {"a.npz": read_npz, "a.npy": read_npy, "a.tif": read_pages}
    for name, reader in readers.items():
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 3])
        with pytest.raises(UserError, match="cannot be read"):
            reader(tmp_path / name)


def save_pages(path: Path, frames: np.ndarray, description: str = "", **options: object) -> Path:
    pages = [Image.fromarray(frame) for frame in frames]
    if description:
        info = TiffImagePlugin.ImageFileDirectory_v2()
        info[270] = description
        options["tiffinfo"] = info
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_tiff_pages_are_frames(tmp_path: Path, kind: type) -> None:
    (clip,) = read_pages(save_pages(tmp_path / "a.tif", movie().astype(kind)))
    assert clip.frames.dtype == kind
    assert rows_of_dot(clip.frames) == DOT
    assert clip.times is None


def test_colour_stays_and_equal_channels_are_grey(tmp_path: Path) -> None:
    equal = np.repeat(movie()[..., None], 3, axis=-1)
    assert np.array_equal(read_pages(save_pages(tmp_path / "a.tif", equal))[0].frames, movie())
    equal[3, 0, 0] = (9, 8, 7)
    assert np.array_equal(read_pages(save_pages(tmp_path / "b.tif", equal))[0].frames, equal)


def test_imagej_hyperstack_is_one_clip_per_slice(tmp_path: Path) -> None:
    pages = np.stack([movie()[t] if z == 0 else movie()[t][:, ::-1] for t in range(5) for z in range(2)])
    text = "ImageJ=1.53\nimages=10\nslices=2\nframes=5\nfinterval=0.25\n"
    first, second = read_pages(save_pages(tmp_path / "a.tif", pages, text))
    assert rows_of_dot(first.frames) == DOT
    assert rows_of_dot(second.frames) == [(row, 10) for row, _ in DOT]
    assert second.slice == 1
    assert first.times == pytest.approx(0.25 * np.arange(5))
    with pytest.raises(UserError, match="10 pages, but its header says 2 slices × 4 frames"):
        read_pages(save_pages(tmp_path / "a.tif", pages, text.replace("frames=5", "frames=4")))


def test_pages_of_another_size(tmp_path: Path) -> None:
    first, *rest = [Image.fromarray(np.zeros((4, 4 + n), np.uint8)) for n in range(3)]
    first.save(tmp_path / "a.tif", save_all=True, append_images=rest)
    with pytest.raises(UserError, match="page 2 has 4×5 pixels, the first 4×4"):
        read_pages(tmp_path / "a.tif")


def test_gif_has_the_times_of_its_pages(tmp_path: Path) -> None:
    (clip,) = read_pages(save_pages(tmp_path / "a.gif", movie(), duration=[100, 50, 50, 200, 100]))
    assert rows_of_dot(clip.frames) == DOT
    assert clip.times == pytest.approx([0, 0.1, 0.15, 0.2, 0.4])


@given(st.integers(1, 40), st.integers(1, 15))
def test_windows_lose_less_than_half_a_window(total: int, length: int) -> None:
    frames = np.arange(total * 4).reshape(total, 2, 2)
    clip = Clip(frames, times=np.arange(total) * 0.5, mask=np.zeros((1, 2, 2), np.uint8), mask_frames=np.array([total // 2]))
    parts, note = windows(clip, length)
    kept = np.concatenate([part.frames for part in parts])
    assert np.array_equal(kept, frames[: len(kept)])
    lost = total - len(kept)
    assert 2 * lost < length
    assert (note is None) == (lost == 0)
    assert all(len(part.frames) == length for part in parts[:-1])
    assert all(part.times is not None and part.times[0] == 0 for part in parts)
    labelled = [part.frames[part.mask_frames[0]] for part in parts if part.mask_frames is not None]
    assert len(labelled) == (1 if total // 2 < len(kept) else 0)
    assert all(np.array_equal(frame, frames[total // 2]) for frame in labelled)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (Clip(np.zeros((3, 4, 4))), "constant"),
        (Clip(movie(), times=np.array([0.0, 0.1, 0.1, 0.2, 0.3])), "frame 3 at 0.1 s follows 0.1 s"),
        (Clip(movie(), mask=np.zeros((1, 10, 14), np.uint8), mask_frames=np.array([5])), "frame index 5"),
    ],
)
def test_unusable_clips(clip: Clip, message: str) -> None:
    with pytest.raises(UserError, match=message):
        collect([("FILE", clip)], window=None, skip_bad=False, study="S")
    rows = collect([("FILE", clip), ("OTHER", Clip(movie()))], window=None, skip_bad=True, study="S")
    assert (len(rows.clips), len(rows.left_out)) == (1, 1)
    with pytest.raises(UserError, match="S: nothing usable is left"):
        collect([("FILE", clip)], window=None, skip_bad=True, study="S")


NAME = st.text("abAB01-_.+ ", min_size=1, max_size=8).filter(lambda text: text == text.strip())


@given(st.dictionaries(NAME, st.text("abAB01", min_size=1, max_size=6), min_size=1, max_size=6))
def test_table_of_subjects(tmp_path_factory: pytest.TempPathFactory, names: dict[str, str]) -> None:
    path = tmp_path_factory.mktemp("names") / "map.tsv"
    path.write_text("source\tparticipant_id\n" + "".join(f"{k}\t{v}\n" for k, v in names.items()))
    table = SubjectNames.open(path)
    assert {source: table.of(source) for source in names} == names
    assert table.of_patients([("unknown", source) for source in names]) == list(names.values())
    assert SubjectNames.open(None).of("anyone") == "anyone"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("DOE^JANE\tsub-1\nDOE^JANE\tsub-2\n", "line 3 gives another"),
        ("DOE^JANE\t\n", "line 2 has no participant_id"),
        ("\tsub-1\n", "line 2 has no source"),
        ("DOE^JANE\t../x\n", "line 2: the participant_id is no plain name"),
        ("", "has no lines"),
    ],
)
def test_unusable_tables_of_subjects_name_nobody(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "map.tsv"
    path.write_text("source\tparticipant_id\n" + lines)
    with pytest.raises(UserError, match=message) as caught:
        SubjectNames.open(path)
    assert "DOE" not in str(caught.value)


def test_unlisted_patients_are_counted_not_named(tmp_path: Path) -> None:
    path = tmp_path / "map.tsv"
    path.write_text("source\tparticipant_id\nA\tsub-1\n")
    with pytest.raises(UserError, match="does not list 2 of 3 patients") as caught:
        SubjectNames.open(path).of_patients([("A",), ("DOE^JANE",), ("ROE^RICHARD",)])
    assert "OE^" not in str(caught.value)
