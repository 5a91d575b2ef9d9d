"""Figure of label efficiency: performance by the number of training subjects, embeddings beside baselines."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from ssl4neuro.evaluate.figures import CHANCE

if TYPE_CHECKING:
    from ssl4neuro.evaluate.probe import ProbeResult

OWN = ("#0b5fa5", "#d17b00", "#2a7f3f", "#8e3b8a", "#00808a", "#9c4f2b")
GREYS = ("#2b2b2b", "#6b6b6b", "#9a9a9a")
MARKERS = "osD^vP"
CLOSEST = 1.25  # ratio of two labelled numbers of subjects on the axis


def efficiency_figure(result: "ProbeResult", path: Path) -> None:
    """First metric of the result: mean over draws, band of one standard deviation, logarithmic axis of training subjects."""
    table = result.tables["label_efficiency"]
    metric = result.rows[0].metric
    table = table[(table["metric"] == metric) & table["value"].notna()]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    styles = {False: iter(range(10**6)), True: iter(range(10**6))}
    for (model, baseline), lines in table.groupby(["model", "baseline"], sort=False):
        _curve(axes, lines, str(model), bool(baseline), next(styles[bool(baseline)]))
    first = result.rows[0]
    if first.chance is not None:
        axes.axhline(first.chance, color=CHANCE, linestyle="--", linewidth=1, label="chance")
    axes.set_xscale("log")
    _ticks(axes, sorted(table["n_train_subjects"].unique().tolist()))
    axes.set_xlabel("training subjects (mean over folds, logarithmic)")
    axes.set_ylabel(f"{metric}, {first.n_subjects} held-out subjects")
    axes.set_title(f"{result.target}: mean ± SD over {int(table['repeat'].max()) + 1} draws of training subjects", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def _curve(axes: Axes, lines: pd.DataFrame, model: str, baseline: bool, number: int) -> None:
    values = lines.groupby("n_train_subjects")["value"].agg(["mean", "std"]).fillna(0.0)
    colours = GREYS if baseline else OWN
    colour, marker = colours[number % len(colours)], MARKERS[number % len(MARKERS)]
    style = ("--", ":", "-.")[number % 3] if baseline else "-"
    axes.plot(values.index, values["mean"], style, marker=marker, color=colour, markersize=4, linewidth=1.6, label=model)
    if not baseline or number == 0:  # bands of every baseline would hide each other
        axes.fill_between(
            values.index, values["mean"] - values["std"], values["mean"] + values["std"], color=colour, alpha=0.15, linewidth=0
        )


def _ticks(axes: Axes, sizes: list[int]) -> None:
    """The sizes themselves, as far as their labels do not run into each other."""
    shown = sizes[-1:]
    for size in reversed(sizes[:-1]):
        if shown[0] / size >= CLOSEST:
            shown.insert(0, size)
    axes.set_xticks(shown, [str(size) for size in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
