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
from jaxtyping import Float

from ssl4neuro.atomic import new_folder
from ssl4neuro.data import cohort
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.grid import grid_image, mask_sha256
from ssl4neuro.data.scan import Grid, Scan, ScanRows
from ssl4neuro.manifest import file_sha256

NUISANCE = ("n_volumes", "mean_fd", "tsnr")


@dataclass(frozen=True)
class PreparedScan:
    """A finalised scan, ready to be written.

    Attributes:
        rows: finalised; maps in float16 or float32, courses in float32.
        key: hash of everything that determines the rows, by which a later `prepare` knows them again.
        content: sha256 by which the firewall knows the scan.
        files: `file`, `sha256`, `bytes` of each source file, the one with the data first.
        left_out: components without signal, one line each.
    """

    scan: Scan
    rows: ScanRows
    key: str
    content: str
    files: list[dict[str, Any]]
    left_out: list[str] = field(default_factory=list)


@dataclass
class CohortParts:
    """Everything of a cohort but its scans."""

    name: str
    kind: str  # "ica" or "courses"
    grid: Grid | None = None
    contract: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what the reader knows, by modality
    shared: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)  # may grow while the scans are written
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    participants: pd.DataFrame | None = None
    sessions: pd.DataFrame | None = None  # label columns by SCAN_KEY
    images: Mapping[str, Path] = field(default_factory=dict)  # name in the cohort -> file to copy


@dataclass
class _Moments:
    """Running mean, sd, min and max."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")

    def add(self, values: np.ndarray) -> None:
        wide = values.astype(np.float64)
        self.count += wide.size
        self.total += float(wide.sum())
        self.squares += float((wide**2).sum())
        self.low, self.high = min(self.low, float(wide.min())), max(self.high, float(wide.max()))

    def summary(self) -> dict[str, float]:
        mean = self.total / self.count
        variance = max(self.squares / self.count - mean**2, 0.0)
        values = {"mean": mean, "sd": variance**0.5, "min": self.low, "max": self.high}
        return {name: round(value, 6) for name, value in values.items()}


def write_cohort(out: Path, scans: Iterable[PreparedScan], parts: CohortParts, *, replace: bool = False) -> Cohort:
    """Write a cohort folder atomically and open it. Scans come sorted by subject, session, run; one is in memory at a time.

    Raises:
        UserError: `out` exists and `replace` is false, or the disk is full.
    """
    with new_folder(Path(out), replace=replace) as folder:
        record = _write_rows(folder / cohort.ROWS, scans, parts)
        lines = record.pop("sessions")
        _write_tables(folder, lines, parts)
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


def _write_rows(file: Path, scans: Iterable[PreparedScan], parts: CohortParts) -> dict[str, Any]:
    """Write rows.arrow and return what was learnt on the way."""
    schema = _schema(None if parts.grid is None else int(parts.grid.mask.sum()))
    moments = {"course": _Moments()} | ({"map": _Moments()} if parts.grid is not None else {})
    rows, lengths, trs, previous = 0, [], [], None
    sources: list[dict[str, Any]] = []
    prepared: list[dict[str, Any]] = []
    sessions: list[dict[str, Any]] = []
    assignment: list[dict[str, object]] = []
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for item in scans:
            scan = {"subject": item.scan.subject, "session": item.scan.session, "run": item.scan.run}
            order = tuple(scan.values())
            if previous is not None and order <= previous:
                raise ValueError(f"scan {order} after {previous}: scans must be sorted and distinct")
            previous = order
            writer.write_batch(_batch(item, schema))
            moments["course"].add(item.rows.courses)
            if item.rows.maps is not None:
                moments["map"].add(item.rows.maps)
            rows += len(item.rows.component)
            lengths.append(item.rows.courses.shape[1])
            trs.append(item.rows.tr)
            sources.extend({**scan, **record} for record in item.files)
            nuisance = {key: float(value) for key, value in item.rows.nuisance.items() if np.isfinite(value)}
            record = {"key": item.key, "content": item.content, "nuisance": nuisance, "left_out": item.left_out}
            prepared.append({**scan, **record})
            parts.skipped.extend({"file": str(item.files[0]["file"]), "reason": line} for line in item.left_out)
            sessions.append({**dict(zip(cohort.SCAN_KEY, order, strict=True)), **nuisance})
            assignment.extend(item.rows.assignment)
    if assignment:
        pd.DataFrame(assignment).to_csv(file.parent / cohort.ASSIGNMENT, sep="\t", index=False)
    statistics: dict[str, Any] = {name: m.summary() for name, m in moments.items()}
    statistics["course"] |= {"length_min": min(lengths), "length_max": max(lengths)}
    return {
        "contract": _contract(parts, trs),
        "rows": rows,
        "subjects": len({scan["subject"] for scan in prepared}),
        "scans": len(prepared),
        "sources": sources,
        "prepared": prepared,
        "statistics": statistics,
        "sessions": sessions,
    }


def _schema(voxels: int | None) -> pa.Schema:
    columns = [(name, pa.string()) for name in ("subject", "session", "run", "site", "network")]
    columns += [("component", pa.int32())]
    columns += [("map", pa.list_(pa.float16(), voxels))] if voxels is not None else []
    columns += [("course", pa.list_(pa.float32())), ("tr", pa.float32())]
    return pa.schema(columns)


def _batch(item: PreparedScan, schema: pa.Schema) -> pa.RecordBatch:
    """Lists straight from numpy's memory; Python lists would be ten times slower."""
    rows, scan = item.rows, item.scan
    n, volumes = rows.courses.shape
    columns: dict[str, pa.Array] = {
        "subject": pa.array([scan.subject] * n),
        "session": pa.array([scan.session] * n),
        "run": pa.array([scan.run] * n),
        "site": pa.array([scan.site] * n),
        "network": pa.array(rows.network, pa.string()),
        "component": pa.array(rows.component.astype(np.int32)),
        "course": _lists(rows.courses, volumes),
        "tr": pa.array(np.full(n, rows.tr, dtype=np.float32)),
    }
    if rows.maps is not None:
        flat = np.ascontiguousarray(rows.maps, dtype=np.float16).ravel()
        columns["map"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), rows.maps.shape[1])
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _lists(courses: Float[np.ndarray, "components time"], volumes: int) -> pa.ListArray:
    offsets = np.arange(len(courses) + 1, dtype=np.int32) * volumes
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(courses, dtype=np.float32).ravel()))


