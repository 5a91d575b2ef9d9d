"""Figures behind a result: ROC with a band, reliability, intervals by site or target, label efficiency, map of embeddings."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from ssl4neuro.report.calibration import Reliability
from ssl4neuro.report.drawing import BASELINE, CHANCE, SERIES, SETTINGS, STYLES, Drawing, svg
from ssl4neuro.report.roc import GRID, Band

MARKERS = "osD^vP"
MOST_CLASSES = len(SERIES)


def roc_band(series: Mapping[str, Band], *, shaded: int = 1) -> Drawing:
    """Sensitivity over the false alarms among negatives; the first `shaded` curves have their 95 % band."""
    with mpl.rc_context(SETTINGS):
        canvas = Canvas(figsize=(4.4, 3.6), layout="constrained")
        axes = canvas.subplots()
        axes.plot([0, 1], [0, 1], color=CHANCE, linestyle="--", linewidth=1, label="chance")
        for i, (name, band) in enumerate(series.items()):
            if i < shaded:
                axes.fill_between(GRID, band.low, band.high, color=SERIES[i % len(SERIES)], alpha=0.16, linewidth=0)
            axes.plot(GRID, band.mean, **_line(i), linewidth=1.7, label=name)
        _unit_square(axes, "1 − specificity", "sensitivity")
        axes.legend(frameon=False, fontsize=7.5, loc="lower right")
        return svg(canvas)


def reliability_diagram(series: Mapping[str, Reliability], outcome: str) -> Drawing:
    """Observed frequency over predicted probability of `outcome`, with the interval of each bin."""
    with mpl.rc_context(SETTINGS):
        canvas = Canvas(figsize=(4.4, 3.6), layout="constrained")
        axes = canvas.subplots()
        axes.plot([0, 1], [0, 1], color="#222222", linestyle="--", linewidth=1, label="perfect")
        for i, (name, bins) in enumerate(series.items()):
            axes.plot(bins.predicted, bins.observed, **_line(i), linewidth=1.2, marker=MARKERS[i % 6], markersize=5, label=name)
            axes.vlines(bins.predicted, bins.low, bins.high, color=SERIES[i % len(SERIES)], linewidth=1, alpha=0.7)
        _unit_square(axes, f"predicted probability of {outcome}", "observed share")
        axes.legend(frameon=False, fontsize=7.5, loc="upper left")
        return svg(canvas)


def forest(rows: Sequence[Mapping[str, Any]], xlabel: str, *, chance: float | None = None) -> Drawing:
    """Estimate and 95 % interval per `label`, one marker per `group`; a `note` stands at the right.

    Args:
        rows: label, group, value, ci_low, ci_high, and optionally baseline (drawn grey) and note. Missing numbers are None.
    """
    labels, groups = (list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("label", "group"))
    grey = {str(row["group"]) for row in rows if row.get("baseline")}
    with mpl.rc_context(SETTINGS):
        spacing = 0.17 * len(groups) + 0.14
        canvas = Canvas(figsize=(5.6, min(1.0 + spacing * len(labels) + 0.16 * len(groups), 14)), layout="constrained")
        axes = canvas.subplots()
        if chance is not None:
            axes.axvline(chance, color=CHANCE, linestyle="--", linewidth=1, label="chance")
        for i, group in enumerate(groups):
            colour = BASELINE if group in grey else SERIES[i % len(SERIES)]
            style: dict[str, Any] = {"color": colour, "marker": MARKERS[i % 6], "markersize": 5, "linestyle": "none"}
            axes.plot([], [], label=group, **style)
            for row in (r for r in rows if str(r["group"]) == group and r.get("value") is not None):
                place = labels.index(str(row["label"])) + (i - (len(groups) - 1) / 2) * 0.72 / max(len(groups), 2)
                if row.get("ci_low") is not None and row.get("ci_high") is not None:
                    axes.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, linewidth=1.7)
                axes.plot(row["value"], place, **style)
                _note(axes, row, place)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.45, -0.55)
        axes.set_xlabel(xlabel)
        axes.grid(axis="y", visible=False)
        if len(groups) > 1 or chance is not None:
            canvas.legend(frameon=False, fontsize=7.5, loc="outside upper center", ncols=min(len(groups) + 1, 3))
        return svg(canvas)


def efficiency(series: Mapping[str, Mapping[str, Any]], ylabel: str, *, chance: float | None = None) -> Drawing:
    """A metric over the number of training subjects, on a logarithmic axis.

    Args:
        series: name -> `n` [points], `mean` [points], `low`, `high` [points] (over repeats) and `baseline`.
    """
    with mpl.rc_context(SETTINGS):
        canvas = Canvas(figsize=(4.4, 3.2), layout="constrained")
        axes = canvas.subplots()
        if chance is not None:
            axes.axhline(chance, color=CHANCE, linestyle="--", linewidth=1, label="chance")
        for i, (name, points) in enumerate(series.items()):
            style = _line(i)
            axes.fill_between(points["n"], points["low"], points["high"], color=style["color"], alpha=0.13, linewidth=0)
            axes.plot(points["n"], points["mean"], **style, linewidth=1.6, marker=MARKERS[i % 6], markersize=4, label=name)
        ticks = sorted({float(n) for points in series.values() for n in points["n"]})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{n:g}" for n in ticks])
        axes.minorticks_off()
        axes.set_xlabel("training subjects")
        axes.set_ylabel(ylabel)
        axes.legend(frameon=False, fontsize=7.5, loc="best")
        return svg(canvas)


def scatter(xy: Float[np.ndarray, "n 2"], label: Shaped[np.ndarray, "n"]) -> Drawing:
    """A map of points: classes by colour and marker, numbers by a colour scale. Axes have no meaning and no ticks."""
    with mpl.rc_context(SETTINGS):
        canvas = Canvas(figsize=(4.6, 3.8), layout="constrained")
        axes = canvas.subplots()
        if label.dtype.kind == "f":
            points = axes.scatter(xy[:, 0], xy[:, 1], c=label, cmap="viridis", s=16, linewidths=0)
            canvas.colorbar(points, ax=axes, shrink=0.8)
        else:
            classes = list(dict.fromkeys(sorted(map(str, label))))
            for i, name in enumerate(classes):
                marker = MARKERS[(i + i // len(SERIES)) % len(MARKERS)]
                x, y = xy[label.astype(str) == name].T
                axes.scatter(x, y, s=18, linewidths=0, alpha=0.8, label=name, color=SERIES[i % len(SERIES)], marker=marker)
            if len(classes) <= 4 * MOST_CLASSES:
                canvas.legend(frameon=False, fontsize=7.5, loc="outside right upper", ncols=1 + len(classes) // 18)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        return svg(canvas)


def _line(i: int) -> dict[str, Any]:
    return {"color": SERIES[i % len(SERIES)], "linestyle": STYLES[i % len(STYLES)]}


def _unit_square(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")


def _note(axes: Axes, row: Mapping[str, Any], place: float) -> None:
    if row.get("note"):
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "xytext": (4, 0)}
        axes.annotate(row["note"], (1, place), va="center", fontsize=7.5, color="#3c4450", annotation_clip=False, **where)
