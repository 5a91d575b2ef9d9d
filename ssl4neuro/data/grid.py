"""Images on one grid: reading them with errors a user can act on, choosing the grid, and picking or interpolating onto it.

A cohort keeps the in-mask voxels only, so nothing here ever builds a resampled 4-D volume: a scan passes by a few volumes at a
time, and only its in-mask rows stay.
"""

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Float32, Int
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import SpatialImage
from scipy import sparse

from ssl4neuro import geometry
from ssl4neuro.data.scan import Grid
from ssl4neuro.errors import UserError

CHUNK_BYTES = 32 * 2**20  # of a scan in memory at a time while it streams
MIN_OVERLAP = 0.5  # of the mask inside an image's field of view; less is a misregistration, not a cut-off cerebellum
Image = SpatialImage | Path | str  # an opened image or where it lies
_UNREADABLE = (OSError, EOFError, zlib.error, ValueError)


def load_image(path: Path | str, dimensions: int | None = None) -> SpatialImage:
    """Open an image; its voxels are read later, by `image_data` or `to_grid`.

    Args:
        path: anything that nibabel reads (.nii, .nii.gz, .img/.hdr, .mgz).
        dimensions: 3 (a 4-D file of one volume passes too) or 4 (volumes last); None takes either.

    Raises:
        UserError: absent, not an image, or of another dimension.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    try:
        image = nib.load(path)
    except (ImageFileError, *_UNREADABLE) as error:
        raise UserError(f"{path}: not a readable image ({_first_line(error)}); copy or convert it again") from error
    if not isinstance(image, SpatialImage):
        raise UserError(f"{path}: not a volume image ({type(image).__name__}); convert it to NIfTI")
    shape = image.shape
    if dimensions == 3 and len(shape) > 3 and set(shape[3:]) == {1}:
        return image
    if len(shape) not in (3, 4) or (dimensions is not None and len(shape) != dimensions):
        wanted = {3: "a 3-D image", 4: "a 4-D image (volumes along the fourth axis)", None: "a 3-D or 4-D image"}[dimensions]
        raise UserError(f"{path}: is {len(shape)}-D ({'×'.join(map(str, shape))}), {wanted} is needed; give another file")
    if 0 in shape:
        raise UserError(f"{path}: has no voxels ({'×'.join(map(str, shape))}); export it again")
    return image


def image_data(image: Image) -> Float32[np.ndarray, "..."]:
    """All voxels as float32, NaN and infinite ones left as they are. A 4-D image of one volume keeps its fourth axis.

    Raises:
        UserError: the file is cut short or damaged.
    """
    image = _opened(image)
    volumes = np.concatenate(list(volume_chunks(image)))
    return np.moveaxis(volumes.reshape(len(volumes), *image.shape[2::-1]).transpose(0, 3, 2, 1), 0, -1).reshape(image.shape)


def _opened(image: Image, dimensions: int | None = None) -> SpatialImage:
    return image if isinstance(image, SpatialImage) else load_image(image, dimensions)


def volume_count(image: SpatialImage) -> int:
    """Volumes of an image; 1 for a 3-D one."""
    return int(np.prod(image.shape[3:], dtype=int))


def same_grid(image: SpatialImage, affine: Float[np.ndarray, "4 4"], shape: tuple[int, ...]) -> bool:
    """Whether every voxel of the image lies within a thousandth of a voxel of the grid's."""
    if tuple(image.shape[:3]) != tuple(shape):
        return False
    size = nib.affines.voxel_sizes(affine).min()
    reach = np.array([[i * (n - 1) for i, n in zip(corner, shape, strict=True)] for corner in np.ndindex(2, 2, 2)])
    distance = nib.affines.apply_affine(image.affine, reach) - nib.affines.apply_affine(affine, reach)
    return bool(np.abs(distance).max() < 1e-3 * size)


def make_grid(reference: Image, mask: Image | None = None, resolution: float | None = None) -> Grid:
    """The cohort's grid: the mask's where one is given, else that of `reference` (the maps), at another voxel size if asked.

    Without a mask the voxels count where any volume of `reference` is finite and not 0, which is how ICA tools mark the brain.

    Args:
        resolution: edge of the cubic voxels in mm; the field of view stays.

    Raises:
        UserError: the mask is empty or all of it lies outside the maps, or `resolution` makes no sense.
    """
    reference = _opened(reference)
    mask = None if mask is None else _opened(mask, dimensions=3)
    base = reference if mask is None else mask
    if mask is None:
        inside = np.zeros(int(np.prod(reference.shape[:3])), dtype=bool)
        for chunk in volume_chunks(reference):
            inside |= (np.isfinite(chunk) & (chunk != 0)).any(axis=0)
        inside = inside.reshape(reference.shape[:3], order="F")
    else:
        values = image_data(mask).reshape(mask.shape[:3])
        inside = np.isfinite(values) & (values > 0.5)  # right for 0/1 and 0/255 masks, labels and probabilities
    affine = np.asarray(base.affine, dtype=np.float64)
    if resolution is not None:
        affine, inside = _at_resolution(affine, inside, resolution)
    if not inside.any():
        raise UserError(f"{_name(base)}: no voxel is inside the brain (all zero or NaN); give a mask of the maps' space")
    grid = Grid(affine=affine, mask=inside)
    if mask is not None:
        check_overlap(reference, grid)
    return grid


