"""1,000 queries in 100,000 × 256: this library's four kinds of index against plain faiss, in the same run.

    python tests/benchmarks/bench_retrieval.py [--rows 100000] [--dim 256]

The vectors are clusters, as embeddings are; queries are new draws that no index holds. Times are the median of five searches;
ours include the exact scores and the order of ties, which plain faiss does not give.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pandas as pd

from ssl4neuro.data.embeddings import write_embeddings
from ssl4neuro.retrieve.index import build_index

K = 10


def vectors(rng: np.random.Generator, centres: np.ndarray, rows: int) -> np.ndarray:
    x = (centres[rng.integers(len(centres), size=rows)] + 1.2 * rng.standard_normal((rows, centres.shape[1]))).astype(
        np.float32
    )
    faiss.normalize_L2(x)
    return x


def seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=1000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, options.dim))
    x, q = vectors(rng, centres, options.rows), vectors(rng, centres, options.queries)

    plain = faiss.IndexFlatIP(options.dim)
    plain.add(x)
    reference = seconds(lambda: plain.search(q, K))
    kth = plain.search(q, K)[0][:, -1]
    print(
        f"{options.queries} queries in {options.rows} × {options.dim}, {faiss.omp_get_max_threads()} threads, faiss {faiss.__version__}"
    )
    print(f"{'index':14} {'build s':>8} {'search s':>9} {'ratio':>7} {'recall@10':>10} {'recorded':>9}  parameters")
    print(f"{'plain faiss':14} {'':>8} {reference:9.3f} {1:7.2f} {1:10.4f}")

    samples = pd.DataFrame({"row": np.arange(options.rows), "subject": "sub-01", "session": "", "run": "", "seen": False})
    info = {"name": "bench", "cohort_sha256": "", "checkpoint_sha256": "", "contract": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_embeddings(folder / "e", info, samples, samples.iloc[:1].drop(columns="row"), {"map": x}, {"map": x[:1]}, {})
        for kind in ("flat", "ivf", "hnsw", "pq"):
            start = time.perf_counter()
            with contextlib.redirect_stderr(io.StringIO()):
                index = build_index(folder / "e", folder / kind, kind=kind, device="cpu")
            built = time.perf_counter() - start
            searcher = index.searcher("map", "cpu")
            searcher.search(q[:10], K)
            taken = seconds(lambda searcher=searcher: searcher.search(q, K))
            recall = (searcher.search(q, K)[0] >= kth[:, None] - 2e-6).mean()
            about = index.info["columns"]["map"]
            recorded = about["recall"]["map"]
            print(
                f"{kind:14} {built:8.1f} {taken:9.3f} {reference / taken:7.2f} {recall:10.4f} {recorded:9.4f}  {about['parameters']}"
            )


if __name__ == "__main__":
    main()
