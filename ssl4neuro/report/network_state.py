"""The report of a network-state study: per network the answer, recovery scores, what stands beside them, and their limits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl4neuro.evaluate.network_state.items import WHOLE
from ssl4neuro.evaluate.network_state.table import ORDERING
from ssl4neuro.report.checks import check_table
from ssl4neuro.report.explanations import explained
from ssl4neuro.report.network_state_figures import auc_figure, calibration_figure, map_figure, recovery_figure, roc_figure
from ssl4neuro.report.network_state_folder import Row, StudyFolder, is_network_state, read_folder
from ssl4neuro.report.network_state_words import PAPER, PAPER_NOTE, answers, methods, notices
from ssl4neuro.report.page import Figure, Notice, Page, Table, number
from ssl4neuro.report.verdict import interval, p_value

__all__ = ["is_network_state", "network_state_page"]

SHOWN = ("accuracy", "sensitivity", "specificity", "F1", "Brier", "ECE")  # all metrics are in the CSV file
EXACT = (
    "network", "model", "baseline", "metric", "value", "ci_low", "ci_high", "p", "p_corrected", "chance", "n_subjects",
    "n_samples", "unit",
)  # fmt: skip


def network_state_page(path: Path) -> Page:
    """Read RUN or RUN/results and describe it.

    Raises:
        UserError: not finished, or damaged.
    """
    folder = read_folder(path)
    drawn, more = _figures(folder)
    command = folder.environment.get("command")
    return Page(
        title=f"Network state: '{folder.after}' against '{folder.before}'",
        subtitle=_subtitle(folder),
        summary="",
        methods=methods(folder),
        notices=[*notices(folder), *more],
        figures=drawn,
        tables=[table for table in _tables(folder) if table.rows],
        answers=answers(folder),
        commands=[str(command)] if command else [],
    )


def _figures(folder: StudyFolder) -> tuple[list[Figure], list[Notice]]:
    mapped, no_map = map_figure(folder)
    seen = explained([folder.results, folder.run])
    found = [
        auc_figure(folder), *recovery_figure(folder), *roc_figure(folder), *calibration_figure(folder), *mapped, *seen.figures,
    ]  # fmt: skip
    return found, [*([Notice("note", no_map)] if no_map else []), *seen.notices]


def _tables(folder: StudyFolder) -> list[Table]:
    checks = [check for check in folder.record.get("checks") or () if isinstance(check, Mapping)]
    return [
        _networks_table(folder), _models_table(folder), _differences_table(folder), _recovery_table(folder),
        check_table(checks), _space_table(folder), _settings_table(folder),
    ]  # fmt: skip


def _networks_table(folder: StudyFolder) -> Table:
    """The study's model, a line per network; the paper's ranges below."""
    columns = ("network", "AUC (95 % CI)", "p", "p (Holm)", *SHOWN, ORDERING)
    lines = []
    for network in [*folder.networks, WHOLE]:
        auc, order = folder.row(network, "AUC"), folder.row(network, ORDERING)
        if auc is None:
            continue
        cells = [_value(folder, network, metric) for metric in SHOWN]
        ordered = _with_interval(order)
        lines.append((network, _with_interval(auc), p_value(auc["p"]), p_value(auc["p_corrected"]), *cells, ordered))
    paper = folder.record.get("paper") or {}
    if paper:
        spans = [_span(paper.get(metric)) for metric in SHOWN]
        lines.append(("paper, 5 networks", _span(paper.get("AUC")), "–", "–", *spans, "–"))
    emphasis = tuple(i for i, line in enumerate(lines) if line[0] == WHOLE)
    note = f"Model: {folder.model}. Held-out subjects; positive: {folder.after}; threshold 0.5. {PAPER_NOTE if paper else ''}"
    exact = tuple({key: row.get(key) for key in EXACT} for row in folder.rows)
    return Table("Per network", columns, tuple(lines), "results", note, emphasis, exact)


def _models_table(folder: StudyFolder) -> Table:
    """AUC of every model and network."""
    names = [*folder.networks, WHOLE]
    models = list(dict.fromkeys(row["model"] for row in folder.rows))
    lines = []
    for model in models:
        rows = [folder.row(name, "AUC", model) for name in names]
        cells = [_with_interval(row) for row in rows]
        role = " (baseline)" if any(row["baseline"] for row in folder.rows if row["model"] == model) else ""
        lines.append((model + role, *cells))
    own = tuple(i for i, model in enumerate(models) if model == folder.model)
    note = "AUC and 95 % interval. Nuisance variables and the majority are of the whole scan."
    return Table("All models, AUC", ("model", *names), tuple(lines), "models", note, own)


def _differences_table(folder: StudyFolder) -> Table:
    """AUC of the study's model minus that of every other."""
    names, rows = [*folder.networks, WHOLE], folder.differences
    found = {(row["other"], row["network"]): row for row in rows}
    others = list(dict.fromkeys(row["other"] for row in rows))
    lines = tuple((f"minus {other}", *(_with_interval(found.get((other, name)), " to ") for name in names)) for other in others)
    note = "Paired: the same subjects are drawn for both models. An interval that includes 0 shows no difference."
    columns = (folder.model, *names)
    return Table("Differences in AUC", columns, lines, "differences", note, exact=tuple(map(dict, rows)))


