"""Properties of scans that say nothing about a brain or a heart, sorted by what they are, from tables and cohort records."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ssl4neuro.data.association import missing
from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.embeddings import SCAN_KEY
from ssl4neuro.data.scan_properties import GEOMETRY, INTENSITY, KINDS, LENGTH, SITE, file_pattern, id_patterns, kind_of
from ssl4neuro.evaluate.audit.evidence import Evidence
from ssl4neuro.evaluate.features import NUISANCE_COLUMNS

IDS, FILES, MISSING = "subject IDs", "file names", "missing values"
Grouped = dict[str, dict[str, pd.Series]]
KEYS = {*SCAN_KEY, "row", "seen", "component", "network", "slice", "view"}


def described(evidence: Evidence) -> Grouped:
    """Columns of the table that are properties of the acquisition, by kind of property; one value per unit."""
    problem = evidence.problem
    found: Grouped = {kind: {} for kind in KINDS}
    for column in map(str, problem.table):
        kind = kind_of(column)
        if kind is not None and column != problem.target and column not in KEYS:
            found[kind][column] = evidence.per_unit(problem.table[column])
    if problem.site is not None:
        found[SITE][problem.site] = evidence.per_unit(problem.table[problem.site].astype(str))
    if evidence.scheme == "between subjects":
        scans = pd.Series(problem.scans).groupby(evidence.codes).nunique()
        found[LENGTH]["number of scans"] = scans
    return found


def gaps(evidence: Evidence) -> dict[str, pd.Series]:
    """Which units lack a value, for the columns of nuisances and acquisition."""
    table = evidence.problem.table
    used = {*NUISANCE_COLUMNS, *evidence.covariates}
    columns = [c for c in map(str, table) if (c in used or kind_of(c)) and c not in KEYS and c != evidence.problem.target]
    return missing({c: evidence.per_unit(table[c]) for c in columns})


def named(evidence: Evidence) -> dict[str, pd.Series]:
    """What the IDs of subjects look like: their letters, their number, and its first digit where all have as many."""
    if evidence.scheme != "between subjects":
        return {}
    return id_patterns(pd.Series([name[0] for name in evidence.names]))


def recorded(evidence: Evidence) -> Grouped:
    """What the cohort knows of every scan: names and formats of its files, numbers of the acquisition, intensities of clips."""
    if evidence.cohort is None:
        return {}
    cohort, known = evidence.cohort, set(map(str, evidence.problem.table))
    tables = {FILES: _files(cohort), LENGTH: _numbers(cohort, known)}
    if isinstance(cohort, ClipCohort):
        clips = _clips(cohort, evidence.seed)
        tables |= {
            GEOMETRY: clips.drop(columns=["mean intensity", "largest value"]),
            INTENSITY: clips[["mean intensity", "largest value"]],
        }
    units = {kind: evidence.of_scans(table) for kind, table in tables.items() if len(table.columns)}
    return {kind: {str(c): table[c] for c in table} for kind, table in units.items()}


def _files(cohort: Cohort) -> pd.DataFrame:
    """Folder and name of each scan's first file without its own subject, session, run and numbers; and its ending."""
    lines = {}
    for source in cohort.info["sources"]:
        key = tuple(source[name] for name in SCAN_KEY)
        if key not in lines and "file" in source:
            lines[key] = file_pattern(source["file"], key)
    return _by_scan(lines, ["file name", "file type"])


def _numbers(cohort: Cohort, known: set[str]) -> pd.DataFrame:
    """Lengths that are not in the table of the problem already, and how many rows each scan gave."""
    lines = {tuple(scan[name] for name in SCAN_KEY): scan["nuisance"] for scan in cohort.info["prepared"]}
    table = pd.DataFrame.from_dict(lines, orient="index")
    table.index = pd.MultiIndex.from_tuples(list(lines), names=SCAN_KEY)
    table = table[[c for c in table if kind_of(str(c)) == LENGTH and c not in known]].copy()
    if "rows" not in known:
        table["rows"] = cohort.index.groupby(SCAN_KEY).size().reindex(table.index)
    return table


def _clips(cohort: ClipCohort, seed: int, most: int = 2000) -> pd.DataFrame:
    """Size, spacing, number type and intensity of the middle clip of each scan, from its middle frame."""
    index = cohort.index
    rows = np.array([own[len(own) // 2] for own in index.groupby("group_code", sort=False).indices.values()])
    if len(rows) > most:
        rows = np.sort(np.random.default_rng([seed, 0xC11]).choice(rows, most, replace=False))
    lines = {}
    for row in rows:
        clip, place = cohort.clip(int(row)), index.loc[row]
        frame = clip.frames[len(clip.frames) // 2]
        size = (float(place["height"]), float(place["width"]), float(place["spacing_row"]), float(place["interval"]))
        known = "known" if clip.spacing is not None else "unknown"
        lines[tuple(place[name] for name in SCAN_KEY)] = (
            *size,
            known,
            str(clip.frames.dtype),
            float(frame.mean()),
            float(frame.max()),
        )
    columns = [
        "height",
        "width",
        "spacing (mm)",
        "frame interval (s)",
        "spacing",
        "number type",
        "mean intensity",
        "largest value",
    ]
    return _by_scan(lines, columns)


def _by_scan(lines: Mapping[tuple, tuple], columns: list[str]) -> pd.DataFrame:
    if not lines:
        return pd.DataFrame(columns=[])
    return pd.DataFrame(list(lines.values()), columns=columns, index=pd.MultiIndex.from_tuples(list(lines), names=SCAN_KEY))
