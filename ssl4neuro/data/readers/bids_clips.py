"""BIDS-like folders of cine and dynamic series: `sub-*/[ses-*/]{cine,dce,perf}/*.nii.gz` with JSON sidecars.

Frame times are those of `FrameTimes` or `VolumeTiming` (s, one per frame), else multiples of `TemporalResolution` (s), else,
for perfusion, of `RepetitionTime`, which for the other kinds is the time between pulses. Masks lie beside their image
(`*_mask.nii.gz`, `*_dseg.nii.gz`); `Frames` of their sidecar lists the frames (from 0) that they were drawn on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ssl4neuro.data.clip import Clip, ClipRows
from ssl4neuro.data.readers.bids_names import BidsName, parse_name, sidecar_value, sidecars
from ssl4neuro.data.readers.clip_checks import INTERVAL_RANGE, check_options, collect, regular_times
from ssl4neuro.data.readers.nifti_clips import Stack, open_stack, read_masks, read_stack
from ssl4neuro.data.readers.subject_names import SubjectNames
from ssl4neuro.data.scan import Scan
from ssl4neuro.errors import UserError

KINDS = {"cine": True, "dce": False, "perf": False}  # folder: whether its clips are one heart beat
MASKS = ("mask", "dseg")
NOT_RUN = ("sub", "ses", "slice", "view", "desc", "label")  # entities that do not tell the series of a session apart
UNTOLD_VIEWS = ("cine", "bold", "image", "t1w")  # suffixes that do not say what is seen
Key = tuple[str, str, str]  # subject, session, run


@dataclass(frozen=True)
class Image:
    """One image file of a study, with its parsed name, its kind (folder) and its mask."""

    path: Path
    name: BidsName
    kind: str
    mask: Path | None


class BidsClipReader:
    """Series below `source`: one clip per slice, subject and session from the folders, run and view from the file names.

    Args:
        source: folder with `sub-*/[ses-*/]{cine,dce,perf}/*.nii[.gz]`.
        subjects: table `source` (`sub-01`, the folder), `participant_id`; otherwise the folders name the subjects.
        view: where neither the entity `view` nor the suffix says one.
        interval: s between frames where neither sidecar nor header knows it.
        window: frames per clip for longer recordings.
        skip_bad: leave unusable slices out instead of refusing the study.

    Raises:
        UserError: no such files, names that are not BIDS, or two files for one series.
    """

    def __init__(
        self,
        source: Path,
        *,
        subjects: Path | None = None,
        view: str | None = None,
        interval: float | None = None,
        window: int | None = None,
        skip_bad: bool = False,
    ) -> None:
        check_options(interval, window)
        self.source, self.subjects = Path(source), None if subjects is None else Path(subjects)
        self.view, self.interval, self.window, self.skip_bad = view or "", interval, window, skip_bad
        self._names = SubjectNames.open(self.subjects)
        self._images = self._find()
        numbers = [_number(image.name) for images in self._images.values() for image in images]
        self._first_slice = min((number for number in numbers if number is not None), default=0)  # some count from 1
        self._scans = [Scan(*self._identity(key, images)) for key, images in sorted(self._images.items())]

    def scans(self) -> list[Scan]:
        """See `Reader`."""
        return self._scans

    def grid(self) -> None:
        """See `Reader`: there is none."""
        return

    def shared_files(self) -> dict[str, Path]:
        """See `Reader`."""
        return {} if self.subjects is None else {"subjects": self.subjects}

    def description(self) -> dict[str, dict[str, object]]:
        """See `Reader`. Unknown where folders of both sorts are mixed, or beats are cut into windows."""
        beats = {KINDS[image.kind] for images in self._images.values() for image in images}
        cyclic = beats.pop() if len(beats) == 1 else None
        return {"cine": {"cyclic": None if cyclic and self.window is not None else cyclic}}

    def read(self, scan: Scan) -> ClipRows:
        """See `Reader`. Holds the images of one study."""
        sources: list[tuple[str, Callable[[], Clip] | Clip]] = []
        for image in self._images[(scan.subject, scan.session, scan.run)]:
            try:
                sources += self._clips(image)
            except UserError as error:
                if not self.skip_bad:
                    raise
                sources.append((str(image.path), _again(error)))
        return collect(sources, window=self.window, skip_bad=self.skip_bad, study=f"{scan.files[0].parent}")

    def _clips(self, image: Image) -> list[tuple[str, Callable[[], Clip] | Clip]]:
        header = open_stack(image.path)
        notes = sidecars(image.path, self.source)
        listed = _frame_times(notes)
        slices = header.shape[2] if len(header.shape) > 2 else 1
        last_is_time = len(header.shape) == 3 and listed is not None and len(listed) == slices
        stack = read_stack(image.path, last_is_time=last_is_time, image=header)
        times = self._times(image, stack, notes, listed)
        masks, labelled = _masks(image.mask, stack, self.source) if image.mask is not None else (None, None)
        own = _number(image.name) if len(stack.frames) == 1 else None
        clips: list[tuple[str, Callable[[], Clip] | Clip]] = []
        for number in range(len(stack.frames)):
            clip = stack.clip(number, view=self._view(image), times=times, masks=masks, labelled=labelled)
            where = f"{image.path}: slice {number + 1}" if len(stack.frames) > 1 else str(image.path)
            clips.append((where, clip if own is None else replace(clip, slice=own - self._first_slice)))
        return clips

    def _times(
        self, image: Image, stack: Stack, notes: Sequence[Path], listed: Float[np.ndarray, "time"] | None
    ) -> Float[np.ndarray, "time"] | None:
        count = stack.frames.shape[1]
        if listed is not None:
            if len(listed) != count:
                raise UserError(
                    f"{image.path}: has {count} frames, but its sidecar {len(listed)} frame times; correct FrameTimes"
                )
            return listed - listed[0]
        keys = ("TemporalResolution", "RepetitionTime") if image.kind == "perf" else ("TemporalResolution",)
        stated = (_seconds(notes, key) for key in keys)
        interval = next((value for value in stated if value is not None), None) or stack.interval or self.interval
        return regular_times(count, interval)

    def _view(self, image: Image) -> str:
        if image.name.get("view"):
            return image.name.get("view")
        suffix = image.name.suffix.lower()
        return self.view if suffix in UNTOLD_VIEWS else suffix

    def _find(self) -> dict[Key, list[Image]]:
        if not self.source.is_dir():
            raise UserError(f"{self.source}: no such folder; give the folder that holds sub-*/")
        files = [
            path
            for kind in KINDS
            for pattern in (f"sub-*/{kind}/*.nii*", f"sub-*/ses-*/{kind}/*.nii*")
            for path in sorted(self.source.glob(pattern))
            if path.is_file() and not path.name.startswith(".") and path.name.endswith((".nii", ".nii.gz"))
        ]
        named = [(path, _checked_name(path)) for path in files]
        images = [entry for entry in named if entry[1].suffix not in MASKS]
        if not images:
            raise UserError(f"{self.source}: no sub-*/[ses-*/]{{{','.join(KINDS)}}}/*.nii.gz in it; try --layout files")
        masks = _match_masks(images, [entry for entry in named if entry[1].suffix in MASKS])
        varying = {
            key
            for _, name in images
            for key in name.entities
            if key not in NOT_RUN and (key == "run" or len({other.get(key) for _, other in images}) > 1)
        }
        found: dict[Key, list[Image]] = {}
        taken: dict[tuple[Key, str, str, str], Path] = {}
        for path, name in images:
            subject, session = self._person(path)
            run = "_".join(f"{key}-{value}" for key, value in name.entities.items() if key in varying)
            image = Image(path, name, path.parent.name, masks.get(path))
            series = ((subject, session, run), image.kind, self._view(image), name.get("slice"))
            if series in taken:
                raise UserError(f"{path}: is the same series as {taken[series].name}; tell them apart by run- or slice-")
            taken[series] = path
            found.setdefault(series[0], []).append(image)
        return found

    def _person(self, path: Path) -> tuple[str, str]:
        """Subject and session from the folders: they are what tells recordings apart where names were copied."""
        parts = path.relative_to(self.source).parts
        return self._names.of(parts[0]), parts[1] if parts[1].startswith("ses-") else ""

    def _identity(self, key: Key, images: Sequence[Image]) -> tuple[str, tuple[Path, ...], str, str]:
        files: dict[Path, None] = {}
        for image in images:
            for path in (image.path, image.mask):
                if path is not None:
                    files |= dict.fromkeys([path, *sidecars(path, self.source)])
        return key[0], tuple(files), key[1], key[2]


def _checked_name(path: Path) -> BidsName:
    name = parse_name(path.name)
    if name is None:
        raise UserError(f"{path}: its name is not BIDS (sub-01_ses-1_view-sax_cine.nii.gz); rename it or use --layout files")
    return name


def _match_masks(images: Sequence[tuple[Path, BidsName]], masks: Sequence[tuple[Path, BidsName]]) -> dict[Path, Path]:
    """Mask by image: in one folder, with the same entities but `desc` and `label`, or named after the whole image."""
    found: dict[Path, Path] = {}
    for mask, name in masks:
        own = _without_description(name)
        fitting = [p for p, other in images if p.parent == mask.parent and _without_description(other) == own]
        if len(fitting) != 1:
            which = "no image" if not fitting else f"{len(fitting)} images ({', '.join(p.name for p in fitting)})"
            raise UserError(f"{mask}: belongs to {which} in its folder; name it as its image, with _dseg or _mask at the end")
        if fitting[0] in found:
            raise UserError(f"{mask}: a second mask of {fitting[0].name} beside {found[fitting[0]].name}; keep one")
        found[fitting[0]] = mask
    return found


def _without_description(name: BidsName) -> dict[str, str]:
    return {key: value for key, value in name.entities.items() if key not in ("desc", "label")}


def _masks(path: Path, stack: Stack, root: Path) -> tuple[np.ndarray, list[int]]:
    """Masks [slices, labelled, height, width] and the frames they belong to.

    Raises:
        UserError: of another shape than the image, or without a frame for each.
    """
    masks = read_masks(path)
    slices, count, height, width = stack.frames.shape
    listed = sidecar_value(sidecars(path, root), "Frames")
    if listed is None:
        listed = [0] if masks.shape[1] == 1 else list(range(count)) if masks.shape[1] == count else None
    if not isinstance(listed, list) or not all(isinstance(f, int) and not isinstance(f, bool) for f in listed):
        raise UserError(f"{path}: {masks.shape[1]} masks, but no list of their frames; add `Frames` (from 0) to its JSON")
    if (masks.shape[0], *masks.shape[2:]) != (slices, height, width):
        sizes = ["×".join(map(str, (s[3], s[2], s[0]))) for s in (masks.shape, stack.frames.shape)]
        raise UserError(f"{path}: is {sizes[0]}, but {stack.path.name} is {sizes[1]}; draw the mask on this image")
    if len(listed) != masks.shape[1] or len(set(listed)) < len(listed) or not all(0 <= f < count for f in listed):
        raise UserError(
            f"{path}: {masks.shape[1]} masks of frames {listed}, but {stack.path.name} has frames 0 to {count - 1}; "
            "correct `Frames`"
        )
    return masks, listed


def _frame_times(notes: Sequence[Path]) -> Float[np.ndarray, "time"] | None:
    for key in ("FrameTimes", "VolumeTiming"):
        value = sidecar_value(notes, key)
        if value is None:
            continue
        numbers = isinstance(value, list) and all(isinstance(t, int | float) and not isinstance(t, bool) for t in value)
        if not isinstance(value, list) or not numbers or not value:
            raise UserError(f"{notes[-1]}: {key} is no list of times; give seconds, one per frame")
        return np.asarray(value, dtype=np.float64)
    return None


def _seconds(notes: Sequence[Path], key: str) -> float | None:
    value = sidecar_value(notes, key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not INTERVAL_RANGE[0] <= value <= INTERVAL_RANGE[1]:
        raise UserError(f"{notes[-1]}: {key} {value!r} is no time in seconds; correct it")
    return float(value)


def _number(name: BidsName) -> int | None:
    """Slice number of the entity `slice`; None where there is none."""
    return int(name.get("slice")) if name.get("slice").isdigit() else None


def _again(error: UserError) -> Callable[[], Clip]:
    """Raises the error where the clip would be read, so that it is noted like that of a single slice."""

    def fail() -> Clip:
        raise error

    return fail
