"""Maps of three scales mixed by gates that see the picture and the context (methods/biovidnet.md §6, figure 2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ScaleFusion(nn.Module):
    """One vector per frame from low, mid and high maps: s_t.

    Gates sum to 1 over the scales in every channel, and are equal at initialisation.

    Args:
        widths: channels of the maps.
        dim: of the projections and of s_t; a multiple of 8.
        context: features of the context vector.
        side: rows and columns to which the maps are brought.
        gated: False mixes the scales equally.
    """

    def __init__(self, widths: Sequence[int], dim: int = 128, context: int = 64, side: int = 16, gated: bool = True) -> None:
        super().__init__()
        self.side, self.scales, self.gated = side, len(widths), gated
        self.project = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in widths)
        self.gate = nn.Sequential(nn.Linear(dim * len(widths) + context, dim), nn.GELU(), nn.Linear(dim, dim * len(widths)))
        nn.init.zeros_(self.gate[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.gate[2].bias)  # type: ignore[arg-type]
        # group norm: batch statistics of few frames are noise, and let frames of the future into those before
        self.mix = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GroupNorm(8, dim), nn.GELU())

    def forward(
        self, levels: Sequence[Float[Tensor, "frames _ _ _"]], context: Float[Tensor, "frames context"]
    ) -> tuple[Float[Tensor, "frames dim"], Float[Tensor, "frames scales dim"]]:
        """s_t of every frame, and its gates."""
        maps = [
            F.interpolate(project(level), (self.side, self.side), mode="bilinear", align_corners=False)
            for project, level in zip(self.project, levels, strict=True)
        ]
        pooled = [m.mean((2, 3)) for m in maps]
        if self.gated:
            gates = self.gate(torch.cat([*pooled, context], 1)).unflatten(1, (self.scales, -1)).softmax(1)
        else:
            gates = maps[0].new_full((len(context), self.scales, maps[0].shape[1]), 1 / self.scales)
        fused = sum(gates[:, i, :, None, None] * m for i, m in enumerate(maps))
        return self.mix(fused).mean((2, 3)), gates
