"""The label where no brain or heart is: in the table, the names, the files, the scanner, and in who is missing."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from leak_world import Leak, checks_of, course_cohort, patients, study
from leaks_encoder import source

from ssl4neuro.data.clip import Clip, ClipRows
from ssl4neuro.data.cohort_writer import CohortParts, PreparedScan, write_cohort
from ssl4neuro.data.doctor import examine
from ssl4neuro.data.scan import Scan
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.covariates import covariate_table
from ssl4neuro.evaluate.probe import probe_arrays
from ssl4neuro.evaluate.problem import pose

Change = Callable[[pd.DataFrame, np.ndarray, np.random.Generator], pd.DataFrame]


def column(change: Change) -> Callable[[bool, Path], tuple[Check, ...]]:
    """`change(table, patient, rng)` plants; for the twin `patient` is dealt out anew."""

    def run(planted: bool, folder: Path) -> tuple[Check, ...]:
        table, x = study()
        rng = np.random.default_rng(4)
        patient = patients(table)
        return checks_of(change(table, patient if planted else rng.permutation(patient), rng), x)

    return run


def site(table: pd.DataFrame, patient: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    return table.assign(site=np.where(patient ^ (rng.random(len(table)) < 0.05), "A", "B"))


def length(table: pd.DataFrame, patient: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    return table.assign(n_volumes=200 + 15 * patient + rng.integers(0, 20, len(table)))


def repetition(table: pd.DataFrame, patient: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    return table.assign(tr=np.where(patient, 2.0, 2.2))


def date(table: pd.DataFrame, patient: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    days = pd.to_timedelta(400 * patient + rng.integers(0, 300, len(table)), "D")
    return table.assign(scan_date=(pd.Timestamp("2019-03-01") + days).strftime("%Y-%m-%d"))


def ids(table: pd.DataFrame, patient: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    return table.assign(subject=[f"sub-{'P' if p else 'C'}{n}" for p, n in zip(patient, table["subject"].str[4:], strict=True)])


def numbers(table: pd.DataFrame, patient: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    return table.assign(subject=[f"sub-{1000 + 500 * p + n}" for n, p in enumerate(patient)])


def gaps(table: pd.DataFrame, patient: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    return table.assign(age=table["age"].where(~patient | (rng.random(len(table)) < 0.3)))


def covariate(table: pd.DataFrame, patient: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    return table.assign(sex=np.where(patient, "1", "0"))


def visits_differ_in_length(planted: bool, folder: Path) -> tuple[Check, ...]:
    """Within subjects: the scan after treatment is longer."""
    table, x = study(subjects=30)
    both = pd.concat([table.assign(session=s, state=s) for s in ("ses-pre", "ses-post")], ignore_index=True)
    rng = np.random.default_rng(5)
    later = (both["state"] == "ses-post").to_numpy()
    both["n_volumes"] += 60 * (later if planted else rng.permutation(later))
    vectors = np.concatenate([x, x]) + rng.normal(0, 1, (60, x.shape[1]))
    return checks_of(both, vectors.astype(np.float32), target="state", unit="session")


def file_names(planted: bool, folder: Path) -> tuple[Check, ...]:
    """patients/sub-01.csv and controls/sub-02.csv."""
    table, x = study()
    places = np.where(patients(table), "patients", "controls") if planted else np.full(len(table), "data")
    cohort = course_cohort(folder, table, files=[f"{p}/{s}.csv" for p, s in zip(places, table["subject"], strict=True)])
    return checks_of(table, x, cohort=cohort)


def clips(kind: str) -> Callable[[bool, Path], tuple[Check, ...]]:
    """A cohort of clips in which one class is brighter, or has another pixel size."""

    def run(planted: bool, folder: Path) -> tuple[Check, ...]:
        table, x = study()
        rng = np.random.default_rng(6)
        marked = patients(table) if planted else rng.permutation(patients(table))
        scans = []
        for number, name in enumerate(table["subject"]):
            frames = rng.integers(0, 200, size=(4, 8, 8)).astype(np.int16) * (10 if kind == "scale" and marked[number] else 1)
            size = 1.4 if kind == "size" and marked[number] else 1.2 + 0.01 * rng.normal()
            clip = Clip(frames, "sax", 0, spacing=(size, size))
            rows = ClipRows([clip], {"n_clips": 1.0, "n_frames": 4.0})
            file = {"file": f"{name}.nii.gz", "sha256": f"{number:064x}", "bytes": 1}
            scans.append(PreparedScan(Scan(name, ()), rows, str(number), f"{number:064x}", [file]))
        scans.sort(key=lambda item: item.scan.subject)
        cohort = write_cohort(folder / "cohort", scans, CohortParts("clips", "clips", settings={"source": "clips"}))
        return checks_of(table, x, cohort=cohort)

    return run


def failed_scans(planted: bool, folder: Path) -> tuple[Check, ...]:
    """Twenty participants whose scans failed: all of them patients, or anybody."""
    table, x = study()
    lost = pd.DataFrame({"participant_id": [f"lost{n}" for n in range(20)], "group": "patient"})
    if not planted:
        lost["group"] = ["patient", "control"] * 10
    return checks_of(table, x, cohort=course_cohort(folder, table, lost=lost))


def no_site(planted: bool, folder: Path) -> tuple[Check, ...]:
    """Rows are left out for want of a site, which is known of controls only."""
    table, x = study()
    patient, rng = patients(table), np.random.default_rng(7)
    gone = (patient if planted else rng.permutation(patient)) & (rng.random(len(table)) < 0.5)
    table["site"] = table["site"].where(~gone)
    return checks_of(table, x, source=source(table, x, {}))


def not_in_the_table(planted: bool, folder: Path) -> tuple[Check, ...]:
    """A foreign table holds few of the patients in the table of participants."""
    table, x = study()
    rng = np.random.default_rng(8)
    patient = patients(table) if planted else rng.permutation(patients(table))
    kept = ~(patient & (rng.random(len(table)) < 0.6))
    table.rename(columns={"subject": "participant_id"})[["participant_id", "group"]].to_csv(
        folder / "people.tsv", sep="\t", index=False
    )
    rest = table[kept].reset_index(drop=True)
    return checks_of(rest, x[kept], source=source(rest, x[kept], {"foreign": True, "participants": str(folder / "people.tsv")}))


def preserved(planted: bool, folder: Path) -> tuple[Check, ...]:
    """Harmonisation that preserves the target writes it into the test rows."""
    table, _ = study()
    problem = pose(table, table["group"], "group", "subject", site="site")
    covariate_table(problem.table, ["group" if planted else "age"], problem.target, "preserve")
    return ()


def feature(noise: float) -> Callable[[bool, Path], tuple[Check, ...]]:
    """The label among the features, or a feature that goes with it as a strong marker would."""

    def run(planted: bool, folder: Path) -> tuple[Check, ...]:
        table, x = study()
        rng = np.random.default_rng(9)
        x[:, 3] = patients(table) + (noise if planted else 0.5) * rng.normal(size=len(x))
        return checks_of(table, x)

    return run


def header(planted: bool, folder: Path) -> tuple[Check, ...]:
    """The header's description says who is a patient; doctor reads it."""
    rng = np.random.default_rng(10)
    group = ["patient", "control"] * 8
    for number, name in enumerate(group):
        place = folder / f"sub-{number:02d}" / "func"
        place.mkdir(parents=True)
        values = rng.normal(500, 20, size=(5, 5, 5, 34)).astype(np.float32)
        image = nib.Nifti1Image(values, np.diag([3.0, 3.0, 3.0, 1.0]))
        image.header["descrip"] = f"{name if planted else 'scan'} {number}"
        image.header.set_zooms((3, 3, 3, 2))
        nib.save(image, place / f"sub-{number:02d}_task-rest_desc-preproc_bold.nii.gz")
    lines = [f"sub-{n:02d}\t{name}" for n, name in enumerate(group)]
    (folder / "participants.tsv").write_text("\n".join(["participant_id\tgroup", *lines]) + "\n")
    told = [f for f in examine(folder) if "the files tell 'group'" in f.problem]
    return tuple(Check("doctor", "flagged", finding.problem) for finding in told)