def _recovery_table(folder: StudyFolder) -> Table:
    rows = folder.record.get("mean_recovery") or ()
    lines = tuple((r["network"], number(r["value"]), interval(r), r["n_subjects"]) for r in rows)
    note = "Change of the calibrated probability, mean over subjects; each one's is in recovery.tsv. Without controls: no norm."
    return Table("Recovery scores", ("network", "mean", "95 % CI", "subjects"), lines, "recovery", note, exact=tuple(rows))


def _space_table(folder: StudyFolder) -> Table:
    rows = folder.record.get("space") or ()
    lines = tuple(
        (r["measure"], r["network"] or "all", number(r["value"]), interval(r), number(r["chance"])) for r in rows
    )  # fmt: skip
    note = "In each fold's own space, mean over folds. Shares of variance are added in the order of the lines."
    columns = ("measure", "network", "value", "95 % CI", "without structure")
    return Table("Held-out embeddings", columns, lines, "space", note, exact=tuple(rows), folded=True)


def _settings_table(folder: StudyFolder) -> Table:
    hidden = ("checks", "notes", "folds_record")
    lines = [(key.replace("_", " "), _text(value)) for key, value in folder.study.items() if key not in hidden]
    lines += [(key, _text(value)) for key, value in folder.record["settings"].items()]
    versions = folder.environment.get("versions")
    lines += [(f"version of {name}", str(v)) for name, v in versions.items()] if isinstance(versions, Mapping) else []
    return Table("Settings and versions", ("what", "value"), tuple(lines), "settings", folded=True)


def _subtitle(folder: StudyFolder) -> str:
    parts = [f"Run {folder.run.resolve().name}"]
    parts += [f"cohort {folder.study['cohort']}"] if folder.study.get("cohort") else []
    parts += [f"preset {folder.study['preset']}"] if folder.study.get("preset") else []
    return ", ".join([*parts, f"context: {PAPER}"])


def _value(folder: StudyFolder, network: str, metric: str) -> str:
    row = folder.row(network, metric)
    return number(None if row is None else row["value"], 2)


def _with_interval(row: Row | None, to: str = "–") -> str:
    """`0.84 (0.78–0.90)`."""
    if row is None or row["value"] is None:
        return "–"
    ends = f" ({number(row['ci_low'], 2)}{to}{number(row['ci_high'], 2)})" if row["ci_low"] is not None else ""
    return number(row["value"], 2) + ends


def _span(values: Any) -> str:
    return "–" if not values else f"{values[0]:.2f}–{values[1]:.2f}"


def _text(value: Any) -> str:
    value = [f"{key} {v}" for key, v in value.items()] if isinstance(value, Mapping) else value
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
