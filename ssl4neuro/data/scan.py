"""What a reader hands to `prepare`: the scans there are, and the rows of one scan (of ICA data here, of clips in `clip.py`)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from ssl4neuro.data.clip import ClipRows


@dataclass(frozen=True)
class Grid:
    """Voxel grid and mask of a cohort; maps are stored as the in-mask voxels in C order of `mask`."""

    affine: Float[np.ndarray, "4 4"]  # voxel index to mm
    mask: Bool[np.ndarray, "x y z"]


@dataclass(frozen=True)
class Scan:
    """One scan (session and run) still to be read: paths only, so that it can go to a worker process."""

    subject: str  # as in participants.tsv, e.g. `sub-01`
    files: tuple[Path, ...]  # everything of this scan that determines its rows; hashed for restarts and for the firewall
    session: str = ""  # e.g. `ses-pre`; empty where the data has none
    run: str = ""
    site: str = ""
    anonymous: bool = False  # the names of its files may hold patients' names: they are recorded by hash only

    @property
    def name(self) -> str:
        """`sub-01 ses-pre run-1`, for messages."""
        return " ".join(part for part in (self.subject, self.session, self.run) if part)


@dataclass
class ScanRows:
    """Components of one scan, before sign fixing and standardisation (which `prepare` does for every reader alike)."""

    courses: Float[np.ndarray, "components time"]
    tr: float  # s, NaN where unknown
    component: Int[np.ndarray, "components"]  # 1-based, as numbered by the source
    network: list[str]  # empty string where unassigned
    maps: Float[np.ndarray, "components voxels"] | None = None  # on the reader's grid; None for courses only
    nuisance: dict[str, float] = field(default_factory=dict)  # mean_fd (mm), tsnr, n_volumes; goes to sessions.tsv
    assignment: list[dict[str, object]] = field(default_factory=list)  # review table: component, network, correlation, ...
    sign: Int[np.ndarray, "components"] | None = None  # ±1 to multiply by where a template or group map tells; 0: skewness
    lesion: Bool[np.ndarray, "voxels"] | None = None  # where `maps` hold their mean elsewhere instead of data


@runtime_checkable
class Reader(Protocol):
    """A source of scans. A new format is one such class and one line in a table of `data/readers`.

    Raises from every method: UserError naming the file, what is wrong and what to do.
    """

    def scans(self) -> list[Scan]:
        """All scans, sorted by subject, session, run; cheap (reads no image data)."""
        ...

    def grid(self) -> Grid | None:
        """The cohort's grid; None for courses and clips."""
        ...

    def read(self, scan: Scan) -> ScanRows | ClipRows:
        """The rows of one scan. Called in worker processes: the reader must be picklable and hold one scan at a time."""
        ...

    def shared_files(self) -> dict[str, Path]:
        """Files that influence every scan, by role: `maps`, `templates`, `mask`, `networks`, `subjects`."""
        ...

    def description(self) -> dict[str, dict[str, object]]:
        """Contract entries only the reader knows, by modality: space, band, template and so on."""
        ...


@runtime_checkable
class LabelledReader(Protocol):
    """A reader whose files hold labels of the subjects, for when there is no table of participants."""

    def labels(self) -> pd.DataFrame | None:
        """`participant_id` and label columns; None where the files hold none."""
        ...
