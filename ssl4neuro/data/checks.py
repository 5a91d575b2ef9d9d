"""What can be wrong with a data set, as far as it shows when its scans are compared: used by `doctor`.

Each check takes the records of all scans, made one scan at a time by `doctor`, and returns findings.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from jaxtyping import Float

from ssl4neuro.data.readers.naming import bare
from ssl4neuro.data.tables import PARTICIPANT_COLUMNS, RUN_COLUMNS, SESSION_COLUMNS
from ssl4neuro.data.templates import read_table
from ssl4neuro.errors import UserError

MIN_VOLUMES = 32  # the course encoder's shortest input
FEW_VOLUMES = 100  # below it, correlations between courses are mostly noise
INTENSITY_GAP = 1.6  # scans whose mean differs by this factor from their neighbour's form another cluster
ROBUST_Z = 3.5  # Iglewicz and Hoaglin (1993)


Level = Literal["fatal", "warning", "note"]  # fatal: it would stop or spoil a run


@dataclass(frozen=True)
class Finding:
    """Something about the data that a user should know."""

    level: Level
    file: str  # relative to the examined folder
    problem: str
    advice: str


@dataclass
class Record:
    """What is kept of a scan once its data have passed by."""

    file: str  # relative to the examined folder
    subject: str = ""
    session: str = ""
    run: str = ""
    names: dict[str, str] = field(default_factory=dict)  # BIDS entities such as task and space
    volumes: int | None = None
    tr: float = math.nan  # s
    shape: tuple[int, ...] | None = None
    affine: Float[np.ndarray, "4 4"] | None = None
    file_hash: str = ""
    data_hash: str = ""  # of the values alone, whatever the header says; empty where they could not be read
    intensity: float = math.nan  # mean of the brain, raw units
    header: dict[str, str] = field(default_factory=dict)  # free text, number type and scaling, where there is a header

    @property
    def scan(self) -> str:
        """`sub-01 ses-pre run-1`."""
        return " ".join(part for part in (self.subject, self.session, self.run) if part)


def across(records: Sequence[Record]) -> list[Finding]:
    """All checks that compare scans with each other."""
    checks: Iterable[Callable[[Sequence[Record]], list[Finding]]] = (
        check_volumes, check_tr, check_choices, check_geometry, check_duplicates, check_intensity, check_subjects,
    )  # fmt: skip
    return [finding for check in checks for finding in check(records)]


def check_volumes(records: Sequence[Record]) -> list[Finding]:
    """Too few volumes for an encoder of time courses, or for stable correlations."""
    findings = []
    for record in records:
        if record.volumes is None or record.volumes >= FEW_VOLUMES:
            continue
        problem = f"{record.volumes} volume{'' if record.volumes == 1 else 's'}"
        if record.volumes < MIN_VOLUMES:
            findings.append(Finding("fatal", record.file, f"{problem}, fewer than {MIN_VOLUMES}", "leave this scan out"))
        else:
            findings.append(
                Finding(
                    "warning",
                    record.file,
                    f"{problem}, fewer than {FEW_VOLUMES}",
                    "expect noisy courses; use longer scans if any",
                )
            )
    return findings


def check_tr(records: Sequence[Record]) -> list[Finding]:
    """Different repetition times in one data set; a missing one is reported with its scan."""
    groups: dict[float, list[Record]] = defaultdict(list)
    for record in records:
        if math.isfinite(record.tr):
            groups[round(record.tr, 3)].append(record)
    if len(groups) < 2:
        return []
    told = ", ".join(f"{tr:g} s ({_scans(len(group))})" for tr, group in sorted(groups.items()))
    rare = min(groups.values(), key=len)[0]
    return [
        Finding(
            "warning", rare.file, f"repetition times differ: {told}", "check them; if right, do not let them tell groups apart"
        )
    ]


def check_choices(records: Sequence[Record]) -> list[Finding]:
    """Several tasks or spaces, which `prepare` wants to be told; several files for one scan."""
    findings = []
    for entity in ("task", "space"):
        values = sorted({record.names.get(entity, "") for record in records})
        if len(values) > 1:
            choices = ", ".join(value or "none" for value in values)
            findings.append(
                Finding("warning", ".", f"several {entity}s: {choices}", f"choose one with --{entity} when you prepare")
            )
    seen: dict[tuple[str, ...], Record] = {}
    for record in records:
        key = (record.subject, record.session, record.run, record.names.get("task", ""), record.names.get("space", ""))
        first = seen.setdefault(key, record)
        if record.subject and first is not record:
            problem = f"is {record.scan}, and so is {first.file}"
            findings.append(Finding("fatal", record.file, problem, "keep one of the two"))
    return findings


def check_geometry(records: Sequence[Record]) -> list[Finding]:
    """Scans of one space whose grid differs from that of most others."""
    findings = []
    spaces: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.shape is not None and record.affine is not None:
            spaces[record.names.get("space", "")].append(record)
    for group in spaces.values():
        grids: list[list[Record]] = []
        for record in group:
            home = next((grid for grid in grids if _same_grid(grid[0], record)), None)
            if home is None:
                grids.append([record])
            else:
                home.append(record)
        usual = max(grids, key=len)
        for grid in grids:
            if grid is not usual:
                findings += [Finding("warning", r.file, _grid_difference(r, usual[0]), _grid_advice(r, usual[0])) for r in grid]
    return findings


def check_duplicates(records: Sequence[Record]) -> list[Finding]:
    """Scans with the same content, whatever their names and headers: one subject counted as two leaks into the test set."""
    findings = []
    seen: dict[str, Record] = {}
    for record in records:
        if not record.data_hash:
            continue
        first = seen.setdefault(record.data_hash, record)
        if first is record:
            continue
        how = "the same file as" if first.file_hash == record.file_hash else "the same values under another header as"
        findings.append(Finding("fatal", record.file, f"{how} {first.file}", "delete one, or fetch the right scan"))
    return findings


def check_intensity(records: Sequence[Record]) -> list[Finding]:
    """Raw intensity in clusters (scanner, scaling, site?), and scans far from every cluster."""
    known = sorted((r for r in records if math.isfinite(r.intensity) and r.intensity > 0), key=lambda r: r.intensity)
    if len(known) < 5:  # no notion of usual
        return []
    clusters = [[known[0]]]
    for record in known[1:]:
        if record.intensity > INTENSITY_GAP * clusters[-1][-1].intensity:
            clusters.append([])
        clusters[-1].append(record)
    usual = [cluster for cluster in clusters if len(cluster) >= max(3, len(known) // 20)] or [max(clusters, key=len)]
    findings = []
    if len(usual) > 1:
        told = " and ".join(f"{len(cluster)} scans around {_number(_median(cluster))}" for cluster in usual)
        advice = "prepare removes the scale; check that the clusters are not your groups"
        findings.append(Finding("warning", ".", f"raw intensity falls into {len(usual)} clusters: {told}", advice))
    for record in known:
        logs = [np.log([r.intensity for r in cluster]) for cluster in usual]
        z = min(abs(math.log(record.intensity) - np.median(log)) / max(1.4826 * _mad(log), 0.1) for log in logs)
        if z > ROBUST_Z:
            centres = " or ".join(_number(_median(cluster)) for cluster in usual)
            problem = f"mean intensity {_number(record.intensity)}, usual is {centres} (robust z {z:.0f})"
            advice = "look at the scan: another scaling, mask or acquisition?"
            findings.append(Finding("warning", record.file, problem, advice))
    return findings


def check_subjects(records: Sequence[Record]) -> list[Finding]:
    """A single subject, from whom nothing can be held out."""
    subjects = {record.subject for record in records if record.subject}
    if len(subjects) == 1:
        only = next(iter(subjects))
        return [Finding("fatal", ".", f"a single subject ({only})", "add subjects; contrast and held-out tests need several")]
    return []


def check_participants(records: Sequence[Record], table: Path, file: str) -> list[Finding]:
    """Subjects that the table of participants lacks, participants without scans, names given twice."""
    return _check_table(records, table, file, ("participant",), (PARTICIPANT_COLUMNS,))


def check_sessions(records: Sequence[Record], table: Path, file: str) -> list[Finding]:
    """Scans that the table of sessions lacks, sessions without scans, scans given twice."""
    columns = (PARTICIPANT_COLUMNS, SESSION_COLUMNS, RUN_COLUMNS)
    return _check_table(records, table, file, ("participant", "session", "run"), columns)


def _check_table(
    records: Sequence[Record], table: Path, file: str, parts: Sequence[str], columns: Sequence[Sequence[str]]
) -> list[Finding]:
    """Compare a table's key columns with the scans, as `prepare` matches them: without `sub-`, and empty standing for any."""
    try:
        rows = read_table(table, ())
    except UserError as error:
        return [from_error(error, table.parent, "fatal", file)]
    present = [next((name for name in names if name in rows), None) for names in columns]
    if present[0] is None:
        return [
            Finding(
                "fatal", file, f"no column participant_id (it has {', '.join(rows.columns)})", "name the column of names so"
            )
        ]
    blank = [""] * len(rows)
    keys = [tuple(map(bare, key)) for key in zip(*(rows[c].str.strip() if c else blank for c in present), strict=True)]
    findings = [
        Finding("fatal", file, f"{_name(key)} is listed {keys.count(key)} times", f"keep one line per {parts[-1]}")
        for key in sorted({key for key in keys if keys.count(key) > 1})
    ]
    wanted = {tuple(map(bare, (r.subject, r.session, r.run)[: len(parts)])) for r in records if r.subject}
    matched = {key: next((k for k in _wider(key) if k in set(keys)), None) for key in wanted}
    missing = [_name(key) for key in sorted(wanted) if matched[key] is None]
    unscanned = [_name(key) for key in sorted(set(keys) - set(matched.values()))]
    if missing:
        findings.append(Finding("warning", file, f"no line for {_some(missing)}", "add it; without it they have no labels"))
    if unscanned:
        findings.append(Finding("warning", file, f"no scan of {_some(unscanned)}", "fetch the scans or delete the lines"))
    return findings


