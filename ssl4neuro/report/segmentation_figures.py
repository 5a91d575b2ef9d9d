"""Figures of a segmentation report: learning curves, overlap beside baselines, volumes, detection, curves by fold, cases."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from ssl4neuro.evaluate.segmentation_figures import HEADLINE, LearningCurve, draw_learning_curves, learning_curves
from ssl4neuro.report import figures
from ssl4neuro.report.folder import read_tsv
from ssl4neuro.report.log import curve, run_figures
from ssl4neuro.report.page import Figure, number, plural
from ssl4neuro.report.segmentation_run import POSITIVES, SegmentationRun, Training, place, size

MOST_PICTURES = 12
MOST_BYTES = 3_600_000  # of all pictures; base64 adds a third, and the page stays below 6 MB
MOST_MOVING = 2_000_000  # bytes of an animation
MOST_CURVES = 6  # in one figure
UNITS = {"mm2": "mm²", "cm2": "cm²", "px": "pixels"}


def result_figures(run: SegmentationRun) -> list[Figure]:
    """What was found."""
    return [*_learning(run), *_overlap(run), *_agreement(run), *_detection(run)]


def training_figures(run: SegmentationRun) -> list[Figure]:
    """How the training went: everything of a single one, loss and validation of several on top of each other."""
    logged = [training for training in run.trainings if len(training.log)]
    if len(logged) == 1:
        return run_figures(logged[0].log, logged[0].best)
    most = [t for t in logged if t.path.parent == logged[-1].path.parent][:MOST_CURVES]
    found = []
    for title, split, column, ylabel in (
        ("Training loss", "train", "loss", "total loss"),
        ("Validation loss", "validation", "loss", "total loss"),
        ("Validation score", "validation", "signal", "score that chose the checkpoint"),
    ):
        found += _together(most, title, split, column, ylabel, len(logged))
    return found


def _together(trainings: Sequence[Training], title: str, split: str, column: str, ylabel: str, n: int) -> list[Figure]:
    curves = {t.name: points for t in trainings if (points := curve(t.log, split, column)) is not None}
    if not curves:
        return []
    left = f"The last {len(trainings)} of {n} trainings." if len(trainings) < n else "One line per training."
    return [Figure(title, figures.curves(curves, ylabel), left)]


def _learning(run: SegmentationRun) -> list[Figure]:
    """Dice over training patients, of runs with few labels."""
    found = learning_curves(sorted(run.rows, key=lambda row: run.structures.index(str(row["structure"]))))
    if not found:
        return []
    phases = len({curve.phase for curve in found})
    with mpl.rc_context(figures.SETTINGS):
        canvas = Canvas(figsize=(3.4 * phases + 1, 3.4), layout="constrained")
        draw_learning_curves(canvas, found, figures.SERIES)
        svg = figures.svg(canvas)
    what = HEADLINE[found[0].metric]
    caption = (
        f"{what}: mean and 95 % interval over test patients, by the number of patients that the head was trained on "
        "(logarithmic axis). The interval does not show how much depends on which patients these were."
    )
    alt = f"Learning curves: {what} with 95 % interval by training patients. {' '.join(map(_told, found))}"
    return [Figure("Dice by number of training patients", svg, caption, wide=phases > 1, alt=alt)]


def _told(curve: LearningCurve) -> str:
    """`MVO, ED, n = 12: 0.31 (0.22 to 0.40) with 2 patients, 0.52 (0.41 to 0.60) with 5 patients.`"""
    where = ", ".join(filter(None, (curve.name, curve.phase, f"n = {curve.n_patients}")))
    numbers = [
        f"{number(value, 2)} ({number(low, 2)} to {number(high, 2)}) with {plural(count, 'patient')}"
        for count, value, low, high in curve.points
    ]
    return f"{where}: {', '.join(numbers)}."


def _overlap(run: SegmentationRun) -> list[Figure]:
    rows = run.select("dice", convention=POSITIVES)
    if not rows:
        return []
    ordered = sorted(rows, key=lambda row: (bool(row.get("baseline")), run.structures.index(row["structure"])))
    shown = [{**row, "name": row["model"], "metric": place(row)} for row in ordered]
    panels = list(dict.fromkeys(place(row) for row in sorted(rows, key=lambda row: run.structures.index(row["structure"]))))
    told = "; ".join(f"{row['model']}, {place(row)}: {number(row['value'], 2)} ({interval(row)})" for row in ordered)
    sizes = {place(row): size(row) for row in reversed(ordered)}
    counted = "; ".join(f"{panel}: {sizes[panel]}" for panel in panels)
    caption = (
        "Mean Dice of the scans that show the structure, with 95 % interval over patients; circles: trained here, squares: "
        f"baselines. {counted}."
    )
    parts = [panels[i : i + 3] for i in range(0, len(panels), 3)]  # more of them side by side could not be read
    return [
        Figure(
            "Dice beside baselines" if i == 0 else "Dice, continued",
            figures.estimates([row for row in shown if row["metric"] in part], part),
            caption if i == len(parts) - 1 else "",
            wide=True,
            alt=f"Dice with 95 % interval. {told}.",
        )
        for i, part in enumerate(parts)
    ]


def _agreement(run: SegmentationRun) -> list[Figure]:
    """Bland-Altman, a figure per structure and phase."""
    found = []
    for bias in sorted(run.select("volume_bias"), key=lambda row: run.structures.index(row["structure"])):
        table = run.patients
        if bias["model"] != run.own or not {"volume", "volume_true", "model"} <= set(table):
            continue
        phase = str(bias.get("phase") or "")
        table = table[(table["model"] == run.own) & (table["structure"] == bias["structure"])]
        table = table[table["phase"] == phase] if "phase" in table else table
        table = table[table["volume_unit"] == bias["measure_unit"]] if "volume_unit" in table else table
        low, high = (_same(run, bias, f"volume_limit_{end}") for end in ("low", "high"))
        lines = {"bias": bias["value"], "−1.96 sd": low, "+1.96 sd": high}
        lines = {name: float(value) for name, value in lines.items() if value is not None}
        if not len(table):
            continue
        unit = UNITS.get(str(bias["measure_unit"]), str(bias["measure_unit"]))
        difference = (table["volume"] - table["volume_true"]).to_numpy(np.float64)
        mean = (table["volume"] + table["volume_true"]).to_numpy(np.float64) / 2
        told = ", ".join(f"{name} {number(value, 2)} {unit}" for name, value in lines.items())
        caption = f"Bland-Altman, {plural(bias['n_patients'], 'patient')}; solid: bias, dashed: 95 % limits of agreement."
        alt = f"Bland-Altman plot of the volume of {place(bias)}, {plural(len(table), 'point')}. {told}."
        found.append(Figure(f"Volume of {place(bias)}", figures.agreement(mean, difference, lines, unit), caption, alt=alt))
    return found


def _same(run: SegmentationRun, row: Any, metric: str) -> float | None:
    """Another number of the same model, structure and phase."""
    keys = ("model", "structure", "phase")
    return next((r["value"] for r in run.rows if r["metric"] == metric and all(r.get(k) == row.get(k) for k in keys)), None)


def _detection(run: SegmentationRun) -> list[Figure]:
    """ROC of the lesion by scan and by patient, the own model beside baselines that give scores."""
    found = []
    for unit, table in (("scan", run.scans), ("patient", run.patients)):
        rows = [row for row in run.select("auc", unit=unit) if row["model"] == run.own or row.get("baseline")]
        series, told = {}, []
        for row in sorted(rows, key=lambda row: bool(row.get("baseline"))):
            own = _lines_of(table, row)
            if own is None or own["score"].nunique() < 2 or row.get("phase") != rows[0].get("phase"):
                continue
            name = f"{row['model']}\nAUC {number(row['value'], 2)} ({interval(row)})"
            series[name] = (own["score"].to_numpy(np.float64), own["positive"].to_numpy(bool))
            told.append(name.replace("\n", ": "))
        if series:
            what, n = place(rows[0]), rows[0]["n_units"]
            caption = f"By {unit}, n = {n}. AUC with 95 % interval over patients."
            alt = f"ROC curves of the detection of {what} by {unit}. {'; '.join(told)}."
            found.append(Figure(f"Detection of {what} by {unit}", figures.roc(series), caption, alt=alt))
    return found


def _lines_of(table: pd.DataFrame, row: Any) -> pd.DataFrame | None:
    if not {"model", "structure", "score", "positive"} <= set(table):
        return None
    own = table[(table["model"] == row["model"]) & (table["structure"] == row["structure"])]
    own = own[own["phase"] == str(row.get("phase") or "")] if "phase" in own else own
    own = own[own["score"].notna()]
    return own if len(own) else None


def gallery(run: SegmentationRun) -> tuple[list[Figure], str]:
    """Pictures of cases in the order of their index, as many as keep the page light, the first animation, and a remark."""
    index = read_tsv(run.overlays / "index.tsv")
    if not len(index) or "file" not in index:
        files = sorted(run.overlays.glob("*.png")) if run.overlays.is_dir() else []
        index = pd.DataFrame({"file": [file.name for file in files]})
    figures_, room, moving, stills = [], MOST_BYTES, False, 0
    for line in index.to_dict("records"):
        for name in dict.fromkeys((str(line.get("file") or ""), str(line.get("animation") or ""))):
            file = run.overlays / Path(name).name
            if not name or not file.is_file():
                continue
            animated, bytes_ = file.suffix == ".gif", file.stat().st_size
            full = moving or bytes_ > MOST_MOVING if animated else stills >= MOST_PICTURES
            if full or bytes_ > room:
                continue
            room, moving, stills = room - bytes_, moving or animated, stills + (not animated)
            figures_.append(_case(line, file, animated))
    total = sum(file.suffix == ".png" for file in run.overlays.glob("*")) if run.overlays.is_dir() else 0
    note = (
        "Solid lines: predicted, a colour per class. Dashed white: reference. Missed ones and false alarms come first; where "
        "there is room, some of the best follow."
    )
    left = f" {stills} of {total} pictures; the others lie in {run.overlays.name}/." if total > stills else ""
    return figures_, note + left if figures_ else ""


def _case(line: dict[Any, Any], file: Path, animated: bool) -> Figure:
    where = ", ".join(_words(line, key) for key in ("subject", "session", "slice", "frame") if _words(line, key))
    why = str(line.get("why") or "Case")
    title = f"{why[:1].upper()}{why[1:]}" + (", whole clip" if animated else "")
    told = ". ".join(filter(None, (where, str(line.get("note") or ""))))
    shown = (
        "All frames in turn with the contours of the segmented one"
        if animated
        else "The segmented frame as acquired and with contours, its uncertainty, and other phases of the clip"
    )
    return Figure(title, caption=told, wide=not animated, picture=file.read_bytes(), alt=f"{title}. {told}. {shown}.")


def _words(line: dict[Any, Any], key: str) -> str:
    value = line.get(key)
    if value is None or value == "" or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    return str(value) if key in ("subject", "session") else f"{key} {int(value)}"


def interval(row: Any, digits: int = 2) -> str:
    """`0.31 to 0.52`, a dash where there is none."""
    low, high = row.get("ci_low"), row.get("ci_high")
    return "–" if low is None or high is None else f"{number(low, digits)} to {number(high, digits)}"
