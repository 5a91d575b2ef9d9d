"""Figures of a network-state study: AUCs, ROC and calibration per network, recovery, and a map of held-out subjects."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from ssl4neuro.evaluate.baselines import NUISANCE_ONLY
from ssl4neuro.evaluate.network_state.baselines import COMPACT
from ssl4neuro.evaluate.network_state.cells import Cells, make_cells
from ssl4neuro.evaluate.network_state.fold import LOGISTIC
from ssl4neuro.evaluate.network_state.items import WHOLE
from ssl4neuro.report import evidence_figures
from ssl4neuro.report.calibration import reliability
from ssl4neuro.report.drawing import BASELINE, OTHER, OWN, SERIES, SETTINGS, Drawing, svg
from ssl4neuro.report.embedding_map import CAVEAT, EXACT, LEAST, tsne
from ssl4neuro.report.network_state_folder import StudyFolder
from ssl4neuro.report.page import Figure, number, plural
from ssl4neuro.report.roc import Scored, subject_band
from ssl4neuro.report.verdict import interval

CURVES = 6  # lines in one panel
MOST = EXACT
MARKS = ("o", "^")


def auc_figure(folder: StudyFolder) -> Figure:
    """Every network and the whole brain: the study's model, the same features in a linear model, and the main baselines."""
    rows = [
        {**row, "label": row["network"], "group": row["model"]}
        for row in folder.rows
        if row["metric"] == "AUC" and row["model"] in (folder.model, LOGISTIC, COMPACT, NUISANCE_ONLY)
    ]
    drawing = evidence_figures.forest(rows, f"AUC of '{folder.after}'", chance=0.5)
    own = [f"{r['network']} {number(r['value'])} ({interval(r)})" for r in rows if r["model"] == folder.model]
    caption = "Held-out subjects; 95 % interval over subjects, the models fixed. Grey: no encoder. All models are in the table."
    return Figure("AUC per network", drawing, caption, wide=True, alt=f"AUC of {folder.model}: {'; '.join(own)}.")


def roc_figure(folder: StudyFolder) -> list[Figure]:
    """ROC curves of the networks, and of the whole brain with its band."""
    seed = int(folder.record["settings"].get("seed") or 0)
    names = [WHOLE, *folder.networks][:CURVES]
    bands = {name: subject_band(_scored(_cells(folder, name)), seed=seed) for name in names}
    caption = f"Calibrated held-out scores pooled over folds; positive: {folder.after}. Shaded: 95 % band of the whole brain."
    told = "; ".join(f"{name} {number(float(band.mean[20]), 2)}" for name, band in bands.items())
    return [
        Figure(
            "ROC per network", evidence_figures.roc_band(bands), caption, alt=f"ROC; sensitivity at 0.2 false alarms: {told}."
        )
    ]


def calibration_figure(folder: StudyFolder) -> list[Figure]:
    """Reliability of the calibrated probabilities: all networks' cells together, and the whole brain."""
    every = [_cells(folder, name) for name in folder.networks]
    series = {"networks of a scan": every, WHOLE: [_cells(folder, WHOLE)]}
    drawn = {}
    for name, cells in series.items():
        p, y, subject = (
            np.concatenate([np.ravel(part, order="F") for part in parts])
            for parts in zip(
                *[(c.probability, _repeated(c, c.y), _repeated(c, c.scans["subject"])) for c in cells], strict=True
            )
        )
        drawn[name] = reliability(p, y == 1, subject.astype(str))
    told = "; ".join(
        f"{n} Brier {_value(folder, n, 'Brier')}, ECE {_value(folder, n, 'ECE')}" for n in [*folder.networks, WHOLE]
    )
    caption = f"Platt calibration fitted on inner folds. Bins of equal size, intervals over subjects. {told}."
    drawing = evidence_figures.reliability_diagram(drawn, folder.after)
    return [Figure("Calibration", drawing, caption, alt=f"Reliability of the probability of {folder.after}. {told}.")]


def recovery_figure(folder: StudyFolder) -> list[Figure]:
    """Paired lines from the earlier to the later scan in every network, and the mean change with its interval."""
    table, names = folder.recovery, [*folder.networks, WHOLE]
    names = [name for name in names if (table["network"] == name).any()]
    if not names:
        return []
    means = {row["network"]: row for row in folder.record["mean_recovery"]}
    told = "; ".join(f"{name} {number(means[name]['value'], 2)} ({interval(means[name])})" for name in names)
    n = max(int(means[name]["n_subjects"]) for name in names)
    caption = (
        f"One line per subject ({plural(n, 'subject')} with both states), blue where the probability of '{folder.after}' rises."
        f" Thick: mean. Recovery score (later minus earlier) with 95 % interval over subjects: {told}. No controls were"
        " scanned, so there is no norm: a score tells how far a network moved along the axis learned from other patients, not"
        " whether it is healthy."
    )
    lines = _paired_lines(table, names, (folder.before, folder.after))
    rows: list[dict[str, Any]] = [{**means[name], "label": name, "group": "mean recovery score"} for name in names]
    forest = evidence_figures.forest(rows, "recovery score (change of probability)", chance=0.0)
    return [
        Figure(
            "Recovery scores, subject by subject",
            lines,
            caption,
            wide=True,
            alt=f"Probability before and after. Mean change: {told}.",
        ),
        Figure("Mean recovery score", forest, "95 % bootstrap interval over subjects.", alt=f"Mean recovery score: {told}."),
    ]


