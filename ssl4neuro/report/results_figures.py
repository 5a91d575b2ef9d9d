"""Figures of a results folder, each from the table that holds its numbers; what cannot be drawn is said in a sentence."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ssl4neuro.report import evidence_figures, figures
from ssl4neuro.report.calibration import brier, expected_calibration_error, reliability
from ssl4neuro.report.page import Figure, number, plural
from ssl4neuro.report.results_folder import Results, plain
from ssl4neuro.report.roc import Scored, subject_band
from ssl4neuro.report.verdict import interval

MOST_CURVES = 6  # of one-against-rest
FEW = "The calibration error of few predictions is above 0 by chance alone."


def estimate_figure(results: Results) -> Figure:
    """Every model beside the others, a panel per metric."""
    metrics = list(dict.fromkeys(row["metric"] for row in results.rows))
    first = [row for row in results.rows if row["metric"] == metrics[0]]
    told = "; ".join(f"{row['name']} {number(row['value'])} ({interval(row)})" for row in first)
    caption = "Estimate and 95 % interval over subjects; circles: embeddings, squares: baselines, dashed line: chance."
    alt = f"{metrics[0]} with 95 % interval of every model. {told}."
    return Figure("Embedding beside baselines", figures.estimates(results.rows, metrics), caption, wide=True, alt=alt)


def confusion_figures(results: Results) -> list[Figure]:
    """Of the embedding and of the best baseline."""
    tables, classes = results.record.get("confusion") or {}, results.classes
    found = []
    for name in dict.fromkeys(_pair(results)):
        counts = np.array(tables.get(name, []), dtype=np.float64)
        if classes and counts.shape == (len(classes), len(classes)):
            shown = "Colour: share of the true class; numbers: held-out predictions."
            right = ", ".join(f"{c} {counts[i, i]:.0f} of {counts[i].sum():.0f}" for i, c in enumerate(classes[:12]))
            alt = f"Confusion matrix of {name}; predicted correctly: {right}."
            found.append(Figure(f"Confusion, {name}", figures.confusion(counts, classes), shown, alt=alt))
    return found


def roc_figure(results: Results) -> list[Figure]:
    """ROC of held-out scores: the embedding with its band beside the best baseline, or one class against the rest."""
    classes = results.classes
    columns = [f"score {c}" for c in (classes[1:] if len(classes) == 2 else classes)]
    if not classes or len(classes) > MOST_CURVES or not set(columns) <= set(results.predictions):
        return []
    if len(classes) == 2:
        series = {name: scored(results.held_out(name), columns[0], classes[1]) for name in dict.fromkeys(_pair(results))}
    else:
        held = results.held_out(results.own["name"])
        series = {f"{c} against the rest": scored(held, column, c) for c, column in zip(classes, columns, strict=True)}
    seed = int(results.settings.get("seed") or 0)
    bands = {name: subject_band(repeats, seed=seed) for name, repeats in series.items() if repeats}
    if not bands:
        return []
    n = results.predictions["subject"].nunique()
    caption = f"Held-out scores of {plural(n, 'subject')}, pooled over folds; shaded: 95 % band over subjects, at each point."
    caption += f" Positive: {classes[1]}." if len(classes) == 2 else ""
    where = [10, 20, 50]
    told = "; ".join(f"{name} {', '.join(number(float(b.mean[i]), 2) for i in where)}" for name, b in bands.items())
    alt = f"ROC curves; sensitivity at 0.1, 0.2 and 0.5 false alarms: {told}."
    return [Figure("ROC", evidence_figures.roc_band(bands), caption, alt=alt)]


def scored(held: pd.DataFrame, column: str, positive: str) -> list[Scored]:
    """Scores of every repeat; empty where a repeat lacks scores, or one of the two classes."""
    found = []
    for _, part in held.groupby("repeat", sort=True) if "repeat" in held else [(0, held)]:
        score, hit = part[column].to_numpy(np.float64), (part["truth"] == positive).to_numpy(bool)
        if not np.isfinite(score).all() or hit.all() or not hit.any():
            return []
        found.append(Scored(score, hit, part["subject"].to_numpy(dtype=object).astype(str)))
    return found


def calibration_figure(results: Results) -> tuple[list[Figure], str]:
    """Reliability of the predicted probabilities, or why it is not shown."""
    classes = results.classes
    if not classes:
        return [], ""
    series, told = {}, []
    outcome = classes[1] if len(classes) == 2 else "the predicted class"
    for name in dict.fromkeys(_pair(results)):
        probability, hit, subject, repeat = _probabilities(results, name)
        if len(probability) < 2:
            continue
        series[name] = reliability(probability, hit, subject)
        parts = [repeat == r for r in np.unique(repeat)]
        scores = np.mean([brier(probability[p], hit[p]) for p in parts])
        guess = np.mean([brier(np.full(p.sum(), hit[p].mean()), hit[p]) for p in parts])
        error = np.mean([expected_calibration_error(probability[p], hit[p]) for p in parts])
        beside = f" (always the base rate: {number(float(guess))})" if len(classes) == 2 else ""
        told.append(f"{name}: Brier score {number(float(scores))}{beside}, expected calibration error {number(float(error))}")
    if not series:
        return [], "Calibration is not shown: the results hold no predicted probabilities."
    numbers = "; ".join(told) + "."
    caption = f"Bins of equal size; lines: 95 % interval over the subjects of a bin. {numbers} {FEW}"
    drawing = evidence_figures.reliability_diagram(series, outcome)
    return [Figure("Calibration", drawing, caption, alt=f"Reliability diagram of the probability of {outcome}. {numbers}")], ""


def site_figure(results: Results) -> list[Figure]:
    """The first metric on the held-out rows of every site."""
    table = results.tables.get("sites")
    if table is None:
        return []
    rows = [
        {**row, "label": f"{row['site']}{_n(row)}", "group": row["model"]}
        for row in _first_metric(results, table)
        if row["model"] in _pair(results)
    ]
    caption = "Held-out rows of each site; intervals over its subjects: few subjects, wide intervals."
    return forest_figure("Per site", rows, str(results.own["metric"]), caption, results.own.get("chance"))


def site_decodability_figure(results: Results) -> list[Figure]:
    """How well the site can be read from the features, before and after harmonisation."""
    table = results.tables.get("site_decodability")
    if table is None:
        return []
    rows = [{**row, "label": row["model"], "group": row["features"]} for row in map(plain, table.to_dict("records"))]
    metric = str(table["metric"].iloc[0])
    rows = [row for row in rows if row["metric"] == metric]
    chance = next((row["chance"] for row in rows if row.get("chance") is not None), None)
    caption = "How well the site can be told from the features of unseen subjects. At chance the probe cannot go by the site."
    return forest_figure("Site decodability", rows, metric, caption, chance)


def efficiency_figure(results: Results) -> list[Figure]:
    """The metric over the number of training subjects."""
    table = results.tables.get("label_efficiency")
    if table is None:
        return []
    table = table[table["metric"] == results.own["metric"]]
    series: dict[str, Mapping[str, Any]] = {}
    for name in dict.fromkeys(_pair(results)):
        part = table[table["model"] == name].dropna(subset=["value"])
        if not len(part):
            continue
        groups = part.groupby("fraction" if "fraction" in part else "n_train_subjects", sort=True)
        value = groups["value"]
        found = {"n": groups["n_train_subjects"].mean().round(), "mean": value.mean(), "low": value.min(), "high": value.max()}
        series[name] = {key: column.to_numpy(np.float64) for key, column in found.items()}
    if not series:
        return []
    points = {name: zip(s["n"], s["mean"], strict=True) for name, s in series.items()}
    told = "; ".join(f"{name}: {', '.join(f'{m:.2f} with {n:.0f}' for n, m in pairs)}" for name, pairs in points.items())
    metric = str(results.own["metric"])
    caption = "Mean over random subsets of the training subjects, on the same test subjects; shaded: lowest to highest subset."
    drawing = evidence_figures.efficiency(series, metric, chance=results.own.get("chance"))
    return [Figure("Label efficiency", drawing, caption, alt=f"{metric} by number of training subjects. {told}.")]


def _pair(results: Results) -> list[str]:
    """The embedding that the report is about, and the best baseline."""
    best = results.best_baseline
    return [str(results.own["name"]), *([str(best["name"])] if best is not None else [])]


def _first_metric(results: Results, table: pd.DataFrame) -> list[dict[str, Any]]:
    return [row for row in map(plain, table.to_dict("records")) if row["metric"] == results.own["metric"]]


def _n(row: Mapping[str, Any]) -> str:
    return f" (n = {row['n_subjects']:.0f})" if row.get("n_subjects") else ""


def forest_figure(
    title: str, rows: list[dict[str, Any]], metric: str, caption: str, chance: float | None = None
) -> list[Figure]:
    """An interval per label and group; nothing without rows."""
    if not rows:
        return []
    told = "; ".join(f"{row['label']}, {row['group']}: {number(row['value'], 2)} ({interval(row)})" for row in rows[:40])
    drawing = evidence_figures.forest(rows, metric, chance=chance)
    return [Figure(title, drawing, caption, alt=f"{title}: {metric} with 95 % interval. {told}.")]


def _probabilities(results: Results, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Probability, whether it came true, subject and repeat, of rows that have one."""
    held, classes = results.held_out(name), results.classes
    columns = [f"probability {c}" for c in classes]
    if len(classes) == 2 and columns[1] in held:
        value, hit = held[columns[1]].to_numpy(np.float64), (held["truth"] == classes[1]).to_numpy(bool)
    elif len(classes) > 2 and set(columns) <= set(held):
        every = held[columns].to_numpy(np.float64)
        value = every.max(1)
        chosen = np.array(classes, dtype=object)[np.nan_to_num(every, nan=-1.0).argmax(1)]
        hit = chosen == held["truth"].to_numpy(dtype=object)
    else:
        return (np.zeros(0), np.zeros(0, bool), *(np.zeros(0, dtype=object),) * 2)
    good = np.isfinite(value)
    repeat = held["repeat"].to_numpy() if "repeat" in held else np.zeros(len(held), dtype=np.int64)
    return value[good], hit[good], held["subject"].to_numpy(dtype=object).astype(str)[good], repeat[good]
