"""From one feature map per frame to one per clip, F -> F̂ (methods/mvo.md §3, "Temporal convolution")."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

Temporal = Literal["depthwise", "shared_stack", "attn_pool"]

KERNELS = {5: (5,), 10: (5, 2), 15: (5, 3), 20: (5, 4), 30: (5, 3, 2)}  # of the shared stack, by the number of frames
HIDDEN = (2, 5, 10, 20, 40)  # its channels at levels 1 to 5


def temporal_reduction(kind: Temporal, channels: int, frames: int, level: int) -> nn.Module:
    """The reduction of one level, 1 to 5. Each is called with maps [N, T, C, H, W] and the valid frames [N, T].

    Raises:
        ValueError: a shared stack for a number of frames that it has no kernels for.
    """
    if kind == "depthwise":
        return DepthwiseReduction(channels, frames)
    if kind == "shared_stack":
        return SharedStack(frames, HIDDEN[level - 1])
    return FirstFramePool(channels)


def frame_weights(valid: Bool[Tensor, "batch time"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "batch time"]:
    """Weights of a mean over the valid frames: 0 at the others, and everywhere in a clip that has none."""
    return valid.to(dtype) / valid.sum(1, keepdim=True).clamp_min(1)


class DepthwiseReduction(nn.Module):
    """One weight per channel and frame, a mean at the start. Where frames are missing the rest is scaled up to their number."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, frames), 1 / frames))

    def forward(
        self, maps: Float[Tensor, "batch time channels height width"], valid: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch channels height width"]:
        frames = self.weight.shape[1]
        weight = self.weight.T * (frames * frame_weights(valid))[:, :, None]
        return (maps * weight.to(maps.dtype)[..., None, None]).sum(1)


class SharedStack(nn.Module):
    """Convolutions along time with stride = kernel, the same for every channel, and the mean over hidden channels.

    Frames that are not valid count as zeros.
    """

    def __init__(self, frames: int, hidden: int):
        super().__init__()
        if frames not in KERNELS:
            raise ValueError(f"temporal 'shared_stack' has kernels for {', '.join(map(str, KERNELS))} frames, got {frames}")
        layers: list[nn.Module] = []
        width = 1
        for kernel in KERNELS[frames]:
            layers += [nn.Conv3d(width, hidden, (kernel, 1, 1), stride=(kernel, 1, 1)), nn.ReLU()]
            width = hidden
        self.stack = nn.Sequential(*layers)

    def forward(
        self, maps: Float[Tensor, "batch time channels height width"], valid: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch channels height width"]:
        maps = maps * valid.to(maps.dtype)[:, :, None, None, None]
        folded = maps.transpose(1, 2).flatten(0, 1)[:, None]  # every channel is a sample of one channel
        return self.stack(folded).mean(1)[:, 0].unflatten(0, (len(maps), -1))


class FirstFramePool(nn.Module):
    """At each position the first frame, which is to be segmented, weighs all frames by what they show there; any number.

    Logits are scaled products of projected features, with a learnt preference for the first frame itself.
    """

    def __init__(self, channels: int, dim: int = 32):
        super().__init__()
        self.scale = min(channels, dim) ** -0.5
        self.query = nn.Conv2d(channels, min(channels, dim), 1)
        self.key = nn.Conv2d(channels, min(channels, dim), 1, bias=False)  # a bias would be the same for all frames
        self.first = nn.Parameter(torch.zeros(()))

    def forward(
        self, maps: Float[Tensor, "batch time channels height width"], valid: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch channels height width"]:
        query = self.query(maps[:, 0])[:, None] * self.scale
        logits = (query * self.key(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])).sum(2).float()
        logits = torch.cat([logits[:, :1] + self.first, logits[:, 1:]], 1)
        there = valid[:, :, None, None]
        weight = logits.masked_fill(~there, -1e4).softmax(1) * there  # finite, so that a clip without frames is no NaN
        return (maps * weight.to(maps.dtype)[:, :, None]).sum(1)
