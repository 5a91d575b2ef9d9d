"""Whether the answer may be in the motion, the scanner or the age: the nuisance-only model beside the embedding."""

from collections.abc import Sequence

from ssl4neuro.evaluate.baselines import NUISANCE_ONLY
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.crossval import Row
from ssl4neuro.evaluate.residualise import SUFFIX

NAME = "nuisance variables"
QUALITY = "course quality"  # its baseline is suffixed by the probe
LEVEL = 0.05


def nuisance_check(rows: Sequence[Row], columns: Sequence[str]) -> tuple[Check, list[str]]:
    """The check, and notes for the reader of the results where it is flagged.

    Flagged if nuisance variables alone are better than chance, or not worse than an embedding that is. That says that they
    could explain the result, not that they do: age goes with many diseases. Whole-brain averages of the courses that are as
    good as the embedding give a note only, for a disease may change them too.

    Args:
        rows: of all models; the first metric is judged.
        columns: of the nuisance-only model.
    """
    first = [row for row in rows if row.metric == rows[0].metric]
    alone = next((row for row in first if row.name == NUISANCE_ONLY), None)
    own = [row for row in first if not row.baseline and not row.name.endswith(SUFFIX)]
    best = max(own, key=lambda row: row.value)
    notes = [
        f"whole-brain averages of the courses alone give {_told(row)}, no less than {best.name} ({best.value:.2f}): acquisition"
        " or motion may be the answer, and no network is needed for it"
        for row in first
        if row.name.startswith(QUALITY) and _above_chance(row) and row.value >= best.value
    ]
    if alone is None:
        detail = (
            "no column of motion, image quality, length, age, sex or site varies between rows; whether they explain it is open"
        )
        return Check(NAME, "not checkable", detail), notes
    found = f"{', '.join(columns)} alone give {_told(alone)}; {best.name} gives {_told(best)}"
    left = [row for row in first if row.name == best.name + SUFFIX]
    after = f"; with them regressed out {_told(left[0])}" if left else ""
    if _above_chance(alone) or (_above_chance(best) and alone.value >= best.value):
        detail = f"{found}{after}: the answer may be in the motion, the scanner or the age"
        if left:
            detail += ", and part of what is left too, for regression takes out what is linear and measured"
        return Check(NAME, "flagged", detail), [f"nuisance-only {detail}", *notes]
    return Check(NAME, "passed", found + after), notes


def _above_chance(row: Row) -> bool:
    if row.p is not None:
        return row.p < LEVEL
    return row.chance is not None and row.ci_low > row.chance


def _told(row: Row) -> str:
    p = "" if row.p is None else f", p {row.p:.4f}"
    return f"{row.metric} {row.value:.2f} ({row.ci_low:.2f} to {row.ci_high:.2f}{p})"
