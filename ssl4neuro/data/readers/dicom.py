"""DICOM: studies in a folder, and the clips of one study. Identities are used to group files and go no further."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from ssl4neuro.data.clip import Clip, ClipRows
from ssl4neuro.data.readers.clip_checks import counted, fault, regular_times, windows
from ssl4neuro.data.readers.dicom_fields import DicomProblem, guarded, text
from ssl4neuro.data.readers.dicom_frames import decoded_frames
from ssl4neuro.data.readers.dicom_headers import DicomImage, image_header, read_dataset
from ssl4neuro.data.readers.dicom_series import Course, Stack, sort_stack, stack_affine, stacks_of
from ssl4neuro.errors import UserError

DIRECTORY = re.compile(rb"1\.2\.840\.10008\.1\.3\.10(?![.\d])")  # what a DICOMDIR says it is
WHO = ("PatientID", "StudyInstanceUID", "StudyDate", "StudyTime")


@dataclass(frozen=True)
class DicomStudy:
    """One patient and study. `patient` and `files` name a person: they must not get into messages or records."""

    patient: str = field(repr=False)  # PatientID as it stands, or the first folder below the root
    key: str  # a hash that tells the study from others
    session: str  # `ses-01` by date; empty where the patient has one study only
    files: tuple[Path, ...] = field(repr=False)


def is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM object, by its first bytes; an index of others (DICOMDIR) is none."""
    try:
        with path.open("rb") as stream:
            head = stream.read(1024)
    except OSError:
        return False
    if head[128:132] == b"DICM":
        return path.name.upper() != "DICOMDIR" and DIRECTORY.search(head) is None
    # Without the preamble: the first element is of group 2 or 8, in one of the two byte orders.
    starts = head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08") and len(head) > 8
    return path.suffix.lower() == ".dcm" and starts


def dicom_studies(root: Path, files: Sequence[Path]) -> list[DicomStudy]:
    """Studies in `files` below `root`, sorted by patient and date; reads headers only.

    A file that does not say whose it is, or cannot be read, counts to the study of its folder if that holds one.
    """
    known: dict[tuple[str, str], list[Path]] = defaultdict(list)
    dates: dict[tuple[str, str], tuple[str, ...]] = {}
    folders: dict[Path, set[tuple[str, str]]] = defaultdict(set)
    broken = []
    for path in sorted(files):
        try:
            patient, study, *date = _who(path)
        except DicomProblem:
            patient = study = ""
        if not patient and not study:
            broken.append(path)
            continue
        name = (patient or _top_folder(root, path), study or " ".join(date))
        known[name].append(path)
        folders[path.parent].add(name)
        # Clocks of a study's series may differ: its earliest counts.
        dates[name] = min(dates.get(name, tuple(date)), tuple(date))
    for path in broken:
        owners = folders.get(path.parent, set())
        known[next(iter(owners)) if len(owners) == 1 else (_top_folder(root, path), "")].append(path)
    studies = []
    ordered = sorted(known, key=lambda name: (name[0], dates.get(name, ()), name[1]))
    counts, seen = Counter(patient for patient, _ in ordered), Counter[str]()
    for patient, study in ordered:
        seen[patient] += 1
        session = f"ses-{seen[patient]:02d}" if counts[patient] > 1 else ""
        key = hashlib.sha256(f"{study or patient}".encode()).hexdigest()[:16]
        studies.append(DicomStudy(patient, key, session, tuple(sorted(known[patient, study]))))
    return studies


def _who(path: Path) -> tuple[str, ...]:
    dataset = read_dataset(path, WHO)
    with guarded(path, "broken header"):
        return tuple(text(dataset, name) for name in WHO)


