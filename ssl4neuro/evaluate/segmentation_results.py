"""A results folder of segmentation: results.json, scans.tsv, patients.tsv, tables and figures, there whole or not at all."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from ssl4neuro.atomic import new_folder
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.results import FORMAT, VERSION
from ssl4neuro.evaluate.segmentation import ALWAYS_EMPTY, SegmentationRow, patients
from ssl4neuro.evaluate.segmentation_figures import (
    UNITS,
    detection_figure,
    learning_curve,
    overlap_figure,
    place,
    volume_figure,
)

BESIDE = ("settings", "notes", "stamp", "source")  # of a record, what is not a setting
POOLED = "pooled, 0/0 = 1"
METHOD = (
    "Dice, Jaccard, surface distances (hd95: 95th percentile, hsd: maximum), precision and recall are means over the scans that"
    " show the structure; dropped: scans without defined value (a distance to an empty mask, the precision of one)."
    " dice_3d: all slices of a patient together, patients who have the structure. Sensitivity and specificity: is any pixel"
    " predicted; AUC: by the highest 3 × 3 mean of the probability. Volume: predicted minus true, limits of agreement are"
    " bias ± 1.96 sd. Interval: 95 %, bootstrap of patients."
)
CAUTION = (
    f"The pooled convention counts an empty prediction on a scan without lesion as Dice 1, so that the model '{ALWAYS_EMPTY}'"
    " scores the share of such scans; it ranks models by how rarely they fire."
)
SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...], bool], ...] = (  # title, (unit, metric), of the pooled convention
    ("overlap, positives only", (("scan", "dice"), ("patient", "dice_3d"), ("scan", "jaccard")), False),
    ("where it is, positives only", (("scan", "hd95"), ("scan", "precision"), ("scan", "recall")), False),
    ("detection by scan", (("scan", "sensitivity"), ("scan", "specificity"), ("scan", "auc")), False),
    ("detection by patient", (("patient", "sensitivity"), ("patient", "specificity"), ("patient", "auc")), False),
    ("false alarms, negatives only", (("scan", "false_positive_area"),), False),
    ("volume by patient", tuple(("patient", f"volume_{m}") for m in ("bias", "limit_low", "limit_high", "correlation")), False),
    (f"pooled convention (0/0 = 1), readable only beside '{ALWAYS_EMPTY}'", (("scan", "dice"),), True),
)


def write_segmentation_results(
    out: Path, scans: pd.DataFrame, rows: Sequence[SegmentationRow], *, record: Mapping[str, Any]
) -> Path:
    """Write the folder atomically, in the place of an older one.

    Args:
        scans, rows: what `summarise` takes and gives.
        record: JSON-ready: `settings`, `source`, `notes` (texts), `stamp` (a warning said of every number, e.g. that subjects
            were seen in pretraining); whatever else it holds is a setting too.

    Raises:
        UserError: the disk is full or not writable.
    """
    stacks = patients(scans)
    pooled = [row.structure for row in rows if row.convention == POOLED]
    with new_folder(Path(out), replace=True) as folder:
        text = json.dumps(results_record(rows, record), indent=1, allow_nan=False)
        (folder / "results.json").write_text(text, encoding="utf-8")
        scans.to_csv(folder / "scans.tsv", sep="\t", index=False)
        stacks.to_csv(folder / "patients.tsv", sep="\t", index=False)
        pd.DataFrame([asdict(row) for row in rows]).to_csv(folder / "table.csv", index=False)
        (folder / "table.md").write_text(markdown(rows, record), encoding="utf-8")
        if any(row.metric == "dice" and row.convention != POOLED for row in rows):
            overlap_figure(rows, folder / "estimates.png", str(record.get("stamp") or ""))
        learning_curve(rows, folder / "learning_curve.png", str(record.get("stamp") or ""))
        volume_figure(rows, stacks, folder / "bland_altman.png")
        if pooled:
            detection_figure(rows, scans, stacks, pooled[0], folder / "detection.png")
    return Path(out)


def read_scans(results: str | Path) -> pd.DataFrame:
    """The table of scans of a results folder, as it was written.

    Raises:
        UserError: there is none.
    """
    path = Path(results) / "scans.tsv"
    if not path.is_file():
        raise UserError(f"{path}: missing, so there are no results here; finish the run, or name one of `ssl4neuro finetune`")
    text = ("model", "subject", "session", "run", "view", "phase", "structure")
    table = pd.read_csv(path, sep="\t", dtype=dict.fromkeys(text, str))
    return table.fillna(dict.fromkeys(text, ""))


def results_record(rows: Sequence[SegmentationRow], record: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-ready; numbers that do not exist are null."""
    settings = {key: value for key, value in record.items() if key not in BESIDE} | dict(record.get("settings") or {})
    beside = {"stamp": str(record.get("stamp") or ""), "source": dict(record.get("source") or {})}
    return finite({
        "format": FORMAT, "version": VERSION, "kind": "segmentation", **beside, "settings": settings, "method": METHOD,
        "notes": notes(rows, {"notes": record.get("notes")}), "rows": [asdict(row) for row in rows],
    })  # fmt: skip


