"""From a raw sequence to what BioVidNet reads: normalise, smooth in time, resize, three channels (methods/biovidnet.md §2)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ssl4neuro.heads.biovidnet.frames import everything, positions

FLOOR = 1e-6  # least standard deviation


@dataclass(frozen=True)
class PreprocessConfig:
    """Switches of the preprocessing; the defaults are the paper's order and sizes."""

    normalise: Literal["sequence", "pixel_time", "constants", "none"] = "sequence"
    mean: float = 0.0  # of `constants`, which keep what a sequence amounts to: fixed numbers of the training set
    spread: float = 1.0
    smooth: bool = True
    sigma: float = 1.2  # frames
    size: int | None = 128  # pixels; None keeps the size
    channels: int = 3


def preprocess(
    x: Float[Tensor, "batch time channels height width"],
    config: PreprocessConfig = PreprocessConfig(),
    valid: Bool[Tensor, "batch time"] | None = None,
    times: Float[Tensor, "batch time"] | None = None,
    median: float = 1.0,
) -> Float[Tensor, "batch time colours rows columns"]:
    """The sequences, contiguous float32; frames that are not valid are 0.

    Args:
        times: s; where intervals differ, the smoothing weights frames by their distance in units of `median` (s).

    Raises:
        ValueError: channels that cannot be replicated to `config.channels`.
    """
    there = everything(x, valid)
    if x.shape[2] not in (1, config.channels):
        raise ValueError(
            f"{x.shape[2]} channels cannot become {config.channels}: give grey or {config.channels}-channel frames"
        )
    x = _normalised(x.float(), there, config)
    if config.smooth and x.shape[1] >= 3:
        x = smooth_in_time(x, config.sigma, there, times, median)
    x = x * there[:, :, None, None, None]
    if config.size is not None and x.shape[3:] != (config.size, config.size):
        shrinks = min(x.shape[3:]) > config.size
        flat = F.interpolate(x.flatten(0, 1), (config.size, config.size), mode="bilinear", antialias=shrinks)
        x = flat.unflatten(0, x.shape[:2])
    return x.expand(-1, -1, config.channels, -1, -1).contiguous()  # last: the work before is done once for grey frames


def _normalised(x: Tensor, there: Tensor, config: PreprocessConfig) -> Tensor:
    if config.normalise == "none":
        return x
    if config.normalise == "constants":
        return (x - config.mean) / max(config.spread, FLOOR)
    axes = (1, 3, 4) if config.normalise == "sequence" else (1,)
    weight = there[:, :, None, None, None].to(x.dtype).expand(x.shape)
    count = weight.sum(axes, keepdim=True).clamp_min(1)
    mean = (x * weight).sum(axes, keepdim=True) / count
    variance = ((x - mean).square() * weight).sum(axes, keepdim=True) / count
    return (x - mean) / variance.sqrt().clamp_min(FLOOR)


def smooth_in_time(
    x: Float[Tensor, "batch time *pixels"],
    sigma: float = 1.2,
    valid: Bool[Tensor, "batch time"] | None = None,
    times: Float[Tensor, "batch time"] | None = None,
    median: float = 1.0,
) -> Float[Tensor, "batch time *pixels"]:
    """Three taps of a Gaussian in time, reflected at the ends, 0.2928, 0.4144, 0.2928 on an even grid.

    Half amplitude at 0.227 cycles per frame, zero at 0.375, and a negative lobe to -0.171 at the highest frequency, whose
    phase it turns round; the standard deviation of white noise falls to 0.586. Neighbours that are not valid have no weight.
    """
    there = everything(x, valid)
    clock = positions(times, there, median)
    last = x.shape[1] - 1
    number = torch.arange(x.shape[1], device=x.device)
    total, weights = x.clone(), torch.ones_like(clock)
    for neighbour in ((number - 1).abs(), last - (last - number - 1).abs()):  # reflected without repeating the edge
        distance = clock[:, neighbour] - clock
        weight = torch.exp(-(distance**2) / (2 * sigma**2)) * there[:, neighbour]
        total = total + x[:, neighbour] * _over_pixels(weight, x)
        weights = weights + weight
    return total / _over_pixels(weights, x)


def _over_pixels(weight: Tensor, x: Tensor) -> Tensor:
    return weight.reshape(*weight.shape, *(1,) * (x.ndim - 2)).to(x.dtype)


def taps(sigma: float = 1.2) -> tuple[float, float, float]:
    """The three weights on an even grid."""
    side = math.exp(-1 / (2 * sigma**2))
    return side / (1 + 2 * side), 1 / (1 + 2 * side), side / (1 + 2 * side)
