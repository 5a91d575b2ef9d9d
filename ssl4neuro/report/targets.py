"""The report of several targets: an answer for each, corrected for their number; each has a results folder of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssl4neuro.errors import UserError
from ssl4neuro.report.folder import read_json, read_tsv
from ssl4neuro.report.methods import methods
from ssl4neuro.report.page import Figure, Notice, Page, Table, listed, number, plural
from ssl4neuro.report.results_figures import forest_figure
from ssl4neuro.report.results_folder import Results, plain, read_results
from ssl4neuro.report.results_words import margin, notices
from ssl4neuro.report.verdict import LEVEL, against_chance, interval, p_value

FORMAT, VERSION, INDEX = "ssl4neuro targets", 1, "targets.json"
NEEDED = ("target", "model", "baseline", "metric", "value", "ci_low", "ci_high", "p", "p_corrected", "n_subjects")
WORDS = {"evidence": "evidence", "no evidence": "no evidence", "equivalent": "equivalent to chance", "untested": "not tested"}


def targets_page(path: Path) -> Page:
    """Read targets.json, targets.tsv and the results folder of every target.

    Raises:
        UserError: damaged, of another version, or a target's folder is gone.
    """
    record, file = read_json(path / INDEX), path / "targets.tsv"
    if record.get("format") != FORMAT or record.get("version") != VERSION:
        raise UserError(f"{path / INDEX}: not {FORMAT} version {VERSION}; make the results again with this version")
    table = read_tsv(file, ("target",))
    missing = [c for c in NEEDED if c not in table]
    if missing or not len(table):
        raise UserError(f"{file}: column '{missing[0] if missing else 'target'}' is missing or empty; make the results again")
    rows = [plain(row) for row in table.to_dict("records")]
    results = {str(t): read_results(path / str(f)) for t, f in zip(record["targets"], record["folders"], strict=True)}
    first = next(iter(results.values()))
    return Page(
        title=f"Targets {listed(list(results))}",
        subtitle=f"Results folder {path.resolve().name}, {plural(len(results), 'target')} of the same embeddings",
        summary="",
        methods=f"{methods(first)} The same was done for {listed(list(results))}. {record.get('method', '')}".strip(),
        notices=_notices(results),
        figures=_figures(rows),
        tables=[_table(rows, results)],
        answers=_answers(rows, results),
        commands=[str(c) for r in [first] if (c := r.environment.get("command"))]
        + [f"ssl4neuro report {path.resolve().name}/{folder}" for folder in record["folders"]],
    )


def _answers(rows: list[dict[str, Any]], results: Mapping[str, Results]) -> list[tuple[str, str]]:
    own = _own(rows, results)
    hits = [str(row["target"]) for row in own if row["p_corrected"] is not None and row["p_corrected"] <= LEVEL]
    found = f"Evidence for {listed(hits)}." if hits else "No evidence for any of them."
    alone = [str(r["target"]) for r in own if r["p"] is not None and r["p"] <= LEVEL and str(r["target"]) not in hits]
    rest = f" For {listed(alone)} p is below {LEVEL} only before it is corrected for {len(own)} targets." if alone else ""
    numbers = [f"{r['target']} {r['metric']} {number(r['value'])} (95 % CI {interval(r)})" for r in own]
    names = listed([str(row["target"]) for row in own])
    return [
        ("Asked", f"Which of {names} can be predicted from the embedding '{own[0]['model']}', for people it has not seen?"),
        ("Answer", found + rest),
        ("In numbers", "; ".join(numbers) + ". p is corrected for the number of targets by the maximum statistic."),
        ("Who was in it", "; ".join(f"{row['target']}: {plural(row['n_subjects'], 'subject')}" for row in own) + "."),
    ]


def _own(rows: list[dict[str, Any]], results: Mapping[str, Results]) -> list[dict[str, Any]]:
    """The first embedding on every target; the macro average is no target."""
    model = next(iter(results.values())).own["name"]
    return [row for row in rows if row["model"] == model and str(row["target"]) in results]


def _notices(results: Mapping[str, Results]) -> list[Notice]:
    """What is said of every target once, of some with their names."""
    heard: dict[Notice, list[str]] = {}
    for target, found in results.items():
        for notice in notices(found):
            heard.setdefault(notice, []).append(target)
    every = len(results)
    said = [n if len(t) == every else Notice(n.level, f"{listed(t)}: {n.text}") for n, t in heard.items()]
    return sorted(said, key=lambda notice: notice.level != "warning")


def _figures(rows: list[dict[str, Any]]) -> list[Figure]:
    """A figure per metric, because an AUC and an R² share no axis."""
    found = []
    for metric in dict.fromkeys(str(row["metric"]) for row in rows):
        own = [row for row in rows if row["metric"] == metric and row["value"] is not None]
        keep = {*(str(r["model"]) for r in own if not r["baseline"]), *_best(own)}
        shown = [
            {**row, "label": row["target"], "group": row["model"], "note": "" if row["baseline"] else _corrected(row)}
            for row in own
            if str(row["model"]) in keep
        ]
        caption = "Embeddings and the best baseline; at the right: p corrected for the number of targets."
        chance = {"AUC": 0.5, "R2": 0.0}.get(metric)
        found += forest_figure(f"Targets, {metric}", shown, metric, caption, chance)
    return found


def _best(rows: list[dict[str, Any]]) -> list[str]:
    """The baseline with the best mean over targets."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["baseline"]:
            values.setdefault(str(row["model"]), []).append(row["value"])
    return [max(values, key=lambda name: float(np.mean(values[name])))] if values else []


def _corrected(row: Mapping[str, Any]) -> str:
    return "" if row["p_corrected"] is None else f"p {p_value(row['p_corrected'])}"


def _table(rows: list[dict[str, Any]], results: Mapping[str, Results]) -> Table:
    cells = [
        (
            row["target"], row["model"], row["metric"], number(row["value"]), interval(row), p_value(row["p"]),
            p_value(row["p_corrected"]), row["n_subjects"], _word(row, results),
        )
        for row in rows
    ]  # fmt: skip
    columns = ("target", "model", "metric", "value", "95 % CI", "p", "p corrected", "subjects", "verdict")
    own = tuple(i for i, row in enumerate(rows) if not row["baseline"])
    note = "Held-out subjects. Verdict: by the corrected p where there is one."
    return Table("Results", columns, tuple(cells), "results", note, own, tuple(rows))


def _word(row: Mapping[str, Any], results: Mapping[str, Results]) -> str:
    """By the numbers of the target's own results, which hold the test of equivalence too."""
    found = results.get(str(row["target"]))
    if found is None:
        return WORDS[against_chance(row)[0]]
    same = next((r for r in found.rows if r["name"] == row["model"] and r["metric"] == row["metric"]), row)
    return WORDS[against_chance({**row, "p_equivalence": same.get("p_equivalence")}, margin(found))[0]]
