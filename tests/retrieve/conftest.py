"""Small embeddings folders with known neighbours."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ssl4neuro.data.embeddings import write_embeddings

CONTRACT = {"map": {"kind": "volume", "shape": [4, 4, 4], "mask_sha256": "m" * 8}, "course": {"kind": "course", "tr": 2.0}}
DIMS = {"map": 12, "course": 6, "map_projected": 8, "course_projected": 8}


def _clustered(rows: int, dim: int, seed: int, clusters: int = 40, spread: float = 0.6) -> np.ndarray:
    """Gaussian clusters: what embeddings look like, unlike a uniform sphere, where nobody has neighbours."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))
    return (centres[rng.integers(clusters, size=rows)] + spread * rng.standard_normal((rows, dim))).astype(np.float32)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def clustered() -> Callable[..., np.ndarray]:
    return _clustered


@pytest.fixture
def unit() -> Callable[[np.ndarray], np.ndarray]:
    return _unit


@pytest.fixture
def contract() -> dict[str, dict[str, object]]:
    return CONTRACT


@pytest.fixture
def embed(tmp_path: Path) -> Callable[..., Path]:
    """Write an embeddings folder of 4 components per scan, 2 scans per subject."""

    def write(
        folder: str = "embeddings",
        *,
        scans: int = 30,
        seed: int = 0,
        vectors: dict[str, np.ndarray] | None = None,
        **info: object,
    ) -> Path:
        rows = 4 * scans
        if vectors is None:
            vectors = {c: _clustered(rows, d, seed + i) for i, (c, d) in enumerate(DIMS.items())}
            shared = _clustered(rows, 8, seed + 50)
            noise = np.random.default_rng(seed + 51).standard_normal((2, rows, 8))
            vectors |= {
                f"{m}_projected": _unit(shared + 0.2 * e).astype(np.float32)
                for m, e in zip(("map", "course"), noise, strict=True)
            }
        scan = np.arange(rows) // 4
        samples = pd.DataFrame(
            {
                "row": np.arange(rows),
                "subject": [f"sub-{s // 2:02d}" for s in scan],
                "session": [f"ses-{s % 2}" for s in scan],
                "run": "",
                "site": [("A", "B", "C")[s // 2 % 3] for s in scan],
                "component": (np.arange(rows) % 4).astype(np.int32),
                "network": [("DMN", "SC", "VIS", "")[r % 4] for r in range(rows)],
                "seen": [s // 2 % 2 == 0 for s in scan],
            }
        )
        sessions = (
            samples.groupby(scan).first().drop(columns=["row", "component", "network"]).reset_index(drop=True).assign(rows=4)
        )
        labels = tmp_path / f"{folder}-participants.tsv"
        people = sorted(set(samples["subject"]))
        ages = ["n/a" if i == 1 else str(20 + i) for i in range(len(people))]
        pd.DataFrame({"participant_id": people, "age": ages}).to_csv(labels, sep="\t", index=False)
        record = {
            "name": "toy",
            "cohort_sha256": "c0ffee",
            "run": "runs/a",
            "checkpoint_sha256": "aa11" * 8,
            "contract": CONTRACT,
        } | info
        scan_vectors = {c: np.stack([v[scan == s].mean(0) for s in range(scans)]) for c, v in vectors.items()}
        return write_embeddings(
            tmp_path / folder, record, samples, sessions, vectors, scan_vectors, {"participants.tsv": labels}
        )

    return write
