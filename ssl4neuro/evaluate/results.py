"""A results folder: results.json, predictions.tsv, table.md, table.csv and figures, there whole or not at all."""

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ssl4neuro.atomic import new_folder
from ssl4neuro.evaluate.audit import summary as checks_summary
from ssl4neuro.evaluate.efficiency_figure import efficiency_figure
from ssl4neuro.evaluate.environment import environment
from ssl4neuro.evaluate.figures import confusion_figure, estimates_figure
from ssl4neuro.evaluate.verdict import verdict

if TYPE_CHECKING:
    from ssl4neuro.evaluate.probe import ProbeResult

FORMAT, VERSION = "ssl4neuro results", 1
METHOD = (
    "Folds were formed by subject; scaling, PCA and penalty (or k) were fitted inside the training fold. Subjects known to have"
    " been seen in pretraining were not tested, unless stamped. Held-out scores were pooled over folds without intercept."
    " Intervals are 95 % bootstrap intervals over subjects, the fitted probes fixed; p-values are one-sided, from refitting the"
    " probe under permuted labels, the choice of penalty (or k) included."
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
        if "label_efficiency" in result.tables:
            efficiency_figure(result, folder / "label_efficiency.png")
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
        "tables": list(result.tables), "environment": environment(),
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
    several = any(row.p_corrected is not None for row in rows)
    cells = [["model", "metric", "value", "95 % CI", "p", *(["p corrected"] if several else []), "chance", "n"]]
    for row in rows:
        n = f"{row.n_subjects} subjects, {row.n_samples} {row.unit}s" if row.unit != "subject" else f"{row.n_subjects} subjects"
        more = [p_text(row.p_corrected)] if several else []
        cells.append([row.name, row.metric, number(row.value), interval(row), p_text(row.p), *more, number(row.chance), n])
    return "\n".join([title(result), "", *aligned(cells), "", *remarks(result)]).rstrip()


def aligned(cells: list[list[str]]) -> list[str]:
    """Lines of a plain text table; the first is underlined."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


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
    checked = [checks_summary(result.checks)] if result.checks else []
    return [*stamp, *permuted, *verdicts(result), *checked, *result.notes]


def verdicts(result: "ProbeResult") -> list[str]:
    """What may be said of the first metric of every embedding, alone and beside the best baseline."""
    first = [row for row in result.rows if not row.baseline and row.metric == result.rows[0].metric]
    margin = float(result.settings.get("equivalence_margin", 0))
    lines = [f"{row.name}: {verdict(row, margin)} ({row.metric})" for row in first if row.p is not None]
    table = result.tables.get("comparison")
    for row in [] if table is None else table[table["metric"] == result.rows[0].metric].to_dict("records"):
        p = f", p {row['p']:.4f}" if math.isfinite(row["p"]) else ""
        between = f" (95 % CI {row['ci_low']:+.3f} to {row['ci_high']:+.3f})" if math.isfinite(row["ci_low"]) else ""
        told = f"{row['model']} less {row['baseline']}, the best baseline: {row['metric']} {row['difference']:+.3f}"
        lines.append(f"{told}{between}{p}")
    return lines


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
