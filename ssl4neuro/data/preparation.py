"""The part of `prepare` that is the same for every source: hash, read in parallel, standardise, keep, write."""

import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl4neuro.data import cohort
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.cohort_writer import CohortParts, PreparedScan, source_name, write_cohort
from ssl4neuro.data.grid import mask_sha256
from ssl4neuro.data.restart import FileHashes, OldCohort, digest, load_shard
from ssl4neuro.data.row_format import row_format
from ssl4neuro.data.scan import Grid, LabelledReader, Reader, Scan
from ssl4neuro.data.scan_work import Planned, ScanWork
from ssl4neuro.data.tables import read_participants, read_sessions, site_of
from ssl4neuro.errors import UserError
from ssl4neuro.progress import progress

REVISION = 2  # to be raised when the same sources would give other rows


@dataclass(frozen=True)
class Labels:
    """The user's label tables."""

    participants: Path | None = None
    sessions: tuple[Path, ...] = ()

    @classmethod
    def found(cls, root: Path, participants: Path | None, sessions: Path | None) -> "Labels":
        """The tables given, else BIDS' own below `root`: participants.tsv (or .csv), sessions.tsv, sub-*/sub-*_sessions.tsv."""
        for path in (participants, sessions):
            if path is not None and not path.is_file():
                raise UserError(f"{path}: no such file; check the path")
        own = [root / "participants.tsv", root / "participants.csv"]
        people = participants or next((path for path in own if path.is_file()), None)
        tables = [root / "sessions.tsv", *sorted(root.glob("sub-*/sub-*_sessions.tsv"))]
        # The user's own table comes last, where it counts.
        times = [path for path in tables if path.is_file()] + ([sessions] if sessions is not None else [])
        return cls(people, tuple(dict.fromkeys(times)))

    def files(self) -> list[Path]:
        """All of them."""
        return [*([self.participants] if self.participants else []), *self.sessions]


@dataclass
class Job:
    """One call of `prepare`.

    Attributes:
        options: what determines the rows of a scan beside its files; part of the key of each scan.
        selection: which scans were taken; recorded only.
        band: pass band (Hz) to apply to courses, unless the reader does it.
        images: files to store in the cohort, by name.
    """

    out: Path
    reader: Reader
    kind: str
    source: str
    root: Path
    name: str | None
    options: dict[str, Any]
    selection: dict[str, Any]
    band: tuple[float, float] | None
    labels: Labels
    workers: int = 1
    skip_bad: bool = False
    replace: bool = False
    warnings: list[str] = field(default_factory=list)
    images: dict[str, Path] = field(default_factory=dict)


def prepare(job: Job) -> Cohort:
    """Run a job: the cohort, new, updated, or as it was.

    Raises:
        UserError: whatever is wrong with a source, an option or the output folder.
    """
    if job.workers < 1:
        raise UserError(f"--workers {job.workers}: at least one")
    old = existing_cohort(job.out)
    scans = job.reader.scans()
    for warning in job.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    work = work_folder(job.out)
    hashes = FileHashes(work / "hashes.json")
    try:
        shared = _shared(job, hashes)
        files = _hash_scans(scans, hashes)
        settings = _settings(job, shared, scans, files, hashes)
    finally:
        hashes.save()
    if old is not None:
        if old.info["settings"].get("sources_key") == settings["sources_key"]:
            print(f"{job.out}: up to date ({old.info['scans']} scans), nothing to do", file=sys.stderr)
            return old
        if not job.replace:
            _refuse_other(job.out, old, settings, scans)
    elif job.out.exists() and not _may_replace(job):
        raise UserError(f"{job.out}: exists and holds no intact cohort; name another folder (or --replace a damaged cohort)")
    return _build(job, old, scans, files, shared, settings, work)


