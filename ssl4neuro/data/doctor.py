"""Look at a folder before (or after) `prepare` and tell what would stop or spoil a run: `ssl4neuro doctor PATH`.

PATH may be BIDS derivatives, FSL MELODIC output, a GIFT folder, tables of time series, cine or video in one of the layouts of
`prepare clips`, or a prepared cohort; which one is seen from its content. `inspection` and `inspection_clips` read the scans
one at a time, `checks` compares what is kept of them.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ssl4neuro.data import checks, group_checks, inspection, inspection_clips
from ssl4neuro.data.checks import MIN_VOLUMES, Finding, Level, Record, from_error
from ssl4neuro.data.cohort import PARTICIPANTS, RECORD, SESSIONS
from ssl4neuro.data.grid import load_image, make_grid, volume_count
from ssl4neuro.data.readers.courses import EXTENSIONS, series_files
from ssl4neuro.data.scan import Grid
from ssl4neuro.errors import UserError

__all__ = ["Finding", "examine", "render"]

LEVELS = ("fatal", "warning", "note")
SAME = 3  # findings that differ in the file only are folded into one line from here on
WIDEST = 90  # characters; one long name shall not push all columns away
LOOKED_FOR = (
    f"a prepared cohort ({RECORD}), FSL MELODIC (melodic_IC.nii.gz), GIFT (*_component_ica_s*_.nii), "
    f"BIDS derivatives (sub-*_bold.nii.gz), time series ({', '.join(EXTENSIONS)}), and cine or video (ACDC, EMIDEC, "
    "sub-*/cine, DICOM, mp4)"
)
CHECKED = (
    "No finding: all files are readable and whole; no NaN, constant or repeated volumes, enough of them; repetition times, "
    "grids and intensities agree; no scan twice; several subjects; scans and tables fit together; files do not tell groups "
    "apart."
)


def examine(path: Path, *, maps: Path | None = None, mask: Path | None = None) -> list[Finding]:
    """Everything about a data set that would stop or spoil a run, the worst first.

    Args:
        path: a folder, or a file of time series.
        maps, mask: group maps and brain mask to hold BIDS scans against; otherwise such files directly in the folder.

    Raises:
        UserError: nothing there that this version knows, or maps or mask that cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check the path")
    root = path if path.is_dir() else path.parent
    if path.is_dir() and not any(path.iterdir()):
        raise UserError(f"{path}: is empty; give the folder that holds the scans")
    records, findings, tabled = _inspect(path, maps, mask)
    findings += checks.across(records)
    if tabled:
        findings += _tables(records, root)
    return sorted(_folded(findings), key=lambda finding: LEVELS.index(finding.level))


def render(findings: Sequence[Finding]) -> str:
    """A table with one line per finding and a count, or a sentence that says what was checked."""
    if not findings:
        return CHECKED
    cells = [("", "file", "problem", "what to do"), *((f.level, f.file, f.problem, f.advice) for f in findings)]
    widths = [min(max(len(row[column]) for row in cells), WIDEST) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip() for row in cells
    ]
    counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    summary = ", ".join(f"{n} {level}{'' if n == 1 or level == 'fatal' else 's'}" for level, n in counts.items() if n)
    return "\n".join([*lines, "", summary])


def _inspect(path: Path, maps: Path | None, mask: Path | None) -> tuple[list[Record], list[Finding], bool]:
    """Records and findings of the scans, and whether tables of labels may lie beside them."""
    if not path.is_dir():
        return *inspection.series(path.parent, series_files(path)), True
    if (path / RECORD).is_file():
        return *inspection.cohort(path), False
    names = _files(path)
    layout = inspection_clips.layout_of(path, names)
    if layout is not None:
        return *inspection_clips.raw(path, layout), True
    melodic = sorted({file.parent for file in names if file.name in ("melodic_IC.nii.gz", "melodic_IC.nii")})
    if melodic:
        sessions = path / SESSIONS
        return *inspection.melodic(path, melodic, sessions if sessions.is_file() else None), True
    if any("_component_ica_s" in file.name for file in names):
        return *inspection.gift(path), True
    scans = [file for file in names if file.name.endswith(("_bold.nii.gz", "_bold.nii"))]
    if scans:
        return *_bids(path, scans, maps, mask), True
    try:
        series = series_files(path)
    except UserError as error:
        if any(file.suffix.lower() in EXTENSIONS and "timeseries" in file.name for file in names):
            return [], [from_error(error, path, "fatal")], False
        raise UserError(f"{path}: no data here that this version knows; looked for {LOOKED_FOR}{_hint(names, path)}") from None
    records, findings = inspection.series(path, series)
    if not any(record.volumes for record in records) and _images(names):  # tables beside images of another kind
        raise UserError(f"{path}: no data here that this version knows; looked for {LOOKED_FOR}{_hint(names, path)}")
    return records, findings, True


