"""BIDS derivatives in fMRIPrep's naming: preprocessed 4-D scans, turned into courses and maps by dual regression."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from nibabel.spatialimages import SpatialImage

from ssl4neuro.data.dual_regression import SpatialRegression, dual_regression
from ssl4neuro.data.grid import image_sha256, load_image, make_grid, to_grid, volume_count
from ssl4neuro.data.readers.bids_names import BidsName, parse_name, repetition_time, sidecars
from ssl4neuro.data.readers.lesions import LesionMasks
from ssl4neuro.data.readers.naming import TR_RANGE
from ssl4neuro.data.scan import Grid, Scan, ScanRows
from ssl4neuro.data.standardise import MIN_VOLUMES, clean
from ssl4neuro.data.templates import read_networks
from ssl4neuro.errors import UserError
from ssl4neuro.registry import suggest

CONFOUNDS = ("simple", "scrubbing", "compcor", "ica_aroma")  # strategies of nilearn.interfaces.fmriprep
RUN_ENTITIES = ("acq", "ce", "rec", "dir", "run", "echo", "part")  # tell scans of one session apart
NATIVE = "native"  # our name for a file without the entity `space`


class BidsReader:
    """Scans below `root`, dual-regressed onto `maps`.

    Args:
        root: folder with `sub-*/[ses-*/]func/*_desc-preproc_bold.nii.gz`.
        maps: 4-D image, one volume per component; None to list the scans only.
        mask: brain mask and grid of the cohort; otherwise the maps' own grid where any map is not 0.
        networks: table `component`, `network` naming the volumes of `maps`.
        resolution: voxel size in mm of the cohort's grid, if it shall be another one.
        task, space, run: selection, as in the file names; `space` may carry a resolution (`MNI152NLin2009cAsym_res-2`).
        confounds: `simple`, `scrubbing`, `compcor` or `ica_aroma`, as nilearn defines these strategies.
        band: pass band in Hz.
        drop_volumes: volumes to leave out at the beginning of each scan.
        lesions: whose voxels take no part in the courses; the maps are masked by `LesionMaskedReader`.

    Raises:
        UserError: no such scans, an ambiguous selection (with the choices), or files that contradict their folder.
    """

    def __init__(
        self,
        root: Path,
        *,
        maps: Path | None = None,
        mask: Path | None = None,
        networks: Path | None = None,
        resolution: float | None = None,
        task: str | None = None,
        space: str | None = None,
        run: str | None = None,
        confounds: str | None = None,
        band: tuple[float, float] | None = None,
        drop_volumes: int = 0,
        lesions: LesionMasks | None = None,
    ) -> None:
        if confounds is not None and confounds not in CONFOUNDS:
            raise UserError(f"--confounds {confounds}: unknown strategy{suggest(confounds, CONFOUNDS)}")
        if drop_volumes < 0:
            raise UserError(f"--drop-volumes {drop_volumes}: cannot be negative")
        self.root, self.maps, self.mask, self.networks, self.resolution = Path(root), maps, mask, networks, resolution
        self.confounds, self.band, self.drop_volumes = confounds, band, drop_volumes
        self.lesions = lesions
        self.space = ""
        self._scans = self._find(task, space, run)

    def scans(self) -> list[Scan]:
        """See `Reader`."""
        return self._scans

    def grid(self) -> Grid:
        """See `Reader`."""
        return self._grid

    def read(self, scan: Scan) -> ScanRows:
        """See `Reader`. Holds the in-mask voxels of one scan."""
        path = scan.files[0]
        image = load_image(path, dimensions=4)
        volumes = volume_count(image)
        left = max(volumes - self.drop_volumes, 0)
        if left < MIN_VOLUMES:
            count = f"{left} volume{'' if left == 1 else 's'}{' after --drop-volumes' if self.drop_volumes else ''}"
            raise UserError(f"{path}: has {count}, at least {MIN_VOLUMES} are needed; give the whole series")
        tr = self.repetition_time(scan, image)
        confounds, kept = load_confounds(path, self.confounds, volumes, self.drop_volumes)
        data = to_grid(image, self._grid)[self.drop_volumes :]
        result = dual_regression(data, self._spatial_of(scan), str(path), self._cleaner(str(path), tr, confounds, kept), kept)
        named = read_networks(self.networks, len(result.maps)) if self.networks is not None else {}
        return ScanRows(
            courses=result.courses,
            tr=tr,
            component=np.arange(1, len(result.maps) + 1),
            network=[named.get(number, "") for number in range(1, len(result.maps) + 1)],
            maps=result.maps,
            sign=np.ones(len(result.maps), dtype=np.int64),  # dual regression keeps the sign of the given maps
            nuisance={
                "n_volumes": float(result.courses.shape[1]),
                "mean_fd": mean_displacement(path, self.drop_volumes),
                "tsnr": result.tsnr,
            },
        )

    def shared_files(self) -> dict[str, Path]:
        """See `Reader`."""
        files = {"maps": self.maps, "mask": self.mask, "networks": self.networks}
        return {role: Path(path) for role, path in files.items() if path is not None}

    def description(self) -> dict[str, dict[str, object]]:
        """See `Reader`."""
        template = image_sha256(self._map_image)
        return {
            "map": {
                "space": None if self.space == NATIVE else self.space,
                "template_sha256": template,
                "sign": "of the template",
            },
            "course": {"band": list(self.band) if self.band else None, "template_sha256": template},
        }

    def repetition_time(self, scan: Scan, image: SpatialImage | None = None) -> float:
        """TR in s: the sidecars', else the header's, else NaN."""
        value = repetition_time([file for file in scan.files if file.suffix == ".json"])
        return value if math.isfinite(value) else header_tr(image if image is not None else load_image(scan.files[0]))

    def _cleaner(
        self, name: str, tr: float, confounds: Float[np.ndarray, "time confounds"] | None, kept: np.ndarray | None
    ) -> Callable[[Float[np.ndarray, "components time"]], Float[np.ndarray, "components kept"]]:
        return lambda courses: clean(courses, tr, name, band=self.band, confounds=confounds, kept=kept)

    @cached_property
    def _map_image(self) -> SpatialImage:
        if self.maps is None:
            raise UserError(f"{self.root}: dual regression needs group maps; give --maps FILE or --canica K")
        return load_image(self.maps, dimensions=4)

    @cached_property
    def _grid(self) -> Grid:
        return make_grid(self._map_image, self.mask, self.resolution)

    @cached_property
    def _group_maps(self) -> Float[np.ndarray, "components voxels"]:
        return to_grid(self._map_image, self._grid)

    @cached_property
    def _spatial(self) -> SpatialRegression:
        return SpatialRegression.of(self._group_maps, str(self.maps))

    def _spatial_of(self, scan: Scan) -> SpatialRegression:
        """Without the subject's lesions, of whose voxels nothing may enter the courses."""
        if self.lesions is None or not self.lesions.of(scan):
            return self._spatial
        return SpatialRegression.of(self._group_maps, str(self.maps), self.lesions.voxels(scan, self._grid))

    def _find(self, task: str | None, space: str | None, run: str | None) -> list[Scan]:
        if not self.root.is_dir():
            raise UserError(f"{self.root}: no such folder; give the folder of the BIDS derivatives")
        pattern = f"*_desc-{'smoothAROMAnonaggr' if self.confounds == 'ica_aroma' else 'preproc'}_bold.nii*"
        named = [(path, _checked_name(path, self.root)) for path in _bold_files(self.root, pattern)]
        if not named:
            raise UserError(f"{self.root}: no sub-*/[ses-*/]func/{pattern} in it; {_hint(self.root)}")
        named = choose(named, task, lambda n: n.get("task"), "task", self.root)
        named = choose(named, space, space_of, "space", self.root, alike=_same_space)
        if run is not None:
            named = choose(named, run, lambda n: n.get("run"), "run", self.root, alike=_same_number)
        self.space = space_of(named[0][1])
        return self._as_scans(named)

    def _as_scans(self, named: Sequence[tuple[Path, BidsName]]) -> list[Scan]:
        varying = [k for k in RUN_ENTITIES if k == "run" or len({name.get(k) for _, name in named}) > 1]
        scans: dict[tuple[str, str, str], Scan] = {}
        for path, name in named:
            session = f"ses-{name.get('ses')}" if name.get("ses") else ""
            run = "_".join(f"{key}-{name.get(key)}" for key in varying if name.get(key))
            files = (path, *sidecars(path, self.root), *[f for f in [confounds_file(path)] if f is not None])
            scan = Scan(f"sub-{name.get('sub')}", files, session, run)
            key = (scan.subject, scan.session, scan.run)
            if key in scans:
                raise UserError(f"{path}: is {scan.name}, and so is {scans[key].files[0].name}; keep one of the two files")
            scans[key] = scan
        return [scans[key] for key in sorted(scans)]


