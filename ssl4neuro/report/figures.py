"""Figures of runs and results: curves, estimates beside baselines, confusion, agreement, ROC."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from ssl4neuro.report.drawing import BASELINE, CHANCE, OTHER, OWN, SERIES, SETTINGS, STYLES, Drawing, svg

MOST_POINTS = 400  # of a curve; more are averaged in bins, a page must stay small
Curve = tuple[Float[np.ndarray, "_"], Float[np.ndarray, "_"]]  # steps and values


def curves(series: Mapping[str, Curve], ylabel: str, *, best: int | None = None, log: bool = False) -> Drawing:
    """Lines over optimiser steps; `best` marks a step. Single points are drawn as points."""
    with mpl.rc_context(SETTINGS):
        canvas = Canvas(figsize=(4.4, 2.5), layout="constrained")
        axes = canvas.subplots()
        for i, (name, (x, y)) in enumerate(series.items()):
            x, y = _thin(x, y)
            style: dict[str, Any] = {"color": SERIES[i % len(SERIES)], "linestyle": STYLES[i % len(STYLES)], "label": name}
            axes.plot(x, y, linewidth=1.5, marker="o" if len(x) <= 30 else None, markersize=2.5, **style)
        if best is not None:
            axes.axvline(best, color=BASELINE, linestyle=":", linewidth=1.4, label="best checkpoint")
        if log and all((y[np.isfinite(y)] > 0).all() for _, y in series.values()):
            axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_ylabel(ylabel)
        axes.margins(x=0.02)
        if len(series) > 1 or best is not None or ylabel not in series:
            axes.legend(frameon=False, fontsize=7.5, loc="best")
        return svg(canvas)


def estimates(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> Drawing:
    """A panel per metric: estimate and 95 % interval of every model, chance as a dashed line."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    with mpl.rc_context(SETTINGS):
        canvas = Canvas(figsize=(1.9 + 2.5 * len(metrics), 0.9 + 0.3 * len(names)), layout="constrained")
        panels = canvas.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for axes, metric in zip(panels, metrics, strict=True):
            _estimates_panel(axes, [row for row in rows if row["metric"] == metric], names)
            axes.set_title(metric, fontsize=9)
        return svg(canvas)


def _estimates_panel(axes: Axes, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    for chance in {row["chance"] for row in rows if row.get("chance") is not None}:
        axes.axvline(chance, color=CHANCE, linestyle="--", linewidth=1)
    for row in rows:
        if row.get("value") is None:
            continue
        position = names.index(row["name"])
        colour, marker = (BASELINE, "s") if row.get("baseline") else (OWN, "o")
        if row.get("ci_low") is not None and row.get("ci_high") is not None:
            axes.plot([row["ci_low"], row["ci_high"]], [position, position], color=colour, linewidth=2)
        axes.plot(row["value"], position, marker, color=colour, markersize=5.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def confusion(counts: Float[np.ndarray, "true predicted"], classes: Sequence[str]) -> Drawing:
    """Share of each true class (line) that is predicted as each class (column), with counts where they fit."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1e-12)
    with mpl.rc_context(SETTINGS):
        size = min(max(1.4 + 0.36 * len(classes), 3.6), 8.0)
        canvas = Canvas(figsize=(max(size + 0.6, 4.4), size), layout="constrained")
        axes = canvas.subplots()
        axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.6)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        axes.grid(visible=False)
        if len(classes) <= 12:
            for true, predicted in np.ndindex(counts.shape):
                colour = "white" if share[true, predicted] > 0.55 else "#222222"
                where = (predicted + 0.5, true + 0.5)
                axes.text(*where, f"{counts[true, predicted]:.0f}", ha="center", va="center", color=colour, fontsize=7.5)
        ticks = np.arange(len(classes)) + 0.5
        axes.set_xticks(
            ticks,
            classes,
            rotation=60 if max(map(len, classes)) > 3 else 0,
            ha="right" if max(map(len, classes)) > 3 else "center",
        )
        axes.set_yticks(ticks, classes)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        return svg(canvas)


def agreement(
    mean: Float[np.ndarray, "n"], difference: Float[np.ndarray, "n"], lines: Mapping[str, float], unit: str
) -> Drawing:
    """Differences over means of two measurements (Bland and Altman, Lancet 1986).

    Args:
        mean, difference: of predicted and true.
        lines: what is drawn across, by its name; one called `bias` solid, the others, its limits, dashed.
        unit: of all of them.
    """
    with mpl.rc_context(SETTINGS):
        canvas = Canvas(figsize=(4.4, 2.9), layout="constrained")
        axes = canvas.subplots()
        axes.axhline(0, color="#222222", linewidth=0.8)
        axes.plot(mean, difference, "o", color=OWN, markersize=4.5, alpha=0.7)
        for name, value in lines.items():
            axes.axhline(value, color=OTHER, linestyle="-" if name == "bias" else "--", linewidth=1.3)
            where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "xytext": (-2, 2)}
            axes.annotate(
                f"{name} {value:.2f}".replace("-", "−"), (1, value), ha="right", fontsize=7.5, color="#8f4522", **where
            )
        axes.set_xlabel(f"mean of predicted and reference [{unit}]")
        axes.set_ylabel(f"predicted − reference [{unit}]")
        axes.margins(x=0.06, y=0.18)
        left, right = axes.get_xlim()
        axes.set_xlim(left, right + 0.3 * (right - left))  # for the names of the lines
        return svg(canvas)


def roc(series: Mapping[str, tuple[Float[np.ndarray, "_"], Bool[np.ndarray, "_"]]]) -> Drawing:
    """Sensitivity over the false alarms among negatives, for every threshold; `series` holds scores and who is positive."""
    with mpl.rc_context(SETTINGS):
        canvas = Canvas(figsize=(4.4, 3.3), layout="constrained")
        axes = canvas.subplots()
        axes.plot([0, 1], [0, 1], color=CHANCE, linestyle="--", linewidth=1, label="chance")
        for i, (name, (score, positive)) in enumerate(series.items()):
            x, y = roc_points(score, positive)
            axes.plot(x, y, color=SERIES[i % len(SERIES)], linestyle=STYLES[i % len(STYLES)], linewidth=1.6, label=name)
        axes.set_xlabel("1 − specificity")
        axes.set_ylabel("sensitivity")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.legend(frameon=False, fontsize=7.5, loc="lower right")
        return svg(canvas)


def roc_points(score: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]) -> Curve:
    """Corners of a ROC curve from (0, 0) to (1, 1); equal scores move in one step."""
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    found, alarms = np.cumsum(positive)[last], np.cumsum(~positive)[last]
    return np.append(0.0, alarms / max(alarms[-1], 1)), np.append(0.0, found / max(found[-1], 1))


def _thin(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> Curve:
    """Means of at most `MOST_POINTS` bins of consecutive points."""
    if len(x) <= MOST_POINTS:
        return x, y
    size = -(-len(x) // MOST_POINTS)  # bins of one size: means of fewer points would look noisier than their neighbours
    bins = np.split(np.arange(len(x)), np.arange(size, len(x), size))
    return np.array([x[b].mean() for b in bins]), np.array([y[b].mean() for b in bins])
