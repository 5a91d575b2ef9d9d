"""What a fine-tuning run of a segmentation head has left on the disk, finished or not."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ssl4neuro.errors import UserError
from ssl4neuro.report.folder import read_config, read_json, read_log, read_tsv
from ssl4neuro.report.page import plural
from ssl4neuro.report.results import FORMAT, VERSION

KIND, RESULTS, OVERLAYS = "segmentation", "results", "overlays"
ROW_KEYS = ("model", "structure", "metric", "value", "n_patients", "n_units", "unit", "convention")
POSITIVES = "positives only"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Training:
    """One training of a run: the run itself, a fold, or a fold with few patients."""

    name: str  # `fold 0`, `5 patients, fold 0`; empty for the only one
    path: Path
    split: Mapping[str, int]  # subjects by part
    log: pd.DataFrame
    bad_lines: int
    summary: Mapping[str, Any]
    best: int | None  # step of the checkpoint that validation chose


@dataclass(frozen=True)
class SegmentationRun:
    """A run with its pooled results; every part may be missing."""

    path: Path  # what the user named
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    trainings: tuple[Training, ...]
    record: Mapping[str, Any]  # results.json
    rows: tuple[Row, ...]
    scans: pd.DataFrame
    patients: pd.DataFrame
    overlays: Path

    @property
    def lesion(self) -> str | None:
        """The structure that many pictures do not show."""
        return self.config.get("lesion") or self.settings.get("lesion")

    @property
    def settings(self) -> Mapping[str, Any]:
        value = self.record.get("settings")
        inner = value.get("settings", value) if isinstance(value, Mapping) else {}
        return inner if isinstance(inner, Mapping) else {}

    @property
    def stamp(self) -> str:
        """What must be said with every number."""
        outer = self.record.get("settings")
        return str(self.record.get("stamp") or (outer.get("stamp") if isinstance(outer, Mapping) else "") or "")

    @property
    def own(self) -> str:
        """Name of the model that the page is about: the last that is no baseline, in few-label runs the one trained on most."""
        return next((str(row["model"]) for row in reversed(self.rows) if not row.get("baseline")), "")

    @property
    def structures(self) -> tuple[str, ...]:
        """The lesion first."""
        names = list(dict.fromkeys(str(row["structure"]) for row in self.rows))
        return tuple(sorted(names, key=lambda name: name != self.lesion))

    def select(self, metric: str, *, unit: str = "", structure: str = "", convention: str = "") -> list[Row]:
        """Rows of a metric, wherever they have a value."""
        wanted = {"metric": metric, "unit": unit, "structure": structure, "convention": convention}
        kept = [row for row in self.rows if all(not value or row[key] == value for key, value in wanted.items())]
        return [row for row in kept if row["value"] is not None]


def is_segmentation(path: Path) -> bool:
    """Whether a folder is a fine-tuning run, or the results of one.

    Raises:
        UserError: a damaged file.
    """
    if (path / "results.json").is_file():
        return read_json(path / "results.json").get("kind") == KIND
    return any("head" in (read_config(folder / "config.yaml") or {}) for folder in [path, *_folders(path)[:1]])


def read_run(path: Path) -> SegmentationRun:
    """Read whatever is there, of a run folder or of its results folder.

    Raises:
        UserError: a damaged file, or results of another version.
    """
    results = path if (path / "results.json").is_file() else path / RESULTS
    run = path.parent if results == path and path.resolve().name == RESULTS else path
    folders = _folders(run)
    home = run if (run / "config.yaml").is_file() else folders[0] if folders else run
    record = _record(results / "results.json")
    return SegmentationRun(
        path,
        read_config(home / "config.yaml"),
        read_json(home / "environment.json"),
        tuple(_training(run, folder) for folder in folders),
        record,
        tuple(record.get("rows", ())),
        read_tsv(results / "scans.tsv"),
        read_tsv(results / "patients.tsv"),
        results / OVERLAYS,
    )


def _folders(run: Path) -> list[Path]:
    """Folders of single trainings, in the order of patients and folds."""
    nested = [
        folder
        for pattern in ("fold-*", "patients-*", "patients-*/fold-*")
        for folder in run.glob(pattern)
        if (folder / "log.jsonl").is_file() or (folder / "split.json").is_file()
    ]
    if nested:
        return sorted(nested, key=lambda folder: [_count(part) for part in folder.relative_to(run).parts])
    return [run] if (run / "config.yaml").is_file() or (run / "log.jsonl").is_file() else []


def _count(part: str) -> int:
    number = part.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def _training(run: Path, folder: Path) -> Training:
    words = [
        f"{_count(p)} patients" if p.startswith("patients-") else p.replace("-", " ") for p in folder.relative_to(run).parts
    ]
    split = {name: len(who) for name, who in read_json(folder / "split.json").items() if isinstance(who, list)}
    log, bad = read_log(folder / "log.jsonl")
    best = read_json(folder / "checkpoints" / "best.json").get("step")
    return Training(", ".join(words), folder, split, log, bad, read_json(folder / "summary.json"), best)


def _record(file: Path) -> dict[str, Any]:
    record = read_json(file)
    if not record:
        return record
    if (record.get("format"), record.get("version"), record.get("kind")) != (FORMAT, VERSION, KIND):
        raise UserError(f"{file}: not {FORMAT} version {VERSION} of a segmentation; make the results again with this version")
    rows = record.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) and all(k in r for k in ROW_KEYS) for r in rows):
        raise UserError(f"{file}: 'rows' is missing or incomplete; make the results again")
    return record


def place(row: Row) -> str:
    """`myocardium, ED`."""
    return ", ".join(filter(None, (str(row["structure"]), str(row.get("phase") or ""))))


def size(row: Row) -> str:
    """`40 scans of 12 patients`."""
    if row["unit"] == "patient":
        return plural(row["n_patients"], "patient")
    return f"{plural(row['n_units'], str(row['unit']))} of {plural(row['n_patients'], 'patient')}"