def _bids(root: Path, scans: list[Path], maps: Path | None, mask: Path | None) -> inspection.Inspection:
    """BIDS scans, held against the group maps if there are any; unprocessed scans only if there are no others."""
    preprocessed = [scan for scan in scans if "_desc-preproc_" in scan.name]
    findings: list[Finding] = []
    if not preprocessed:
        findings.append(
            Finding("warning", ".", "no *_desc-preproc_bold.nii.gz, these scans look unprocessed", "preprocess them (fMRIPrep)")
        )
    if maps is None:
        maps = _only(root, "maps", findings)
    if mask is None:
        mask = _only(root, "mask", findings)
    grid: Grid | None = None
    components = 0
    try:
        if maps is not None:
            components = volume_count(load_image(maps, 4))
        reference = maps or mask
        if reference is not None:
            grid = make_grid(reference, mask)
    except UserError as error:
        findings.append(from_error(error, root, "fatal"))
    records, found = inspection.bids(root, preprocessed or scans, grid)
    for record in records:
        if components and record.volumes is not None and MIN_VOLUMES <= record.volumes <= components + 1:
            problem = f"{record.volumes} volumes for {components} maps"
            found.append(Finding("fatal", record.file, problem, "dual regression needs more volumes than maps; use fewer maps"))
    return records, findings + found


def _only(root: Path, word: str, findings: list[Finding]) -> Path | None:
    """The one image directly in `root` with `word` in its name."""
    found = [file for file in sorted(root.glob(f"*{word}*.nii*")) if not file.name.startswith((".", "sub-"))]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        findings.append(
            Finding("note", ".", f"several images could be the {word}: {names}", f"none was used; choose one with --{word}")
        )
    return found[0] if len(found) == 1 else None


def _tables(records: list[Record], root: Path) -> list[Finding]:
    """What participants.tsv and sessions.tsv beside the scans say."""
    findings = []
    participants = next((root / name for name in (PARTICIPANTS, "participants.csv") if (root / name).is_file()), None)
    if participants is not None:
        findings += checks.check_participants(records, participants, participants.name)
        findings += group_checks.check_groups(records, participants, participants.name)
    if (root / SESSIONS).is_file():
        findings += checks.check_sessions(records, root / SESSIONS, SESSIONS)
    return findings


def _folded(findings: Sequence[Finding]) -> list[Finding]:
    """Findings that differ in the file only as one, since twenty equal lines hide the one that matters."""
    groups: dict[tuple[Level, str, str], list[str]] = defaultdict(list)
    for finding in findings:
        groups[(finding.level, finding.problem, finding.advice)].append(finding.file)
    folded = []
    for (level, problem, advice), files in groups.items():
        if len(files) > SAME:
            files = [f"{files[0]} and {len(files) - 1} more"]
        folded += [Finding(level, file, problem, advice) for file in files]
    return folded


def _files(folder: Path) -> list[Path]:
    """All files below a folder, sorted, without hidden ones."""
    found = []
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(base) / name for name in names if not name.startswith(".")]
    return sorted(found)


def _images(names: Sequence[Path]) -> list[Path]:
    return [file for file in names if file.name.endswith((".nii", ".nii.gz", ".dcm", ".img", ".mp4", ".avi"))]


def _hint(names: Sequence[Path], root: Path) -> str:
    """What the folder holds instead."""
    images = _images(names)
    if not images:
        return "; give the folder that holds the scans"
    example = images[0].relative_to(root)
    return f"; if its images (such as {example}) are cine or video, `prepare clips --layout files` takes them"
