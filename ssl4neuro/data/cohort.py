"""A prepared cohort on disk: memory-mapped rows, label tables beside them, and the record of where all of it came from.

`rows.arrow` is an Arrow stream with one record batch per scan, so that writing holds one scan in memory and reading a row
touches only that row's pages. Labels stay in the tables, out of the arrays: pretraining cannot see them by accident.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Int

from ssl4neuro.errors import UserError
from ssl4neuro.manifest import file_sha256
from ssl4neuro.registry import suggest

FORMAT, VERSION = "ssl4neuro cohort", 1
RECORD, ROWS, MASK = "cohort.json", "rows.arrow", "mask.nii.gz"
PARTICIPANTS, SESSIONS, ASSIGNMENT, GROUP_MAPS = "participants.tsv", "sessions.tsv", "assignment.tsv", "group_maps.nii.gz"
EXCLUDED = "excluded.tsv"  # lines of the user's table of participants of whom no scan could be used, if there are some
SCAN_KEY = ("participant_id", "session_id", "run_id")
SCAN_COLUMNS = ("subject", "session", "run", "site")


@dataclass(frozen=True, repr=False)
class Cohort:
    """A cohort opened read-only. Cheap to open: nothing but the record and the small columns is read.

    `IcaCohort` and `ClipCohort` say what a row holds; everything here is the same for all.

    Attributes:
        row_columns: columns of a row that tell what it is, beside its values.
        places: those that tell rows of one scan apart.
        mask: voxels that `map` holds, in C order; None where there are no maps.
    """

    path: Path
    info: dict[str, Any]
    row_columns: ClassVar[tuple[str, ...]] = SCAN_COLUMNS
    places: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def open(cls, path: str | Path) -> "Cohort":
        """Open a folder that `prepare` wrote.

        Raises:
            UserError: no cohort, of another version, or a file in it is missing or cut short.
        """
        path = Path(path)
        info = read_record(path)
        for name, expected in info["files"].items():
            file = path / name
            if not file.is_file():
                raise UserError(f"{file}: missing; prepare the cohort again")
            if file.stat().st_size != expected["bytes"]:
                raise UserError(
                    f"{file}: has {file.stat().st_size} bytes instead of {expected['bytes']}; prepare the cohort again"
                )
        cohort = _kind(info)(path, info)
        if len(cohort._table) != info["rows"]:
            raise UserError(f"{path / ROWS}: has {len(cohort._table)} rows instead of {info['rows']}; prepare the cohort again")
        return cohort

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.info[what]} {what}" for what in ("subjects", "scans", "rows"))
        return f"{self.path}: {counts} ({', '.join(self.modalities)})"

    def verify(self) -> None:
        """Read every file and compare its sha256 with the record.

        Raises:
            UserError: a file was altered since it was written.
        """
        for name, expected in self.info["files"].items():
            if file_sha256(self.path / name) != expected["sha256"]:
                raise UserError(f"{self.path / name}: altered since it was written; prepare the cohort again")

    def __len__(self) -> int:
        return int(self.info["rows"])

    @property
    def name(self) -> str:
        """Name of the dataset, which the leakage firewall hashes together with the subject."""
        return str(self.info["name"])

    @property
    def kind(self) -> str:
        """`ica`, `courses` or `clips`."""
        return str(self.info["kind"])

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that the contract describes."""
        return tuple(self.info["contract"])

    @property
    def mask(self) -> Bool[np.ndarray, "x y z"] | None:
        return None

    @cached_property
    def dataset(self) -> Any:
        """The rows as a memory-mapped `datasets.Dataset`, for use with that library."""
        from datasets import Dataset

        return Dataset.from_file(str(self.path / ROWS))

    @cached_property
    def index(self) -> pd.DataFrame:
        """One line per row: `row_columns` and codes.

        `subject_code` counts the sorted subjects, `group_code` the scans in the order of the cohort.
        """
        table = self._table.select([*self.row_columns]).to_pandas()
        table["subject_code"] = np.unique(table["subject"].to_numpy(dtype=str), return_inverse=True)[1].astype(np.int64)
        scan = table["subject"] + "\t" + table["session"] + "\t" + table["run"]
        table["group_code"] = pd.factorize(scan)[0].astype(np.int64)
        return table

    @cached_property
    def participants(self) -> pd.DataFrame:
        """participants.tsv: participant_id and whatever the user's table has."""
        return read_labels(self.path / PARTICIPANTS, ("participant_id",))

    @cached_property
    def sessions(self) -> pd.DataFrame:
        """sessions.tsv: one line per scan with n_volumes, mean_fd (mm), tsnr and the user's label columns."""
        return read_labels(self.path / SESSIONS, SCAN_KEY)

    def fetch(self, rows: Int[np.ndarray, "rows"], modalities: Sequence[str] | None = None) -> dict[str, Any]:
        """Values of many rows in one read, in the order asked; a row may be asked for several times.

        Raises:
            IndexError: a row outside the cohort.
        """
        raise NotImplementedError

    def locate(self, rows: Int[np.ndarray, "rows"]) -> tuple[list[int], list[int]]:
        """Record batch and place within it of each row.

        Raises:
            IndexError: a row outside the cohort.
        """
        rows = np.asarray(rows)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of a cohort of {len(self)}")
        batch = np.searchsorted(self._starts, rows, side="right") - 1
        return batch.tolist(), (rows - self._starts[batch]).tolist()

    def labels(self, column: str) -> np.ndarray:
        """One value per row (None where missing), from the row itself, else its scan in sessions.tsv, else its subject.

        Raises:
            UserError: no such column anywhere.
        """
        index = self.index
        if column in self.row_columns:
            return _objects(index[column])
        scans = ["subject", "session", "run"]
        for table, own, keys in ((self.sessions, scans, SCAN_KEY), (self.participants, ["subject"], ("participant_id",))):
            if column in table and column not in keys:
                values = dict(zip(map(tuple, table[list(keys)].to_numpy()), _objects(table[column]), strict=True))
                found = [values.get(tuple(key)) for key in index[own].to_numpy()]
                return np.array([*found, None], dtype=object)[:-1]
        known = {*self.row_columns, *self.sessions.columns, *self.participants.columns} - set(SCAN_KEY)
        raise UserError(f"{self.path}: no column '{column}'{suggest(column, known)}; add it to participants.tsv or --sessions")

    def content_hashes(self) -> dict[str, set[str]]:
        """By subject the sha256 of what its scans were read from, for the leakage firewall.

        Sidecars and masks do not count: they are the same for everyone. Scans that share a file (npz) count by their values.
        """
        hashes: dict[str, set[str]] = {}
        for scan in self.info["prepared"]:
            hashes.setdefault(scan["subject"], set()).add(scan["content"])
        return hashes

    @cached_property
    def _table(self) -> pa.Table:
        try:
            with pa.memory_map(str(self.path / ROWS)) as source:
                return pa.ipc.open_stream(source).read_all()
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{self.path / ROWS}: damaged ({str(error).splitlines()[0]}); prepare the cohort again") from error

    @cached_property
    def _starts(self) -> Int[np.ndarray, "batches"]:
        sizes = [len(part) for part in self._table["subject"].chunks]
        return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "info": self.info}  # memory maps are opened anew in another process


