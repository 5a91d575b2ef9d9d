"""`ssl4neuro index`, `query`, `retrieve`: similar scans, across modalities."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ssl4neuro.cli.apps import app
from ssl4neuro.cli.evaluate import names_of


@app.command
def index(
    embeddings: Positional[Path],
    out: Positional[Path],
    /,
    *,
    unit: Literal["sample", "session"] = "sample",
    kind: Literal["auto", "flat", "ivf", "hnsw", "pq"] = "auto",
    participants: Path | None = None,
    subject_column: str | None = None,
    features: tuple[str, ...] = (),
) -> int:
    """Build a faiss index of embeddings; reports its recall against exact search.

    Args:
        embeddings: folder that `ssl4neuro embed` wrote, or a parquet, csv, tsv or npz file of features from another tool.
        out: index folder to write.
        unit: index samples or whole scans.
        kind: auto chooses by size.
        participants: table of labels of the subjects (and sessions) in a file of another tool.
        subject_column: column of subjects in such a file, if it is not called subject, participant_id or id.
        features: list columns, arrays or prefixes of the feature columns of such a file, e.g. emb_; by default all.
    """
    from ssl4neuro.retrieve.index import build_index

    found = build_index(
        embeddings, out, unit=unit, kind=kind, participants=participants, subject=subject_column, features=names_of(features)
    )
    print(found)
    return 0


@app.command
def query(
    index: Positional[Path],
    /,
    *,
    row: int | None = None,
    like: Path | None = None,
    source: Annotated[str | None, arg(name="from")] = None,
    target: Annotated[str | None, arg(name="to")] = None,
    k: Annotated[int, arg(aliases=["-k"])] = 10,
    where: tuple[str, ...] = (),
    include_self: bool | None = None,
    exclude_subject: bool = False,
    subject_column: str | None = None,
    features: tuple[str, ...] = (),
) -> int:
    """The most similar samples or scans.

    Args:
        index: folder that `ssl4neuro index` wrote.
        row: row of the index to search with.
        like: embeddings to search with, made by the same encoder.
        source: modality of the query.
        target: modality to search in; another one than --from searches across modalities.
        k: number of neighbours.
        where: filters such as site==A or "network in DMN,SC".
        include_self: let the row find itself; by default only across modalities.
        exclude_subject: leave out the subject of the query.
        subject_column: column of subjects, where --like is a file of another tool.
        features: its feature columns.
    """
    from ssl4neuro.retrieve.query import query as run_query

    found = run_query(
        index, row=row, like=like, source=source, target=target, k=k, where=where, include_self=include_self,
        exclude_subject=exclude_subject, subject=subject_column, features=names_of(features),
    )  # fmt: skip
    print(found.to_string(index=False))
    return 0


@app.command
def retrieve(
    embeddings: Positional[Path],
    /,
    *,
    source: Annotated[str | None, arg(name="from")] = None,
    target: Annotated[str | None, arg(name="to")] = None,
    within_scan: bool = False,
    allow_overlap: bool = False,
    seed: int = 0,
) -> int:
    """Is a sample's own partner found in the other modality? Both directions, on unseen subjects, beside chance.

    Args:
        embeddings: folder that `ssl4neuro embed` wrote.
        source: modality of the queries; by default course, or the first that was projected.
        target: modality of the candidates; by default map, or the next that was projected.
        within_scan: candidates are the components of the same scan only: which component, not whose.
        allow_overlap: also use subjects that the encoder has seen.
        seed: of the bootstrap.
    """
    from ssl4neuro.evaluate.retrieval_metrics import retrieval_from_embeddings

    found = retrieval_from_embeddings(
        embeddings, source, target, within_scan=within_scan, allow_overlap=allow_overlap, seed=seed
    )  # fmt: skip
    print("\n".join(str(metric) for metric in found))
    return 0
