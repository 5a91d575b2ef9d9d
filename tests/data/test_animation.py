"""Pictures and animations read back by the libraries that readers of them use."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ssl4neuro.data.animation import write_gif, write_mp4, write_png
from ssl4neuro.errors import UserError

ORANGE, BLUE = (255, 176, 0), (64, 176, 255)


def clip(frames: int = 5, height: int = 48, width: int = 64) -> np.ndarray:
    """Grey noise with a thin orange line that walks down, and a blue point that is there once."""
    grey = np.random.default_rng(0).integers(0, 256, (frames, height, width, 1), dtype=np.uint8)
    values = np.repeat(grey, 3, axis=3)
    for i in range(frames):
        values[i, 5 + 3 * i, 10:40] = ORANGE
    values[frames // 2, 2, 2] = BLUE
    return values


def gif(path: Path) -> tuple[list[np.ndarray], list[int], int | None]:
    with Image.open(path) as image:
        loop, frames, waits = image.info.get("loop"), [], []
        for i in range(image.n_frames):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")))
            waits.append(image.info["duration"])
    return frames, waits, loop


def test_a_picture_keeps_its_lines_and_its_greys(tmp_path: Path) -> None:
    picture = clip()[2]
    with Image.open(write_png(picture, tmp_path / "a.png")) as image:
        assert image.mode == "P"
        found = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(found - picture).max() <= 4  # of 256; the palette holds every second grey
    assert np.abs(found[2, 2] - BLUE).max() <= 4  # one pixel among 3,000
    picture[:] = 255
    with Image.open(write_png(picture, tmp_path / "a.png")) as image:
        assert (np.asarray(image.convert("RGB")) == 255).all()


def test_a_gif_loops_and_shows_every_frame_in_its_time(tmp_path: Path) -> None:
    values = clip()
    frames, waits, loop = gif(write_gif(values, tmp_path / "a.gif", 0.033))
    assert (len(frames), loop, set(waits)) == (5, 0, {30})
    assert np.abs(np.stack(frames).astype(int) - values).max() <= 6
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("interval", "wait"), [(0.001, 20), (0.025, 20), (0.04, 40), (1.2, 1200)])
def test_gif_times_are_those_that_viewers_keep(interval: float, wait: int, tmp_path: Path) -> None:
    assert set(gif(write_gif(clip(2), tmp_path / "a.gif", interval))[1]) == {wait}


def test_fewer_colours_make_a_smaller_file(tmp_path: Path) -> None:
    large, small = (write_gif(clip(), tmp_path / f"{n}.gif", 0.04, n).stat().st_size for n in (256, 16))
    assert small < 0.7 * large
    frames, *_ = gif(tmp_path / "16.gif")
    assert len(np.unique(np.stack(frames).reshape(-1, 3), axis=0)) <= 16


def test_colours_alone_need_no_grey(tmp_path: Path) -> None:
    values = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    values[..., 0] = np.arange(128, 256, 2, dtype=np.uint8).reshape(8, 8)
    frames, *_ = gif(write_gif(values, tmp_path / "a.gif", 0.1))
    assert np.abs(frames[0].astype(int) - values[0]).max() <= 6


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63)])
def test_a_video_has_every_frame_as_often_as_asked(height: int, width: int, tmp_path: Path) -> None:
    values = np.zeros((4, height, width, 3), dtype=np.uint8)
    for i in range(4):
        values[i] = 40 + 50 * i
    path = write_mp4(values, tmp_path / "a.mp4", 0.04, loops=3)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate == 25
        assert stream.codec_context.name in {"h264", "mpeg4"}
        assert (stream.height, stream.width) == (48, 64)
    assert len(frames) == 12
    means = np.array([frame.mean() for frame in frames])
    np.testing.assert_allclose(means, np.tile([40, 90, 140, 190], 3), atol=4)


def test_an_older_file_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gif(clip(2), tmp_path / "a.gif", 0.04)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match="no space left"):
        write_gif(clip(3), path, 0.04)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_intervals_are_refused(interval: float, tmp_path: Path) -> None:
    for write in (write_gif, write_mp4):
        with pytest.raises(ValueError, match="interval"):
            write(clip(2), tmp_path / "a", interval)
    assert not list(tmp_path.iterdir())


def test_nothing_to_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to write"):
        write_gif(clip(1)[:0], tmp_path / "a.gif", 0.04)
    with pytest.raises(ValueError, match="at least once"):
        write_mp4(clip(1), tmp_path / "a.mp4", 0.04, loops=0)
