"""Writing a cohort: one record batch per scan, statistics on the way, the whole folder renamed into place at the end."""

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow as pa

from ssl4neuro.atomic import new_folder
from ssl4neuro.data import cohort
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.grid import grid_image
from ssl4neuro.data.row_format import RowFormat, Rows, row_format
from ssl4neuro.data.scan import Grid, Scan
from ssl4neuro.manifest import file_sha256


@dataclass(frozen=True)
class PreparedScan:
    """A finalised scan, ready to be written.

    Attributes:
        rows: finalised `ScanRows` or `ClipRows`.
        key: hash of everything that determines the rows, by which a later `prepare` knows them again.
        content: sha256 by which the firewall knows the scan.
        files: `file`, `sha256`, `bytes` of each source file, the one with the data first; no `file` where it may hold names.
        left_out: components or clips that were not used, one line each.
    """

    scan: Scan
    rows: Rows
    key: str
    content: str
    files: list[dict[str, Any]]
    left_out: list[str] = field(default_factory=list)


@dataclass
class CohortParts:
    """Everything of a cohort but its scans."""

    name: str
    kind: str  # "ica", "courses" or "clips"
    grid: Grid | None = None
    contract: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what the reader knows, by modality
    shared: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)  # may grow while the scans are written
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    participants: pd.DataFrame | None = None
    sessions: pd.DataFrame | None = None  # label columns by SCAN_KEY
    images: Mapping[str, Path] = field(default_factory=dict)  # name in the cohort -> file to copy


def write_cohort(out: Path, scans: Iterable[PreparedScan], parts: CohortParts, *, replace: bool = False) -> Cohort:
    """Write a cohort folder atomically and open it. Scans come sorted by subject, session, run; one is in memory at a time.

    Raises:
        UserError: `out` exists and `replace` is false, or the disk is full.
    """
    with new_folder(Path(out), replace=replace) as folder:
        form = row_format(parts.kind, parts.grid)
        record = _write_rows(folder / cohort.ROWS, scans, parts, form)
        lines = record.pop("sessions")
        _write_tables(folder, lines, parts, form.nuisance)
        if parts.grid is not None:
            nib.save(grid_image(np.ones(int(parts.grid.mask.sum()), dtype=np.uint8), parts.grid), folder / cohort.MASK)
        for name, source in parts.images.items():
            (folder / name).write_bytes(Path(source).read_bytes())
        files = {f.name: {"sha256": file_sha256(f), "bytes": f.stat().st_size} for f in sorted(folder.iterdir())}
        info = {
            "format": cohort.FORMAT,
            "version": cohort.VERSION,
            "kind": parts.kind,
            "name": parts.name,
            **record,
            "shared": parts.shared,
            "skipped": parts.skipped,
            "warnings": parts.warnings,
            "settings": parts.settings,
            "versions": _versions(),
            "files": files,
        }
        (folder / cohort.RECORD).write_text(json.dumps(info, indent=1, allow_nan=False), encoding="utf-8")
    return Cohort.open(out)


def _write_rows(file: Path, scans: Iterable[PreparedScan], parts: CohortParts, form: RowFormat) -> dict[str, Any]:
    """Write rows.arrow and return what was learnt on the way."""
    tally, rows, previous = form.tally(), 0, None
    sources: list[dict[str, Any]] = []
    prepared: list[dict[str, Any]] = []
    sessions: list[dict[str, Any]] = []
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, form.schema()) as writer:
        for item in scans:
            scan = {"subject": item.scan.subject, "session": item.scan.session, "run": item.scan.run}
            order = tuple(scan.values())
            if previous is not None and order <= previous:
                raise ValueError(f"scan {order} after {previous}: scans must be sorted and distinct")
            previous = order
            batch = form.batch(item.scan, item.rows)
            writer.write_batch(batch)
            tally.add(item.rows)
            rows += batch.num_rows
            sources.extend({**scan, **record} for record in item.files)
            nuisance = {key: float(value) for key, value in item.rows.nuisance.items() if np.isfinite(value)}
            record = {"key": item.key, "content": item.content, "nuisance": nuisance, "left_out": item.left_out}
            prepared.append({**scan, **record})
            parts.skipped.extend({"file": source_name(item.files[0]), "reason": line} for line in item.left_out)
            sessions.append({**dict(zip(cohort.SCAN_KEY, order, strict=True)), **nuisance})
    for name, lines in tally.tables().items():
        pd.DataFrame(lines).to_csv(file.parent / name, sep="\t", index=False)
    return {
        "contract": tally.contract(parts.contract),
        "rows": rows,
        "subjects": len({scan["subject"] for scan in prepared}),
        "scans": len(prepared),
        "sources": sources,
        "prepared": prepared,
        "statistics": tally.statistics(),
        "sessions": sessions,
    }


def source_name(record: Mapping[str, Any]) -> str:
    """How a source is called in the record: its path, or its hash where paths may hold names."""
    return str(record["file"]) if "file" in record else f"sha256:{str(record['sha256'])[:12]}"


def _write_tables(folder: Path, lines: list[dict[str, Any]], parts: CohortParts, nuisance: tuple[str, ...]) -> None:
    more = dict.fromkeys(name for line in lines for name in line if name not in cohort.SCAN_KEY)
    nuisance = tuple(dict.fromkeys((*nuisance, *more)))
    sessions = pd.DataFrame(lines, columns=[*cohort.SCAN_KEY, *nuisance])
    if parts.sessions is not None:
        labels = parts.sessions.rename(columns={name: f"{name}_user" for name in nuisance if name in parts.sessions})
        sessions = sessions.merge(labels, on=list(cohort.SCAN_KEY), how="left", validate="one_to_one")
        for name in nuisance:  # what the user says fills what the files do not
            if f"{name}_user" in sessions:
                sessions[name] = sessions[name].fillna(pd.to_numeric(sessions.pop(f"{name}_user"), errors="coerce"))
    for name in nuisance:
        if name.startswith("n_") and sessions[name].notna().all():
            sessions[name] = sessions[name].astype(int)
    sessions.to_csv(folder / cohort.SESSIONS, sep="\t", index=False, na_rep="n/a")
    subjects = pd.DataFrame({"participant_id": sorted(set(sessions["participant_id"]))})
    if parts.participants is not None:
        lost = parts.participants[~parts.participants["participant_id"].isin(subjects["participant_id"])]
        if len(lost):  # whether they are of one group more than of another is asked by the leak audit
            lost.to_csv(folder / cohort.EXCLUDED, sep="\t", index=False, na_rep="n/a")
        subjects = subjects.merge(parts.participants, on="participant_id", how="left", validate="one_to_one")
    subjects.to_csv(folder / cohort.PARTICIPANTS, sep="\t", index=False, na_rep="n/a")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("ssl4neuro", "numpy", "scipy", "nibabel", "nilearn", "pydicom", "av", "pyarrow", "pandas"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
