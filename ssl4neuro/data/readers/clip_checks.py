"""What every reader of clips does before it hands clips on: refuse unusable ones, cut long ones, count what is left."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ssl4neuro.data.clip import Clip, ClipRows
from ssl4neuro.errors import UserError

INTERVAL_RANGE = (1e-6, 3600.0)  # s between frames; outside it a number is a mistake of units


def check_options(interval: float | None, window: int | None) -> None:
    """Options that all readers of clips share.

    Raises:
        ValueError: out of range.
    """
    if interval is not None and not INTERVAL_RANGE[0] <= interval <= INTERVAL_RANGE[1]:
        raise ValueError(f"interval {interval}: no frame interval in seconds, e.g. 0.033")
    if window is not None and window < 1:
        raise ValueError(f"window {window}: frames per clip, at least 1")


def regular_times(frames: int, interval: float | None) -> Float[np.ndarray, "time"] | None:
    """Times (s) of frames that follow each other every `interval` s; None where it is unknown."""
    return None if interval is None else np.arange(frames) * float(interval)


def fault(clip: Clip) -> str | None:
    """What makes a clip unusable, for a message; None where nothing does."""
    frames = clip.frames
    if 0 in frames.shape:
        return f"has no pixels ({'×'.join(map(str, frames.shape))})"
    if frames.dtype.kind == "f":
        finite = np.isfinite(frames).reshape(len(frames), -1).all(axis=1)
        if not finite.all():
            return f"has NaN or infinite values in frame {int(np.argmin(finite)) + 1} of {len(frames)}"
    if frames.min() == frames.max():
        return f"is constant (every pixel of every frame is {frames.flat[0]:g})"
    return _bad_times(clip) or _bad_mask(clip)


def windows(clip: Clip, length: int | None) -> tuple[list[Clip], str | None]:
    """Successive clips of `length` frames, and a note on frames that were dropped.

    The rest at the end is a clip of its own if it has at least half as many frames. Times start from 0 in every clip.
    """
    total = len(clip.frames)
    if length is None or total <= length:
        return [clip], None
    rest = total % length
    stop = total - rest if 2 * rest < length else total
    note = None if stop == total else f"{total - stop} frames at the end, fewer than half a window of {length}"
    return [_stretch(clip, start, min(start + length, stop)) for start in range(0, stop, length)], note


def collect(
    clips: Iterable[tuple[str, Callable[[], Clip] | Clip]], *, window: int | None, skip_bad: bool, study: str
) -> ClipRows:
    """Clips that passed, cut into windows.

    Args:
        clips: what to call it in messages (`FILE: slice 3`), and the clip or how to read it.
        study: what to call all of them.

    Raises:
        UserError: an unusable clip (with `skip_bad` it is left out, with a line that says why), or none is left.
    """
    rows = ClipRows([])
    for where, source in clips:
        try:
            clip = source if isinstance(source, Clip) else source()
            problem = fault(clip)
            if problem:
                raise UserError(f"{where} {problem}; repair it, or leave such parts out with --skip-bad")
        except UserError as error:
            if not skip_bad:
                raise
            rows.left_out.append(str(error).split("; ")[0])
            continue
        parts, note = windows(clip, window)
        rows.clips += parts
        if note:
            rows.left_out.append(f"{where}: {note}")
    return counted(rows, study)


def counted(rows: ClipRows, study: str) -> ClipRows:
    """The rows with their `n_frames` (of the longest clip) and `n_slices`.

    Raises:
        UserError: there is no clip.
    """
    if not rows.clips:
        first = f" ({rows.left_out[0]})" if rows.left_out else ""
        raise UserError(f"{study}: nothing usable is left of it{first}; repair it or take it out of the source")
    slices = {clip.slice for clip in rows.clips if clip.slice >= 0}
    rows.nuisance["n_frames"] = float(max(len(clip.frames) for clip in rows.clips))
    rows.nuisance["n_slices"] = float(len(slices) or 1)
    return rows


def known(value: float, low: float, high: float) -> float | None:
    """A number from a header if it can be true, else None."""
    return float(value) if math.isfinite(value) and low <= value <= high else None


def _stretch(clip: Clip, start: int, stop: int) -> Clip:
    times = None if clip.times is None else clip.times[start:stop] - clip.times[start]
    mask, labelled = clip.mask, clip.mask_frames
    if mask is not None and labelled is not None:
        inside = (labelled >= start) & (labelled < stop)
        mask, labelled = (mask[inside], labelled[inside] - start) if inside.any() else (None, None)
    return replace(clip, frames=clip.frames[start:stop], times=times, mask=mask, mask_frames=labelled)


def _bad_times(clip: Clip) -> str | None:
    if clip.times is None:
        return None
    if len(clip.times) != len(clip.frames):
        return f"has {len(clip.times)} times for {len(clip.frames)} frames"
    if not np.isfinite(clip.times).all():
        return "has times that are no numbers"
    back = np.flatnonzero(np.diff(clip.times) <= 0)
    if len(back):
        before, after = clip.times[back[0] : back[0] + 2]
        return f"has time stamps that do not increase: frame {back[0] + 2} at {after:g} s follows {before:g} s"
    return None


def _bad_mask(clip: Clip) -> str | None:
    if clip.mask is None or clip.mask_frames is None:
        return None
    if clip.mask.shape[1:] != clip.frames.shape[1:3]:
        sizes = ["×".join(map(str, shape)) for shape in (clip.mask.shape[1:], clip.frames.shape[1:3])]
        return f"has a mask of {sizes[0]} pixels on frames of {sizes[1]}"
    if len(clip.mask_frames) != len(clip.mask):
        return f"has {len(clip.mask)} masks for {len(clip.mask_frames)} labelled frames"
    if len(clip.mask) and not (clip.mask_frames.min() >= 0 and clip.mask_frames.max() < len(clip.frames)):
        wrong = next(int(f) for f in clip.mask_frames if not 0 <= f < len(clip.frames))
        return f"has a mask of frame index {wrong}, but only {len(clip.frames)} frames (counted from 0)"
    return None


def numbered(items: Iterable[str]) -> Iterator[str]:
    """`run-1`, `run-2` for items that share a key with others, an empty string for one that is alone."""
    items = list(items)
    seen: dict[str, int] = {}
    for item in items:
        seen[item] = seen.get(item, 0) + 1
        yield f"run-{seen[item]}" if items.count(item) > 1 else ""