def _build(
    job: Job,
    old: Cohort | None,
    scans: Sequence[Scan],
    files: Sequence[tuple[str, ...]],
    shared: list[dict[str, Any]],
    settings: dict[str, Any],
    work: Path,
) -> Cohort:
    grid = job.reader.grid()
    parts = CohortParts(
        name=settings["name"], kind=job.kind, grid=grid, contract=_contract(job), shared=shared, settings=settings,
        warnings=job.warnings, images=job.images,
    )  # fmt: skip
    planned = _plan(job, scans, files, shared, grid)
    planned = _without_copies(planned, job.skip_bad, parts.skipped)
    subjects = sorted({item.scan.subject for item in planned})
    if job.labels.participants is not None:
        parts.participants = read_participants(job.labels.participants, subjects)
    elif isinstance(job.reader, LabelledReader):
        told = job.reader.labels()
        parts.participants = None if told is None else told[told["participant_id"].isin(subjects)]
    parts.sessions = read_sessions(job.labels.sessions, [item.scan for item in planned])
    form = row_format(job.kind, grid, job.band)
    before = OldCohort(old, form)
    reading = ScanWork(job.reader, form, work, job.workers)
    todo = [item for item in planned if item.key not in before and load_shard(reading.shard(item.key), form) is None]
    try:
        bad = reading.read_all(todo, job.skip_bad)
    finally:
        _remove_if_empty(work)
    parts.skipped += [{"file": _source(i, job.root), "reason": bad[i.key]} for i in planned if i.key in bad]
    good = [item for item in planned if item.key not in bad]
    if not good:
        raise UserError(f"{job.root}: none of its {len(planned)} scans can be used; the first: {bad[planned[0].key]}")
    finished = _finished(job, good, before, reading, site_of(parts.participants), parts.skipped)
    result = write_cohort(job.out, finished, parts, replace=job.out.exists())
    _clear(work)
    if result.info["subjects"] == 1:
        print(f"warning: {job.out}: one subject only; pretraining needs several", file=sys.stderr)
    redone = f", {len(good) - len(todo)} scans taken over" if len(todo) < len(good) else ""
    skipped = f", {len(parts.skipped)} skipped (see {cohort.RECORD})" if parts.skipped else ""
    print(f"{job.out}: {result.info['scans']} scans, {result.info['rows']} rows{redone}{skipped}", file=sys.stderr)
    return result


def existing_cohort(out: Path) -> Cohort | None:
    """The intact cohort at `out`, if there is one. A damaged one is made again."""
    try:
        return Cohort.open(out)
    except UserError:
        return None


def work_folder(out: Path) -> Path:
    """Where finished scans and remembered hashes are kept: `.NAME.work` beside the output."""
    out = out.resolve()
    if not out.name:
        raise UserError(f"{out}: cannot hold a cohort; name a new folder")
    return out.parent / f".{out.name}.work"


def _may_replace(job: Job) -> bool:
    """Never anything but an empty folder, or on request a damaged cohort."""
    return job.out.is_dir() and (not any(job.out.iterdir()) or (job.replace and (job.out / cohort.RECORD).is_file()))


def _shared(job: Job, hashes: FileHashes) -> list[dict[str, Any]]:
    files = job.reader.shared_files()
    for role, file in files.items():
        if not file.is_file():
            raise UserError(f"{file}: no such file ({role}); check the path")
    return [{"role": role, "file": file.name, "sha256": hashes.of(file)} for role, file in sorted(files.items())]


def _hash_scans(scans: Sequence[Scan], hashes: FileHashes) -> list[tuple[str, ...]]:
    result = []
    with progress("check sources", len(scans)) as bar:
        for scan in scans:
            result.append(tuple(hashes.of(file) for file in scan.files))
            bar.advance()
    return result


def _settings(
    job: Job, shared: list[dict[str, Any]], scans: Sequence[Scan], files: Sequence[tuple[str, ...]], hashes: FileHashes
) -> dict[str, Any]:
    """What goes into cohort.json; `sources_key` stands for all sources and options together."""
    folder = "" if any(scan.anonymous for scan in scans) else job.root.resolve().name  # it may be called after a patient
    settings: dict[str, Any] = {
        "source": job.source,
        "root": folder,
        "name": job.name or folder or job.source,
        **job.options,
        **job.selection,
        "skip_bad": job.skip_bad,
    }
    identities = [(scan.subject, scan.session, scan.run, *own) for scan, own in zip(scans, files, strict=True)]
    labels = [(file.name, hashes.of(file)) for file in job.labels.files()]
    roles = [(entry["role"], entry["sha256"]) for entry in shared]
    settings["sources_key"] = digest([REVISION, settings, roles, identities, labels])
    return settings


def _refuse_other(out: Path, old: Cohort, settings: dict[str, Any], scans: Sequence[Scan]) -> None:
    """Changed sources update a cohort; other options or other scans must not overwrite one unasked."""
    before = old.info["settings"]
    keys = (set(before) | set(settings)) - {"sources_key", "canica_key", "skip_bad"}
    pairs = [(key, before.get(key), settings.get(key)) for key in sorted(keys)]
    changed = "; ".join(f"{key} {was!r} → {now!r}" for key, was, now in pairs if was != now)
    if changed:
        raise UserError(f"{out}: holds a cohort made with other settings ({changed}); name another folder or --replace")
    known = {(scan["subject"], scan["session"], scan["run"]) for scan in old.info["prepared"]}
    if not any((scan.subject, scan.session, scan.run) in known for scan in scans):
        raise UserError(f"{out}: holds a cohort of other scans; name another folder or --replace")


