"""Rows of ICA cohorts and of courses alone: one component of one scan, with its map and its course."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float, Int

from ssl4neuro.data.cohort import ASSIGNMENT, SCAN_KEY, Cohort
from ssl4neuro.data.grid import mask_sha256
from ssl4neuro.data.moments import Moments
from ssl4neuro.data.scan import Grid, Scan, ScanRows
from ssl4neuro.data.standardise import finalise


@dataclass(frozen=True)
class IcaFormat:
    """Format of component rows.

    Attributes:
        grid: of the maps; None for courses only.
        band: pass band (Hz) that the reader has not applied itself.
    """

    grid: Grid | None = None
    band: tuple[float, float] | None = None
    nuisance: ClassVar[tuple[str, ...]] = ("n_volumes", "mean_fd", "tsnr")

    def finalise(self, rows: ScanRows, name: str) -> tuple[ScanRows, list[str]]:
        """Signs, trends and scales alike for every source; see `standardise`."""
        rows.nuisance.setdefault("n_volumes", float(rows.courses.shape[1]))
        return finalise(rows, name, self.band)

    def values(self, rows: ScanRows) -> bytes:
        """The courses."""
        return np.ascontiguousarray(rows.courses).tobytes()

    def pack(self, rows: ScanRows) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Maps as float16, as the cohort will hold them."""
        arrays: dict[str, np.ndarray] = {"component": rows.component, "courses": rows.courses.astype(np.float32)}
        if rows.maps is not None:
            arrays["maps"] = rows.maps.astype(np.float16)
        meta = {
            "tr": None if np.isnan(rows.tr) else rows.tr,
            "network": rows.network,
            "nuisance": {key: value for key, value in rows.nuisance.items() if np.isfinite(value)},
            "assignment": rows.assignment,
        }
        return arrays, meta

    def unpack(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> ScanRows:
        """The inverse of `pack`."""
        return ScanRows(
            courses=arrays["courses"],
            tr=float("nan") if meta["tr"] is None else meta["tr"],
            component=arrays["component"],
            network=list(meta["network"]),
            maps=arrays.get("maps"),
            nuisance=dict(meta["nuisance"]),
            assignment=list(meta["assignment"]),
        )

    def take_over(self, cohort: Cohort, rows: Int[np.ndarray, "rows"], record: Mapping[str, Any]) -> ScanRows:
        """Rows of one scan as an existing cohort holds them."""
        chosen = cohort.index.iloc[rows]
        values = cohort.fetch(rows, cohort.modalities)
        return ScanRows(
            courses=np.stack(values["course"]),
            tr=float(chosen["tr"].iloc[0]),
            component=chosen["component"].to_numpy(dtype=np.int64),
            network=[str(name) for name in chosen["network"]],
            maps=values.get("map"),
            nuisance=dict(record["nuisance"]),
            assignment=_assignment(cohort, record),
        )

    def schema(self) -> pa.Schema:
        """Fixed-size lists for maps, variable ones for courses."""
        columns = [(name, pa.string()) for name in ("subject", "session", "run", "site", "network")]
        columns += [("component", pa.int32())]
        columns += [("map", pa.list_(pa.float16(), int(self.grid.mask.sum())))] if self.grid is not None else []
        columns += [("course", pa.list_(pa.float32())), ("tr", pa.float32())]
        return pa.schema(columns)

    def batch(self, scan: Scan, rows: ScanRows) -> pa.RecordBatch:
        """Lists straight from numpy's memory; Python lists would be ten times slower."""
        n, volumes = rows.courses.shape
        columns: dict[str, pa.Array] = {
            "subject": pa.array([scan.subject] * n),
            "session": pa.array([scan.session] * n),
            "run": pa.array([scan.run] * n),
            "site": pa.array([scan.site] * n),
            "network": pa.array(rows.network, pa.string()),
            "component": pa.array(rows.component.astype(np.int32)),
            "course": _lists(rows.courses, volumes),
            "tr": pa.array(np.full(n, rows.tr, dtype=np.float32)),
        }
        if rows.maps is not None:
            flat = np.ascontiguousarray(rows.maps, dtype=np.float16).ravel()
            columns["map"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), rows.maps.shape[1])
        schema = self.schema()
        return pa.record_batch([columns[name] for name in schema.names], schema=schema)

    def tally(self) -> "IcaTally":
        """Nothing counted yet."""
        return IcaTally(self.grid)


@dataclass
class IcaTally:
    """Moments of maps and courses, lengths, repetition times and the assignment table."""

    grid: Grid | None
    moments: dict[str, Moments] = field(default_factory=lambda: {"course": Moments(), "map": Moments()})
    lengths: list[int] = field(default_factory=list)
    trs: list[float] = field(default_factory=list)
    assignment: list[dict[str, object]] = field(default_factory=list)

    def add(self, rows: ScanRows) -> None:
        """Count one scan."""
        self.moments["course"].add(rows.courses)
        if rows.maps is not None:
            self.moments["map"].add(rows.maps)
        self.lengths.append(rows.courses.shape[1])
        self.trs.append(rows.tr)
        self.assignment.extend(rows.assignment)

    def statistics(self) -> dict[str, Any]:
        """Moments by modality, and the lengths of courses in volumes."""
        found: dict[str, Any] = {name: m.summary() for name, m in self.moments.items() if m.count}
        found["course"] |= {"length_min": min(self.lengths), "length_max": max(self.lengths)}
        return found

    def tables(self) -> dict[str, list[dict[str, object]]]:
        """Which component was given to which network, for review."""
        return {ASSIGNMENT: self.assignment} if self.assignment else {}

    def contract(self, described: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Grid, mask, normalisation and repetition times, then what only the reader knows."""
        known = sorted({round(float(tr), 6) for tr in self.trs if np.isfinite(tr)})
        single = known[0] if len(known) == 1 and all(np.isfinite(self.trs)) else None
        contract: dict[str, dict[str, Any]] = {}
        if self.grid is not None:
            contract["map"] = {
                "kind": "volume",
                "units": "z",
                "space": None,
                "shape": list(self.grid.mask.shape),
                "affine": self.grid.affine.tolist(),
                "mask_sha256": mask_sha256(self.grid),
                "voxels": int(self.grid.mask.sum()),
                "normalisation": "in-mask z-score",
                "sign": "positive skewness",
                "template_sha256": None,
            }
        contract["course"] = {
            "kind": "course",
            "units": "z",
            "tr": single,
            "trs": [*known, *([None] if not all(np.isfinite(self.trs)) else [])],
            "band": None,
            "normalisation": "linear detrend, z-score",
            "template_sha256": None,
        }
        for modality, entries in described.items():
            own = contract.get(modality, {})
            own.update({key: value for key, value in entries.items() if key in own})
        return contract


def _lists(courses: Float[np.ndarray, "components time"], volumes: int) -> pa.ListArray:
    offsets = np.arange(len(courses) + 1, dtype=np.int32) * volumes
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(courses, dtype=np.float32).ravel()))


def _assignment(cohort: Cohort, record: Mapping[str, Any]) -> list[dict[str, object]]:
    file = cohort.path / ASSIGNMENT
    if not file.is_file():
        return []
    table = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
    identity = dict(zip(SCAN_KEY, (record["subject"], record["session"], record["run"]), strict=True))
    own = np.logical_and.reduce([table[column] == value for column, value in identity.items()])
    return [{str(column): value for column, value in line.items()} for line in table[own].to_dict("records")]
