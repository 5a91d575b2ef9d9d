"""FSL MELODIC output: one folder per session with `melodic_IC.nii.gz` (maps) and `melodic_mix` (courses).

Single-subject MELODIC orders its components anew in every scan, so what they are is found by template correlation
(`data/templates.py`), told by a `melodic_networks.tsv` beside the maps, or by a corrected review table.
"""

import json
import re
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Int

from ssl4neuro.data.grid import load_image, make_grid, to_grid
from ssl4neuro.data.readers.naming import TR_RANGE, SessionTable, common_root, entities, sites
from ssl4neuro.data.scan import Grid, Scan, ScanRows
from ssl4neuro.data.templates import THRESHOLD, assign, correlate, read_networks, read_review
from ssl4neuro.errors import UserError

NETWORKS_FILE = "melodic_networks.tsv"
TR_OPTION = re.compile(r"--tr[= ]\s*([0-9.]+)")


class MelodicReader:
    """MELODIC folders below `folders`.

    Args:
        folders: searched for `melodic_IC.nii.gz`.
        templates: 4-D image whose volumes are the networks to recognise.
        networks: table `component`, `network` naming the volumes of `templates`; without templates, naming the
            components themselves, the same in every folder.
        mask: brain mask and grid of the cohort; otherwise the first folder's grid, with the voxels that all folders have.
        resolution: voxel size in mm of the cohort's grid, if it shall be another one.
        sessions: table that maps `folder` to `participant_id`, `session_id`, `run_id` and may give `tr` (s).
        participants: participants.tsv, read for its column `site`.
        threshold: smallest |r| with a template that assigns a component to its network.
        assignment: edited review table; it overrides everything else for the scans it contains.

    Raises:
        UserError: no MELODIC folder, a folder whose subject is unknown, two folders for one scan, an unreadable table.
    """

    def __init__(
        self,
        folders: list[Path],
        *,
        templates: Path | None = None,
        networks: Path | None = None,
        mask: Path | None = None,
        resolution: float | None = None,
        sessions: Path | None = None,
        participants: Path | None = None,
        threshold: float = THRESHOLD,
        assignment: Path | None = None,
    ) -> None:
        self.folders = [Path(folder) for folder in folders]
        self.templates, self.networks, self.mask = templates, networks, mask
        self.resolution, self.threshold, self.assignment = resolution, threshold, assignment
        if not 0 <= threshold <= 1:
            raise UserError(f"--threshold {threshold}: a correlation lies between 0 and 1; usually {THRESHOLD}")
        self.sessions = SessionTable.open(sessions) if sessions else None
        self.review = read_review(assignment) if assignment else {}
        self._sites = sites(participants)
        self._scans = self._find()
        if self.review and not any(key[:3] == (s.subject, s.session, s.run) for key in self.review for s in self._scans):
            raise UserError(f"{assignment}: names none of these scans; give the table that was made for these folders")

    def scans(self) -> list[Scan]:
        """See `Reader`."""
        return self._scans

    def grid(self) -> Grid:
        """See `Reader`. Without a mask it looks at every folder's mask (or maps), one at a time."""
        return self._grid

    def read(self, scan: Scan) -> ScanRows:
        """See `Reader`."""
        path = scan.files[0]
        image = load_image(path, 4)
        courses = read_mix(path.parent / "melodic_mix")
        if len(courses) != image.shape[3]:
            hint = "it looks transposed" if courses.shape[1] == image.shape[3] else "they are not from the same run"
            raise UserError(
                f"{path.parent / 'melodic_mix'}: {len(courses)} columns for {image.shape[3]} maps, {hint}; run MELODIC again"
            )
        self._check_volumes(path.parent, scan, courses.shape[1])
        maps = to_grid(image, self._grid)
        network, table = self._label(scan, maps)
        return ScanRows(
            courses=courses,
            tr=self.tr(scan),
            component=np.arange(1, len(maps) + 1),
            network=network,
            maps=maps,
            sign=self._sign(maps),
            nuisance={"n_volumes": float(courses.shape[1])},
            assignment=table,
        )

    def shared_files(self) -> dict[str, Path]:
        """See `Reader`."""
        files = {"templates": self.templates, "networks": self.networks, "mask": self.mask, "assignment": self.assignment}
        if self.sessions is not None and self.sessions.determines_scans:
            files["sessions"] = self.sessions.path
        return {role: Path(path) for role, path in files.items() if path is not None}

    def description(self) -> dict[str, dict[str, object]]:
        """See `Reader`."""
        by_template = {} if self.templates is None else {"sign": "of the template, positive skewness where none fits"}
        return {"map": {"space": None, **by_template}, "course": {"band": None}}

    def _find(self) -> list[Scan]:
        for folder in self.folders:
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder; give the folder that holds MELODIC's output")
        found = sorted({path.parent for folder in self.folders for path in folder.rglob("melodic_IC.nii*")})
        if not found:
            given = ", ".join(map(str, self.folders))
            raise UserError(f"{given}: no melodic_IC.nii.gz in or below it; give MELODIC's output folders")
        scans: dict[str, Scan] = {}
        root = common_root(self.folders)
        for folder in found:
            scan = self._scan(folder, root)
            if scan.name in scans:
                other = scans[scan.name].files[0].parent
                raise UserError(f"{folder}: is {scan.name}, and so is {other}; tell them apart in --sessions (column run_id)")
            scans[scan.name] = scan
        return sorted(scans.values(), key=lambda scan: (scan.subject, scan.session, scan.run))

    def _scan(self, folder: Path, root: Path) -> Scan:
        row = self.sessions.of_folder(folder, root) if self.sessions and self.sessions.maps_folders else None
        if row is not None:
            subject, session, run = row["participant_id"], row.get("session_id", ""), row.get("run_id", "")
        else:
            names = entities(folder.resolve().relative_to(root).parts)
            if "sub" not in names:  # only one subject's folders were given: its name is above them
                names = {**entities(root.parts), **names}
            if "sub" not in names:
                raise UserError(
                    f"{folder}: no sub-<name> in its path, so whose it is is unknown; "
                    "map it in --sessions TSV (columns folder, participant_id, session_id)"
                )
            subject, session, run = names["sub"], names.get("ses", ""), names.get("run", "")
        files = [_one(folder, "melodic_IC.nii.gz", "melodic_IC.nii")]
        files += [path for path in (folder / "melodic_mix", *_side_files(folder)) if path.is_file()]
        return Scan(subject, tuple(files), session, run, self._sites.get(subject.removeprefix("sub-"), ""))

    @cached_property
    def _grid(self) -> Grid:
        maps = _readable([scan.files[0] for scan in self._scans])
        mask = load_image(self.mask, 3) if self.mask is not None else common_mask(maps)
        return make_grid(load_image(maps[0], 4), mask, self.resolution)

    @cached_property
    def _templates(self) -> tuple[Float[np.ndarray, "templates voxels"], list[str]] | None:
        if self.templates is None:
            return None
        maps = to_grid(load_image(self.templates, 4), self._grid)
        if self.networks is None:
            return maps, [f"template {number}" for number in range(1, len(maps) + 1)]
        named = read_networks(self.networks, len(maps))
        return maps, [named.get(number, "") for number in range(1, len(maps) + 1)]

    def _sign(self, maps: Float[np.ndarray, "components voxels"]) -> Int[np.ndarray, "components"] | None:
        """Sign of the correlation with the template that fits best; 0, skewness decides, where none does."""
        if self._templates is None:
            return None
        r = correlate(maps, self._templates[0])
        best = np.take_along_axis(r, np.abs(r).argmax(axis=1)[:, None], axis=1)[:, 0]
        return np.where(np.abs(best) < self.threshold, 0, np.sign(best)).astype(np.int64)

    def _label(self, scan: Scan, maps: Float[np.ndarray, "components voxels"]) -> tuple[list[str], list[dict[str, object]]]:
        numbers = range(1, len(maps) + 1)
        identity = {"participant_id": scan.subject, "session_id": scan.session, "run_id": scan.run}
        corrected = {key[3]: network for key, network in self.review.items() if key[:3] == tuple(identity.values())}
        if corrected and max(corrected) > len(maps):
            raise UserError(
                f"{self.assignment}: {scan.name} has {len(maps)} components, no {max(corrected)}; correct the table"
            )
        table: list[dict[str, object]] = []
        own = scan.files[0].parent / NETWORKS_FILE
        if own.is_file():
            told = read_networks(own, len(maps))
        elif self._templates is not None:
            templates, names = self._templates
            lines = assign(maps, templates, names, self.threshold)
            table = [{**identity, "component": number, **line} for number, line in zip(numbers, lines, strict=True)]
            told = {number: str(line["network"]) for number, line in zip(numbers, lines, strict=True)}
        else:
            told = read_networks(self.networks, len(maps)) if self.networks is not None else {}
        network = [corrected.get(number, told.get(number, "")) for number in numbers]
        if table:
            for line, name in zip(table, network, strict=True):
                line.update(network=name, assigned="yes" if name else "no")
        return network, table

    def tr(self, scan: Scan) -> float:
        """Repetition time (s): of the table of sessions, else what the folder knows; NaN where unknown."""
        told = SessionTable.tr(self._row(scan))
        return told if np.isfinite(told) else folder_tr(scan.files[0].parent)

    def _row(self, scan: Scan) -> dict[str, str] | None:
        return self.sessions.of_scan(scan.subject, scan.session, scan.run) if self.sessions else None

    def _check_volumes(self, folder: Path, scan: Scan, volumes: int) -> None:
        source = folder.parent / "filtered_func_data.nii.gz"
        if folder.name == "filtered_func_data.ica" and source.is_file():
            expected = load_image(source).shape[3:]
            if expected and expected[0] != volumes:
                raise UserError(
                    f"{folder / 'melodic_mix'}: {volumes} rows, but {source} has {expected[0]} volumes; run MELODIC again"
                )
        told = (self._row(scan) or {}).get("n_volumes", "")
        if told.isdigit() and int(told) != volumes:
            raise UserError(
                f"{folder / 'melodic_mix'}: {volumes} rows, but --sessions says {told} volumes; correct one of them"
            )


