"""The report of a results folder: what was asked, the answer beside its baselines, who was in it, and what could be wrong."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl4neuro import contract
from ssl4neuro.errors import UserError
from ssl4neuro.report.checks import check_table
from ssl4neuro.report.embedding_map import map_figure
from ssl4neuro.report.explanations import SECTION, explained
from ssl4neuro.report.folder import read_json
from ssl4neuro.report.methods import methods
from ssl4neuro.report.page import Figure, Notice, Page, Table, listed
from ssl4neuro.report.results_figures import (
    calibration_figure,
    confusion_figures,
    efficiency_figure,
    estimate_figure,
    roc_figure,
    site_decodability_figure,
    site_figure,
)
from ssl4neuro.report.results_folder import FORMAT, VERSION, Results, read_results
from ssl4neuro.report.results_tables import contract_checks, further_tables, results_table, settings_table, versions_table
from ssl4neuro.report.results_words import answers, notices

__all__ = ["FORMAT", "VERSION", "results_page"]

NO_COMMAND = "The command line was not recorded: made from Python, or by an older version. The settings are above."


def results_page(path: Path) -> Page:
    """Read a results folder, and what is still there of its embeddings and its run, and describe it.

    Raises:
        UserError: damaged, or of another version.
    """
    results = read_results(path)
    run = results.source.get("run")
    pictures = explained([path, *([Path(str(run))] if run else [])])
    drawn, left_out = _figures(results)
    tables = [
        results_table(results.rows),
        *further_tables(results),
        check_table([c for c in results.record.get("checks") or () if isinstance(c, Mapping)]),
        _contract(results),
        settings_table(results),
        versions_table(results),
    ]
    command = results.environment.get("command")
    return Page(
        title=f"{_kind(results.record)} of {results.record.get('target', 'results')}",
        subtitle=_subtitle(path, results),
        summary="",
        methods=f"{methods(results)} {pictures.method}".strip(),
        notices=[*notices(results), *(Notice("note", text) for text in left_out)],
        figures=[*drawn, *pictures.figures],
        tables=[table for table in tables if table.rows],
        answers=answers(results),
        remarks={SECTION: pictures.notices} if pictures.notices else {},
        commands=[str(command) if command else NO_COMMAND],
    )


def _figures(results: Results) -> tuple[list[Figure], list[str]]:
    """What can be drawn, and sentences about what cannot."""
    calibrated, no_calibration = calibration_figure(results)
    mapped, no_map = map_figure(results)
    found = [
        estimate_figure(results),
        *roc_figure(results),
        *calibrated,
        *confusion_figures(results),
        *site_figure(results),
        *efficiency_figure(results),
        *site_decodability_figure(results),
        *mapped,
    ]
    return found, [text for text in (no_calibration, no_map) if text]


def _contract(results: Results) -> Table:
    """Contract of the encoder against the cohort, while both are at hand; an empty table otherwise."""
    folder = Path(str(results.source.get("embeddings") or ""))
    info = read_json(folder / "embeddings.json") if results.source.get("embeddings") else {}
    expected, cohort = info.get("contract"), info.get("cohort")
    found = read_json(Path(str(cohort)) / "cohort.json").get("contract") if cohort else None
    if not isinstance(expected, Mapping) or not isinstance(found, Mapping):
        return contract_checks([], {}, {}, "")
    try:
        shared = {name: entry for name, entry in expected.items() if name in found}
        return contract_checks(contract.compare(shared, found), shared, found, str(info.get("checkpoint_sha256"))[:12])
    except UserError:  # of a version that this one does not know
        return contract_checks([], {}, {}, "")


def _kind(record: Mapping[str, Any]) -> str:
    probe = str(record.get("probe") or "")
    probes = record.get("task") in {"binary", "multiclass", "regression"}
    return f"{probe.capitalize()} probe" if probes else probe.capitalize() or "Results"


def _subtitle(path: Path, results: Results) -> str:
    parts = [f"Results folder {path.resolve().name}"]
    if results.source.get("name"):
        parts.append(f"{'table' if results.source.get('foreign') else 'cohort'} {results.source['name']}")
    if results.source.get("checkpoint_sha256"):
        parts.append(f"encoder {str(results.source['checkpoint_sha256'])[:12]}")
    if 1 < len(results.classes) <= 4:
        parts.append(f"classes {listed(results.classes)}")
    elif results.classes:
        parts.append(f"{len(results.classes)} classes")
    return ", ".join(parts)