def _paired_lines(table: pd.DataFrame, names: list[str], states: tuple[str, str]) -> Drawing:
    with mpl.rc_context(SETTINGS):
        canvas = Canvas(figsize=(1.45 * len(names) + 0.6, 2.6), layout="constrained")
        for axes, name in zip(canvas.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
            own = table[table["network"] == name]
            for low, high in own[["before", "after"]].to_numpy(dtype=np.float64):
                rises = high > low
                axes.plot(
                    [0, 1],
                    [low, high],
                    color=OWN if rises else OTHER,
                    linestyle="-" if rises else "--",
                    linewidth=0.7,
                    alpha=0.55,
                )
            axes.plot(
                [0, 1], own[["before", "after"]].mean().to_numpy(), color="#222222", linewidth=2.6, marker="o", markersize=4
            )
            axes.set_xticks([0, 1], states)
            axes.set_xlim(-0.25, 1.25)
            axes.set_ylim(-0.02, 1.02)
            axes.set_title(name, fontsize=8.5)
            axes.grid(axis="x", visible=False)
        canvas.supylabel(f"probability of '{states[1]}'", fontsize=8.5)
        return svg(canvas)


def map_figure(folder: StudyFolder) -> tuple[list[Figure], str]:
    """t-SNE of the held-out components of one fold, or why it is left out."""
    table = folder.embeddings
    if not len(table):
        return [], "The map of embeddings is left out: embeddings.parquet is missing."
    sizes = table.groupby(["repeat", "fold"]).size()
    repeat, fold = sizes.index.to_frame().to_numpy(dtype=int)[int(sizes.to_numpy().argmax())].tolist()
    own = table[(table["repeat"] == repeat) & (table["fold"] == fold)]
    if len(own) < LEAST:
        return [], f"The map of embeddings is left out: {plural(len(own), 'point')} of held-out subjects are too few."
    if len(own) > MOST:
        own = own.iloc[np.sort(np.random.default_rng(0).choice(len(own), MOST, replace=False))]
    xy = tsne(np.stack(own["embedding"].to_list()).astype(np.float32), int(folder.record["settings"].get("seed") or 0))
    drawing = _map(xy, own["network"].to_numpy(dtype=str), own["state"].to_numpy(dtype=str), (folder.before, folder.after))
    n = own["subject"].nunique()
    caption = (
        f"{plural(len(own), 'component')} of the {plural(n, 'subject')} that fold {fold + 1} (repeat {repeat + 1}) held out;"
        f" its encoder has seen none of them. Encoders of different folds have different spaces, so one is shown. {CAVEAT}"
    )
    marks = f"colours are networks, circles {folder.before}, triangles {folder.after}"
    alt = f"t-SNE map of {plural(n, 'held-out subject')}: {marks}. {CAVEAT}"
    return [Figure("Held-out embeddings of one fold", drawing, caption, alt=alt)], ""


def _map(xy: np.ndarray, network: np.ndarray, state: np.ndarray, states: tuple[str, str]) -> Drawing:
    with mpl.rc_context(SETTINGS):
        canvas = Canvas(figsize=(4.6, 3.8), layout="constrained")
        axes = canvas.subplots()
        for i, name in enumerate(np.unique(network)):
            for value, marker in zip(states, MARKS, strict=True):
                rows = (network == name) & (state == value)
                colour = SERIES[i % len(SERIES)]
                face = "none" if marker == MARKS[0] else colour
                axes.scatter(xy[rows, 0], xy[rows, 1], s=22, marker=marker, facecolors=face, edgecolors=colour)
            axes.plot([], [], "s", color=SERIES[i % len(SERIES)], label=name, markersize=5)
        axes.plot([], [], MARKS[0], color=BASELINE, fillstyle="none", label=states[0], markersize=5)
        axes.plot([], [], MARKS[1], color=BASELINE, label=states[1], markersize=5)
        canvas.legend(frameon=False, fontsize=7.5, loc="outside right upper")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        return svg(canvas)


def _cells(folder: StudyFolder, network: str) -> Cells:
    scores = folder.scores
    return make_cells(scores[(scores["model"] == folder.model) & (scores["network"] == network)], folder.after)


def _scored(cells: Cells) -> list[Scored]:
    subject = cells.scans["subject"].to_numpy(dtype=str)
    return [Scored(z, cells.y == 1, subject) for z in cells.logit.T]


def _repeated(cells: Cells, values: Any) -> np.ndarray:
    return np.tile(np.asarray(values)[:, None], (1, cells.logit.shape[1]))


def _value(folder: StudyFolder, network: str, metric: str) -> str:
    row = folder.row(network, metric)
    return number(None if row is None else row["value"], 2)