def _contract(parts: CohortParts, trs: list[float]) -> dict[str, dict[str, Any]]:
    """What a checkpoint will expect of its input (promise 1): the writer's part, then what only the reader knows."""
    known = sorted({round(float(tr), 6) for tr in trs if np.isfinite(tr)})
    single = known[0] if len(known) == 1 and all(np.isfinite(trs)) else None
    contract: dict[str, dict[str, Any]] = {}
    if parts.grid is not None:
        contract["map"] = {
            "kind": "volume",
            "units": "z",
            "space": None,
            "shape": list(parts.grid.mask.shape),
            "affine": parts.grid.affine.tolist(),
            "mask_sha256": mask_sha256(parts.grid),
            "voxels": int(parts.grid.mask.sum()),
            "normalisation": "in-mask z-score",
            "sign": "positive skewness",
            "template_sha256": None,
        }
    contract["course"] = {
        "kind": "course",
        "units": "z",
        "tr": single,
        "trs": [*known, *([None] if not all(np.isfinite(trs)) else [])],
        "band": None,
        "normalisation": "linear detrend, z-score",
        "template_sha256": None,
    }
    for modality, entries in parts.contract.items():
        contract.get(modality, {}).update({key: value for key, value in entries.items() if key in contract.get(modality, {})})
    return contract


def _write_tables(folder: Path, lines: list[dict[str, Any]], parts: CohortParts) -> None:
    sessions = pd.DataFrame(lines, columns=[*cohort.SCAN_KEY, *NUISANCE])
    if parts.sessions is not None:
        labels = parts.sessions.rename(columns={name: f"{name}_user" for name in NUISANCE if name in parts.sessions})
        sessions = sessions.merge(labels, on=list(cohort.SCAN_KEY), how="left", validate="one_to_one")
        for name in NUISANCE:  # what the user says fills what the files do not
            if f"{name}_user" in sessions:
                sessions[name] = sessions[name].fillna(pd.to_numeric(sessions.pop(f"{name}_user"), errors="coerce"))
    if sessions["n_volumes"].notna().all():
        sessions["n_volumes"] = sessions["n_volumes"].astype(int)
    sessions.to_csv(folder / cohort.SESSIONS, sep="\t", index=False, na_rep="n/a")
    subjects = pd.DataFrame({"participant_id": sorted(set(sessions["participant_id"]))})
    if parts.participants is not None:
        subjects = subjects.merge(parts.participants, on="participant_id", how="left", validate="one_to_one")
    subjects.to_csv(folder / cohort.PARTICIPANTS, sep="\t", index=False, na_rep="n/a")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("ssl4neuro", "numpy", "scipy", "nibabel", "nilearn", "pyarrow", "pandas"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