def notes(rows: Sequence[SegmentationRow], record: Mapping[str, Any]) -> list[str]:
    """The stamp, the caller's, then what the rows need to be read."""
    stamp = [f"STAMP {record['stamp']}"] if record.get("stamp") else []
    own = [str(note) for note in record.get("notes") or ()]
    return stamp + own + ([CAUTION] if any(row.convention == POOLED for row in rows) else [])


def finite(value: Any) -> Any:
    """NaN and infinity become None, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(rows: Sequence[SegmentationRow], record: Mapping[str, Any]) -> str:
    """Every number with what is needed to read it, the pooled convention last."""
    head = (
        "| structure | metric | model | value | 95 % CI | convention | unit | n | patients | dropped |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )
    asked = list(dict.fromkeys(_asked(row) for row in rows))
    ordered = sorted(rows, key=lambda row: (row.convention == POOLED, asked.index(_asked(row))))  # models side by side
    lines = [
        f"| {place(row.structure, row.phase)} | {_metric(row)} | {row.model}{' (baseline)' if row.baseline else ''} |"
        f" {number(row.value)} | {interval(row)} | {row.convention} | {row.unit} |"
        f" {row.n_units} | {row.n_patients} | {row.dropped} |"
        for row in ordered
    ]
    title = f"# Segmentation{' of ' + str(record['name']) if record.get('name') else ''}\n\n"
    return title + head + "\n".join(lines) + "\n\n" + "\n\n".join([*notes(rows, record), METHOD]) + "\n"


def render(rows: Sequence[SegmentationRow]) -> str:
    """Plain text for the terminal: a block per structure and phase, one model below the other, the pooled convention last."""
    lines: list[str] = []
    for where in dict.fromkeys((row.structure, row.phase) for row in rows):
        mine = [row for row in rows if (row.structure, row.phase) == where]
        lines += [place(*where), ""]
        for title, wanted, pooled in SECTIONS:
            lines += _section(title, wanted, [row for row in mine if (row.convention == POOLED) == pooled])
    lines += ["value (95 % CI, bootstrap of patients); left out: the metric is undefined; *: baseline"]
    return "\n".join(lines)


def _section(title: str, wanted: Sequence[tuple[str, str]], rows: Sequence[SegmentationRow]) -> list[str]:
    found: dict[tuple[str, str, str], SegmentationRow] = {(row.unit, row.metric, row.model): row for row in rows}
    columns = [key for key in wanted if any(k[:2] == key for k in found)]
    models = list(dict.fromkeys(k[2] for k in found if k[:2] in columns))
    if not columns:
        return []
    firsts = [next(row for k, row in found.items() if k[:2] == key) for key in columns]
    cells = [["", *(f"{_metric(row).removeprefix('volume_')}, {_size(row)}" for row in firsts)]]
    for model in models:
        own = [found.get((*key, model)) for key in columns]
        star = " *" if any(row is not None and row.baseline for row in own) else ""
        cells.append([f"  {model}{star}", *("" if row is None else _cell(row) for row in own)])
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return (
        [title]
        + ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
        + [""]
    )


def _asked(row: SegmentationRow) -> tuple[str, str, str, str]:
    return row.structure, row.phase, row.unit, row.metric


def _metric(row: SegmentationRow) -> str:
    return f"{row.metric} [{UNITS.get(row.measure_unit, row.measure_unit)}]" if row.measure_unit else row.metric


def _size(row: SegmentationRow) -> str:
    """Scans before dropping, since models drop different ones."""
    return f"{row.n_units + row.dropped} {row.unit}s"


def _cell(row: SegmentationRow) -> str:
    inner = f" ({interval(row)})" if math.isfinite(row.ci_low) else ""
    return f"{number(row.value)}{inner}" + (f", {row.dropped} left out" if row.dropped else "")


def interval(row: SegmentationRow) -> str:
    """`0.612 to 0.874`."""
    return f"{number(row.ci_low)} to {number(row.ci_high)}" if math.isfinite(row.ci_low) else "-"


def number(value: float) -> str:
    """Three decimals, fewer for large numbers; a dash where there is none."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
