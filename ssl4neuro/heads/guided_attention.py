"""Appearance asks motion: cross-attention from the clip's map to its frames' motion maps (methods/mvo.md §3, equation 1)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.encoders.temporal import sinusoids
from ssl4neuro.heads.temporal_reduction import frame_weights

HEAD_DIM = 32  # features of an attention head, where their number may be chosen
PERIODS = (4.0, 256.0)  # of the positions' encoding, in positions of the map


class GuidedAttention(nn.Module):
    """Z = Σ_i softmax(Q K_iᵀ / √d) V_i W, Q from F̂ and K_i, V_i from the motion map F̃_i of frame i; or the mean over i.

    Every position of a map is a token. All frames go through one fused attention call, so no matrix of tokens by tokens is
    held. Keys have no bias: it would cancel in the softmax.

    Args:
        channels: of F̂ and Z.
        motion_channels: of F̃.
        frames: each of so many frames has projections of its own; None: all share them, and any number will do.
        attn_dim: at most so many features in the attention, 32 per head; None: `channels`, in a single head.
        pool: keys and values are averaged over blocks of positions until neither side of the map exceeds this.
        window: positions attend within blocks of at most this side, the largest that divides the map; `pool` is ignored.
        reduce: over valid frames. The mean has a learnt factor; the sum grows with the number of frames.
        norms: layer norms, positions added to queries and keys, and Z = 0 at the start.
    """

    def __init__(
        self,
        channels: int,
        motion_channels: int,
        frames: int | None = None,
        attn_dim: int | None = 128,
        pool: int | None = None,
        window: int | None = None,
        reduce: Literal["mean", "sum"] = "mean",
        norms: bool = True,
    ):
        super().__init__()
        self.dim = channels if attn_dim is None else min(channels, attn_dim)
        self.heads = 1 if attn_dim is None else _heads(self.dim)
        self.pool, self.window = pool, window
        self.query = FrameLinear(channels, self.dim, frames)
        self.key = FrameLinear(motion_channels, self.dim, frames, bias=False)
        self.value = FrameLinear(motion_channels, self.dim, frames)
        self.out = FrameLinear(self.dim, channels, frames)
        self.scale = nn.Parameter(torch.ones(())) if reduce == "mean" else None
        self.norms = norms
        if norms:
            self.query_norm, self.motion_norm = nn.LayerNorm(channels, eps=1e-6), nn.LayerNorm(motion_channels, eps=1e-6)
            nn.init.zeros_(self.out.weight)

    def forward(
        self,
        clip: Float[Tensor, "batch channels height width"],
        motion: Float[Tensor, "batch time motion_channels height width"],
        valid: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Z, 0 for a clip without valid frames."""
        size = (clip.shape[2], clip.shape[3])
        frames = motion.shape[1]
        factors = self._factors(size)
        query = clip.flatten(2).transpose(1, 2)[:, None]
        source = _pooled(motion.flatten(0, 1), factors).flatten(2).transpose(1, 2).unflatten(0, motion.shape[:2])
        key = value = source
        if self.norms:
            query = self.query_norm(query)
            query = query + _tokens(positions(size, query.shape[3], query.device)).to(query.dtype)
            value = self.motion_norm(source)
            where = _pooled(positions(size, source.shape[3], source.device)[None], factors)[0]
            key = value + _tokens(where).to(value.dtype)
        q = self.query(query).expand(-1, frames, -1, -1).flatten(0, 1)
        k, v = (part.flatten(0, 1) for part in (self.key(key), self.value(value)))
        seen = self._attend(q, k, v, size).unflatten(0, motion.shape[:2])
        weight = frame_weights(valid, seen.dtype) * self.scale if self.scale is not None else valid.to(seen.dtype)
        return self.out.summed(seen, weight.to(seen.dtype)).transpose(1, 2).unflatten(2, size)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, size: tuple[int, int]) -> Float[Tensor, "maps tokens dim"]:
        """One fused attention over maps [N, tokens, dim], or over their windows."""
        block = self._block(size)
        if block != size:
            q, k, v = (_windows(part, size, block) for part in (q, k, v))
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return out if block == size else _whole(out, size, block)

    def _block(self, size: tuple[int, int]) -> tuple[int, int]:
        if self.window is None:
            return size
        rows, columns = (max(d for d in range(1, min(self.window, side) + 1) if side % d == 0) for side in size)
        return rows, columns

    def _factors(self, size: tuple[int, int]) -> tuple[int, int]:
        if self.pool is None or self.window is not None:
            return 1, 1
        return math.ceil(size[0] / self.pool), math.ceil(size[1] / self.pool)

    def matrix_flop(self, height: int, width: int) -> int:
        """Of Q Kᵀ and A V for one frame of one clip, two per multiplication and addition (the table of methods/mvo.md §3)."""
        rows, columns = self._block((height, width))
        if self.window is None:
            factors = self._factors((height, width))
            rows, columns = math.ceil(rows / factors[0]), math.ceil(columns / factors[1])
        return 4 * height * width * rows * columns * self.dim


