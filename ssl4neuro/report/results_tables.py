"""Tables of a results folder: every number with unit, n and interval, further tables as they are, settings and versions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ssl4neuro.contract import Contract, Difference
from ssl4neuro.report.page import Table, number, plural
from ssl4neuro.report.results_folder import Results, Row, plain
from ssl4neuro.report.run_tables import readable
from ssl4neuro.report.verdict import interval, p_value

COLUMNS = ("model", "role", "metric", "value", "95 % CI", "p", "chance", "subjects", "predictions")
EXACT = (
    "name", "baseline", "metric", "value", "ci_low", "ci_high", "p", "p_corrected", "p_equivalence", "chance", "n_subjects",
    "n_samples", "unit",
)  # fmt: skip
TITLES = {
    "comparison": ("Paired differences", "Embedding minus the best baseline, on the same held-out subjects."),
    "delong": ("AUC by DeLong's method", "By subject (Obuchowski 1997), as a check of the bootstrap."),
    "sites": ("Per site", "Held-out rows of each site."),
    "site_decodability": ("Site decodability", "The site predicted from the features of unseen subjects."),
    "label_efficiency": ("Label efficiency", "Mean over random subsets of the training subjects."),
}
HEADINGS = {
    "ci": "95 % CI", "n_subjects": "subjects", "n_train_subjects": "training subjects", "p_corrected": "p corrected",
    "p_equivalence": "p equivalence", "baseline": "role",
}  # fmt: skip
ADAPTED = {"exact": "adapted without loss", "asked": "adapted as asked for", "refused": "refused"}  # by the remedy
MOST_LINES = 400  # of a table on the page; all of them are in the CSV file
Columns = tuple[tuple[str, str], ...]


def results_table(rows: Sequence[Row]) -> Table:
    """Every number with what it needs: unit, n, interval; the user's own in bold."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    rows = sorted(rows, key=lambda row: metrics.index(row["metric"]))  # a metric's models side by side; the sort is stable
    extra = [key for key in ("p_corrected", "p_equivalence") if any(row.get(key) is not None for row in rows)]
    columns = (*COLUMNS[:6], *(HEADINGS[key] for key in extra), *COLUMNS[6:])
    cells = [
        (
            row["name"], "baseline" if row.get("baseline") else "embedding", row["metric"], number(row["value"]), interval(row),
            p_value(row.get("p")), *(p_value(row.get(key)) for key in extra), number(row.get("chance")), row["n_subjects"],
            plural(row["n_samples"], row["unit"]) if row.get("n_samples") else row["unit"],
        )
        for row in rows
    ]  # fmt: skip
    own = tuple(i for i, row in enumerate(rows) if not row.get("baseline"))
    note = "Held-out subjects. Predictions: how many, and what one is about. Interval: over subjects."
    if "p_equivalence" in extra:
        note += " p equivalence: small where the value lies within the margin around chance (two one-sided tests)."
    exact = tuple({key: row.get(key) for key in EXACT} for row in rows)
    return Table("Results", columns, tuple(cells), "results", note, own, exact)


def further_tables(results: Results) -> list[Table]:
    """The tables that the results name, known ones in words, others as they are; all with exact CSV files."""
    return [_further(name, _averaged(table) if name == "label_efficiency" else table) for name, table in results.tables.items()]


def settings_table(results: Results) -> Table:
    """Task, settings and source; folders by their last name, because a path says where a hospital keeps its data."""
    record = results.record
    rows: list[tuple[str, Any]] = [("task", record.get("task")), ("unit of analysis", record.get("unit"))]
    for key, value in results.settings.items():
        pairs = list(value.items()) if isinstance(value, Mapping) else [(key, value)]
        pairs = [(name, v) for name, v in pairs if name != "unseen_sites" or results.confounds.get("harmonise")]
        rows += [(name.replace("_", " "), v if isinstance(v, str) else json.dumps(v)) for name, v in pairs]
    if record.get("permutation"):
        rows.append(("labels permuted", record["permutation"]))
    for key, value in results.source.items():
        if value is None or isinstance(value, bool):
            continue
        text = str(value)
        rows.append((key.replace("_", " "), text[:12] + "…" if key.endswith("sha256") else Path(text).name or text))
    kept = tuple(row for row in rows if row[1] not in (None, "None", "null", "[]"))
    return Table("Settings and source", ("what", "value"), kept, "settings")


