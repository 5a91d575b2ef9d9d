"""Any folder of files that a format knows: NIfTI, video, animated TIFF and GIF, NumPy arrays, DICOM."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

from ssl4neuro.data.clip import Clip, ClipRows
from ssl4neuro.data.readers import arrays, video
from ssl4neuro.data.readers.clip_checks import check_options, collect, numbered
from ssl4neuro.data.readers.nifti_clips import read_masks, read_stack
from ssl4neuro.data.readers.subject_names import SubjectNames
from ssl4neuro.data.scan import Scan
from ssl4neuro.errors import UserError

NIFTI = (".nii.gz", ".nii")
MASK_ENDS = ("_mask", "_dseg", "_gt", "_seg")
BESIDE = (".json", ".tsv", ".csv", ".txt", ".md", ".cfg", ".xml", ".pdf", ".html", ".py", ".log", ".mat", ".zip", ".h5")
TABLES = ("participants.tsv", "sessions.tsv")


def read_nifti(path: Path, *, view: str = "", interval: float | None = None) -> list[Clip]:
    """One clip per slice, with the labels of a mask that is named after the file.

    Raises:
        UserError: unreadable, or a mask of another shape.
    """
    stack = read_stack(path)
    stack = stack if stack.interval is not None else replace(stack, interval=interval)
    mask = mask_of(path)
    if mask is None:
        return [stack.clip(number, view=view) for number in range(len(stack.frames))]
    masks = read_masks(mask)
    slices, count, height, width = stack.frames.shape
    if (masks.shape[0], *masks.shape[2:]) != (slices, height, width) or masks.shape[1] not in (1, count):
        sizes = ["×".join(str(shape[axis]) for axis in (3, 2, 0, 1)) for shape in (masks.shape, stack.frames.shape)]
        raise UserError(f"{mask}: is {sizes[0]}, but {path.name} is {sizes[1]}; draw one mask, or one per frame, on this image")
    labelled = list(range(masks.shape[1]))
    return [stack.clip(number, view=view, masks=masks, labelled=labelled) for number in range(slices)]


def mask_of(path: Path) -> Path | None:
    """The mask beside an image: `NAME_mask.nii.gz` and the like."""
    base, extension = _split(path)
    found = [path.with_name(base + end + other) for end in MASK_ENDS for other in NIFTI]
    return next((p for p in found if p.is_file()), None) if extension in NIFTI else None


# A new format is one function `(path, *, view, interval) -> list[Clip]` and one line here. Videos and DICOM are read apart:
# videos can be readable up to a frame, and a DICOM study is many files.
FORMATS: dict[str, Callable[..., list[Clip]]] = {
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".npy": arrays.read_npy,
    ".npz": arrays.read_npz,
    ".tif": arrays.read_pages,
    ".tiff": arrays.read_pages,
    ".gif": arrays.read_pages,
} | dict.fromkeys(video.EXTENSIONS, lambda path, **options: [video.read_video(path, **options).clip])


class FileReader:
    """Every file below `source` that a format knows.

    The first folder names the subject, else the file; a folder `ses-*` below it names the session.

    DICOM studies are known by the table `subjects` or a number only: no name of theirs gets into messages or the cohort.

    Args:
        source: folder, or one file.
        subjects: table `source` (folder or file without extension; PatientID for DICOM), `participant_id`.
        view: name of what is seen, for all clips that do not know it.
        interval: s between frames where a file does not know it.
        window: frames per clip for longer recordings.
        skip_bad: leave unusable clips out instead of refusing the study.

    Raises:
        UserError: nothing there that a format knows, or subjects that the table does not list.
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
        self._scans = self._find()

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
        """See `Reader`."""
        return {"cine": {"cyclic": None}}

    def read(self, scan: Scan) -> ClipRows:
        """See `Reader`. Holds one recording."""
        if scan.anonymous:
            return _dicom().read_dicom_study(
                scan.files, view=self.view, interval=self.interval, window=self.window, skip_bad=self.skip_bad
            )
        path, notes = scan.files[0], []
        try:
            if path.suffix.lower() in video.EXTENSIONS:
                recording = video.read_video(path, view=self.view, interval=self.interval, skip_bad=self.skip_bad)
                clips, notes = [recording.clip], recording.notes
            else:
                clips = FORMATS[format_of(path)](path, view=self.view, interval=self.interval)
        except MemoryError as error:
            raise UserError(f"{path}: too long for the memory; cut the file into shorter ones") from error
        names = [str(path) if len(clips) == 1 else f"{path}: slice {number + 1}" for number in range(len(clips))]
        rows = collect(zip(names, clips, strict=True), window=self.window, skip_bad=self.skip_bad, study=str(path))
        rows.left_out[:0] = notes
        return rows

    def _find(self) -> list[Scan]:
        if not self.source.exists():
            raise UserError(f"{self.source}: no such file or folder; check the path")
        files = [self.source] if self.source.is_file() else _below(self.source)
        images = [p for p in files if format_of(p) and not _is_mask(p)]
        scans = [*self._plain(images), *self._studies([p for p in files if not format_of(p) and _may_be_dicom(p)])]
        if not scans:
            raise UserError(
                f"{self.source}: none of its {len(files)} files can be read; clips are {', '.join(sorted(FORMATS))} or DICOM"
            )
        return sorted(scans, key=lambda scan: (scan.subject, scan.session, scan.run))

    def _plain(self, images: Sequence[Path]) -> list[Scan]:
        scans = []
        for path in images:
            parts = path.relative_to(self.source).parts if path != self.source else (path.name,)
            name = parts[0] if len(parts) > 1 else _split(path)[0]
            session = parts[1] if len(parts) > 2 and parts[1].startswith("ses-") else ""
            mask = mask_of(path)
            scans.append(Scan(self._names.of(name), (path,) if mask is None else (path, mask), session))
        return _told_apart(scans)

    def _studies(self, files: Sequence[Path]) -> list[Scan]:
        """DICOM studies, under IDs that identify nobody."""
        if not files:
            return []
        dicom = _dicom()
        files = [path for path in files if dicom.is_dicom(path)]
        studies = list(dicom.dicom_studies(self.source, files)) if files else []
        if not studies:
            return []
        if self._names.path is not None:
            subjects = self._names.of_patients([(s.patient, self._folder(s.files[0])) for s in studies])
        else:
            order = {patient: number for number, patient in enumerate(sorted({s.patient for s in studies}), start=1)}
            subjects = [f"sub-{order[study.patient]:04d}" for study in studies]
            print(
                f"warning: DICOM patients ({len(order)}) are numbered in the order of their identifiers; "
                "a new one changes that: name them with --subjects TSV",
                file=sys.stderr,
            )
        pairs = sorted(zip(subjects, studies, strict=True), key=lambda pair: (pair[0], pair[1].session, pair[1].key))
        return _told_apart([Scan(subject, tuple(s.files), s.session, anonymous=True) for subject, s in pairs])

    def _folder(self, path: Path) -> str:
        return path.relative_to(self.source).parts[0] if path != self.source else path.stem


