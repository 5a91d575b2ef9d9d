"""Embeddings from anywhere: our own folder, or a table that another model or tool wrote.

A foreign table becomes `Embeddings` like any other. What it cannot show (which subjects the model has seen, what the features
were fitted on) is marked: `info["foreign"]` is true, and every subject counts as unseen unless the table has a column `seen`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ssl4neuro.data.embeddings import SCAN_KEY, Embeddings, with_vectors
from ssl4neuro.data.feature_files import SUFFIXES, read_features
from ssl4neuro.data.readers.naming import bare
from ssl4neuro.data.scan import Scan
from ssl4neuro.data.tables import PARTICIPANT_COLUMNS, RUN_COLUMNS, SESSION_COLUMNS, participant_names, read_sessions
from ssl4neuro.errors import UserError
from ssl4neuro.manifest import file_sha256
from ssl4neuro.registry import suggest

LAST_RESORT = ("id", "ID")  # names of subjects only where nothing else is


def open_embeddings(
    path: str | Path,
    participants: str | Path | None = None,
    *,
    subject: str | None = None,
    features: Sequence[str] = (),
) -> Embeddings:
    """Embeddings of a folder that `ssl4neuro embed` wrote, or of a parquet, CSV, TSV or npz file of another tool.

    Args:
        path: folder or file. A file has one row per subject, scan (columns session, run) or sample (several rows per scan).
        participants: further table of labels, by participant and, where it has them, session and run.
        subject: column of subjects in a file; by default subject, participant_id, subject_id, participant or id.
        features: list columns, arrays, or prefixes of the feature columns; by default all that are found, see `feature_files`.

    Raises:
        UserError: unreadable; no or ambiguous subjects or features; NaN or infinite features; no participant in common.
    """
    path = Path(path)
    if path.suffix in SUFFIXES and not path.exists():
        raise UserError(f"{path}: no such file; check the path")
    if path.is_file():
        opened = _foreign(path, subject, features)
    elif subject or features:
        raise UserError(
            f"{path}: --subject-column and --features are for tables of other tools; an embeddings folder needs neither"
        )
    else:
        opened = Embeddings.open(path)
    return opened if participants is None else _labelled(opened, Path(participants), subject)


def _foreign(path: Path, subject: str | None, features: Sequence[str]) -> Embeddings:
    known = (*PARTICIPANT_COLUMNS, *SESSION_COLUMNS, *RUN_COLUMNS, *([subject] if subject else []))
    rows, vectors, told = read_features(path, features, known)
    if not len(rows):
        raise UserError(f"{path}: no rows; give it one per subject, scan or sample")
    frame = _keyed(path, rows, subject)
    vectors = {name: matrix.astype(np.float32) for name, matrix in vectors.items()}
    for name, matrix in vectors.items():
        bad = ~np.isfinite(matrix).all(1)
        if bad.any():
            people = frame["subject"][bad].nunique()
            raise UserError(
                f"{path}: {int(bad.sum())} rows of {people} subjects have NaN or infinite features in '{name}'; leave those"
                " rows out, or embed their scans again"
            )
    notes = [
        f"features of {path.name}: " + ", ".join(f"{n} ({text}, {vectors[n].shape[1]} dimensions)" for n, text in told.items())
    ]
    again = frame.assign(**{f"#{name}": [bytes(line) for line in matrix] for name, matrix in vectors.items()}).duplicated()
    if again.any():
        notes.append(f"{int(again.sum())} rows of {path.name} repeat another row exactly and were left out")
        frame, vectors = frame[~again].reset_index(drop=True), {n: m[~again] for n, m in vectors.items()}
    frame.insert(0, "row", np.arange(len(frame)))
    scans, means = _scans(frame, vectors)
    if len(scans) < len(frame):
        most = int(scans["rows"].max())
        notes.append(f"{path.name} has up to {most} rows per scan: a scan's or subject's embedding is their mean")
    info: dict[str, Any] = {
        "foreign": True,
        "name": path.name.split(".")[0],
        "table_sha256": file_sha256(path),
        "modalities": {name: {"dim": int(matrix.shape[1])} for name, matrix in vectors.items()},
        "rows": len(frame),
        "scans": len(scans),
        "notes": notes,
    }
    return Embeddings(path, info, with_vectors(frame, vectors), with_vectors(scans, means))


def _keyed(path: Path, rows: pd.DataFrame, subject: str | None) -> pd.DataFrame:
    """The rows with text columns subject, session and run, and `seen`."""
    name = _subject_column(path, rows, subject)
    keys = {"subject": _text(rows[name])}
    missing = keys["subject"] == ""
    if missing.any():
        raise UserError(f"{path}: {int(missing.sum())} rows have no '{name}'; fill it in or leave them out")
    used = [name]
    for key, names in (("session", SESSION_COLUMNS), ("run", RUN_COLUMNS)):
        found = next((n for n in names if n in rows and n != name), None)
        keys[key] = pd.Series("", index=rows.index) if found is None else _text(rows[found])
        used += [found] if found else []
    others = rows.drop(columns=[*used, *(c for c in map(str, rows) if c in ("row", "rows", "") or c.startswith("Unnamed: "))])
    if "seen" in others and not pd.api.types.is_bool_dtype(others["seen"]):
        raise UserError(f"{path}: column 'seen' must be true or false: had the model that made the features seen the subject?")
    frame = pd.concat([pd.DataFrame(keys), others.drop(columns=[k for k in keys if k in others])], axis=1)
    return frame if "seen" in frame else frame.assign(seen=False)


def _subject_column(path: Path, rows: pd.DataFrame, given: str | None) -> str:
    if given is not None:
        if given not in rows:
            raise UserError(f"{path}: --subject-column: no column '{given}'{suggest(given, rows.columns)}")
        return given
    found = [name for name in PARTICIPANT_COLUMNS if name in rows]
    found = [name for name in found if name not in LAST_RESORT] or found
    if not found:
        shown = ", ".join(map(str, rows.columns[:8])) or "none besides the features"
        raise UserError(f"{path}: no column of subjects (it has {shown}); call it subject, or name it with --subject-column")
    differing = [name for name in found[1:] if not _text(rows[name]).equals(_text(rows[found[0]]))]
    if differing:
        raise UserError(
            f"{path}: the subject may be '{found[0]}' or '{differing[0]}', which differ; choose with --subject-column"
        )
    return found[0]


def _text(column: pd.Series) -> pd.Series:
    """Names as text: 7 for 7.0, empty for missing."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype("string").fillna("").str.strip().astype(object)


