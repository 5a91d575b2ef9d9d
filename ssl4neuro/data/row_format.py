"""What differs between kinds of cohorts when they are prepared: how a scan's rows are finalised, kept meanwhile, and stored.

A new kind is one such class, one line in `row_format` and one subclass of `Cohort`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from ssl4neuro.data.scan import Grid, Scan

Rows = Any  # ScanRows or ClipRows; each format knows its own


@runtime_checkable
class Tally(Protocol):
    """What is learnt of a cohort while its scans are written, one after the other."""

    def add(self, rows: Rows) -> None: ...

    def statistics(self) -> dict[str, Any]:
        """For cohort.json: moments of the values, lengths, and so on."""
        ...

    def contract(self, described: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """What a checkpoint will expect of its input, with the entries that only the reader knows."""
        ...

    def tables(self) -> dict[str, list[dict[str, object]]]:
        """Further tables to store, by file name."""
        ...


@runtime_checkable
class RowFormat(Protocol):
    """Rows of one kind of cohort. Picklable, for it travels to the processes that read scans."""

    nuisance: ClassVar[tuple[str, ...]]  # columns of sessions.tsv that every scan has

    def finalise(self, rows: Rows, name: str) -> tuple[Rows, list[str]]:
        """Rows as they are stored, and a line for everything left out. Raises UserError when nothing can be used."""
        ...

    def values(self, rows: Rows) -> bytes:
        """The values by which a scan is known whose file holds others too."""
        ...

    def pack(self, rows: Rows) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Finalised rows as arrays and JSON, to be kept until the cohort is written."""
        ...

    def unpack(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Rows:
        """The inverse of `pack`; KeyError or ValueError when something is missing."""
        ...

    def take_over(self, cohort: Any, rows: Int[np.ndarray, "rows"], record: Mapping[str, Any]) -> Rows:
        """Finalised rows of one scan from an existing cohort."""
        ...

    def schema(self) -> pa.Schema: ...

    def batch(self, scan: Scan, rows: Rows) -> pa.RecordBatch: ...

    def tally(self) -> Tally: ...


def row_format(kind: str, grid: Grid | None = None, band: tuple[float, float] | None = None) -> RowFormat:
    """The format of a kind of cohort: `ica`, `courses` or `clips`."""
    if kind == "clips":
        from ssl4neuro.data.clip_rows import ClipFormat

        return ClipFormat()
    from ssl4neuro.data.ica_rows import IcaFormat

    return IcaFormat(grid, band)
