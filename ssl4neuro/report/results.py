"""The report of a results folder: numbers with unit, n and interval, baselines side by side, the overlap stamp."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl4neuro.errors import UserError
from ssl4neuro.report import figures
from ssl4neuro.report.folder import read_json
from ssl4neuro.report.page import Figure, Notice, Page, Table, listed, number, plural

FORMAT, VERSION = "ssl4neuro results", 1
COLUMNS = ("model", "role", "metric", "value", "95 % CI", "p", "chance", "subjects", "samples", "unit")
EXACT = ("name", "baseline", "metric", "value", "ci_low", "ci_high", "p", "chance", "n_subjects", "n_samples", "unit")
LOWER_IS_BETTER = {"MAE", "RMSE"}
ROW_KEYS = ("name", "metric", "value", "n_subjects", "unit")


def results_page(path: Path) -> Page:
    """Read results.json and describe it.

    Raises:
        UserError: damaged, or of another version.
    """
    file = path / "results.json"
    record = read_json(file)
    if record.get("format") != FORMAT or record.get("version") != VERSION:
        raise UserError(f"{file}: not {FORMAT} version {VERSION}; make the results again with this version")
    rows = record.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) and all(k in r for k in ROW_KEYS) for r in rows):
        raise UserError(f"{file}: 'rows' is missing or incomplete; make the results again")
    source = record.get("source") or {}
    return Page(
        title=f"{_kind(record)} of {record.get('target', 'results')}",
        subtitle=_subtitle(path, record, source),
        summary=_summary(rows, record),
        methods=_methods(record, rows),
        notices=_notices(record, rows),
        figures=_figures(record, rows),
        tables=[results_table(rows), _settings(record, source)],
        details=[],
    )


def results_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Every number with what it needs: unit, n, interval; the user's own in bold."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    rows = sorted(rows, key=lambda row: metrics.index(row["metric"]))  # a metric's models side by side; the sort is stable
    cells = [
        (
            row["name"],
            "baseline" if row.get("baseline") else "embedding",
            row["metric"],
            number(row["value"]),
            _interval(row),
            _p(row.get("p")),
            number(row.get("chance")),
            row["n_subjects"],
            row.get("n_samples", "–"),
            row["unit"],
        )
        for row in rows
    ]
    own = tuple(i for i, row in enumerate(rows) if not row.get("baseline"))
    note = "Held-out subjects. Unit: what one prediction is about. Interval: over subjects."
    exact = tuple({key: row.get(key) for key in EXACT} for row in rows)
    return Table("Results", COLUMNS, tuple(cells), "results", note, own, exact)


def _kind(record: Mapping[str, Any]) -> str:
    probe = str(record.get("probe") or "")
    return (
        f"{probe.capitalize()} probe"
        if record.get("task") in {"binary", "multiclass", "regression"}
        else probe.capitalize() or "Results"
    )


def _subtitle(path: Path, record: Mapping[str, Any], source: Mapping[str, Any]) -> str:
    parts = [f"Results folder {path.resolve().name}"]
    if source.get("name"):
        parts.append(f"cohort {source['name']}")
    if source.get("checkpoint_sha256"):
        parts.append(f"encoder {str(source['checkpoint_sha256'])[:12]}")
    classes = [str(c) for c in record.get("classes") or ()]
    if 1 < len(classes) <= 4:
        parts.append(f"classes {listed(classes)}")
    elif classes:
        parts.append(f"{len(classes)} classes")
    return ", ".join(parts)


def _summary(rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> str:
    own = next((row for row in rows if not row.get("baseline")), rows[0])
    metric = own["metric"]
    n = f"{plural(own['n_subjects'], 'subject')}" + (
        f", {plural(own['n_samples'], own['unit'])}" if own.get("n_samples") and own["unit"] != "subject" else ""
    )
    text = f"The embedding '{own['name']}' reaches {metric} {number(own['value'])} (95 % CI {_interval(own)}; {n})"
    text += f", where chance is {number(own['chance'])}. " if own.get("chance") is not None else ". "
    sign = -1 if metric in LOWER_IS_BETTER else 1
    others = [r for r in rows if r.get("baseline") and r["metric"] == metric and r["value"] is not None]
    if not others or own["value"] is None:
        return text + ("No baseline was computed, so the number stands alone." if not others else "")
    best = max(others, key=lambda row: sign * row["value"])
    text += f"The best baseline, '{best['name']}', reaches {number(best['value'])} (95 % CI {_interval(best)}). "
    return text + _verdict(sign * (own["value"] - best["value"]), own, best)


def _verdict(gain: float | int, own: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Plain words that claim no more than two intervals allow."""
    low, high, base_low, base_high = (row.get(end) for row in (own, best) for end in ("ci_low", "ci_high"))
    if low is None or high is None or base_low is None or base_high is None:
        return "The embedding is ahead of it." if gain > 0 else "The embedding is not ahead of it."
    if low > base_high or high < base_low:
        return f"The embedding is {'ahead of' if gain > 0 else 'behind'} it, and the intervals do not overlap."
    return "The intervals overlap, so these numbers alone do not show that one is better than the other."


