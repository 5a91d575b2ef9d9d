"""ACDC's own layout: a folder per patient with the 4-D short-axis cine, labelled frames, and Info.cfg.

O. Bernard et al., "Deep Learning Techniques for Automatic MRI Cardiac Multi-Structures Segmentation and Diagnosis: Is the
Problem Solved?", IEEE TMI 2018.
"""

import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from nibabel.spatialimages import SpatialImage

from ssl4neuro.data.clip import ClipRows
from ssl4neuro.data.readers.clip_checks import check_options, collect, known, regular_times
from ssl4neuro.data.readers.nifti_clips import CINE_INTERVAL, SPACING_RANGE, open_stack, read_masks, read_stack
from ssl4neuro.data.readers.subject_names import SubjectNames
from ssl4neuro.data.scan import Scan
from ssl4neuro.data.templates import read_table
from ssl4neuro.errors import UserError

FRAME = re.compile(r"_frame(\d+)(_gt)?\.nii(?:\.gz)?\Z")
WHOLE = re.compile(r"_4d\.nii(?:\.gz)?\Z")
INFO = "Info.cfg"
LABELS = {"group": "Group", "height": "Height", "weight": "Weight"}  # column of participants.tsv: key of Info.cfg


class AcdcReader:
    """Short-axis cine of patients: one clip per slice, with the masks (1 RV, 2 myocardium, 3 LV) of the labelled frames.

    Args:
        source: folder with `patientXXX/`, directly or in `training/` and `testing/`.
        subjects: table `source` (name of the folder), `participant_id`; otherwise folders name the subjects.
        view: instead of `sax`.
        interval: s between frames where the header has no plausible one (often a placeholder).
        window: frames per clip for longer recordings.
        skip_bad: leave unusable slices out instead of refusing the study.

    A column `spacing_known` of a participants.tsv in `source` says where the header's pixel spacing is real. Without it a
    spacing of exactly 1 × 1 mm counts as unknown.

    Raises:
        UserError: no such folders, one patient twice, a patient without 4-D file.
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
        self.view, self.interval, self.window, self.skip_bad = view or "sax", interval, window, skip_bad
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
        spacing = self._participants if self._spacing_known else None  # a table of labels only does not influence the clips
        files = {"subjects": self.subjects, "participants": spacing}
        return {role: path for role, path in files.items() if path is not None}

    def description(self) -> dict[str, dict[str, object]]:
        """See `Reader`. A cycle that is cut into windows is none."""
        return {"cine": {"cyclic": True if self.window is None else None}}

    def read(self, scan: Scan) -> ClipRows:
        """See `Reader`."""
        path = scan.files[0]
        image = open_stack(path)
        if len(image.shape) != 4:
            raise UserError(f"{path}: is 3-D, but a cine has time as its fourth axis; give ACDC's own 4-D file")
        labelled = _check(scan, image)
        stack = read_stack(path, image=image)
        masks = _masks(labelled) if labelled else None
        interval = stack.interval if stack.interval and CINE_INTERVAL[0] <= stack.interval <= CINE_INTERVAL[1] else None
        times = regular_times(stack.frames.shape[1], interval or self.interval)
        stack = replace(stack, spacing=self._spacing(path.parent.name, image), interval=None)
        clips = (
            (
                f"{path}: slice {number + 1}",
                stack.clip(number, view=self.view, times=times, masks=masks, labelled=sorted(labelled) or None),
            )
            for number in range(len(stack.frames))
        )
        return collect(clips, window=self.window, skip_bad=self.skip_bad, study=f"{path.parent}")

    def labels(self) -> pd.DataFrame | None:
        """What Info.cfg says: participant_id, group, height (cm), weight (kg) as text; None where nothing."""
        lines = []
        for scan in self._scans:
            info = read_info(scan.files[-1]) if scan.files[-1].name == INFO else {}
            lines.append({"participant_id": scan.subject} | {column: info.get(key, "") for column, key in LABELS.items()})
        table = pd.DataFrame(lines, columns=["participant_id", *LABELS]).drop_duplicates("participant_id", ignore_index=True)
        told = [column for column in LABELS if (table[column] != "").any()]
        return table[["participant_id", *told]] if told else None

    @cached_property
    def _participants(self) -> Path | None:
        path = self.source / "participants.tsv"
        return path if path.is_file() else None

    @cached_property
    def _spacing_known(self) -> dict[str, bool]:
        """By folder; empty where no table says so."""
        if self._participants is None:
            return {}
        table = read_table(self._participants, ())
        if not {"participant_id", "spacing_known"} <= set(table.columns):
            return {}
        pairs = zip(table["participant_id"], table["spacing_known"], strict=True)
        return {name.strip(): told.strip().lower() in ("true", "1", "yes") for name, told in pairs}

    def _spacing(self, folder: str, image: SpatialImage) -> tuple[float, float] | None:
        stated = self._spacing_known.get(folder)
        dx, dy = (known(float(size), *SPACING_RANGE) for size in image.header.get_zooms()[:2])
        if stated is False or dx is None or dy is None or (stated is None and dx == dy == 1.0):
            return None
        return dy, dx

    def _find(self) -> list[Scan]:
        if not self.source.is_dir():
            raise UserError(f"{self.source}: no such folder; give the folder that holds patientXXX/")
        marks = [p for p in self.source.rglob("*") if not p.name.startswith(".") and p.is_file()]
        folders = sorted({p.parent for p in marks if p.name == INFO or WHOLE.search(p.name) or FRAME.search(p.name)})
        if not folders:
            raise UserError(f"{self.source}: no patientXXX/patientXXX_4d.nii.gz in it; give ACDC's folder or another --layout")
        scans: dict[str, Scan] = {}
        for folder in folders:
            subject = self._names.of(folder.name)
            if subject in scans:
                raise UserError(f"{folder}: is {subject}, and so is {scans[subject].files[0].parent}; keep one of the two")
            scans[subject] = Scan(subject, _files(folder))
        return [scans[subject] for subject in sorted(scans)]


def read_info(path: Path) -> dict[str, str]:
    """Entries of Info.cfg (`Key: value` lines).

    Raises:
        UserError: not text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not readable text ({error}); copy it again") from error
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _files(folder: Path) -> tuple[Path, ...]:
    """The 4-D file first, the labelled frames, Info.cfg last."""
    own = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    whole = [p for p in own if WHOLE.search(p.name)]
    if len(whole) != 1:
        found = "no" if not whole else f"{len(whole)} files named"
        raise UserError(f"{folder}: {found} *_4d.nii.gz; a patient's folder holds one, so copy the folder again")
    return (*whole, *[p for p in own if FRAME.search(p.name)], *[p for p in own if p.name == INFO])


