"""Rows of clip cohorts: one clip with its native frames, times, spacing and masks, and where in the picture something moves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int, Shaped

from ssl4neuro.data.clip import Clip, ClipRows
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.moments import Moments
from ssl4neuro.data.scan import Scan
from ssl4neuro.errors import UserError

TYPES = ("uint8", "int8", "uint16", "int16", "int32", "float32")
MOVING_SHARE = 0.1  # of the pixels: those whose values vary most tell where the moving region is
BLOCK = 4_000_000  # values at a time in sums over a clip


@dataclass(frozen=True)
class ClipFormat:
    """Format of clip rows."""

    nuisance: ClassVar[tuple[str, ...]] = ("n_clips", "n_frames")

    def finalise(self, rows: ClipRows, name: str) -> tuple[ClipRows, list[str]]:
        """Clips in a storable type, without those that show nothing.

        Raises:
            UserError: no clip is left, or one is not what a clip must be.
        """
        kept, left_out = [], list(rows.left_out)
        for number, clip in enumerate(rows.clips):
            what = f"slice {clip.slice}" if clip.slice >= 0 else f"clip {number + 1}"
            checked = _checked(clip, f"{name}: {what}")
            if checked.frames.min() == checked.frames.max():
                left_out.append(f"{what} is constant, left out")
            else:
                kept.append(checked)
        if not kept:
            raise UserError(f"{name}: no clip can be used ({'; '.join(left_out[:3]) or 'there is none'}); check the file")
        nuisance = {"n_clips": float(len(kept)), "n_frames": float(max(len(clip.frames) for clip in kept)), **rows.nuisance}
        return ClipRows(kept, nuisance), left_out

    def values(self, rows: ClipRows) -> bytes:
        """All frames."""
        return b"".join(np.ascontiguousarray(clip.frames).tobytes() for clip in rows.clips)

    def pack(self, rows: ClipRows) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """One array per clip and kind."""
        arrays: dict[str, np.ndarray] = {}
        lines = []
        for number, clip in enumerate(rows.clips):
            arrays[f"frames{number}"] = clip.frames
            for name in ("times", "mask", "mask_frames"):
                if getattr(clip, name) is not None:
                    arrays[f"{name}{number}"] = getattr(clip, name)
            place = {"affine": _flat(clip.affine), "slices": clip.slices, "thickness": clip.thickness}
            lines.append({"view": clip.view, "slice": clip.slice, "spacing": clip.spacing, **place})
        nuisance = {key: value for key, value in rows.nuisance.items() if np.isfinite(value)}
        return arrays, {"clips": lines, "nuisance": nuisance}

    def unpack(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> ClipRows:
        """The inverse of `pack`."""
        clips = [
            Clip(
                arrays[f"frames{n}"], line["view"], line["slice"], arrays.get(f"times{n}"),
                None if line["spacing"] is None else (line["spacing"][0], line["spacing"][1]),
                arrays.get(f"mask{n}"), arrays.get(f"mask_frames{n}"), affine_of(line["affine"]), line["slices"],
                line["thickness"],
            )
            for n, line in enumerate(meta["clips"])
        ]  # fmt: skip
        return ClipRows(clips, dict(meta["nuisance"]))

    def take_over(self, cohort: Cohort, rows: Int[np.ndarray, "rows"], record: Mapping[str, Any]) -> ClipRows:
        """Clips of one study as an existing cohort holds them."""
        return ClipRows(cohort.fetch(rows)["cine"], dict(record["nuisance"]))

    def schema(self) -> pa.Schema:
        """Frames and masks as bytes in C order, because type and shape differ from clip to clip."""
        columns: list[tuple[str, pa.DataType]] = [(n, pa.string()) for n in ("subject", "session", "run", "site", "view")]
        columns += [(n, pa.int32()) for n in ("slice", "count", "height", "width", "channels")]
        columns += [(n, pa.float32()) for n in ("interval", "spacing_row", "spacing_column", "centre_row", "centre_column")]
        columns += [("type", pa.string()), ("frames", pa.large_binary()), ("times", pa.list_(pa.float32()))]
        columns += [("mask", pa.large_binary()), ("mask_frames", pa.list_(pa.int32())), ("content", pa.string())]
        columns += [("affine", pa.list_(pa.float64())), ("slices", pa.int32()), ("thickness", pa.float32())]
        return pa.schema(columns)

    def batch(self, scan: Scan, rows: ClipRows) -> pa.RecordBatch:
        """One line per clip."""
        identity = {"subject": scan.subject, "session": scan.session, "run": scan.run, "site": scan.site}
        lines = [{**identity, **_line(clip), **place} for clip, place in zip(rows.clips, _centres(rows.clips), strict=True)]
        return pa.RecordBatch.from_pylist(lines, schema=self.schema())

    def tally(self) -> "ClipTally":
        """Nothing counted yet."""
        return ClipTally()


@dataclass
class ClipTally:
    """Values, lengths, sizes, times and spacings of all clips."""

    moments: Moments = field(default_factory=Moments)
    counts: list[int] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    intervals: list[float] = field(default_factory=list)
    spacings: list[float] = field(default_factory=list)
    channels: set[int] = field(default_factory=set)
    views: set[str] = field(default_factory=set)
    masks: int = 0

    def add(self, rows: ClipRows) -> None:
        """Count one study."""
        for clip in rows.clips:
            for part in np.array_split(clip.frames, max(1, clip.frames.size // BLOCK)):
                if part.size:
                    self.moments.add(part)
            self.counts.append(len(clip.frames))
            self.sizes.add((clip.frames.shape[1], clip.frames.shape[2]))
            self.intervals.append(interval_of(clip.times))
            self.spacings += [float("nan")] if clip.spacing is None else list(clip.spacing)
            self.channels.add(1 if clip.frames.ndim == 3 else 3)
            self.views.add(clip.view)
            self.masks += 0 if clip.mask is None else len(clip.mask)

    def statistics(self) -> dict[str, Any]:
        """Raw values; frames per clip; heights and widths; how many clips have one frame only, how many frames a mask."""
        heights, widths = ([size[i] for size in self.sizes] for i in (0, 1))
        return {
            "cine": {
                **self.moments.summary(),
                "frames_min": min(self.counts),
                "frames_max": max(self.counts),
                "height": [min(heights), max(heights)],
                "width": [min(widths), max(widths)],
                "single_frames": sum(count == 1 for count in self.counts),
                "masks": self.masks,
            }
        }

    def tables(self) -> dict[str, list[dict[str, object]]]:
        """None."""
        return {}

    def contract(self, described: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """What was filmed; how clips are cut for an encoder is its own, and is added in training (`loading`)."""
        entry: dict[str, Any] = {
            "kind": "clip",
            "channels": sorted(self.channels),
            "cyclic": None,
            "interval": _range(self.intervals),
            "spacing": _range(self.spacings),
            "views": sorted(self.views),
        }
        entry |= {key: value for key, value in described.get("cine", {}).items() if key in entry}
        return {"cine": entry, "motion": {**entry, "residual_of": "cine"}}


def interval_of(times: Float[np.ndarray, "time"] | None) -> float:
    """Median frame interval, s; NaN where unknown."""
    if times is None or len(times) < 2:
        return float("nan")
    steps = np.diff(times)
    return float(np.median(steps[np.isfinite(steps)])) if np.isfinite(steps).any() else float("nan")


def moving_centre(frames: Shaped[np.ndarray, "time height width *colour"]) -> tuple[float, float]:
    """Row and column (pixels) about which values vary most over time; the middle of the picture where nothing does.

    Centroid of the tenth of the pixels with the largest standard deviation, after a 5 × 5 mean that drops single noisy pixels.
    """
    from scipy.ndimage import uniform_filter

    middle = ((frames.shape[1] - 1) / 2, (frames.shape[2] - 1) / 2)
    if len(frames) < 2:
        return middle
    total, squares = np.zeros(frames.shape[1:3]), np.zeros(frames.shape[1:3])
    for frame in frames:
        grey = frame.astype(np.float64) if frame.ndim == 2 else frame.mean(axis=2, dtype=np.float64)
        total += grey
        squares += grey * grey
    variance = np.maximum(squares / len(frames) - (total / len(frames)) ** 2, 0)
    spread = uniform_filter(np.sqrt(variance), 5)
    if spread.max() <= 0:
        return middle
    weight = np.where(spread >= np.quantile(spread, 1 - MOVING_SHARE), spread, 0)
    rows, columns = np.indices(spread.shape)
    return float((rows * weight).sum() / weight.sum()), float((columns * weight).sum() / weight.sum())


def _checked(clip: Clip, name: str) -> Clip:
    frames = np.asarray(clip.frames)
    if frames.ndim not in (3, 4) or 0 in frames.shape or (frames.ndim == 4 and frames.shape[3] != 3):
        raise UserError(f"{name}: frames of shape {frames.shape}; expected time × height × width, or the same × 3 colours")
    if frames.dtype.kind == "f":
        if not np.isfinite(frames).all():
            bad = int((~np.isfinite(frames.reshape(len(frames), -1)).all(axis=1)).sum())
            raise UserError(f"{name}: NaN or infinite values in {bad} of {len(frames)} frames; repair the file or leave it out")
        frames = frames.astype(np.float32, copy=False)
    frames = frames.astype(np.uint8) if frames.dtype == bool else frames.astype(frames.dtype.newbyteorder("="), copy=False)
    if frames.dtype.name not in TYPES:
        frames = frames.astype(np.int32 if np.abs(frames).max() < 2**31 else np.float32)
    times = None if clip.times is None else np.asarray(clip.times, dtype=np.float32)
    if times is not None and (times.shape != (len(frames),) or (np.diff(times) < 0).any()):
        raise UserError(
            f"{name}: {len(times)} times for {len(frames)} frames, or times that go backwards; check the time stamps"
        )
    if clip.mask is not None:
        where = None if clip.mask_frames is None else np.asarray(clip.mask_frames, dtype=np.int32)
        if where is None or clip.mask.shape != (len(where), *frames.shape[1:3]):
            raise UserError(f"{name}: masks of shape {clip.mask.shape} for frames of {frames.shape[1:3]}; check the mask file")
        if len(where) and (where.min() < 0 or where.max() >= len(frames)):
            raise UserError(f"{name}: a mask belongs to frame {int(where.max())} of {len(frames)}; check the mask file")
        clip = replace(clip, mask=np.ascontiguousarray(clip.mask, dtype=np.uint8), mask_frames=where)
    return replace(clip, frames=np.ascontiguousarray(frames), times=times)


def _centres(clips: Sequence[Clip]) -> list[dict[str, float]]:
    """Centres of the clips' moving regions: the median over the slices of a stack, since one slice may hold a vessel."""
    own = np.array([moving_centre(clip.frames) for clip in clips])
    stacks = [(clip.view, clip.frames.shape[1:3], clip.spacing) for clip in clips]
    medians = {stack: np.median(own[[s == stack for s in stacks]], axis=0) for stack in set(stacks)}
    return [{"centre_row": float(medians[s][0]), "centre_column": float(medians[s][1])} for s in stacks]


