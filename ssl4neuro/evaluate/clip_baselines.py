"""Baselines for cine and video without any learning of features, in the folds of the embedding.

PCA of the images that a radiologist would first ask for, the mean over time and the standard deviation over time; motion
energy, how much successive frames differ near and far from the heart and early and late in the clip; and what must not tell the
diagnosis: raw intensities, matrix size, spacing, frame count. The first two look at a square about the moving region.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.utils.extmath import randomized_svd

from ssl4neuro.data.clip import Clip
from ssl4neuro.evaluate.crossval import Candidate
from ssl4neuro.evaluate.features import COMPONENTS, ArrayFeatures, Features, NuisanceFeatures, Pair, Rows
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.problem import Problem

SIDE = 32  # pixels of the resized square
SQUARE_MM = 120.0  # its side where pixel spacing is known: a heart with some surroundings
SQUARE_SHARE = 0.6  # of the frame's shorter side, where it is not
ZONES, PHASES = 4, 4  # rings about the centre; quarters of the clip
THIRDS = ("first", "middle", "last")
PERCENTILES = (1, 25, 50, 75, 99)
PIXELS = 50_000  # raw values that intensity statistics are taken of
MAX_TRAIN = 8192
HEADER = ("frames", "height", "width", "channels", "interval", "spacing_row", "spacing_column")


@runtime_checkable
class ClipCohort(Protocol):
    """What is needed of a prepared cohort of clips."""

    @property
    def index(self) -> pd.DataFrame:
        """A line per clip."""
        ...

    def clip(self, row: int) -> Clip:
        """One clip with its frames."""
        ...


class ClipFacts(NamedTuple):
    """What is kept of each clip."""

    images: Float[np.ndarray, "clips pixels"]  # mean and standard deviation over time, after normalisation
    energy: Float[np.ndarray, "clips bins"]
    intensity: Float[np.ndarray, "clips statistics"]  # raw
    dtype: list[str]


def clip_baselines(
    problem: Problem, cohort: ClipCohort, units: Sequence[Int[np.ndarray, "_"]]
) -> tuple[list[Candidate], list[str]]:
    """Candidates, and notes on how they were made. `units`: the cohort's rows of every line of the problem's table."""
    rows = np.unique(np.concatenate(units))
    index = cohort.index.iloc[rows].reset_index(drop=True)
    places = [np.searchsorted(rows, unit) for unit in units]
    facts = clip_facts(cohort, rows)
    parts, names = unit_parts(index, places)
    images = _summary(facts.images, parts)
    found = [_candidate("PCA of mean and sd image", problem, ImagePCA(images), MAX_TRAIN)]
    by = f", by {', '.join(names)}" if names != [""] else ""
    notes = [f"clip baselines: mean over the clips of a {problem.unit}{by}"]
    single = int((index["frames"] == 1).sum())
    if single < len(index):
        found.append(_candidate("motion energy", problem, ArrayFeatures(_summary(facts.energy, parts))))
    if single:
        notes.append(f"{single} of {len(index)} clips are single frames, which show no motion")
    table = nuisance_clips(index, facts, places)
    if len(table.columns):
        found.append(_candidate("intensity and header", problem, NuisanceFeatures(table)))
    return found, notes


class ImagePCA:
    """The first principal components of vectors, fitted on the training rows."""

    def __init__(self, images: Float[np.ndarray, "units pixels"]) -> None:
        self.images = images

    def fold(self, train: Rows, test: Rows) -> Pair:
        """Component scores."""
        mean = self.images[train].mean(0)
        centred = self.images[train] - mean
        count = max(1, min(COMPONENTS, len(train) - 1, centred.shape[1]))
        axes = randomized_svd(centred, count, random_state=0)[2].T
        return centred @ axes, (self.images[test] - mean) @ axes


def clip_facts(cohort: ClipCohort, rows: Int[np.ndarray, "clips"]) -> ClipFacts:
    """Every clip is read once and only its summaries are kept."""
    images, energy, intensity, dtype = [], [], [], []
    index = cohort.index.iloc[rows]
    spaced = bool((index[["spacing_row", "spacing_column"]] > 0).all().all())  # else sizes in mm and in pixels would mix
    for row, line in zip(rows, index.to_dict("records"), strict=True):
        frames = np.asarray(cohort.clip(int(row)).frames)
        dtype.append(str(frames.dtype))
        grey = frames if frames.ndim == 3 else frames.mean(3)
        intensity.append(_raw(grey))
        small = square(grey, line, spaced)
        small = (small - small.mean()) / max(float(small.std()), 1e-6)
        images.append(np.stack([small.mean(0), small.std(0)]).ravel())
        energy.append(motion_energy(small))
    return ClipFacts(np.stack(images).astype(np.float32), np.stack(energy), np.stack(intensity), dtype)


def square(
    frames: Float[np.ndarray, "time height width"] | np.ndarray, line: dict, spaced: bool
) -> Float[np.ndarray, "time side side"]:
    """Frames in a square about the moving region, each pixel the mean of the area it covers; the edge is repeated outside."""
    _, height, width = frames.shape
    sides = [SQUARE_SHARE * min(height, width)] * 2
    if spaced:
        sides = [SQUARE_MM / float(line["spacing_row"]), SQUARE_MM / float(line["spacing_column"])]
    down = _areas(height, float(line["centre_row"]), sides[0])
    along = _areas(width, float(line["centre_column"]), sides[1])
    return (down @ frames.astype(np.float32)) @ along.T


def _areas(size: int, centre: float, side: float) -> Float[np.ndarray, "side size"]:
    """Weights of the pixels of an axis in each of `SIDE` equal stretches about `centre` (pixel i covers i ± 1/2)."""
    centre = centre if np.isfinite(centre) else (size - 1) / 2
    edges = centre + side * (np.arange(SIDE + 1) / SIDE - 0.5)
    low, high = np.floor(edges[0] + 0.5), np.floor(edges[-1] + 0.5)
    pixels = np.arange(low, high + 1)
    overlap = np.minimum(edges[1:, None], pixels + 0.5) - np.maximum(edges[:-1, None], pixels - 0.5)
    weights = np.zeros((SIDE, size), dtype=np.float32)
    np.add.at(weights.T, np.clip(pixels, 0, size - 1).astype(np.int64), np.maximum(overlap, 0).T / (side / SIDE))
    return weights


def motion_energy(frames: Float[np.ndarray, "time side side"]) -> Float[np.ndarray, "bins"]:
    """Log of the mean absolute difference of successive frames in rings about the centre (inner first) by quarter of the clip.

    A quarter in which no two frames follow each other gets the mean over the whole clip; a single frame has no motion.
    """
    axis = np.abs((np.arange(SIDE) + 0.5) / SIDE * 2 - 1)
    ring = np.minimum(np.hypot(axis[:, None], axis) * ZONES, ZONES - 1).astype(int)  # corners belong to the outermost
    steps = np.abs(np.diff(frames, axis=0))
    if not len(steps):
        return np.full(ZONES * PHASES, np.log(1e-4), dtype=np.float32)
    zones = np.stack([steps[:, ring == zone].mean(1) for zone in range(ZONES)], 1)
    quarter = np.arange(len(steps)) * PHASES // len(steps)
    whole = zones.mean(0)
    parts = [zones[quarter == phase].mean(0) if (quarter == phase).any() else whole for phase in range(PHASES)]
    return np.log(np.stack(parts).T.ravel() + 1e-4).astype(np.float32)


def unit_parts(
    index: pd.DataFrame, units: Sequence[Int[np.ndarray, "_"]]
) -> tuple[list[list[Int[np.ndarray, "_"]]], list[str]]:
    """Which clips make up each part of each unit, and the parts' names.

    Views that all units have stay apart (else all clips are one part). Within a view, stacks of three slices or more in every
    unit are cut into thirds by slice number: base, middle and apex, in the order of the source, look different.
    """
    view, number = index["view"].fillna("").astype(str).to_numpy(), index["slice"].to_numpy()
    shared = set.intersection(*[set(view[unit]) for unit in units])
    made: list[list[np.ndarray]] = [[] for _ in units]
    names: list[str] = []
    for name in sorted(shared) or [None]:
        members = [unit[view[unit] == name] if name is not None else unit for unit in units]
        stacked = all(len(np.unique(number[rows][number[rows] >= 0])) >= len(THIRDS) for rows in members)
        thirds = THIRDS if stacked else ("",)
        names += [" ".join(part for part in (name, third and f"{third} third") if part) for third in thirds]
        for out, rows in zip(made, members, strict=True):
            out += _thirds(rows, number[rows]) if stacked else [rows]
    return made, names


def _thirds(rows: np.ndarray, number: np.ndarray) -> list[np.ndarray]:
    kept = number >= 0
    slices, rank = np.unique(number[kept], return_inverse=True)
    third = rank * len(THIRDS) // len(slices)
    return [rows[kept][third == i] for i in range(len(THIRDS))]


def _summary(values: Float[np.ndarray, "clips dim"], parts: list[list[np.ndarray]]) -> Float[np.ndarray, "units dims"]:
    """Mean over the clips of each part, parts side by side."""
    return np.stack([np.concatenate([values[rows].mean(0) for rows in unit]) for unit in parts])


def nuisance_clips(index: pd.DataFrame, facts: ClipFacts, units: Sequence[Int[np.ndarray, "_"]]) -> pd.DataFrame:
    """Intensity statistics and acquisition numbers of each unit (mean over its clips), without columns that never vary."""
    numbers = pd.DataFrame(facts.intensity, columns=["mean", "sd", *[f"percentile {p}" for p in PERCENTILES]])
    for column in HEADER:
        numbers[column] = pd.to_numeric(index[column], errors="coerce").to_numpy(dtype=np.float64)
    table = pd.DataFrame([numbers.iloc[unit].mean() for unit in units]).reset_index(drop=True)
    table["clips"] = [float(len(unit)) for unit in units]
    table["slices"] = [float(index["slice"].iloc[unit].nunique()) for unit in units]
    table["type"] = [" ".join(sorted({facts.dtype[i] for i in unit})) for unit in units]
    return table.loc[:, table.nunique(dropna=False) > 1]


def _raw(grey: np.ndarray) -> Float[np.ndarray, "statistics"]:
    flat = grey.reshape(-1)
    flat = flat[:: max(1, len(flat) // PIXELS)].astype(np.float64)
    return np.array([flat.mean(), flat.std(), *np.percentile(flat, PERCENTILES)])


def _candidate(name: str, problem: Problem, features: Features, max_train: int | None = None) -> Candidate:
    suffix = "ridge" if problem.task == "regression" else "logistic"
    return Candidate(f"{name} + {suffix}", features, LinearProbe(), True, max_train)
