"""Layers that see valid positions only: padding, and voxels outside the mask, must not shift any statistic.

The convention throughout the encoders: features at invalid positions are 0 after every layer. A convolution then sees the
same zeros whether a position is padding, lies outside the mask, or beyond the border of the array, so that padding a sample
changes nothing at its valid positions.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn


class MaskedGroupNorm(nn.Module):
    """Group normalisation (Wu & He, ECCV 2018) with statistics over valid positions; invalid ones come out as 0.

    Equal to `nn.GroupNorm` where everything is valid. Statistics are float32 under autocast. A sample without any valid
    position comes out as 0.

    Args:
        groups: lowered to the largest divisor of `channels` that is not above it.
    """

    def __init__(self, groups: int, channels: int, eps: float = 1e-5):
        super().__init__()
        self.groups = max(g for g in range(1, groups + 1) if channels % g == 0)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "batch channels *space"], mask: Float[Tensor, "batch 1 *space"] | None = None
    ) -> Float[Tensor, "batch channels *space"]:
        """`mask` is 1 where valid, 0 elsewhere; None means that everything is."""
        if mask is None:
            return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)
        mask = mask.to(x.dtype)
        x = x * mask
        split = x.unflatten(1, (self.groups, -1))
        axes = tuple(range(2, split.ndim))
        total = split[0, 0].numel()
        wide = torch.promote_types(x.dtype, torch.float32)
        # One fused pass over all positions, then the zeros of the invalid ones are taken out of both moments.
        with torch.autocast(x.device.type, enabled=False):
            variance, mean = torch.var_mean(split.to(wide), dim=axes, correction=0)
            share = mask.to(wide).flatten(1).mean(1)[:, None].clamp_min(1 / total)  # of the positions, valid
            valid_mean = mean / share
            valid_variance = (variance + mean.square()) / share - valid_mean.square()
            rstd = (valid_variance.clamp_min(0) + self.eps).rsqrt()
            per_channel = x.shape[1] // self.groups
            scale = rstd.repeat_interleave(per_channel, 1) * self.weight
            shift = self.bias - valid_mean.repeat_interleave(per_channel, 1) * scale
        shape = scale.shape + (1,) * (x.ndim - 2)
        return torch.addcmul(shift.view(shape).to(x.dtype) * mask, x, scale.view(shape).to(x.dtype))


class Conv3d(nn.Conv3d):
    """`nn.Conv3d`, in float32 on the last few voxels of a CPU autocast.

    oneDNN's bfloat16 weight gradient reads uninitialised memory where a side has 2 voxels: NaN in up to half of the trials with
    torch 2.15, which any small grid reaches after three halvings. These maps cost next to nothing in float32.
    """

    def forward(self, x: Float[Tensor, "batch channels d h w"]) -> Float[Tensor, "batch out_channels e i j"]:
        """As `nn.Conv3d`."""
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and min(x.shape[2:]) <= 4:
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


def as_weight(valid: Bool[Tensor, "batch *space"] | None, like: Tensor) -> Float[Tensor, "batch 1 *space"] | None:
    """The mask as 1 and 0 with a channel axis, in the type of `like`."""
    return None if valid is None else valid[:, None].to(like.dtype)


def halve(mask: Float[Tensor, "batch 1 *space"] | None, stride: int = 2) -> Float[Tensor, "batch 1 *coarse"] | None:
    """The mask at the resolution of a strided convolution (odd kernel, symmetric padding): valid where any of its window is.

    Windows do not overlap, so that padding at the end, or by a multiple of the stride at the start, adds only invalid ones.
    """
    if mask is None or stride == 1:
        return mask
    pool = F.max_pool1d if mask.ndim == 3 else F.max_pool3d
    return pool(mask, stride, ceil_mode=True)


def masked_halving(
    x: Float[Tensor, "batch channels time"], mask: Float[Tensor, "batch 1 time"] | None
) -> tuple[Float[Tensor, "batch channels half"], Float[Tensor, "batch 1 half"] | None]:
    """Mean of each pair of time points over the valid ones, and the mask of pairs with any."""
    if mask is None:
        mask = x.new_ones(len(x), 1, x.shape[2])
    odd = x.shape[2] % 2
    x, mask = F.pad(x, (0, odd)), F.pad(mask, (0, odd))
    count = F.avg_pool1d(mask, 2) * 2
    return F.avg_pool1d(x, 2) * 2 / count.clamp_min(1), (count > 0).to(x.dtype)


def zero_invalid(
    x: Shaped[Tensor, "batch channels *space"], mask: Float[Tensor, "batch 1 *space"] | None
) -> Shaped[Tensor, "batch channels *space"]:
    """`x` with invalid positions set to 0 (and NaN or inf there removed)."""
    return x if mask is None else torch.where(mask > 0, x, 0.0)
