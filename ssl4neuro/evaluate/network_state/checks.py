"""What could make a network-state study look better than it is: checked on its own held-out scores (network_state.md §6)."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.network_state.cells import Cells
from ssl4neuro.evaluate.network_state.nuisance import auc_difference, fixed_columns, nuisance_columns
from ssl4neuro.evaluate.network_state.table import Row
from ssl4neuro.evaluate.nuisance_check import LEVEL, NAME
from ssl4neuro.evaluate.statistics import bootstrap_interval

SUBJECT, BOTH, LESION = "subject in both folds", "subjects with both states", "lesion in the maps"


def study_checks(scores: pd.DataFrame, scans: pd.DataFrame, masked: bool | Mapping[str, int] | None) -> list[Check]:
    """Checks that need no model.

    Args:
        masked: whether the maps were masked by the subjects' lesions before and after, or of how many subjects they were
            (`masked`, `subjects`); None if unknown.
    """
    folds = scores.groupby(["repeat", "subject"])["fold"].nunique()
    split = int((folds > 1).sum())
    told = (
        f"{split} subjects are tested in several folds of one repeat"
        if split
        else "every subject is tested in one fold of a repeat"
    )
    both = scans.groupby("subject")["state"].nunique() == 2
    found = [Check(SUBJECT, "flagged" if split else "passed", told)]
    text = f"{int(both.sum())} of {len(both)} subjects have scans in both states; only they are ordered and get recovery scores"
    found.append(Check(BOTH, "passed" if both.mean() >= 0.5 else "flagged", text))
    found.append(_lesion_check(masked))
    return found


def _lesion_check(masked: bool | Mapping[str, int] | None) -> Check:
    cavity = "a resection cavity alone can tell the later scan, whatever the networks do"
    if masked is None:
        return Check(LESION, "not checkable", f"not known whether lesions were masked; {cavity}")
    n, subjects = (int(masked["masked"]), int(masked["subjects"])) if isinstance(masked, Mapping) else (int(masked), 1)
    if not n:
        return Check(LESION, "not checkable", f"no lesion masks were given; {cavity}")
    if n < subjects:
        return Check(LESION, "flagged", f"{n} of {subjects} subjects have a lesion mask; in the others {cavity}")
    return Check(LESION, "passed", "both scans of a subject are masked by its lesion before and after")


def nuisance_check(
    own: Cells, alone: Cells | None, scans: pd.DataFrame, rows: Sequence[Row], p: float | None, *, bootstrap: int, seed: int
) -> Check:
    """Flagged where nuisance variables alone tell the states apart and the study's model is not clearly better.

    Args:
        own, alone: whole-brain scores of the model and of the nuisance-only model.
        rows: AUCs of the whole brain: the model, the nuisance-only model, and the model with nuisances regressed out, if any.
        p: of the nuisance-only model, by refitting.
    """
    if alone is None:
        return Check(
            NAME, "not checkable", "no variable of motion, image quality, length, age or scanner varies between the scans"
        )
    model, nuisance, *rest = rows
    gain = bootstrap_interval(
        lambda w: auc_difference(own, alone, w), own.subject, draws=bootstrap, seed=seed
    )  # fmt: skip
    known = ", ".join(nuisance_columns(scans))
    p_text = "" if p is None else f", p {p:.4f}"
    detail = f"{known} alone: AUC {_told(nuisance)}{p_text}; {model.model}, whole brain: {_told(model)}"
    detail += f", difference {gain.value:.2f} ({gain.low:.2f} to {gain.high:.2f})"
    detail += f"; with them regressed out {_told(rest[0])}" if rest else ""
    fixed = fixed_columns(scans)
    detail += f"; {', '.join(fixed)} cannot differ between a subject's scans" if fixed else ""
    detail += "; the age gap between the scans is not controlled" if "age" in fixed else ""
    above = p < LEVEL if p is not None else nuisance.ci_low > 0.5
    nothing_left = bool(rest) and not rest[0].ci_low > 0.5
    if above and (not gain.low > 0 or nothing_left):
        return Check(
            NAME, "flagged", f"confounded: {detail}. The study cannot tell a change of the networks from one of the scan"
        )
    if above:
        return Check(NAME, "passed", f"{detail}. Nuisance variables do tell the states apart, but the model is ahead of them")
    none = f"no evidence that nuisance variables tell the states apart (AUC {_told(nuisance)}{p_text})"
    return Check(NAME, "passed", f"{none}; {detail}")


def _told(row: Row) -> str:
    return f"{row.value:.2f} ({row.ci_low:.2f} to {row.ci_high:.2f})"