def choose(
    named: Sequence[tuple[Path, BidsName]],
    wanted: str | None,
    value: Callable[[BidsName], str],
    option: str,
    root: Path,
    alike: Callable[[str, str], bool] = lambda wanted, found: wanted == found,
) -> list[tuple[Path, BidsName]]:
    """The files whose `value` is the one wanted.

    Raises:
        UserError: nothing wanted although there are several, or nothing there that fits; both name the choices.
    """
    choices = sorted({value(name) for _, name in named})
    shown = ", ".join(choice or "(none)" for choice in choices)
    fitting = choices if wanted is None else [c for c in choices if c == wanted] or [c for c in choices if alike(wanted, c)]
    if not fitting:
        raise UserError(f"{root}: no scan with {option} '{wanted}'; there are {shown}")
    if len(fitting) > 1 and option != "run":
        several = ", ".join(choice or "(none)" for choice in fitting)
        raise UserError(f"{root}: scans of several {option}s ({several}); choose one with --{option} {fitting[-1]}")
    return [(path, name) for path, name in named if value(name) in fitting]


def space_of(name: BidsName) -> str:
    """`MNI152NLin2009cAsym_res-2`, `T1w`, or `native` for a file in the scan's own space."""
    space = name.get("space") or NATIVE
    extra = [f"{key}-{name.get(key)}" for key in ("cohort", "res", "den") if name.get(key)]
    return "_".join([space, *extra])


