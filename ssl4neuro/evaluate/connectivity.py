"""What a scan's courses and maps say without any learning: connectivity between components (FNC), band powers, mean maps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ssl4neuro.data.cohort import Cohort

BANDS_HZ = ((0.008, 0.027), (0.027, 0.073), (0.073, 0.1), (0.1, 0.15), (0.15, 0.198), (0.198, 0.25))
LIMIT = 0.999999  # correlations are clipped before Fisher's z, so that two equal courses stay finite


def fnc(courses: Sequence[Float[np.ndarray, "_"]]) -> Float[np.ndarray, "pairs"]:
    """Functional network connectivity: Fisher z of the courses' correlations, upper triangle row by row."""
    matrix = stacked(courses).astype(np.float64)
    matrix -= matrix.mean(1, keepdims=True)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
    correlation = np.clip(matrix @ matrix.T, -LIMIT, LIMIT)
    return np.arctanh(correlation[np.triu_indices(len(matrix), 1)])


def stacked(courses: Sequence[Float[np.ndarray, "_"]]) -> Float[np.ndarray, "courses time"]:
    """Courses as one matrix, as long as the shortest of them."""
    length = min(len(course) for course in courses)
    return np.stack([np.asarray(course[:length]) for course in courses])


def band_powers(course: Float[np.ndarray, "time"], tr: float) -> Float[np.ndarray, "features"]:
    """Log share of the power in each band of `BANDS_HZ`, and the lag-one autocorrelation.

    `tr` in s; where it is unknown (NaN) 2 s is assumed: the bands are then the same fraction of every spectrum.
    """
    x = np.asarray(course, dtype=np.float64)
    x = x - x.mean()
    power = np.abs(np.fft.rfft(x)) ** 2
    hertz = np.fft.rfftfreq(len(x), 2.0 if np.isnan(tr) else tr)
    total = max(power[1:].sum(), 1e-12)
    shares = [power[(hertz >= low) & (hertz < high)].sum() / total for low, high in BANDS_HZ]
    lag = (x[1:] * x[:-1]).sum() / max((x * x).sum(), 1e-12)
    return np.append(np.log(np.array(shares) + 1e-4), lag)


@dataclass(frozen=True)
class Layout:
    """Which rows of the cohort make up each part (component, or network) of each unit (scan, or subject)."""

    keys: tuple[object, ...]
    by: str  # "component" or "network"
    rows: list[list[Int[np.ndarray, "_"]]]  # [unit][key] -> rows, one per scan and component


def layout(index: pd.DataFrame, units: Sequence[Int[np.ndarray, "_"]]) -> Layout | None:
    """Parts that all units share: components where every scan has the same ones, otherwise networks; None if fewer than two.

    Component numbers of separate decompositions (MELODIC per scan) mean nothing across scans; but there the sets differ or the
    same number has different networks, and the mean over a network takes their place.
    """
    used = index.iloc[np.concatenate(units)]
    sets = {frozenset(part) for _, part in used.groupby("group_code")["component"]}
    same_name = used.groupby("component")["network"].nunique().max() <= 1
    repeated = used.duplicated(["group_code", "component"]).any()
    by = "component" if len(sets) == 1 and same_name and not repeated else "network"
    values = index[by].to_numpy()
    common = set.intersection(*(set(values[rows]) for rows in units)) - {""}
    if by == "network":
        common = set.intersection(common, *(set(part) for _, part in used.groupby("group_code")["network"]))
    keys = tuple(sorted(common))
    if len(keys) < 2:
        return None
    return Layout(keys, by, [[rows[values[rows] == key] for key in keys] for rows in units])


def unit_fnc(cohort: Cohort, parts: Layout) -> Float[np.ndarray, "units pairs"]:
    """FNC of every unit; a part's course is the mean over its components, a subject's FNC the mean over scans."""
    return np.stack([_mean_fnc(courses) for courses in scan_courses(cohort, parts)]).astype(np.float32)


def unit_bands(cohort: Cohort, parts: Layout) -> Float[np.ndarray, "units features"]:
    """Band powers of every part, concatenated; means over components and scans."""
    tr = cohort.index["tr"].to_numpy(dtype=float)
    out = []
    for unit in parts.rows:
        flat = np.concatenate(unit)
        courses = dict(zip(flat.tolist(), cohort.fetch(flat, ("course",))["course"], strict=True))
        out.append(np.concatenate([np.mean([band_powers(courses[r], tr[r]) for r in part.tolist()], axis=0) for part in unit]))
    return np.stack(out).astype(np.float32)


def sample_bands(cohort: Cohort, rows: Int[np.ndarray, "rows"], block: int = 4096) -> Float[np.ndarray, "rows features"]:
    """Band powers of single components."""
    tr = cohort.index["tr"].to_numpy(dtype=float)
    out = []
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        courses = cohort.fetch(part, ("course",))["course"]
        out += [band_powers(course, tr[row]) for course, row in zip(courses, part.tolist(), strict=True)]
    return np.stack(out).astype(np.float32)


def map_gram(cohort: Cohort, parts: Layout) -> Float[np.ndarray, "units units"]:
    """Inner products of the units' concatenated mean maps, part by part, so that memory holds one part at a time."""
    gram = np.zeros((len(parts.rows), len(parts.rows)))
    for key in range(len(parts.keys)):
        flat = np.concatenate([unit[key] for unit in parts.rows])
        counts = np.array([len(unit[key]) for unit in parts.rows])
        maps = cohort.fetch(flat, ("map",))["map"].astype(np.float32)
        starts = np.r_[0, np.cumsum(counts)[:-1]]
        mean = np.add.reduceat(maps, starts, axis=0) / counts[:, None]
        gram += mean @ mean.T
    return gram.astype(np.float32)


def scan_courses(cohort: Cohort, parts: Layout) -> Iterator[list[list[np.ndarray]]]:
    """For each unit, for each of its scans, the course of every part."""
    group = cohort.index["group_code"].to_numpy()
    for unit in parts.rows:
        flat = np.concatenate(unit)
        courses = dict(zip(flat.tolist(), cohort.fetch(flat, ("course",))["course"], strict=True))
        yield [
            [np.mean([courses[r] for r in part[group[part] == scan].tolist()], axis=0) for part in unit]
            for scan in np.unique(group[flat])
        ]


def unit_trs(cohort: Cohort, parts: Layout) -> Iterator[list[float]]:
    """For each unit the repetition time (s) of each of its scans, in the order of `scan_courses`."""
    group, tr = cohort.index["group_code"].to_numpy(), cohort.index["tr"].to_numpy(dtype=float)
    for unit in parts.rows:
        flat = np.concatenate(unit)
        first = np.unique(group[flat], return_index=True)[1]
        yield tr[flat[first]].tolist()


def _mean_fnc(scans: list[list[np.ndarray]]) -> np.ndarray:
    return np.mean([fnc(courses) for courses in scans], axis=0)
