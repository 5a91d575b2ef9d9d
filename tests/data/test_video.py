"""Videos as clips: what is done with decoded frames, and real files where PyAV is installed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ssl4neuro.data.readers.video import Decoded, assemble, read_video
from ssl4neuro.errors import UserError

FILE = Path("a.mp4")


def decoded(count: int = 6, colour: int | None = None, bad: int | None = None, rotation: int = 0) -> Iterator[Decoded]:
    """Grey frames whose dot moves down by one row per frame; frame `colour` has a red pixel, frame `bad` stops the decoder."""
    for t in range(count):
        if t == bad:
            yield Decoded(None, problem="Invalid data")
            return
        frame = np.full((12, 16, 3), 30, dtype=np.uint8)
        frame[2 + t, 5] = 200
        if t == colour:
            frame[0, 0] = (90, 0, 0)
        yield Decoded(frame, 3.0 + 0.04 * t, rotation=rotation)


def test_grey_video_has_one_channel_and_times_from_zero() -> None:
    recording = assemble(decoded(), FILE, interval=9.0)
    frames = recording.clip.frames
    assert (frames.shape, frames.dtype, recording.notes) == ((6, 12, 16), np.uint8, [])
    assert [int(frame.argmax()) for frame in frames] == [16 * (2 + t) + 5 for t in range(6)]
    assert recording.clip.times == pytest.approx(0.04 * np.arange(6))


def test_one_coloured_frame_keeps_all_channels() -> None:
    frames = assemble(decoded(colour=4), FILE).clip.frames
    assert frames.shape == (6, 12, 16, 3)
    assert np.array_equal(frames, np.stack([frame.pixels for frame in decoded(colour=4) if frame.pixels is not None]))


def test_unreadable_frame_is_numbered_and_ends_the_clip_on_request() -> None:
    with pytest.raises(UserError, match=r"frame 4 cannot be read \(Invalid data\)"):
        assemble(decoded(bad=3), FILE)
    recording = assemble(decoded(bad=3), FILE, skip_bad=True)
    assert len(recording.clip.frames) == 3
    assert "frame 4" in recording.notes[0]
    with pytest.raises(UserError, match="frame 1"):
        assemble(decoded(bad=0), FILE, skip_bad=True)


def test_frames_without_times_rotation_and_size() -> None:
    untimed = [Decoded(frame.pixels, None) for frame in decoded()]
    assert assemble(untimed, FILE).clip.times is None
    assert assemble(untimed, FILE, interval=0.5).clip.times == pytest.approx(0.5 * np.arange(6))
    recording = assemble(decoded(rotation=90), FILE)
    assert recording.clip.frames.shape == (6, 12, 16)
    assert "90°" in recording.notes[0]
    with pytest.raises(UserError, match="frame 7 has 4×5 pixels, the first 12×16"):
        assemble([*decoded(), Decoded(np.zeros((4, 5, 3), np.uint8), 9.0)], FILE)
    with pytest.raises(UserError, match="no frames"):
        assemble([], FILE)


def write(path: Path, frames: np.ndarray, rate: int = 25) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = *frames.shape[1:3], "yuv420p", 4_000_000
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.mov"])
def test_files_keep_motion_and_times(tmp_path: Path, name: str) -> None:
    frames = np.full((10, 64, 96, 3), 20, dtype=np.uint8)
    for t in range(10):
        frames[t, 4 * t : 4 * t + 8, 40:48] = 230
    clip = read_video(write(tmp_path / name, frames)).clip
    assert clip.frames.shape == (10, 64, 96)  # grey, since all channels are equal
    centres = [np.argwhere(frame > 128).mean(axis=0) for frame in clip.frames]
    assert np.array(centres) == pytest.approx(np.array([[4 * t + 3.5, 43.5] for t in range(10)]), abs=1.0)
    assert clip.times == pytest.approx(0.04 * np.arange(10), abs=1e-3)


def test_damage_in_the_middle_is_found(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3)).astype(np.uint8)
    path = write(tmp_path / "a.avi", noise)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = bytes(4000)
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"frame \d+ cannot be read"):
        read_video(path)
    assert 1 <= len(read_video(path, skip_bad=True).clip.frames) < 20


def test_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(UserError, match=r"not a readable video|needs PyAV"):
        read_video(path)


def test_real_video(shared_data: Path) -> None:
    pytest.importorskip("av")
    path = shared_data / "video-clips" / "bikes.mp4"
    if not path.is_file():
        pytest.skip(f"no {path}")
    clip = read_video(path).clip
    assert clip.frames.ndim == 4
    assert len(clip.frames) > 100
    assert clip.times is not None
    assert (np.diff(clip.times) > 0).all()