def site_is_label(planted: bool, folder: Path) -> tuple[Check, ...]:
    """Every site has one group: labels cannot be exchanged within a site, so there is no p-value."""
    table, x = study()
    rng = np.random.default_rng(12)
    table["site"] = np.where(patients(table) if planted else rng.permutation(patients(table)), "A", "B")
    group, subject, sites = (table[name].tolist() for name in ("group", "subject", "site"))
    return probe_arrays({"joint": x}, group, subject, sites=sites, permutations=20, bootstrap=0).checks


LEAKS = [
    Leak("site is the label", "stops", "no two labels can change places", site_is_label),
    Leak("site goes with the label", "flags", "site or scanner", column(site)),
    Leak("number of volumes goes with the label", "flags", "scan length", column(length)),
    Leak("number of volumes goes with the state of a subject", "flags", "scan length", visits_differ_in_length),
    Leak("repetition time goes with the label", "flags", "geometry and file format", column(repetition)),
    Leak("pixel size goes with the label", "flags", "geometry and file format", clips("size")),
    Leak("intensity scale goes with the label", "flags", "intensity scale", clips("scale")),
    Leak("date of the scan goes with the label", "flags", "date and order", column(date)),
    Leak("label in the letters of the subject ID", "flags", "subject IDs", column(ids)),
    Leak("label in the number of the subject ID", "flags", "subject IDs", column(numbers)),
    Leak("label in a folder or file name", "flags", "file names", file_names),
    Leak("label in a header field", "flags", "doctor", header),
    Leak("label in a covariate", "flags", "a covariate is the target", column(covariate)),
    Leak("label among the features", "flags", "a feature is the target", feature(0.0)),
    Leak("label with a little noise among the features", "flags", "a feature is the target", feature(0.05)),
    Leak("missing values go with the label", "flags", "missing values", column(gaps)),
    Leak("failed scans go with the label", "flags", "exclusions", failed_scans),
    Leak("rows left out for want of a site go with the label", "flags", "exclusions", no_site),
    Leak("participants without features go with the label", "flags", "exclusions", not_in_the_table),
    Leak("harmonisation preserves the target", "stops", "target", preserved),
]