def _scans(frame: pd.DataFrame, vectors: dict[str, np.ndarray]) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """One line per scan: what its rows agree on, and their mean vectors."""
    groups = frame.groupby(SCAN_KEY, sort=False)
    agree = [c for c in map(str, frame) if c not in (*SCAN_KEY, "row", "seen") and groups[c].nunique(dropna=False).max() <= 1]
    scans = groups[agree].first().reset_index() if agree else groups.size().reset_index()[SCAN_KEY]
    scans = scans.assign(rows=groups.size().to_numpy(), seen=groups["seen"].any().to_numpy())
    number = groups.ngroup().to_numpy()
    means = {n: pd.DataFrame(m).groupby(number, sort=True).mean().to_numpy(np.float32) for n, m in vectors.items()}
    return scans, means


def _labelled(opened: Embeddings, participants: Path, subject: str | None) -> Embeddings:
    """The same embeddings with the columns of a table of participants or sessions."""
    keys = opened.sessions.select(SCAN_KEY).to_pandas()
    people = set(keys["subject"].map(bare))
    listed = {bare(name.strip()) for name in participant_names(participants, subject)}
    if not people & listed:
        raise UserError(
            f"{participants}: none of its {len(listed)} participants (e.g. '{min(listed, default='')}') is among the"
            f" {len(people)} of {opened.path} (e.g. '{min(people)}'); names must agree, with or without sub-"
        )
    scans = [Scan(line.subject, (), line.session, line.run) for line in keys.itertuples()]
    labels = read_sessions([participants], scans, subject)
    if labels is None:
        raise UserError(
            f"{participants}: its sessions and runs are not those of {opened.path}; name them alike, or leave the columns out"
        )
    labels = labels.rename(columns={"participant_id": "subject", "session_id": "session", "run_id": "run"})
    values = labels.drop(columns=SCAN_KEY).apply(_as_numbers)
    clash = [c for c in values if c in opened.sessions.column_names]
    new = pd.concat([labels[SCAN_KEY], values.drop(columns=clash)], axis=1)
    notes = [f"'{c}' is taken from {opened.path.name}, not from {participants.name}" for c in clash]
    if people - listed:
        notes.append(f"{len(people - listed)} of {len(people)} subjects are not in {participants.name}")
    if listed - people:
        notes.append(f"{len(listed - people)} of {len(listed)} participants of {participants.name} have no embedding")
    info = {**opened.info, "participants": str(participants), "notes": [*opened.notes, *notes]}
    return replace(
        opened, info=info, samples=_joined(opened, opened.samples, new), sessions=_joined(opened, opened.sessions, new)
    )


def _as_numbers(column: pd.Series) -> pd.Series:
    try:
        return pd.to_numeric(column)
    except (ValueError, TypeError):
        return column


def _joined(opened: Embeddings, table: pa.Table, labels: pd.DataFrame) -> pa.Table:
    own = [c for c in opened.columns if c in table.column_names]
    labels = labels[[c for c in labels if c in SCAN_KEY or c not in table.column_names]]
    frame = table.drop_columns(own).to_pandas().merge(labels, on=SCAN_KEY, how="left", validate="many_to_one")
    joined = pa.Table.from_pandas(frame, preserve_index=False)
    for name in own:
        joined = joined.append_column(name, table[name])
    return joined
