"""Fixtures shared by all tests."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.cohort_writer import CohortParts, PreparedScan, write_cohort
from ssl4neuro.data.scan import Grid, Scan, ScanRows

# Two cores and many workers: one thread each is faster than all of them fighting for two.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of public real data (`$SSL4NEURO_DATA`, or `../shared/data` beside the checkout)."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SSL4NEURO_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set SSL4NEURO_DATA)")
    return folder


@pytest.fixture(scope="session")
def make_cohort() -> Callable[..., Cohort]:
    """Factory of tiny prepared cohorts: `make_cohort(path, subjects=6, sessions=("ses-pre", "ses-post"))`.

    Every component has its own place and rhythm, every subject its own pattern, and `ses-post` a stronger second half of the
    map, so that there is something to learn. Scans differ in length.
    """
    return _make_cohort


def _make_cohort(
    path: Path,
    subjects: int = 6,
    sessions: tuple[str, ...] = ("ses-pre", "ses-post"),
    components: int = 4,
    side: int = 16,
    maps: bool = True,
    tr: float = 2.0,
    seed: int = 0,
    name: str = "tiny",
) -> Cohort:
    grid = Grid(np.diag([10.0, 10.0, 10.0, 1.0]), np.zeros((side, side, side), dtype=bool))
    grid.mask[3:-3, 3:-3, 3:-3] = True
    voxels = int(grid.mask.sum())
    places = np.random.default_rng(99).standard_normal((components, voxels))
    scans, labels = [], []
    for s in range(subjects):
        person = np.random.default_rng([seed, s]).standard_normal((components, voxels))
        for number, session in enumerate(sessions):
            generator = np.random.default_rng([seed, s, number + 1])
            length = 64 + 8 * (s % 3)
            pattern = 2 * places + person + generator.standard_normal((components, voxels))
            pattern[:, voxels // 2 :] *= 1 + 0.5 * number
            pattern = (pattern - pattern.mean(1, keepdims=True)) / pattern.std(1, keepdims=True)
            time = np.arange(length) * tr
            wave = np.sin(
                2 * np.pi * (0.02 + 0.01 * np.arange(components))[:, None] * time + generator.uniform(0, 6, (components, 1))
            )
            courses = wave + generator.standard_normal((components, length))
            courses = (courses - courses.mean(1, keepdims=True)) / courses.std(1, keepdims=True)
            rows = ScanRows(
                courses=courses.astype(np.float32),
                tr=tr,
                component=np.arange(1, components + 1, dtype=np.int32),
                network=[f"net-{c % 2}" for c in range(components)],
                maps=pattern.astype(np.float16) if maps else None,
                nuisance={"n_volumes": float(length), "mean_fd": 0.1, "tsnr": 50.0},
            )
            scan = Scan(f"sub-{s:02d}", (Path(f"sub-{s:02d}_{session}.nii"),), session, site="AB"[s % 2])
            content = f"{seed:016x}{s:024x}{number:024x}"
            file = {"file": scan.files[0].name, "sha256": content, "bytes": 1}
            scans.append(PreparedScan(scan, rows, content, content, [file]))
            state = session.removeprefix("ses-")
            labels.append({"participant_id": scan.subject, "session_id": session, "run_id": "", "state": state})
    order = sorted(range(len(scans)), key=lambda i: (scans[i].scan.subject, scans[i].scan.session))
    people = pd.DataFrame({
        "participant_id": [f"sub-{s:02d}" for s in range(subjects)],
        "age": [20 + s for s in range(subjects)],
        "site": ["AB"[s % 2] for s in range(subjects)],
    })  # fmt: skip
    parts = CohortParts(
        name=name,
        kind="ica" if maps else "courses",
        grid=grid if maps else None,
        participants=people,
        sessions=pd.DataFrame(labels),
    )
    return write_cohort(path, [scans[i] for i in order], parts)
