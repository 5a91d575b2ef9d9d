"""Does something about the files tell one group of participants from another? For `doctor`: only the raw files show it.

A network reads such a mark as readily as a disease: a word in a header, a folder per group, another voxel size or number type.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ssl4neuro.data.association import Association, Labels, associate, flagged
from ssl4neuro.data.checks import Finding, Record
from ssl4neuro.data.readers.naming import bare
from ssl4neuro.data.scan_properties import file_pattern, kind_of
from ssl4neuro.data.tables import read_participants
from ssl4neuro.errors import UserError

MOST_CLASSES = 6
LEAST = 8  # subjects with a scan and a value
ADVICE = "a network can read this instead of the images; make it equal for all, or do not compare these groups"


def check_groups(records: Sequence[Record], table: Path, file: str) -> list[Finding]:
    """One warning per column of the table whose groups differ in their files; family-wise 1 % over everything looked at."""
    scans = _properties(records)
    if len(scans) < LEAST:
        return []
    try:
        people = read_participants(table, list(scans.index)).set_index("participant_id").reindex(scans.index)
    except UserError:  # reported by `check_participants`
        return []
    found: dict[str, list[Association]] = {}
    for column in people:
        values = people[column].dropna().astype(str).str.strip()
        sizes = values.value_counts()
        if kind_of(str(column)) is not None or not 2 <= len(sizes) <= MOST_CLASSES or sizes.min() < 2 or len(values) < LEAST:
            continue
        labels = Labels(np.unique(values, return_inverse=True)[1].astype(np.float64), len(sizes))
        own = (associate(name, scans[name].reindex(values.index), labels) for name in map(str, scans))
        found[str(column)] = [one for one in own if one is not None]
    sure = {id(one) for one in flagged([one for many in found.values() for one in many])}
    findings = []
    for column, many in found.items():
        told = ", ".join(one.words for one in many if id(one) in sure)
        if told:
            findings.append(Finding("warning", file, f"the files tell '{column}' ({told})", ADVICE))
    return findings


def _properties(records: Sequence[Record]) -> pd.DataFrame:
    """One line per subject: mean of what is a number, the first scan's words, and how many scans there are."""
    lines = []
    for record in records:
        if not record.subject:
            continue
        name, ending = file_pattern(record.file, (record.subject, record.session, record.run, bare(record.subject)))
        line: dict[str, object] = {"subject": record.subject, "file name": name, "file type": ending}
        line |= {"volumes": float(record.volumes) if record.volumes is not None else np.nan, "repetition time": record.tr}
        line |= {"mean intensity": record.intensity, **record.header}
        if record.shape is not None:
            line["matrix"] = "×".join(map(str, record.shape))
        if record.affine is not None:
            line["voxel size"] = "×".join(f"{size:.3g}" for size in np.linalg.norm(record.affine[:3, :3], axis=0))
        lines.append(line)
    if not lines:
        return pd.DataFrame()
    groups = pd.DataFrame(lines).groupby("subject")
    table = groups.first()
    for column in map(str, table.select_dtypes("number")):
        table[column] = groups[column].mean()
    return table.assign(**{"number of scans": groups.size().astype(float)})