def _contract(job: Job) -> dict[str, dict[str, Any]]:
    contract = {modality: dict(entries) for modality, entries in job.reader.description().items()}
    if job.band is not None:
        contract.setdefault("course", {})["band"] = list(job.band)
    return contract


def _plan(
    job: Job, scans: Sequence[Scan], files: Sequence[tuple[str, ...]], shared: list[dict[str, Any]], grid: Grid | None
) -> list[Planned]:
    uses = Counter(scan.files[0] for scan in scans)
    where = None if grid is None else mask_sha256(grid)
    roles = [(entry["role"], entry["sha256"]) for entry in shared]
    result = []
    for scan, own in zip(scans, files, strict=True):
        names = [] if scan.anonymous else [file.name for file in scan.files]
        identity = (scan.subject, scan.session, scan.run)
        key = digest([REVISION, job.source, job.options, roles, where, identity, names, own])
        result.append(Planned(scan, own, key, uses[scan.files[0]] > 1))
    return result


def _without_copies(planned: Sequence[Planned], skip_bad: bool, skipped: list[dict[str, str]]) -> list[Planned]:
    """Refuse (or leave out) a scan whose data file is the same as another subject's."""
    seen: dict[str, Scan] = {}
    result = []
    for item in planned:
        other = None if item.shares_file else seen.setdefault(item.content, item.scan)
        if other is not None and other.subject != item.scan.subject:
            reason = f"the same content as {other.name if other.anonymous else other.files[0]}, under another subject"
            if not skip_bad:
                raise UserError(f"{item.scan.files[0]}: {reason}; remove one of them or use --skip-bad")
            skipped.append({"file": _source(item, None), "reason": reason})
        else:
            result.append(item)
    return result


def _finished(
    job: Job,
    planned: Sequence[Planned],
    before: OldCohort,
    reading: ScanWork,
    sites: dict[str, str],
    skipped: list[dict[str, str]],
) -> Iterator[PreparedScan]:
    """The finished scans, one at a time, from the older cohort or from what was kept."""
    seen: dict[str, Scan] = {}
    for item in planned:
        finished = before.load(item.key) if item.key in before else load_shard(reading.shard(item.key), reading.form)
        if finished is None:
            raise UserError(f"{reading.shard(item.key)}: a finished scan was changed or removed meanwhile; prepare again")
        rows, content, left_out = finished
        scan = item.scan
        other = seen.setdefault(content, scan)
        if other.subject != scan.subject:
            reason = f"{scan.name} holds the same values as {other.name}"
            if not job.skip_bad:
                raise UserError(f"{scan.files[0]}: {reason}; remove one of them or use --skip-bad")
            skipped.append({"file": _source(item, job.root), "reason": reason})
            continue
        site = sites.get(scan.subject, scan.site)
        files = [
            ({} if scan.anonymous else {"file": _relative(file, job.root)}) | {"sha256": value, "bytes": file.stat().st_size}
            for file, value in zip(scan.files, item.hashes, strict=True)
        ]
        named = Scan(scan.subject, scan.files, scan.session, scan.run, site)
        yield PreparedScan(named, rows, item.key, content, files, left_out)


def _source(item: Planned, root: Path | None) -> str:
    """How a scan's data file is called in the record."""
    if item.scan.anonymous:
        return source_name({"sha256": item.hashes[0]})
    return item.scan.files[0].name if root is None else _relative(item.scan.files[0], root)


def _relative(file: Path, root: Path) -> str:
    """Path below the source root, for the record: nobody else's folders are anyone's business."""
    try:
        return file.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return file.name


def _clear(work: Path) -> None:
    """The cohort holds everything now; only the hashes stay for next time."""
    for file in work.glob("*"):
        if file.is_dir():
            shutil.rmtree(file, ignore_errors=True)
        elif file.name != "hashes.json":
            file.unlink(missing_ok=True)


def _remove_if_empty(work: Path) -> None:
    if work.is_dir() and not any(work.iterdir()):
        shutil.rmtree(work, ignore_errors=True)
