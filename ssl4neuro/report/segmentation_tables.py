"""Tables of a segmentation report: models side by side, every number, patients, and who trained what."""

from typing import Any

import pandas as pd

from ssl4neuro.report.page import Table, number
from ssl4neuro.report.segmentation_figures import UNITS, interval
from ssl4neuro.report.segmentation_run import POSITIVES, Row, SegmentationRun

POOLED = "pooled, 0/0 = 1"
MAIN = (  # metric, unit, heading; what a reader asks first
    ("dice", "scan", "Dice"),
    ("dice_3d", "patient", "Dice 3-D"),
    ("hd95", "scan", "HD95"),
    ("sensitivity", "patient", "sensitivity"),
    ("specificity", "patient", "specificity"),
    ("auc", "patient", "AUC"),
)
EXACT = (
    "model", "baseline", "structure", "phase", "metric", "value", "ci_low", "ci_high", "measure_unit", "unit", "n_patients",
    "n_units", "dropped", "convention",
)  # fmt: skip
PATIENT = (
    "structure",
    "phase",
    "subject",
    "session",
    "run",
    "view",
    "positive",
    "detected",
    "dice_3d",
    "volume_true",
    "volume",
    "score",
)


def results_table(run: SegmentationRun) -> Table:
    """A line per structure, phase and model, the own model first; the pooled convention stays out of it."""
    rows = [row for row in run.rows if row["convention"] != POOLED]
    found = {(row["model"], row["structure"], row.get("phase") or "", row["metric"], row["unit"]): row for row in rows}
    columns = [
        (m, u, title)
        for m, u, title in MAIN
        if any(key[3:] == (m, u) and row["value"] is not None for key, row in found.items())
    ]
    lines = sorted({key[:3]: None for key in found}, key=lambda key: _order(run, key))
    cells, exact = [], []
    for line in lines:
        own = [found.get((*line, metric, unit)) for metric, unit, _ in columns]
        first = next((row for row in own if row is not None), None)
        if first is None:
            continue
        cells.append((_model(run, line[0]), line[1], line[2] or "–", _n(own), *(_cell(row) for row in own)))
        exact.append(_exact(line, columns, own))
    headings = ("model", "structure", "phase", "n", *(title for _, _, title in columns))
    keep = [i for i, heading in enumerate(headings) if heading != "phase" or any(line[2] for line in lines)]
    shown = tuple(tuple(row[i] for i in keep) for row in cells)
    note = (
        "Value and 95 % interval, bootstrap of patients. Dice and HD95: scans that show the structure (n: patients / scans);"
        " Dice 3-D: patients who have it; sensitivity, specificity and AUC: by patient."
    )
    emphasis = tuple(i for i, line in enumerate(lines) if line[0] == run.own)
    return Table("Results", tuple(headings[i] for i in keep), shown, "results", note, emphasis, tuple(exact))


def numbers_table(run: SegmentationRun) -> Table:
    """Every number with what is needed to read it, models side by side, the pooled convention last."""
    asked = list(dict.fromkeys(_asked(row) for row in run.rows))
    rows = sorted(
        run.rows,
        key=lambda row: (
            row["convention"] == POOLED,
            run.structures.index(row["structure"]),
            asked.index(_asked(row)),
            _rank(run, row["model"]),
        ),
    )
    cells = [
        (
            _model(run, row["model"]), row["structure"], row.get("phase") or "–", row["metric"].replace("_", " "),
            number(row["value"]), interval(row, 3), UNITS.get(str(row.get("measure_unit")), row.get("measure_unit") or "–"),
            row["convention"], row["unit"], row["n_units"], row["n_patients"], row.get("dropped", 0),
        )
        for row in rows
    ]  # fmt: skip
    columns = (
        "model", "structure", "phase", "metric", "value", "95 % CI", "in", "over", "unit", "n", "patients", "dropped",
    )  # fmt: skip
    note = "Unit: what was averaged; n: how many; dropped: for which the number is undefined. Intervals: bootstrap of patients."
    own = tuple(i for i, row in enumerate(rows) if row["model"] == run.own)
    exact = tuple({key: row.get(key) for key in EXACT} for row in rows)
    return Table("Every number", columns, tuple(cells), "numbers", note, own, exact, folded=True)