def _kind(info: dict[str, Any]) -> type[Cohort]:
    # here, because the kinds are subclasses
    from ssl4neuro.data.clip_cohort import ClipCohort
    from ssl4neuro.data.ica_cohort import IcaCohort

    return ClipCohort if info["kind"] == "clips" else IcaCohort


def read_record(path: Path) -> dict[str, Any]:
    """`cohort.json` of a cohort.

    Raises:
        UserError: not there, not JSON, or of another version.
    """
    file = path / RECORD
    if not file.is_file():
        raise UserError(f"{path}: no prepared cohort here ({RECORD} is missing); make one with `ssl4neuro prepare`")
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid JSON ({error}); prepare the cohort again") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT or info.get("version") != VERSION:
        raise UserError(f"{file}: not {FORMAT} version {VERSION}; prepare the cohort again with this version")
    return info


def read_labels(file: Path, keys: Sequence[str]) -> pd.DataFrame:
    """A label table of a cohort; the key columns are text, empty where there is none, the others as pandas infers them."""
    table = pd.read_csv(file, sep="\t", dtype=dict.fromkeys(keys, str), keep_default_na=True)
    table[list(keys)] = table[list(keys)].fillna("")
    return table


def _objects(column: pd.Series) -> np.ndarray:
    """Plain Python values, None where missing; whole numbers stay whole although missing ones made the column float."""
    values = [None if pd.isna(value) else value for value in column.tolist()]
    if column.dtype.kind == "f" and all(value is None or float(value).is_integer() for value in values):
        values = [None if value is None else int(value) for value in values]
    return np.array([*values, None], dtype=object)[:-1]  # the extra None keeps numpy from making a number array
