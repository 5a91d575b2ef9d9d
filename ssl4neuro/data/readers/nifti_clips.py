"""NIfTI stacks of slices as clips: axis order, intensities, spacing and frame time, the same for every reader.

Image rows are the second NIfTI axis (y) and image columns the first (x), as viewers that ignore the affine show them; nothing
is flipped. A 4-D file (x, y, z, t) is one clip [t, y, x] per z, with spacing (dy, dx). A 3-D file is one frame per z.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from nibabel.spatialimages import SpatialImage

from ssl4neuro.data.clip import Clip
from ssl4neuro.data.grid import image_data, load_image
from ssl4neuro.data.readers.clip_checks import INTERVAL_RANGE, known, regular_times
from ssl4neuro.errors import UserError

CINE_INTERVAL = (0.005, 0.2)  # s; frame times of cine. Headers also hold placeholders (1) and heart rates
SPACING_RANGE = (1e-4, 50.0)  # mm, from microscopy to coarse MR
UNTRUE_SCALE = 0.25  # a smaller slope is the rounding of a tool that stretched integers over the range of int16
_TO_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_TO_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3}
_UNREADABLE = (OSError, EOFError, zlib.error, ValueError)


@dataclass(frozen=True)
class Stack:
    """The pixels of one file, and what its header says about them."""

    path: Path
    frames: Shaped[np.ndarray, "slices time height width"]
    spacing: tuple[float, float] | None  # mm between rows, between columns
    interval: float | None  # s between frames
    affine: Float[np.ndarray, "4 4"] | None = None  # see `Clip`; None where the third axis is time
    thickness: float | None = None  # mm from slice to slice

    def clip(
        self,
        number: int,
        *,
        view: str = "",
        times: Float[np.ndarray, "time"] | None = None,
        masks: Shaped[np.ndarray, "slices labelled height width"] | None = None,
        labelled: list[int] | None = None,
    ) -> Clip:
        """Clip of slice `number`, with its part of the masks."""
        return Clip(
            frames=np.ascontiguousarray(self.frames[number]),
            view=view,
            slice=number,
            times=times if times is not None else regular_times(self.frames.shape[1], self.interval),
            spacing=self.spacing,
            mask=None if masks is None else np.ascontiguousarray(masks[number]),
            mask_frames=None if labelled is None else np.asarray(labelled, dtype=np.int64),
            affine=self.affine,
            slices=len(self.frames),
            thickness=self.thickness,
        )


def open_stack(path: Path) -> SpatialImage:
    """A 3-D or 4-D image of plain numbers, pixels not read yet.

    Raises:
        UserError: absent, damaged, of other dimensions, or of colour or complex values.
    """
    image = load_image(path)
    kind = image.get_data_dtype()
    if kind.fields is not None or kind.kind not in "biuf":
        raise UserError(f"{path}: its values are {'colours' if kind.fields else kind}, not numbers; export it in grey levels")
    return image


def read_stack(path: Path, *, last_is_time: bool = False, image: SpatialImage | None = None) -> Stack:
    """All slices of a file.

    Args:
        last_is_time: the third axis of a 3-D file is time rather than slices.

    Raises:
        UserError: as `open_stack`, or cut short.
    """
    image = open_stack(path) if image is None else image
    values = _values(image, path)
    if values.ndim == 3:
        values = values[:, :, None, :] if last_is_time else values[..., None]
    affine, thickness = (None, None) if last_is_time else (header_affine(image), header_thickness(image))
    frames = values.transpose(2, 3, 1, 0)
    return Stack(Path(path), frames, header_spacing(image), header_interval(image), affine, thickness)


def read_masks(path: Path) -> UInt8[np.ndarray, "slices labelled height width"]:
    """Labels of a 3-D mask (one labelled frame) or a 4-D one (last axis: labelled frames), in the axis order of `read_stack`.

    Raises:
        UserError: unreadable, or values that are no labels from 0 to 255.
    """
    values = image_data(open_stack(path))
    if values.ndim == 3:
        values = values[..., None]
    labels = np.nan_to_num(values, nan=-1.0)
    if not ((labels == np.rint(labels)) & (labels >= 0) & (labels <= 255)).all():
        raise UserError(f"{path}: its values are no labels (whole numbers from 0 to 255); give a mask, not a probability map")
    return labels.astype(np.uint8).transpose(2, 3, 1, 0)


def header_spacing(image: SpatialImage) -> tuple[float, float] | None:
    """Pixel spacing (mm between rows, between columns); None where it cannot be true.

    A spacing of exactly 1 × 1 is what a header holds that was never told, so it counts only where a unit is given too.
    """
    dx, dy = (float(size) for size in image.header.get_zooms()[:2])
    unit = _units(image)[0]
    if dx == dy == 1.0 and unit not in _TO_MM:
        return None
    rows, columns = (known(size * _TO_MM.get(unit, 1.0), *SPACING_RANGE) for size in (dy, dx))
    return None if rows is None or columns is None else (rows, columns)


def header_thickness(image: SpatialImage) -> float | None:
    """Distance of slices, mm; None where it cannot be true. Exactly 1 is what a header holds that was never told."""
    size, unit = float(image.header.get_zooms()[2]), _units(image)[0]
    return None if size == 1.0 and unit not in _TO_MM else known(size * _TO_MM.get(unit, 1.0), *SPACING_RANGE)


def header_affine(image: SpatialImage) -> Float[np.ndarray, "4 4"] | None:
    """From voxel (x, y, z, 1), which is column, row and slice, to mm; None where it is no grid."""
    if image.affine is None or not np.isfinite(image.affine).all() or np.linalg.det(image.affine) == 0:
        return None
    scale = _TO_MM.get(_units(image)[0], 1.0)
    return np.diag([scale, scale, scale, 1.0]) @ np.asarray(image.affine, dtype=np.float64)


def header_interval(image: SpatialImage) -> float | None:
    """Frame interval (s) of a 4-D header: any that has a unit, and one without that is plausible for cine; never exactly 1."""
    zooms = image.header.get_zooms()
    if len(zooms) < 4 or zooms[3] == 1.0:
        return None
    unit = _units(image)[1]
    low, high = INTERVAL_RANGE if unit in _TO_SECONDS else CINE_INTERVAL
    return known(float(zooms[3]) * _TO_SECONDS.get(unit, 1.0), low, high)


def _units(image: SpatialImage) -> tuple[str, str]:
    if not hasattr(image.header, "get_xyzt_units"):
        return ("unknown", "unknown")
    try:
        return image.header.get_xyzt_units()
    except KeyError:  # a code that the format does not define
        return ("unknown", "unknown")


def _values(image: SpatialImage, path: Path) -> Shaped[np.ndarray, "..."]:
    """Values in the file's own integer type where it is one, else float32."""
    proxy, kind = image.dataobj, image.get_data_dtype()
    slope, inter = float(getattr(proxy, "slope", 1.0)), float(getattr(proxy, "inter", 0.0))
    if kind.kind not in "iu" or not hasattr(proxy, "get_unscaled"):
        return image_data(image)
    try:
        raw = np.asarray(proxy.get_unscaled())
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read to its end ({reason}); copy it again") from error
    if (slope, inter) == (1.0, 0.0):
        return _smallest(raw)
    scaled = raw * slope + inter
    whole = np.rint(scaled)
    # nibabel and SimpleITK stretch integers over all of int16 when they save; the integers were the scanner's
    if abs(slope) < UNTRUE_SCALE and np.abs(scaled - whole).max(initial=0) <= abs(slope):
        return _smallest(whole.astype(np.int64))
    return scaled.astype(np.float32)


def _smallest(values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """In native byte order; 64-bit and recovered integers in the smallest type that holds them, 8 and 16 bit as they are."""
    if values.dtype.itemsize <= 2:
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    for kind in (np.uint8, np.int16, np.uint16, np.int32):
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return values.astype(kind)
    return values.astype(np.float32)
