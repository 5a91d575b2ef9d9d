"""Figures of segmentation results: overlap with intervals, learning curves, agreement of volumes, detection; without pyplot."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ssl4neuro.evaluate.figures import BASELINE, OWN
from ssl4neuro.evaluate.segmentation import ALWAYS_EMPTY, SegmentationRow

COLOURS = (OWN, "#c2571a", "#2e7d32", "#7b3fa0", "#8a6d00", "#00838f")
ACROSS = 3  # panels
UNITS = {"mm2": "mm²", "cm2": "cm²"}
FEW_LABELS = re.compile(r"(.+), ([1-9]\d*) patients?")  # as `train.finetune` names the heads of few-label runs
HEADLINE = {"dice_3d": "Dice in 3-D per patient", "dice": "Dice, scans that show it"}  # the first that there is
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)))  # of other number than markers: structures beyond these still differ
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def place(structure: str, phase: str) -> str:
    """`myocardium, ED`."""
    return f"{structure}, {phase}" if phase else structure


def overlap_figure(rows: Sequence[SegmentationRow], path: Path, stamp: str = "") -> None:
    """Positives-only Dice of every model by scan: one panel per structure and phase. The stamp stands above it."""
    rows = [row for row in rows if row.metric == "dice" and row.convention == "positives only"]
    places = list(dict.fromkeys((row.structure, row.phase) for row in rows))
    names = list(dict.fromkeys(row.model for row in rows))
    figure, panels = _grid(len(places), 3.2, 0.42 * len(names) + 1.3)
    for axes, where in zip(panels, places, strict=True):
        shown = [row for row in rows if (row.structure, row.phase) == where]
        for row in shown:
            position, (colour, marker) = names.index(row.model), (BASELINE, "s") if row.baseline else (OWN, "o")
            if np.isfinite(row.ci_low):
                axes.plot([row.ci_low, row.ci_high], [position, position], color=colour, linewidth=2, solid_capstyle="butt")
            if np.isfinite(row.value):
                axes.plot(row.value, position, marker, color=colour, markersize=6, clip_on=False, zorder=3)
        axes.set(xlim=(0, 1), xlabel="Dice, scans that show it", ylim=(len(names) - 0.5, -0.5))
        axes.set_title(f"{place(*where)}\n{shown[0].n_units} scans of {shown[0].n_patients} patients", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_yticks(range(len(names)), names)
    if stamp:
        figure.suptitle(f"[{stamp}]", fontsize=10)
    figure.supxlabel("estimate and 95 % interval over patients; squares: baselines", fontsize=9)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def _grid(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, at most `ACROSS` beside each other; inches of each."""
    across = min(count, ACROSS)
    down = -(-count // across)
    figure = Figure(figsize=(width * across + 1.8, height * down + 0.4), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for spare in panels[count:]:
        spare.remove()
    return figure, panels[:count]


@dataclass(frozen=True)
class LearningCurve:
    """Headline Dice of one head or baseline on one structure and phase, by the number of patients it was trained on."""

    name: str  # the structure, for a baseline or one head of several with its name
    phase: str
    baseline: bool
    metric: str  # a key of `HEADLINE`
    n_patients: int  # tested on
    points: tuple[tuple[int, float, float, float], ...]  # training patients, Dice, 95 % interval (NaN where there is none)


def budget(model: str) -> tuple[str, int] | None:
    """Head and number of training patients of `mvo, 5 patients`; None for a model that is not of a few-label run."""
    found = FEW_LABELS.fullmatch(model)
    return (found[1], int(found[2])) if found else None


def learning_curves(rows: Iterable[Mapping[str, Any]]) -> list[LearningCurve]:
    """Curves of a few-label run, heads before baselines.

    Args:
        rows: of results.json, or `SegmentationRow`s as dictionaries; a number that does not exist is None or NaN.

    Returns:
        None at all below two numbers of training patients.
    """
    few = [(row, *at) for row in rows if (at := budget(str(row["model"]))) and row["convention"] == "positives only"]
    several = len({head for row, head, _ in few if not row.get("baseline")}) > 1
    for metric in HEADLINE:
        found: dict[tuple[bool, str, str], list[tuple[Mapping[str, Any], int]]] = {}
        for row, head, count in few:
            if row["metric"] == metric and math.isfinite(_real(row["value"])):
                baseline, structure = bool(row.get("baseline")), str(row["structure"])
                name = f"{structure}, {head}" if baseline or several else structure
                found.setdefault((baseline, name, str(row.get("phase") or "")), []).append((row, count))
        if len({count for line in found.values() for _, count in line}) > 1:
            return [_learned(metric, *key, line) for key, line in sorted(found.items(), key=lambda item: item[0][0])]
    return []


def _learned(
    metric: str, baseline: bool, name: str, phase: str, line: Sequence[tuple[Mapping[str, Any], int]]
) -> LearningCurve:
    points = [(n, _real(row["value"]), _real(row.get("ci_low")), _real(row.get("ci_high"))) for row, n in line]
    tested = max(int(row["n_patients"]) for row, _ in line)
    return LearningCurve(name, phase, baseline, metric, tested, tuple(sorted(points)))


def _real(value: Any) -> float:
    return math.nan if value is None else float(value)


def learning_curve(rows: Sequence[SegmentationRow], path: Path, stamp: str = "") -> bool:
    """Headline Dice over training patients, a panel per phase; False below two budgets. The stamp stands above it."""
    curves = learning_curves(map(asdict, rows))
    if not curves:
        return False
    figure = Figure(figsize=(3.6 * len({curve.phase for curve in curves}) + 1.2, 4.2), layout="constrained")
    draw_learning_curves(figure, curves, COLOURS)
    if stamp:
        figure.suptitle(f"[{stamp}]", fontsize=10)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    return True


def draw_learning_curves(figure: Figure, curves: Sequence[LearningCurve], colours: Sequence[str]) -> None:
    """A panel per phase on an empty figure; of a structure the same colour, line and marker everywhere, baselines grey."""
    phases = list(dict.fromkeys(curve.phase for curve in curves))
    names = list(dict.fromkeys(curve.name for curve in curves))
    budgets = sorted({count for curve in curves for count, *_ in curve.points})
    panels = figure.subplots(1, len(phases), sharey=True, squeeze=False)[0]
    for axes, phase in zip(panels, phases, strict=True):
        shown = [curve for curve in curves if curve.phase == phase]
        axes.set_xscale("log")
        for curve in shown:
            at = names.index(curve.name)
            colour = BASELINE if curve.baseline else colours[at % len(colours)]
            _learning_line(
                axes, curve, _beside(at, len(names), budgets), colour, STYLES[at % len(STYLES)], MARKERS[at % len(MARKERS)]
            )
        axes.set_xticks(budgets, [str(count) for count in budgets])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(ylim=(0, 1), xlabel=f"training patients\n{_tested(shown)}")
        axes.set_title(phase, fontsize="medium")
        axes.margins(x=0.08)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"{HEADLINE[curves[0].metric]}\nmean and 95 % interval")
    labelled = {name: line for axes in panels for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        labelled.values(), labelled, loc="outside lower center", ncols=3, frameon=False, fontsize="small", handlelength=4
    )


def _learning_line(axes: Axes, curve: LearningCurve, shift: float, colour: str, style: Any, marker: str) -> None:
    x, value, low, high = np.array(curve.points).T
    filling = "white" if curve.baseline else colour
    axes.plot(
        x * shift, value, color=colour, linestyle=style, marker=marker, linewidth=1.5, markersize=5.5, label=curve.name,
        zorder=3, clip_on=False, markerfacecolor=filling,
    )  # fmt: skip
    for where, *ends in zip(x * shift, low, high, strict=True):
        axes.plot([where, where], ends, color=colour, linewidth=1.1, marker="_", markersize=5, clip_on=False)


def _beside(at: int, count: int, budgets: Sequence[int]) -> float:
    """Factor that moves a curve aside, so that intervals do not hide each other: all stay near their tick on a log axis."""
    gaps = np.diff(np.log(budgets))
    return float(np.exp((at - (count - 1) / 2) * min(0.2 * gaps.min() / count, 0.02 * gaps.sum())))


def _tested(curves: Sequence[LearningCurve]) -> str:
    """`n = 30 test patients`; where not all show every structure, a line per number, the largest first."""
    own = [curve for curve in curves if not curve.baseline] or curves
    sizes = sorted({curve.n_patients for curve in own}, reverse=True)
    if len(sizes) == 1:
        return f"n = {sizes[0]} test patients"
    return "\n".join(f"n = {n} test patients: {', '.join(c.name for c in own if c.n_patients == n)}" for n in sizes)


def volume_figure(rows: Sequence[SegmentationRow], stacks: pd.DataFrame, path: Path) -> bool:
    """Bland-Altman, difference over mean of both volumes: a panel per own model and structure; False where there is none."""
    bias = [row for row in rows if row.metric == "volume_bias" and not row.baseline and np.isfinite(row.value)]
    if not bias:
        return False
    figure, panels = _grid(len(bias), 3.6, 3.2)
    for axes, row in zip(panels, bias, strict=True):
        mine = stacks[(stacks["model"] == row.model) & (stacks["volume_unit"] == row.measure_unit)]
        mine = mine[(mine["structure"] == row.structure) & (mine["phase"] == row.phase)]
        own = {r.metric: r for r in rows if (r.model, r.structure, r.phase) == (row.model, row.structure, row.phase)}
        _agreement(axes, mine, row, own["volume_limit_low"].value, own["volume_limit_high"].value)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    return True


def _agreement(axes: Axes, stacks: pd.DataFrame, bias: SegmentationRow, low: float, high: float) -> None:
    difference = stacks["volume"] - stacks["volume_true"]
    axes.plot((stacks["volume"] + stacks["volume_true"]) / 2, difference, "o", color=OWN, alpha=0.6, markersize=5)
    axes.axhline(0, color="black", linewidth=0.6)
    for value, style, name in ((bias.value, "-", "bias"), (low, "--", "−1.96 sd"), (high, "--", "+1.96 sd")):
        if np.isfinite(value):
            axes.axhline(value, color=COLOURS[1], linestyle=style, linewidth=1.2)
            text = f"{name}: {value:.2f}".replace("-", "−")
            axes.annotate(text, (1, value), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
                          va="center", fontsize=8, color=COLOURS[1])  # fmt: skip
    unit = UNITS.get(bias.measure_unit, bias.measure_unit)
    axes.set(xlabel=f"mean of predicted and true [{unit}]", ylabel=f"predicted − true [{unit}]")
    axes.margins(y=0.15)
    axes.set_title(
        f"{place(bias.structure, bias.phase)}: {bias.model}\n{bias.n_patients} patients, n = {bias.n_units}", fontsize=10
    )
    axes.spines[["top", "right"]].set_visible(False)


def detection_figure(
    rows: Sequence[SegmentationRow], scans: pd.DataFrame, stacks: pd.DataFrame, lesion: str, path: Path
) -> bool:
    """ROC curves of the lesion's detection by scan and by patient, a line of panels per phase; False where there is none."""
    found = [row for row in rows if row.metric == "auc" and row.structure == lesion and row.model != ALWAYS_EMPTY]
    if not found:
        return False
    phases = list(dict.fromkeys(row.phase for row in found))
    models = list(dict.fromkeys(row.model for row in found))
    figure = Figure(figsize=(9, 4.2 * len(phases) + 0.3), layout="constrained")
    panels = figure.subplots(len(phases), 2, squeeze=False)
    tables = {"scan": scans, "patient": stacks}
    for line, phase in zip(panels, phases, strict=True):
        for axes, (unit, table) in zip(line, tables.items(), strict=True):
            shown = [row for row in found if row.phase == phase and row.unit == unit]
            table = table[(table["structure"] == lesion) & (table["phase"] == phase)]
            for row in shown:
                colour, width = COLOURS[models.index(row.model) % len(COLOURS)], 1.3 if row.baseline else 2.2
                mine = table[(table["model"] == row.model) & np.isfinite(table["score"].astype(float))]
                _curve(axes, mine, row, colour, width)
            axes.plot([0, 1], [0, 1], color=BASELINE, linestyle=":", linewidth=1, label=f"chance, {ALWAYS_EMPTY}: 0.500")
            size = (
                f"{shown[0].n_units} {unit}s" + (f" of {shown[0].n_patients} patients" if unit == "scan" else "")
                if shown
                else ""
            )
            axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
            axes.set_title(f"{place(lesion, phase)}, by {unit}: {size}", fontsize=10)
            axes.legend(loc="lower right", fontsize=8, title="AUC (95 % interval over patients)", title_fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    return True


def _curve(axes: Axes, table: pd.DataFrame, row: SegmentationRow, colour: str, width: float) -> None:
    from sklearn.metrics import roc_curve  # here: the report takes learning curves from this module, and stays light

    wrong, right, _ = roc_curve(table["positive"].astype(bool), table["score"].astype(float))
    interval = f" ({row.ci_low:.2f} to {row.ci_high:.2f})" if np.isfinite(row.ci_low) else ""
    style = "--" if row.baseline else "-"
    axes.plot(wrong, right, style, color=colour, linewidth=width, label=f"{row.model}: {row.value:.3f}{interval}")
