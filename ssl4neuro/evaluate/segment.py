"""A trained head on the clips of a cohort: pictures on the source's own pixels, from one model or several averaged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl4neuro import checkpoint
from ssl4neuro.config import from_mapping
from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.clip_loading import ClipConfig, restore
from ssl4neuro.data.clip_views import CINE
from ssl4neuro.data.labelled import VALUES, LabelledFrames, LabelledRows
from ssl4neuro.data.loader import load_batches
from ssl4neuro.data.views import make_views, to_device
from ssl4neuro.encoders.weights import no_public_weights
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.postprocess import PostprocessConfig
from ssl4neuro.heads.model import SegmentationConfig, SegmentationModel
from ssl4neuro.heads.refinement import uncertainty

MIRRORS = ((), (-1,), (-2,), (-2, -1))  # axes that test-time augmentation flips


@dataclass(frozen=True)
class Segmenter:
    """A fine-tuned model in evaluation mode, with the checkpoint it came from."""

    model: SegmentationModel
    checkpoint: checkpoint.Checkpoint
    postprocess: PostprocessConfig

    @property
    def config(self) -> SegmentationConfig:
        return self.model.config


class Picture(NamedTuple):
    """The answer for one frame of one clip, on the pixels of its source."""

    row: int
    frame: int
    probabilities: Float[np.ndarray, "classes height width"]
    uncertainty: Float[np.ndarray, "height width"]  # 0 to 1; outside the crop 0


def load_segmenters(
    run: str | Path, which: Literal["best", "last"] = "best", device: str | torch.device = "cpu"
) -> list[Segmenter]:
    """The models of a fine-tuning run: one, or one per fold, whose probabilities are averaged.

    Raises:
        UserError: no such run, damaged, or a run that trained no head for segmentation.
    """
    run = Path(run)
    folds = sorted((p for p in run.glob("fold-*") if (p / "checkpoints").is_dir()), key=lambda p: (len(p.name), p.name))
    return [_load(path, which, device) for path in (folds or [run])]


def _load(run: Path, which: Literal["best", "last"], device: str | torch.device) -> Segmenter:
    saved = checkpoint.load(run, which)
    if "segmentation" not in saved.config:
        raise UserError(
            f"{run}: holds no head for segmentation; fine-tune one with `ssl4neuro finetune`, or use `ssl4neuro embed`"
        )
    where = str(saved.path / "config.json")
    config = from_mapping(SegmentationConfig, saved.config["segmentation"], where)
    with no_public_weights():  # the checkpoint brings its own
        model = SegmentationModel(config)
    checkpoint.load_into(model, saved.model, str(saved.path))
    after = from_mapping(PostprocessConfig, saved.config["postprocess"], where)
    return Segmenter(model.to(device).eval(), saved, after)


def segment(
    models: Sequence[SegmentationModel],
    cohort: ClipCohort,
    samples: Sequence[tuple[int, int]],
    clip: ClipConfig,
    device: torch.device,
    *,
    tta: bool = False,
    batch: int = 8,
    still: bool = False,
) -> Iterator[Picture]:
    """Segment frames of clips, in the order asked.

    Args:
        models: in evaluation mode; their probabilities are averaged.
        samples: row and frame (from 0).
        tta: also segment mirrored clips and average: for models that were trained with mirroring.
        still: show the models the frame itself instead of the beat (a control).
    """
    rows, frames = (np.array([s[i] for s in samples], dtype=np.int64) for i in (0, 1))
    wanted = LabelledFrames(rows, frames, np.zeros((len(rows), VALUES), dtype=bool))
    views = make_views(cohort, (CINE,), clip=clip).to(device)
    order = [np.arange(start, min(start + batch, len(rows))) for start in range(0, len(rows), batch)]
    index = cohort.index
    for stored in load_batches(LabelledRows(cohort, wanted, clip, still), lambda: iter(order)):
        seen = views(to_device(stored, device), None)
        found = average(models, seen["inputs"][CINE][:, 0], seen["valid"][CINE][:, 0], MIRRORS if tta else MIRRORS[:1])
        both = torch.cat([found, uncertainty(found)], dim=1).cpu()
        for values, sample in zip(both, stored["row"].tolist(), strict=True):
            row = int(rows[sample])
            centre = (float(index["centre_row"][row]), float(index["centre_column"][row]))
            own = restore(values, cohort.clip(row), centre, clip)
            own[0] += (1 - own[:-1].sum(0)).clamp_min(0)  # what the crop does not show is background
            yield Picture(row, int(frames[sample]), own[:-1].numpy(), own[-1].numpy())


@torch.no_grad()
def average(
    models: Sequence[SegmentationModel],
    x: Float[Tensor, "batch channels time size size"],
    valid: Bool[Tensor, "batch time"],
    mirrors: Sequence[tuple[int, ...]] = MIRRORS[:1],
) -> Float[Tensor, "batch classes size size"]:
    """Mean probabilities over models and mirrored views."""
    total = None
    for model in models:
        for axes in mirrors:
            found = model.segment(x.flip(axes) if axes else x, valid).probabilities.float()
            found = found.flip(axes) if axes else found
            total = found if total is None else total + found
    assert total is not None
    return total / (len(models) * len(mirrors))
