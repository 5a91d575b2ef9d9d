"""Build a faiss index folder from embeddings.

index.json          kind, parameters and recall of each column; contract and checkpoint of the encoder; sha256 of the files
metadata.parquet    one line per row: subject, session, ..., labels, `seen`
COLUMN.faiss        one index per embedding column
COLUMN.npy          the exact vectors, where the index holds compressed ones only
"""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import pandas as pd
from jaxtyping import Float

from ssl4neuro.atomic import new_folder
from ssl4neuro.data.embedding_table import open_embeddings
from ssl4neuro.data.embeddings import Embeddings, Unit
from ssl4neuro.errors import UserError
from ssl4neuro.progress import progress
from ssl4neuro.registry import suggest
from ssl4neuro.retrieve.kinds import choose, held_out, train
from ssl4neuro.retrieve.search import Device, Kind, check_device
from ssl4neuro.retrieve.store import FORMAT, VERSION, Index, sha256

PROJECTED = "_projected"  # columns that share one space across modalities
CARRIED = ("name", "cohort_sha256", "run", "checkpoint_sha256", "contract", "foreign", "table_sha256")
LAYER = "_layer"  # in the names of columns that are indexed on request only
NAMED = 5  # rows that a message names


def build_index(
    embeddings: str | Path,
    out: str | Path,
    *,
    unit: Literal["sample", "session"] = "sample",
    kind: Literal["auto"] | Kind = "auto",
    columns: Sequence[str] | None = None,
    seed: int = 0,
    device: Device = "auto",
    participants: str | Path | None = None,
    subject: str | None = None,
    features: Sequence[str] = (),
) -> Index:
    """Index every embedding column for cosine similarity and measure the recall of each against exact search.

    Rows whose subject the encoder has seen are indexed like the others and marked `seen`.

    Args:
        embeddings: folder that `ssl4neuro embed` wrote, or a table of another tool (see `data.embedding_table`).
        out: index folder to create.
        unit: search single components (`sample`) or whole scans (`session`).
        kind: `auto` chooses by the number of rows, see `retrieve.kinds`.
        columns: embedding columns; by default all but the encoders' layers.
        seed: of k-means, of the graph, and of the choice of held-out queries.
        device: `auto` uses a GPU for measuring the recall where faiss has one; what is written does not depend on it.
        participants, subject, features: labels and columns of such a table, see `open_embeddings`.

    Returns:
        The opened index; printing it shows the kind, the parameters and the recall of every column.

    Raises:
        UserError: `out` exists, an unknown column, NaN, infinite or zero vectors (rows named), or too few rows for `kind`.
    """
    check_device(device)
    if Path(out).exists():
        raise UserError(f"{out}: exists already; name another output folder or delete it")
    source = open_embeddings(embeddings, participants, subject=subject, features=features)
    names = _columns(source, unit, columns)
    metadata = source.table(unit).reset_index(drop=True)
    if not len(metadata):
        raise UserError(f"{embeddings}: no rows to index; embed a cohort that has some")
    if "row" not in metadata:
        metadata.insert(0, "row", np.arange(len(metadata)))
    held = held_out(len(metadata), seed)
    queries = {
        name: unit_vectors(source, unit, name, metadata)[held] for name in names
    }  # every column is checked before any is built
    about: dict[str, Any] = {}
    with new_folder(Path(out)) as folder, progress("index", len(names), "column") as bar:
        for name in names:
            vectors = unit_vectors(source, unit, name, metadata)
            chosen = choose(len(vectors)) if kind == "auto" else kind
            partners = {q: queries[q] for q in names if q == name or _one_space(q, name, queries)}
            built = train(name, vectors, chosen, partners, held, seed, device)
            about[name] = {"kind": chosen, "dim": vectors.shape[1], "file": f"{name}.faiss"}
            about[name] |= {"parameters": built.parameters, "recall": built.recall, "held_out_queries": len(held) // 2}
            faiss.write_index(built.index, str(folder / f"{name}.faiss"))
            if chosen == "pq":
                about[name]["vectors"] = f"{name}.npy"
                np.save(folder / f"{name}.npy", vectors, allow_pickle=False)
            bar.advance()
        metadata.to_parquet(folder / "metadata.parquet", index=False)
        _record(folder, source, {"unit": unit, "rows": len(metadata), "seed": seed, "columns": about})
    return Index.open(out)


def unit_vectors(
    source: Embeddings, unit: Literal["sample", "session"], column: str, metadata: pd.DataFrame
) -> Float[np.ndarray, "rows dim"]:
    """L2-normalised float32 vectors of one column, so that the inner product is the cosine.

    Raises:
        UserError: vectors that have no direction, with their rows.
    """
    matrix = source.matrix(unit, column)
    length = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(length[:, 0]) | (length[:, 0] == 0))
    if len(bad):
        rows = metadata["row"] if "row" in metadata else pd.Series(range(len(metadata)))
        named = ", ".join(str(rows.iloc[i]) for i in bad[:NAMED]) + (", ..." if len(bad) > NAMED else "")
        raise UserError(
            f"{source.path}: {len(bad)} vectors of '{column}' are NaN, infinite or zero (rows {named}); "
            "leave the column out or embed again without those rows"
        )
    return np.ascontiguousarray(matrix / length, dtype=np.float32)


def _columns(source: Embeddings, unit: Unit, columns: Sequence[str] | None) -> list[str]:
    own = source.columns_of(unit)
    names = [name for name in own if LAYER not in name] or own if columns is None else list(dict.fromkeys(columns))
    for name in names:
        if name not in source.columns_of(unit):
            raise UserError(f"{source.path}: no embedding '{name}'{suggest(name, source.columns_of(unit))}")
    if not names:
        raise UserError(f"{source.path}: no embedding columns to index; embed the cohort again")
    return names


def _one_space(query: str, target: str, vectors: dict[str, Float[np.ndarray, "_ _"]]) -> bool:
    """Both are projections, which cross-modal objectives train into one space."""
    return query.endswith(PROJECTED) and target.endswith(PROJECTED) and vectors[query].shape[1] == vectors[target].shape[1]


def _record(folder: Path, source: Embeddings, built: dict[str, Any]) -> None:
    files = {f.name: {"sha256": sha256(f), "bytes": f.stat().st_size} for f in sorted(folder.iterdir())}
    carried = {key: source.info.get(key) for key in CARRIED}
    versions = {"faiss": faiss.__version__, "numpy": version("numpy")}
    record = {"format": FORMAT, "version": VERSION, **carried, **built, "versions": versions, "files": files}
    (folder / "index.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
