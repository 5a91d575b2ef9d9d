"""Time series of regions or components that were extracted elsewhere: npz, csv, tsv, AFNI 1D; no maps.

The format is one row per volume and one column per region. A transposed file is recognised only where it cannot be anything
else (see `time_axis_of`); what was taken for time is said and recorded.
"""

import glob
import sys
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from ssl4neuro.data.readers.bids_names import parse_name, repetition_time, sidecars
from ssl4neuro.data.readers.naming import TR_RANGE, entities
from ssl4neuro.data.scan import Scan, ScanRows
from ssl4neuro.data.templates import read_networks
from ssl4neuro.errors import UserError

EXTENSIONS = (".npz", ".csv", ".tsv", ".1d")
NOT_SERIES = ("participants", "sessions", "phenotype", "networks", "dataset_description")  # tables that lie beside series
Key = tuple[str, str, str]  # subject, session, run


class CourseReader:
    """Courses from a file, a folder or a pattern.

    Args:
        timeseries: an .npz (key `subject[/session[/run]]`, array volumes × regions; with one array only, the file's name
            says whose it is), a table of one scan (its name says whose:
            `sub-01_ses-pre_run-1_timeseries.tsv`, otherwise the name is the subject's), a folder of these, or a pattern.
        tr: s; otherwise RepetitionTime of a JSON beside the file, else unknown.
        networks: table `component`, `network` naming the regions.
        time_axis: 0 where rows are volumes, 1 where columns are.
        drop_volumes: volumes to leave out at the beginning of each scan.

    Raises:
        UserError: nothing there, unreadable, not 2-D, or one scan twice.
    """

    def __init__(
        self,
        timeseries: Path,
        *,
        tr: float | None = None,
        networks: Path | None = None,
        time_axis: int | None = None,
        drop_volumes: int = 0,
    ) -> None:
        if tr is not None and not TR_RANGE[0] <= tr <= TR_RANGE[1]:
            raise UserError(f"--tr {tr}: is no repetition time in seconds, e.g. 2.0")
        if time_axis not in (None, 0, 1):
            raise UserError(f"--time-axis {time_axis}: 0 (rows are volumes) or 1 (columns are volumes)")
        if drop_volumes < 0:
            raise UserError(f"--drop-volumes {drop_volumes}: cannot be negative")
        self.timeseries, self.tr, self.drop_volumes = Path(timeseries), tr, drop_volumes
        self.networks = None if networks is None else Path(networks)
        self._names = read_networks(self.networks) if self.networks is not None else {}
        self._keys: dict[Key, str] = {}  # member of the npz that holds a scan
        self._wanted_axis = time_axis
        self._scans = self._find()

    def scans(self) -> list[Scan]:
        """See `Reader`."""
        return self._scans

    def grid(self) -> None:
        """See `Reader`: there is none."""
        return

    def read(self, scan: Scan) -> ScanRows:
        """See `Reader`."""
        table = self._table(scan)
        courses = (table if self.time_axis == 1 else table.T)[:, self.drop_volumes :].astype(np.float64)
        if len(courses) != self.regions:
            first = self._where(self._scans[0])
            raise UserError(
                f"{self._where(scan)}: has {len(courses)} regions, {first} has {self.regions}; one atlas per cohort"
            )
        numbers = np.arange(1, len(courses) + 1)
        return ScanRows(courses, self._repetition_time(scan.files[0]), numbers, [self._names.get(int(n), "") for n in numbers])

    def shared_files(self) -> dict[str, Path]:
        """See `Reader`."""
        return {"networks": self.networks} if self.networks is not None else {}

    def description(self) -> dict[str, dict[str, object]]:
        """See `Reader`."""
        return {}

    @cached_property
    def time_axis(self) -> int:
        """Axis of the files that is time."""
        if self._wanted_axis is not None:
            return self._wanted_axis
        # Headers of arrays cost nothing; tables must be parsed, so a few of them have to do.
        shapes = [self._shape(scan) for scan in (self._scans if self._keys else self._scans[:20])]
        axis, certain = time_axis_of(shapes, max(self._names, default=None))
        if not certain or axis == 1:
            time, regions = (shapes[0][axis], shapes[0][1 - axis])
            other = "" if certain else f"; if not so, give --time-axis {1 - axis}"
            what = "rows" if axis == 0 else "columns"
            print(f"{self.timeseries}: {what} are volumes: {time} volumes × {regions} regions{other}", file=sys.stderr)
        return axis

    @cached_property
    def regions(self) -> int:
        """Regions of every scan.

        Raises:
            UserError: another number than the table of networks names.
        """
        count = self._shape(self._scans[0])[1 - self.time_axis]
        if self._names and max(self._names) > count:
            raise UserError(f"{self.networks}: names region {max(self._names)} of only {count}; use the table of these regions")
        return count

    def _find(self) -> list[Scan]:
        scans: dict[Key, Scan] = {}
        for file in series_files(self.timeseries, self.networks):
            members = npz_members(file) if file.suffix == ".npz" else [""]
            for member in members:
                key = scan_key(member) if member and len(members) > 1 else scan_key(file.name.split(".")[0], member)
                if key in scans:
                    name = " ".join(part for part in key if part)
                    other = scans[key].files[0]
                    raise UserError(f"{file}: holds {name}, and so does {other}; keep one, or name sessions and runs")
                scans[key] = Scan(key[0], (file, *sidecars(file, file.parent)), key[1], key[2])
                if member:
                    self._keys[key] = member
        return [scans[key] for key in sorted(scans)]

    def _table(self, scan: Scan) -> np.ndarray:
        key = (scan.subject, scan.session, scan.run)
        return read_member(scan.files[0], self._keys[key]) if key in self._keys else read_text(scan.files[0])

    def _shape(self, scan: Scan) -> tuple[int, int]:
        key = (scan.subject, scan.session, scan.run)
        return npz_shape(scan.files[0], self._keys[key]) if key in self._keys else read_text(scan.files[0]).shape

    def _where(self, scan: Scan) -> str:
        key = (scan.subject, scan.session, scan.run)
        return f"{scan.files[0]}[{self._keys[key]}]" if key in self._keys else str(scan.files[0])

    def _repetition_time(self, file: Path) -> float:
        return self.tr if self.tr is not None else repetition_time(sidecars(file, file.parent))


