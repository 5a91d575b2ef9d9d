"""A tiny cohort with known content and embeddings of it, written by the library's own writers."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ssl4neuro.data.cohort_writer import CohortParts, PreparedScan, write_cohort
from ssl4neuro.data.embeddings import write_embeddings
from ssl4neuro.data.scan import Grid, Scan, ScanRows

NETWORKS = ["DMN", "DMN", "SM", "SM", "VIS", "VIS"]
SUBJECTS, VOLUMES = 12, 60


def _scan(rng: np.random.Generator, subject: int, session: str, templates: np.ndarray) -> ScanRows:
    """Components are noisy class templates; in `post` the first two courses are coupled (an effect that FNC sees)."""
    courses = rng.normal(size=(len(NETWORKS), VOLUMES))
    if session == "ses-post":
        courses[1] = courses[0] + 0.3 * courses[1]
    courses = (courses - courses.mean(1, keepdims=True)) / courses.std(1, keepdims=True)
    maps = templates + 0.5 * rng.normal(size=templates.shape)
    nuisance = {"n_volumes": float(VOLUMES), "mean_fd": float(rng.uniform(0.1, 0.3)), "tsnr": 40.0 + subject}
    return ScanRows(
        courses.astype(np.float32), 2.0, np.arange(1, len(NETWORKS) + 1), list(NETWORKS), maps.astype(np.float32), nuisance
    )


def build(folder: Path, seen: int = 4) -> SimpleNamespace:
    """12 subjects × pre/post × 6 components of 3 networks; the first `seen` subjects were pretrained on."""
    rng = np.random.default_rng(0)
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[:, :, :3] = True
    voxels = int(mask.sum())
    base = {name: rng.normal(size=voxels) for name in dict.fromkeys(NETWORKS)}
    templates = np.stack([base[name] for name in NETWORKS])
    scans = []
    for subject in range(SUBJECTS):
        for session in ("ses-post", "ses-pre"):
            scan = Scan(f"sub-{subject:02d}", (), session)
            key = f"{subject}{session}"
            scans.append(PreparedScan(scan, _scan(rng, subject, session, templates), key, key, []))
    names = [f"sub-{i:02d}" for i in range(SUBJECTS)]
    participants = pd.DataFrame({"participant_id": names, "age": rng.uniform(20, 70, SUBJECTS).round(1)})
    participants["sex"] = ["F", "M"] * (SUBJECTS // 2)
    participants["scanner"] = ["A", "A", "A", "B", "B", "B"] * (SUBJECTS // 6)
    sessions = pd.DataFrame([(n, f"ses-{s}", "", s) for n in names for s in ("post", "pre")])
    sessions.columns = ["participant_id", "session_id", "run_id", "state"]
    parts = CohortParts("tiny", "ica", Grid(np.eye(4), mask), participants=participants, sessions=sessions)
    cohort = write_cohort(folder / "cohort", scans, parts)

    index = cohort.index
    samples = index[["subject", "session", "run", "site", "component", "network"]].copy()
    samples.insert(0, "row", np.arange(len(index)))
    old = {f"sub-{i:02d}" for i in range(seen)}
    samples["seen"] = samples["subject"].isin(old)
    table = samples.groupby(["subject", "session", "run"], sort=False).agg(
        site=("site", "first"), seen=("seen", "first"), rows=("row", "size")
    )
    table = table.reset_index()
    state = np.where(table["session"] == "ses-post", 1.0, -1.0)
    vectors = rng.normal(size=(len(table), 8)).astype(np.float32)
    vectors[:, 0] += 2 * state
    codes = pd.factorize(samples["network"])[0]
    own = rng.normal(size=(len(samples), 8)).astype(np.float32) + 3 * np.eye(8, dtype=np.float32)[codes]
    shared = rng.normal(size=(len(samples), 4)).astype(np.float32)
    near = shared + 0.1 * rng.normal(size=shared.shape).astype(np.float32)
    columns = {"map": own, "joint": own[:, ::-1].copy(), "map_projected": shared, "course_projected": near}
    scan_columns = {
        "map": vectors,
        "joint": vectors[:, ::-1].copy(),
        "map_projected": vectors[:, :4],
        "course_projected": vectors[:, :4],
    }
    info = {"name": "tiny", "cohort": str(cohort.path), "run": "run", "checkpoint_sha256": "0" * 64}
    labels = {n: cohort.path / n for n in ("participants.tsv", "sessions.tsv")}
    path = write_embeddings(folder / "embeddings", info, samples, table, columns, scan_columns, labels)
    return SimpleNamespace(cohort=cohort, path=path, folder=folder, seen=old)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """See `build`; read-only."""
    return build(tmp_path_factory.mktemp("evaluate"))
