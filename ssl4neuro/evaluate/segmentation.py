"""How well structures were segmented, by rules under which an empty mask does not win (`methods/mvo.md` section 8).

1. Dice, Jaccard, surface distance, precision and recall on scans that show the structure; Dice in 3-D per patient and phase.
2. Detection of the lesion, of scans and of patients: sensitivity, specificity, AUC.
3. The area that is called lesion on scans without one.
4. The pooled convention (0/0 = 1) only beside the line of a model that never finds anything.
5. Agreement of volumes per patient: bias and 95 % limits (Bland and Altman, Lancet 1986), correlation.
6. Every interval resamples patients: the slices of one are not independent.

A table of `scans` has a line per model, scan (one frame of one slice) and structure: `COLUMNS` and what `score_scan` returns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.metrics import weighted_auc
from ssl4neuro.evaluate.statistics import Interval, bootstrap_interval, constant_within
from ssl4neuro.registry import suggest

STACK = ("subject", "session", "run", "view")
SCAN = (*STACK, "slice", "frame")
COLUMNS = ("model", "baseline", "fold", *SCAN, "phase", "spacing_row", "spacing_column", "thickness")
MEASURED = (
    "structure",
    "positive",
    "detected",
    "tp",
    "fp",
    "fn",
    "dice",
    "jaccard",
    "precision",
    "recall",
    "hd95",
    "hsd",
    "score",
)
ALWAYS_EMPTY = "always empty"
OVERLAP = ("dice", "jaccard", "precision", "recall")
DISTANCES = ("hd95", "hsd")

Convention = Literal["positives only", "pooled, 0/0 = 1", "negatives only", "all"]
Statistic = Callable[[np.ndarray], np.ndarray]  # weights [draws, rows] -> [draws]


@dataclass(frozen=True)
class SegmentationRow:
    """One number with all that is needed to read it."""

    model: str
    baseline: bool
    structure: str
    phase: str
    metric: str
    value: float
    ci_low: float  # 95 %, bootstrap of patients
    ci_high: float
    unit: Literal["scan", "patient"]  # what was averaged; a patient's sessions, runs and views count apart
    n_patients: int
    n_units: int
    dropped: int  # units for which the metric is undefined, or in the other unit of length
    measure_unit: str  # mm, mm2, ml, cm2 (areas added over slices of unknown distance), px; empty for numbers without unit
    convention: Convention


def patients(scans: pd.DataFrame) -> pd.DataFrame:
    """A line per model, structure, phase and stack (subject, session, run, view).

    Columns of their own: `dice_3d` = 2ΣTP / (2ΣTP + ΣFP + ΣFN) over the slices (NaN for 0/0); `volume_true` and `volume` in
    `volume_unit`: ml where spacing and slice distance are known, cm2 (areas added) where the distance is not, else px;
    `score`, the highest of its scans. Frames of the same slice and phase are averaged in volumes.
    """
    keys = ["model", "baseline", "structure", "phase", *STACK]
    table = scans.copy()
    pixel = table["spacing_row"].astype(float) * table["spacing_column"].astype(float)
    table["spaced"], table["thick"] = pixel.notna(), pixel.notna() & table["thickness"].notna()
    groups = table.groupby(keys, sort=False, dropna=False)
    thick, spaced = groups["thick"].transform("all"), groups["spaced"].transform("all")
    table["volume_unit"] = np.select([thick, spaced], ["ml", "cm2"], "px")
    depth = np.select([thick, spaced], [pixel * table["thickness"] / 1000, pixel / 100], 1.0)
    depth /= table.groupby([*keys, "slice"], sort=False, dropna=False)["frame"].transform("size")
    table["volume_true"], table["volume"] = (table["tp"] + table["fn"]) * depth, (table["tp"] + table["fp"]) * depth
    found = table.groupby([*keys, "volume_unit"], sort=False, dropna=False).agg(
        scans=("tp", "size"), positive=("positive", "any"), detected=("detected", "any"), score=("score", "max"),
        tp=("tp", "sum"), fp=("fp", "sum"), fn=("fn", "sum"), volume_true=("volume_true", "sum"), volume=("volume", "sum"),
    ).reset_index()  # fmt: skip
    whole = 2 * found["tp"] + found["fp"] + found["fn"]
    found["dice_3d"] = 2 * found["tp"] / whole.where(whole > 0)
    return found


def summarise(scans: pd.DataFrame, *, lesion: str | None, draws: int = 2000, seed: int = 0) -> list[SegmentationRow]:
    """All numbers by the six rules, models in the order of the table, baselines after the others.

    Args:
        scans: see the module.
        lesion: the structure that many scans do not show. Rules 2 to 4 are about it; None where there is none.
        draws: of the bootstrap.

    Raises:
        UserError: a column is missing, or there is no such structure.
    """
    checked(scans)
    if lesion is not None:
        names = scans["structure"].unique().tolist()
        if lesion not in names:
            raise UserError(f"lesion: no structure '{lesion}'{suggest(lesion, names)}; there are {', '.join(names)}")
        scans = with_always_empty(scans, lesion)
    last = scans["baseline"].astype(int) + (scans["model"] == ALWAYS_EMPTY)
    scans = scans.iloc[np.argsort(last.to_numpy(), kind="stable")]
    rows: list[SegmentationRow] = []
    for (structure, _), part in scans.groupby(["structure", "phase"], sort=False, dropna=False):
        for _, own in part.groupby("model", sort=False):
            summary = _Summary(own, patients(own), draws, seed)
            rows += summary.overlap()
            if structure == lesion:
                rows += summary.detection()
            rows += summary.volumes()
            if structure == lesion:
                rows += summary.pooled()
    return rows


def checked(scans: pd.DataFrame) -> None:
    """Refuse a table that lacks a column or a line."""
    for column in (*COLUMNS, *MEASURED):
        if column not in scans.columns:
            raise UserError(f"table of scans: no column '{column}'; write it with this version of ssl4neuro")
    if scans.empty:
        raise UserError("table of scans: empty; there is nothing to summarise")


def numbered(scans: pd.DataFrame) -> pd.DataFrame:
    """With a column `repeat` that tells scans apart that have the same place, such as clips outside a stack."""
    return scans.assign(repeat=scans.groupby(["model", "structure", "phase", *SCAN], dropna=False).cumcount())


def with_always_empty(scans: pd.DataFrame, lesion: str) -> pd.DataFrame:
    """Add the lines of a model that never finds the lesion, unless they are there."""
    own = scans[scans["structure"] == lesion]
    if (own["model"] == ALWAYS_EMPTY).any():
        return scans
    empty = numbered(own).drop_duplicates([*SCAN, "phase", "repeat"]).drop(columns="repeat")
    zero = np.where(empty["positive"].astype(bool), 0.0, np.nan)
    blank = {name: np.nan for name in ("precision", *DISTANCES, "uncertainty") if name in empty.columns}
    empty = empty.assign(
        model=ALWAYS_EMPTY, baseline=True, detected=False, fn=empty["tp"] + empty["fn"], tp=0, fp=0,
        dice=zero, jaccard=zero, recall=zero, area=0.0, score=0.0, **blank,
    )  # fmt: skip
    return pd.concat([scans, empty], ignore_index=True)


@dataclass(frozen=True)
class _Summary:
    """Of one model, structure and phase."""

    scans: pd.DataFrame
    patients: pd.DataFrame
    draws: int
    seed: int

    def overlap(self) -> Iterator[SegmentationRow]:
        """Rule 1."""
        shown = self.scans[self.scans["positive"].astype(bool)]
        for metric in OVERLAP:
            yield from self.row(metric, "scan", "positives only", shown, mean(shown[metric]), bounded=True)
        spaced = shown["spacing_row"].notna()
        unit = "mm" if spaced.mean() >= 0.5 else "px"
        for metric in DISTANCES:
            values = shown[metric].where(spaced == (unit == "mm"))
            yield from self.row(metric, "scan", "positives only", shown, mean(values), measure=unit)
        stacks = self.patients[self.patients["positive"].astype(bool)]
        yield from self.row("dice_3d", "patient", "positives only", stacks, mean(stacks["dice_3d"]), bounded=True)

    def detection(self) -> Iterator[SegmentationRow]:
        """Rules 2 and 3. A patient with several stacks or visits has the lesion where any of them shows it."""
        people = self.patients.groupby("subject", sort=False, as_index=False)[["positive", "detected", "score"]].max()
        units: tuple[tuple[Literal["scan", "patient"], pd.DataFrame], ...] = (("scan", self.scans), ("patient", people))
        for unit, table in units:
            positive = table["positive"].astype(bool)
            sick, well = table[positive], table[~positive]
            yield from self.row("sensitivity", unit, "positives only", sick, mean(sick["detected"]), bounded=True)
            yield from self.row("specificity", unit, "negatives only", well, mean(~well["detected"].astype(bool)), bounded=True)
            if len(sick) and len(well):
                yield from self.row("auc", unit, "all", table, auc(table["score"], positive), bounded=True, strata=positive)
        well = self.scans[~self.scans["positive"].astype(bool)]
        pixel = well["spacing_row"].astype(float) * well["spacing_column"].astype(float)
        measure = "mm2" if pixel.notna().mean() >= 0.5 else "px"
        area = well["fp"] * pixel if measure == "mm2" else well["fp"].where(pixel.isna())
        yield from self.row("false_positive_area", "scan", "negatives only", well, mean(area), measure=measure)

    def volumes(self) -> Iterator[SegmentationRow]:
        """Rule 5."""
        measure = self.patients["volume_unit"].mode()[0]
        same = self.patients["volume_unit"] == measure
        true, found = self.patients["volume_true"].where(same), self.patients["volume"].where(same)
        statistics = {
            "volume_bias": mean(found - true),
            "volume_limit_low": limit(found - true, -1.96),
            "volume_limit_high": limit(found - true, 1.96),
        }
        for metric, statistic in statistics.items():
            yield from self.row(metric, "patient", "all", self.patients, statistic, measure=measure)
        yield from self.row("volume_correlation", "patient", "all", self.patients, correlation(true, found))

    def pooled(self) -> Iterator[SegmentationRow]:
        """Rule 4."""
        neither = ~self.scans["positive"].astype(bool) & ~self.scans["detected"].astype(bool)
        values = self.scans["dice"].mask(neither, 1.0)
        yield from self.row("dice", "scan", "pooled, 0/0 = 1", self.scans, mean(values), bounded=True)

    def row(
        self,
        metric: str,
        unit: Literal["scan", "patient"],
        convention: Convention,
        table: pd.DataFrame,
        statistic: tuple[Statistic, np.ndarray],
        *,
        measure: str = "",
        bounded: bool = False,
        strata: pd.Series | None = None,
    ) -> Iterator[SegmentationRow]:
        """A row, or none where no unit is of the kind."""
        if not len(table):
            return
        function, kept = statistic
        table, subjects = table[kept], pd.factorize(table["subject"])[0][kept]
        interval, first = Interval(np.nan, np.nan, np.nan), self.scans.iloc[0]
        if kept.any():
            layer = None if strata is None else strata.to_numpy().astype(np.int64)[kept]
            if layer is not None and not constant_within(layer, subjects).all():
                layer = None  # subjects of both classes cannot be drawn within a class
            certain = first["model"] == ALWAYS_EMPTY  # by construction, whoever the patients are
            interval = bootstrap_interval(
                function, subjects, strata=layer, draws=self.draws, seed=self.seed, bounded=bounded and not certain
            )
        yield SegmentationRow(
            str(first["model"]), bool(first["baseline"]), str(first["structure"]), str(first["phase"]), metric,
            interval.value, interval.low, interval.high, unit, int(table["subject"].nunique()), len(table),
            int((~kept).sum()), measure, convention,
        )  # fmt: skip


# Statistics of weighted rows, with which rows they are defined for.


def mean(values: pd.Series) -> tuple[Statistic, np.ndarray]:
    """Weighted mean of the defined values."""
    x = values.to_numpy(dtype=np.float64, na_value=np.nan)
    kept = np.isfinite(x)
    x = x[kept]

    def of(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return weights @ x / weights.sum(1)

    return of, kept


def limit(difference: pd.Series, times: float) -> tuple[Statistic, np.ndarray]:
    """Mean plus `times` standard deviations (n - 1): a limit of agreement."""
    x = difference.to_numpy(dtype=np.float64, na_value=np.nan)
    kept = np.isfinite(x)
    centre = x[kept].mean() if kept.any() else 0.0  # so that squares do not swallow the spread
    x = x[kept] - centre

    def of(weights: np.ndarray) -> np.ndarray:
        n = weights.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            middle = weights @ x / n
            spread = np.maximum(weights @ x**2 - n * middle**2, 0) / (n - 1)
            return centre + middle + times * np.sqrt(spread)

    return of, kept


def correlation(a: pd.Series, b: pd.Series) -> tuple[Statistic, np.ndarray]:
    """Pearson's; NaN where one does not vary."""
    x, y = (values.to_numpy(dtype=np.float64, na_value=np.nan) for values in (a, b))
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = (_standard(values[kept]) for values in (x, y))

    def of(weights: np.ndarray) -> np.ndarray:
        n = weights.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mx, my = weights @ x / n, weights @ y / n
            vx, vy = weights @ x**2 / n - mx**2, weights @ y**2 / n - my**2
            scale = np.sqrt(np.where((vx > 1e-9) & (vy > 1e-9), vx * vy, np.nan))
            return np.clip((weights @ (x * y) / n - mx * my) / scale, -1, 1)

    return of, kept


def _standard(values: np.ndarray) -> np.ndarray:
    spread = float(values.std()) if len(values) else 0.0
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


def auc(score: pd.Series, positive: pd.Series) -> tuple[Statistic, np.ndarray]:
    """Probability that a positive outranks a negative."""
    x, sick = score.to_numpy(dtype=np.float64, na_value=np.nan), positive.to_numpy(dtype=bool)
    kept = np.isfinite(x)
    x, sick = x[kept], sick[kept]
    return lambda weights: weighted_auc(x, weights * sick, weights * ~sick), kept
