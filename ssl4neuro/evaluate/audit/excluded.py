"""Who is not among the tested: does it depend on the target that scans failed, or that values are missing?"""

from pathlib import Path

import numpy as np
import pandas as pd

from ssl4neuro.data.association import Association, Labels, associate
from ssl4neuro.data.cohort import EXCLUDED, Cohort, read_labels
from ssl4neuro.data.readers.naming import bare
from ssl4neuro.data.tables import participant_names, read_participants
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.audit.evidence import Evidence
from ssl4neuro.evaluate.problem import class_name

NAME = "exclusions"
LEAST = 3  # excluded units with a known label; of fewer nothing can be said


def exclusions(evidence: Evidence) -> tuple[list[tuple[Association, Labels]], str]:
    """Associations of being left out with the target, and a sentence about what is known."""
    found, told = [], []
    for what, values, left in (_rows(evidence), _subjects(evidence)):
        if values is None or left.sum() < LEAST:
            told += [what] if values is not None and left.any() else []
            continue
        labels = _labels(values, evidence)
        one = None if labels is None else associate(NAME, pd.Series(np.where(left, "left out", "kept")), labels, what)
        found += [(one, labels)] if one is not None and labels is not None else []
        told.append(what)
    return found, "; ".join(told)


def _rows(evidence: Evidence) -> tuple[str, pd.Series | None, np.ndarray]:
    """Subjects whose rows have a label but were left out, for want of a site, say. Classes left out as wholes do not count."""
    source, problem = evidence.source, evidence.problem
    nothing = ("", None, np.zeros(0, dtype=bool))
    if source is None or problem.target not in source.table(problem.unit):
        return nothing
    table = source.table(problem.unit)
    kept = np.isin(np.arange(len(table)), problem.kept)
    values = table[problem.target].reset_index(drop=True)
    known = values.notna() & (values.astype(str).str.strip() != "")
    if problem.classes:
        known &= values.map(class_name).isin(problem.classes)
    lines = pd.DataFrame({"value": values, "left": ~kept, "subject": table["subject"].to_numpy()})[known.to_numpy()]
    by_subject = lines.groupby("subject").agg(value=("value", "first"), left=("left", "all"))
    left = by_subject["left"].to_numpy()
    return f"{left.sum()} subjects with a label left out", by_subject["value"].reset_index(drop=True), left


def _subjects(evidence: Evidence) -> tuple[str, pd.Series | None, np.ndarray]:
    """Participants of whom there is no usable scan, from the cohort's record or the user's table."""
    problem = evidence.problem
    nothing = ("", None, np.zeros(0, dtype=bool))
    if evidence.scheme != "between subjects":
        return nothing
    lost = _without_scan(evidence)
    if lost is None or problem.target not in lost:
        return nothing
    values = lost[problem.target].dropna()
    own = problem.table[problem.target].iloc[evidence.first]
    both = pd.concat([own, values], ignore_index=True)
    left = np.arange(len(both)) >= len(own)
    return f"{len(values)} participants without a usable scan", both, left


def _without_scan(evidence: Evidence) -> pd.DataFrame | None:
    cohort, source = evidence.cohort, evidence.source
    if cohort is not None and (cohort.path / EXCLUDED).is_file():
        return read_labels(cohort.path / EXCLUDED, ("participant_id",))
    table = None if source is None else source.info.get("participants")
    if source is None or not table or not Path(table).is_file():
        return None
    try:
        names = participant_names(Path(table))
        everyone = read_participants(Path(table), names)
    except UserError:  # of scans rather than of participants
        return None
    there = set(source.table("subject")["subject"].map(bare))
    return everyone[~everyone["participant_id"].map(bare).isin(there)]


def skipped(cohort: Cohort | None) -> int:
    """How many inputs `prepare` could not use."""
    return 0 if cohort is None else len(cohort.info["skipped"])


def _labels(values: pd.Series, evidence: Evidence) -> Labels | None:
    problem = evidence.problem
    if problem.classes:
        codes = pd.Index(problem.classes).get_indexer(pd.Index(values.map(class_name)))
        return Labels(codes.astype(np.float64), len(problem.classes), seed=evidence.seed) if (codes >= 0).all() else None
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
    return Labels(numbers, 0, seed=evidence.seed) if np.isfinite(numbers).all() else None