def _check(scan: Scan, image: SpatialImage) -> dict[int, Path]:
    """Masks by frame index (from 0), after all files of the study were found to agree.

    Raises:
        UserError: a frame, a mask or Info.cfg contradicts the 4-D file.
    """
    path, count = scan.files[0], image.shape[3]
    labelled: dict[int, Path] = {}
    for file in scan.files[1:]:
        match = FRAME.search(file.name)
        if match is None:
            _check_info(file, path, count)
            continue
        number = int(match[1])
        if not 1 <= number <= count:
            raise UserError(f"{file}: is frame {number}, but {path.name} has frames 1 to {count}; they are not of one study")
        shape = open_stack(file).shape
        if (*shape, 1)[:4] != (*image.shape[:3], 1):
            sizes = ["×".join(map(str, size)) for size in (shape, image.shape[:3])]
            raise UserError(f"{file}: is {sizes[0]}, but a frame of {path.name} is {sizes[1]}; take the file of the same study")
        if match[2]:
            labelled[number - 1] = file
    return labelled


def _check_info(file: Path, path: Path, count: int) -> None:
    info = read_info(file)
    for key in ("NbFrame", "ED", "ES"):
        text = info.get(key, "")
        if not text:
            continue
        value = int(text) if text.isdigit() else 0
        if value < 1:
            raise UserError(f"{file}: {key} '{text}' is no frame number from 1; correct it")
        if value > count or (key == "NbFrame" and value != count):
            raise UserError(f"{file}: says {key} {value}, but {path.name} has {count} frames; copy both again from the source")


def _masks(labelled: dict[int, Path]) -> UInt8[np.ndarray, "slices labelled height width"]:
    return np.concatenate([read_masks(labelled[frame]) for frame in sorted(labelled)], axis=1)