def time_axis_of(shapes: Sequence[tuple[int, int]], regions: int | None) -> tuple[int, bool]:
    """Which axis is time, and whether that is certain; 0, the format's own, unless something speaks against it.

    Certain are: the one axis as long as the table of networks, or lengths that differ between scans along one axis only,
    since all scans of a cohort have the same regions.
    """
    fits = {axis for axis in (0, 1) if regions is not None and all(shape[1 - axis] == regions for shape in shapes)}
    if len(fits) == 1:
        return fits.pop(), True
    varies = {axis for axis in (0, 1) if len({shape[axis] for shape in shapes}) > 1}
    if len(varies) == 1:
        return varies.pop(), True
    return 0, False


def series_files(source: Path, networks: Path | None = None) -> list[Path]:
    """Files of time series: the one given, those below a folder, or those that a pattern with `*` names.

    Raises:
        UserError: none, or in a folder several atlases, which one cohort cannot hold.
    """
    if source.is_file():
        if source.suffix.lower() not in EXTENSIONS:
            raise UserError(f"{source}: not a table of time series; give {', '.join(EXTENSIONS)}")
        return [source]
    if source.is_dir():
        found = [path for path in source.rglob("*") if _is_series(path, networks)]
    elif any(sign in str(source) for sign in "*?["):
        found = [Path(name) for name in glob.glob(str(source), recursive=True)]
        found = [path for path in found if path.is_file() and path.suffix.lower() in EXTENSIONS]
    else:
        raise UserError(f"{source}: no such file or folder; check the path")
    if not found:
        raise UserError(f"{source}: no time series in it ({', '.join(EXTENSIONS)}); check the path")
    for entity in ("atlas", "seg", "task", "desc"):
        several = sorted({name.get(entity) for path in found if (name := parse_name(path.name)) is not None})
        if len(several) > 1:
            example = f"{source if source.is_dir() else source.parent}/**/*{entity}-{several[-1]}_*.tsv"
            raise UserError(
                f"{source}: several values of {entity} ({', '.join(several)}); choose with a pattern, e.g. '{example}'"
            )
    return sorted(found)


