"""A small study without a leak, to plant one in, and what a leak of the suite is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.cohort_writer import CohortParts, PreparedScan, write_cohort
from ssl4neuro.data.scan import Scan, ScanRows
from ssl4neuro.evaluate.audit import audit
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.crossval import Candidate, Settings
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.problem import pose

SUBJECTS, DIM = 60, 12


@dataclass(frozen=True)
class Leak:
    """One leak and its clean twin.

    Attributes:
        name: as in the first column of docs/leaks.md.
        does: what the toolkit does about it. What cannot happen in it is planted in a stand-in, which its detector must find.
        check: start of the check's name, or words of the error.
        run: `run(planted, folder)` gives the checks, or raises.
    """

    name: str
    does: Literal["stops", "flags", "cannot happen"]
    check: str
    run: Callable[[bool, Path], Sequence[Check]]


def study(seed: int = 0, subjects: int = SUBJECTS) -> tuple[pd.DataFrame, np.ndarray]:
    """One scan per subject: a table with the usual columns, none of which goes with `group`, and features that do a little."""
    rng = np.random.default_rng([seed, 0x1EA])
    group = rng.permutation(np.repeat(["control", "patient"], [subjects - subjects // 2, subjects // 2]))
    table = pd.DataFrame({"subject": [f"sub-{number:04d}" for number in rng.choice(9000, subjects, replace=False) + 1000]})
    table = table.assign(session="", run="", group=group, site=rng.choice(["A", "B", "C"], subjects))
    table = table.assign(age=rng.normal(40, 12, subjects).round(1), sex=rng.choice(["F", "M"], subjects))
    table = table.assign(n_volumes=rng.integers(180, 240, subjects), tr=rng.choice([2.0, 2.5], subjects))
    table["scan_date"] = (pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, subjects), "D")).strftime(
        "%Y-%m-%d"
    )
    patient = (table["group"] == "patient").to_numpy()
    x = rng.normal(size=(subjects, DIM)) @ rng.normal(size=(DIM, DIM)) + 0.6 * patient[:, None] * rng.normal(size=DIM)
    x += rng.normal(size=(3, DIM))[table["site"].map({"A": 0, "B": 1, "C": 2})] + 0.03 * table[["age"]].to_numpy()
    return table, (3 + x).astype(np.float32)


def checks_of(
    table: pd.DataFrame, x: np.ndarray, *, target: str = "group", unit: str = "subject", **given: Any
) -> tuple[Check, ...]:
    """The audit of a linear probe of these features."""
    overlap = given.pop("allow_overlap", False)
    site = "site" if "site" in table else None
    problem = pose(table, table[target], target, unit, site=site, allow_overlap=overlap)
    return audit(problem, [Candidate("joint", ArrayFeatures(x[problem.kept]), LinearProbe())], Settings(folds=4), **given)


def patients(table: pd.DataFrame) -> np.ndarray:
    """Who is one."""
    return (table["group"] == "patient").to_numpy()


def course_cohort(
    folder: Path,
    table: pd.DataFrame,
    *,
    files: Sequence[str] | None = None,
    settings: dict | None = None,
    lost: pd.DataFrame | None = None,
) -> Cohort:
    """A prepared cohort of courses with one scan per line of the table.

    Args:
        files: path of each scan's source as recorded.
        lost: lines of participants of whom no scan could be used.
    """
    scans = []
    for number, line in enumerate(table.itertuples()):
        courses = np.random.default_rng([number, 5]).normal(size=(3, 40)).astype(np.float32)
        rows = ScanRows(courses, 2.0, np.arange(1, 4), ["a", "b", "c"], None, {"n_volumes": 40.0})
        source = {"file": files[number] if files else f"{line.subject}.csv", "sha256": f"{number:064x}", "bytes": 1}
        scans.append(
            PreparedScan(Scan(line.subject, (), line.session, line.run), rows, str(number), f"{number:064x}", [source])
        )
    scans.sort(key=lambda item: (item.scan.subject, item.scan.session))
    people = table.drop_duplicates("subject").rename(columns={"subject": "participant_id"}).drop(columns=["session", "run"])
    people = people if lost is None else pd.concat([people, lost], ignore_index=True)
    parts = CohortParts("study", "courses", settings={"source": "courses", **(settings or {})}, participants=people)
    return write_cohort(folder / "cohort", scans, parts)