def versions_table(results: Results) -> Table:
    """What the numbers were computed with."""
    environment = results.environment
    rows = [(key, environment[key]) for key in ("python", "system", "machine") if environment.get(key)]
    versions = environment.get("versions")
    rows += list(versions.items()) if isinstance(versions, Mapping) else []
    return Table("Versions", ("what", "value"), tuple(rows), "versions", folded=True)


def contract_checks(differences: Sequence[Difference], expected: Contract, found: Contract, checkpoint: str) -> Table:
    """What the encoder expects, and how the cohort that was embedded differs from it.

    Args:
        differences: of `ssl4neuro.contract.compare`.
        expected: the encoder's contract, of the modalities that the cohort has.
        found: the cohort's.
    """
    rows = []
    for modality, entry in expected.items():
        by_field = {d.field: d for d in differences if d.modality == modality}
        rows += [(modality, d.field, d.expected, d.found, ADAPTED[d.remedy]) for d in by_field.values()]
        rows += [
            (modality, name.replace("_", " "), readable(name, value), readable(name, found[modality].get(name)), "✓ met")
            for name, value in entry.items()
            if name not in {*by_field, "mask", "kind"}
        ]
    columns = ("modality", "property", "trained on", "cohort", "result")
    note = f"The cohort was checked against the contract of checkpoint {checkpoint} before it was embedded."
    return Table("Contract checks", columns, tuple(rows), "contract", note, folded=len(rows) > 12)


def _further(name: str, table: pd.DataFrame) -> Table:
    title, note = TITLES.get(name, (name.replace("_", " ").capitalize(), ""))
    intervals = {"ci_low", "ci_high"} <= set(table)
    keys = [str(c) for c in table if c != "ci_high" or not intervals]
    columns = tuple(HEADINGS["ci"] if k == "ci_low" and intervals else HEADINGS.get(k, k.replace("_", " ")) for k in keys)
    if "baseline" in table and table["baseline"].dtype != bool:  # a name
        columns = tuple("best baseline" if c == HEADINGS["baseline"] else c for c in columns)
    lines = [plain(row) for row in table.to_dict("records")]
    rows = tuple(tuple(_cell(key, row, intervals) for key in keys) for row in lines[:MOST_LINES])
    own = tuple(i for i, row in enumerate(lines[:MOST_LINES]) if row.get("baseline") is False)
    if len(lines) > MOST_LINES:
        note += f" The first {MOST_LINES} of {len(lines)} lines; all of them are in the CSV file."
    return Table(title, columns, rows, name, note.strip(), own, tuple(lines), folded=len(rows) > 12)


def _cell(key: str, row: Row, intervals: bool) -> Any:
    value = row[key]
    if key == "ci_low" and intervals:
        return interval(row)
    if key == "baseline" and isinstance(value, bool):
        return "baseline" if value else "embedding"
    if key == "p" or key.startswith("p_"):
        return p_value(value)
    if isinstance(value, float):
        return number(int(value) if value == int(value) and key.startswith("n_") else value)
    return "–" if value is None else value


def _averaged(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, lowest and highest over repeats."""
    keys = [c for c in ("model", "baseline", "metric", "fraction") if c in table]
    if "repeat" not in table:
        return table
    groups = table.groupby(keys, sort=False, dropna=False)
    found = groups.agg(
        n_train_subjects=("n_train_subjects", "mean"), repeats=("repeat", "nunique"), mean=("value", "mean"),
        lowest=("value", "min"), highest=("value", "max"),
    )  # fmt: skip
    return found.reset_index()
