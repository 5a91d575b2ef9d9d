"""Apply what `ssl4neuro.contract` found: volumes onto the grid of training, courses to its TR and band.

Moves between grids that share their voxels are exact (flip, permute, pad, crop). Everything else changes the data, so it
happens only where the user asked for it, and what was z-scored is z-scored again.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import signal
from torch import Tensor
from torch.nn import functional

from ssl4neuro import geometry
from ssl4neuro.contract import TR_TOLERANCE_S, Contract, Difference, Entry, band_of, target_tr, trs_of
from ssl4neuro.errors import UserError
from ssl4neuro.types import Batch

MAX_RATIO = 1000  # denominator of the rational resampling factor: drift below 1e-3 of a volume per 1,000 volumes
FILTER_ORDER = 5  # Butterworth, forwards and backwards, as in nilearn.signal
MIN_COVERAGE = 0.5  # a resampled voxel is valid where at least half of what it was interpolated from lay in the mask


def adapt_volume(
    x: Float[Tensor, "n 1 d h w"], valid: Bool[Tensor, "n d h w"], found: Entry, expected: Entry, *, resample: bool = False
) -> tuple[Float[Tensor, "n 1 i j k"], Bool[Tensor, "n i j k"]]:
    """Volumes on the grid of training, and where they are valid.

    Exact when the grids share their voxels. Otherwise trilinear interpolation within the mask (what lies outside does not
    bleed in), then z-scored again in the mask. When the contract of training holds its mask (`geometry.pack_mask`), only voxels
    inside it stay.

    Raises:
        UserError: interpolation is needed and `resample` is false, or nothing of the volume lies on the grid of training.
    """
    move = geometry.grid_move(found, expected)
    if tuple(x.shape[2:]) != geometry.shape_of(found):
        raise ValueError(f"volume of shape {tuple(x.shape[2:])} on a grid of shape {geometry.shape_of(found)}")
    if move.coverage == 0:
        raise UserError("map.affine: the grids of cohort and checkpoint do not overlap; check the affine and prepare again")
    if move.exact:
        x, valid = _shift(x, move), _shift(valid, move)
    elif resample:
        x, valid = _interpolate(x, valid, move)
    else:
        raise UserError("map.affine: the cohort is on another grid than the checkpoint; pass --adapt grid to resample")
    if "mask" in expected:
        inside = torch.from_numpy(geometry.unpack_mask(expected["mask"], move.shape)).to(x.device)
        valid = valid & inside
    return x * valid[:, None], valid


def resample_course(
    courses: Float[np.ndarray, "n time"], tr: float, target: float, *, standardise: bool = True
) -> Float[np.ndarray, "n resampled"]:
    """Courses sampled every `tr` seconds, resampled to every `target` seconds with an anti-aliasing filter.

    The first sample keeps its time; frequencies in Hz stay what they are. Polyphase filtering (`scipy.signal.resample_poly`)
    of the course continued by odd reflection, so that its ends do not ring.
    """
    factor = Fraction(tr / target).limit_denominator(MAX_RATIO)
    if factor <= 0:
        raise ValueError(f"cannot resample from {tr} s to {target} s")
    length = courses.shape[1]
    wanted = math.floor((length - 1) * tr / target + 1e-6) + 1  # samples that lie within the acquisition
    extra = math.ceil(12 * max(1.0, target / tr))  # samples that the anti-aliasing filter reaches over
    before = -(-extra // factor.denominator) * factor.denominator  # so that the first sample stays on the new raster
    values = _reflect(courses.astype(np.float64), before, extra)
    values = signal.resample_poly(values, factor.numerator, factor.denominator, axis=1)
    values = values[:, before * factor.numerator // factor.denominator :][:, :wanted]
    return _standardise(values) if standardise else values.astype(courses.dtype)


def band_pass(courses: Float[np.ndarray, "n time"], tr: float, band: tuple[float, float]) -> Float[np.ndarray, "n time"]:
    """Courses filtered to `band` (Hz), z-scored again. A limit of 0, or one above what `tr` (s) can hold, filters nothing.

    Raises:
        UserError: the course is too short, or nothing of the band lies below its Nyquist frequency.
    """
    low, high = band
    nyquist = 0.5 / tr
    if low >= nyquist:
        raise UserError(f"course.band: nothing above {low:g} Hz can be measured with a TR of {tr:g} s; leave this cohort out")
    limits = [low] * (low > 0) + [high] * (high < nyquist)
    if not limits:
        return courses
    kind = "bandpass" if len(limits) == 2 else "highpass" if low > 0 else "lowpass"
    sections = signal.butter(FILTER_ORDER, limits if len(limits) == 2 else limits[0], kind, output="sos", fs=1 / tr)
    if courses.shape[1] <= 6 * FILTER_ORDER + 3:
        raise UserError(f"course.band: {courses.shape[1]} volumes are too few to filter; leave these scans out")
    return _standardise(signal.sosfiltfilt(sections, courses.astype(np.float64), axis=1))


def adapt_course(
    courses: Sequence[Float[np.ndarray, "_"]], trs: Sequence[float], expected: Entry, steps: frozenset[str]
) -> tuple[list[Float[np.ndarray, "_"]], list[float]]:
    """Courses of any lengths and TRs (s) after the adaptations in `steps` (`band`, `tr`, `unknown-tr`), and their TRs."""
    known = [t for t in trs_of(expected) if t is not None]
    adapted, rates = [], []
    for course, tr in zip(courses, trs, strict=True):
        values = course[None]
        if not math.isfinite(tr) and "unknown-tr" in steps and len(known) == 1:
            tr = known[0]
        if math.isfinite(tr):
            target = target_tr(tr, expected)
            if "band" in steps:
                values = band_pass(values, tr, band_of(expected))
            if "tr" in steps and abs(target - tr) > TR_TOLERANCE_S:
                values, tr = resample_course(values, tr, target), target
        elif "band" in steps:
            raise UserError("course.band: courses of unknown TR cannot be filtered; give their TR when preparing")
        adapted.append(values[0].astype(np.float32))
        rates.append(float(tr))
    return adapted, rates


def adapt_batch(batch: Batch, expected: Contract, found: Contract, differences: Sequence[Difference]) -> Batch:
    """A batch [batch, views, ...] of the cohort, as the checkpoint expects it.

    `differences` come from `contract.enforce`: they are the adaptations that are exact or were asked for.
    """
    inputs, valid, rate = dict(batch["inputs"]), dict(batch["valid"]), dict(batch.get("rate", {}))
    for modality in inputs:
        mine = [d for d in differences if d.modality == modality]
        if not mine:
            continue
        steps = frozenset(d.adaptation for d in mine)
        x, real = inputs[modality], valid[modality]
        if expected[modality]["kind"] == "volume":
            n = x.shape[:2]
            flat = adapt_volume(
                x.flatten(0, 1), real.flatten(0, 1), found[modality], expected[modality], resample="grid" in steps
            )
            inputs[modality], valid[modality] = flat[0].unflatten(0, n), flat[1].unflatten(0, n)
        elif expected[modality]["kind"] == "course" and steps & {"tr", "unknown-tr", "band"}:
            inputs[modality], valid[modality], rate[modality] = _courses(x, real, rate[modality], expected[modality], steps)
    adapted = Batch(**{**batch, "inputs": inputs, "valid": valid})
    if rate:
        adapted["rate"] = rate
    return adapted


def _courses(
    x: Float[Tensor, "batch views time"],
    valid: Bool[Tensor, "batch views time"],
    rate: Float[Tensor, "batch"],
    expected: Entry,
    steps: frozenset[str],
) -> tuple[Tensor, Tensor, Tensor]:
    batch, views = x.shape[:2]
    values, real = x.flatten(0, 1).cpu().numpy(), valid.flatten(0, 1).cpu().numpy()
    trs = rate.repeat_interleave(views).tolist()
    adapted, rates = adapt_course([v[r] for v, r in zip(values, real, strict=True)], trs, expected, steps)
    lengths = torch.tensor([len(course) for course in adapted])
    padded = torch.zeros(batch * views, int(lengths.max()))
    for i, course in enumerate(adapted):
        padded[i, : len(course)] = torch.from_numpy(course)
    mask = torch.arange(padded.shape[1]) < lengths[:, None]
    new_rate = torch.tensor(rates[::views], dtype=rate.dtype)
    return padded.view(batch, views, -1).to(x), mask.view(batch, views, -1).to(x.device), new_rate.to(rate.device)


def _shift(x: Tensor, move: geometry.GridMove) -> Tensor:
    assert move.axes is not None
    first = x.ndim - 3
    turned = x.permute(*range(first), *(first + a for a in move.axes))
    turned = turned.flip([first + b for b in range(3) if move.flipped[b]])
    margins = [(-s, s + n - m) for s, n, m in zip(move.start, move.shape, turned.shape[first:], strict=True)]
    return functional.pad(turned, [m for pair in reversed(margins) for m in pair])  # a negative margin crops


def _interpolate(x: Tensor, valid: Tensor, move: geometry.GridMove) -> tuple[Tensor, Tensor]:
    index = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in move.shape], indexing="ij"), -1)
    matrix = torch.from_numpy(move.matrix)
    there = index @ matrix[:3, :3].T + matrix[:3, 3]
    sizes = torch.tensor(x.shape[2:], dtype=torch.float64)
    unit = torch.where(sizes > 1, 2 * there / (sizes - 1).clamp(min=1) - 1, there)  # -1 and 1 are the outermost voxel centres
    points = unit.flip(-1).to(x)[None].expand(len(x), -1, -1, -1, -1)  # grid_sample counts the last axis first
    within = ((there > -0.5) & (there < sizes - 0.5)).all(-1).to(x)  # grid_sample itself cannot leave an axis of one voxel
    weight = valid[:, None].to(x.dtype)
    sampled, share = (functional.grid_sample(v, points, align_corners=True) * within for v in (x * weight, weight))
    inside = share[:, 0] >= MIN_COVERAGE
    values = torch.where(inside[:, None], sampled / share.clamp(min=MIN_COVERAGE), torch.zeros_like(sampled))
    count = inside.flatten(1).sum(1).clamp(min=1).view(-1, 1, 1, 1, 1)
    mean = values.sum((1, 2, 3, 4), keepdim=True) / count
    centred = (values - mean) * inside[:, None]
    sd = (centred.square().sum((1, 2, 3, 4), keepdim=True) / count).sqrt()
    return centred / sd.clamp(min=1e-6), inside


def _reflect(values: Float[np.ndarray, "n time"], before: int, after: int) -> Float[np.ndarray, "n longer"]:
    """Odd reflection at both ends; a course shorter than the margin is reflected as often as it takes."""
    margins = ((0, 0), (before, after))
    if values.shape[1] == 1:
        return np.pad(values, margins, mode="edge")
    return np.pad(values, margins, mode="reflect", reflect_type="odd")


def _standardise(values: Float[np.ndarray, "n time"]) -> Float[np.ndarray, "n time"]:
    centred = values - values.mean(axis=1, keepdims=True)
    return (centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-8)).astype(np.float32)
