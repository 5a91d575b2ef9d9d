"""Reading every study of cine or video once, for `doctor`: what is wrong within a study, and what is kept to compare it."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl4neuro.data.checks import Finding, Record, from_error
from ssl4neuro.data.clip import Clip, ClipRows
from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.clip_rows import ClipFormat, interval_of
from ssl4neuro.data.grid import load_image
from ssl4neuro.data.readers.clips import LAYOUTS
from ssl4neuro.data.readers.dicom import is_dicom
from ssl4neuro.data.readers.files import FORMATS, NIFTI, format_of
from ssl4neuro.data.scan import Scan
from ssl4neuro.data.scan_properties import header_properties
from ssl4neuro.errors import UserError
from ssl4neuro.progress import track

FEW_FRAMES = 8  # of a heart beat; fewer hardly show how a wall thickens


def layout_of(root: Path, files: Sequence[Path]) -> str | None:
    """Which `--layout` of `prepare clips` fits the files of a folder; None when there is nothing like a clip."""
    places = [file.relative_to(root).parts for file in files]
    if any(name[-1].endswith(("_4d.nii.gz", "_4d.nii")) for name in places):
        return "acdc"
    if any(name[0].startswith("Case_") and "Images" in name for name in places):
        return "emidec"
    if any(part in ("cine", "dce", "perf") for name in places for part in name[1:-1] if "sub-" in "/".join(name)):
        return "bids"
    return "files" if any(is_recording(file) for file in files) else None


def is_recording(file: Path) -> bool:
    """A video, an animated picture or a DICOM file; images and arrays may be anything."""
    suffix = format_of(file)
    return suffix in FORMATS and suffix not in (*NIFTI, ".npz", ".npy") if suffix else is_dicom(file)


def raw(root: Path, layout: str) -> tuple[list[Record], list[Finding]]:
    """Studies as `prepare clips` would read them.

    Raises:
        UserError: the folder cannot be understood as a whole.
    """
    reader = LAYOUTS[layout](root, skip_bad=True)
    form, records, findings = ClipFormat(), [], []
    for scan in track(reader.scans(), "examine"):
        record = Record(_name(scan, root), scan.subject, scan.session, scan.run)
        records.append(record)
        try:
            rows, left_out = form.finalise(reader.read(scan), str(scan.files[0]))
        except UserError as error:
            findings.append(_nameless(from_error(error, root, "fatal", record.file), scan))
            continue
        record.file_hash = record.data_hash = hashlib.sha256(form.values(rows)).hexdigest()
        record.intensity = float(np.mean([clip.frames.mean(dtype=np.float64) for clip in rows.clips]))
        record.header = _marks(scan, rows)
        findings += [
            _nameless(Finding("warning", record.file, line, "repair it, or prepare with --skip-bad"), scan) for line in left_out
        ]
        findings += _study(record, rows)
    return records, findings


def _marks(scan: Scan, rows: ClipRows) -> dict[str, str]:
    """Number type, pixel size and, of NIfTI files, the header's text: what may tell groups apart without any image."""
    first = rows.clips[0]
    size = "unknown" if first.spacing is None else "×".join(f"{edge:.3g}" for edge in first.spacing)
    header = header_properties(load_image(scan.files[0])) if format_of(scan.files[0]) in NIFTI else {}
    return {**header, "number type": header.get("number type", str(first.frames.dtype)), "pixel size (mm)": size}


def cohort(opened: ClipCohort) -> tuple[list[Record], list[Finding]]:
    """A prepared cohort of clips."""
    records, findings = [], []
    index = opened.index
    for _, rows in track(index.groupby("group_code", sort=True), "examine", total=index["group_code"].nunique()):
        first = rows.iloc[0]
        record = Record("", first["subject"], first["session"], first["run"])
        record.file = record.scan
        found = ClipRows(opened.fetch(rows.index.to_numpy())["cine"])
        record.file_hash = record.data_hash = hashlib.sha256(ClipFormat().values(found)).hexdigest()
        records.append(record)
        findings += _study(record, found)
    findings += [
        Finding("warning", str(item["file"]), f"was left out: {item['reason']}", "repair it and prepare again")
        for item in opened.info["skipped"]
    ]
    return records, findings


def _study(record: Record, rows: ClipRows) -> list[Finding]:
    """What one study's clips lack, and where they differ from each other."""
    found = []
    counts = sorted({len(clip.frames) for clip in rows.clips})
    if counts == [1]:
        advice = "fine for static images; motion cannot be learnt from them"
        found.append(Finding("note", record.file, "single frames, no motion", advice))
    elif counts[0] < FEW_FRAMES:
        advice = "expect little of motion; check that no frames are missing"
        found.append(Finding("warning", record.file, f"clips of {counts[0]} frames", advice))
    if len(counts) > 1:
        told = ", ".join(map(str, counts))
        found.append(Finding("warning", record.file, f"clips of {told} frames in one study", "check for missing frames"))
    if any(_rate(clip) is None for clip in rows.clips if len(clip.frames) > 1):
        advice = "give --interval when you prepare if times matter; whole cycles are sampled evenly without"
        found.append(Finding("note", record.file, "frame times unknown", advice))
    if any(clip.spacing is None for clip in rows.clips):
        advice = "crops are then a share of the picture, not mm"
        found.append(Finding("note", record.file, "pixel spacing unknown", advice))
    return found


def _rate(clip: Clip) -> float | None:
    interval = interval_of(clip.times)
    return interval if math.isfinite(interval) else None


def _name(scan: Scan, root: Path) -> str:
    return scan.name if scan.anonymous else str(scan.files[0].relative_to(root))


def _nameless(finding: Finding, scan: Scan) -> Finding:
    """The finding without file names that may be patients' names."""
    if not scan.anonymous:
        return finding
    problem = finding.problem
    for file in scan.files:
        problem = problem.replace(str(file), scan.name).replace(file.name, scan.name)
    return Finding(finding.level, scan.name, problem, finding.advice)
