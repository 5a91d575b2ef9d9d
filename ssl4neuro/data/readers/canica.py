"""Group maps that the cohort computes itself: nilearn's CanICA on a recorded list of subjects.

Varoquaux et al. (2010), "A group model for stable multi-subject ICA on fMRI datasets", NeuroImage 51:288–299. A group ICA that
has seen the test subjects is a leak, so the list of subjects is part of the cohort's record.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl4neuro.atomic import new_file
from ssl4neuro.data.grid import Image, load_image, make_grid
from ssl4neuro.data.readers.naming import bare
from ssl4neuro.data.scan import Grid, Scan
from ssl4neuro.data.templates import read_table
from ssl4neuro.errors import UserError

SEED = 0
PARTICIPANT_COLUMNS = ("participant_id", "subject", "id")


def listed_scans(scans: Sequence[Scan], subjects: Path | None) -> list[Scan]:
    """The scans that the group ICA is fitted on: of the subjects in a table with a column participant_id, or all.

    Raises:
        UserError: unreadable, or a subject has no scan.
    """
    if subjects is None:
        return list(scans)
    table = read_table(subjects, ())
    column = next((name for name in PARTICIPANT_COLUMNS if name in table), None)
    if column is None:
        raise UserError(f"{subjects}: no column participant_id; one line per subject under that heading")
    wanted = {bare(name.strip()) for name in table[column]}
    absent = sorted(wanted - {bare(scan.subject) for scan in scans})
    if absent or not wanted:
        what = f"no scan of {', '.join(absent[:5])}" if absent else "names no subject"
        raise UserError(f"{subjects}: {what}; correct the list")
    return [scan for scan in scans if bare(scan.subject) in wanted]


def group_grid(scans: Sequence[Scan], mask: Path | None, resolution: float | None) -> Grid:
    """Grid and mask of the group ICA: the mask given, else nilearn's brain mask of the scans on the first one's grid.

    Raises:
        UserError: no brain mask can be found.
    """
    first = load_image(scans[0].files[0], dimensions=4)
    return make_grid(first, mask if mask is not None else _brain_mask(scans), resolution)


def group_maps(out: Path, scans: Sequence[Scan], components: int, grid: Grid) -> Path:
    """Fit CanICA on these scans and save its maps; deterministic.

    Args:
        out: NIfTI file to write, on `grid`, 0 outside the mask.

    Raises:
        UserError: unusable number of components, or the decomposition fails.
    """
    from nilearn.decomposition import CanICA

    paths = [str(scan.files[0]) for scan in scans]
    shortest = min(load_image(path, dimensions=4).shape[3] for path in paths)
    if not 2 <= components < shortest:
        raise UserError(
            f"--canica {components}: between 2 and {shortest - 1} components fit the {shortest} volumes of the scans"
        )
    mask = nib.Nifti1Image(grid.mask.astype(np.uint8), grid.affine)
    model = CanICA(
        n_components=components,
        mask=mask,
        target_affine=grid.affine,
        target_shape=grid.mask.shape,
        random_state=SEED,
        n_jobs=1,
        verbose=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.fit(paths)
        except (ValueError, np.linalg.LinAlgError) as error:
            raise UserError(f"--canica {components}: CanICA fails on these scans ({' '.join(str(error).split())})") from error
    image = model.components_img_
    values = np.asarray(image.dataobj, dtype=np.float32)
    if not np.isfinite(values).all() or not values.any(axis=(0, 1, 2)).all():
        raise UserError(f"--canica {components}: CanICA found fewer components than asked for; ask for fewer")
    with new_file(out) as temporary:
        named = temporary.with_suffix(".nii.gz")  # nibabel chooses the format by the ending
        nib.save(nib.Nifti1Image(values, image.affine), named)
        named.replace(temporary)
    return out


def _brain_mask(scans: Sequence[Scan]) -> Image:
    from nilearn.masking import compute_multi_epi_mask

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            mask = compute_multi_epi_mask([str(scan.files[0]) for scan in scans], verbose=0)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{scans[0].files[0]}: no brain mask can be found ({reason}); give --mask FILE") from error
    if not np.asarray(mask.dataobj).any():
        raise UserError(f"{scans[0].files[0]}: the brain mask found is empty; give --mask FILE")
    return mask
