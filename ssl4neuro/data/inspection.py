"""Reading every scan of a data set once, for `doctor`: what is wrong within a scan, and what is kept to compare it with others.

One function per kind of source; each returns the records of its scans and the findings, and raises UserError only where the
whole folder cannot be understood. Voxels of 4-D images stream a few volumes at a time.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nibabel.spatialimages import SpatialImage

from ssl4neuro.data import inspection_clips
from ssl4neuro.data.checks import Finding, Record, from_error
from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.grid import image_data, load_image, volume_count
from ssl4neuro.data.readers.bids import RUN_ENTITIES, header_tr, space_of
from ssl4neuro.data.readers.bids_names import BidsName, parse_name, sidecar_value, sidecars
from ssl4neuro.data.readers.courses import npz_members, read_member, read_text, scan_key, time_axis_of
from ssl4neuro.data.readers.gift import GiftReader, brain_image, courses_beside, read_courses
from ssl4neuro.data.readers.melodic import MelodicReader, folder_tr, read_mix
from ssl4neuro.data.readers.naming import TR_RANGE, SessionTable
from ssl4neuro.data.scan import Grid, Scan
from ssl4neuro.data.scan_properties import header_properties
from ssl4neuro.data.voxels import check_components, check_orientation, check_voxels, listed
from ssl4neuro.errors import UserError
from ssl4neuro.manifest import file_sha256
from ssl4neuro.progress import track

Inspection = tuple[list[Record], list[Finding]]


def bids(root: Path, files: Sequence[Path], grid: Grid | None) -> Inspection:
    """Preprocessed 4-D images, `sub-*_bold.nii.gz`; `grid` is that of the maps or the mask, if there are any."""
    records, findings = [], []
    parsed = {path: parse_name(path.name) or BidsName("bold", "") for path in files}
    varying = [key for key in RUN_ENTITIES if key == "run" or len({name.get(key) for name in parsed.values()}) > 1]
    for path, name in track(parsed.items(), "examine", total=len(parsed)):
        subject, session = (f"{key}-{name.get(key)}" if name.get(key) else "" for key in ("sub", "ses"))
        run = "_".join(f"{key}-{name.get(key)}" for key in varying if name.get(key))
        choices = {"task": name.get("task"), "space": space_of(name)}
        record = Record(str(path.relative_to(root)), subject, session, run, choices)
        records.append(record)
        if not subject:
            findings.append(
                Finding("fatal", record.file, "its name tells no subject", "rename it as in BIDS: sub-<name>_..._bold.nii.gz")
            )
        try:
            image = load_image(path, 4)
            record.shape, record.affine = image.shape[:3], np.asarray(image.affine, dtype=float)
            record.volumes, record.file_hash = volume_count(image), file_sha256(path)
            record.header = header_properties(image)
            findings += _repetition(record, image, path, root)
            findings += check_orientation(record, image)
            findings += check_voxels(record, image, grid)
        except UserError as error:
            findings.append(from_error(error, root, "fatal"))
    return records, findings


def melodic(root: Path, folders: Sequence[Path], sessions: Path | None) -> Inspection:
    """MELODIC folders; their subjects as `prepare` would name them."""
    records, findings, named = [], [], {}
    reader: MelodicReader | None = None
    try:
        table = sessions if sessions is not None and SessionTable.open(sessions).determines_scans else None
        reader = MelodicReader([root], sessions=table)
        named = {scan.files[0].parent: scan for scan in reader.scans()}
    except UserError as error:
        findings.append(from_error(error, root, "fatal"))
    for folder in track(folders, "examine"):
        scan = named.get(folder, Scan("", ()))
        path = next(folder.glob("melodic_IC.nii*"))
        record = Record(str(folder.relative_to(root)), scan.subject, scan.session, scan.run)
        records.append(record)
        try:
            image = load_image(path, 4)
            courses = read_mix(folder / "melodic_mix")
            own = folder / "mask.nii.gz"
            inside = image_data(load_image(own, 3)).reshape(load_image(own, 3).shape[:3]) > 0.5 if own.is_file() else None
            findings += check_components(record, image, courses, (path, folder / "melodic_mix"), root, inside)
            record.tr = reader.tr(scan) if reader is not None else folder_tr(folder)
        except UserError as error:
            findings.append(from_error(error, root, "fatal"))
            continue
        if not math.isfinite(record.tr):
            findings.append(
                Finding("warning", record.file, "repetition time unknown", "add a column tr (s) to the --sessions table")
            )
    return records, findings


def gift(root: Path) -> Inspection:
    """A GIFT folder."""
    reader = GiftReader(root)
    records, findings = [], []
    for scan in track(reader.scans(), "examine"):
        path = scan.files[0]
        record = Record(path.name, scan.subject, scan.session, scan.run)
        records.append(record)
        try:
            image, course_path = brain_image(path), courses_beside(path)
            courses = read_courses(course_path, volume_count(image))
            findings += check_components(record, image, courses, (path, course_path), root)
            record.tr = reader.tr(scan)
        except UserError as error:
            findings.append(from_error(error, root, "fatal"))
            continue
        if not math.isfinite(record.tr):
            findings.append(
                Finding("warning", record.file, "repetition time unknown", "add a column tr (s) to the --sessions table")
            )
    return records, findings


def series(root: Path, files: Sequence[Path]) -> Inspection:
    """Tables of time series, volumes × regions: .npz with one array per scan, or one text file per scan."""
    records: list[Record] = []
    findings: list[Finding] = []
    flat: list[tuple[Record, tuple[int, int], list[list[int]]]] = []  # constant lines along either axis, until time is known
    for path in track(files, "examine", unit="file"):
        name = str(path.relative_to(root))
        try:
            members = npz_members(path) if path.suffix == ".npz" else [""]
            tr = _told_tr(sidecars(path, path.parent))
        except UserError as error:
            findings.append(from_error(error, root, "fatal"))
            continue
        if not math.isfinite(tr):
            advice = f"give --tr, or put RepetitionTime (s) into {path.stem}.json"
            findings.append(Finding("note", name, "no repetition time with it", advice))
        for member in members:
            try:
                key = scan_key(member) if len(members) > 1 else scan_key(path.name.split(".")[0], member)
                record = Record(f"{name}[{member}]" if member else name, *key, tr=tr)
                records.append(record)
                values = read_member(path, member) if member else read_text(path)
            except UserError as error:
                findings.append(from_error(error, root, "fatal"))
                continue
            record.data_hash = record.file_hash = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
            bad = int((~np.isfinite(values)).sum())
            if bad:
                findings.append(
                    Finding("fatal", record.file, f"NaN or infinite in {bad} places", "repair it or leave regions out")
                )
            constant = [(np.flatnonzero(np.ptp(values, axis=axis) == 0) + 1).tolist() for axis in (0, 1)]
            flat.append((record, values.shape, constant))
    return records, findings + _series_findings(flat)


def _series_findings(flat: Sequence[tuple[Record, tuple[int, int], list[list[int]]]]) -> list[Finding]:
    """What can be said of tables once it is known which axis is time."""
    if not flat:
        return []
    axis, _ = time_axis_of([shape for _, shape, _ in flat], None)
    counts = [shape[1 - axis] for _, shape, _ in flat]
    usual = max(set(counts), key=counts.count)
    findings = []
    for record, shape, constant in flat:
        record.volumes, regions = shape[axis], shape[1 - axis]
        if regions != usual:
            advice = "one atlas per cohort; check rows against columns"
            findings.append(Finding("fatal", record.file, f"{regions} regions, most have {usual}", advice))
        if len(constant[axis]) == regions:
            findings.append(Finding("fatal", record.file, "does not change over time", "leave this scan out"))
        elif constant[axis]:
            problem = f"constant regions: {listed(constant[axis])}"
            findings.append(Finding("warning", record.file, problem, "prepare leaves these out"))
    return findings


def cohort(path: Path) -> Inspection:
    """A prepared cohort: altered files, rows that carry nothing, scans that came from the same data."""
    findings: list[Finding] = []
    try:
        opened = Cohort.open(path)
        opened.verify()
    except UserError as error:
        return [], [from_error(error, path, "fatal")]
    if isinstance(opened, ClipCohort):
        return inspection_clips.cohort(opened)
    index = opened.index
    records = []
    for _, rows in track(index.groupby("group_code", sort=True), "examine", total=index["group_code"].nunique()):
        first = rows.iloc[0]
        record = Record(
            "", first["subject"], first["session"], first["run"], volumes=int(first["length"]), tr=float(first["tr"])
        )
        record.file = record.scan
        values = opened.fetch(rows.index.to_numpy(), opened.modalities)
        digest = hashlib.sha256()
        empty, broken = set(), set()
        for modality, data in values.items():
            for component, one in zip(rows["component"], data, strict=True):
                digest.update(np.ascontiguousarray(one).tobytes())
                if not np.isfinite(one).all():
                    broken.add(f"{modality} {component}")
                elif one.min() == one.max():
                    empty.add(f"{modality} {component}")
        record.file_hash = record.data_hash = digest.hexdigest()
        records.append(record)
        for what, which in (("NaN or infinite values", broken), ("constant values", empty)):
            if which:
                findings.append(Finding("fatal", record.file, f"{what} in {listed(sorted(which))}", "prepare the cohort again"))
        if not math.isfinite(record.tr):
            findings.append(
                Finding("warning", record.file, "repetition time unknown", "put it into the sources and prepare again")
            )
    findings += [
        Finding("warning", str(item["file"]), f"was skipped: {item['reason']}", "repair it and prepare again")
        for item in opened.info["skipped"]
    ]
    if not (index["network"] != "").any():
        findings.append(
            Finding("note", ".", "no component has a network name", "give --networks or --templates when you prepare")
        )
    return records, findings


def _repetition(record: Record, image: SpatialImage, path: Path, root: Path) -> list[Finding]:
    """TR of a 4-D image: its JSON's, else its header's; what is odd about them."""
    told, header = _told_tr(sidecars(path, root)), header_tr(image)
    record.tr = told if math.isfinite(told) else header
    problem, advice = "", ""
    if math.isfinite(told) and not TR_RANGE[0] <= told <= TR_RANGE[1]:
        record.tr = math.nan
        return [
            Finding("fatal", record.file, f"RepetitionTime {told:g} in its JSON is not in seconds", "give seconds, e.g. 2.0")
        ]
    zoom = float(image.header.get_zooms()[3])
    if not math.isfinite(record.tr):
        problem = f"repetition time unknown ({zoom:g} in the header, none in a JSON)"
        advice = "add RepetitionTime (s) to its JSON"
    elif math.isfinite(told) and zoom == 0:
        problem = f"repetition time 0 in the header, {told:g} s in the JSON"
        advice = "none needed if the JSON is right, which is used"
    elif math.isfinite(header) and abs(header - record.tr) > 0.01 * record.tr:
        problem = f"repetition time {header:g} s in the header, {told:g} s in the JSON"
        advice = "check which is right; the JSON is used"
    return [Finding("warning", record.file, problem, advice)] if problem else []


def _told_tr(files: Sequence[Path]) -> float:
    """RepetitionTime of the JSON files that apply, s; NaN where none has one. Not checked."""
    value = sidecar_value(files, "RepetitionTime")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
