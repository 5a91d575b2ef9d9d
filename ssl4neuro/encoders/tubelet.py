"""Vision transformer over tubelets (blocks of frames × rows × columns); tokens can be left out, for masked objectives."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.encoders.temporal import NOMINAL_INTERVAL, PERIODS, clock, sinusoids
from ssl4neuro.encoders.transformer import Block, attention_mask, initialise, keep_valid, valid_mean
from ssl4neuro.encoders.weights import load_videomae
from ssl4neuro.types import Encoding

SPACE_PERIODS = (2 * math.pi, 200 * math.pi)  # tokens
VIDEOMAE_GRID = (14, 14)  # tokens of a frame of 224 × 224

Shape = tuple[int, int, int]


class TubeletViT(nn.Module):
    """Encode clips [N, channels, T, H, W] of any size as sequences of tubelets.

    Clips are completed with zeros to multiples of `patch`. Frames that are not valid are set to zero, tubelets of nothing but
    such frames are not looked at and come out as 0, so that padding in time changes nothing. Valid frames come first in a clip.

    Args:
        dim: features of a token and of the output.
        depth: transformer blocks.
        heads: of the attention; must divide `dim`.
        patch: frames, rows and columns of a tubelet.
        in_channels: of the clips.
        mlp_ratio: width of the blocks' inner layer over `dim`.
        positions: "seconds" encodes time in s, row and column; "index" is VideoMAE's encoding of the token number (it knows
            no seconds), interpolated where a frame does not have its 14 × 14 tokens.
        weights: public VideoMAE weights: `hub:MCG-NJU/videomae-base`, a folder or a file (see `encoders/weights.py`); wants the
            preset "videomae". One-channel stems get the sum of the colour kernels.
    """

    PRESETS: dict[str, dict[str, Any]] = {
        "tiny": {"dim": 96, "depth": 4, "heads": 3, "patch": (2, 8, 8)},
        "small": {"dim": 192, "depth": 8, "heads": 3, "patch": (2, 8, 8)},
        "base": {"dim": 384, "depth": 12, "heads": 6, "patch": (2, 16, 16)},
        "videomae": {"dim": 768, "depth": 12, "heads": 12, "patch": (2, 16, 16), "positions": "index"},
    }

    def __init__(
        self,
        dim: int = 192,
        depth: int = 8,
        heads: int = 3,
        patch: tuple[int, int, int] = (2, 8, 8),
        in_channels: int = 1,
        mlp_ratio: float = 4.0,
        positions: Literal["seconds", "index"] = "seconds",
        weights: str | None = None,
    ):
        super().__init__()
        if min(patch) < 1:
            raise ValueError(f"patch must be positive, got {patch}")
        if dim % 2 or dim < 6:
            raise ValueError(f"dim must be even and at least 6, got {dim}")
        self.dim, self.patch, self.in_channels, self.kind = dim, patch, in_channels, positions
        self.embed = nn.Linear(in_channels * math.prod(patch), dim)
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        initialise(self)
        if weights is not None:
            load_videomae(self, weights)

    def grid(self, shape: Shape) -> Shape:
        """Tokens along time, rows and columns of a clip of (frames, rows, columns)."""
        t, h, w = (-(-side // step) for side, step in zip(shape, self.patch, strict=True))
        return t, h, w

    def patches(self, x: Float[Tensor, "batch channels time height width"]) -> Float[Tensor, "batch tokens values"]:
        """Raw values of every tubelet, ordered by time, row, column; the values by channel, frame, row, column.

        Raises:
            ValueError: another number of channels than the encoder was built for.
        """
        if x.shape[1] != self.in_channels:
            raise ValueError(f"clips of {x.shape[1]} channels; the encoder was built with in_channels={self.in_channels}")
        (t, h, w), (pt, ph, pw) = self.grid((x.shape[2], x.shape[3], x.shape[4])), self.patch
        x = F.pad(x, (0, w * pw - x.shape[4], 0, h * ph - x.shape[3], 0, t * pt - x.shape[2]))
        x = x.reshape(len(x), self.in_channels, t, pt, h, ph, w, pw)
        return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)

    def token_valid(self, valid: Bool[Tensor, "batch time"], shape: Shape) -> Bool[Tensor, "batch tokens"]:
        """False where all frames of a tubelet are padding."""
        t, h, w = self.grid(shape)
        frames = F.pad(valid, (0, t * self.patch[0] - valid.shape[1])).view(len(valid), t, self.patch[0]).any(2)
        return frames[:, :, None].expand(-1, -1, h * w).flatten(1)

    def positions(
        self,
        shape: Shape,
        valid: Bool[Tensor, "batch time"] | None = None,
        rate: Float[Tensor, "batch"] | None = None,
        times: Float[Tensor, "batch time"] | None = None,
        dim: int | None = None,
        device: torch.device | None = None,
    ) -> Float[Tensor, "#batch tokens positions"]:
        """What the encoder adds to the tokens of such clips; for decoders with another `dim`."""
        grid, dim = self.grid(shape), self.dim if dim is None else dim
        if self.kind == "index":
            return index_positions(grid, dim, device)[None]
        # A tubelet is as old as its first frame: padding at the end cannot move it.
        return tubelet_positions(grid, dim, clock(shape[0], valid, rate, times, device)[:, :: self.patch[0]])

    def forward(
        self,
        x: Float[Tensor, "batch channels time height width"],
        valid: Bool[Tensor, "batch time"] | None = None,
        rate: Float[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
        times: Float[Tensor, "batch time"] | None = None,
        keep: Int[Tensor, "batch kept"] | None = None,
    ) -> Encoding:
        """`pooled` is the mean of the valid tokens after the last norm; `tokens` all of them, or `keep` in its order.

        Args:
            rate: frame interval, s, NaN where unknown.
            times: of the frames, s, NaN where unknown; before `rate`.
            keep: indices of the tokens that are seen; the others never enter.

        Raises:
            ValueError: another number of channels than the encoder was built for.
        """
        shape = (x.shape[2], x.shape[3], x.shape[4])
        if valid is not None:
            x = torch.where(valid[:, None, :, None, None], x, 0.0)
        there = None if valid is None else self.token_valid(valid, shape)
        values = self.patches(x)
        place = self.positions(shape, valid, rate, times, device=x.device).expand(len(x), -1, -1)
        if keep is not None:
            values, place = (t.gather(1, keep[:, :, None].expand(-1, -1, t.shape[2])) for t in (values, place))
            there = None if there is None else there.gather(1, keep)
        tokens = self.embed(values)
        tokens = tokens + place.to(tokens.dtype)
        mask = attention_mask(there)
        for block in self.blocks:
            tokens = block(tokens, mask)
        tokens = keep_valid(self.norm(tokens), there)
        return Encoding(pooled=valid_mean(tokens, there), tokens=tokens)


def tubelet_positions(
    grid: Shape, dim: int, times: Float[Tensor, "batch time"] | None = None, device: torch.device | None = None
) -> Float[Tensor, "tokens {dim}"] | Float[Tensor, "batch tokens {dim}"]:
    """Fixed sinusoids over time, row and column, about a third of `dim` each; for decoders, too.

    Args:
        grid: tokens along time, rows and columns.
        times: of the tokens (not of the frames), s; a row that starts with NaN, and None, count tokens at the nominal interval.

    Raises:
        ValueError: `times` of another length than `grid[0]`, or odd `dim`.
    """
    if times is not None and times.shape[1] != grid[0]:
        raise ValueError(f"times of {times.shape[1]} tokens for a grid of {grid}: pass one time per tubelet")
    device = device if times is None else times.device
    rows = dim // 6 * 2
    if times is None:
        seconds = torch.arange(grid[0], device=device)[None] * NOMINAL_INTERVAL
    else:
        seconds = clock(grid[0], times.isfinite(), None, times)
    n, (t, h, w) = len(seconds), grid
    parts = [
        sinusoids(seconds, dim - 2 * rows, PERIODS)[:, :, None, None],
        sinusoids(torch.arange(h, device=device).float(), rows, SPACE_PERIODS)[None, None, :, None],
        sinusoids(torch.arange(w, device=device).float(), rows, SPACE_PERIODS)[None, None, None],
    ]
    out = torch.cat([p.expand(n, t, h, w, -1) for p in parts], dim=4).flatten(1, 3)
    return out[0] if times is None else out


def index_positions(grid: Shape, dim: int, device: torch.device | None = None) -> Float[Tensor, "tokens {dim}"]:
    """VideoMAE's sinusoids over the token number (Tong et al., NeurIPS 2022), as if frames had 14 × 14 tokens.

    Other numbers of rows and columns interpolate those of each frame; time goes on counting, so that padding changes nothing.
    """
    t, h, w = grid
    rows, columns = VIDEOMAE_GRID
    number = torch.arange(t * rows * columns, device=device, dtype=torch.float64)
    frequency = 10000 ** (-2 * torch.arange(dim // 2, device=device, dtype=torch.float64) / dim)
    angle = number[:, None] * frequency
    table = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1).float()
    if (h, w) == VIDEOMAE_GRID:
        return table
    images = table.view(t, rows, columns, dim).permute(0, 3, 1, 2)
    fitted = F.interpolate(images, size=(h, w), mode="bilinear", align_corners=False)
    return fitted.permute(0, 2, 3, 1).flatten(0, 2)
