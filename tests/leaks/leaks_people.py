"""Somebody on both sides of the split."""

from pathlib import Path

import numpy as np
import pandas as pd
from leak_world import Leak, checks_of, patients, study

from ssl4neuro.data.prepare import prepare_courses
from ssl4neuro.evaluate.audit.evidence import Evidence
from ssl4neuro.evaluate.audit.people import people
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.crossval import Settings, make_folds
from ssl4neuro.evaluate.folds import Fold
from ssl4neuro.evaluate.problem import pose


def two_visits() -> tuple[pd.DataFrame, np.ndarray]:
    """Everybody twice, the second visit much like the first."""
    table, x = study()
    again = pd.concat([table.assign(session="ses-1"), table.assign(session="ses-2")], ignore_index=True)
    noise = np.random.default_rng(1).normal(0, 0.5, (2 * len(x), x.shape[1]))
    return again, (np.concatenate([x, x]) + noise).astype(np.float32)


def split_by_row(planted: bool, folder: Path) -> list[Check]:
    """Folds of rows, against the toolkit's own of subjects."""
    table, _ = two_visits()
    problem = pose(table, table["group"], "group", "session")
    folds = make_folds(problem, Settings(folds=4))
    if planted:
        parts = np.array_split(np.random.default_rng(0).permutation(len(table)), 4)
        folds = [[Fold(np.setdiff1d(np.arange(len(table)), part), np.sort(part)) for part in parts]]
    return people(Evidence(problem, [], folds))


def two_spellings(planted: bool, folder: Path) -> tuple[Check, ...]:
    """The second visit of ten people in a file that drops `sub-`."""
    table, x = two_visits()
    if planted:
        second = table.index[table["session"] == "ses-2"][:10]
        table.loc[second, "subject"] = table.loc[second, "subject"].str.removeprefix("sub-")
    return checks_of(table, x, unit="session")


def visits_with_ids(planted: bool, folder: Path) -> tuple[Check, ...]:
    """Each visit of a person has an ID of its own: S12_v1, S12_v2."""
    table, x = two_visits()
    if planted:
        table["subject"] += table["session"].str.replace("ses-", "_v")
    return checks_of(table, x, unit="session")


def augmented(planted: bool, folder: Path) -> tuple[Check, ...]:
    """Flipped copies of the patients' scans as further subjects, to balance the classes; or further patients."""
    table, x = study()
    some = np.flatnonzero(patients(table))[:10]
    more = table.iloc[some].assign(subject=[f"sub-{n}" for n in range(100, 110)])
    if planted:
        more["subject"] = table["subject"].iloc[some] + "_aug1"
    rng = np.random.default_rng(2)
    return checks_of(pd.concat([table, more], ignore_index=True), np.concatenate([x, rng.permuted(x, axis=0)[:10]]))


def copied_file(planted: bool, folder: Path) -> tuple[Check, ...]:
    """The same table of time series under two IDs."""
    source = folder / "series"
    source.mkdir()
    for number in range(6):
        values = np.random.default_rng(0 if planted and number == 5 else number).normal(size=(60, 4))
        np.savetxt(source / f"sub-{number:02d}_timeseries.csv", values, delimiter=",")
    prepare_courses(folder / "cohort", timeseries=source, tr=2.0)
    return ()


def saved_again(planted: bool, folder: Path) -> tuple[Check, ...]:
    """Two scans come back under new IDs, rescaled, smoothed, with other headers: only what the features say is alike."""
    table, x = study()
    more = table.iloc[:2].assign(subject=["sub-0001", "sub-0002"])
    rng = np.random.default_rng(3)
    again = x[:2] + 0.02 * x.std(0) * rng.normal(size=(2, x.shape[1]))
    if not planted:
        again = x[rng.permutation(len(x))[:2]] + 0.8 * x.std(0) * rng.normal(size=(2, x.shape[1]))
    return checks_of(pd.concat([table, more], ignore_index=True), np.concatenate([x, again]).astype(np.float32))


LEAKS = [
    Leak("a subject, or one of two visits, in training and test fold", "cannot happen", "subject in both folds", split_by_row),
    Leak("one subject under two spellings of the ID", "flags", "one subject under two spellings", two_spellings),
    Leak("visits of one subject under IDs of their own", "flags", "visits or copies", visits_with_ids),
    Leak("augmented copies of a subject under IDs of their own", "flags", "visits or copies", augmented),
    Leak("the same file under two IDs", "stops", "same content", copied_file),
    Leak("the same scan under two IDs, saved again", "flags", "same scan under two IDs", saved_again),
]
