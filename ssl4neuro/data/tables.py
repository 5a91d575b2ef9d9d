"""The user's tables of participants and sessions, in the forms in which they come, matched to the scans' names."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ssl4neuro.data.cohort import SCAN_KEY
from ssl4neuro.data.readers.naming import bare
from ssl4neuro.data.scan import Scan
from ssl4neuro.data.templates import read_table
from ssl4neuro.errors import UserError

PARTICIPANT_COLUMNS = ("participant_id", "subject", "subject_id", "participant", "id", "ID")
SESSION_COLUMNS = ("session_id", "session")
RUN_COLUMNS = ("run_id", "run")
NOT_LABELS = ("folder", "gift", "tr")  # tell readers which scan is whose; not properties of a scan
MISSING = ("", "n/a", "N/A", "NA", "NaN", "nan")


def read_participants(path: Path, subjects: Sequence[str]) -> pd.DataFrame:
    """Table of participants, by the scans' subject names; participants without a scan are left out.

    The column of names may be called participant_id, subject or id; names match with or without `sub-`.

    Raises:
        UserError: unreadable, no column of names, or a participant twice.
    """
    table = _with_key(path, "participant_id", PARTICIPANT_COLUMNS)
    known = {bare(subject): subject for subject in subjects}
    table["participant_id"] = [known.get(bare(name.strip()), "") for name in table["participant_id"]]
    table = table[table["participant_id"] != ""]
    twice = table["participant_id"][table["participant_id"].duplicated()]
    if len(twice):
        raise UserError(f"{path}: {twice.iloc[0]} is there twice; keep one line per participant (sessions go to --sessions)")
    return _clean(table, ["participant_id"])


def site_of(participants: pd.DataFrame | None) -> dict[str, str]:
    """Site by subject, from a column `site`; empty without one."""
    if participants is None or "site" not in participants:
        return {}
    pairs = zip(participants["participant_id"], participants["site"], strict=True)
    return {subject: str(site) for subject, site in pairs if not pd.isna(site)}


def participant_names(path: Path, subject: str | None = None) -> list[str]:
    """Names in a table of participants or sessions, as they stand there; `subject` is a further name of the column.

    Raises:
        UserError: unreadable, or no column of names.
    """
    return list(dict.fromkeys(_session_table(path, subject)["participant_id"]))


def read_sessions(paths: Sequence[Path], scans: Sequence[Scan], subject: str | None = None) -> pd.DataFrame | None:
    """Label columns of the scans, one line per scan, from tables with participant_id and as needed session_id and run_id.

    A table without a session column holds for all sessions of a participant, and likewise for runs. In a BIDS
    `sub-X_sessions.tsv` the participant is in the file's name. Where tables have a column in common, the later one counts.
    `subject` is a further name that the column of participants may have.

    Raises:
        UserError: unreadable, no participant, or two lines for one scan.
    """
    labels: dict[tuple[str, str, str], dict[str, str]] = {(s.subject, s.session, s.run): {} for s in scans}
    found = False
    for path in paths:
        table = _session_table(path, subject)
        columns = [c for c in table if c not in SCAN_KEY and c not in NOT_LABELS]
        told = [c for c in SCAN_KEY if c in table]
        entries: dict[tuple[str, ...], dict[str, str]] = {}
        for row in table.to_dict("records"):
            key = tuple(bare(row[c].strip()) for c in told)
            if key in entries:
                raise UserError(f"{path}: two lines for {' '.join(part for part in key if part)}; add session_id and run_id")
            entries[key] = {str(c): str(row[c]) for c in columns}
        for identity in labels:
            names = dict(zip(SCAN_KEY, identity, strict=True))
            match = _lookup(entries, [bare(names[c]) for c in told])
            if match is not None:
                found = True
                labels[identity].update(match)
    if not found:
        return None
    lines = [{**dict(zip(SCAN_KEY, identity, strict=True)), **values} for identity, values in labels.items()]
    return _clean(pd.DataFrame(lines), list(SCAN_KEY))


def _lookup(entries: dict[tuple[str, ...], dict[str, str]], wanted: list[str]) -> dict[str, str] | None:
    """The line of a scan; an empty session or run in the table stands for any."""
    for n in range(len(wanted), 0, -1):
        match = entries.get((*wanted[:n], *[""] * (len(wanted) - n)))
        if match is not None:
            return match
    return None


def _session_table(path: Path, subject: str | None = None) -> pd.DataFrame:
    name = path.name
    if name.startswith("sub-") and name.endswith("_sessions.tsv"):
        table = read_table(path, ("session_id",))
        table["participant_id"] = name.removesuffix("_sessions.tsv")
        return table
    table = _with_key(path, "participant_id", (*([subject] if subject else []), *PARTICIPANT_COLUMNS))
    for column, names in (("session_id", SESSION_COLUMNS), ("run_id", RUN_COLUMNS)):
        present = [n for n in names if n in table]
        if present:
            table = table.rename(columns={present[0]: column})
    return table


def _with_key(path: Path, column: str, names: Sequence[str]) -> pd.DataFrame:
    table = read_table(path, ())
    present = [name for name in names if name in table]
    if not present:
        raise UserError(f"{path}: no column {column} (it has {', '.join(table.columns)}); name the column of names so")
    return table.rename(columns={present[0]: column})


def _clean(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Keys first; the ways to say `missing` become missing, the rest stays the text it was."""
    others = [c for c in table if c not in keys and str(c).strip()]
    values = table[others].apply(lambda column: column.where(~column.isin(MISSING)))
    return pd.concat([table[keys], values], axis=1).reset_index(drop=True)
