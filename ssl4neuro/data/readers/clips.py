"""Readers of cine and video, by the `--layout` of `ssl4neuro prepare clips`."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from ssl4neuro.data.clip import ClipRows
from ssl4neuro.data.readers.acdc import AcdcReader
from ssl4neuro.data.readers.bids_clips import BidsClipReader
from ssl4neuro.data.readers.emidec import EmidecReader
from ssl4neuro.data.readers.files import FileReader
from ssl4neuro.data.scan import Scan


@runtime_checkable
class ClipReader(Protocol):
    """A source of clips. A new layout is one such class, with the options of the others, and one line in `LAYOUTS`.

    Raises from every method: UserError naming the file (never a patient), what is wrong and what to do.
    """

    def scans(self) -> list[Scan]:
        """All studies, sorted by subject, session, run; cheap (reads no pixels)."""
        ...

    def grid(self) -> None:
        """None: clips have no common grid."""
        ...

    def read(self, scan: Scan) -> ClipRows:
        """The clips of one study. Called in worker processes: the reader must be picklable and hold one study at a time."""
        ...

    def shared_files(self) -> dict[str, Path]:
        """Files that influence every study, by role: `subjects`."""
        ...

    def description(self) -> dict[str, dict[str, object]]:
        """Contract entries only the reader knows: `{"cine": {"cyclic": True}}` where clips are one heart beat, None unknown."""
        ...


LAYOUTS: dict[str, type] = {"acdc": AcdcReader, "emidec": EmidecReader, "bids": BidsClipReader, "files": FileReader}
