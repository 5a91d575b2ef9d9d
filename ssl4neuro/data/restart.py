"""What makes `prepare` restartable: hashes of sources, finished scans kept beside the output, and rows of an older cohort."""

import hashlib
import json
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssl4neuro.atomic import new_file, write_text
from ssl4neuro.data import cohort
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.scan import ScanRows
from ssl4neuro.errors import UserError
from ssl4neuro.manifest import file_sha256

RACY_S = 2.0  # a file changed this recently may change again without its time telling
Finished = tuple[ScanRows, str, list[str]]  # finalised rows, content hash, components left out


def digest(value: object) -> str:
    """sha256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


class FileHashes:
    """sha256 by file, remembered by size and modification time, so that unchanged scans are not read again."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._known: dict[str, list[Any]] = {}
        try:
            known = json.loads(memory.read_text(encoding="utf-8"))
            self._known = known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            pass  # a memory that is gone or damaged costs time only
        self._before = dict(self._known)

    def of(self, file: Path) -> str:
        """sha256 of the file's content.

        Raises:
            UserError: it cannot be read.
        """
        try:
            state = file.stat()
            stamp = [state.st_size, state.st_mtime_ns]
            name = str(file.resolve())
            known = self._known.get(name)
            if isinstance(known, list) and known[:2] == stamp:
                return str(known[2])
            value = file_sha256(file)
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror}); check the path and its permissions") from error
        if time.time() - state.st_mtime > RACY_S:
            self._known[name] = [*stamp, value]
        return value

    def save(self) -> None:
        """Remember for the next time."""
        if self._known != self._before:
            write_text(self._memory, json.dumps(self._known))


def save_shard(file: Path, finished: Finished) -> None:
    """Keep a finished scan; maps as float16, as the cohort will hold them."""
    rows, content, left_out = finished
    meta = {
        "tr": None if np.isnan(rows.tr) else rows.tr,
        "network": rows.network,
        "nuisance": {key: value for key, value in rows.nuisance.items() if np.isfinite(value)},
        "assignment": rows.assignment,
        "content": content,
        "left_out": left_out,
    }
    arrays: dict[str, Any] = {
        "component": rows.component,
        "courses": rows.courses.astype(np.float32),
        "meta": np.frombuffer(json.dumps(meta, default=float).encode(), dtype=np.uint8),
    }
    if rows.maps is not None:
        arrays["maps"] = rows.maps.astype(np.float16)
    with new_file(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def load_shard(file: Path) -> Finished | None:
    """A kept scan; None where there is none, or a damaged one, which is then made again."""
    try:
        # Opened here, because np.load leaves a damaged file open.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            meta = json.loads(archive["meta"].tobytes())
            rows = ScanRows(
                courses=archive["courses"],
                tr=float("nan") if meta["tr"] is None else meta["tr"],
                component=archive["component"],
                network=meta["network"],
                maps=archive.get("maps"),
                nuisance=meta["nuisance"],
                assignment=meta["assignment"],
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return rows, meta["content"], meta["left_out"]


class OldCohort:
    """Scans of an existing cohort, to be taken over where nothing that determines them has changed."""

    def __init__(self, existing: Cohort | None) -> None:
        self._cohort = existing
        self._scans: Mapping[str, tuple[int, dict[str, Any]]] = {}
        if existing is not None:
            self._scans = {scan["key"]: (number, scan) for number, scan in enumerate(existing.info["prepared"])}

    def __contains__(self, key: str) -> bool:
        return key in self._scans

    def load(self, key: str) -> Finished:
        """Rows of the scan with this key."""
        assert self._cohort is not None
        number, record = self._scans[key]
        index = self._cohort.index
        rows = np.flatnonzero(index["group_code"].to_numpy() == number)
        chosen = index.iloc[rows]
        values = self._cohort.fetch(rows, self._cohort.modalities)
        return (
            ScanRows(
                courses=np.stack(values["course"]),
                tr=float(chosen["tr"].iloc[0]),
                component=chosen["component"].to_numpy(dtype=np.int64),
                network=[str(name) for name in chosen["network"]],
                maps=values.get("map"),
                nuisance=dict(record["nuisance"]),
                assignment=self._assignment(record),
            ),
            record["content"],
            list(record["left_out"]),
        )

    def _assignment(self, record: Mapping[str, Any]) -> list[dict[str, object]]:
        assert self._cohort is not None
        file = self._cohort.path / cohort.ASSIGNMENT
        if not file.is_file():
            return []
        table = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
        identity = dict(zip(cohort.SCAN_KEY, (record["subject"], record["session"], record["run"]), strict=True))
        own = np.logical_and.reduce([table[column] == value for column, value in identity.items()])
        return [{str(column): value for column, value in line.items()} for line in table[own].to_dict("records")]
