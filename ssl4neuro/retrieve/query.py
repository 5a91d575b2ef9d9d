"""Search an index: with one of its own rows, or with the embeddings of another cohort by the same encoder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from ssl4neuro.data.embedding_table import open_embeddings
from ssl4neuro.errors import UserError
from ssl4neuro.progress import progress
from ssl4neuro.registry import suggest
from ssl4neuro.retrieve.filters import select
from ssl4neuro.retrieve.index import PROJECTED, unit_vectors
from ssl4neuro.retrieve.search import Device, Searcher
from ssl4neuro.retrieve.store import Index

SHOWN = ("row", "subject", "session", "run", "site", "component", "network", "view", "slice", "rows", "seen")
BATCH = 1024  # queries between two movements of the progress bar


def query(
    index: str | Path | Index,
    *,
    row: int | None = None,
    like: str | Path | None = None,
    source: str | None = None,
    target: str | None = None,
    k: int = 10,
    where: str | Sequence[str] = (),
    include_self: bool | None = None,
    exclude_subject: bool = False,
    device: Device = "auto",
    subject: str | None = None,
    features: Sequence[str] = (),
) -> pd.DataFrame:
    """The k most similar rows, best first; equal scores in the order of rows.

    Args:
        index: an index folder, or an `Index` that is open already.
        row: query with this row of the index ...
        like: ... or with every row of these embeddings, which must come from the same encoder (of tables of another tool only
            the dimensions can be compared; that they come from one model is yours to know).
        source: modality to search from (`--from`); `joint`, or the first column, by default.
        target: modality to search in (`--to`); `source` by default. Between two modalities the projected columns are used,
            which share one space; within one, the encoder's output.
        k: results per query; fewer come back only where fewer rows exist.
        where: conditions on the rows that may be found, see `retrieve.filters`.
        include_self: may the query row be found? By default only across modalities, where it is the right answer.
        exclude_subject: leave out all rows of the query's subject.
        device: `auto` searches batches on a GPU where faiss has one.
        subject, features: columns of such a table, see `open_embeddings`.

    Returns:
        One line per result: rank (from 1), score (cosine), row, subject, session, ..., seen; with `like`, `query_row` first.

    Raises:
        UserError: see the messages; embeddings of another encoder are refused with the difference.
    """
    opened = index if isinstance(index, Index) else Index.open(index)
    if (row is None) == (like is None):
        raise UserError("query: give either a row of the index (--row N) or embeddings to search with (--like EMBEDDINGS)")
    if k < 1:
        raise UserError(f"k: {k} results make no sense; ask for 1 or more")
    from_column, to_column = spaces(opened, source, target)
    if row is not None:
        position = _position(opened, row)
        vectors = opened.searcher(from_column, device).vectors(np.array([position]))
        names, own = opened.metadata.iloc[[position]], np.array([position])
    else:
        names, vectors, own = _foreign(opened, Path(str(like)), from_column, exclude_subject, subject, features)
    within = from_column == to_column
    hidden = own if not (not within if include_self is None else include_self) else np.full(len(own), -1)
    subjects = names["subject"].to_numpy(object) if exclude_subject else None
    rows, scores, asked = _search(
        opened, opened.searcher(to_column, device), vectors, k, select(opened.metadata, where), hidden, subjects
    )
    table = opened.metadata.iloc[rows][[c for c in SHOWN if c in opened.metadata]].reset_index(drop=True)
    table.insert(0, "score", scores)
    table.insert(0, "rank", pd.Series(asked).groupby(asked).cumcount().to_numpy() + 1)
    if like is not None:
        table.insert(0, "query_row", names["row"].to_numpy()[asked])
    return table


def spaces(index: Index, source: str | None, target: str | None) -> tuple[str, str]:
    """Columns to take the query from and to search in."""
    if source is None and target is None:
        source = "joint" if "joint" in index.columns else index.columns[0].removesuffix(PROJECTED)
    start, end = str(source or target), str(target or source)
    if start == end:
        wanted = (start, start) if start in index.columns else (start + PROJECTED, start + PROJECTED)
    else:
        wanted = (start + PROJECTED, end + PROJECTED)
    modalities = sorted({c.removesuffix(PROJECTED) for c in index.columns})
    for modality, column in zip((start, end), wanted, strict=True):
        if modality not in modalities:
            raise UserError(f"{index.path}: no modality '{modality}'{suggest(modality, modalities)}")
        if column not in index.columns:
            raise UserError(
                f"{index.path}: searching from {start} to {end} needs the column '{column}', which is not indexed; "
                "only projected columns share a space across modalities"
            )
    sizes = [index.info["columns"][column]["dim"] for column in wanted]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"{index.path}: '{wanted[0]}' has {sizes[0]} dimensions and '{wanted[1]}' {sizes[1]}; they share no space"
        )
    return wanted


def _position(index: Index, row: int) -> int:
    found = np.flatnonzero(index.metadata["row"].to_numpy() == row)
    if not len(found):
        rows = index.metadata["row"]
        raise UserError(f"--row {row}: not in {index.path}, whose rows go from {rows.min()} to {rows.max()}")
    return int(found[0])


def _foreign(
    index: Index, like: Path, column: str, exclude_subject: bool, subject: str | None, features: Sequence[str]
) -> tuple[pd.DataFrame, Float[np.ndarray, "queries dim"], Int[np.ndarray, "queries"]]:
    """Names, vectors and (in the same cohort) positions of the rows of other embeddings."""
    embeddings = open_embeddings(like, subject=subject, features=features)
    difference = mismatch(index.info, embeddings.info)
    if difference:
        raise UserError(
            f"{like}: not from the encoder that {index.path} was built with ({difference}); embed with that run, or index these"
        )
    names = embeddings.table(index.info["unit"]).reset_index(drop=True)
    if "row" not in names:
        names.insert(0, "row", np.arange(len(names)))
    vectors = unit_vectors(embeddings, index.info["unit"], column, names)
    if vectors.shape[1] != index.info["columns"][column]["dim"]:
        raise UserError(
            f"{like}: '{column}' has {vectors.shape[1]} dimensions, the index {index.info['columns'][column]['dim']}"
        )
    own = np.full(len(names), -1)
    rows_sha256 = index.info["cohort_sha256"] or index.info.get("table_sha256")
    if rows_sha256 is not None and embeddings.rows_sha256 == rows_sha256:
        position = pd.Series(np.arange(len(index.metadata)), index=index.metadata["row"])
        own = position.reindex(names["row"]).fillna(-1).to_numpy(np.int64)
    elif exclude_subject and embeddings.info.get("name") != index.info["name"]:
        raise UserError(
            f"{like}: of another dataset than {index.path}, where an equal subject name is another person; drop exclude_subject"
        )
    return names, vectors, own


def mismatch(index: dict[str, Any], embeddings: dict[str, Any]) -> str:
    """First differences between the encoders of an index and of embeddings, readable; empty if there are none."""
    ours, theirs = _leaves(index["contract"]), _leaves(embeddings.get("contract"))
    fields = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    parts = [f"contract {key}: index {_short(ours.get(key))}, embeddings {_short(theirs.get(key))}" for key in fields[:2]]
    parts += [f"{len(fields) - 2} more fields of the contract"] if len(fields) > 2 else []
    mine, yours = index["checkpoint_sha256"], embeddings.get("checkpoint_sha256")
    if mine != yours:
        parts.append(f"checkpoint: index {str(mine)[:12]}, embeddings {str(yours)[:12]}")
    return "; ".join(parts)


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    return {key: leaf for name, inner in value.items() for key, leaf in _leaves(inner, f"{path}.{name}".lstrip(".")).items()}


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _search(
    index: Index,
    searcher: Searcher,
    vectors: Float[np.ndarray, "queries dim"],
    k: int,
    allowed: Bool[np.ndarray, "rows"],
    hidden: Int[np.ndarray, "queries"],
    subjects: np.ndarray | None,
) -> tuple[Int[np.ndarray, "results"], Float[np.ndarray, "results"], Int[np.ndarray, "results"]]:
    """Row, score and query number of every result, by query and rank; `hidden` is the row that a query must not find, or -1."""
    found: list[np.ndarray] = [np.empty(0, np.int64)] * len(vectors)
    score: list[np.ndarray] = [np.empty(0)] * len(vectors)
    with progress("query", len(vectors), "query") as bar:
        for queries, left in _batches(index, allowed, subjects, len(vectors)):
            if left.any():
                scores, rows = searcher.search(vectors[queries], k + 1, left)
                for i, q in enumerate(queries):
                    keep = np.flatnonzero(rows[i] != hidden[q])[:k]
                    found[q], score[q] = rows[i, keep], scores[i, keep]
            bar.advance(len(queries))
    return np.concatenate(found), np.concatenate(score), np.repeat(np.arange(len(vectors)), [len(f) for f in found])


def _batches(
    index: Index, allowed: Bool[np.ndarray, "rows"], subjects: np.ndarray | None, queries: int
) -> Iterator[tuple[Int[np.ndarray, "_"], Bool[np.ndarray, "rows"]]]:
    """Queries that may find the same rows, a batch at a time."""
    people = index.metadata["subject"].to_numpy(object)
    for name in [None] if subjects is None else pd.unique(subjects):
        members = np.arange(queries) if subjects is None else np.flatnonzero(subjects == name)
        left = allowed if subjects is None else allowed & (people != name)
        for start in range(0, len(members), BATCH):
            yield members[start : start + BATCH], left
