"""What is predicted, at which level, from whom: labels turned into codes, with everything dropped on the way counted."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from ssl4neuro.data.embeddings import SCAN_KEY, Embeddings, Unit
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.features import CODES
from ssl4neuro.evaluate.folds import Firewall, firewall
from ssl4neuro.evaluate.metrics import Task
from ssl4neuro.evaluate.statistics import constant_within
from ssl4neuro.registry import suggest

MAX_CLASS_VALUES = 10  # a number with more distinct values is a quantity
BOOKKEEPING = {"row", "rows", "seen", "subject", "run"}
REFERENCE_CLASSES = {
    "0",
    "control",
    "controls",
    "hc",
    "healthy",
    "normal",
    "pre",
    "ses-pre",
    "before",
    "baseline",
    "no",
    "false",
}


@dataclass(frozen=True)
class Problem:
    """Labelled rows at one unit of analysis."""

    target: str
    task: Task
    unit: Unit
    y: Float[np.ndarray, "rows"]  # class codes, or values
    classes: tuple[str, ...]  # empty in regression; the second of two is the positive one
    subjects: Int[np.ndarray, "rows"]
    scans: Int[np.ndarray, "rows"]
    sites: Int[np.ndarray, "rows"] | None
    wall: Firewall
    table: pd.DataFrame  # metadata of the rows, same order
    kept: Int[np.ndarray, "rows"]  # their positions in the embedding matrices
    notes: tuple[str, ...] = field(default=())
    site: str | None = None  # column of the sites

    @property
    def site_names(self) -> Shaped[np.ndarray, "rows"] | None:
        """Site of each row, as the table calls it."""
        return None if self.site is None else self.table[self.site].astype(str).to_numpy(dtype=object)

    @property
    def subject_level(self) -> bool:
        """Is the label a property of the subject?"""
        return bool(constant_within(self.y, self.subjects).all())


def default_unit(embeddings: Embeddings, target: str) -> Unit:
    """The level at which the target varies: subject, else session (scan), else sample.

    Raises:
        UserError: no such column, with the nearest names.
    """
    units: tuple[Unit, ...] = ("subject", "session", "sample")
    for unit in units:
        if target in embeddings.table(unit).columns and target not in BOOKKEEPING:
            return unit
    names = {c for unit in units for c in embeddings.table(unit).columns} - BOOKKEEPING
    bare_table = embeddings.info.get("foreign") and not embeddings.info.get("participants")
    advice = "; give the table that has it with --participants" if bare_table else ""
    raise UserError(f"target: no column '{target}' in {embeddings.path}{suggest(target, names)}{advice}")


def infer_task(values: pd.Series, task: Task | None) -> Task:
    """Numbers with more than ten distinct values are a regression target; two classes are binary."""
    distinct = values.nunique()
    if task == "regression" or (task is None and pd.api.types.is_numeric_dtype(values) and distinct > MAX_CLASS_VALUES):
        return "regression"
    return "binary" if distinct == 2 else "multiclass"


def pose(
    table: pd.DataFrame,
    values: pd.Series,
    target: str,
    unit: Unit,
    *,
    task: Task | None = None,
    site: str | None = None,
    positive: str | None = None,
    allow_overlap: bool = False,
) -> Problem:
    """Turn a table with subject, (session, run, seen) and a label per row into a problem.

    Raises:
        UserError: no usable label, one class or subject only, a class with too few subjects, everyone seen in pretraining.
    """
    notes = []
    table = _with_names(table, site)
    values = values.reset_index(drop=True)
    known = values.notna() & (values.astype(str).str.strip() != "")
    if not known.all():
        notes.append(f"{int((~known).sum())} of {len(known)} rows have no '{target}' and were left out")
    if site is not None:
        if site not in table:
            raise UserError(f"site: no column '{site}' in the {unit} table{suggest(site, map(str, table.columns))}")
        sites = table[site].reset_index(drop=True)
        unnamed = (sites.isna() | (sites.astype(str).str.strip() == "")) & known
        if unnamed.any():
            notes.append(f"{int(unnamed.sum())} rows have no '{site}' and were left out")
            known &= ~unnamed
    if not known.any():
        raise UserError(f"target: no row has a value of '{target}'")
    kind = infer_task(values[known], task)
    if kind == "regression" and not pd.api.types.is_numeric_dtype(values):
        raise UserError(
            f"target: '{target}' is not numeric (e.g. '{values[known].iloc[0]}'), so it cannot be a regression target"
        )
    names = values.map(class_name) if kind != "regression" else None
    seen = table["seen"].to_numpy(dtype=bool) if "seen" in table else np.zeros(len(table), dtype=bool)
    subjects = table["subject"].astype(str).to_numpy(dtype=str)
    if names is not None:
        known, more = _drop_rare(names, known, subjects, target, positive)
        notes += more
        if not allow_overlap:
            known, more = _drop_untestable(names, known, seen)
            notes += more
    kept = np.flatnonzero(known.to_numpy())
    table = table.iloc[kept].reset_index(drop=True)
    classes = _classes(names[known], positive) if names is not None else ()
    y = (
        values[known].to_numpy(dtype=np.float64)
        if names is None
        else names[known].map({name: code for code, name in enumerate(classes)}).to_numpy(dtype=np.float64)
    )
    if names is None and np.ptp(y) == 0:
        raise UserError(f"target: all rows have the same value of '{target}'; there is nothing to predict")
    wall = firewall(subjects[kept], seen[kept], allow_overlap)
    problem = Problem(
        target, "binary" if len(classes) == 2 else kind, unit, y, classes, _codes(table, ["subject"]),
        _codes(table, [c for c in SCAN_KEY if c in table]), None if site is None else _codes(table, [site]), wall, table, kept,
        tuple(notes), site,
    )  # fmt: skip
    _check_testable(problem)
    return problem


def _with_names(table: pd.DataFrame, site: str | None) -> pd.DataFrame:
    """The table with sites and other codes as words: site 2 is not half-way between sites 1 and 3."""
    table = table.copy()
    for column in dict.fromkeys((*CODES, site)):
        if column in table and pd.api.types.is_numeric_dtype(table[column]):
            table[column] = table[column].map(class_name, na_action="ignore").astype(object)
    return table


def _drop_rare(
    names: pd.Series, known: pd.Series, subjects: np.ndarray, target: str, positive: str | None
) -> tuple[pd.Series, list[str]]:
    """Without classes that one subject alone has: it could only be tested without training on it."""
    counts = pd.Series(subjects)[known].groupby(names[known]).nunique()
    if positive is not None and positive not in counts.index:
        raise UserError(f"positive: '{target}' has no value '{positive}'{suggest(positive, map(str, counts.index))}")
    if len(counts) < 2:
        raise UserError(f"target: all rows have the same value of '{target}' ({counts.index[0]}); a probe needs two classes")
    people = len(np.unique(subjects[known.to_numpy()]))
    if people < 2:
        raise UserError(
            f"target: only one subject ({subjects[known.to_numpy()][0]}) has '{target}'; a probe needs at least two"
        )
    rare = sorted(counts.index[counts < 2])
    if not rare:
        return known, []
    if len(counts) - len(rare) < 2:
        raise UserError(
            f"target: '{target}' has {len(counts)} values of which {len(rare)} occur in one subject only (e.g. '{rare[0]}');"
            " a class needs two subjects, and for numbers ask for it with --task regression"
        )
    return known & ~names.isin(rare), [f"classes of one subject only were left out: {', '.join(rare)}"]


def _drop_untestable(names: pd.Series, known: pd.Series, seen: np.ndarray) -> tuple[pd.Series, list[str]]:
    """Without classes of which the encoder has seen everybody, as long as two others can be tested."""
    testable = set(names[known & ~seen])
    lost = sorted(set(names[known]) - testable)
    if not lost or len(testable) < 2:
        return known, []
    advice = "hold out more subjects in pretraining (split.holdout) to test them"
    return known & ~names.isin(lost), [f"classes of which no unseen subject is left were left out: {', '.join(lost)}; {advice}"]


def _check_testable(problem: Problem) -> None:
    """Every class must be among the testable rows, otherwise held-out metrics are undefined."""
    missing = [name for code, name in enumerate(problem.classes) if not (problem.y[problem.wall.testable] == code).any()]
    if missing:
        raise UserError(
            f"target: no unseen subject has '{problem.target}' = '{missing[0]}', so it cannot be tested;"
            " hold out more subjects in pretraining or stamp the result with --allow-overlap"
        )


def _classes(names: pd.Series, positive: str | None) -> tuple[str, ...]:
    """Reference class first (healthy, pre, 0), positive class last, otherwise in alphabetical order."""
    return tuple(sorted(set(names), key=lambda name: (name == positive, name.lower() not in REFERENCE_CLASSES, name)))


def class_name(value: Any) -> str:
    """How a value of the target is called as a class: 1 for 1.0."""
    if isinstance(value, (float, np.floating)) and np.isfinite(value) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _codes(table: pd.DataFrame, columns: list[str]) -> np.ndarray:
    names = table[columns[0]].astype(str).to_numpy(dtype=str)
    for column in columns[1:]:
        names = np.char.add(np.char.add(names, "\t"), table[column].astype(str).to_numpy(dtype=str))
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
