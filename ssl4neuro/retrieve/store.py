"""An index on disk: one faiss file per embedding column, the metadata, and a record of what may query it.

faiss reads its files with C++ code that trusts them, so a file's sha256 is checked before faiss sees a byte of it.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ssl4neuro.errors import UserError
from ssl4neuro.registry import suggest
from ssl4neuro.retrieve.search import Device, Searcher

FORMAT, VERSION = "ssl4neuro index", 1
REQUIRED = ("unit", "name", "rows", "columns", "contract", "checkpoint_sha256", "files")


@dataclass(frozen=True)
class Index:
    """An index folder, opened read-only. Columns are verified and loaded when they are first searched."""

    path: Path
    info: dict[str, Any]
    metadata: pd.DataFrame
    _loaded: dict[tuple[str, str], Searcher] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, path: str | Path) -> "Index":
        """Open a folder that `ssl4neuro index` wrote.

        Raises:
            UserError: not an index, or its metadata are missing, cut short or altered.
        """
        path = Path(path)
        record = path / "index.json"
        if not record.is_file():
            raise UserError(f"{path}: no index here (index.json is missing); make one with `ssl4neuro index`")
        try:
            info = json.loads(record.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{record}: not valid JSON ({error}); build the index again") from error
        if not isinstance(info, dict) or info.get("format") != FORMAT or info.get("version") != VERSION:
            raise UserError(f"{record}: not {FORMAT} version {VERSION}; build the index again with this version")
        missing = [key for key in REQUIRED if key not in info]
        if missing:
            raise UserError(f"{record}: '{missing[0]}' is missing; build the index again")
        verify(path, "metadata.parquet", info["files"])
        return cls(path, info, pd.read_parquet(path / "metadata.parquet"))

    @property
    def columns(self) -> list[str]:
        """Embedding columns that can be searched."""
        return list(self.info["columns"])

    def searcher(self, column: str, device: Device = "auto") -> Searcher:
        """One column, verified and loaded.

        Raises:
            UserError: no such column, or its file is missing, cut short or altered.
        """
        if column not in self.columns:
            raise UserError(f"{self.path}: no column '{column}'{suggest(column, self.columns)}")
        if (column, device) not in self._loaded:
            self._loaded[column, device] = self._load(column, device)
        return self._loaded[column, device]

    def _load(self, column: str, device: Device) -> Searcher:
        about = self.info["columns"][column]
        for name in filter(None, (about["file"], about.get("vectors"))):
            verify(self.path, name, self.info["files"])
        index = faiss.read_index(str(self.path / about["file"]))
        if index.ntotal != self.info["rows"] or index.d != about["dim"]:
            raise UserError(f"{self.path / about['file']}: holds other vectors than index.json says; build the index again")
        if about.get("vectors"):
            stored = np.load(self.path / about["vectors"], mmap_mode="r", allow_pickle=False)

            def vectors(rows: Int[np.ndarray, "m"]) -> Float[np.ndarray, "m dim"]:
                return np.asarray(stored[rows])

        else:
            if about["kind"] == "ivf":
                index.make_direct_map()

            def vectors(rows: Int[np.ndarray, "m"]) -> Float[np.ndarray, "m dim"]:
                return index.reconstruct_batch(rows)

        return Searcher(index, about["kind"], about["parameters"], vectors, self.info["rows"], device)

    def __str__(self) -> str:
        """A line per column: kind, parameters, measured recall."""
        lines = [f"{self.path}: {self.info['rows']} {self.info['unit']}s of {self.info['name']}"]
        for column, about in self.info["columns"].items():
            settings = " ".join(f"{key} {value}" for key, value in about["parameters"].items())
            recall = ", ".join(f"{value:.3f} for {query}" for query, value in about["recall"].items())
            quality = "exact" if about["kind"] == "flat" else f"recall@10 {recall} queries"
            lines.append(
                f"  {column}: {about['kind']} {about['dim']} dimensions{', ' + settings if settings else ''}; {quality}"
            )
        return "\n".join(lines)


def verify(folder: Path, name: str, files: dict[str, Any]) -> None:
    """Refuse a file that is not the one that was written."""
    file = folder / name
    expected = files.get(name) if Path(name).name == name else None
    if expected is None or not file.is_file() or file.stat().st_size != expected["bytes"] or sha256(file) != expected["sha256"]:
        raise UserError(f"{file}: missing, cut short or altered since it was written; build the index again")


def sha256(file: Path) -> str:
    """Hex digest of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
