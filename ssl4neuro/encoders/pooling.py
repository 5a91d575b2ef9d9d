"""From feature maps to one vector, over valid positions only."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def masked_mean(
    x: Float[Tensor, "batch channels *space"], mask: Float[Tensor, "batch 1 *space"] | None
) -> Float[Tensor, "batch channels"]:
    """Mean over valid positions; 0 where there is none. `x` is 0 at invalid positions."""
    if mask is None:
        return x.flatten(2).mean(2)
    return x.flatten(2).sum(2) / mask.flatten(2).sum(2).clamp_min(1).to(x.dtype)


def masked_max(
    x: Float[Tensor, "batch channels *space"], mask: Float[Tensor, "batch 1 *space"] | None
) -> Float[Tensor, "batch channels"]:
    """Maximum over valid positions; 0 where there is none."""
    if mask is None:
        return x.flatten(2).amax(2)
    best = x.masked_fill(mask == 0, -torch.inf).flatten(2).amax(2)
    return torch.where(best == -torch.inf, 0.0, best)


class AttentionPool(nn.Module):
    """Multi-head attention pooling over time: each head weights the positions for its share of the channels.

    Logits come from a two-layer network (Ilse et al., ICML 2018), softmax over valid positions.
    """

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels ({channels}) must be a multiple of heads ({heads})")
        self.heads = heads
        self.score = nn.Sequential(
            nn.Conv1d(channels, channels // 2, 1), nn.Tanh(), nn.Conv1d(channels // 2, heads, 1, bias=False)
        )

    def forward(
        self, x: Float[Tensor, "batch channels time"], mask: Float[Tensor, "batch 1 time"] | None = None
    ) -> Float[Tensor, "batch channels"]:
        """0 where nothing is valid."""
        logits = self.score(x).float()
        if mask is not None:
            logits = logits.masked_fill(mask == 0, -1e4)  # finite, so that a row without valid positions is no NaN
        weight = logits.softmax(2).to(x.dtype)
        if mask is not None:
            weight = weight * mask.to(x.dtype)
        return torch.einsum("nht,nhct->nhc", weight, x.unflatten(1, (self.heads, -1))).flatten(1)


class BinPool(nn.Module):
    """Adaptive average pooling to a fixed number of bins along each axis of the box around the valid positions.

    Equal to `adaptive_avg_pool` where everything is valid; padding moves no bin: they divide the box, not the array.
    """

    def __init__(self, *bins: int):
        super().__init__()
        self.bins = bins

    def forward(
        self, x: Float[Tensor, "batch channels *space"], mask: Float[Tensor, "batch 1 *space"] | None = None
    ) -> Float[Tensor, "batch channels *bins"]:
        """Means over the valid positions of each bin, 0 where it has none."""
        if mask is None:
            mask = x.new_ones(len(x), 1, *x.shape[2:])
        total, count = x, mask.to(x.dtype)
        for axis, bins in enumerate(self.bins):
            others = tuple(a for a in range(1, mask.ndim) if a != axis + 2)
            member = _bin_members(mask.amax(others) > 0, bins).to(x.dtype)
            total = torch.einsum("nb...i,nki->nb...k", total.movedim(axis + 2, -1), member).movedim(-1, axis + 2)
            count = torch.einsum("nb...i,nki->nb...k", count.movedim(axis + 2, -1), member).movedim(-1, axis + 2)
        return total / count.clamp_min(1)


def _bin_members(occupied: Bool[Tensor, "batch size"], bins: int) -> Bool[Tensor, "batch bins size"]:
    """Which positions belong to which bin from the first to the last occupied one (torch's rule; bins may overlap)."""
    position = torch.arange(occupied.shape[1], device=occupied.device)
    last = (occupied * (position + 1)).amax(1)  # exclusive
    first = torch.where(occupied, position, occupied.shape[1]).amin(1).clamp_max(last)
    length = (last - first)[:, None]
    index = torch.arange(bins, device=occupied.device)
    start = first[:, None] + index * length // bins
    end = first[:, None] + ((index + 1) * length + bins - 1) // bins
    return (position >= start[:, :, None]) & (position < end[:, :, None])
