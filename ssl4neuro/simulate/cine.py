"""`simulate cine`: short-axis cine of beating hearts with known truth, in the BIDS-like form that `prepare clips` reads.

    OUT/sub-001/[ses-01/]cine/  sub-001[_ses-01]_view-sax_cine.nii.gz and .json, and one mask, _dseg or _mask
    OUT/                        participants.tsv  dataset_description.json
    OUT/ground_truth/           truth.json  scans.tsv  slices.tsv  masks/ (the mask that does not lie beside the images)

Images are [x, y, slice, time], base to apex. `_dseg` holds the anatomy (1 right ventricle, 2 myocardium, 3 left ventricle) at
ED and ES, `_mask` the region that hardly contracts at ED, which stands for microvascular obstruction (`methods/mvo.md` §10).
The same settings and seed give the same bytes.
"""

import gzip
import json
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Shaped

from ssl4neuro import atomic
from ssl4neuro.progress import track
from ssl4neuro.simulate.cine_cohort import CineScan, Person, SimulatedCine
from ssl4neuro.simulate.cine_oracle import CineDifficulty
from ssl4neuro.simulate.cine_settings import CineSettings
from ssl4neuro.simulate.ica import write_table

ED = 0
HYPOKINESIA = "hypokinesia"


def simulate_cine(out: str | Path, settings: CineSettings | None = None, *, show: bool = True) -> Path:
    """Write a simulated cine cohort to the new folder `out` and print how hard it is.

    Args:
        out: folder to create.
        settings: what is simulated; see `CineSettings`.
        show: print the summary.

    Raises:
        UserError: `out` exists, or the disk is full.
    """
    settings, out = settings or CineSettings(), Path(out)
    with atomic.new_folder(out) as folder:
        numbers = _write(folder, SimulatedCine(settings))
    if show:
        print(f"{out}: {settings.subjects} subjects, study {settings.study}, seed {settings.seed}, effect {settings.effect:g}")
        print(describe(numbers))
    return out


def describe(numbers: dict[str, object]) -> str:
    """How hard the cohort is, for people."""

    def told(oracle: str, what: str) -> str:
        found = numbers[oracle][what]  # type: ignore[index]
        return "not defined" if found is None else f"{found['auc']:.3f} ({found['low']:.3f}-{found['high']:.3f})"

    volume = numbers["ef_oracle"]
    return "\n".join([
        f"hypokinesia in {numbers['hypokinetic']} of {numbers['subjects']} subjects; AUC with 95 % interval by subject:",
        f"  slices, oracle that knows the motion model  {told('motion_oracle', 'slice')}",
        f"  slices, the same with the ED frame only     {told('ed_oracle', 'slice')}",
        f"  slices, their place in the stack alone      {told('position', 'slice')}",
        f"  subjects, oracle                            {told('motion_oracle', 'subject')}",
        f"  subjects, ED frame only                     {told('ed_oracle', 'subject')}",
        f"  subjects, logistic regression on ED frame   {told('ed_oracle', 'subject_logistic')}",
        f"ejection fraction by that oracle: R2 {volume['r2']:.3f}, mean absolute error {volume['mae_points']:.2f} points",  # type: ignore[index]
    ])  # fmt: skip


