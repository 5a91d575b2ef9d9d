"""1,000 queries in 100,000 × 256: this library's four kinds of index against plain faiss, in the same run.

    python tests/benchmarks/bench_retrieval.py [--rows 100000] [--dim 256]

Queries are new draws that no index holds. Our times include the exact scores and the order of ties, which plain faiss does
not give.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pandas as pd

from ssl4neuro.data.embeddings import write_embeddings
from ssl4neuro.retrieve.index import build_index

K = 10


def vectors(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Unit vectors with the decaying spectrum that embeddings have, and no clusters that lists could copy."""
    x = (rng.standard_normal((rows, dim)) * np.arange(1, dim + 1) ** -0.75).astype(np.float32)
    faiss.normalize_L2(x)
    return x


def together(ours: Callable[[], object], reference: Callable[[], object]) -> tuple[float, float, float]:
    """Median seconds of both and the median of reference / ours, measured in turn, so that other load hits both alike."""
    times: dict[str, list[float]] = {"ours": [], "reference": []}
    for _ in range(7):
        for name, work in (("reference", reference), ("ours", ours)):
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    ratio = statistics.median(b / a for a, b in zip(times["ours"], times["reference"], strict=True))
    return statistics.median(times["ours"]), statistics.median(times["reference"]), ratio


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=1000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x, q = vectors(rng, options.rows, options.dim), vectors(rng, options.queries, options.dim)

    plain = faiss.IndexFlatIP(options.dim)
    plain.add(x)
    kth = plain.search(q, K)[0][:, -1]
    size = f"{options.queries} queries in {options.rows} × {options.dim}"
    print(f"{size}, {faiss.omp_get_max_threads()} threads, faiss {faiss.__version__}; plain is faiss.IndexFlatIP")
    print("kind   build s  search s   plain s   faster  recall@10  recorded  parameters")

    samples = pd.DataFrame({"row": np.arange(options.rows), "subject": "sub-01", "session": "", "run": "", "seen": False})
    info = {"name": "bench", "cohort_sha256": "", "checkpoint_sha256": "", "contract": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_embeddings(folder / "e", info, samples, samples.iloc[:1].drop(columns="row"), {"map": x}, {"map": x[:1]}, {})
        for kind in ("flat", "ivf", "hnsw", "pq"):
            start = time.perf_counter()
            index = build_index(folder / "e", folder / kind, kind=kind, device="cpu")
            built = time.perf_counter() - start
            searcher = index.searcher("map", "cpu")
            searcher.search(q[:10], K)
            ours, reference, ratio = together(partial(searcher.search, q, K), partial(plain.search, q, K))
            recall = (searcher.search(q, K)[0] >= kth[:, None] - 2e-6).mean()
            about = index.info["columns"]["map"]
            times = f"{kind:5} {built:8.1f} {ours:9.3f} {reference:9.3f} {ratio:7.2f}×"
            print(f"{times} {recall:10.4f} {about['recall']['map']:9.4f}  {about['parameters']}")


if __name__ == "__main__":
    main()