def scan_key(text: str, member: str = "") -> Key:
    """Subject, session and run that a name tells: `sub-01_ses-pre_x`, `01/pre/1`, or the whole name as the subject's."""
    named = entities((text, *([member] if "-" in member else [])))
    if "sub" in named:
        return named["sub"], named.get("ses", ""), named.get("run", "")
    parts = [part.strip() for part in text.split("/")]
    if not all(parts) or len(parts) > 3 or ".." in text or any(ord(sign) < 32 for sign in text):
        raise UserError(f"'{text}': does not name a scan; call it subject, subject/session or subject/session/run")
    return parts[0], parts[1] if len(parts) > 1 else "", parts[2] if len(parts) > 2 else ""


def npz_members(file: Path) -> list[str]:
    """Names of the arrays in an npz.

    Raises:
        UserError: not an npz, or empty.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{file}: not a readable npz ({error}); save it again with numpy.savez") from error
    if not names:
        raise UserError(f"{file}: holds no arrays; save one array (volumes × regions) per scan, named by its subject")
    return names


def npz_shape(file: Path, member: str) -> tuple[int, int]:
    """Shape of one array, from its header only."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{member}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape = read(stream)[0]
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise UserError(f"{file}[{member}]: cannot be read ({error}); save it again with numpy.savez") from error
    if len(shape) != 2:
        raise UserError(f"{file}[{member}]: is {len(shape)}-D, a series is 2-D (volumes × regions); save it so")
    return shape[0], shape[1]


def read_member(file: Path, member: str) -> Float[np.ndarray, "rows columns"]:
    """One array of an npz. Pickled objects are never loaded.

    Raises:
        UserError: damaged, not 2-D, or not numbers.
    """
    npz_shape(file, member)
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            values = archive[member]
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file}[{member}]: cannot be read ({reason}); save plain numbers with numpy.savez") from error
    if values.dtype.kind not in "fiu":
        raise UserError(f"{file}[{member}]: holds {values.dtype} instead of numbers; save plain numbers with numpy.savez")
    return values.astype(np.float64)


def read_text(file: Path) -> Float[np.ndarray, "rows columns"]:
    """A csv (commas), tsv (tabs) or AFNI 1D (spaces, `#` comments) table, with or without a line of region names.

    Raises:
        UserError: unreadable, ragged, or not numbers.
    """
    spaces = file.suffix.lower() == ".1d"
    separator = r"\s+" if spaces else "," if file.suffix.lower() == ".csv" else "\t"
    try:
        table = pd.read_csv(
            file,
            sep=separator,
            header=None,
            comment="#" if spaces else None,
            dtype=str,
            encoding="utf-8-sig",
            keep_default_na=False,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{file}: not a readable table ({str(error).splitlines()[0]}); save it again") from error
    numbers = table.apply(lambda column: pd.to_numeric(column.str.strip(), errors="coerce"))
    if numbers.iloc[0].isna().all():  # region names
        table, numbers = table.iloc[1:], numbers.iloc[1:]
    bad = np.argwhere(numbers.isna().to_numpy() & ~table.isin(["n/a", "NaN", "nan", "NA"]).to_numpy())
    if len(bad) or numbers.empty:
        row, column = bad[0] if len(bad) else (0, 0)
        where = f"row {row + 1}, column {column + 1}: '{table.iloc[row, column]!s}'" if len(bad) else "empty"
        raise UserError(f"{file}: not numbers only ({where}); one row per volume, one column per region, names in line 1")
    return numbers.to_numpy(dtype=np.float64)


def _is_series(path: Path, networks: Path | None) -> bool:
    if path.suffix.lower() not in EXTENSIONS or not path.is_file() or path.name.startswith("."):
        return False
    if networks is not None and path.resolve() == networks.resolve():
        return False
    stem = path.name.split(".")[0].lower()
    return not (stem.rsplit("_", 1)[-1] in NOT_SERIES or "desc-confounds" in stem)
