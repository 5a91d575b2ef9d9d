"""GIFT output, per subject and session: `PREFIX_sub001_component_ica_s1_.nii` (maps), `PREFIX_sub001_timecourses_ica_s1_.nii`.

The course file is a 2-D image, volumes × components. Maps are 0 or NaN outside GIFT's mask (`PREFIXMask.nii`). Files of the
group (mean, std, tmap, agg, and `PREFIX_component_ica_s1_.nii` without a subject) are no scans. The numbering of components
is the same in all scans. Checked against icatb_saveICAData.m of GIFT 4.0c.
"""

import re
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float

from ssl4neuro.data.grid import image_data, load_image, make_grid, to_grid
from ssl4neuro.data.readers.naming import TR_RANGE, SessionTable, bare, sites
from ssl4neuro.data.scan import Grid, Scan, ScanRows
from ssl4neuro.data.templates import read_networks
from ssl4neuro.errors import UserError

MAPS = re.compile(r"^(?:(?P<prefix>.*)_)?sub(?P<subject>\d+)_component_ica_s(?P<session>\d+)_\.nii(?:\.gz)?$")
ANY_MAPS = re.compile(r"_?component_ica_s?\w*\.(nii|nii\.gz|img|zip)$")


class GiftReader:
    """One GIFT output folder.

    Args:
        folder: holds the files; subfolders are not searched.
        networks: table `component`, `network`.
        mask: brain mask and grid of the cohort; otherwise GIFT's own mask, else where the first scan's maps are not 0 or NaN.
        resolution: voxel size in mm of the cohort's grid, if it shall be another one.
        participants: participants.tsv; a column `gift` (subject number) names the subjects, otherwise 7 in GIFT's file
            `sub007` is `sub-007`. Its columns `site` and `tr` (s) are used.
        sessions: table with `participant_id`; `gift` (subject number) and `gift_session` name the scans, `tr` (s) is used.

    Raises:
        UserError: nothing there, group files only, several analyses, compressed or old-format files, no courses.
    """

    def __init__(
        self,
        folder: Path,
        *,
        networks: Path | None = None,
        mask: Path | None = None,
        resolution: float | None = None,
        participants: Path | None = None,
        sessions: Path | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.networks, self.mask, self.resolution = networks, mask, resolution
        self.participants = SessionTable.open(participants) if participants else None
        self.sessions = SessionTable.open(sessions) if sessions else None
        self._sites = sites(participants)
        self._prefix, self._scans = self._find()

    def scans(self) -> list[Scan]:
        """See `Reader`."""
        return self._scans

    def grid(self) -> Grid:
        """See `Reader`."""
        return self._grid

    def read(self, scan: Scan) -> ScanRows:
        """See `Reader`."""
        path = scan.files[0]
        image = brain_image(path)
        courses = read_courses(courses_beside(path), image.shape[3])
        maps = to_grid(image, self._grid)
        if not maps.any():
            raise UserError(f"{path}: all maps are 0 inside the mask; that is of another space, give these maps' own --mask")
        named = read_networks(self.networks, len(maps)) if self.networks is not None else {}
        return ScanRows(
            courses=courses,
            tr=self.tr(scan),
            component=np.arange(1, len(maps) + 1),
            network=[named.get(number, "") for number in range(1, len(maps) + 1)],
            maps=maps,
            sign=np.ones(len(maps), dtype=np.int64),  # back-reconstruction keeps the sign of the group's maps
            nuisance={"n_volumes": float(courses.shape[1])},
        )

    def shared_files(self) -> dict[str, Path]:
        """See `Reader`."""
        files = {"networks": self.networks, "mask": self.mask or self._own_mask(), "parameters": self._parameters()}
        for role, table in (("participants", self.participants), ("sessions", self.sessions)):
            if table is not None and table.determines_scans:
                files[role] = table.path
        return {role: Path(path) for role, path in files.items() if path is not None}

    def description(self) -> dict[str, dict[str, object]]:
        """See `Reader`."""
        return {"map": {"space": None, "sign": "of the group analysis"}, "course": {"band": None}}

    def _find(self) -> tuple[str, list[Scan]]:
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder; give the folder that holds GIFT's output")
        names = sorted(path.name for path in self.folder.iterdir() if path.is_file())
        matches = {name: match for name in names if (match := MAPS.match(name))}
        if not matches:
            raise UserError(self._nothing(names))
        prefixes = sorted({match["prefix"] or "" for match in matches.values()})
        if len(prefixes) > 1:
            raise UserError(f"{self.folder}: holds the analyses {', '.join(prefixes)}; give each a folder of its own")
        many = len({int(match["session"]) for match in matches.values()}) > 1
        scans: dict[str, Scan] = {}
        for name, match in matches.items():
            scan = self._scan(name, match, many)
            if scan.name in scans:
                other = scans[scan.name].files[0].name
                raise UserError(f"{self.folder / name}: is {scan.name}, and so is {other}; correct the tables")
            scans[scan.name] = scan
        return prefixes[0], sorted(scans.values(), key=lambda scan: (scan.subject, scan.session, scan.run))

    def _nothing(self, names: list[str]) -> str:
        """Why no scan was found."""
        similar = [name for name in names if ANY_MAPS.search(name)]
        wanted = "PREFIX_sub001_component_ica_s1_.nii"
        if any(name.endswith(".zip") for name in similar):
            return f"{self.folder}: GIFT's maps are zipped ({similar[0]}); unzip them here"
        if any(name.endswith(".img") for name in similar):
            return f"{self.folder}: GIFT's maps are Analyze images ({similar[0]}); convert them to 4-D files named {wanted}"
        if similar:
            return f"{self.folder}: only group maps ({similar[0]}), no {wanted}; let GIFT back-reconstruct the subjects"
        below = next(self.folder.rglob("*_component_ica_s*_.nii*"), None)
        hint = f"there are some in {below.parent}" if below else "give the folder that holds GIFT's output"
        return f"{self.folder}: no {wanted} in it; {hint}"

    def _scan(self, name: str, match: re.Match[str], many_sessions: bool) -> Scan:
        subject, session, run = f"sub-{match['subject']}", f"ses-{int(match['session'])}" if many_sessions else "", ""
        number = int(match["subject"])
        row = None
        if self.sessions is not None and any("gift" in r for r in self.sessions.rows):
            row = _numbered(self.sessions, number, int(match["session"]))
            if row is None:
                raise UserError(f"{self.sessions.path}: no line with gift {number} for {name}; add it")
            subject, session, run = row["participant_id"], row.get("session_id", session), row.get("run_id", "")
        elif self.participants is not None and any("gift" in r for r in self.participants.rows):
            row = _numbered(self.participants, number, None)
            if row is None:
                raise UserError(f"{self.participants.path}: no line with gift {number} for {name}; add it")
            subject = row["participant_id"]
        files = (self.folder / name, *[path for path in _course_files(self.folder / name) if path.is_file()][:1])
        return Scan(subject, files, session, run, self._sites.get(bare(subject), ""))

    @cached_property
    def _grid(self) -> Grid:
        path = self.mask or self._own_mask()
        reference, problem = None, None
        for scan in self._scans:  # a broken scan is told of when it is read, and may be skipped then
            try:
                reference = brain_image(scan.files[0])
                break
            except UserError as error:
                problem = problem or error
        if reference is None:
            raise problem or UserError(f"{self.folder}: no maps; give the folder that holds GIFT's output")
        return make_grid(reference, load_image(path, 3) if path else None, self.resolution)

    def _own_mask(self) -> Path | None:
        candidates = [self.folder / f"{self._prefix}Mask{suffix}" for suffix in (".nii", ".nii.gz")]
        return next((path for path in candidates if path.is_file()), None)

    def _parameters(self) -> Path | None:
        path = self.folder / f"{self._prefix}_ica_parameter_info.mat"
        return path if path.is_file() else None

    def tr(self, scan: Scan) -> float:
        """Repetition time (s): of the sessions, of the participants, or of GIFT's parameter file; NaN where unknown."""
        for table in (self.sessions, self.participants):
            if table is not None:
                row = table.of_scan(scan.subject, scan.session if table is self.sessions else "", "")
                if np.isfinite(SessionTable.tr(row)):
                    return SessionTable.tr(row)
        return self._analysis_tr

    @cached_property
    def _analysis_tr(self) -> float:
        """Repetition time (s) from GIFT's parameter file if it has one for all scans; NaN otherwise."""
        path = self._parameters()
        if path is None:
            return float("nan")
        from scipy.io import loadmat

        try:
            info = loadmat(path, struct_as_record=False, squeeze_me=True)["sesInfo"]
            values = np.unique(np.asarray(getattr(info, "TR", np.nan), dtype=float))
        except (OSError, ValueError, TypeError, KeyError, NotImplementedError):  # MATLAB's 7.3 format, or an odd file: unknown
            return float("nan")
        return float(values[0]) if len(values) == 1 and TR_RANGE[0] <= values[0] <= TR_RANGE[1] else float("nan")


def brain_image(path: Path) -> nib.Nifti1Image:
    """Maps with 0 instead of the NaN that GIFT writes outside its mask.

    Raises:
        UserError: not 4-D, unreadable, or NaN in some components only, which no mask explains.
    """
    image = load_image(path, 4)
    data = image_data(image)
    missing = ~np.isfinite(data)
    partly = missing.any(axis=3) & ~missing.all(axis=3)
    if partly.any():
        voxels = int(partly.sum())
        raise UserError(f"{path}: {voxels} voxels are NaN in some components only, so it is no mask; export it again")
    if missing.all():
        raise UserError(f"{path}: nothing but NaN; export it again")
    data[missing] = 0
    clean = nib.Nifti1Image(data, image.affine)
    clean.set_filename(str(path))  # named in messages
    return clean


def read_courses(path: Path, components: int) -> Float[np.ndarray, "components time"]:
    """Courses from GIFT's 2-D image, volumes × components.

    Older versions transposed it when there were fewer volumes than components, so the side that equals the number of
    components is the components' one; if both do, nothing tells, and it is refused.

    Raises:
        UserError: not 2-D, no side of `components`, both sides of it, or NaN.
    """
    try:
        data: np.ndarray = np.asarray(nib.load(path).dataobj, dtype=np.float64)  # type: ignore[attr-defined]
    except Exception as error:
        raise UserError(f"{path}: not a readable image ({str(error).splitlines()[0]}); copy it again") from error
    size = " × ".join(map(str, data.shape))
    if data.ndim < 2 or set(data.shape[2:]) - {1}:
        raise UserError(f"{path}: is {size}, time courses are a 2-D image (volumes × components); use GIFT's own file")
    rows, columns = data.shape[:2]
    data = data.reshape(rows, columns)
    if components not in (rows, columns):
        raise UserError(f"{path}: is {size}, but there are {components} maps; copy both files from the same analysis")
    if rows == columns:
        raise UserError(
            f"{path}: is {size}, so whether volumes are rows or columns cannot be told; "
            "drop a volume or extract another number of components"
        )
    if columns == components:
        data = data.T
    if min(rows, columns) == 1 and components > 1:
        raise UserError(f"{path}: has a single volume; a time course needs several")
    if not np.isfinite(data).all():
        bad = int((~np.isfinite(data)).any(axis=1).sum())
        raise UserError(f"{path}: NaN or infinite in {bad} of {components} courses; export it again")
    return np.ascontiguousarray(data)


def _numbered(table: SessionTable, subject: int, session: int | None) -> dict[str, str] | None:
    """The row whose `gift` (and `gift_session`, where it has one) are these numbers."""
    for row in table.rows:
        if row.get("gift", "").strip().removeprefix("sub").lstrip("0") != str(subject):
            continue
        if session is None or not row.get("gift_session") or row["gift_session"].lstrip("0") == str(session):
            return row
    return None


def courses_beside(maps: Path) -> Path:
    """GIFT's time courses of the scan whose maps these are, compressed or not.

    Raises:
        UserError: there are none.
    """
    candidates = _course_files(maps)
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(f"{candidates[0]}: no such file, but {maps.name} is there; copy GIFT's time courses beside its maps")


def _course_files(maps: Path) -> list[Path]:
    path = maps.with_name(maps.name.replace("_component_ica_", "_timecourses_ica_"))
    return [path, path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")]
