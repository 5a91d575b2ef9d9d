"""A results folder: results.json, predictions.tsv, table.md, table.csv and figures, there whole or not at all."""

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ssl4neuro.atomic import new_folder
from ssl4neuro.evaluate.figures import confusion_figure, estimates_figure

if TYPE_CHECKING:
    from ssl4neuro.evaluate.probe import ProbeResult

FORMAT, VERSION = "ssl4neuro results", 1
METHOD = (
    "Folds by subject; scaling, PCA and penalty (or k) fitted inside the training fold. Test folds hold subjects unseen in"
    " pretraining, unless stamped."
    " Held-out scores are pooled over folds without intercept. Interval: 95 %, bootstrap of subjects (the fitted probes fixed)."
    " p: one-sided, the probe refitted under permuted labels, choice of penalty (or k) included."
)


def write_results(result: "ProbeResult", out: Path) -> Path:
    """Write the folder atomically.

    Raises:
        UserError: `out` exists.
    """
    with new_folder(out) as folder:
        (folder / "results.json").write_text(json.dumps(record(result), indent=1, allow_nan=False), encoding="utf-8")
        result.predictions.to_csv(folder / "predictions.tsv", sep="\t", index=False)
        frame(result).to_csv(folder / "table.csv", index=False)
        for name, table in result.tables.items():
            table.to_csv(folder / f"{name}.tsv", sep="\t", index=False)
        (folder / "table.md").write_text(markdown(result), encoding="utf-8")
        estimates_figure(result, folder / "estimates.png")
        if result.classes:
            confusion_figure(result, folder / "confusion.png")
    return out


def record(result: "ProbeResult") -> dict[str, Any]:
    """JSON-ready: everything but the predictions. Numbers that do not exist are null."""
    kept = ("target", "task", "unit", "probe", "stamp", "permutation", "settings", "confusion", "source")
    fields = {name: getattr(result, name) for name in kept}
    rows = [{k: _finite(v) for k, v in dataclasses.asdict(row).items()} for row in result.rows]
    return {
        "format": FORMAT, "version": VERSION, **fields, "classes": list(result.classes), "notes": list(result.notes),
        "method": METHOD, "rows": rows, "checks": [dataclasses.asdict(check) for check in result.checks],
        "tables": list(result.tables),
    }  # fmt: skip


def frame(result: "ProbeResult") -> pd.DataFrame:
    """One line per model and metric."""
    return pd.DataFrame([dataclasses.asdict(row) for row in result.rows])


def markdown(result: "ProbeResult") -> str:
    """The table with what is needed to read it."""
    head = (
        "| model | metric | value | 95 % CI | p | chance | subjects | samples | unit |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    lines = [
        f"| {row.name} | {row.metric} | {number(row.value)} | {interval(row)} | {p_text(row.p)} | {number(row.chance)} |"
        f" {row.n_subjects} | {row.n_samples} | {row.unit} |"
        for row in result.rows
    ]
    return f"# {title(result)}\n\n" + head + "\n".join(lines) + "\n\n" + "\n\n".join([*remarks(result), METHOD]) + "\n"


def render(result: "ProbeResult", metrics: tuple[str, ...] | None = None) -> str:
    """Plain text table for the terminal."""
    rows = [row for row in result.rows if metrics is None or row.metric in metrics]
    cells = [["model", "metric", "value", "95 % CI", "p", "chance", "n"]]
    for row in rows:
        n = f"{row.n_subjects} subjects, {row.n_samples} {row.unit}s" if row.unit != "subject" else f"{row.n_subjects} subjects"
        cells.append([row.name, row.metric, number(row.value), interval(row), p_text(row.p), number(row.chance), n])
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join(
        [title(result), "", lines[0], "  ".join("-" * width for width in widths), *lines[1:], "", *remarks(result)]
    ).rstrip()


def title(result: "ProbeResult") -> str:
    """What was asked."""
    what = "regression" if not result.classes else f"{len(result.classes)} classes"
    if len(result.classes) == 2:
        what = f"{result.classes[1]} against {result.classes[0]}"
    return f"{result.probe} probe of '{result.target}' ({what}), unit: {result.unit}"


def remarks(result: "ProbeResult") -> list[str]:
    """Stamp first, then how labels were permuted and what was left out."""
    stamp = [f"STAMP {result.stamp}"] if result.stamp else []
    count = result.settings["permutations"]
    permuted = [f"p: {count} permutations {result.permutation}"] if count else []
    return [*stamp, *permuted, *result.notes]


def number(value: float | None) -> str:
    """Three significant decimals, a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def interval(row: Any) -> str:
    """`0.612 to 0.874`."""
    return "-" if not math.isfinite(row.ci_low) else f"{row.ci_low:.3f} to {row.ci_high:.3f}"


def p_text(p: float | None) -> str:
    """Four decimals; never zero."""
    return "-" if p is None or not math.isfinite(p) else f"{p:.4f}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
