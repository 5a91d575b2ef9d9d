"""What makes `prepare` restartable: hashes of sources, finished scans kept beside the output, and rows of an older cohort."""

import hashlib
import json
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssl4neuro.atomic import new_file, write_text
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.row_format import RowFormat, Rows
from ssl4neuro.errors import UserError
from ssl4neuro.manifest import file_sha256

RACY_S = 2.0  # a file changed this recently may change again without its time telling
Finished = tuple[Rows, str, list[str]]  # finalised rows, content hash, what was left out


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
            name = digest(str(file.resolve()))  # paths of clinical data hold names
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


def save_shard(file: Path, finished: Finished, form: RowFormat) -> None:
    """Keep a finished scan."""
    rows, content, left_out = finished
    arrays, meta = form.pack(rows)
    text = json.dumps({**meta, "content": content, "left_out": left_out}, default=float)
    with new_file(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, meta=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)


def load_shard(file: Path, form: RowFormat) -> Finished | None:
    """A kept scan; None where there is none, or a damaged one, which is then made again."""
    try:
        # Opened here, because np.load leaves a damaged file open.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            meta = json.loads(archive["meta"].tobytes())
            rows = form.unpack({name: archive[name] for name in archive.files}, meta)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return rows, meta["content"], meta["left_out"]


class OldCohort:
    """Scans of an existing cohort, to be taken over where nothing that determines them has changed."""

    def __init__(self, existing: Cohort | None, form: RowFormat) -> None:
        self._cohort, self._form = existing, form
        self._scans: Mapping[str, tuple[int, dict[str, Any]]] = {}
        if existing is not None:
            self._scans = {scan["key"]: (number, scan) for number, scan in enumerate(existing.info["prepared"])}

    def __contains__(self, key: str) -> bool:
        return key in self._scans

    def load(self, key: str) -> Finished:
        """Rows of the scan with this key."""
        assert self._cohort is not None
        number, record = self._scans[key]
        rows = np.flatnonzero(self._cohort.index["group_code"].to_numpy() == number)
        return self._form.take_over(self._cohort, rows, record), record["content"], list(record["left_out"])