def read_mix(path: Path) -> Float[np.ndarray, "components time"]:
    """Courses from `melodic_mix` (text, one row per volume).

    Raises:
        UserError: absent, empty, ragged, no numbers, or NaN.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; a MELODIC folder holds melodic_IC.nii.gz and melodic_mix")
    try:
        table = np.asarray([[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()])
    except ValueError:  # no number, undecodable, or rows of different length
        raise UserError(f"{path}: not a table of numbers with rows of one length (cut short?); run MELODIC again") from None
    if table.ndim != 2 or len(table) < 2:
        raise UserError(f"{path}: has {len(table)} rows, a time course needs several; run MELODIC again")
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0]) + 1
        raise UserError(f"{path}: NaN or infinite in row {row}; run MELODIC again")
    return np.ascontiguousarray(table.T)


def common_mask(maps: list[Path]) -> nib.Nifti1Image:
    """Voxels that the brain masks of all folders have, on the first one's grid; one folder in memory at a time.

    Raises:
        UserError: a folder lies elsewhere, or less than half of the first one's brain is left.
    """
    common: Grid | None = None
    voxels, problem = 0, None
    for path in maps:
        own_mask = path.parent / "mask.nii.gz"
        try:
            own = make_grid(load_image(path, 4), load_image(own_mask, 3) if own_mask.is_file() else None)
        except UserError as error:
            problem = problem or error  # told of when it is read, and may be skipped then
            continue
        if common is None:
            common, voxels = own, int(own.mask.sum())
            continue
        image = nib.Nifti1Image(own.mask.astype(np.float32), own.affine)
        image.set_filename(str(path))  # named in messages
        common.mask[common.mask] = to_grid(image, common)[0] > 0.5
        if common.mask.sum() < voxels / 2:
            raise UserError(
                f"{path}: with it less than half of the brain of {maps[0]} is common to all; "
                "bring all folders to one space, or give the --mask to use"
            )
    if common is None:
        raise problem or UserError("--melodic: no folders; give MELODIC's output folders")
    return nib.Nifti1Image(common.mask.astype(np.uint8), common.affine)


def folder_tr(folder: Path) -> float:
    """Repetition time (s) that a MELODIC folder knows of: a JSON, the command in log.txt, the maps' header; else NaN."""
    for path in _side_files(folder):
        if path.suffix == ".json" and path.is_file():
            try:
                value = json.loads(path.read_text(encoding="utf-8")).get("RepetitionTime")
            except (ValueError, AttributeError) as error:
                raise UserError(f"{path}: not valid JSON ({error}); repair or delete it") from error
            if isinstance(value, int | float) and TR_RANGE[0] <= value <= TR_RANGE[1]:
                return float(value)
    log = folder / "log.txt"
    if log.is_file() and (match := TR_OPTION.search(log.read_text(errors="replace"))):
        return float(match.group(1))
    zooms = load_image(_one(folder, "melodic_IC.nii.gz", "melodic_IC.nii")).header.get_zooms()
    # 1 is what a header says that was never told: taking it for a second would shift every frequency.
    known = len(zooms) > 3 and TR_RANGE[0] <= zooms[3] <= TR_RANGE[1] and zooms[3] != 1.0
    return float(zooms[3]) if known else float("nan")


def _readable(maps: list[Path]) -> list[Path]:
    """Those whose header can be read; the others are told of when they are read, and may be skipped then."""
    good, problem = [], None
    for path in maps:
        try:
            load_image(path, 4)
            good.append(path)
        except UserError as error:
            problem = problem or error
    if problem is not None and not good:
        raise problem
    return good


def _side_files(folder: Path) -> list[Path]:
    """Files beside the maps that a scan's rows depend on."""
    sidecars = [*sorted(folder.glob("*.json")), folder.with_suffix(".json")]
    return [folder / NETWORKS_FILE, folder / "mask.nii.gz", *sidecars, folder / "log.txt"]


def _one(folder: Path, *names: str) -> Path:
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
