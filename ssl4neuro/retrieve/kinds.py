"""The four kinds of index, chosen by size, trained with a seed, tuned and measured on held-out queries.

    flat   below 50,000 rows   exact; 1,000 queries in 50,000 × 256 take about 0.15 s on two cores: nothing to gain
    ivf    to 250,000          the vectors in about 4 √n lists, trained in seconds; a search reads a few lists
    hnsw   to 2,000,000        a graph whose search time hardly grows with n; built on one thread (0.25 ms a row and more),
                               because several threads insert in an order of their own
    pq     above               the vectors leave the memory (2 GB a column at 256 dimensions): codes of dim / 4 bytes in lists
                               shortlist, the vectors on disk rank

ivf: Sivic & Zisserman, ICCV 2003; hnsw: Malkov & Yashunin, TPAMI 2020; pq: Jégou, Douze & Schmid, TPAMI 2011.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float, Int

from ssl4neuro.errors import UserError
from ssl4neuro.retrieve.search import EXACT_BELOW, Device, Kind, Searcher

IVF_BELOW, HNSW_BELOW = 250_000, 2_000_000
FEWEST = 100  # rows below which there is nothing to train an approximate index on
RECALL_AT = 10
TARGET = 0.98  # recall for which the search effort is chosen
HELD_OUT = 1000  # queries, half of them to choose the effort, half to measure it
LINKS, CONSTRUCTION = 32, 80  # of the hnsw graph; faiss' own default of 40 costs recall at 256 dimensions
POINTS_PER_CENTROID = 39  # faiss' own rule for enough training data


@dataclass(frozen=True)
class Trained:
    """A filled index, the parameters it was made and is searched with, and its measured recall per query column."""

    index: Any
    kind: Kind
    parameters: dict[str, int]
    recall: dict[str, float]


def choose(rows: int) -> Kind:
    """Kind for a column of `rows` vectors."""
    if rows < EXACT_BELOW:
        return "flat"
    return "ivf" if rows < IVF_BELOW else "hnsw" if rows < HNSW_BELOW else "pq"


def held_out(rows: int, seed: int) -> Int[np.ndarray, "held"]:
    """Rows whose vectors are queries when recall is measured: not trained on, and added to the index only afterwards."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[: min(HELD_OUT, rows // 10)])


def train(
    column: str,
    vectors: Float[np.ndarray, "rows dim"],
    kind: Kind,
    queries: Mapping[str, Float[np.ndarray, "held dim"]],
    held: Int[np.ndarray, "held"],
    seed: int = 0,
    device: Device = "auto",
) -> Trained:
    """Build the index of one column.

    Args:
        column: its name, for messages.
        vectors: unit vectors, float32.
        kind: what to build.
        queries: query column (this one, or another modality in the same space) -> its unit vectors at the `held` rows.
        held: see `held_out`.
        seed: of k-means and of the graph's levels.

    Raises:
        UserError: too few rows for an approximate kind.
    """
    if kind == "flat":
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return Trained(index, kind, {}, dict.fromkeys(queries, 1.0))
    if len(vectors) < FEWEST:
        raise UserError(f"kind: '{kind}' needs at least {FEWEST} rows, '{column}' has {len(vectors)}; use 'flat'")
    others = np.setdiff1d(np.arange(len(vectors)), held)
    index, made = _empty(kind, len(others), vectors.shape[1], seed)
    known = vectors[others]
    index.train(known)
    _add(index, known, others)
    truth = {name: _kth_score(q, known) for name, q in queries.items()}
    search = Searcher(index, kind, made, lambda rows: vectors[rows], len(vectors), device)
    tuning, test = slice(0, None, 2), slice(1, None, 2)
    for effort in _efforts(kind, made, len(others)):
        search = replace(search, parameters={**made, **effort})
        if all(_recall(search, q[tuning], truth[name][tuning]) >= TARGET for name, q in queries.items()):
            break
    recall = {name: round(_recall(search, q[test], truth[name][test]), 4) for name, q in queries.items()}
    _add(index, vectors[held], held)
    return Trained(index, kind, search.parameters, recall)


def _empty(kind: Kind, rows: int, dim: int, seed: int) -> tuple[Any, dict[str, int]]:
    """An untrained index and its build parameters."""
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = CONSTRUCTION
        graph.hnsw.rng = faiss.RandomGenerator(seed)
        graph.this.disown()  # the wrapper below owns it now
        index = faiss.IndexIDMap2(graph)
        index.own_fields = True
        return index, {"links": LINKS, "construction": CONSTRUCTION}
    lists = int(np.clip(round(4 * rows**0.5), 1, rows // POINTS_PER_CENTROID))
    quantiser = faiss.IndexFlatIP(dim)
    if kind == "ivf":
        index = faiss.IndexIVFFlat(quantiser, dim, lists, faiss.METRIC_INNER_PRODUCT)
        made = {"lists": lists}
    else:
        pieces = next(m for m in range(max(1, dim // 4), 0, -1) if dim % m == 0)
        bits = int(np.clip(np.log2(rows / POINTS_PER_CENTROID), 4, 8))
        index = faiss.IndexIVFPQ(quantiser, dim, lists, pieces, bits, faiss.METRIC_INNER_PRODUCT)
        index.pq.cp.seed, index.pq.cp.min_points_per_centroid = seed, 1
        made = {"lists": lists, "pieces": pieces, "bits": bits}
    quantiser.this.disown()
    index.own_fields = True
    index.cp.seed = seed
    return index, made


def _add(index: Any, vectors: Float[np.ndarray, "m dim"], rows: Int[np.ndarray, "m"]) -> None:
    """Add in the same order every time: threads would insert into a graph in the order in which they happen to run."""
    threads = faiss.omp_get_max_threads()
    if isinstance(index, faiss.IndexIDMap2):
        faiss.omp_set_num_threads(1)
    try:
        index.add_with_ids(vectors, rows)
    finally:
        faiss.omp_set_num_threads(threads)


def _efforts(kind: Kind, made: dict[str, int], rows: int) -> Iterator[dict[str, int]]:
    """Search parameters of growing cost."""
    steps = [2**p for p in range(25)]
    if kind == "hnsw":
        yield from ({"breadth": ef} for ef in steps if 16 <= ef <= min(rows, 4096))
        return
    for probes in [p for p in steps if p < made["lists"]] + [made["lists"]]:
        yield {"probes": probes} if kind == "ivf" else {"probes": probes, "shortlist": min(rows, max(64, 16 * probes))}


def _kth_score(queries: Float[np.ndarray, "queries dim"], known: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "queries"]:
    """Exact score of the tenth neighbour: whatever scores as much belongs to a right answer, ties included."""
    scores, _ = faiss.knn(queries, known, min(RECALL_AT, len(known)), metric=faiss.METRIC_INNER_PRODUCT)
    return scores[:, -1]


def _recall(search: Searcher, queries: Float[np.ndarray, "queries dim"], kth: Float[np.ndarray, "queries"]) -> float:
    """Share of the ten nearest rows that the approximate search finds, without its exact fallback."""
    wide = max(RECALL_AT, search.parameters.get("shortlist", 0))
    found = search.candidates(queries, wide, None, exact=False)
    scores, _ = search.rescore(queries, found)
    return float((scores[:, :RECALL_AT] >= kth[:, None] - 2e-6).mean())