def _wider(key: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The key, then with its last parts empty: a line without a run holds for all runs."""
    return [(*key[:n], *[""] * (len(key) - n)) for n in range(len(key), 0, -1)]


def _name(key: tuple[str, ...]) -> str:
    return " ".join(part for part in key if part)


def from_error(error: UserError, root: Path, level: Level, file: str = "") -> Finding:
    """Finding that says what a reader's error says: `FILE: what is wrong; what to do`."""
    text = str(error)
    if str(root) not in (".", "/"):
        text = text.replace(f"{root}/", "").replace(str(root), ".")
    named, _, rest = text.partition(": ")
    problem, _, advice = (rest or text).rpartition("; ")
    if not problem:
        problem, advice = advice, "repair it or leave it out"
    file = file or named
    return Finding(level, file, problem, advice)


def _same_grid(a: Record, b: Record) -> bool:
    if a.shape != b.shape or a.affine is None or b.affine is None:
        return False
    return bool(np.allclose(a.affine, b.affine, atol=1e-3))


def _grid_difference(record: Record, usual: Record) -> str:
    assert record.affine is not None
    assert usual.affine is not None
    size, usual_size = (nib.affines.voxel_sizes(affine) for affine in (record.affine, usual.affine))
    mm, usual_mm = ("×".join(f"{edge:.3g}" for edge in s) for s in (size, usual_size))
    if record.shape == usual.shape and np.allclose(size, usual_size, atol=1e-3):
        shift = np.abs(record.affine[:3, 3] - usual.affine[:3, 3]).max()
        return f"other affine than most scans (origin differs by up to {shift:.3g} mm)"
    voxels, usual_voxels = ("×".join(map(str, r.shape or ())) for r in (record, usual))
    return f"grid {voxels} at {mm} mm, most scans have {usual_voxels} at {usual_mm} mm"


def _grid_advice(record: Record, usual: Record) -> str:
    if record.shape == usual.shape:
        return "check its registration; prepare interpolates it onto the common grid"
    return "prepare interpolates it onto the common grid; check that it is in the same space"


def _median(cluster: Sequence[Record]) -> float:
    return float(np.median([record.intensity for record in cluster]))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _mad(values: np.ndarray) -> float:
    return float(np.median(np.abs(values - np.median(values))))


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _scans(count: int) -> str:
    return f"{count} scan{'' if count == 1 else 's'}"
