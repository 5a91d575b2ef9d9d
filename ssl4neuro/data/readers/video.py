"""Videos (mp4, avi, mov, mkv) as clips, decoded frame by frame through PyAV with their real presentation times."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from ssl4neuro.data.clip import Clip
from ssl4neuro.data.readers.clip_checks import regular_times
from ssl4neuro.errors import UserError

EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv")


@dataclass(frozen=True)
class Decoded:
    """One decoded frame; or, with `problem`, what stopped the decoder there."""

    pixels: UInt8[np.ndarray, "height width 3"] | None
    time: float | None = None  # s, of the file's clock
    problem: str = ""
    rotation: int = 0  # degrees by which players turn it


@dataclass
class Recording:
    """Frames of a video as far as they could be read."""

    clip: Clip
    notes: list[str] = field(default_factory=list)


def read_video(path: Path, *, view: str = "", interval: float | None = None, skip_bad: bool = False) -> Recording:
    """One recording: uint8, [time, height, width] where it is grey throughout, else [time, height, width, 3].

    Rotation in the metadata is not applied, and noted. Frames stay as they were filmed.

    Args:
        interval: s between frames where the file gives no times.
        skip_bad: keep the frames before an unreadable one instead of refusing the file.

    Raises:
        UserError: PyAV is missing, no video in the file, or an unreadable frame (with its number).
    """
    return assemble(decode(Path(path)), Path(path), view=view, interval=interval, skip_bad=skip_bad)


def assemble(
    frames: Iterable[Decoded], path: Path, *, view: str = "", interval: float | None = None, skip_bad: bool = False
) -> Recording:
    """The clip of decoded frames; grey ones are kept with one channel while they arrive, which takes a third of the memory."""
    pixels: list[np.ndarray] = []
    times: list[float | None] = []
    notes: list[str] = []
    for frame in frames:
        if frame.pixels is None:
            what = f"frame {len(pixels) + 1} cannot be read ({frame.problem})"
            if not skip_bad or not pixels:
                raise UserError(f"{path}: {what}; repair the file, or keep the frames before it with --skip-bad")
            notes.append(f"{path}: {what}: the clip ends before it")
            break
        if pixels and frame.pixels.shape[:2] != pixels[0].shape[:2]:
            sizes = ["×".join(map(str, size)) for size in (frame.pixels.shape[:2], pixels[0].shape[:2])]
            raise UserError(f"{path}: frame {len(pixels) + 1} has {sizes[0]} pixels, the first {sizes[1]}; split the recording")
        if frame.rotation and not pixels:
            notes.append(f"{path}: players turn it by {frame.rotation}°, which is ignored")
        pixels.append(_without_colour(frame.pixels))
        times.append(frame.time)
    if not pixels:
        raise UserError(f"{path}: has no frames; export it again")
    clock = None if any(time is None for time in times) else np.array(times, dtype=np.float64)
    seconds = regular_times(len(pixels), interval) if clock is None else clock - clock[0]
    return Recording(Clip(_stack(pixels), view, times=seconds), notes)


def decode(path: Path) -> Iterator[Decoded]:
    """Frames of the first video stream, one at a time; the last one may carry a problem.

    Raises:
        UserError: PyAV is missing, or the file holds no video.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(f"{path}: reading videos needs PyAV; install it with `pip install av`") from error
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable video ({_first_line(error)}); copy or export it again") from error
    with container:
        if not container.streams.video:
            raise UserError(f"{path}: has no video stream; take it out of the source")
        stream = container.streams.video[0]
        stream.codec_context.options = {"err_detect": "explode"}  # else damaged frames are patched up and pass as real
        yield from _frames(container, stream, (av.error.FFmpegError, OSError, ValueError))


def _frames(container: Any, stream: Any, errors: tuple[type[Exception], ...]) -> Iterator[Decoded]:
    try:
        for packet in container.demux(stream):
            if getattr(packet, "is_corrupt", False):
                yield Decoded(None, problem="the file marks it as corrupt")
                return
            for frame in packet.decode():
                if getattr(frame, "is_corrupt", False):
                    yield Decoded(None, problem="decoded with errors")
                    return
                time = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
                rotation = int(getattr(frame, "rotation", 0) or 0)
                yield Decoded(frame.to_ndarray(format="rgb24"), time, rotation=rotation)
    except errors as error:
        yield Decoded(None, problem=_first_line(error))


def _without_colour(frame: UInt8[np.ndarray, "height width 3"]) -> Shaped[np.ndarray, "height width *colour"]:
    equal = (frame[..., 0] == frame[..., 1]).all() and (frame[..., 0] == frame[..., 2]).all()
    return np.ascontiguousarray(frame[..., 0]) if equal else frame


def _stack(pixels: list[np.ndarray]) -> Shaped[np.ndarray, "time height width *colour"]:
    """All frames with colour where one has it. The list is emptied on the way, so that no frame is there twice for long."""
    colour = any(frame.ndim == 3 for frame in pixels)
    height, width = pixels[0].shape[:2]
    stacked = np.empty((len(pixels), height, width, 3) if colour else (len(pixels), height, width), dtype=np.uint8)
    for number in range(len(pixels)):
        frame, pixels[number] = pixels[number], pixels[number][:0]
        stacked[number] = frame[..., None] if colour and frame.ndim == 2 else frame
    return stacked


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