def _top_folder(root: Path, path: Path) -> str:
    """First folder below the root, the root's own name for files that lie in it."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
    return parts[0] if len(parts) > 1 else root.stem


def read_dicom_study(
    files: Sequence[Path], *, view: str | None, interval: float | None, window: int | None, skip_bad: bool
) -> ClipRows:
    """Clips of one study: one per slice of every stack, one per recording, in the order of series and position.

    Args:
        files: the files of one study, in any order.
        view: name for clips whose header names none.
        interval: s between frames where the header has no times.
        window: cuts longer recordings into successive clips of this many frames; a rest of less than half is left out.
        skip_bad: leave out files, slices and series that cannot be used, with a line in `left_out`, instead of stopping.

    Returns:
        Clips, with nothing of the header but numbers and recognised view names. `left_out` also has notes on clips used.

    Raises:
        UserError: something is wrong (without `skip_bad`), or nothing usable is left.
    """
    rows = ClipRows([])
    try:
        images = _headers(sorted(files), skip_bad, rows.left_out)
        stacks = stacks_of(images)
        for stack in stacks:
            _read_stack(stack, rows, view, interval, window, skip_bad)
    except DicomProblem as problem:
        raise UserError(str(problem)) from None
    except MemoryError:
        raise UserError(f"{min(files).parent}: a series too long for the memory; prepare it in smaller parts") from None
    if not rows.clips:
        reason = f" ({rows.left_out[0]})" if rows.left_out else ""
        raise UserError(f"{min(files).parent if files else 'study'}: no cine or video among {len(files)} DICOM files{reason}")
    rows.nuisance = _nuisance(stacks)
    return counted(rows, "study")


def _headers(files: Sequence[Path], skip_bad: bool, left_out: list[str]) -> list[DicomImage]:
    """Headers of all files; unusable ones get a line that names them by number, as names of files may name a person."""
    images = []
    for number, path in enumerate(files, start=1):
        try:
            images.append(image_header(path))
        except DicomProblem as problem:
            if not skip_bad:
                raise
            left_out.append(f"file {number} of {len(files)}: {problem.what}")
    return images


def _read_stack(
    stack: Stack, rows: ClipRows, view: str | None, interval: float | None, window: int | None, skip_bad: bool
) -> None:
    """Adds the clips of one stack to `rows`."""
    try:
        sort_stack(stack, skip_bad)
        arrays = _pixels(stack, skip_bad)
    except DicomProblem as error:
        if not skip_bad:
            raise
        rows.left_out.append(f"series {stack.number}: {error.what}")
        return
    rows.left_out += stack.left_out
    name, affine = stack.images[0].view or view or "", stack_affine(stack)
    thickness = None if affine is None else float(np.linalg.norm(affine[:3, 2]))
    for course, array in zip(stack.courses, arrays, strict=True):
        times = course.times
        if times is None and len(array) > 1:
            times = regular_times(len(array), interval)
        label = f"series {stack.number}" + (f", slice {course.slice}" if course.slice >= 0 else "")
        clip = Clip(array, name, course.slice, times, course.frames[0].spacing, affine=affine, thickness=thickness)
        problem = fault(clip)
        if problem and not skip_bad:
            raise DicomProblem(course.frames[0].file, f"{label} {problem}; leave it out with --skip-bad")
        cuts, note = ([], f"{problem}; left out") if problem else windows(clip, window)
        rows.clips += cuts
        if note:
            rows.left_out.append(f"{label}: {note}")


def _pixels(stack: Stack, skip_bad: bool) -> list[Shaped[np.ndarray, "time height width *colour"]]:
    """Frames of every course of a stack; each file is decoded once. Courses with undecodable files are dropped if allowed."""
    wanted = {(frame.file, frame.index) for course in stack.courses for frame in course.frames}
    needed = {file for file, _ in wanted}
    found: dict[tuple[Path, int], np.ndarray] = {}
    for image in stack.images:
        if image.file not in needed:
            continue
        try:
            pixels = decoded_frames(image)
        except DicomProblem as problem:
            if not skip_bad:
                raise
            stack.left_out.append(f"series {stack.number}: {problem.what}")
            continue
        found |= {(image.file, index): array for index, array in enumerate(pixels) if (image.file, index) in wanted}
    whole = [course for course in stack.courses if all((frame.file, frame.index) in found for frame in course.frames)]
    if len(whole) < len(stack.courses):
        stack.left_out.append(
            f"series {stack.number}: {len(stack.courses) - len(whole)} slices with unreadable frames; left out"
        )
    stack.courses = whole
    plain = all(frame.rescale == (1.0, 0.0) for frame in stack.frames)
    return [_assembled(course, found, plain) for course in whole]


def _assembled(
    course: Course, found: dict[tuple[Path, int], np.ndarray], plain: bool
) -> Shaped[np.ndarray, "time height width *colour"]:
    """Frames in the order of time; taken out of `found`, so that they are in memory twice for one slice only."""
    frames = [found.pop((frame.file, frame.index)) for frame in course.frames]
    if plain:
        return np.stack(frames)
    rescaled: Float[np.ndarray, "time height width"] = np.empty((len(frames), *frames[0].shape), dtype=np.float32)
    for target, frame, values in zip(rescaled, course.frames, frames, strict=True):
        slope, intercept = frame.rescale
        target[...] = values.astype(np.float64) * slope + intercept
    return rescaled


def _nuisance(stacks: Sequence[Stack]) -> dict[str, float]:
    """Medians over the files that were used."""
    values: dict[str, list[float]] = defaultdict(list)
    for stack in stacks:
        for image in stack.images if stack.courses else ():
            for name, value in image.nuisance:
                values[name].append(value)
    return {name: float(np.median(found)) for name, found in values.items()}
