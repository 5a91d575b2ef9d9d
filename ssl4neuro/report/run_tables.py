"""Tables of a run: validation measures, subjects, input contract, versions and speed."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ssl4neuro.report.log import part
from ssl4neuro.report.page import Table, number, plural

PARTS = {"train": "trained on", "validation": "choose the best checkpoint", "holdout": "seen by no encoder; for probes"}


def measures_table(log: pd.DataFrame) -> Table:
    """Where every validation measure started, how far it went and where it is."""
    measured = part(log, "validation")
    rows = []
    for column in [c for c in measured if c not in {"time", "step", "epoch", "split", "signal"}]:
        values = pd.to_numeric(measured[column], errors="coerce").dropna()
        if len(values):
            rows.append((column, float(values.iloc[0]), float(values.min()), float(values.max()), float(values.iloc[-1])))
    columns = ("measure", "first", "lowest", "highest", "last")
    exact = tuple(dict(zip(columns, row, strict=True)) for row in rows)
    shown = tuple((row[0], *map(number, row[1:])) for row in rows)
    note = f"{plural(len(measured), 'validation')} on subjects that were not trained on."
    return Table("Validation measures", columns, shown, "validation", note, exact=exact)


def split_table(counts: Mapping[str, int]) -> Table:
    """How many subjects are in which part."""
    total = sum(counts.values())
    rows = [(name, n, f"{n / total:.0%}", PARTS.get(name, "")) for name, n in counts.items() if total]
    note = "Counts only; the names are in split.json."
    return Table("Subjects", ("part", "subjects", "share", "use"), tuple(rows), "subjects", note)


def contract_table(contract: Mapping[str, Any], checkpoint: str) -> Table:
    """What the checkpoint expects of its input."""
    rows = [
        (modality, name.replace("_", " "), readable(name, value))
        for modality, entry in contract.items()
        if isinstance(entry, Mapping)
        for name, value in entry.items()
        if name != "mask"  # packed voxels; its hash is there
    ]
    note = f"From checkpoint {checkpoint}. Every cohort that this encoder is used on is checked against it."
    return Table("Input contract", ("modality", "property", "expected"), tuple(rows), "contract", note)


def environment_table(environment: Mapping[str, Any], summary: Mapping[str, Any]) -> Table:
    """Versions, seed, hardware and speed."""
    versions = environment.get("versions")
    rows = [(key, value) for key, value in environment.items() if key != "versions"]
    rows += [(name, value) for name, value in (versions.items() if isinstance(versions, Mapping) else ())]
    if isinstance(summary.get("samples_per_s"), int | float):
        rows.append(("samples per second", number(float(summary["samples_per_s"]), 1)))
    if isinstance(summary.get("data_wait"), int | float):
        rows.append(("time spent waiting for data", f"{summary['data_wait']:.1%}"))
    return Table("Versions, seed and speed", ("what", "value"), tuple(rows))


def readable(name: str, value: Any) -> str:
    """A contract value in words: voxel sizes for an affine, a short hash, units with times and bands."""
    if value is None:
        return "unknown or any"
    if name == "affine":
        matrix = np.array(value, dtype=float)
        sizes = np.linalg.norm(matrix[:3, :3], axis=0)
        origin = ", ".join(f"{v:g}" for v in matrix[:3, 3])
        return f"voxels {' × '.join(f'{v:g}' for v in sizes)} mm, origin {origin} mm"
    if name.endswith("sha256"):
        return f"{str(value)[:12]}…"
    if name == "loading" and isinstance(value, Mapping):
        return ", ".join(f"{key} {v}" for key, v in value.items() if v is not None)
    if name in {"tr", "trs"}:
        times = value if isinstance(value, list) else [value]
        return ", ".join(f"{t:g}" if isinstance(t, int | float) else str(t) for t in times) + " s"
    if name == "band" and isinstance(value, list):
        return f"{value[0]} to {value[1]} Hz"
    if name == "shape" and isinstance(value, list):
        return " × ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
