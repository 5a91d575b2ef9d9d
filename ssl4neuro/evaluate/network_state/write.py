"""`RUN/results` of a network-state study: numbers, tables and words, there whole or not at all."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from ssl4neuro.atomic import new_folder
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.network_state.items import WHOLE
from ssl4neuro.evaluate.network_state.nuisance import fixed_columns, nuisance_columns
from ssl4neuro.evaluate.network_state.results import StudyResult, evaluate_study
from ssl4neuro.evaluate.network_state.study import Study
from ssl4neuro.evaluate.network_state.table import ORDERING, Row

FORMAT, VERSION = "ssl4neuro network state", 1
RECOVERY, MEAN_RECOVERY, SPACE, DIFFERENCES = "recovery", "mean_recovery", "space", "differences"
# Jeyabose et al., BioMed Eng OnLine 24:125 (2025), Table of the README and the abstract; folds' means, other patients.
PAPER = {
    "AUC": (0.90, 0.94), "accuracy": (0.85, 0.90), "sensitivity": (0.79, 0.90), "specificity": (0.87, 0.93), "F1": (0.83, 0.90),
}  # fmt: skip
METHOD = (
    "Outer folds by subject; encoder, PCA, scaling, classifier and calibration are fitted on the other subjects, penalty,"
    " epochs and Platt's parameters on inner folds of these. Metrics are of calibrated probabilities pooled over the folds"
    " (positive: the later state), means over the repeats; components of a cell are averaged as logits. Interval: 95 %,"
    " bootstrap of subjects with the models fixed; differences in AUC are paired;"
    " pair ordering: Clopper and Pearson. p: one-sided, of the AUC, scans"
    " exchanged within subjects with the models fixed, the null's spread widened by sqrt(2) because subjects of different"
    " folds train each other's models; Holm over the networks. Nuisance-only: refitted under exchanged states."
)


def write_study(
    out: str | Path,
    study: Study,
    record: dict[str, Any],
    *,
    after: str = "post",
    bootstrap: int = 2000,
    permutations: int = 1000,
    seed: int = 0,
) -> Path:
    """Evaluate the pooled folds and write results.json, scores.tsv, embeddings.parquet, table.csv, table.md and further tables.

    Args:
        out: folder to create.
        study: see `pool`.
        record: JSON-ready, for the report.
        after: the later state.

    Raises:
        UserError: `out` exists or cannot be written.
    """
    result = evaluate_study(study, record, after=after, bootstrap=bootstrap, permutations=permutations, seed=seed)
    with new_folder(Path(out)) as folder:
        tables = {
            RECOVERY: result.recovery, MEAN_RECOVERY: result.mean_recovery, SPACE: result.space,
            DIFFERENCES: result.differences,
        }  # fmt: skip
        text = json.dumps(study_record(result, study, list(tables)), indent=1, allow_nan=False)
        (folder / "results.json").write_text(text, encoding="utf-8")
        result.scores.to_csv(folder / "scores.tsv", sep="\t", index=False)
        study.scans.to_csv(folder / "scans.tsv", sep="\t", index=False)
        result.embeddings.to_parquet(folder / "embeddings.parquet", index=False)
        pd.DataFrame([dataclasses.asdict(row) for row in result.rows]).to_csv(folder / "table.csv", index=False)
        (folder / "table.md").write_text(_markdown(result), encoding="utf-8")
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.tsv", sep="\t", index=False)
    return Path(out)


def study_record(result: StudyResult, study: Study, tables: list[str]) -> dict[str, Any]:
    """JSON-ready: everything but the tables per subject. Numbers that do not exist are null."""
    return {
        "format": FORMAT, "version": VERSION, "model": result.model, "settings": result.settings, "method": METHOD,
        "rows": _rows(pd.DataFrame([dataclasses.asdict(row) for row in result.rows])),
        "mean_recovery": _rows(result.mean_recovery), "space": _rows(result.space),
        "differences": _rows(result.differences),
        "nuisances": {"columns": nuisance_columns(study.scans), "fixed": fixed_columns(study.scans)},
        "checks": [dataclasses.asdict(check) for check in result.checks],
        "paper": PAPER, "tables": tables, "folds": list(study.folds), "study": result.record,
    }  # fmt: skip


def read_study(out: str | Path) -> dict[str, Any]:
    """results.json of a study.

    Raises:
        UserError: not there, or not of this format.
    """
    file = Path(out) / "results.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: missing or damaged; make the results again with --resume") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
        raise UserError(f"{file}: not {FORMAT} version {VERSION}; make the results again with this version")
    return record


def render_study(out: str | Path) -> str:
    """The most important numbers as plain text.

    Raises:
        UserError: see `read_study`.
    """
    record = read_study(out)
    model = record["model"]
    cells = [["network", "model", "AUC", "95 % CI", "p", "p (Holm)", "sens.", "spec.", "ordering"]]
    for row in record["rows"]:
        if row["metric"] == "AUC" and (row["model"] == model or row["network"] == WHOLE):
            others = {
                r["metric"]: r["value"] for r in record["rows"] if (r["network"], r["model"]) == (row["network"], row["model"])
            }
            ps = [_number(row["p"], 4), _number(row["p_corrected"], 4)]
            more = [_number(others.get(name)) for name in ("sensitivity", "specificity", ORDERING)]
            span = "-" if row["ci_low"] is None else f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"
            cells.append([row["network"], row["model"], _number(row["value"]), span, *ps, *more])
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    flagged = [f"{c['status'].upper()} {c['name']}: {c['detail']}" for c in record["checks"] if c["status"] != "passed"]
    n = max(row["n_subjects"] for row in record["rows"])
    head = f"State of each network ({record['settings']['after']} is positive), held-out subjects, n = {n}"
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([head, "", lines[0], rule, *lines[1:], "", *_differences(record), *flagged]).rstrip()


def _differences(record: dict[str, Any]) -> list[str]:
    """Of the whole brain, a line each."""
    rows = [row for row in record.get("differences") or () if row["network"] == WHOLE]
    spans = ["" if row["ci_low"] is None else f" ({row['ci_low']:.3f} to {row['ci_high']:.3f})" for row in rows]
    lines = [
        f"{row['model']} minus {row['other']}, {WHOLE}: {_number(row['value'])}{span}"
        for row, span in zip(rows, spans, strict=True)
    ]
    return ["Paired differences in AUC, 95 % CI over subjects:", *lines, ""] if lines else []


def _markdown(result: StudyResult) -> str:
    head = ["| network | model | metric | value | 95 % CI | p | p (Holm) | subjects | unit |", "|" + "---|" * 9]
    lines = [*head, *(_line(row) for row in result.rows)]
    return f"# Network state, {result.model}\n\n" + "\n".join(lines) + f"\n\n{METHOD}\n"


def _line(row: Row) -> str:
    span = "-" if not math.isfinite(row.ci_low) else f"{row.ci_low:.3f} to {row.ci_high:.3f}"
    cells = (
        row.network, row.model, row.metric, _number(row.value), span, _number(row.p, 4), _number(row.p_corrected, 4),
        row.n_subjects, row.unit,
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    lines = table.to_dict("records")
    return [{str(k): None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()} for line in lines]
