"""Reading many scans, in this process or in several, each kept on disk as soon as it is finished."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ssl4neuro.data.restart import save_shard
from ssl4neuro.data.row_format import RowFormat
from ssl4neuro.data.scan import Reader, Scan
from ssl4neuro.errors import UserError
from ssl4neuro.progress import progress


@dataclass(frozen=True)
class Planned:
    """A scan with the hashes of its files and the key of everything that determines its rows."""

    scan: Scan
    hashes: tuple[str, ...]
    key: str
    shares_file: bool  # its first file holds other scans too

    @property
    def content(self) -> str:
        """What the firewall knows the scan by: its data file, or all of them where each is a part of the scan."""
        if not self.scan.anonymous:
            return self.hashes[0]
        return sha256("".join(sorted(self.hashes)).encode()).hexdigest()

    def without_names(self, text: str) -> str:
        """A message without the paths of files whose names may be patients' names."""
        if not self.scan.anonymous:
            return text
        for file, value in zip(self.scan.files, self.hashes, strict=True):
            text = text.replace(str(file), f"sha256:{value[:12]}").replace(file.name, f"sha256:{value[:12]}")
        for folder in sorted({str(file.parent) for file in self.scan.files}, key=len, reverse=True):
            text = text.replace(folder, "a DICOM folder")
        return text


@dataclass(frozen=True)
class ScanWork:
    """How to read scans, apart from which.

    Attributes:
        form: how rows are finalised and kept.
        folder: where finished scans are kept.
    """

    reader: Reader
    form: RowFormat
    folder: Path
    workers: int = 1

    def shard(self, key: str) -> Path:
        """File of a finished scan."""
        return self.folder / f"{key}.npz"

    def read_all(self, todo: Sequence[Planned], skip_bad: bool) -> dict[str, str]:
        """Read the scans and keep them; the messages of the bad ones by key.

        Raises:
            UserError: the first bad one, unless bad ones are to be skipped.
        """
        bad: dict[str, str] = {}
        with progress("prepare", len(todo), show=bool(todo)) as bar:
            for item, message in self._parallel(todo) if min(self.workers, len(todo)) > 1 else self._serial(todo):
                if message is not None:
                    if not skip_bad:
                        raise UserError(message)
                    bad[item.key] = item.without_names(message)  # it goes into cohort.json
                bar.advance(1, scan=item.scan.name)
        return bad

    def read_one(self, item: Planned) -> str | None:
        """Read, finalise and keep one scan; the message if it cannot be used."""
        scan = item.scan
        name = f"{scan.files[0]} ({scan.name})" if item.shares_file or scan.anonymous else str(scan.files[0])
        try:
            rows = self.reader.read(scan)
            content = sha256(self.form.values(rows)).hexdigest() if item.shares_file else item.content
            rows, left_out = self.form.finalise(rows, name)
        except UserError as error:
            return str(error)
        save_shard(self.shard(item.key), (rows, content, [item.without_names(line) for line in left_out]), self.form)
        return None

    def _serial(self, todo: Sequence[Planned]) -> Iterator[tuple[Planned, str | None]]:
        for item in todo:
            yield item, self.read_one(item)

    def _parallel(self, todo: Sequence[Planned]) -> Iterator[tuple[Planned, str | None]]:
        """Fresh processes rather than forked ones, because a fork copies the locks of numerical libraries' threads."""
        workers = min(self.workers, len(todo))
        start: dict[str, Any] = {"initializer": _start_worker, "initargs": (self, workers)}
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), **start) as pool:
            futures: dict[Future[str | None], Planned] = {pool.submit(_read, item): item for item in todo}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BrokenProcessPool as error:
                raise UserError("--workers: a worker process died, probably for lack of memory; use fewer workers") from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


_work: ScanWork | None = None  # of a worker process, which gets the reader (with its maps) once and not with every scan


def _start_worker(work: ScanWork, workers: int) -> None:
    global _work
    _work = work
    from threadpoolctl import threadpool_limits

    threadpool_limits(max(1, (os.cpu_count() or 1) // workers))


def _read(item: Planned) -> str | None:
    assert _work is not None
    return _work.read_one(item)
