"""Figures of segmentation results: overlap with intervals, agreement of volumes, detection. Drawn without pyplot."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from ssl4neuro.evaluate.figures import BASELINE, OWN
from ssl4neuro.evaluate.segmentation import ALWAYS_EMPTY, SegmentationRow

COLOURS = (OWN, "#c2571a", "#2e7d32", "#7b3fa0", "#8a6d00", "#00838f")
ACROSS = 3  # panels
UNITS = {"mm2": "mm²", "cm2": "cm²"}


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
    wrong, right, _ = roc_curve(table["positive"].astype(bool), table["score"].astype(float))
    interval = f" ({row.ci_low:.2f} to {row.ci_high:.2f})" if np.isfinite(row.ci_low) else ""
    style = "--" if row.baseline else "-"
    axes.plot(wrong, right, style, color=colour, linewidth=width, label=f"{row.model}: {row.value:.3f}{interval}")
