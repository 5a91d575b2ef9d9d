"""EMIDEC's own layout: late gadolinium enhancement of the short axis, `Case_*/Images/*.nii.gz` and `Case_*/Contours/*.nii.gz`.

A. Lalande et al., "Emidec: A Database Usable for the Automatic Evaluation of Myocardial Infarction from Delayed-Enhancement
Cardiac MRI", Data 2020.
"""

from dataclasses import replace
from pathlib import Path

from ssl4neuro.data.clip import ClipRows
from ssl4neuro.data.readers.clip_checks import check_options, collect
from ssl4neuro.data.readers.nifti_clips import open_stack, read_masks, read_stack
from ssl4neuro.data.readers.subject_names import SubjectNames
from ssl4neuro.data.scan import Scan
from ssl4neuro.errors import UserError

IMAGES, CONTOURS = "Images", "Contours"


class EmidecReader:
    """Static images: one clip of one frame per slice, with its mask (1 cavity, 2 myocardium, 3 infarct, 4 no-reflow).

    Args:
        source: folder with `Case_*/`.
        subjects: table `source` (name of the folder), `participant_id`; otherwise folders name the subjects.
        view: instead of `lge`.
        interval, window: of no use for a single frame; taken so that all readers have the same options.
        skip_bad: leave unusable slices out instead of refusing the study.

    Raises:
        UserError: no such folders, or not one image in a folder.
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
        self.view, self.window, self.skip_bad = view or "lge", window, skip_bad
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
        """See `Reader`."""
        path = scan.files[0]
        image = open_stack(path)
        if image.shape[3:] not in ((), (1,)):
            raise UserError(f"{path}: is 4-D, but EMIDEC's images are static; use --layout files for cine")
        stack = read_stack(path, image=image)
        if stack.spacing == (1.0, 1.0):  # lost in most copies, and no LGE has pixels of a millimetre exactly
            stack = replace(stack, spacing=None)
        stack = replace(stack, interval=None)
        masks = None
        if len(scan.files) > 1:
            masks = read_masks(scan.files[1])
            if masks.shape != stack.frames.shape:
                sizes = ["×".join(map(str, shape)) for shape in (open_stack(scan.files[1]).shape, image.shape)]
                raise UserError(f"{scan.files[1]}: is {sizes[0]}, but the image is {sizes[1]}; take the contours of this case")
        labelled = None if masks is None else [0]
        clips = (
            (f"{path}: slice {number + 1}", stack.clip(number, view=self.view, masks=masks, labelled=labelled))
            for number in range(len(stack.frames))
        )
        return collect(clips, window=self.window, skip_bad=self.skip_bad, study=f"{path.parent.parent}")

    def _find(self) -> list[Scan]:
        if not self.source.is_dir():
            raise UserError(f"{self.source}: no such folder; give the folder that holds Case_*/")
        folders = sorted(p.parent for p in self.source.rglob(IMAGES) if p.is_dir())
        if not folders:
            raise UserError(f"{self.source}: no Case_*/{IMAGES}/*.nii.gz in it; give EMIDEC's folder or another --layout")
        scans: dict[str, Scan] = {}
        for folder in folders:
            subject = self._names.of(folder.name)
            if subject in scans:
                raise UserError(f"{folder}: is {subject}, and so is another folder; keep one of the two")
            images, contours = _images(folder / IMAGES), _images(folder / CONTOURS)
            if len(images) != 1 or len(contours) > 1:
                raise UserError(
                    f"{folder}: has {len(images)} images and {len(contours)} contours; one image and at most one file of "
                    "contours belong there"
                )
            scans[subject] = Scan(subject, (*images, *contours))
        return [scans[subject] for subject in sorted(scans)]


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.nii*") if not p.name.startswith(".")) if folder.is_dir() else []