def _line(clip: Clip) -> dict[str, Any]:
    spacing = (float("nan"), float("nan")) if clip.spacing is None else clip.spacing
    return {
        "view": clip.view,
        "slice": clip.slice,
        "count": len(clip.frames),
        "height": clip.frames.shape[1],
        "width": clip.frames.shape[2],
        "channels": 1 if clip.frames.ndim == 3 else 3,
        "interval": interval_of(clip.times),
        "spacing_row": spacing[0],
        "spacing_column": spacing[1],
        "type": clip.frames.dtype.name,
        "frames": clip.frames.tobytes(),
        "content": sha256(clip.frames.tobytes()).hexdigest(),
        "times": [] if clip.times is None else clip.times.tolist(),
        "mask": b"" if clip.mask is None else clip.mask.tobytes(),
        "mask_frames": [] if clip.mask_frames is None else [int(n) for n in clip.mask_frames],
        "affine": _flat(clip.affine),
        "slices": clip.slices,
        "thickness": float("nan") if clip.thickness is None else clip.thickness,
    }


def affine_of(numbers: Sequence[float]) -> Float[np.ndarray, "4 4"] | None:
    """The affine that 16 numbers stand for; None where there are none."""
    return np.array(numbers, dtype=np.float64).reshape(4, 4) if len(numbers) else None


def _flat(affine: Float[np.ndarray, "4 4"] | None) -> list[float]:
    return [] if affine is None else [float(number) for number in affine.flat]


def _range(values: list[float]) -> list[float] | None:
    """Smallest and largest; None when one is unknown."""
    if not values or not all(np.isfinite(values)):
        return None
    return [round(min(values), 6), round(max(values), 6)]
