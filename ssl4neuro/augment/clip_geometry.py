"""In-plane geometry of clips: one map per clip for all its frames and masks, sampled once for the whole batch."""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl4neuro.augment.keyed import Keyed, expand
from ssl4neuro.augment.volume import rotation_matrix

Params = dict[str, Tensor]


@dataclass(frozen=True)
class Geometry:
    """Rotation, magnification, shift, mirroring and a smooth deformation in the plane of the frames.

    Args:
        rotation_deg: angle uniform in ± this about the centre of the frame, in pixels: a true rotation where they are square.
        scale: magnification uniform in 1 ± this.
        shift: translation uniform in ± this share of the height and of the width.
        flip_h: left and right change places with probability 1/2.
        flip_v: top and bottom.
        elastic: displacement of the knots uniform in ± this, pixels along each axis.
        elastic_knots: along each axis, from edge to edge; bicubic between them.
    """

    rotation_deg: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    flip_h: bool = False
    flip_v: bool = False
    elastic: float = 0.0
    elastic_knots: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.rotation_deg <= 180:
            raise ValueError(f"rotation_deg must lie in 0..180, got {self.rotation_deg}")
        if not 0 <= self.scale < 1 or not 0 <= self.shift < 1:
            raise ValueError(f"scale and shift must lie in [0, 1), got {self.scale}, {self.shift}")
        if self.elastic < 0 or self.elastic_knots < 2:
            raise ValueError(f"elastic must not be negative and needs 2 knots, got {self.elastic}, {self.elastic_knots}")

    def draw(self, keyed: Keyed, shape: tuple[int, int]) -> Params:
        """Parameters for frames of `shape` (rows, columns); a step that is off has no entry.

        matrix [n, 2, 2] and offset [n, 2]: pixel (centred; row, column) of the output to pixel of the input, mirroring
        included; flip [n, 2]: mirrored along (rows, columns), where nothing else is drawn; knots [n, 2, k, k]: pixels.
        """
        params: Params = {}
        flips = torch.stack([self._flip(keyed, "clip.flip_v", self.flip_v), self._flip(keyed, "clip.flip_h", self.flip_h)], 1)
        if self.elastic:
            k = self.elastic_knots
            params["knots"] = keyed.uniform("clip.elastic", (2, k, k), -self.elastic, self.elastic)
        if self.rotation_deg or self.scale or self.shift or self.elastic:
            angle = keyed.uniform("clip.angle", (), -self.rotation_deg, self.rotation_deg) * (torch.pi / 180)
            axis = torch.tensor([0.0, 0.0, 1.0], device=angle.device).expand(len(angle), 3)
            factor = keyed.uniform("clip.scale", (), 1 - self.scale, 1 + self.scale)
            share = keyed.uniform("clip.shift", (2,), -self.shift, self.shift)
            # output = factor * R * flip * input + shift, so the sampling map is flip * R transposed / factor
            matrix = rotation_matrix(axis, angle)[:, :2, :2].transpose(1, 2) / expand(factor, 3)
            matrix = torch.where(flips[:, :, None], -matrix, matrix)
            moved = share * torch.tensor(shape, dtype=share.dtype, device=share.device)
            params["matrix"] = matrix
            params["offset"] = -(matrix[:, :, 0] * moved[:, :1] + matrix[:, :, 1] * moved[:, 1:])
        elif self.flip_h or self.flip_v:
            params["flip"] = flips
        return params

    def _flip(self, keyed: Keyed, name: str, wanted: bool) -> Bool[Tensor, "n"]:
        return keyed.bernoulli(name) if wanted else torch.zeros(len(keyed), dtype=torch.bool, device=keyed.device)


def mirror(x: Tensor, flip: Bool[Tensor, "n 2"]) -> Tensor:
    """Rows of a batch mirrored along their last two axes; exact."""
    for axis in (0, 1):
        x = torch.where(expand(flip[:, axis], x.ndim), x.flip(x.ndim - 2 + axis), x)
    return x


def source_pixels(
    params: Params, shape: tuple[int, int]
) -> tuple[Float[Tensor, "n height width"], Float[Tensor, "n height width"]]:
    """Where each output pixel is taken from: row and column of the input, from its centre, pixels.

    Sums of products in a fixed order, no matrix product: the bits of a row do not depend on the size of the batch.
    """
    matrix, offset = params["matrix"], params["offset"]
    row = torch.arange(shape[0], device=matrix.device, dtype=matrix.dtype)[:, None] - (shape[0] - 1) / 2
    column = torch.arange(shape[1], device=matrix.device, dtype=matrix.dtype) - (shape[1] - 1) / 2
    m, o = matrix[:, :, :, None, None], offset[:, :, None, None]
    rows = m[:, 0, 0] * row + o[:, 0] + m[:, 0, 1] * column
    columns = m[:, 1, 0] * row + o[:, 1] + m[:, 1, 1] * column
    if "knots" in params:
        field = displacement(params["knots"], shape)
        rows, columns = rows + field[:, 0], columns + field[:, 1]
    return rows, columns


def displacement(knots: Float[Tensor, "n 2 k k"], shape: tuple[int, int]) -> Float[Tensor, "n 2 height width"]:
    """Bicubic interpolation of the knots, which lie from edge to edge; pixels."""
    down, along = (_basis(knots.shape[-1], size, knots.device) for size in shape)
    tall = knots[:, :, 0, None, :] * down[0, :, None]
    for i in range(1, len(down)):
        tall = tall + knots[:, :, i, None, :] * down[i, :, None]
    field = tall[..., 0, None] * along[0]
    for j in range(1, len(along)):
        field = field + tall[..., j, None] * along[j]
    return field


@functools.lru_cache(maxsize=32)
def _basis(knots: int, size: int, device: torch.device) -> Float[Tensor, "knots size"]:
    """What a knot of height 1 contributes to each of `size` pixels."""
    alone = torch.eye(knots, dtype=torch.float64)[None, :, :, None]
    return F.interpolate(alone, (size, 1), mode="bicubic", align_corners=True)[0, :, :, 0].float().to(device)


def sample_images(
    x: Float[Tensor, "n c height width"], rows: Float[Tensor, "n height width"], columns: Float[Tensor, "n height width"]
) -> Float[Tensor, "n c height width"]:
    """Bilinear values of the images at the given pixels (from the centre); 0 outside."""
    half = [max(size - 1, 1) / 2 for size in x.shape[-2:]]
    grid = torch.stack([columns / half[1], rows / half[0]], dim=-1)
    return F.grid_sample(x, grid.to(x.dtype), mode="bilinear", padding_mode="zeros", align_corners=True)


def sample_masks(
    masks: Int[Tensor, "n time height width"], rows: Float[Tensor, "n height width"], columns: Float[Tensor, "n height width"]
) -> Int[Tensor, "n time height width"]:
    """Labels of the nearest pixels; background (0) outside, while frames without a mask stay at -1 everywhere."""
    height, width = masks.shape[-2:]
    row = torch.floor(rows + height / 2).long()  # the centre of pixel i lies at i - (height - 1) / 2
    column = torch.floor(columns + width / 2).long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    flat = masks.flatten(2)
    found = flat.gather(2, index.flatten(1)[:, None].expand_as(flat)).view(masks.shape)
    labelled = (flat.amax(2) >= 0)[:, :, None, None]
    return torch.where(labelled, found.masked_fill_(~inside[:, None], 0), -1)
