"""`ssl4neuro prepare`: from what a lab has on disk to a cohort.

Every reader hands over the rows of one scan at a time; sign, trend and scale are then treated alike (`standardise.py`). A scan
is done when its rows lie beside the output under a key made of everything that determines them, so a run that was killed
goes on where it stopped, and a later run redoes only what has changed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.preparation import Job, Labels, prepare
from ssl4neuro.data.readers import BidsReader, CourseReader, GiftReader, MelodicReader
from ssl4neuro.data.readers.canica import SEED, group_grid, group_maps, listed_scans
from ssl4neuro.data.readers.lesions import LesionMaskedReader, LesionMasks
from ssl4neuro.data.readers.naming import dataset_root
from ssl4neuro.data.restart import FileHashes, digest
from ssl4neuro.errors import UserError

LEAK_NOTE = "CanICA is fitted on all {n} subjects; over test subjects that is a leak: list the others in --canica-subjects"


def prepare_ica(
    out: str | Path,
    *,
    bids: str | Path | None = None,
    maps: str | Path | None = None,
    canica: int | None = None,
    canica_subjects: str | Path | None = None,
    melodic: Sequence[str | Path] = (),
    templates: str | Path | None = None,
    assignment: str | Path | None = None,
    gift: str | Path | None = None,
    mask: str | Path | None = None,
    networks: str | Path | None = None,
    participants: str | Path | None = None,
    sessions: str | Path | None = None,
    resolution: float | None = None,
    task: str | None = None,
    space: str | None = None,
    run: str | None = None,
    confounds: str | None = None,
    band: tuple[float, float] | None = None,
    drop_volumes: int = 0,
    lesions: str | Path | None = None,
    workers: int = 1,
    skip_bad: bool = False,
    name: str | None = None,
    replace: bool = False,
) -> Cohort:
    """Prepare spatial maps and courses from exactly one of `bids`, `melodic`, `gift`.

    Args:
        out: cohort folder to write; with unchanged sources and options nothing is done, changed scans alone are redone.
        bids: fMRIPrep-like derivatives, dual-regressed onto `maps` (4-D image) or onto `canica` group components.
        canica_subjects: table (participant_id) of the subjects that CanICA is fitted on; None for all, which is a leak if
            some of them are to be tested on. The list is recorded.
        melodic: folders of single-scan MELODIC output; `templates` and `networks` name its components, `assignment` is the
            review table of an earlier run as corrected.
        gift: folder of GIFT output.
        mask: brain mask, which also fixes the grid; otherwise the maps' own.
        networks: table `component`, `network`.
        participants, sessions: label tables; found by themselves in a BIDS folder, or above all MELODIC folders.
        resolution: voxel size in mm to resample to.
        task, space, run, confounds, drop_volumes: selection and cleaning of BIDS scans, see `BidsReader`.
        band: pass band in Hz.
        lesions: folder of lesion masks, `sub-01[_ses-post]*.nii.gz`; see `readers.lesions`.
        workers: processes that read scans.
        skip_bad: go on without scans that cannot be used and list them in cohort.json.
        name: name of the dataset, which the leakage firewall hashes with the subject; by default the source folder's.
        replace: overwrite a cohort that was made with other options or of other scans.

    Raises:
        UserError: not exactly one source, options of another source, or anything wrong with the sources.
    """
    _one_source({"--bids": bids, "--melodic": tuple(melodic), "--gift": gift})
    given = {"--maps": maps, "--canica": canica, "--canica-subjects": canica_subjects, "--task": task, "--space": space}
    given |= {"--run": run, "--confounds": confounds, "--drop-volumes": drop_volumes}
    _belongs("--bids", given, bids is not None)
    _belongs("--melodic", {"--templates": templates, "--assignment": assignment}, bool(melodic))
    options: dict[str, Any] = {"band": list(band) if band else None, "resolution": resolution}
    selection: dict[str, Any] = {}
    shared: dict[str, Any] = {"mask": _path(mask), "networks": _path(networks), "resolution": resolution}
    warnings: list[str] = []
    images: dict[str, Path] = {}
    job_band = band
    masks = None if lesions is None else LesionMasks.find(Path(lesions))
    if bids is not None:
        if (maps is None) == (canica is None):
            raise UserError(f"{bids}: dual regression needs group maps; give either --maps FILE or --canica K")
        root = Path(bids)
        cleaning: dict[str, Any] = {"confounds": confounds, "band": band, "drop_volumes": drop_volumes, "lesions": masks}
        chosen: dict[str, Any] = {"task": task, "space": space, "run": run}
        reader: Any = BidsReader(root, maps=_path(maps), **shared, **cleaning, **chosen)
        if canica is not None:
            fit = listed_scans(reader.scans(), _path(canica_subjects))
            subjects = sorted({scan.subject for scan in fit})
            file, key = _canica(Path(out), fit, canica, _path(mask), resolution)
            images["group_maps.nii.gz"] = file
            if canica_subjects is None:
                warnings.append(LEAK_NOTE.format(n=len(subjects)))
            reader = BidsReader(root, maps=file, **shared, **cleaning, **chosen)
            options |= {"canica": canica, "canica_subjects": subjects, "canica_key": key, "canica_seed": SEED}
        options |= {"confounds": confounds, "drop_volumes": drop_volumes}
        selection = {**chosen, "space_found": reader.space}
        job_band = None  # the reader filters between its two regressions
        source = "bids"
        labels = Labels.found(root, _path(participants), _path(sessions))
    elif melodic:
        folders = [Path(folder) for folder in melodic]
        root, source = dataset_root(folders), "melodic"
        labels = Labels.found(root, _path(participants), _path(sessions))
        own = root / "sessions.tsv"
        times = sessions if sessions is not None or not own.is_file() else own
        reader = MelodicReader(
            folders, **shared, templates=_path(templates), sessions=_path(times), assignment=_path(assignment)
        )
    else:
        assert gift is not None
        root, source = Path(gift), "gift"
        reader = GiftReader(root, **shared, participants=_path(participants), sessions=_path(sessions))
        labels = Labels.found(root, _path(participants), _path(sessions))
    if masks is not None:
        reader = LesionMaskedReader(reader, masks)
        options["lesions"] = "masked"  # which ones is in the scans' own files
        warnings += reader.notes()
    job = Job(
        out=Path(out), reader=reader, kind="ica", source=source, root=root, name=name, options=options, selection=selection,
        band=job_band, labels=labels, workers=workers, skip_bad=skip_bad, replace=replace, warnings=warnings, images=images,
    )  # fmt: skip
    return prepare(job)


def prepare_courses(
    out: str | Path,
    *,
    timeseries: str | Path,
    participants: str | Path | None = None,
    sessions: str | Path | None = None,
    tr: float | None = None,
    networks: str | Path | None = None,
    time_axis: int | None = None,
    band: tuple[float, float] | None = None,
    drop_volumes: int = 0,
    workers: int = 1,
    skip_bad: bool = False,
    name: str | None = None,
    replace: bool = False,
) -> Cohort:
    """Prepare region or component time series without maps. Options as in `prepare_ica` and `CourseReader`.

    Raises:
        UserError: anything wrong with the sources.
    """
    source = Path(timeseries)
    reader = CourseReader(source, tr=tr, networks=_path(networks), time_axis=time_axis, drop_volumes=drop_volumes)
    root = source if source.is_dir() else source.parent
    options = {"band": list(band) if band else None, "tr": tr, "drop_volumes": drop_volumes, "time_axis": time_axis}
    job = Job(
        out=Path(out), reader=reader, kind="courses", source="courses", root=root, name=name, options=options, selection={},
        band=band, labels=Labels.found(root, _path(participants), _path(sessions)), workers=workers, skip_bad=skip_bad,
        replace=replace,
    )  # fmt: skip
    return prepare(job)


def _canica(out: Path, scans: list[Any], components: int, mask: Path | None, resolution: float | None) -> tuple[Path, str]:
    """Group maps and their key: taken from the existing cohort or an earlier attempt where nothing has changed."""
    from ssl4neuro.data.preparation import existing_cohort, work_folder

    work = work_folder(out)
    hashes = FileHashes(work / "hashes.json")
    files = [hashes.of(scan.files[0]) for scan in scans]
    hashes.save()
    key = digest(["canica", SEED, components, files, None if mask is None else hashes.of(mask), resolution])
    old = existing_cohort(out)
    if old is not None and old.info["settings"].get("canica_key") == key:
        return old.path / "group_maps.nii.gz", key
    file = work / key[:16] / "group_maps.nii.gz"
    if not file.is_file():
        print(f"CanICA: {components} components of {len(scans)} scans", file=sys.stderr)
        group_maps(file, scans, components, group_grid(scans, mask, resolution))
    return file, key


def _one_source(sources: dict[str, Any]) -> None:
    given = [option for option, value in sources.items() if value not in (None, ())]
    if len(given) != 1:
        what = f"{' and '.join(given)} are given" if given else "no source is given"
        raise UserError(f"prepare ica: {what}; give exactly one of {', '.join(sources)}")


def _belongs(source: str, options: dict[str, Any], here: bool) -> None:
    wrong = [option for option, value in options.items() if value not in (None, 0)]
    if wrong and not here:
        raise UserError(f"prepare ica: {wrong[0]} belongs to {source}; leave it out")


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
