"""`simulate ica`: a pre/post ICA cohort with known truth, written as the files that a user of FSL MELODIC has.

    OUT/sub-001/ses-pre/  melodic_IC.nii.gz  melodic_mix  melodic_networks.tsv  mask.nii.gz
    OUT/                  participants.tsv  sessions.tsv  networks.tsv  templates.nii.gz  dataset_description.json
    OUT/lesions/sub-001/  sub-001_ses-pre_label-lesion_mask.nii.gz  sub-001_ses-post_label-lesion_mask.nii.gz  (with a cavity)
    OUT/ground_truth/     truth.json  effect_<network>.nii.gz  subjects/<subject>.nii.gz  subjects.tsv  sessions.tsv
                          components.tsv

`networks.tsv` names the volumes of `templates.nii.gz`; what a session's own components are stands in its `melodic_networks.tsv`
(delete those files to try the assignment by template correlation). The same settings and seed give the same bytes.
"""

import gzip
import json
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from jaxtyping import Shaped

from ssl4neuro import atomic
from ssl4neuro.errors import UserError
from ssl4neuro.progress import track
from ssl4neuro.registry import suggest
from ssl4neuro.simulate.cohort import IcaSettings, Person, SimulatedCohort, SimulatedScan
from ssl4neuro.simulate.courses import fnc
from ssl4neuro.simulate.difficulty import Difficulty, describe

FORMATS = ("melodic",)


def simulate_ica(
    out: Path,
    *,
    subjects: int = 40,
    sessions: int = 2,
    networks: int = 5,
    components: int = 1,
    resolution: float = 8.0,
    seed: int = 0,
    confounded: bool = False,
    effect: float = 1.0,
    sites: int = 2,
    motion: float = 0.15,
    tr: float = 2.0,
    cavity: bool = False,
    format: str = "melodic",
    show: bool = True,
) -> Path:
    """Write a simulated pre/post cohort to the new folder `out` and print how hard it is.

    Args:
        out: folder to create.
        subjects: any number from 2; a subject's data do not depend on it.
        sessions: scans of each subject, half of them before (`pre`) and half after the operation (`post`).
        networks: 1 to 5: motor, vision, language, frontal, temporal.
        components: independent components of each network in a session.
        resolution: voxel size, whole mm from 2 to 10.
        seed: of everything.
        confounded: let scanner gain, head motion and scan length go with the state.
        effect: size of the state effect; 1 is calibrated (see `oracle.py`), 0 the null.
        sites: number of scanners; subjects take turns.
        motion: median of the mean framewise displacement, mm.
        tr: repetition time, s.
        cavity: let the operation leave a cavity, which alone tells the states apart, and write the lesion masks.
        format: `melodic`.
        show: print the summary.

    Raises:
        UserError: `out` exists, or an option is out of range.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format}: not a format that is written{suggest(format, FORMATS)}")
    settings = IcaSettings(
        subjects=subjects, sessions=sessions, networks=networks, components=components, resolution=resolution, seed=seed,
        effect=effect, confounded=confounded, sites=sites, motion=motion, tr=tr, cavity=cavity,
    )  # fmt: skip
    out = Path(out)
    with atomic.new_folder(out) as folder:
        numbers = _write(folder, SimulatedCohort(settings))
    if show:
        scans = f"{subjects} subjects x {sessions} sessions x {networks * components} components at {resolution:g} mm"
        kind = f"effect {effect:g}{', confounded' if confounded else ''}{', cavity' if cavity else ''}"
        print(f"{out}: {scans}, seed {seed}, {kind}\n{describe(numbers)}")
    return out


def _write(folder: Path, cohort: SimulatedCohort) -> dict[str, object]:
    difficulty, truth = Difficulty(cohort), GroundTruth(cohort)
    (folder / "ground_truth" / "subjects").mkdir(parents=True)
    for person, scans in track(cohort, "simulating", total=len(cohort), unit="subject"):
        for scan in scans:
            write_melodic(folder / scan.subject / scan.session, cohort, scan)
            write_lesion(folder / "lesions" / scan.subject, cohort, scan)
            difficulty.add(scan)
            truth.add(scan)
        truth.add_person(person)
        own = person.field + cohort.templates * person.texture
        save_volumes(folder / "ground_truth" / "subjects" / f"{person.name}.nii.gz", cohort, own.astype(np.float32))
    numbers = difficulty.numbers()
    write_tables(folder, cohort, truth)
    truth.write(folder / "ground_truth", numbers)
    return numbers


def write_melodic(folder: Path, cohort: SimulatedCohort, scan: SimulatedScan) -> None:
    """One session as MELODIC leaves it: maps, courses (one column per component), mask, and an expert's labels."""
    folder.mkdir(parents=True)
    save_volumes(folder / "melodic_IC.nii.gz", cohort, scan.maps, step=scan.tr)
    save_volumes(folder / "mask.nii.gz", cohort, np.ones(scan.maps.shape[1], dtype=np.uint8))
    lines = ["  ".join(f"{value:.6g}" for value in row) for row in scan.courses.T]
    (folder / "melodic_mix").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = [f"{number}\t{name}" for number, name in enumerate(scan.network, start=1)]
    (folder / "melodic_networks.tsv").write_text("\n".join(["component\tnetwork", *rows]) + "\n", encoding="utf-8")