def _write(folder: Path, cohort: SimulatedCine) -> dict[str, object]:
    settings, difficulty = cohort.settings, CineDifficulty(cohort.settings)
    people: list[dict[str, object]] = []
    scans: list[dict[str, object]] = []
    slices: list[dict[str, object]] = []
    for person, sessions in track(cohort, "simulating", total=len(cohort), unit="subject"):
        for scan in sessions:
            stem = "_".join(part for part in (scan.subject, scan.session, "view-sax") if part)
            write_scan(folder / scan.subject / scan.session / "cine", stem, scan, settings.mask)
            other = "anatomy" if settings.mask == HYPOKINESIA else HYPOKINESIA
            write_mask(folder / "ground_truth" / "masks", stem, scan, other)
            difficulty.add(person, scan)
            scans.append(_scan_truth(person, scan))
            slices += _slice_truth(person, scan)
        people.append(_participant(person, sessions))
    numbers = difficulty.numbers()
    write_table(folder / "participants.tsv", people)
    write_table(folder / "ground_truth" / "scans.tsv", scans)
    write_table(folder / "ground_truth" / "slices.tsv", slices)
    truth = {"settings": asdict(settings), "difficulty": numbers}
    (folder / "ground_truth" / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    # Subjects of one seed and study are the same hearts whatever the other settings: the name tells the leakage firewall so.
    name = f"ssl4neuro simulated cine, study {settings.study}, seed {settings.seed}"
    description: dict[str, object] = {"Name": name, "BIDSVersion": "1.9.0", "DatasetType": "raw", "License": "CC0"}
    description["GeneratedBy"] = [{"Name": "ssl4neuro simulate cine"}]
    (folder / "dataset_description.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return numbers


def write_scan(folder: Path, stem: str, scan: CineScan, mask: str) -> None:
    """One cine with its sidecar and its mask."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / f"{stem}_cine.nii.gz", scan.frames, scan, scan.interval)
    times = [round(t * scan.interval, 5) for t in range(scan.frames.shape[1])]
    sidecar = {"FrameTimes": times, "SliceThickness": scan.spacing[1], "Modality": "MR"}
    (folder / f"{stem}_cine.json").write_text(json.dumps(sidecar, indent=1) + "\n", encoding="utf-8")
    write_mask(folder, stem, scan, mask)


def write_mask(folder: Path, stem: str, scan: CineScan, which: str) -> None:
    """Anatomy at ED and ES, or the region that hardly contracts at ED; `Frames` says which frames they belong to."""
    folder.mkdir(parents=True, exist_ok=True)
    region = which == HYPOKINESIA
    path = folder / f"{stem}_{'mask' if region else 'dseg'}.nii.gz"
    _save(path, scan.region[:, None] if region else scan.anatomy, scan, 1.0)
    frames = {"Frames": [ED] if region else [ED, scan.es]}
    Path(str(path).replace(".nii.gz", ".json")).write_text(json.dumps(frames) + "\n", encoding="utf-8")


def _save(path: Path, values: Shaped[np.ndarray, "slices time rows columns"], scan: CineScan, step: float) -> None:
    """[x, y, slice, time], spacings in mm and `step` in s; rows of the picture are y; no time and name in the header."""
    pixel, thickness = scan.spacing
    affine = np.diag([pixel, pixel, thickness, 1.0])
    affine[:2, 3] = -pixel * (np.array(values.shape[:1:-1]) - 1) / 2
    image = nib.Nifti1Image(np.ascontiguousarray(values.transpose(3, 2, 0, 1)), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = step
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=3, mtime=0))


def _participant(person: Person, sessions: list[CineScan]) -> dict[str, object]:
    volumes = sessions[0].lv_volume(person.heart)
    return {
        "participant_id": person.name,
        "site": person.site,
        "group": person.group,
        "hypokinesia": int(person.hypokinetic),
        "ef": round(float(100 * (1 - volumes.min() / volumes[ED])), 3),
        "edv": round(float(volumes[ED]), 3),
        "esv": round(float(volumes.min()), 3),
    }


def _scan_truth(person: Person, scan: CineScan) -> dict[str, object]:
    volumes = scan.lv_volume(person.heart)
    body, region = person.body, person.region
    return {
        "participant_id": person.name,
        "session_id": scan.session,
        "es_frame": scan.es,
        "interval": scan.interval,
        "beat": scan.beat.duration,
        "edv": round(float(volumes[ED]), 4),
        "esv": round(float(volumes.min()), 4),
        "wall_mm": round(body.wall, 4),
        "length_mm": round(body.length, 3),
        "twist_base_rad": round(body.twist[0], 5),
        "twist_apex_rad": round(body.twist[1], 5),
        "region_angle_rad": round(region.angle, 5),
        "region_half_angle_rad": round(region.half_angle, 5),
        "region_height": round(region.height, 5),
        "region_half_height": round(region.half_height, 5),
        "region_severity": round(person.severity, 5),  # 0: not in force
    }


def _slice_truth(person: Person, scan: CineScan) -> list[dict[str, object]]:
    pixel = scan.spacing[0] ** 2
    return [
        {
            "participant_id": person.name,
            "session_id": scan.session,
            "slice": k,
            "height": round(float(person.heart.heights[k]), 5),
            "centre_row": round(float(scan.centres[k, 0]), 4),
            "centre_column": round(float(scan.centres[k, 1]), 4),
            "hypokinetic": int(person.profile[k].max() > 0.5),
            "region_mm2": round(float((scan.region[k] > 0).sum() * pixel), 3),
        }
        for k in range(len(scan.frames))
    ]