def format_of(path: Path) -> str:
    """Extension of a format that reads it, else an empty string."""
    extension = _split(path)[1]
    return extension if extension in FORMATS else ""


def _below(root: Path) -> list[Path]:
    """Files in sorted order, without hidden ones."""
    found = (path for path in root.rglob("*") if not any(part.startswith(".") for part in path.relative_to(root).parts))
    return sorted(path for path in found if path.is_file())


def _split(path: Path) -> tuple[str, str]:
    """Name and extension in lower case, `.nii.gz` in one piece."""
    name = path.name
    end = ".nii.gz" if name.lower().endswith(".nii.gz") else path.suffix
    return name[: len(name) - len(end)], end.lower()


def _is_mask(path: Path) -> bool:
    """Whether it is the mask of an image beside it; a mask without one is taken for an image and seen by the user."""
    base, extension = _split(path)
    ends = [end for end in MASK_ENDS if extension in NIFTI and base.endswith(end)]
    return any(path.with_name(base.removesuffix(end) + other).is_file() for end in ends for other in NIFTI)


def _may_be_dicom(path: Path) -> bool:
    return path.suffix.lower() not in BESIDE and path.name not in TABLES


def _told_apart(scans: Iterable[Scan]) -> list[Scan]:
    """Numbered runs where a subject has several recordings in one session, in the order of their files."""
    scans = list(scans)
    runs = numbered(f"{scan.subject}\t{scan.session}" for scan in scans)
    return [replace(scan, run=run) for scan, run in zip(scans, runs, strict=True)]


def _dicom() -> ModuleType:
    return import_module("ssl4neuro.data.readers.dicom")
