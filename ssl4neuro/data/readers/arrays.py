"""Clips in arrays and animated images: .npz, .npy, multi-page TIFF and GIF; axes (time, height, width[, colour])."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageSequence, UnidentifiedImageError

from ssl4neuro.data.clip import Clip
from ssl4neuro.data.readers.clip_checks import INTERVAL_RANGE, known, regular_times
from ssl4neuro.data.readers.nifti_clips import SPACING_RANGE
from ssl4neuro.errors import UserError

T = TypeVar("T")
FEW = 4  # pixels along the last axis: colours rather than columns
IMAGE_DESCRIPTION = 270  # TIFF tag
KNOWN_KEYS = ("frames", "times", "spacing", "mask", "mask_frames", "axes")
IMAGEJ = re.compile(r"^(images|slices|frames|channels|finterval)=(\S+)$", re.MULTILINE)
_UNREADABLE = (OSError, EOFError, ValueError, SyntaxError, zipfile.BadZipFile, Image.DecompressionBombError)


def clip_frames(array: Shaped[np.ndarray, "..."], where: Path | str, axes: str = "") -> Shaped[np.ndarray, "..."]:
    """The array as [time, height, width] or [time, height, width, 3].

    [height, width] is one frame. A stack whose last axis could be colour or time is refused rather than guessed: the last of
    three axes has at most 4 elements, or the first two are nearly equal and the third is less than half of them.

    Args:
        axes: their order where known, from T, H, W, C (`HWT`).

    Raises:
        UserError: other shapes, ambiguous ones, or values that are not numbers.
    """
    if array.dtype.kind not in "biuf":
        raise UserError(f"{where}: its values are {array.dtype}, not numbers; save it as an array of numbers")
    if 0 in array.shape:
        raise UserError(f"{where}: shape {_size(array)} has no pixels; save it again")
    told = bool(axes) or array.ndim != 3  # two axes are one frame, four end in colour: nothing to take for time by mistake
    if axes:
        array = _ordered(array, where, axes)
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] != 3):
        raise UserError(f"{where}: shape {_size(array)} is not (time, height, width) or (time, height, width, 3); reorder it")
    if not told and _ambiguous(array.shape):
        raise UserError(
            f"{where}: shape {_size(array)} is hardly (time, height, width); reorder it, or save it in an .npz "
            "that says axes='THW'"
        )
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f" or array.dtype.itemsize > 4:
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def read_npy(path: Path, *, view: str = "", interval: float | None = None) -> list[Clip]:
    """The clip of an .npy file.

    Raises:
        UserError: unreadable, holds Python objects, or as `clip_frames`.
    """
    frames = clip_frames(_loaded(path, lambda: _numpy(path)), path)
    return [Clip(np.ascontiguousarray(frames), view, times=regular_times(len(frames), interval))]


def read_npz(path: Path, *, view: str = "", interval: float | None = None) -> list[Clip]:
    """The clip of an .npz file: `frames` or the only array that has another name than the optional ones.

    These are `times` [T] s, `spacing` (mm rows, mm columns), `mask` [K, H, W] with `mask_frames` [K] (may lack where
    every frame has a mask or only the first), and `axes`, e.g. 'HWT', where frames come in another order.

    Raises:
        UserError: unreadable, holds Python objects, several arrays, or parts that do not fit each other.
    """
    content: dict[str, np.ndarray] = _loaded(path, lambda: dict(_numpy(path)))
    others = [key for key in content if key not in KNOWN_KEYS]
    if "frames" not in content and len(others) != 1:
        raise UserError(f"{path}: has arrays {', '.join(sorted(content)) or '(none)'}; call the one of the clip `frames`")
    array = content["frames"] if "frames" in content else content[others[0]]
    frames = clip_frames(array, path, str(content["axes"]) if "axes" in content else "")
    mask, labelled = _mask(content, frames, path)
    times = _times(content["times"], frames, path) if "times" in content else regular_times(len(frames), interval)
    spacing = _spacing(content["spacing"], path) if "spacing" in content else None
    return [Clip(np.ascontiguousarray(frames), view, -1, times, spacing, mask, labelled)]


def read_pages(path: Path, *, view: str = "", interval: float | None = None) -> list[Clip]:
    """The pages of a TIFF or GIF as frames; durations of a GIF and ImageJ's `finterval` tell the times.

    A hyperstack of ImageJ (slices and frames) becomes one clip per slice.

    Raises:
        UserError: unreadable, cut short, pages of different sizes, or several channels.
    """
    pages, durations, notes = _loaded(path, lambda: _pages(path))
    sizes = [page.shape for page in pages]
    other = next((i for i, size in enumerate(sizes) if size[:2] != sizes[0][:2]), None)
    if other is not None:
        shown = ["×".join(map(str, sizes[i][:2])) for i in (other, 0)]
        raise UserError(
            f"{path}: page {other + 1} has {shown[0]} pixels, the first {shown[1]}; one clip has one size, so split it"
        )
    if any(page.ndim == 3 for page in pages):
        pages = [page if page.ndim == 3 else np.repeat(page[..., None], 3, axis=-1) for page in pages]
    frames = grey_if_equal(np.stack(pages))
    stacks = _slices(frames, notes, path)
    if len(durations) == len(frames) and all(duration > 0 for duration in durations):
        times: np.ndarray | None = np.concatenate([[0.0], np.cumsum(durations[:-1])]) / 1000.0
    else:
        stated = known(float(notes.get("finterval", "nan")), *INTERVAL_RANGE)
        times = regular_times(len(stacks[0]), stated or interval)
    alone = len(stacks) == 1
    return [Clip(np.ascontiguousarray(stack), view, -1 if alone else n, times) for n, stack in enumerate(stacks)]


def grey_if_equal(frames: Shaped[np.ndarray, "time height width *colour"]) -> Shaped[np.ndarray, "time height width *other"]:
    """Without the colour axis where all three channels are equal in all frames."""
    if frames.ndim == 4 and (frames[..., :1] == frames[..., 1:]).all():
        return frames[..., 0]
    return frames


def _ambiguous(shape: tuple[int, ...]) -> bool:
    first, second, last = shape
    alike = max(first, second) < 1.5 * min(first, second)
    return last <= FEW or (alike and 2 * last < min(first, second))


def _ordered(array: Shaped[np.ndarray, "..."], where: Path | str, axes: str) -> Shaped[np.ndarray, "..."]:
    axes = axes.upper()
    if sorted(axes) not in (sorted("HW"), sorted("THW"), sorted("THWC")) or len(axes) != array.ndim:
        raise UserError(f"{where}: axes '{axes}' do not name those of shape {_size(array)}; give e.g. 'THW' or 'THWC'")
    return array.transpose([axes.index(axis) for axis in "THWC" if axis in axes])


def _loaded(path: Path, load: Callable[[], T]) -> T:
    """What `load` returns, with the errors of damaged files for users."""
    try:
        return load()
    except (*_UNREADABLE, UnidentifiedImageError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise UserError(f"{path}: holds Python objects, which are not read from files; save plain arrays") from error
        raise UserError(f"{path}: cannot be read ({reason}); copy or export it again") from error


def _numpy(path: Path) -> Any:
    with path.open("rb") as file:  # NumPy leaves damaged files open
        content = np.load(file, allow_pickle=False)
        return content if isinstance(content, np.ndarray) else dict(content)


def _mask(
    content: dict[str, np.ndarray], frames: np.ndarray, path: Path
) -> tuple[UInt8[np.ndarray, "labelled height width"] | None, np.ndarray | None]:
    if "mask" not in content:
        return None, None
    mask = content["mask"]
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.dtype.kind not in "biu" or mask.ndim != 3 or mask.size == 0 or int(mask.min()) < 0 or int(mask.max()) > 255:
        raise UserError(
            f"{path}: `mask` {_size(mask)} {mask.dtype} is not (masks, height, width) with labels 0 to 255; correct it"
        )
    if mask.shape[1:] != frames.shape[1:3]:
        sizes = ["×".join(map(str, shape)) for shape in (mask.shape[1:], frames.shape[1:3])]
        raise UserError(f"{path}: has a mask of {sizes[0]} pixels on frames of {sizes[1]}; draw it on these frames")
    if "mask_frames" in content:
        labelled = np.atleast_1d(content["mask_frames"])
        if labelled.dtype.kind not in "iu" or labelled.ndim != 1:
            raise UserError(f"{path}: `mask_frames` is no list of frame numbers; give one (from 0) per mask")
        if len(labelled) != len(mask):
            raise UserError(f"{path}: {len(mask)} masks for {len(labelled)} `mask_frames`; give one (from 0) per mask")
    elif len(mask) in (1, len(frames)):
        labelled = np.arange(len(mask))
    else:
        raise UserError(f"{path}: {len(mask)} masks for {len(frames)} frames; add `mask_frames`, their frames counted from 0")
    return mask.astype(np.uint8), labelled.astype(np.int64)


def _times(times: np.ndarray, frames: np.ndarray, path: Path) -> Float[np.ndarray, "time"]:
    if times.ndim != 1 or times.dtype.kind not in "iuf" or len(times) != len(frames):
        raise UserError(f"{path}: `times` {_size(times)} does not fit {len(frames)} frames; give one time in s per frame")
    return times.astype(np.float64) - float(times[0])


def _spacing(spacing: np.ndarray, path: Path) -> tuple[float, float]:
    values = [float(v) for v in np.ravel(spacing)] if spacing.dtype.kind in "iuf" else []
    if len(values) != 2 or any(known(v, *SPACING_RANGE) is None for v in values):
        raise UserError(f"{path}: `spacing` is no pair of mm (between rows, between columns); correct it or leave it out")
    return values[0], values[1]


def _pages(path: Path) -> tuple[list[np.ndarray], list[float], dict[str, str]]:
    """Pixels of every page, durations in ms, and what ImageJ wrote about the stack."""
    with Image.open(path) as image:
        description = image.tag_v2.get(IMAGE_DESCRIPTION, "") if hasattr(image, "tag_v2") else ""
        pages, durations = [], []
        for page in ImageSequence.Iterator(image):
            pages.append(_pixels(page))
            durations.append(float(page.info.get("duration", 0) or 0))
    text = str(description)
    return pages, durations, dict(IMAGEJ.findall(text)) if text.startswith("ImageJ=") else {}


def _pixels(page: Image.Image) -> np.ndarray:
    if page.mode == "1":
        return np.asarray(page).astype(np.uint8)
    if page.mode in ("P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"):
        page = page.convert("RGB")
    elif page.mode == "LA":
        page = page.convert("L")
    return np.array(page)


def _slices(frames: np.ndarray, notes: dict[str, str], path: Path) -> list[np.ndarray]:
    """Stacks of one slice each: ImageJ writes all slices of a frame before the next frame."""
    count = {key: int(notes.get(key, "1")) for key in ("channels", "slices", "frames")}
    if count["channels"] > 1:
        raise UserError(f"{path}: has {count['channels']} channels; save one channel, or RGB")
    if count["slices"] > 1 and count["frames"] > 1:
        if count["slices"] * count["frames"] != len(frames):
            raise UserError(
                f"{path}: has {len(frames)} pages, but its header says {count['slices']} slices × {count['frames']} frames; "
                "save it again"
            )
        return [frames[number :: count["slices"]] for number in range(count["slices"])]
    return [frames]


def _size(array: np.ndarray) -> str:
    return "×".join(map(str, array.shape)) or "()"
