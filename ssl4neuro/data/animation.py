"""Pictures and animations on the disk: PNG and looping GIF for pages and slides, MP4 for talks.

Slices are grey with a few coloured lines, so 256 colours of their own lose nothing that an eye can see and save two thirds
of a PNG or GIF.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ssl4neuro.atomic import new_file
from ssl4neuro.errors import UserError

TICK = 0.01  # s, in which a GIF counts
SHORTEST = 0.02  # s; viewers play anything faster at 0.1 s
QUALITY = {"libx264": {"crf": "18"}, "mpeg4": {"qmin": "2", "qmax": "4"}}  # thin lines stay thin
STEP = 2  # bits; colours nearer to each other than this are one
COLOURS = 256  # the most that a GIF's palette holds


def write_png(picture: UInt8[np.ndarray, "height width 3"], path: str | Path) -> Path:
    """Write a picture with a palette of its own, atomically.

    Raises:
        UserError: `path` cannot be written.
    """
    with new_file(Path(path)) as temporary:
        _indexed(picture[None], COLOURS)[0].save(temporary, format="png", optimize=True)
    return Path(path)


def write_gif(
    frames: UInt8[np.ndarray, "time height width 3"], path: str | Path, interval_s: float, colours: int = COLOURS // 2
) -> Path:
    """Write a GIF that loops for ever, atomically.

    Args:
        frames: RGB.
        path: file to write; an existing one is replaced.
        interval_s: time from frame to frame, s; rounded to 0.01 s and at least 0.02 s, as viewers show GIFs.
        colours: of one palette for all frames, so that no grey flickers; 8 to 256, fewer make a smaller file.

    Raises:
        UserError: `path` cannot be written.
        ValueError: no frame, or an interval that is not above 0.
    """
    _check(frames, interval_s)
    first, *others = _indexed(frames, colours)
    wait = max(round(interval_s / TICK), round(SHORTEST / TICK)) * round(TICK * 1000)  # ms
    with new_file(Path(path)) as temporary:
        first.save(temporary, format="gif", save_all=True, append_images=others, duration=wait, loop=0, optimize=False)
    return Path(path)


def write_mp4(frames: UInt8[np.ndarray, "time height width 3"], path: str | Path, interval_s: float, loops: int = 1) -> Path:
    """Write an MP4 that common players and slides show, atomically: H.264, or MPEG-4 where PyAV comes without x264.

    Args:
        frames: RGB; an odd height or width is filled up by repeating the last line, which 4:2:0 video needs.
        path: file to write; an existing one is replaced.
        interval_s: time from frame to frame, s.
        loops: how often the frames are played; one heart beat is short.

    Raises:
        UserError: `path` cannot be written.
        ValueError: no frame, an interval that is not above 0, or `loops` below 1.
    """
    import av

    _check(frames, interval_s)
    if loops < 1:
        raise ValueError(f"loops {loops}: frames are played at least once")
    codec = next((name for name in QUALITY if name in av.codecs_available), None)
    if codec is None:
        raise UserError(f"{path}: this PyAV writes neither H.264 nor MPEG-4; install av from PyPI, or write a GIF")
    odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    even = np.pad(frames, odd, mode="edge")
    with new_file(Path(path)) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(1 / interval_s).limit_denominator(1000))
        stream.height, stream.width, stream.pix_fmt = even.shape[1], even.shape[2], "yuv420p"
        stream.options = QUALITY[codec]
        for _ in range(loops):
            for frame in even:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return Path(path)


def _indexed(frames: UInt8[np.ndarray, "time height width 3"], colours: int) -> list[Image.Image]:
    """The frames with one palette: half of it evenly spaced greys, half what stands best for the other colours that there are.

    Every colour is counted once: counted by their pixels, all places would go to the greys, and the lines, which matter,
    would lose theirs.
    """
    grey = (frames.max(axis=3) - frames.min(axis=3)) == 0
    codes = (frames >> STEP).astype(np.int32) @ np.array([1, 64, 4096], dtype=np.int32)
    seen = np.flatnonzero(np.bincount(codes[~grey], minlength=1))
    n = colours - min(colours // 2, len(seen))
    table = np.linspace(0, 255, n)[:, None].repeat(3, axis=1)
    nearest = np.zeros(64**3, dtype=np.uint8)
    if len(seen):
        middles = (np.stack([seen, seen >> 6, seen >> 12], axis=1) % 64 << STEP) + (1 << STEP >> 1)
        reduced = Image.fromarray(middles[None].astype(np.uint8)).quantize(colours - n, dither=Image.Dither.NONE)
        table = np.concatenate([table, np.array(reduced.getpalette()).reshape(-1, 3)[: colours - n]])
        nearest[seen] = np.square(middles[:, None] - table[None]).sum(axis=2).argmin(axis=1)
    indices = np.where(grey, np.round(frames[..., 0] * ((n - 1) / 255)).astype(np.uint8), nearest[codes])
    pictures = [Image.fromarray(frame) for frame in indices]
    for picture in pictures:
        picture.putpalette(table.round().astype(np.uint8).tobytes())
    return pictures


def _check(frames: UInt8[np.ndarray, "time height width 3"], interval_s: float) -> None:
    if not frames.size:
        raise ValueError(f"frames of shape {frames.shape}: nothing to write")
    if not 0 < interval_s < float("inf"):
        raise ValueError(f"interval {interval_s} s: must be a number above 0")
