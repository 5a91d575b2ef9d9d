"""A smaller cohort for a study: some rows of another one, on the box that holds the brain, maybe one row per cell.

A cell is one network of one scan and may have several components. Around the brain a grid is mostly empty: at 8 mm two thirds
of the convolutions of a 3-D encoder are saved without losing a voxel.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ssl4neuro.data.cohort import SCAN_KEY, Cohort
from ssl4neuro.data.cohort_writer import CohortParts, PreparedScan, write_cohort
from ssl4neuro.data.ica_cohort import IcaCohort
from ssl4neuro.data.row_format import RowFormat, row_format
from ssl4neuro.data.scan import Grid, Scan, ScanRows
from ssl4neuro.data.standardise import zscore_courses, zscore_maps
from ssl4neuro.errors import UserError
from ssl4neuro.manifest import file_sha256

MARGIN = 1  # voxels around the mask
SMALLEST_SIDE = 16  # of the box, as far as the grid has them; 3-D encoders want so many
FROM_ROWS = ("kind", "shape", "affine", "mask_sha256", "voxels", "tr", "trs")  # of the contract, told by the rows themselves


def write_cells(out: Path, cohort: IcaCohort, rows: Int[np.ndarray, "rows"], *, aggregate: bool = False) -> IcaCohort:
    """Write `rows` of a cohort as a cohort of its own, or open it where that was done before.

    Name, labels and the scans' content hashes are the same, so that the leakage firewall takes both for one.

    Args:
        aggregate: one row per network and scan; see `aggregated`.

    Raises:
        UserError: `out` holds the rows of another cohort.
    """
    made = {
        "cohort": file_sha256(cohort.path / "cohort.json"), "prepared": cohort.info["settings"],
        "rows": rows.tolist(), "aggregate": aggregate,
    }  # fmt: skip
    if (out / "cohort.json").is_file():
        found = Cohort.open(out)
        if not isinstance(found, IcaCohort) or found.info["settings"] != made:
            raise UserError(
                f"{out}: holds the rows of another cohort than {cohort.path} is now, or of another version; use another --out"
            )
        return found
    grid = None if cohort.mask is None or cohort.affine is None else crop(Grid(cohort.affine, cohort.mask))
    described = {m: {k: v for k, v in told.items() if k not in FROM_ROWS} for m, told in cohort.info["contract"].items()}
    parts = CohortParts(
        name=cohort.name, kind=cohort.kind, grid=grid, contract=described, settings=made,
        participants=cohort.participants, sessions=_sessions(cohort),
    )  # fmt: skip
    written = write_cohort(out, _scans(cohort, rows, aggregate, row_format(cohort.kind, grid)), parts)
    assert isinstance(written, IcaCohort)
    return written


def crop(grid: Grid) -> Grid:
    """The grid's part around the mask. In-mask voxels and their order stay as they are."""
    box, start = [], []
    for axis, side in enumerate(grid.mask.shape):
        inside = np.flatnonzero(grid.mask.any(axis=tuple({0, 1, 2} - {axis})))
        low, high = max(0, int(inside[0]) - MARGIN), min(side, int(inside[-1]) + 1 + MARGIN)
        low = max(0, min(low, high - SMALLEST_SIDE))
        high = min(side, max(high, low + SMALLEST_SIDE))
        box.append(slice(low, high))
        start.append(low)
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    return Grid(affine, np.ascontiguousarray(grid.mask[tuple(box)]))


def aggregated(rows: ScanRows) -> ScanRows:
    """One row per network of a scan: the first principal component of its courses, and the mean of its maps.

    Maps are weighted by how much of that course is theirs (|loading|); both are standardised again. The course has the sign
    that most of it agrees with, and the number of the component that has the largest share.

    Source: `methods/network_state.md` section 2, mode `aggregated`.
    """
    networks = list(dict.fromkeys(rows.network))
    courses, maps, component = [], [], []
    for network in networks:
        own = np.array([name == network for name in rows.network])
        course, loading = _first_component(rows.courses[own].astype(np.float64))
        courses.append(course)
        component.append(int(rows.component[own][np.abs(loading).argmax()]))
        if rows.maps is not None:
            share = np.abs(loading) / np.abs(loading).sum()
            maps.append(share @ rows.maps[own].astype(np.float64))
    return replace(
        rows,
        courses=zscore_courses(np.stack(courses)),
        maps=zscore_maps(np.stack(maps)) if maps else None,
        component=np.array(component, dtype=np.int64),
        network=networks,
        assignment=[],
    )


def _sessions(cohort: IcaCohort) -> pd.DataFrame:
    """The labels of the scans, and how many components each of them had before rows were chosen."""
    counts = cohort.index.groupby(["subject", "session", "run"]).size().rename("n_components").reset_index()
    counts.columns = pd.Index([*SCAN_KEY, "n_components"])
    return cohort.sessions.drop(columns="n_components", errors="ignore").merge(counts, on=list(SCAN_KEY), how="left")


def _first_component(
    courses: Float[np.ndarray, "components time"],
) -> tuple[Float[np.ndarray, "time"], Float[np.ndarray, "components"]]:
    left, values, right = np.linalg.svd(courses, full_matrices=False)
    sign = 1.0 if left[:, 0].sum() >= 0 else -1.0
    return sign * right[0], sign * values[0] * left[:, 0]


def _scans(cohort: IcaCohort, rows: Int[np.ndarray, "rows"], aggregate: bool, form: RowFormat) -> Iterator[PreparedScan]:
    index = cohort.index
    wanted = np.isin(np.arange(len(cohort)), rows)
    sources: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for entry in cohort.info["sources"]:
        record = {key: value for key, value in entry.items() if key not in ("subject", "session", "run")}
        sources.setdefault((entry["subject"], entry["session"], entry["run"]), []).append(record)
    codes = index["group_code"].to_numpy()
    prepared = {(entry["subject"], entry["session"], entry["run"]): entry for entry in cohort.info["prepared"]}
    for code in np.unique(codes[wanted]):
        own = np.flatnonzero(wanted & (codes == code))
        first = index.iloc[own[0]]
        identity = (first["subject"], first["session"], first["run"])
        record = prepared[identity]
        taken = form.take_over(cohort, own, record)
        taken.assignment = [
            line for line in taken.assignment if str(line.get("component")) in {str(c) for c in taken.component}
        ]
        scan = Scan(first["subject"], (), first["session"], first["run"], first["site"])
        key = json.dumps([record["key"], taken.component.tolist(), aggregate])
        yield PreparedScan(scan, aggregated(taken) if aggregate else taken, key, record["content"], sources[identity])
