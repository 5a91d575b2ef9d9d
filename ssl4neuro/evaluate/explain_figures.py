"""Figures of an explanation beside the brain maps: bars with intervals, courses, and pictures with what matters in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

OWN, CHANCE = "#0b5fa5", "#6b6b6b"
HEAT, SIGNED = "inferno", "RdBu_r"
TOP = 12  # regions shown of each network
FONT: dict[Any, Any] = {"font.family": "DejaVu Sans", "svg.hashsalt": "ssl4neuro", "text.parse_math": False}


def save(figure: Figure, stem: Path) -> list[str]:
    """`STEM.png` and `STEM.svg`; their names."""
    names = []
    for kind, metadata in (("png", None), ("svg", {"Date": None})):
        path = stem.with_name(f"{stem.name}.{kind}")
        figure.savefig(path, dpi=150, bbox_inches="tight", metadata=metadata)
        names.append(path.name)
    return names


def bars_figure(table: pd.DataFrame, part: str, stem: Path, *, title: str, label: str, top: int | None = None) -> list[str]:
    """One panel per network: the change of each part with its 95 % interval; of many parts the `top` largest, in order.

    Regions are named with their coordinates in mm.
    """
    groups = list(dict.fromkeys(table["network"]))
    shown = {g: table[table["network"] == g].dropna(subset=["value"]) for g in groups}
    if top is not None:
        shown = {g: t.reindex(t["value"].abs().nlargest(top).index) for g, t in shown.items()}
    across = min(len(groups), 3)
    down = -(-len(groups) // across)
    lines = max(len(t) for t in shown.values())
    with mpl.rc_context(FONT):
        wide = 4.8 if top is not None else 3.0
        size = (max(wide * across + 0.8, 5.5), (0.24 * lines + 0.75) * down + 0.7)
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=top is None).ravel()
        for axes, group in zip(panels, groups, strict=False):
            _bars(axes, shown[group], part)
            people = int(shown[group]["n_subjects"].max()) if len(shown[group]) else 0
            axes.set_title(f"{'' if group == 'all' else f'{group}, '}n = {people}", fontsize=9.5)
        for axes in panels[len(groups) :]:
            axes.set_axis_off()
        figure.suptitle(title, fontsize=10.5)
        figure.supxlabel(label, fontsize=9)
        return save(figure, stem)


def _bars(axes: Axes, table: pd.DataFrame, part: str) -> None:
    place = np.arange(len(table))
    axes.barh(place, table["value"], color=OWN, alpha=0.35, height=0.72)
    axes.hlines(place, table["ci_low"], table["ci_high"], color=OWN, linewidth=1.8)
    axes.plot(table["value"], place, "o", color=OWN, markersize=3.5)
    axes.axvline(0, color=CHANCE, linewidth=0.8)
    names = [str(name) for name in table[part]]
    if {"x", "y", "z"} <= set(table.columns):
        names = [
            f"{n} ({x:.0f}, {y:.0f}, {z:.0f})" for n, x, y, z in zip(names, table["x"], table["y"], table["z"], strict=True)
        ]
    axes.set_yticks(place, names, fontsize=8)
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def courses_figure(
    courses: Sequence[Float[np.ndarray, "_"]],
    cams: Sequence[Float[np.ndarray, "_"]],
    names: Sequence[str],
    rates: Sequence[float],
    stem: Path,
) -> list[str]:
    """Courses coloured by their Eigen-CAM; time in s where the TR is known, else in volumes."""
    with mpl.rc_context(FONT):
        figure = Figure(figsize=(8.5, 1.15 * len(courses) + 0.9), layout="constrained", facecolor="white")
        panels = figure.subplots(len(courses), 1, squeeze=False)[:, 0]
        for axes, course, cam, name, rate in zip(panels, courses, cams, names, rates, strict=True):
            time = np.arange(len(course)) * (rate if np.isfinite(rate) else 1)
            points = np.stack([time, course], axis=1)[:, None]
            line = LineCollection(np.concatenate([points[:-1], points[1:]], axis=1).tolist(), cmap="viridis_r", linewidth=1.5)
            line.set_array(cam[:-1])
            line.set_clim(0, 1)
            axes.add_collection(line)
            axes.set_xlim(time[0], time[-1])
            axes.set_ylim(course.min() - 0.3, course.max() + 0.3)
            axes.set_title(name, fontsize=8.5, loc="left")
            axes.tick_params(labelsize=7.5)
            axes.spines[["top", "right"]].set_visible(False)
        known = all(np.isfinite(rate) for rate in rates)
        panels[-1].set_xlabel("time (s)" if known else "volume", fontsize=8.5)
        figure.supylabel("course (z)", fontsize=8.5)
        bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "viridis_r"), ax=list(panels), aspect=30)
        bar.set_label("Eigen-CAM (0 to 1)", fontsize=8.5)
        return save(figure, stem)


def clips_figure(
    frames: Sequence[Float[np.ndarray, "time height width"]],
    heat: Sequence[Float[np.ndarray, "time height width"]],
    names: Sequence[str],
    stem: Path,
    *,
    title: str,
    label: str,
    columns: int = 5,
) -> list[str]:
    """A line of frames for each clip, evenly over it, grey with the map on top; colours diverge where values do."""
    most = max(float(np.abs(h).max()) for h in heat) or 1.0
    signed = any(bool((h < 0).any()) for h in heat)
    colours, norm = (SIGNED, Normalize(-most, most)) if signed else (HEAT, Normalize(0, most))
    with mpl.rc_context(FONT):
        count = min(columns, max(len(f) for f in frames))
        figure = Figure(figsize=(1.45 * count + 1.1, 1.62 * len(frames) + 0.5), layout="constrained", facecolor="white")
        panels = figure.subplots(len(frames), count, squeeze=False)
        for line, clip, values, name in zip(panels, frames, heat, names, strict=True):
            low, high = np.percentile(clip, [1, 99.5])
            which = np.linspace(0, len(clip), count, endpoint=False).astype(int)
            for axes, at in zip(line, which, strict=True):
                axes.imshow(clip[at], cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
                share = np.abs(values[at]) / most
                axes.imshow(values[at], cmap=colours, norm=norm, alpha=0.65 * share)  # where little is, the picture shows
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_title(f"frame {at + 1} of {len(clip)}", fontsize=7.5, pad=2)
            line[0].set_ylabel(name, fontsize=8)
        figure.suptitle(title, fontsize=10)
        bar = figure.colorbar(ScalarMappable(norm, colours), ax=panels, aspect=30, shrink=0.9)
        bar.set_label(label, fontsize=8.5)
        bar.ax.tick_params(labelsize=7.5)
        return save(figure, stem)
