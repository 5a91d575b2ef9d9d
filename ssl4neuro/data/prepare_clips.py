"""`ssl4neuro prepare clips`: cine and video from what clinics and labs have on disk to a cohort."""

import sys
from pathlib import Path
from typing import Any

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.preparation import Job, Labels, prepare
from ssl4neuro.data.readers.clips import LAYOUTS
from ssl4neuro.errors import UserError
from ssl4neuro.registry import suggest


def prepare_clips(
    out: str | Path,
    *,
    source: str | Path,
    layout: str,
    subjects: str | Path | None = None,
    participants: str | Path | None = None,
    sessions: str | Path | None = None,
    view: str | None = None,
    interval: float | None = None,
    window: int | None = None,
    workers: int = 1,
    skip_bad: bool = False,
    name: str | None = None,
    replace: bool = False,
) -> Cohort:
    """Prepare a cohort of clips with their native frames, times and spacing.

    Args:
        out: cohort folder to write; with unchanged sources and options nothing is done, changed studies alone are redone.
        source: folder that holds the recordings.
        layout: name in `LAYOUTS`.
        subjects: table `source`, `participant_id`; a folder, file stem or DICOM PatientID to the subject's name in the cohort.
        participants, sessions: label tables; found by themselves in the source folder.
        view: name for clips whose files say none.
        interval: frame interval, s, where the files say none.
        window: longer recordings are cut into successive clips of this many frames.
        workers: processes that read studies.
        skip_bad: leave out what cannot be used and list it in cohort.json.
        name: name of the dataset, which the leakage firewall hashes with the subject; by default the source folder's.
        replace: overwrite a cohort that was made with other options or of other studies.

    Raises:
        UserError: anything wrong with an option or a source; nothing is written.
    """
    root = Path(source)
    if layout not in LAYOUTS:
        raise UserError(f"--layout: unknown layout '{layout}'{suggest(layout, LAYOUTS)}")
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; check --source")
    if interval is not None and interval <= 0:
        raise UserError(f"--interval {interval:g}: the frame interval is a number of seconds above 0")
    if window is not None and window < 1:
        raise UserError(f"--window {window}: a clip needs at least one frame")
    options: dict[str, Any] = {"layout": layout, "view": view, "interval": interval, "window": window}
    names = None if subjects is None else Path(subjects)
    reader = LAYOUTS[layout](root, subjects=names, view=view, interval=interval, window=window, skip_bad=skip_bad)
    labels = Labels.found(
        root, None if participants is None else Path(participants), None if sessions is None else Path(sessions)
    )
    job = Job(
        out=Path(out), reader=reader, kind="clips", source="clips", root=root, name=name, options=options, selection={},
        band=None, labels=labels, workers=workers, skip_bad=skip_bad, replace=replace,
    )  # fmt: skip
    cohort = prepare(job)
    still = cohort.info["statistics"]["cine"]["single_frames"]
    if still:
        print(
            f"warning: {out}: {still} of {len(cohort)} clips have one frame only and no motion to learn from", file=sys.stderr
        )
    return cohort
