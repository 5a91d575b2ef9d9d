"""Figures of a probe: point estimates with intervals, and confusion matrices. Drawn without pyplot, so no display is needed."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from ssl4neuro.evaluate.probe import ProbeResult

OWN, BASELINE, CHANCE = "#0b5fa5", "#6b6b6b", "#b3261e"  # readable in grey print too: markers differ as well


def estimates_figure(result: "ProbeResult", path: Path) -> None:
    """One panel per metric: estimate and 95 % interval of every model, chance as a dashed line, n on the axis."""
    metrics = list(dict.fromkeys(row.metric for row in result.rows))
    names = list(dict.fromkeys(row.name for row in result.rows))
    figure = Figure(figsize=(3.4 * len(metrics) + 1.6, 0.42 * len(names) + 1.6), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        _panel(axes, result, metric, names)
    first = result.rows[0]
    size = f"n = {first.n_subjects} subjects" + ("" if first.unit == "subject" else f", {first.n_samples} {first.unit}s")
    figure.suptitle(f"{result.target}, held-out subjects" + (f"  [{result.stamp}]" if result.stamp else ""), fontsize=10)
    figure.supxlabel(f"estimate and 95 % interval over subjects ({size}); dashed: chance", fontsize=9)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def _panel(axes: Axes, result: "ProbeResult", metric: str, names: list[str]) -> None:
    for position, name in enumerate(names):
        row = result.row(name, metric)
        if not np.isfinite(row.value):
            continue
        colour, marker = (BASELINE, "s") if row.baseline else (OWN, "o")
        if np.isfinite(row.ci_low):
            axes.plot([row.ci_low, row.ci_high], [position, position], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(row.value, position, marker, color=colour, markersize=6)
        if row.chance is not None:
            axes.axvline(row.chance, color=CHANCE, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_title(metric, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def confusion_figure(result: "ProbeResult", path: Path) -> None:
    """Share of each true class (line) that is predicted as each class (column), first embedding beside the first baseline."""
    own = [row.name for row in result.rows if not row.baseline][:1]
    baseline = [row.name for row in result.rows if row.baseline and row.p is not None][:1]
    shown = own + baseline
    size = min(0.45 * len(result.classes) + 1.8, 9)
    figure = Figure(figsize=(size * len(shown) + 0.6, size + 0.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        counts = np.array(result.confusion[name])
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1e-12)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        if len(result.classes) <= 15:
            for true, predicted in np.ndindex(counts.shape):
                colour = "white" if share[true, predicted] > 0.5 else "black"
                axes.text(predicted, true, f"{counts[true, predicted]:.0f}", ha="center", va="center", color=colour, fontsize=8)
        axes.set_xticks(range(len(result.classes)), result.classes, rotation=60, ha="right", fontsize=8)
        axes.set_yticks(range(len(result.classes)), result.classes, fontsize=8)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("predicted", fontsize=9)
        axes.set_ylabel("true", fontsize=9)
    figure.savefig(path, dpi=150, bbox_inches="tight")
