"""1-D convolutional network for one component's time course (methods/network_state.md §3): any length from 32 volumes."""

import itertools
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.encoders.masked import MaskedGroupNorm, as_weight, halve, masked_halving, zero_invalid
from ssl4neuro.encoders.pooling import AttentionPool, BinPool
from ssl4neuro.encoders.spectrum import SpectrumBranch
from ssl4neuro.types import Encoding

SHORTEST_COURSE = 32  # volumes


class CourseConv(nn.Module):
    """Encode courses [N, T], each by itself.

    `body="dilated"` is ours: dilated convolutions with group norm over valid time points, a halving after each layer
    but the last, attention pooling; beside it the log-power spectrum in bands in Hz. `body="plain"` is the first author's
    network: two convolutions with ReLU and pooling, one large linear layer; adaptive bins replace its fixed length of 590.

    Args:
        dim: length of the output.
        channels: of the layers.
        kernel: length of the convolutions.
        heads: of the attention pooling; must divide the last of `channels`.
        bands: of the spectrum branch between 0.008 and 0.25 Hz; 0 leaves the branch out.
        spectrum_dim: length of the spectrum branch's output.
        body: see above.
        bins: final length of the plain body.
    """

    PRESETS: dict[str, dict[str, Any]] = {
        "tiny": {"dim": 64, "channels": (16, 32, 32, 48), "spectrum_dim": 32},
        "small": {"dim": 128, "channels": (32, 64, 64, 96)},
        "base": {"dim": 256, "channels": (64, 128, 128, 192), "spectrum_dim": 128},
        "author": {"dim": 128, "channels": (32, 64), "kernel": 3, "bands": 0, "body": "plain"},
    }

    def __init__(
        self,
        dim: int = 128,
        channels: tuple[int, ...] = (32, 64, 64, 96),
        kernel: int = 7,
        heads: int = 4,
        bands: int = 32,
        spectrum_dim: int = 64,
        body: Literal["dilated", "plain"] = "dilated",
        bins: int = 147,
    ):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        self.dim = dim
        if body == "plain":
            self.body: nn.Module = _PlainBody(channels, kernel)
            self.pool: nn.Module = BinPool(bins)
            width = channels[-1] * bins
        else:
            self.body = _DilatedBody(channels, kernel)
            self.pool = AttentionPool(channels[-1], heads)
            width = channels[-1]
        self.spectrum = SpectrumBranch(spectrum_dim, bands) if bands else None
        head = nn.Linear(width + (spectrum_dim if bands else 0), dim)
        self.head = nn.Sequential(head, nn.ReLU()) if body == "plain" else head

    def forward(
        self,
        x: Float[Tensor, "batch time"],
        valid: Bool[Tensor, "batch time"] | None = None,
        rate: Float[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
        times: Tensor | None = None,
    ) -> Encoding:
        """`rate` is the repetition time (s, NaN where unknown); `levels` are the feature maps, `tokens` the last one.

        Raises:
            ValueError: fewer than 32 time points.
        """
        if x.shape[1] < SHORTEST_COURSE:
            raise ValueError(f"courses of {x.shape[1]} volumes; at least {SHORTEST_COURSE} are needed")
        valid = torch.ones_like(x, dtype=torch.bool) if valid is None else valid
        mask = as_weight(valid, x)
        levels, mask = self.body(zero_invalid(x[:, None], mask), mask)
        features = self.pool(levels[-1], mask).flatten(1)
        if self.spectrum is not None:
            features = torch.cat([features, self.spectrum(x, valid, rate).to(features.dtype)], dim=1)
        return Encoding(pooled=self.head(features), tokens=levels[-1].transpose(1, 2), levels=tuple(levels))


class _DilatedBody(nn.Module):
    def __init__(self, channels: tuple[int, ...], kernel: int):
        super().__init__()
        widths = (1, *channels)
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            dilation = 2**i
            self.convs.append(nn.Conv1d(a, b, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False))
            self.norms.append(MaskedGroupNorm(8, b))

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[list[Tensor], Tensor | None]:
        levels: list[Tensor] = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            if levels:
                x, mask = masked_halving(x, mask)
            x = F.gelu(norm(conv(x), mask))
            levels.append(x)
        return levels, mask


class _PlainBody(nn.Module):
    def __init__(self, channels: tuple[int, ...], kernel: int):
        super().__init__()
        widths = (1, *channels)
        self.convs = nn.ModuleList(nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[list[Tensor], Tensor | None]:
        levels = []
        for conv in self.convs:
            x = F.relu(conv(x))
            x = x if mask is None else x * mask.to(x.dtype)
            x, mask = F.max_pool1d(x, 2, ceil_mode=True), halve(mask)
            levels.append(x)
        return levels, mask
