"""One segmented picture against its truth: overlap, surface distance, area and a detection score for every structure.

A ratio of nothing by nothing is NaN, never 1: whether a picture without lesion counts as a success is for the summary to say
(`methods/mvo.md` section 8), not for the score.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from monai.metrics import compute_hausdorff_distance
from scipy.ndimage import binary_dilation, uniform_filter

from ssl4neuro.heads.model import IGNORED

PEAK = 3  # pixels: side of the square over which a probability is averaged before its maximum is taken
SURROUNDINGS = 3  # pixels about a predicted structure that its uncertainty is averaged over: it peaks at the border
NAN = float("nan")


def score_scan(
    predicted: UInt8[np.ndarray, "height width"],
    truth: UInt8[np.ndarray, "height width"],
    probabilities: Float[np.ndarray, "classes height width"] | None,
    structures: Mapping[str, tuple[int, ...]],
    spacing: tuple[float, float] | None,
    uncertainty: Float[np.ndarray, "height width"] | None,
) -> list[dict[str, Any]]:
    """Scores of every structure.

    Args:
        predicted: class codes.
        truth: class codes; pixels of 255 count nowhere.
        probabilities: of the classes; without them `score` is whether the structure was predicted.
        structures: name -> codes of the classes that it is the union of.
        spacing: mm between rows and between columns; None where unknown.
        uncertainty: of every pixel.

    Returns:
        For each structure: `structure`; `positive` and `detected` (truth and prediction hold a pixel of it); `tp`, `fp`, `fn`
        (pixels); `dice`, `jaccard`, `precision`, `recall` (NaN where 0/0); `hd95` and `hsd`, 95th percentile and maximum of the
        symmetric surface distance (mm, pixels where the spacing is unknown; NaN where a mask is empty); `area_true` and `area`
        (mm² or pixels); `score`, the highest 3 × 3 mean of its probability; `uncertainty`, the mean up to 3 pixels
        about the predicted structure, over the whole picture where nothing was predicted.
    """
    judged = truth != IGNORED
    pixel = 1.0 if spacing is None else spacing[0] * spacing[1]
    lines = []
    for name, codes in structures.items():
        found, real = np.isin(predicted, codes) & judged, np.isin(truth, codes) & judged
        tp, fp, fn = int((found & real).sum()), int((found & ~real).sum()), int((~found & real).sum())
        hd95, hsd = surface_distances(found, real, spacing)
        line = {"structure": name, "positive": tp + fn > 0, "detected": tp + fp > 0, "tp": tp, "fp": fp, "fn": fn}
        line |= {"dice": ratio(2 * tp, 2 * tp + fp + fn), "jaccard": ratio(tp, tp + fp + fn)}
        line |= {"precision": ratio(tp, tp + fp), "recall": ratio(tp, tp + fn), "hd95": hd95, "hsd": hsd}
        line |= {"area_true": (tp + fn) * pixel, "area": (tp + fp) * pixel}
        line["score"] = float(found.any()) if probabilities is None else peak(probabilities[list(codes)].sum(0), judged)
        line["uncertainty"] = NAN if uncertainty is None else _doubt(uncertainty, found, judged)
        lines.append(line)
    return lines


def ratio(part: int, whole: int) -> float:
    """NaN for 0/0."""
    return part / whole if whole else NAN


def surface_distances(
    predicted: Bool[np.ndarray, "height width"], truth: Bool[np.ndarray, "height width"], spacing: tuple[float, float] | None
) -> tuple[float, float]:
    """95th percentile (the larger of both directions') and maximum; mm, or pixels without spacing; NaN when a mask is empty."""
    if not predicted.any() or not truth.any():
        return NAN, NAN
    a, b = (torch.from_numpy(mask)[None, None].float() for mask in (predicted, truth))
    sides = None if spacing is None else list(spacing)
    with warnings.catch_warnings():  # MONAI 1.6 calls its own deprecated option
        warnings.simplefilter("ignore", FutureWarning)
        found = [
            float(compute_hausdorff_distance(a, b, include_background=True, percentile=percentile, spacing=sides))
            for percentile in (95, None)
        ]
    return found[0], found[1]


def peak(probability: Float[np.ndarray, "height width"], judged: Bool[np.ndarray, "height width"]) -> float:
    """Highest mean over 3 × 3 judged pixels, which no single noisy pixel decides; NaN where nothing was judged."""
    if not judged.any():
        return NAN
    share = uniform_filter(judged.astype(np.float64), PEAK, mode="constant")
    mean = uniform_filter(np.where(judged, probability, 0).astype(np.float64), PEAK, mode="constant")
    return float(np.clip((mean[judged] / share[judged]).max(), 0, 1))


def _doubt(uncertainty: np.ndarray, found: np.ndarray, judged: np.ndarray) -> float:
    about = binary_dilation(found, iterations=SURROUNDINGS) & judged if found.any() else judged
    return float(uncertainty[about].mean()) if about.any() else NAN
