"""Eigen-CAM: where an encoder's features vary together (Muhammad & Yeasin, IJCNN 2020), for courses, images, volumes and clips.

The features of one sample, positions × channels, are projected on their first right singular vector. No gradient, no class
and no label enters: the map says what dominates the features, not what a prediction rests on; for that see `occlusion`.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ssl4neuro.errors import UserError
from ssl4neuro.types import Encoder, Encoding

FEWEST = 6  # positions along the longer of the last two axes of a map that still says where
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Cam(NamedTuple):
    """Maps of a batch on the grid of its input."""

    values: Float[Tensor, "batch *space"]  # 0 to 1 within a sample; 0 at invalid positions
    share: Float[Tensor, "batch"]  # of the features' sum of squares that the first component holds


def feature_map(
    encoder: Encoder, encoding: Encoding, x: Float[Tensor, "batch *sample"], level: int | None = None
) -> Float[Tensor, "batch channels *grid"]:
    """The features of an encoder with their positions: axes of the grid in the order of the input's.

    Args:
        encoder: what made `encoding`; one without `levels` says by `grid(shape)` how its tokens lie.
        encoding: of `x`.
        x: [N, time] for courses, else [N, channels, ...].
        level: of `encoding.levels`; by default the coarsest with at least 6 positions along the longer of its last two axes.

    Raises:
        UserError: the encoder keeps no positions, or there is no such level.
    """
    space = x.shape[1:] if x.ndim == 2 else x.shape[2:]
    name = type(encoder).__name__
    if not encoding.levels:
        if encoding.tokens is None or not hasattr(encoder, "grid"):
            raise UserError(f"Eigen-CAM: {name} keeps no feature map (no levels, no grid of tokens); use --method occlusion")
        return encoding.tokens.transpose(1, 2).unflatten(2, encoder.grid(tuple(space)))
    maps = [_channels_first(found, encoding) for found in encoding.levels]
    if level is not None:
        if not -len(maps) <= level < len(maps):
            raise UserError(f"Eigen-CAM: {name} has the levels 0 to {len(maps) - 1}, not {level}")
        return maps[level]
    fine = [found for found in maps if max(found.shape[2:][-2:]) >= FEWEST]
    return fine[-1] if fine else maps[0]


def _channels_first(level: Tensor, encoding: Encoding) -> Tensor:
    """Encoders of single frames have [N, T, channels, rows, columns], and one token per frame rather than per position."""
    assert encoding.levels is not None
    tokens, last = encoding.tokens, encoding.levels[-1]
    if tokens is None or tokens.shape[1] == math.prod(last.shape[2:]):
        return level
    return level.transpose(1, 2) if tokens.shape[1] == level.shape[1] else level


def first_component(features: Float[Tensor, "batch channels *grid"]) -> tuple[Float[Tensor, "batch *grid"], Tensor]:
    """Projection of every position on the first right singular vector of positions × channels, and its share of the squares.

    Features are not centred, as in the paper; positions that the encoder has zeroed (padding, outside the mask) thus have no
    part in it. A singular vector has no sign: it is the one with which the projection, weighted by the length of
    each position's features, sums to a positive number. For features that are nowhere negative (ReLU) that is the paper's.
    """
    flat = features.flatten(2).double()
    power, vectors = torch.linalg.eigh(flat @ flat.transpose(1, 2))
    projected = torch.einsum("ncp,nc->np", flat, vectors[:, :, -1])
    sign = (projected * flat.norm(dim=1)).sum(1).sign()
    projected = projected * torch.where(sign == 0, 1.0, sign)[:, None]
    share = power[:, -1] / power.clamp_min(0).sum(1).clamp_min(1e-30)
    return projected.to(features.dtype).unflatten(1, features.shape[2:]), share.to(features.dtype)


def upsample(grid: Float[Tensor, "batch *grid"], space: tuple[int, ...]) -> Float[Tensor, "batch *space"]:
    """Linear interpolation onto the input's grid; a position stands in the middle of the tile of inputs that it was made of.

    Halvings round up, so that the last tile may reach beyond the input; it is cut off, not squeezed in.
    """
    size = [round(n * tile(side, n)) for side, n in zip(space, grid.shape[1:], strict=True)]
    mode = MODES[len(space)]
    fine = F.interpolate(grid[:, None], size=size, mode=mode, align_corners=False)[:, 0]
    return fine[(slice(None), *(slice(0, side) for side in space))]


def tile(side: int, positions: int) -> float:
    """Inputs per position along one axis: the power of two that halvings lead to, else the ratio."""
    for step in (2**k for k in range(12)):
        if -(-side // step) == positions:
            return float(step)
    return side / positions


def eigen_cam(
    encoder: Encoder,
    x: Float[Tensor, "batch *sample"],
    valid: Bool[Tensor, "batch *_"] | None = None,
    rate: Float[Tensor, "batch"] | None = None,
    group: Tensor | None = None,
    times: Tensor | None = None,
    level: int | None = None,
) -> Cam:
    """Eigen-CAM of a batch, scaled to 0..1 over the valid positions of each sample.

    Arguments are those of the encoder; `level` is explained in `feature_map`.

    Raises:
        UserError: the encoder keeps no positions.
    """
    space = tuple(x.shape[1:] if x.ndim == 2 else x.shape[2:])
    with torch.no_grad():
        encoding = encoder(x, valid, rate, group, times)
        grid, share = first_component(feature_map(encoder, encoding, x, level).float())
        values = upsample(grid, space)
    if valid is None:
        inside = torch.ones_like(values, dtype=torch.bool)
    else:  # clips have one value per frame
        inside = valid.reshape(*valid.shape, *[1] * (values.ndim - valid.ndim)).expand_as(values)
    return Cam(_unit(values, inside), share)


def _unit(values: Tensor, inside: Tensor) -> Tensor:
    """Lowest valid value 0, highest 1; nothing but zeros where all are equal."""
    flat, real = values.flatten(1), inside.flatten(1)
    low = flat.masked_fill(~real, torch.inf).amin(1, keepdim=True)
    high = flat.masked_fill(~real, -torch.inf).amax(1, keepdim=True)
    spread = high - low
    scaled = (flat - low) / spread
    return torch.where(real & (spread > 0) & spread.isfinite(), scaled, 0.0).view_as(values)