def load_confounds(
    path: Path, strategy: str | None, volumes: int, drop: int = 0
) -> tuple[Float[np.ndarray, "time confounds"] | None, np.ndarray | None]:
    """Confounds of a scan after `drop` volumes, and the indices (into the rest) of the volumes to keep; None where none.

    Raises:
        UserError: the confounds file is missing, lacks what the strategy needs, or has another number of volumes.
    """
    if strategy is None:
        return None, None
    from nilearn.interfaces.fmriprep import load_confounds_strategy

    file = confounds_file(path)
    if file is None:
        raise UserError(f"{path}: no *_desc-confounds_timeseries.tsv beside it, which --confounds {strategy} needs")
    try:
        table, kept = load_confounds_strategy(str(path), denoise_strategy=strategy)
    except (ValueError, LookupError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: --confounds {strategy} is not possible ({reason}); choose another") from error
    if len(table) != volumes:
        raise UserError(f"{file}: has {len(table)} rows, but {path.name} {volumes} volumes; they are not of the same scan")
    values = np.nan_to_num(table.to_numpy(dtype=np.float64)[drop:])  # derivatives have no first value
    if kept is not None:
        kept = np.asarray(kept, dtype=np.int64)
        kept = kept[kept >= drop] - drop
        if len(kept) < MIN_VOLUMES:
            raise UserError(f"{path}: scrubbing leaves {len(kept)} volumes, at least {MIN_VOLUMES} are needed; leave it out")
        if len(kept) == len(values):
            kept = None
    return values if values.shape[1] else None, kept


def confounds_file(path: Path) -> Path | None:
    """The confounds table of a scan: the same entities but those of the image (space, res, desc)."""
    name = parse_name(path.name)
    if name is None:
        return None
    own = {k: v for k, v in name.entities.items() if k not in ("space", "cohort", "res", "den", "desc")}
    for suffix in ("timeseries", "regressors"):
        candidate = path.parent / str(BidsName(suffix, ".tsv", {**own, "desc": "confounds"}))
        if candidate.is_file():
            return candidate
    return None


def mean_displacement(path: Path, drop: int = 0) -> float:
    """Mean framewise displacement in mm (Power et al. 2012) from the confounds table; NaN where there is none."""
    file = confounds_file(path)
    if file is None:
        return math.nan
    try:
        table = pd.read_csv(file, sep="\t", na_values="n/a", usecols=lambda column: column == "framewise_displacement")
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a readable table ({str(error).splitlines()[0]}); copy it again") from error
    if "framewise_displacement" not in table:
        return math.nan
    values = pd.to_numeric(table["framewise_displacement"], errors="coerce").to_numpy(dtype=np.float64)[drop:]
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


def header_tr(image: SpatialImage) -> float:
    """TR (s) that a NIfTI header gives; NaN for an impossible time and for 1, which untold headers say."""
    zooms = image.header.get_zooms()
    if len(zooms) < 4:
        return math.nan
    unit = image.header.get_xyzt_units()[1] if hasattr(image.header, "get_xyzt_units") else "sec"
    seconds = float(zooms[3]) * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)
    return seconds if TR_RANGE[0] <= seconds <= TR_RANGE[1] and seconds != 1.0 else math.nan


def _bold_files(root: Path, pattern: str) -> Iterable[Path]:
    found = [*root.glob(f"sub-*/func/{pattern}"), *root.glob(f"sub-*/ses-*/func/{pattern}")]
    return sorted(path for path in found if path.name.endswith((".nii", ".nii.gz")))


def _checked_name(path: Path, root: Path) -> BidsName:
    """The parsed name of a scan.

    Raises:
        UserError: the name does not follow BIDS, or says another subject or session than the folders.
    """
    name = parse_name(path.name)
    if name is None or not name.get("sub"):
        raise UserError(f"{path}: its name does not follow BIDS (sub-<name>_..._bold.nii.gz); rename it")
    for part in path.relative_to(root).parts[:-1]:
        key, _, value = part.partition("-")
        if key in ("sub", "ses") and value != name.get(key):
            raise UserError(f"{path}: lies in {part} but its name says {key}-{name.get(key) or '(none)'}; correct one of them")
    return name


def _same_space(wanted: str, found: str) -> bool:
    """`MNI152NLin2009cAsym` stands for all its resolutions; fMRIPrep's own `space:res-2` is understood too."""
    wanted = wanted.replace(":", "_")
    return found == wanted or found.startswith(f"{wanted}_")


def _same_number(wanted: str, found: str) -> bool:
    wanted = wanted.removeprefix("run-")
    return wanted == found or (wanted.isdigit() and found.isdigit() and int(wanted) == int(found))


def _hint(root: Path) -> str:
    inner = sorted(p.parent for p in root.glob("derivatives/*/sub-*"))
    if inner:
        return f"give the derivatives' own folder, e.g. {inner[0]}"
    if any(root.glob("sub-*/**/*_bold.nii*")):
        return "it holds raw scans; preprocess them first (fMRIPrep)"
    return "give the folder of the BIDS derivatives"