def to_grid(image: Image, grid: Grid) -> Float32[np.ndarray, "volumes voxels"]:
    """In-mask voxels of every volume, in C order of the mask.

    Voxels are picked where the grids agree, otherwise interpolated linearly, as `nilearn.image.resample_img` does, but at the
    in-mask points only. Points outside the image's field of view are 0.

    Raises:
        UserError: damaged file, less than half of the mask inside the image, or NaN inside the mask.
    """
    image = _opened(image)
    values = np.empty((volume_count(image), int(grid.mask.sum())), dtype=np.float32)
    columns, weights = _sources(image, grid)
    row = 0
    for chunk in volume_chunks(image, columns):
        part = values[row : row + len(chunk)]
        part[:] = chunk if weights is None else _combine(chunk, weights)
        finite = np.isfinite(part)
        if not finite.all():
            bad = int((~finite).any(axis=0).sum())
            raise UserError(
                f"{_name(image)}: NaN or infinite in {bad} of {part.shape[1]} voxels of the mask (volume {row + 1} on); "
                "give a smaller --mask or repair the file"
            )
        row += len(chunk)
    return values


def check_overlap(image: Image, grid: Grid, minimum: float = MIN_OVERLAP) -> float:
    """Share of the mask inside the image's field of view.

    Raises:
        UserError: less than `minimum`.
    """
    image = _opened(image)
    where = voxel_positions(image, grid)
    share = float(_within(where, image.shape[:3]).mean())
    if share < minimum:
        raise UserError(
            f"{_name(image)}: covers {share:.0%} of the mask, so it is in another space; register it to the maps' space"
        )
    return share


def mask_sha256(grid: Grid) -> str:
    """Fingerprint of a grid and its mask, for the contract."""
    return geometry.mask_sha256(grid.mask, grid.affine)


