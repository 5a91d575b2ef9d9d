"""Embeddings on disk: one Parquet table per sample and one per scan, with the contract and the firewall's record."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from ssl4neuro.atomic import new_folder
from ssl4neuro.errors import UserError
from ssl4neuro.manifest import file_sha256
from ssl4neuro.registry import suggest

Unit = Literal["sample", "session", "subject"]
FORMAT, VERSION = "ssl4neuro embeddings", 1
SCAN_KEY = ["subject", "session", "run"]


@dataclass(frozen=True)
class Embeddings:
    """An embeddings folder, opened read-only and verified."""

    path: Path
    info: dict[str, Any]
    samples: pa.Table
    sessions: pa.Table

    @classmethod
    def open(cls, path: str | Path) -> "Embeddings":
        """Open and verify a folder that `ssl4neuro embed` wrote.

        Raises:
            UserError: not an embeddings folder, or a file in it is missing, cut short or altered.
        """
        path = Path(path)
        record = path / "embeddings.json"
        if not record.is_file():
            raise UserError(f"{path}: no embeddings here (embeddings.json is missing); make them with `ssl4neuro embed`")
        try:
            info = json.loads(record.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{record}: not valid JSON ({error}); embed the cohort again") from error
        if not isinstance(info, dict) or info.get("format") != FORMAT or info.get("version") != VERSION:
            raise UserError(f"{record}: not {FORMAT} version {VERSION}; embed the cohort again with this version")
        for name, expected in info["files"].items():
            file = path / name
            if not file.is_file() or file.stat().st_size != expected["bytes"] or file_sha256(file) != expected["sha256"]:
                raise UserError(f"{file}: missing, cut short or altered since it was written; embed the cohort again")
        return cls(path, info, pq.read_table(path / "samples.parquet"), pq.read_table(path / "sessions.parquet"))

    @property
    def columns(self) -> list[str]:
        """Names of the embedding columns: modalities, `joint`, `<modality>_projected`, `<modality>_layer<k>`."""
        return list(self.info["modalities"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of any result has to know about where these came from."""
        return tuple(self.info.get("notes", ()))

    @property
    def rows_sha256(self) -> str | None:
        """Of the cohort or table whose rows these are: where it is the same, so are the rows."""
        return self.info.get("cohort_sha256") or self.info.get("table_sha256")

    def columns_of(self, unit: Unit) -> list[str]:
        """The columns that exist at this level: some embeddings are of whole scans only."""
        table = self.samples if unit == "sample" else self.sessions
        return [column for column in self.columns if column in table.column_names]

    @cached_property
    def _tables(self) -> dict[str, pd.DataFrame]:
        tables = {}
        for unit, table in (("sample", self.samples), ("session", self.sessions)):
            frame = table.drop_columns([c for c in self.columns if c in table.column_names]).to_pandas()
            tables[unit] = self._with_labels(frame)
        scans = tables["session"]
        subjects = scans.groupby("subject", sort=False).first().reset_index()
        varying = [c for c in scans.columns if c != "subject" and scans.groupby("subject")[c].nunique(dropna=False).max() > 1]
        tables["subject"] = subjects.drop(columns=varying).assign(
            seen=scans.groupby("subject", sort=False)["seen"].any().to_numpy()
        )
        return tables

    def table(self, unit: Unit) -> pd.DataFrame:
        """Metadata and labels, one line per sample, scan or subject, in the order of `matrix`.

        At subject level only columns that are constant within every subject remain: a scan's state is no property of a subject.
        """
        return self._tables[unit]

    def matrix(self, unit: Unit, column: str) -> Float[np.ndarray, "n dim"]:
        """Embeddings of one column; a subject's is the mean over its scans."""
        table = self.samples if unit == "sample" else self.sessions
        if column not in self.columns_of(unit):
            raise UserError(f"{self.path}: no embedding '{column}' of a {unit}{suggest(column, self.columns_of(unit))}")
        values = table[column].combine_chunks()
        matrix = values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1).astype(np.float32)
        if unit != "subject":
            return matrix
        frame = pd.DataFrame(matrix).groupby(table["subject"].to_pandas(), sort=False).mean()
        return frame.to_numpy(np.float32)

    def bags(self, unit: Unit, column: str) -> Float[np.ndarray, "n largest dim"]:
        """All samples of each scan or subject, in the order of `matrix`, padded with NaN; for probes that pool themselves."""
        samples = self.matrix("sample", column)
        if unit == "sample":
            return samples[:, None]
        keys = SCAN_KEY if unit == "session" else ["subject"]
        names = pd.MultiIndex.from_frame(self.table(unit)[keys].astype(str))
        where = names.get_indexer(pd.MultiIndex.from_frame(self.table("sample")[keys].astype(str)))
        place = pd.Series(where).groupby(where).cumcount().to_numpy()
        bags = np.full((len(names), int(place.max()) + 1, samples.shape[1]), np.nan, dtype=np.float32)
        bags[where, place] = samples
        return bags

    def _with_labels(self, frame: pd.DataFrame) -> pd.DataFrame:
        for name, keys, renames in (
            ("sessions.tsv", SCAN_KEY, {"participant_id": "subject", "session_id": "session", "run_id": "run"}),
            ("participants.tsv", ["subject"], {"participant_id": "subject"}),
        ):
            file = self.path / name
            if not file.is_file():
                continue
            extra = pd.read_csv(file, sep="\t", dtype=dict.fromkeys(renames, str), keep_default_na=True).rename(columns=renames)
            extra[keys] = extra[keys].fillna("")
            new = [c for c in extra.columns if c not in frame.columns or c in keys]
            frame = frame.merge(extra[new].drop_duplicates(keys), on=keys, how="left", validate="many_to_one")
        return frame


def with_vectors(frame: pd.DataFrame, vectors: Mapping[str, Float[np.ndarray, "rows _"]]) -> pa.Table:
    """The table with a list column of float32 per embedding."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for column, matrix in vectors.items():
        flat = pa.array(np.ascontiguousarray(matrix, dtype=np.float32).ravel())
        table = table.append_column(column, pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1]))
    return table


def write_embeddings(
    path: Path,
    info: Mapping[str, Any],
    samples: pd.DataFrame,
    sessions: pd.DataFrame,
    sample_vectors: Mapping[str, Float[np.ndarray, "samples dim"]],
    session_vectors: Mapping[str, Float[np.ndarray, "scans dim"]],
    label_tables: Mapping[str, Path],
) -> Path:
    """Write an embeddings folder atomically; `info` holds what the writer knows of run, contract and manifest."""
    with new_folder(path) as folder:
        for name, frame, vectors in (("samples", samples, sample_vectors), ("sessions", sessions, session_vectors)):
            pq.write_table(with_vectors(frame, vectors), folder / f"{name}.parquet")
        for name, source in label_tables.items():
            (folder / name).write_bytes(Path(source).read_bytes())
        files = {f.name: {"sha256": file_sha256(f), "bytes": f.stat().st_size} for f in sorted(folder.iterdir())}
        record = {
            "format": FORMAT,
            "version": VERSION,
            **info,
            "modalities": {
                column: {"dim": int(matrix.shape[1])} for column, matrix in {**session_vectors, **sample_vectors}.items()
            },
            "rows": len(samples),
            "scans": len(sessions),
            "files": files,
        }
        (folder / "embeddings.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return Path(path)
