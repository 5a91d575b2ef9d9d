"""Nearest neighbours in one column: candidates from faiss, scores and order exact.

Whatever the kind of index, candidates are scored again with the stored vectors in float64 and ordered by (score, row), so
that the scores of a compressed index are true cosines and equal scores always come in the same order. Where an approximate
search or a filter leaves fewer than k candidates, the search is repeated exactly, so that k results come back whenever k exist.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import faiss
import numpy as np
from jaxtyping import Bool, Float, Int

from ssl4neuro.errors import UserError

Device = Literal["auto", "cpu", "cuda"]
Kind = Literal["flat", "ivf", "hnsw", "pq"]
EXACT_BELOW = (
    50_000  # so few rows are compared one by one faster than any structure pays back (about 0.2 ms a query at 256 dimensions)
)
SPARE = 16  # candidates beyond k, so that ties at the k-th place are seen in the first pass
GPU_QUERIES = 256  # copying an index to the GPU pays for batches only
GPU_MOST = 2048  # most neighbours that faiss finds on a GPU
BUDGET = 2**24  # floats scored again at a time
BLOCK = 65_536  # rows compared at a time by the exact search
DIGITS = 6  # of a score; float32 input carries no more, and equal vectors get equal scores


@dataclass
class Searcher:
    """One column, ready to search.

    Attributes:
        index: faiss index whose ids are row positions.
        kind: how it was built.
        parameters: effort of the search, e.g. `{"probes": 16}`.
        vectors: exact unit vectors of the given rows.
        rows: number of rows in the column.
    """

    index: Any
    kind: Kind
    parameters: dict[str, int]
    vectors: Callable[[Int[np.ndarray, "m"]], Float[np.ndarray, "m dim"]]
    rows: int
    device: Device = "auto"
    _gpu: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_device(self.device)

    def search(
        self, queries: Float[np.ndarray, "queries dim"], k: int, allowed: Bool[np.ndarray, "rows"] | None = None
    ) -> tuple[Float[np.ndarray, "queries found"], Int[np.ndarray, "queries found"]]:
        """Cosine and row of the `min(k, allowed rows)` nearest rows of each query, best first, ties in the order of rows.

        Args:
            queries: unit vectors, float32.
            k: neighbours wanted.
            allowed: rows that may be found; all if not given.
        """
        if allowed is not None and allowed.all():
            allowed = None
        count = self.rows if allowed is None else int(allowed.sum())
        k = min(k, count)
        exact = self.kind == "flat" or (allowed is not None and count <= EXACT_BELOW)
        wide = min(count, max(k + SPARE, self.parameters.get("shortlist", 0)))
        return self._settle(np.ascontiguousarray(queries, dtype=np.float32), k, wide, count, allowed, exact)

    def _settle(
        self,
        queries: Float[np.ndarray, "queries dim"],
        k: int,
        wide: int,
        count: int,
        allowed: Bool[np.ndarray, "rows"] | None,
        exact: bool,
    ) -> tuple[Float[np.ndarray, "queries k"], Int[np.ndarray, "queries k"]]:
        """Search with `wide` candidates, then again where they do not decide the answer."""
        scores = np.empty((len(queries), k), dtype=np.float64)
        rows = np.empty((len(queries), k), dtype=np.int64)
        for part in _parts(len(queries), wide * max(1, queries.shape[1])):
            found = self.candidates(queries[part], wide, allowed, exact)
            score, row = self.rescore(queries[part], found)
            lacking = row[:, k - 1] < 0
            # every candidate as good as the k-th: others outside may be, too, and come earlier
            tied = ~lacking & (score[:, -1] == score[:, k - 1]) & (wide < count)
            scores[part], rows[part] = score[:, :k], row[:, :k]
            for again, more, sure in ((lacking, wide, True), (tied, min(8 * wide, count), exact)):
                if again.any():
                    where = np.arange(part.start, part.start + len(again))[again]
                    scores[where], rows[where] = self._settle(queries[where], k, more, count, allowed, sure)
        return scores, rows

    def rescore(
        self, queries: Float[np.ndarray, "queries dim"], found: Int[np.ndarray, "queries wide"]
    ) -> tuple[Float[np.ndarray, "queries wide"], Int[np.ndarray, "queries wide"]]:
        """Exact cosines of the candidates, best first, ties by row; missing candidates (-1) last, at -inf."""
        vectors = self.vectors(found.clip(0).ravel()).reshape(*found.shape, -1)
        scores = np.einsum("qwd,qd->qw", vectors, queries, dtype=np.float64).round(DIGITS)
        scores[found < 0] = -np.inf
        order = np.lexsort((found, -scores), axis=-1)
        return np.take_along_axis(scores, order, -1), np.take_along_axis(found, order, -1)

    def candidates(
        self, queries: Float[np.ndarray, "queries dim"], wide: int, allowed: Bool[np.ndarray, "rows"] | None, exact: bool
    ) -> Int[np.ndarray, "queries wide"]:
        """Rows of up to `wide` likely neighbours; -1 where there are fewer."""
        if exact and (self.kind != "flat" or allowed is not None):
            return self._compare(queries, wide, np.arange(self.rows) if allowed is None else np.flatnonzero(allowed))
        if allowed is None and wide <= GPU_MOST and len(queries) >= GPU_QUERIES and self.kind in {"flat", "ivf"}:
            found = self._on_gpu(queries, wide)
            if found is not None:
                return found
        selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        # a filter that keeps one row in ten leaves a tenth of what a probe sees: look at ten times as much
        share = 1.0 if allowed is None else self.rows / max(1, int(allowed.sum()))
        return self.index.search(queries, wide, params=search_parameters(self.kind, self.parameters, wide, share, selector))[1]

    def _compare(
        self, queries: Float[np.ndarray, "queries dim"], wide: int, rows: Int[np.ndarray, "m"]
    ) -> Int[np.ndarray, "queries wide"]:
        """Exact search among `rows`, a block at a time."""
        best_score = np.full((len(queries), wide), -np.inf, dtype=np.float32)
        best_row = np.full((len(queries), wide), -1, dtype=np.int64)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            score, position = faiss.knn(queries, self.vectors(block), min(wide, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
            score, row = np.hstack([best_score, score]), np.hstack([best_row, block[position]])
            order = np.argsort(-score, axis=1, kind="stable")[:, :wide]
            best_score, best_row = np.take_along_axis(score, order, 1), np.take_along_axis(row, order, 1)
        return best_row

    def _on_gpu(self, queries: Float[np.ndarray, "queries dim"], wide: int) -> Int[np.ndarray, "queries wide"] | None:
        """Candidates found on the first GPU, or None where there is none, or where it cannot hold the index."""
        if self.device == "cpu" or faiss.get_num_gpus() == 0:
            return None
        try:
            if self._gpu is None:
                copy = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self.index)
                if self.kind == "ivf":
                    copy.nprobe = self.parameters["probes"]
                self._gpu = copy
            return self._gpu.search(queries, wide)[1]
        except (RuntimeError, AttributeError, AssertionError):  # out of GPU memory, driver too old, a wheel without GPU code
            self.device = "cpu"
            return None


def check_device(device: Device) -> None:
    """Refuse `cuda` where faiss has no GPU; `auto` uses one where there is one."""
    if device == "cuda" and faiss.get_num_gpus() == 0:
        raise UserError("device: faiss sees no GPU on this machine; use 'auto' or 'cpu'")


def search_parameters(kind: Kind, parameters: dict[str, int], wide: int, share: float = 1.0, selector: Any = None) -> Any:
    """faiss search parameters; effort grows with `share`, the number of rows per allowed row."""
    if kind == "flat":
        return faiss.SearchParameters(sel=selector)
    if kind == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=max(wide, int(parameters["breadth"] * share)), sel=selector)
    return faiss.SearchParametersIVF(nprobe=min(parameters["lists"], int(np.ceil(parameters["probes"] * share))), sel=selector)


def _parts(n: int, floats_each: int) -> Iterator[slice]:
    step = max(1, BUDGET // floats_each)
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))