def patients_table(run: SegmentationRun) -> Table:
    """A line per patient, of the own model."""
    table = run.patients[run.patients["model"] == run.own] if "model" in run.patients else run.patients
    columns = [column for column in PATIENT if column in table and (table[column].astype(str) != "").any()]
    units = sorted(set(table["volume_unit"])) if "volume_unit" in table else []
    titles = [_heading(column, units) for column in columns]
    rows = tuple(tuple(_plain(row[c]) for c in columns) for row in table.to_dict("records"))
    exact = tuple({c: row[c] for c in table.columns} for row in table.to_dict("records"))
    note = "Names as in the cohort: look at them before this page is passed on."
    return Table("Patients", tuple(titles), rows, "patients", note, exact=exact, folded=True)


def splits_table(run: SegmentationRun) -> Table:
    """How many subjects trained, validated and tested each training."""
    trainings = [t for t in run.trainings if t.split]
    parts = list(dict.fromkeys(name for t in trainings for name in t.split))
    rows = tuple(
        (t.name or "the only one", *(t.split.get(name, 0) for name in parts), sum(t.split.values())) for t in trainings
    )
    titles = ("training", *("tested on" if name == "holdout" else name for name in parts), "subjects")
    return Table("Subjects", titles, rows, "subjects", "Counts only; the names are in split.json.")


def _order(run: SegmentationRun, line: tuple[str, str, str]) -> tuple[Any, ...]:
    model, structure, phase = line
    phases = list(dict.fromkeys(str(row.get("phase") or "") for row in run.rows))
    return run.structures.index(structure), phases.index(phase), _rank(run, model)


def _rank(run: SegmentationRun, model: str) -> tuple[int, int]:
    """The own model, other trained ones, baselines; otherwise as they come."""
    names = list(dict.fromkeys(row["model"] for row in run.rows))
    return (0 if model == run.own else 2 if _baseline(run, model) else 1), names.index(model)


def _baseline(run: SegmentationRun, model: str) -> bool:
    return any(row["model"] == model and row.get("baseline") for row in run.rows)


def _model(run: SegmentationRun, model: str) -> str:
    return f"{model} (baseline)" if _baseline(run, model) else model


def _asked(row: Row) -> tuple[str, ...]:
    return str(row["structure"]), str(row.get("phase") or ""), str(row["unit"]), str(row["metric"]), str(row["convention"])


def _n(rows: list[Row | None]) -> str:
    """Of the scans that show the structure."""
    row = next((r for r in rows if r is not None and r["convention"] == POSITIVES and r["unit"] == "scan"), None)
    return "–" if row is None else f"{row['n_patients']} / {row['n_units']}"


def _cell(row: Row | None) -> str:
    if row is None or row["value"] is None:
        return "–"
    digits = 1 if row.get("measure_unit") else 2
    unit = UNITS.get(str(row.get("measure_unit")), str(row.get("measure_unit") or ""))
    inner = "" if row.get("ci_low") is None else f"\n({interval(row, digits)})"
    return f"{number(row['value'], digits)}{' ' + unit if unit else ''}{inner}"


def _exact(line: tuple[str, str, str], columns: list[tuple[str, str, str]], rows: list[Row | None]) -> dict[str, Any]:
    found: dict[str, Any] = dict(zip(("model", "structure", "phase"), line, strict=True))
    for (metric, unit, _), row in zip(columns, rows, strict=True):
        for key in ("value", "ci_low", "ci_high", "n_units", "n_patients"):
            found[f"{metric}_{unit}_{key}"] = None if row is None else row.get(key)
    return found


def _heading(column: str, units: list[str]) -> str:
    unit = f" [{', '.join(UNITS.get(u, u) for u in units)}]" if column in ("volume", "volume_true") and units else ""
    names = {"volume": "volume, predicted", "volume_true": "volume, reference", "dice_3d": "Dice 3-D", "positive": "has it"}
    return f"{names.get(column, column)}{unit}"


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if pd.isna(value) else number(value, 2)
    return value