def write_lesion(folder: Path, cohort: SimulatedCohort, scan: SimulatedScan) -> None:
    """The mask that a neurosurgeon would draw in this session, if there is anything to draw."""
    if scan.lesion is not None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{scan.subject}_{scan.session}_label-lesion_mask.nii.gz"
        save_volumes(folder / name, cohort, scan.lesion.astype(np.uint8))


def write_tables(folder: Path, cohort: SimulatedCohort, truth: "GroundTruth") -> None:
    """The tables and images that the whole dataset shares."""
    write_table(folder / "participants.tsv", truth.people)
    columns = ["participant_id", "session_id", "state", "tr", "mean_fd", "tsnr"]
    write_table(folder / "sessions.tsv", [{key: row[key] for key in columns} for row in truth.sessions])
    write_table(folder / "networks.tsv", [{"component": k, "network": name} for k, name in enumerate(cohort.names, start=1)])
    save_volumes(folder / "templates.nii.gz", cohort, cohort.templates.astype(np.float32))
    # Subjects of one seed are the same people whatever the other settings: the name tells the leakage firewall so.
    name = f"ssl4neuro simulated ICA, seed {cohort.settings.seed}"
    description: dict[str, object] = {"Name": name, "BIDSVersion": "1.9.0", "DatasetType": "derivative", "License": "CC0"}
    description["GeneratedBy"] = [{"Name": "ssl4neuro simulate ica"}]
    (folder / "dataset_description.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


class GroundTruth:
    """What was put into the data, collected scan by scan."""

    def __init__(self, cohort: SimulatedCohort) -> None:
        self.cohort = cohort
        self.people: list[dict[str, object]] = []
        self.sessions: list[dict[str, object]] = []
        self.components: list[dict[str, object]] = []
        self.subjects: list[dict[str, object]] = []

    def add(self, scan: SimulatedScan) -> None:
        """Note one session and its components (`component` counts from 1, as in the MELODIC folder)."""
        key = {"participant_id": scan.subject, "session_id": scan.session}
        nuisance = {"mean_fd": scan.nuisance.mean_fd, "tsnr": scan.nuisance.tsnr, "n_volumes": scan.nuisance.volumes}
        latent = {"scanner_gain": scan.nuisance.gain, "latent": round(scan.latent, 6)}
        self.sessions.append({**key, "state": scan.state, "tr": scan.tr, **nuisance, **latent})
        for k, name in enumerate(scan.network):
            values = {
                "sign": int(scan.sign[k]),
                "change": round(float(scan.change[k]), 6),
                "slope": round(float(scan.slope[k]), 6),
            }
            self.components.append({**key, "component": k + 1, "network": name, "state": scan.state, **values})

    def add_person(self, person: Person) -> None:
        """Note who a subject is, and what is its own in each network."""
        age, site = person.age, f"site-{person.site + 1}"
        self.people.append({"participant_id": person.name, "age": age, "sex": person.sex, "site": site})
        correlation = fnc(person.loadings)
        for k, name in enumerate(self.cohort.names):
            shift = {f"shift_{axis}": round(float(v), 6) for axis, v in zip("xyz", person.shift[k], strict=True)}
            change = {"change": round(float(person.change[k]), 6), "slope": round(float(person.slope[k]), 6)}
            edges = {f"fnc_{n}": round(float(r), 6) for n, r in zip(self.cohort.names, correlation[k], strict=True)}
            self.subjects.append({"participant_id": person.name, "network": name, **shift, **change, **edges})

    def write(self, folder: Path, numbers: dict[str, object]) -> None:
        """Tables, one effect map per network (post minus pre on average, in units of a node's peak), settings and numbers."""
        write_table(folder / "sessions.tsv", self.sessions)
        write_table(folder / "components.tsv", self.components)
        write_table(folder / "subjects.tsv", self.subjects)
        for name, effect in zip(self.cohort.names, self.cohort.effects, strict=True):
            save_volumes(folder / f"effect_{name}.nii.gz", self.cohort, effect.astype(np.float32))
        truth = {"settings": asdict(self.cohort.settings), "networks": self.cohort.names, "difficulty": numbers}
        (folder / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")


def save_volumes(path: Path, cohort: SimulatedCohort, values: Shaped[np.ndarray, "*maps voxels"], step: float = 1.0) -> None:
    """Write in-mask values as a 3-D or 4-D NIfTI in MNI space; `step` (s) goes into the header of a 4-D one.

    The gzip header gets no time and no name, so that equal images are equal files.
    """
    volume = np.moveaxis(cohort.brain.volume(values), 0, -1) if values.ndim == 2 else cohort.brain.volume(values)
    image = nib.Nifti1Image(volume, cohort.brain.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_sform(cohort.brain.affine, code="mni")
    image.header.set_qform(cohort.brain.affine, code="mni")
    if values.ndim == 2:
        image.header["pixdim"][4] = step
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    """Tab-separated, one line per row, columns of the first row."""
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False, lineterminator="\n")
