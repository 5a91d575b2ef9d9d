"""Who trained a checkpoint, in counts: sites, age and sex of the training subjects, never a name and no small group."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from ssl4neuro.report.folder import read_tsv
from ssl4neuro.report.page import plural

SMALL = 5  # people in a group that is not counted exactly: an 87-year-old is a person, not a statistic
SEX = ("sex", "gender", "Sex", "Gender")
AGE = ("age", "Age", "age_at_scan")


def described(cohort: Path, subjects: Collection[str]) -> list[str]:
    """Sentences on sites, age and sex, as far as participants.tsv of the cohort holds them.

    Raises:
        UserError: participants.tsv is damaged.
    """
    table = read_tsv(cohort / "participants.tsv", ("participant_id",))
    if "participant_id" not in table:
        return ["Sites, age and sex: not known, because the cohort is not at hand or holds no participants table."]
    table = table[table["participant_id"].isin(set(subjects))]
    found = []
    if "site" in table and table["site"].notna().any():
        found.append(f"Sites: {table['site'].nunique()}.")
    found += [_sex(table[c]) for c in SEX if c in table][:1]
    found += [_age(pd.to_numeric(table[c], errors="coerce")) for c in AGE if c in table][:1]
    if not found:
        return ["Sites, age and sex: not recorded in participants.tsv."]
    return found


def _sex(values: pd.Series) -> str:
    counts = values.fillna("unknown").astype(str).value_counts().sort_index()
    return f"Sex: {', '.join(f'{name} {_count(int(n))}' for name, n in counts.items())}."


def _age(values: pd.Series) -> str:
    """By decades; where no decade could be counted, the median alone."""
    known = values.dropna()
    if not len(known):
        return "Age: not recorded."
    decades = (known // 10 * 10).astype(int).value_counts().sort_index()
    told = ", ".join(f"{low}–{low + 9}: {_count(int(n))}" for low, n in zip(decades.index.tolist(), decades, strict=True))
    missing = len(values) - len(known)
    lacking = f"; unknown for {plural(missing, 'subject')}" if missing else ""
    return f"Age in years, median {known.median():.0f}, subjects by decade: {told}{lacking}."


def _count(n: int) -> str:
    return str(n) if n >= SMALL else f"fewer than {SMALL}"
