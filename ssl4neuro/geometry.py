"""How two voxel grids lie to each other, and the fingerprint of a mask.

A grid is the `shape` and `affine` (voxel index to mm) of a contract entry. When two grids share voxel size and the axes of
one run along the axes of the other at whole voxels, data moves between them without interpolation.
"""

import base64
import binascii
import hashlib
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ssl4neuro.errors import UserError

VOXEL_TOLERANCE = 1e-3  # voxels; NIfTI stores affines as float32
MAX_VOXELS = 1 << 28  # a contract that claims more is damaged or hostile: it would only exhaust the memory


@dataclass(frozen=True)
class GridMove:
    """Where the voxels of an expected grid lie on the grid that was found."""

    matrix: Float[np.ndarray, "4 4"]  # expected voxel index -> found voxel index
    shape: tuple[int, int, int]  # of the expected grid
    axes: tuple[int, ...] | None  # found axis that each expected axis runs along; None when interpolation is needed
    flipped: tuple[bool, ...]  # expected axis runs backwards along the found one
    start: tuple[int, ...]  # first expected voxel, as an index along the found axis after flipping; may be negative
    coverage: float  # share of the expected grid that lies inside the found one

    @property
    def exact(self) -> bool:
        """No interpolation: flip, permute, pad, crop."""
        return self.axes is not None

    def describe(self) -> str:
        """`flip axis 0, pad or crop by (1, 0, -2)`."""
        parts = []
        if self.axes is not None and self.axes != (0, 1, 2):
            parts.append(f"permute axes to {self.axes}")
        if any(self.flipped):
            parts.append(f"flip axis {', '.join(str(a) for a in range(3) if self.flipped[a])}")
        return ", ".join([*parts, f"pad or crop from voxel {self.start} to {'×'.join(map(str, self.shape))}"])


