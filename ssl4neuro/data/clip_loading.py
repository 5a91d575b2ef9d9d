"""From stored clips to one tensor: the square about the moving region, at one size, all frames. Values stay raw.

What is random in time, and what needs arithmetic over whole clips, happens on the device (`clip_views`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from ssl4neuro.data.clip import Clip

AT_ONCE = 16  # frames; a long colour recording as float32 would not fit into memory
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class ClipConfig:
    """How clips are cut and scaled. It goes into the checkpoint's contract and is applied to every cohort it meets."""

    frames: int = 16  # that encoders see
    sampling: Literal["cycle", "contiguous", "stride"] = "cycle"  # evenly over the clip, neighbours, or every n-th
    size: int = 64  # pixels, side of the square that encoders see
    crop: Literal["moving", "centre", "none"] = "moving"  # about the moving region, the middle, or the whole picture
    extent: float = 0.8  # side of the crop as a share of the picture's longer side
    field: float | None = None  # mm, side of the crop wherever the spacing is known, instead of `extent`
    channels: int = 1  # 1: colour becomes luminance; 3: grey is repeated
    normalise: Literal["zscore", "percentile", "minmax", "biovidnet", "none"] = "zscore"  # per clip, on the device

    def __post_init__(self) -> None:
        if self.frames < 1 or self.size < 8:
            raise ValueError("clip.frames must be at least 1 and clip.size at least 8 pixels")
        if not 0 < self.extent <= 2 or (self.field is not None and self.field <= 0):
            raise ValueError("clip.extent must lie in (0, 2], clip.field is a length in mm")
        if self.channels not in (1, 3):
            raise ValueError("clip.channels must be 1 or 3")


class Loaded(NamedTuple):
    """Clips of a batch, zero-padded in time to the longest."""

    x: Float[Tensor, "batch channels time size size"]
    valid: Bool[Tensor, "batch time"]
    times: Float[Tensor, "batch time"]  # s, NaN where unknown or padding
    masks: Int[Tensor, "batch time size size"] | None  # -1 for frames without a mask; None when no clip has any


def load_clips(clips: Sequence[Clip], centres: Float[np.ndarray, "batch 2"], config: ClipConfig) -> Loaded:
    """Cut and scale clips; `centres` are row and column (pixels) of their moving regions."""
    counts = [len(clip.frames) for clip in clips]
    longest, size = max(counts), config.size
    x = torch.zeros(len(clips), config.channels, longest, size, size)
    times = torch.full((len(clips), longest), torch.nan)
    labelled = any(clip.mask is not None for clip in clips)
    masks = torch.full((len(clips), longest, size, size), -1, dtype=torch.int64) if labelled else None
    for i, (clip, centre) in enumerate(zip(clips, centres, strict=True)):
        box = crop_box(clip, (float(centre[0]), float(centre[1])), config)
        for start in range(0, counts[i], AT_ONCE):
            part = clip.frames[start : start + AT_ONCE]
            x[i, :, start : start + len(part)] = _scaled(_cut(part, box), config)
        if clip.times is not None:
            times[i, : counts[i]] = torch.from_numpy(np.array(clip.times, dtype=np.float32))
        if masks is not None and clip.mask is not None and clip.mask_frames is not None:
            cut = torch.from_numpy(_cut(clip.mask, box, outside=0.0).astype(np.float32))
            scaled = functional.interpolate(cut[None], (size, size), mode="nearest-exact")[0]
            masks[i, torch.from_numpy(clip.mask_frames.astype(np.int64))] = scaled.long()
    valid = torch.arange(longest) < torch.tensor(counts)[:, None]
    return Loaded(x, valid, times, masks)


def crop_box(clip: Clip, centre: tuple[float, float], config: ClipConfig) -> tuple[int, int, int, int]:
    """First row, first column, height and width (pixels) of the crop.

    It is square on the patient where the spacing is known, and in pixels otherwise; it reaches beyond the picture only where
    it is larger.
    """
    height, width = clip.frames.shape[1:3]
    rows, columns = clip.spacing if clip.spacing is not None else (1.0, 1.0)
    longer = max(height * rows, width * columns)
    side = longer if config.crop == "none" else longer * config.extent
    if config.crop != "none" and config.field is not None and clip.spacing is not None:
        side = config.field
    middle = centre if config.crop == "moving" else ((height - 1) / 2, (width - 1) / 2)
    tall, wide = max(1, round(side / rows)), max(1, round(side / columns))
    return _start(middle[0], tall, height), _start(middle[1], wide, width), tall, wide


def _start(middle: float, side: int, length: int) -> int:
    if side > length:
        return -((side - length) // 2)
    return min(max(round(middle - (side - 1) / 2), 0), length - side)


def _cut(frames: np.ndarray, box: tuple[int, int, int, int], outside: float | None = None) -> np.ndarray:
    """The box of every frame; beyond the picture the darkest value of the frames, or `outside`."""
    top, left, tall, wide = box
    height, width = frames.shape[1:3]
    inside = frames[:, max(top, 0) : max(top + tall, 0), max(left, 0) : max(left + wide, 0)]
    if inside.shape[1:3] == (tall, wide):
        return inside
    fill = frames.min() if outside is None else outside
    out = np.full((len(frames), tall, wide, *frames.shape[3:]), fill, dtype=frames.dtype)
    row, column = max(-top, 0), max(-left, 0)
    if row < tall and column < wide and height > top and width > left:
        out[:, row : row + inside.shape[1], column : column + inside.shape[2]] = inside
    return out


def _scaled(frames: np.ndarray, config: ClipConfig) -> Float[Tensor, "channels time size size"]:
    values = torch.from_numpy(frames.astype(np.float32))
    if values.ndim == 4:
        values = values.permute(3, 0, 1, 2)
        if config.channels == 1:
            values = (values * torch.tensor(LUMINANCE)[:, None, None, None]).sum(0, keepdim=True)
    else:
        values = values[None]
    if values.shape[-2:] != (config.size, config.size):
        side = (config.size, config.size)
        values = functional.interpolate(values, side, mode="bilinear", antialias=True, align_corners=False)
    return values.expand(config.channels, -1, -1, -1)


def restore(
    values: Float[Tensor, "channels size size"], clip: Clip, centre: tuple[float, float], config: ClipConfig
) -> Float[Tensor, "channels height width"]:
    """The inverse of cutting and scaling, on the clip's own pixels (bilinear); 0 where the crop does not reach."""
    height, width = clip.frames.shape[1:3]
    top, left, tall, wide = crop_box(clip, centre, config)
    scaled = functional.interpolate(values[None], (tall, wide), mode="bilinear", antialias=True, align_corners=False)[0]
    out = values.new_zeros(len(values), height, width)
    first_row, first_column = max(top, 0), max(left, 0)
    last_row, last_column = min(top + tall, height), min(left + wide, width)
    out[:, first_row:last_row, first_column:last_column] = scaled[
        :, first_row - top : last_row - top, first_column - left : last_column - left
    ]
    return out
