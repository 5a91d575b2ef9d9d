"""3-D residual network for component maps (methods/network_state.md §3): any grid with sides of at least 16 voxels."""

import itertools
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.encoders.masked import Conv3d, MaskedGroupNorm, as_weight, halve, zero_invalid
from ssl4neuro.encoders.pooling import BinPool, masked_max, masked_mean
from ssl4neuro.types import Encoding

SMALLEST_SIDE = 16  # voxels; four halvings leave one


class VolumeResNet(nn.Module):
    """Encode volumes [N, channels, D, H, W] under a mask.

    `body="residual"` is ours: a stem, then residual stages that halve the grid, group norm over valid voxels, GELU, mean and
    maximum over valid voxels, a linear layer. `body="plain"` is the first author's network: six convolutions with ReLU
    and three poolings, no normalisation, one large linear layer; adaptive bins replace its hard-wired size.

    Args:
        dim: length of the output.
        channels: of the stages (residual) or of the six convolutions (plain).
        blocks: residual blocks per stage.
        stem_stride: 2 halves the grid in the stem instead of in the first stage: the same final grid at about an eighth of the
            cost, the finest level at half the resolution.
        in_channels: of the input.
        body: see above.
        bins: final grid of the plain body.
        channels_last: memory format of the features (oneDNN and cuDNN are faster with it for wide layers).
    """

    PRESETS: dict[str, dict[str, Any]] = {
        "tiny": {"dim": 64, "channels": (8, 16, 32, 48), "stem_stride": 2},
        "small": {"dim": 128, "channels": (16, 32, 64, 96), "stem_stride": 2},
        "base": {"dim": 256, "channels": (32, 64, 128, 192), "blocks": 2, "stem_stride": 2},
        "author": {"dim": 256, "channels": (32, 64, 64, 128, 256, 128), "body": "plain"},
    }

    def __init__(
        self,
        dim: int = 128,
        channels: tuple[int, ...] = (16, 32, 64, 96),
        blocks: int = 1,
        stem_stride: int = 2,
        in_channels: int = 1,
        body: Literal["residual", "plain"] = "residual",
        bins: tuple[int, int, int] = (6, 6, 5),
        channels_last: bool = False,
    ):
        super().__init__()
        if stem_stride not in (1, 2):
            raise ValueError(f"stem_stride must be 1 or 2, got {stem_stride}")
        self.dim = dim
        self.memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
        if body == "plain":
            self.body: nn.Module = _PlainBody(in_channels, channels)
            self.pool: nn.Module | None = BinPool(*bins)
            self.head: nn.Module = nn.Sequential(nn.Linear(channels[-1] * bins[0] * bins[1] * bins[2], dim), nn.ReLU())
        else:
            self.body = _ResidualBody(in_channels, channels, blocks, stem_stride)
            self.pool = None
            self.head = nn.Linear(2 * channels[-1], dim)
        self.to(memory_format=self.memory_format)

    def forward(
        self,
        x: Float[Tensor, "batch channels d h w"],
        valid: Bool[Tensor, "batch d h w"] | None = None,
        rate: Float[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
        times: Tensor | None = None,
    ) -> Encoding:
        """`levels` are the feature maps from fine to coarse, `tokens` the positions of the last.

        Raises:
            ValueError: a side below 16 voxels.
        """
        if min(x.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(f"volume of {tuple(x.shape[2:])} voxels; every side must be at least {SMALLEST_SIDE}: pad it")
        mask = as_weight(valid, x)
        x = zero_invalid(x, mask).contiguous(memory_format=self.memory_format)
        levels, mask = self.body(x, mask)
        last = levels[-1]
        if self.pool is not None:
            pooled = self.head(self.pool(last, mask).flatten(1))
        else:
            pooled = self.head(torch.cat([masked_mean(last, mask), masked_max(last, mask)], dim=1))
        return Encoding(pooled=pooled, tokens=last.flatten(2).transpose(1, 2), levels=tuple(levels))


class _ResidualBody(nn.Module):
    def __init__(self, in_channels: int, channels: tuple[int, ...], blocks: int, stem_stride: int):
        super().__init__()
        self.stem_stride = stem_stride
        self.stem = Conv3d(in_channels, channels[0], 3, stride=stem_stride, padding=1, bias=False)
        self.norm = MaskedGroupNorm(8, channels[0])
        self.stages, width = nn.ModuleList(), channels[0]
        for i, out in enumerate(channels):
            stride = 1 if i == 0 and stem_stride == 2 else 2
            self.stages.append(_Stage(width, out, blocks, stride))
            width = out

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[list[Tensor], Tensor | None]:
        mask = halve(mask, self.stem_stride)
        x = F.gelu(self.norm(self.stem(x), mask))
        levels = []
        for stage in self.stages:
            x, mask = stage(x, mask)
            levels.append(x)
        return levels, mask


class _Block(nn.Module):
    """Two 3×3×3 convolutions and a shortcut. GELU(0) = 0, so what the norms zero stays zero."""

    def __init__(self, width: int, out: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv1 = Conv3d(width, out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = MaskedGroupNorm(8, out)
        self.conv2 = Conv3d(out, out, 3, padding=1, bias=False)
        self.norm2 = MaskedGroupNorm(8, out)
        self.shortcut: Conv3d | None = None
        if stride != 1 or width != out:
            self.shortcut = Conv3d(width, out, stride, stride=stride, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        coarse = halve(mask, self.stride)
        y = F.gelu(self.norm1(self.conv1(x), coarse))
        y = self.norm2(self.conv2(y), coarse)
        if self.shortcut is not None:
            # windows of the shortcut tile the grid like those of the mask; an odd side is completed with zeros
            x = self.shortcut(F.pad(x, [p for s in reversed(x.shape[2:]) for p in (0, -s % self.stride)]))
        return F.gelu(x + y), coarse


class _Stage(nn.Module):
    def __init__(self, width: int, out: int, blocks: int, stride: int):
        super().__init__()
        rest = [_Block(out, out, 1) for _ in range(blocks - 1)]
        self.blocks = nn.ModuleList([_Block(width, out, stride), *rest])

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        for block in self.blocks:
            x, mask = block(x, mask)
        return x, mask


class _PlainBody(nn.Module):
    def __init__(self, in_channels: int, channels: tuple[int, ...]):
        super().__init__()
        widths = (in_channels, *channels)
        self.convs = nn.ModuleList(Conv3d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[list[Tensor], Tensor | None]:
        levels = []
        for i, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            x = x if mask is None else x * mask.to(x.dtype)
            if i % 2 == 1:
                x, mask = F.max_pool3d(x, 2, ceil_mode=True), halve(mask)
                levels.append(x)
        return levels, mask