def _notices(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Notice]:
    notices = [Notice("warning", str(record["stamp"]))] if record.get("stamp") else []
    if not record.get("stamp"):
        notices.append(Notice("good", "No subject of a test fold was seen in pretraining."))
    if not any(row.get("baseline") for row in rows):
        notices.append(Notice("warning", "No baseline stands beside these numbers; run the probe with its baselines."))
    return notices + [Notice("note", str(note)) for note in record.get("notes") or ()]


def _figures(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    caption = "Estimate and 95 % interval over subjects; circles: embeddings, squares: baselines, dashed line: chance."
    pages = [Figure("Embedding beside baselines", figures.estimates(rows, metrics), caption, wide=True)]
    tables, classes = record.get("confusion") or {}, [str(c) for c in record.get("classes") or ()]
    own = [row["name"] for row in rows if not row.get("baseline")][:1]
    other = [row["name"] for row in rows if row.get("baseline") and row.get("p") is not None][:1]
    for name in dict.fromkeys([*own, *other]):
        counts = np.array(tables.get(name, []), dtype=np.float64)
        if classes and counts.shape == (len(classes), len(classes)):
            shown = "Colour: share of the true class; numbers: held-out predictions."
            pages.append(Figure(f"Confusion, {name}", figures.confusion(counts, classes), shown))
    return pages


def _settings(record: Mapping[str, Any], source: Mapping[str, Any]) -> Table:
    rows = [("task", record.get("task")), ("unit of analysis", record.get("unit"))]
    rows += [
        (key.replace("_", " "), value if isinstance(value, str) else json.dumps(value))
        for key, value in (record.get("settings") or {}).items()
    ]
    if record.get("permutation"):
        rows.append(("labels permuted", record["permutation"]))
    for key, value in source.items():
        text = str(value)
        rows.append((key.replace("_", " "), text[:12] + "…" if key.endswith("sha256") else Path(text).name or text))
    return Table("Settings and source", ("what", "value"), tuple(row for row in rows if row[1] not in (None, "None")))


def _methods(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    settings, n = record.get("settings") or {}, rows[0]
    what = f"A {record.get('probe')} probe of '{record.get('target')}' was fitted to frozen ssl4neuro embeddings"
    size = f" of {plural(n['n_subjects'], 'subject')}"
    folds = f", cross-validated in {settings['folds']} folds" if settings.get("folds") else ""
    repeats = f" ({settings['repeats']} repeats)" if (settings.get("repeats") or 1) > 1 else ""
    baselines = sorted({str(row["name"]) for row in rows if row.get("baseline")})
    beside = f" Baselines, evaluated in the same way: {listed(baselines)}." if baselines else ""
    numbers = [
        text
        for key, text in (("bootstrap", "{} bootstrap draws"), ("permutations", "{} permutations"), ("seed", "seed {}"))
        if settings.get(key) is not None
        for text in [text.format(settings[key])]
    ]
    drawn = f" {', '.join(numbers).capitalize()}." if numbers else ""
    stamp = f" {record['stamp'][:1].upper()}{record['stamp'][1:]}." if record.get("stamp") else ""
    return f"{what}{size}{folds}{repeats}. {record.get('method', '')}{beside}{drawn}{stamp}".replace("  ", " ")


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row.get("ci_low"), row.get("ci_high")
    return "–" if low is None or high is None else f"{number(low)} to {number(high)}"


def _p(value: Any) -> str:
    return "–" if value is None else "<0.0001" if value < 1e-4 else f"{value:.4f}"
