"""`ssl4neuro prepare ica | courses | clips`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from ssl4neuro.cli.apps import app, prepare_app

if TYPE_CHECKING:
    from ssl4neuro.data.cohort import Cohort


def _summary(cohort: "Cohort") -> str:
    info = cohort.info
    skipped = f"; {len(info['skipped'])} inputs skipped, listed in cohort.json" if info["skipped"] else ""
    return f"{cohort.path}: {info['rows']} rows of {info['scans']} scans of {info['subjects']} subjects{skipped}"


@prepare_app.command(name="ica")
def prepare_ica(
    out: Positional[Path],
    /,
    *,
    bids: Path | None = None,
    maps: Path | None = None,
    canica: int | None = None,
    canica_subjects: Path | None = None,
    melodic: tuple[Path, ...] = (),
    templates: Path | None = None,
    assignment: Path | None = None,
    gift: Path | None = None,
    mask: Path | None = None,
    networks: Path | None = None,
    participants: Path | None = None,
    sessions: Path | None = None,
    resolution: float | None = None,
    task: str | None = None,
    space: str | None = None,
    run: str | None = None,
    confounds: str | None = None,
    band: tuple[float, float] | None = None,
    drop_volumes: int = 0,
    lesions: Path | None = None,
    workers: int = 1,
    skip_bad: bool = False,
    name: str | None = None,
    replace: bool = False,
) -> int:
    """Spatial maps and time courses of independent components, from BIDS derivatives, MELODIC or GIFT.

    Args:
        out: cohort folder to write.
        bids: BIDS derivatives (fMRIPrep's naming); needs --maps or --canica.
        maps: 4-D spatial maps for dual regression.
        canica: number of group components to compute from the scans with nilearn's CanICA.
        canica_subjects: table of the subjects that CanICA is fitted on; leave test subjects out.
        melodic: FSL MELODIC folders, one per session.
        templates: 4-D template maps that MELODIC components are assigned to networks by.
        assignment: assignment.tsv of an earlier run, as corrected by you.
        gift: GIFT output folder.
        mask: brain mask; the maps' own when not given.
        networks: table with the columns component and network.
        participants: participants table, when it is not in the source folder.
        sessions: sessions table: labels, TR, or which MELODIC folder is which session.
        resolution: voxel size in mm to resample to.
        task: BIDS task, where there are several.
        space: BIDS space (with res, e.g. MNI152NLin2009cAsym or MNI152_res-10), where there are several.
        run: BIDS run; all runs when not given.
        confounds: nilearn's strategy: simple, scrubbing, compcor or ica_aroma.
        band: band-pass in Hz, low and high.
        drop_volumes: volumes to leave out at the start of every scan.
        lesions: folder of lesion masks named sub-01[_ses-post]*.nii.gz, in the space of the maps; a subject's masks are united
            and cut out of all of its scans.
        workers: scans read in parallel.
        skip_bad: go on without bad scans and list them in cohort.json.
        name: dataset name; the firewall compares subjects by it.
        replace: overwrite an existing cohort made with other settings.
    """
    from ssl4neuro.data.prepare import prepare_ica as prepare

    cohort = prepare(
        out, bids=bids, maps=maps, canica=canica, canica_subjects=canica_subjects, melodic=melodic, templates=templates,
        assignment=assignment, gift=gift, mask=mask, networks=networks, participants=participants, sessions=sessions,
        resolution=resolution, task=task, space=space, run=run, confounds=confounds, band=band, drop_volumes=drop_volumes,
        lesions=lesions, workers=workers, skip_bad=skip_bad, name=name, replace=replace,
    )  # fmt: skip
    print(_summary(cohort))
    return 0


@prepare_app.command(name="courses")
def prepare_courses(
    out: Positional[Path],
    /,
    *,
    timeseries: Path,
    participants: Path | None = None,
    sessions: Path | None = None,
    networks: Path | None = None,
    tr: float | None = None,
    time_axis: Literal[0, 1] | None = None,
    band: tuple[float, float] | None = None,
    drop_volumes: int = 0,
    workers: int = 1,
    skip_bad: bool = False,
    name: str | None = None,
    replace: bool = False,
) -> int:
    """Atlas or component time courses only, without maps.

    Args:
        out: cohort folder to write.
        timeseries: npz, csv, tsv or 1D file, or a folder of them.
        participants: participants table.
        sessions: sessions table with label columns.
        networks: table with the columns component and network.
        tr: repetition time in s.
        time_axis: axis of the arrays that is time, where it cannot be told.
        band: band-pass in Hz, low and high.
        drop_volumes: volumes to leave out at the start of every scan.
        workers: scans read in parallel.
        skip_bad: go on without bad scans and list them in cohort.json.
        name: dataset name; the firewall compares subjects by it.
        replace: overwrite an existing cohort made with other settings.
    """
    from ssl4neuro.data.prepare import prepare_courses as prepare

    cohort = prepare(
        out, timeseries=timeseries, participants=participants, sessions=sessions, networks=networks, tr=tr,
        time_axis=time_axis, band=band,
        drop_volumes=drop_volumes, workers=workers, skip_bad=skip_bad, name=name, replace=replace,
    )  # fmt: skip
    print(_summary(cohort))
    return 0


@prepare_app.command(name="clips")
def prepare_clips(
    out: Positional[Path],
    /,
    *,
    source: Path,
    layout: Literal["acdc", "emidec", "bids", "files"],
    subjects: Path | None = None,
    participants: Path | None = None,
    sessions: Path | None = None,
    view: str | None = None,
    interval: float | None = None,
    window: int | None = None,
    workers: int = 1,
    skip_bad: bool = False,
    name: str | None = None,
    replace: bool = False,
) -> int:
    """Cine, echo, DCE and microscopy clips, from NIfTI, DICOM, video files or arrays.

    Args:
        out: cohort folder to write.
        source: folder that holds the recordings.
        layout: acdc and emidec are those challenges' own; bids is sub-*/[ses-*/]{cine,dce,perf}; files takes any file it
            can read, DICOM folders included.
        subjects: table source, participant_id: what a folder, file or DICOM PatientID is called in the cohort.
        participants: participants table, when it is not in the source folder.
        sessions: sessions table with label columns.
        view: name of the view where the files say none, e.g. 4ch.
        interval: frame interval in s where the files say none.
        window: cut longer recordings into clips of this many frames.
        workers: studies read in parallel.
        skip_bad: go on without bad studies, slices and series, and list them in cohort.json.
        name: dataset name; the firewall compares subjects by it.
        replace: overwrite an existing cohort made with other settings.
    """
    from ssl4neuro.data.prepare_clips import prepare_clips as prepare

    cohort = prepare(
        out, source=source, layout=layout, subjects=subjects, participants=participants, sessions=sessions, view=view,
        interval=interval, window=window, workers=workers, skip_bad=skip_bad, name=name, replace=replace,
    )  # fmt: skip
    print(_summary(cohort))
    return 0


@app.command(name="prepare")
def _help() -> int:
    """Turn what is on disk into a cohort: prepare ica | courses | clips."""
    return prepare_app.cli(args=["--help"], prog="ssl4neuro prepare")
