"""A head tested on subjects that it has not seen: a line of scores per frame and structure, and the masks for the pictures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, UInt8

from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.clip_loading import ClipConfig, crop_box, restore
from ssl4neuro.data.clip_views import CINE
from ssl4neuro.data.labelled import LabelledFrames, LabelledRows
from ssl4neuro.data.loader import load_batches
from ssl4neuro.data.views import make_views
from ssl4neuro.evaluate.postprocess import PostprocessConfig, postprocess
from ssl4neuro.evaluate.segment import Picture, segment
from ssl4neuro.evaluate.segmentation_baselines import MotionEnergyThreshold
from ssl4neuro.evaluate.segmentation_scores import score_scan
from ssl4neuro.heads.model import IGNORED, SegmentationConfig, SegmentationModel
from ssl4neuro.progress import track

MOTION_ENERGY = "motion energy threshold"
Masks = dict[str, np.ndarray]  # `predicted/ROW-FRAME` class codes, `uncertainty/ROW-FRAME` float16


def truth_codes(
    cohort: ClipCohort, config: SegmentationConfig, row: int, frame: int
) -> UInt8[np.ndarray, "height width"] | None:
    """Class codes of the mask that a frame has; None where it has none. Values that no class has are background."""
    clip = cohort.clip(row)
    if clip.mask is None or clip.mask_frames is None or frame not in clip.mask_frames:
        return None
    lookup = np.zeros(256, dtype=np.uint8)
    lookup[list(config.classes.values())] = np.arange(1, len(config.classes) + 1)
    lookup[IGNORED] = IGNORED
    return lookup[clip.mask[list(clip.mask_frames).index(frame)]]


def score_head(
    name: str,
    models: Sequence[SegmentationModel],
    cohort: ClipCohort,
    frames: LabelledFrames,
    clip: ClipConfig,
    device: torch.device,
    *,
    after: PostprocessConfig,
    tta: bool = False,
    still: bool = False,
    fold: int = 0,
    show: bool = True,
) -> tuple[pd.DataFrame, Masks]:
    """Scores of the frames on the source's pixels.

    Args:
        name: of the model, in the tables.
        models: in evaluation mode.
        frames: held-out samples.
        after: post-processing, chosen without them.
        show: a progress bar.

    Returns:
        A line per frame and structure (`evaluate/segmentation.py`), and the masks.
    """
    config = models[0].config
    samples = list(zip(frames.row.tolist(), frames.frame.tolist(), strict=True))
    phases = phase_names(cohort, config, frames)
    lines: list[dict[str, Any]] = []
    masks: Masks = {}
    found = segment(models, cohort, samples, clip, device, tta=tta, still=still)
    for picture in track(found, "testing", total=len(samples) if show else None, unit="frame") if show else found:
        spacing = cohort.clip(picture.row).spacing
        answer = postprocess(picture.probabilities, after, config.codes, config.lesion, spacing)
        lines += _lines(name, False, fold, cohort, config, picture, answer, phases[picture.row, picture.frame])
        masks[f"predicted/{picture.row}-{picture.frame}"] = answer
        masks[f"uncertainty/{picture.row}-{picture.frame}"] = picture.uncertainty.astype(np.float16)
    return pd.DataFrame(lines), masks


def score_motion_energy(
    config: SegmentationConfig,
    cohort: ClipCohort,
    train: LabelledFrames,
    test: LabelledFrames,
    clip: ClipConfig,
    fold: int = 0,
    name: str = MOTION_ENERGY,
) -> pd.DataFrame:
    """The baseline without a network, fitted on the training frames: where little moves is the lesion."""
    assert config.lesion is not None
    codes = config.codes[config.lesion]
    shown = list(_crops(cohort, train, clip))
    targets = [np.isin(mask, config.values(config.lesion)) for *_, mask in shown]
    baseline = MotionEnergyThreshold().fit([crop[2] for crop in shown], targets, [crop[3] for crop in shown])
    phases = phase_names(cohort, config, test)
    lines: list[dict[str, Any]] = []
    for row, frame, x, centre, _ in _crops(cohort, test, clip):
        probability = torch.from_numpy(baseline.predict(x, centre).astype(np.float32))[None]
        own = restore(probability, cohort.clip(row), _centre(cohort, row), clip)[0].numpy()
        both = np.zeros((len(config.names), *own.shape), dtype=np.float32)
        both[0], both[codes[0]] = 1 - own, own
        answer = np.where(own >= 0.5, codes[0], 0).astype(np.uint8)
        picture = Picture(row, frame, both, np.zeros_like(own))
        lines += _lines(name, True, fold, cohort, config, picture, answer, phases[row, frame], (config.lesion,))
    return pd.DataFrame(lines)


def phase_names(cohort: ClipCohort, config: SegmentationConfig, frames: LabelledFrames) -> dict[tuple[int, int], str]:
    """`ED` and `ES` by the true size of the structure that the recipe names, where a stack has masks of several frames.

    Only frames with masks in as many slices as any count: a slice that was drawn alone on another frame is no phase.
    """
    samples = list(zip(frames.row.tolist(), frames.frame.tolist(), strict=True))
    names = dict.fromkeys(samples, "")
    if config.phases is None:
        return names
    codes = config.codes[config.phases]
    stack = list(zip(cohort.index["group_code"], cohort.index["view"], strict=True))
    sizes: dict[tuple[int, str], dict[int, list[int]]] = {}
    for row, frame in samples:
        truth = truth_codes(cohort, config, row, frame)
        drawn = sizes.setdefault(stack[row], {}).setdefault(frame, [])
        drawn.append(0 if truth is None else int(np.isin(truth, codes).sum()))
    for row, frame in samples:
        found = sizes[stack[row]]
        own = {f: sum(drawn) for f, drawn in found.items() if len(drawn) == max(map(len, found.values()))}
        if len(own) > 1 and min(own.values()) < max(own.values()):
            names[row, frame] = {max(own, key=own.__getitem__): "ED", min(own, key=own.__getitem__): "ES"}.get(frame, "")
    return names


def _lines(
    name: str,
    baseline: bool,
    fold: int,
    cohort: ClipCohort,
    config: SegmentationConfig,
    picture: Picture,
    answer: UInt8[np.ndarray, "height width"],
    phase: str,
    only: tuple[str, ...] | None = None,
) -> Iterator[dict[str, Any]]:
    line = cohort.index.iloc[picture.row]
    truth = truth_codes(cohort, config, picture.row, picture.frame)
    assert truth is not None
    if (truth == IGNORED).all():  # nobody has judged it
        return
    structures: Mapping[str, tuple[int, ...]] = {n: c for n, c in config.codes.items() if only is None or n in only}
    scores = score_scan(answer, truth, picture.probabilities, structures, cohort.clip(picture.row).spacing, picture.uncertainty)
    identity = {key: line[key] for key in ("subject", "session", "run", "view", "slice")}
    place = {key: float(line[key]) for key in ("spacing_row", "spacing_column", "thickness")}
    for score in scores:
        yield {
            "model": name, "baseline": baseline, "fold": fold, "row": picture.row, **identity, "frame": picture.frame,
            "phase": phase, **place, **score,
        }  # fmt: skip


def _crops(
    cohort: ClipCohort, frames: LabelledFrames, clip: ClipConfig
) -> Iterator[tuple[int, int, Float[np.ndarray, "time size size"], tuple[float, float], Int[np.ndarray, "size size"]]]:
    """Row, frame, normalised clip as the head sees it, the place of its moving centre in it (pixels), and its mask's values."""
    views = make_views(cohort, (CINE,), clip=clip)
    order = np.array_split(np.arange(len(frames)), max(1, len(frames) // 16))
    for stored in load_batches(LabelledRows(cohort, frames, clip), lambda: iter(order)):
        shown = views(stored, None)["inputs"][CINE][:, 0, 0].numpy()
        masks = stored["masks"][CINE][:, 0].numpy()
        for x, mask, sample in zip(shown, masks, stored["row"].tolist(), strict=True):
            row = int(frames.row[sample])
            top, left, tall, wide = crop_box(cohort.clip(row), _centre(cohort, row), clip)
            middle = _centre(cohort, row)
            centre = ((middle[0] - top + 0.5) * clip.size / tall - 0.5, (middle[1] - left + 0.5) * clip.size / wide - 0.5)
            yield row, int(frames.frame[sample]), x, centre, mask


def _centre(cohort: ClipCohort, row: int) -> tuple[float, float]:
    index = cohort.index
    return float(index["centre_row"].iloc[row]), float(index["centre_column"].iloc[row])
