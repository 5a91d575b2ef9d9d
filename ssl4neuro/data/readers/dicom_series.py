"""Frames of a DICOM study sorted into stacks, slices and times, by what their headers say and never by file names."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from ssl4neuro.data.readers.dicom_fields import DicomProblem
from ssl4neuro.data.readers.dicom_headers import STATIC, DicomImage, Frame

SAME_PLACE = 0.01  # mm along the normal
SAME_DIRECTION = 0.01  # largest difference of direction cosines within a stack
GAP = 1.5  # times the typical distance
EVEN = 0.1  # mm, how far slices may lie from where equal steps would put them


@dataclass(frozen=True)
class Course:
    """Frames of one slice in the order of time, or a whole recording."""

    frames: tuple[Frame, ...]
    times: Float[np.ndarray, "time"] | None  # s after the first frame
    slice: int  # -1 where there is no stack


@dataclass
class Stack:
    """Slices of one series with one orientation and matrix; `number` is what messages call the series."""

    images: list[DicomImage]
    number: int = 0
    courses: list[Course] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def frames(self) -> list[Frame]:
        return [frame for image in self.images for frame in image.frames]


def stacks_of(images: Sequence[DicomImage]) -> list[Stack]:
    """Stacks and recordings of a study, in the order of their series numbers, not yet sorted inside.

    A series is told by its UID, else by its number; frames of another orientation, matrix, spacing or kind are another stack.
    """
    groups: dict[tuple[object, ...], list[DicomImage]] = defaultdict(list)
    for image in images:
        series = image.series or f"number {image.series_number}"
        if image.loop:
            groups[(series, image.file)].append(image)
            continue
        parts: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
        for frame in image.frames:
            alone = image.file if frame.position is None and len(image.frames) > 1 else None
            parts[(frame.position is None, frame.kind, _rounded(frame.spacing), alone)].append(frame)
        for part, frames in parts.items():
            key = (series, image.rows, image.columns, image.samples, *part)
            groups[key].append(_only(image, frames))
    stacks = [Stack(turned) for group in groups.values() for turned in _by_orientation(group)]
    stacks.sort(key=_place_in_study)
    for number, stack in enumerate(stacks, start=1):
        stack.number = number
    return stacks


def sort_stack(stack: Stack, skip_bad: bool) -> None:
    """Fills in `courses`: one per slice, sorted along the normal of the images and in time.

    With `skip_bad`, slices that are not sound get a line in `left_out` instead, and a hole in the numbers of the slices.

    Raises:
        DicomProblem: times stand still or go backwards, a slice or frame is missing, a volume has no time axis.
    """
    first = stack.images[0]
    slices = _slices(stack.frames)
    still = first.times is None if first.loop else all(len(frames) == 1 for _, frames in slices)
    if first.modality in STATIC and still:
        raise DicomProblem(first.file, f"{first.modality} without a time axis; remove it or leave it out with --skip-bad")
    if first.loop:
        stack.courses = [Course(first.frames, first.times, -1)]
        return
    numbers, missing = _numbers([place for place, _ in slices])
    problems = [f"slice {number} is missing (gap in the positions)" for number in missing]
    for number, (_, frames) in zip(numbers, slices, strict=True):
        try:
            ordered, times = _in_time(frames)
        except ValueError as error:
            problems.append(f"slice {number}: {error}" if len(slices) > 1 else str(error))
            continue
        stack.courses.append(Course(tuple(ordered), times, number if len(slices) > 1 else -1))
    usual = Counter(len(course.frames) for course in stack.courses).most_common()
    if len(usual) > 1:
        count = max(usual, key=lambda pair: (pair[1], pair[0]))[0]
        odd = [course for course in stack.courses if len(course.frames) != count]
        problems += [f"slice {course.slice} has {len(course.frames)} frames, others {count}" for course in odd]
        stack.courses = [course for course in stack.courses if len(course.frames) == count]
    if problems and not skip_bad:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DicomProblem(first.file, f"series {stack.number}: {problems[0]}{more}; complete the export or use --skip-bad")
    stack.left_out += [f"series {stack.number}: {problem}; left out" for problem in problems]
    stack.left_out += _notes(stack)


def stack_affine(stack: Stack) -> Float[np.ndarray, "4 4"] | None:
    """From (column, row, slice number, 1) to mm, RAS like NIfTI's (DICOM's own axes are LPS); of a sorted stack.

    None where the headers do not say, for a single slice, whose distance to the next is unknown, and for uneven steps.
    """
    frames = [course.frames[0] for course in stack.courses]
    first = frames[0] if frames else None
    if first is None or len(frames) < 2 or first.orientation is None or first.spacing is None:
        return None
    if any(frame.position is None for frame in frames):
        return None
    places, numbers = np.array([frame.position for frame in frames]), np.array([[course.slice] for course in stack.courses])
    step = (places[-1] - places[0]) / (numbers[-1] - numbers[0])
    start = places[0] - numbers[0] * step
    if np.abs(places - start - numbers * step).max() > EVEN:
        return None
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * first.spacing[1]
    affine[:3, 1] = np.array(first.orientation[3:]) * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, start
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _in_time(frames: Sequence[Frame]) -> tuple[list[Frame], Float[np.ndarray, "time"] | None]:
    """Frames of one slice in order, and their times (s after the first), None where the header has none.

    Raises:
        ValueError: two frames with one time, or time stamps that go against the numbers of the time points.
    """
    if len(frames) == 1:
        return list(frames), None
    triggers, clocks = [frame.trigger for frame in frames], [frame.acquired for frame in frames]
    points, numbers = [frame.temporal for frame in frames], [frame.number for frame in frames]
    if None not in triggers and len(set(triggers)) > 1:
        if not _distinct(triggers):
            raise ValueError("two frames with the same position and trigger time (copied files?)")
        ordered, times = _sorted(frames, triggers, timed=True)
    elif _distinct(clocks):
        ordered, times = _sorted(frames, clocks, timed=True)
    elif _distinct(points):
        ordered, times = _sorted(frames, points, timed=False)
    elif _distinct(numbers):
        ordered, times = _sorted(frames, numbers, timed=False)
    else:
        raise ValueError("two frames with the same position and time (copied files?)")
    for name, stamps in (("time points", [frame.temporal for frame in ordered]), ("clock", [f.acquired for f in ordered])):
        known = [stamp for stamp in stamps if stamp is not None]
        contradicts = times is None or name == "time points"  # clocks of a gated acquisition need not follow the trigger
        if contradicts and len(known) == len(stamps) and any(b < a for a, b in pairwise(known)):
            raise ValueError(f"time stamps go backwards against the {name}")
    return ordered, times


def _distinct(stamps: Sequence[float | int | None]) -> bool:
    """Whether every frame has a stamp of its own."""
    return None not in stamps and len(set(stamps)) == len(stamps)


def _sorted(
    frames: Sequence[Frame], stamps: Sequence[float | int | None], timed: bool
) -> tuple[list[Frame], Float[np.ndarray, "time"] | None]:
    values = np.array(stamps, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    return [frames[i] for i in order], values[order] - values[order[0]] if timed else None


def _slices(frames: Sequence[Frame]) -> list[tuple[float | None, list[Frame]]]:
    """Frames by their place along the normal (mm), from the lowest; one entry where places are unknown."""
    places = [_place(frame) for frame in frames]
    known = [place for place in places if place is not None]
    if len(known) < len(frames):
        return [(None, list(frames))]
    slices: list[tuple[float | None, list[Frame]]] = []
    last = -np.inf
    for i in np.argsort(known, kind="stable"):
        if known[i] - last > SAME_PLACE:
            slices.append((known[i], []))
        slices[-1][1].append(frames[i])
        last = known[i]
    return slices


def _place(frame: Frame) -> float | None:
    """Distance of the slice from the origin along its normal (mm), SliceLocation where the header has no geometry."""
    if frame.position is None or frame.orientation is None:
        return frame.location
    return float(np.dot(np.cross(frame.orientation[:3], frame.orientation[3:]), frame.position))


def _numbers(places: Sequence[float | None]) -> tuple[list[int], list[int]]:
    """Numbers of the slices from 0, and those that gaps in the places leave out."""
    known = [place for place in places if place is not None]
    if len(known) < 3:
        return list(range(len(places))), []
    steps = np.diff(known)
    typical = np.sort(steps)[(len(steps) - 1) // 2]  # lower median: three slices of four still show the gap
    jumps = np.where(steps > GAP * typical, np.maximum(np.rint(steps / typical), 2), 1).astype(np.int64)
    numbers = [0, *np.cumsum(jumps).tolist()]
    holes = [int(number) + 1 for number, jump in zip(numbers, jumps, strict=False) if jump > 1]  # the first of each gap
    return numbers, holes


def _notes(stack: Stack) -> list[str]:
    """What is worth knowing about slices that are used."""
    notes = []
    if stack.courses and all(len(course.frames) == 1 for course in stack.courses):
        notes.append(f"note: series {stack.number}: single frames, used as clips without motion")
    for course in stack.courses:
        steps = np.diff(course.times) if course.times is not None else np.array([])
        if len(steps) > 2 and (steps > GAP * np.median(steps)).any():
            where = f", slice {course.slice}" if course.slice >= 0 else ""
            notes.append(f"note: series {stack.number}{where}: a gap in the frame times, used as it is")
    return notes


def _by_orientation(images: Iterable[DicomImage]) -> list[list[DicomImage]]:
    """Images split where their frames point elsewhere."""
    turned: list[tuple[tuple[float, ...] | None, list[DicomImage]]] = []
    for image in images:
        parts: dict[int, list[Frame]] = defaultdict(list)
        for frame in image.frames:
            fits = (number for number, (direction, _) in enumerate(turned) if _parallel(direction, frame.orientation))
            number = next(fits, len(turned))
            if number == len(turned):
                turned.append((frame.orientation, []))
            parts[number].append(frame)
        for number, frames in parts.items():
            turned[number][1].append(_only(image, frames))
    return [members for _, members in turned]


def _parallel(one: tuple[float, ...] | None, other: tuple[float, ...] | None) -> bool:
    if one is None or other is None:
        return one is other
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < SAME_DIRECTION


def _only(image: DicomImage, frames: Sequence[Frame]) -> DicomImage:
    """The image with some of its frames; pixels are found by the frames' own numbers."""
    return image if len(frames) == len(image.frames) else replace(image, frames=tuple(frames))


def _place_in_study(stack: Stack) -> tuple[object, ...]:
    first = stack.images[0]
    missing = first.series_number is None
    return (
        missing,
        first.series_number or 0,
        first.series,
        min(image.frames[0].number or 0 for image in stack.images),
        first.file,
    )


def _rounded(pair: tuple[float, float] | None) -> tuple[float, ...] | None:
    return None if pair is None else tuple(round(value, 4) for value in pair)