def image_sha256(image: Image) -> str:
    """Hash of values and affine of an image, whatever its data type and compression: a template is the same in any file."""
    image = _opened(image)
    digest = hashlib.sha256(np.array(image.shape, dtype="<i8").tobytes())
    digest.update((np.round(np.asarray(image.affine, dtype=np.float64), 4) + 0.0).astype("<f8").tobytes())
    for chunk in volume_chunks(image):
        digest.update(chunk.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def grid_image(values: np.ndarray, grid: Grid) -> nib.Nifti1Image:
    """In-mask values [voxels] or [volumes, voxels] as an image, 0 outside the mask."""
    values = np.atleast_1d(values)
    volume = np.zeros((*grid.mask.shape, *values.shape[:-1]), dtype=values.dtype)
    volume[grid.mask] = np.moveaxis(values, -1, 0)
    return nib.Nifti1Image(volume, grid.affine)


def _combine(
    chunk: Float32[np.ndarray, "volumes sources"], weights: sparse.csr_matrix
) -> Float32[np.ndarray, "volumes voxels"]:
    """Interpolated voxels. NaN beside the brain (SPM's mark of the background) counts as 0 unless it weighs a half or more."""
    missing = ~np.isfinite(chunk)
    if not missing.any():
        return np.ascontiguousarray((weights @ chunk.T).T)
    values = (weights @ np.where(missing, np.float32(0), chunk).T).T
    values[(weights @ missing.astype(np.float32).T).T >= 0.5] = np.nan
    return values


def volume_chunks(
    image: SpatialImage, columns: Int[np.ndarray, "sources"] | None = None
) -> Iterator[Float32[np.ndarray, "volumes sources"]]:
    """A few volumes at a time, each flattened in Fortran order, the order of the file: one pass, one decompression.

    With `columns` only these voxels, picked before the conversion to float32.
    """
    proxy = image.dataobj
    space, count = int(np.prod(image.shape[:3])), volume_count(image)
    step = max(1, CHUNK_BYTES // (4 * space))
    try:
        if isinstance(proxy, ArrayProxy) and getattr(proxy, "order", "F") == "F" and isinstance(proxy.file_like, str | Path):
            yield from _file_chunks(proxy, space, count, step, columns)
        else:
            array = np.asanyarray(proxy).reshape(*image.shape[:3], count)
            for start in range(0, count, step):
                part = array[..., start : start + step].reshape(space, -1, order="F")
                yield np.ascontiguousarray((part if columns is None else part[columns]).T.astype(np.float32))
    except _UNREADABLE as error:
        raise UserError(f"{_name(image)}: cannot be read to its end ({_first_line(error)}); copy it again") from error


def _file_chunks(
    proxy: ArrayProxy, space: int, count: int, step: int, columns: Int[np.ndarray, "sources"] | None
) -> Iterator[Float32[np.ndarray, "volumes sources"]]:
    with ImageOpener(proxy.file_like) as file:
        file.seek(proxy.offset)
        for start in range(0, count, step):
            n = min(step, count - start)
            wanted = n * space * proxy.dtype.itemsize
            raw = file.read(wanted)
            if len(raw) < wanted:
                raise EOFError(f"data end at volume {start + len(raw) // (space * proxy.dtype.itemsize) + 1} of {count}")
            chunk = np.frombuffer(raw, dtype=proxy.dtype).reshape(n, space)
            chunk = (chunk if columns is None else np.take(chunk, columns, axis=1)).astype(np.float32)
            if proxy.slope != 1:
                chunk *= np.float32(proxy.slope)
            if proxy.inter != 0:
                chunk += np.float32(proxy.inter)
            yield chunk


def _sources(image: SpatialImage, grid: Grid) -> tuple[Int[np.ndarray, "sources"], sparse.csr_matrix | None]:
    """Which voxels of the image (Fortran order) are needed, and the weights that combine them (None: picked as they are)."""
    shape = image.shape[:3]
    if same_grid(image, grid.affine, grid.mask.shape):
        return np.ravel_multi_index(np.nonzero(grid.mask), shape, order="F"), None
    check_overlap(image, grid)
    where = voxel_positions(image, grid)
    inside = np.flatnonzero(_within(where, shape))
    where = np.clip(where[inside], 0, np.array(shape) - 1)
    low = np.minimum(np.floor(where).astype(np.int64), np.maximum(np.array(shape) - 2, 0))
    fraction = where - low
    rows, columns, weights = [], [], []
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(np.array(corner) == 1, fraction, 1 - fraction), axis=1)
        used = weight > 0  # also keeps the upper corner of a single-slice axis out
        rows.append(inside[used])
        columns.append(np.ravel_multi_index(tuple((low + corner)[used].T), shape, order="F"))
        weights.append(weight[used])
    needed, compact = np.unique(np.concatenate(columns), return_inverse=True)
    entries = (np.concatenate(weights).astype(np.float32), (np.concatenate(rows), compact))
    return needed, sparse.csr_matrix(entries, shape=(int(grid.mask.sum()), len(needed)))


def voxel_positions(image: SpatialImage, grid: Grid) -> Float[np.ndarray, "voxels 3"]:
    """Where the in-mask voxels lie, in voxel coordinates of the image."""
    try:
        to_image = np.linalg.inv(image.affine) @ grid.affine
    except np.linalg.LinAlgError as error:
        raise UserError(f"{_name(image)}: its affine is singular; set the image's orientation (sform) again") from error
    return nib.affines.apply_affine(to_image, np.argwhere(grid.mask))


def _within(where: Float[np.ndarray, "voxels 3"], shape: tuple[int, ...]) -> np.ndarray:
    return np.all((where >= -1e-3) & (where <= np.array(shape) - 1 + 1e-3), axis=1)


def _at_resolution(
    affine: Float[np.ndarray, "4 4"], inside: np.ndarray, resolution: float
) -> tuple[Float[np.ndarray, "4 4"], np.ndarray]:
    """The same field of view in cubic voxels; a voxel is inside where the interpolated mask is at least a half."""
    size = nib.affines.voxel_sizes(affine)
    shape = tuple(int(n) for n in np.ceil(np.round(np.array(inside.shape) * size / resolution, 3))) if resolution > 0 else ()
    if not shape or min(shape) < 2 or np.prod(shape, dtype=float) > 1e8:
        raise UserError(
            f"--resolution {resolution}: not a sensible voxel size in mm; the maps have {size.round(2).tolist()} mm"
        )
    new = affine.copy()
    new[:3, :3] = affine[:3, :3] / size * resolution
    new[:3, 3] = affine[:3, 3] + affine[:3, :3] @ (0.5 * (resolution / size - 1))  # the corners coincide, not the centres
    everywhere = Grid(affine=new, mask=np.ones(shape, dtype=bool))
    image = nib.Nifti1Image(inside.astype(np.float32), affine)
    columns, weights = _sources(image, everywhere)
    values = image_data(image).ravel(order="F")[columns]
    values = values if weights is None else weights @ values
    return new, (values >= 0.5).reshape(shape)


def _name(image: SpatialImage) -> str:
    return str(image.get_filename() or "image in memory")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