class MotionMagnitude(nn.Module):
    """What stands in for attention where there is none: mean_i Conv1×1(|F̃_i|), which is Conv1×1 of the mean (rule 5)."""

    def __init__(self, channels: int, motion_channels: int):
        super().__init__()
        self.mix = nn.Conv2d(motion_channels, channels, 1)

    def forward(
        self,
        clip: Float[Tensor, "batch channels height width"],
        motion: Float[Tensor, "batch time motion_channels height width"],
        valid: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "batch channels height width"]:
        return self.mix(mean_magnitude(motion, valid))


class FrameLinear(nn.Module):
    """A linear layer for the tokens of each frame [N, T or 1, tokens, features]: one for all frames, or one for each."""

    def __init__(self, inputs: int, outputs: int, frames: int | None = None, bias: bool = True):
        super().__init__()
        bound = math.sqrt(6 / (inputs + outputs))  # Xavier, for each frame's matrix
        self.weight = nn.Parameter(torch.empty(frames or 1, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(frames or 1, outputs)) if bias else None

    def forward(self, x: Float[Tensor, "batch _ tokens inputs"]) -> Float[Tensor, "batch _ tokens outputs"]:
        if len(self.weight) == 1:
            out = x @ self.weight[0]
        elif x.shape[1] == 1:
            out = torch.einsum("bnc,dce->bdne", x[:, 0], self.weight)
        else:
            out = torch.einsum("bdnc,dce->bdne", x, self.weight)
        return out if self.bias is None else out + self.bias[:, None].to(out.dtype)

    def summed(
        self, x: Float[Tensor, "batch time tokens inputs"], weight: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch tokens outputs"]:
        """The weighted sum over frames of the layer's outputs, none of which is held."""
        x = x * weight[..., None, None]
        if len(self.weight) == 1:
            out = x.sum(1) @ self.weight[0]
        else:
            out = torch.einsum("bdne,dec->bnc", x, self.weight)
        if self.bias is None:
            return out
        return out + (weight.to(out.dtype) @ self.bias.to(out.dtype).expand(x.shape[1], -1))[:, None]


def mean_magnitude(
    maps: Float[Tensor, "batch time channels height width"], valid: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch channels height width"]:
    """Mean of |maps| over the valid frames."""
    return torch.einsum("bd,bdchw->bchw", frame_weights(valid, maps.dtype), maps.abs())


def positions(size: tuple[int, int], dim: int, device: torch.device) -> Float[Tensor, "dim height width"]:
    """Sines and cosines of the row in one half of the features, of the column in the other; 0 in what is left over."""
    part = dim // 4 * 2
    row, column = (sinusoids(torch.arange(float(side), device=device), part, PERIODS).T for side in size)
    out = torch.zeros(dim, *size, device=device)
    out[:part] = row[:, :, None]
    out[part : 2 * part] = column[:, None]
    return out


def _heads(dim: int) -> int:
    """As many of 32 features as fit evenly."""
    return max(h for h in range(1, max(1, dim // HEAD_DIM) + 1) if dim % h == 0)


def _tokens(maps: Float[Tensor, "channels height width"]) -> Float[Tensor, "tokens channels"]:
    return maps.flatten(1).T


def _pooled(maps: Float[Tensor, "n channels height width"], factors: tuple[int, int]) -> Float[Tensor, "n channels _ _"]:
    if factors == (1, 1):
        return maps
    return F.avg_pool2d(maps, factors, ceil_mode=True, count_include_pad=False)


def _windows(x: Float[Tensor, "n _ dim"], size: tuple[int, int], block: tuple[int, int]) -> Float[Tensor, "_ _ dim"]:
    (height, width), (rows, columns) = size, block
    x = x.view(len(x), height // rows, rows, width // columns, columns, -1)
    return x.transpose(2, 3).reshape(-1, rows * columns, x.shape[-1])


def _whole(x: Float[Tensor, "_ _ dim"], size: tuple[int, int], block: tuple[int, int]) -> Float[Tensor, "n _ dim"]:
    """The inverse of `_windows`."""
    (height, width), (rows, columns) = size, block
    x = x.view(-1, height // rows, width // columns, rows, columns, x.shape[-1])
    return x.transpose(2, 3).reshape(len(x), height * width, -1)