def grid_move(found: Mapping[str, Any], expected: Mapping[str, Any]) -> GridMove:
    """The move that brings data on the `found` grid to the `expected` one.

    Raises:
        UserError: a shape or affine that is no grid.
    """
    found_affine, found_shape = affine_of(found), shape_of(found)
    expected_affine, shape = affine_of(expected), shape_of(expected)
    matrix = np.linalg.solve(found_affine, expected_affine)
    lattice = np.stack(np.meshgrid(*[np.linspace(0, n - 1, 9) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    there = lattice @ matrix[:3, :3].T + matrix[:3, 3]
    inside = ((there > -0.5) & (there < np.array(found_shape) - 0.5)).all(1)
    whole = np.round(matrix)
    drift = np.abs(lattice @ (matrix - whole)[:3, :3].T + (matrix - whole)[:3, 3]).max()
    turn = whole[:3, :3]
    signed_permutation = np.array_equal(np.abs(turn).sum(0), np.ones(3)) and np.array_equal(np.abs(turn).sum(1), np.ones(3))
    if drift > VOXEL_TOLERANCE or not signed_permutation:
        return GridMove(matrix, shape, None, (False,) * 3, (0,) * 3, float(inside.mean()))
    axes = tuple(int(np.argmax(np.abs(turn[:, b]))) for b in range(3))
    flipped = tuple(bool(turn[a, b] < 0) for b, a in enumerate(axes))
    first = [int(whole[a, 3]) for a in axes]
    start = tuple(found_shape[a] - 1 - o if f else o for a, o, f in zip(axes, first, flipped, strict=True))
    return GridMove(matrix, shape, axes, flipped, start, float(inside.mean()))


def same_grid(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Equal shape, and affines equal to a thousandth of a voxel everywhere on the grid."""
    if shape_of(a) != shape_of(b):
        return False
    move = grid_move(a, b)
    return move.axes == (0, 1, 2) and not any(move.flipped) and move.start == (0, 0, 0)


def move_mask(mask: Bool[np.ndarray, "x y z"], move: GridMove) -> Bool[np.ndarray, "i j k"]:
    """The mask on the expected grid, for an exact move."""
    assert move.axes is not None
    turned = mask.transpose(move.axes)
    turned = np.flip(turned, tuple(b for b in range(3) if move.flipped[b]))
    moved = np.zeros(move.shape, dtype=bool)
    low = [max(0, -s) for s in move.start]
    high = [min(n, m - s) for n, m, s in zip(move.shape, turned.shape, move.start, strict=True)]
    if all(a < b for a, b in zip(low, high, strict=True)):
        target = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        moved[target] = turned[tuple(slice(a + s, b + s) for a, b, s in zip(low, high, move.start, strict=True))]
    return moved


def mask_sha256(mask: Bool[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]) -> str:
    """Fingerprint of a mask on its grid: shape, bits in C order and affine to 0.1 µm; equal on any machine."""
    digest = hashlib.sha256(np.array(mask.shape, dtype="<i8").tobytes())
    digest.update(np.packbits(mask.ravel(order="C")).tobytes())
    digest.update((np.round(affine, 4) + 0.0).astype("<f8").tobytes())  # + 0.0 turns -0.0 into 0.0
    return digest.hexdigest()


def pack_mask(mask: Bool[np.ndarray, "x y z"]) -> str:
    """The mask's bits as text (a few kB), for the contract entry `mask`: it allows to intersect with it later."""
    return base64.b64encode(zlib.compress(np.packbits(mask).tobytes(), 9)).decode()


def unpack_mask(text: str, shape: tuple[int, int, int]) -> Bool[np.ndarray, "x y z"]:
    """Reads `pack_mask` back.

    Raises:
        UserError: damaged, or of another shape.
    """
    count = math.prod(shape_of({"shape": shape}))
    try:
        limit = (count + 7) // 8 + 1  # never more than the shape needs
        packed = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), limit)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise UserError(f"contract: the mask cannot be read ({error}); the checkpoint is damaged") from error
    if len(packed) != (count + 7) // 8:
        raise UserError("contract: the mask does not fill its grid; the checkpoint is damaged")
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool).reshape(shape)


def voxel_sizes(entry: Mapping[str, Any]) -> tuple[float, ...]:
    """Voxel edge lengths in mm, rounded to a micrometre."""
    return tuple(round(float(size), 3) for size in np.linalg.norm(affine_of(entry)[:3, :3], axis=0))


def describe_grid(entry: Mapping[str, Any]) -> str:
    """`3 mm, 61×73×61, RAS from (-90, -126, -72) mm`: voxel size, shape, orientation, centre of the first voxel."""
    sizes, affine = voxel_sizes(entry), affine_of(entry)
    mm = f"{sizes[0]:g}" if len(set(sizes)) == 1 else "×".join(f"{size:g}" for size in sizes)
    nearest = np.abs(affine[:3, :3]).argmax(0)
    codes = "".join(("LR", "PA", "IS")[a][int(affine[a, b] > 0)] for b, a in enumerate(nearest))
    origin = ", ".join(f"{value:.4g}" for value in affine[:3, 3])
    return f"{mm} mm, {'×'.join(map(str, shape_of(entry)))}, {codes} from ({origin}) mm"


def shape_of(entry: Mapping[str, Any]) -> tuple[int, int, int]:
    """The grid's shape, checked."""
    shape = entry.get("shape")
    if not isinstance(shape, list | tuple) or len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
        raise UserError(f"contract: shape {shape!r} is not three positive whole numbers")
    if math.prod(shape) > MAX_VOXELS:
        raise UserError(f"contract: a grid of {'×'.join(map(str, shape))} voxels is not credible")
    return (shape[0], shape[1], shape[2])


def affine_of(entry: Mapping[str, Any]) -> Float[np.ndarray, "4 4"]:
    """The grid's affine, checked."""
    try:
        affine = np.asarray(entry.get("affine"), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        affine = np.zeros(0)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise UserError("contract: the affine is not an invertible 4×4 matrix of finite numbers")
    return affine
