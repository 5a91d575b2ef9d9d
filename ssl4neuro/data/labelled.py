"""Frames with masks: which there are, what their masks hold, and clips rolled so that the frame in question comes first."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import Dataset

from ssl4neuro.augment.clip_frames import pick
from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.clip_loading import ClipConfig
from ssl4neuro.data.clip_views import CINE
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.loader import CohortRows
from ssl4neuro.types import Batch

VALUES = 256  # a mask is 8-bit


@dataclass(frozen=True)
class LabelledFrames:
    """Frames of a cohort, one per sample: those with masks, or any that somebody names."""

    row: Int[np.ndarray, "samples"]
    frame: Int[np.ndarray, "samples"]
    values: Bool[np.ndarray, "samples 256"]  # which values the mask holds; all False where there is no mask

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, chosen: np.ndarray) -> "LabelledFrames":
        return replace(self, row=self.row[chosen], frame=self.frame[chosen], values=self.values[chosen])

    def holds(self, values: Sequence[int]) -> Bool[np.ndarray, "samples"]:
        """Whether the mask has a pixel of one of these values."""
        return np.any(self.values[:, list(values)], axis=1)


def labelled_frames(cohort: ClipCohort) -> LabelledFrames:
    """Every frame that has a mask, in the cohort's order. Reads the masks, not the frames."""
    rows, frames, values = [], [], []
    for row in range(len(cohort)):
        clip = cohort.clip(row)
        if clip.mask is None or clip.mask_frames is None:
            continue
        for mask, frame in zip(clip.mask, clip.mask_frames, strict=True):
            rows.append(row)
            frames.append(int(frame))
            values.append(np.bincount(mask.ravel(), minlength=VALUES) > 0)
    found = np.array(values, dtype=bool).reshape(len(rows), VALUES)
    return LabelledFrames(np.array(rows, dtype=np.int64), np.array(frames, dtype=np.int64), found)


class LabelledRows(Dataset[Batch]):
    """Batches of clips that begin with the frame to be segmented: a beat is a cycle, and ES rarely is an evenly spaced frame.

    A sample's `row` in the batch is its number here, which keys its augmentation: two frames of one clip are augmented
    independently. The mask is that of the first frame only; it is [batch, time, height, width] as elsewhere, -1 in the others.

    Args:
        frames: samples.
        clip: how clips are cut.
        still: show the first frame only, as often as the clip has frames (a control: nothing moves).
    """

    def __init__(self, cohort: Cohort, frames: LabelledFrames, clip: ClipConfig, still: bool = False) -> None:
        self.rows, self.frames, self.still = CohortRows(cohort, (CINE,), clip=clip), frames, still

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, sample: int) -> Batch:
        return self.__getitems__([sample])

    def __getitems__(self, samples: Sequence[int]) -> Batch:
        chosen = np.asarray(samples, dtype=np.int64)
        batch = self.rows.__getitems__(self.frames.row[chosen].tolist())
        rolled = roll_to(batch, torch.from_numpy(self.frames.frame[chosen]))
        if self.still:
            first = rolled["inputs"][CINE][:, :, :1]
            rolled["inputs"][CINE] = first.expand_as(rolled["inputs"][CINE]).contiguous()
        rolled["row"] = torch.from_numpy(chosen)
        return rolled


def roll_to(batch: Batch, frame: Int[Tensor, "batch"]) -> Batch:
    """Clips entered at `frame` and followed round their cycle; times go on past the end, padding stays behind.

    Only the first frame keeps its mask; a clip without one there gets -1, or the batch no masks when none has any.
    """
    x, valid, times = batch["inputs"][CINE], batch["valid"][CINE], batch["times"][CINE]
    length = valid.sum(1, keepdim=True)
    number = torch.arange(x.shape[2], device=x.device)[None]
    ahead = number + frame[:, None]
    order = torch.where(number < length, ahead % length.clamp_min(1), number)
    last = times.gather(1, (length - 1).clamp_min(0))
    period = (last - times[:, :1]) * length / (length - 1).clamp_min(1)  # one more interval of the mean length closes it
    rolled = times.gather(1, order) + torch.where(ahead >= length, period, 0.0)
    out = Batch(**{**batch, "inputs": dict(batch["inputs"]), "times": dict(batch["times"])})
    out["inputs"][CINE] = pick(x.transpose(1, 2), order).transpose(1, 2).contiguous()
    out["times"][CINE] = torch.where(valid, rolled - rolled[:, :1], torch.nan)
    if "masks" in batch:
        masks = batch["masks"][CINE]
        kept = torch.full_like(masks, -1)
        kept[:, 0] = masks[torch.arange(len(masks), device=masks.device), frame]
        out["masks"] = {CINE: kept}
    return out
