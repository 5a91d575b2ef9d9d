"""Brightness of clips: how they are normalised, what changes it at random, and the motion stream of residual frames.

Random changes are the same for all frames of a clip, or they would look like motion. Statistics of a row are extremes or
sums in double precision over its own valid frames, so padding and the other rows of a batch leave its bits alone.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl4neuro.augment.clip_frames import Clips, pick
from ssl4neuro.augment.keyed import Keyed, expand

Params = dict[str, Tensor]
Normalisation = Literal["zscore", "percentile", "minmax", "biovidnet", "none"]
FLOOR = 1e-6  # least standard deviation or range that is divided by
LOW, HIGH = 0.01, 0.99  # quantiles that become 0 and 1
CACHED = 1 << 17  # pixels treated at once on the CPU, so that what comes between stays in its cache
LEVELS = 2048  # of the tone curve's table
SAMPLE = 16381  # pixels that quantiles are taken of; prime, so that the step through a clip meets all columns
KERNEL_VARIANCE = 1.2**2  # frames²; methods/biovidnet.md §2


@dataclass(frozen=True)
class Intensity:
    """Changes of brightness, one for all frames of a clip. Units are those of the clip (standard deviations after `zscore`).

    Args:
        gamma: exponent of the tone curve between the clip's extremes: 1 + g or 1 / (1 + g), g uniform in [0, this].
        contrast: factor about the middle of the clip's range, uniform in 1 ± this.
        brightness: uniform in ± this, added.
        bias: multiplicative shading 1 + a polynomial of second order over the frame, each coefficient uniform in ± this.
        noise_sd: standard deviation of white noise.
        blur: standard deviation of a Gaussian-like kernel in the plane, uniform in [0, this], pixels; at most 0.7.
        cutout: side of one rectangle of the clip's lowest value, as a share of height and width.
    """

    gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    bias: float = 0.0
    noise_sd: float = 0.0
    blur: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        if min(self.gamma, self.brightness, self.noise_sd) < 0:
            raise ValueError("gamma, brightness and noise_sd must not be negative")
        if not 0 <= self.contrast < 1 or not 0 <= self.bias < 0.2:
            raise ValueError(f"contrast must lie in [0, 1) and bias in [0, 0.2), got {self.contrast}, {self.bias}")
        if not 0 <= self.blur <= 0.7:
            raise ValueError(f"blur must lie in 0..0.7 (a three-point kernel), got {self.blur}")
        if not 0 <= self.cutout < 1:
            raise ValueError(f"cutout must lie in [0, 1) (share of the side), got {self.cutout}")

    def draw(self, keyed: Keyed, shape: tuple[int, int, int, int]) -> Params:
        """Parameters for clips of `shape` (frames, channels, height, width); a step that is off has no entry.

        gamma, contrast, brightness [n]; bias [n, 5]: of y, x, y², xy, x²; noise [n, *shape]; blur [n]: weight of each
        neighbour; cutout [n, 2]: first row and column; side [2].
        """
        params: Params = {}
        if self.gamma:
            g = keyed.uniform("clip.gamma", (), -self.gamma, self.gamma)
            params["gamma"] = torch.where(g > 0, 1 + g, 1 / (1 - g))
        if self.contrast:
            params["contrast"] = keyed.uniform("clip.contrast", (), 1 - self.contrast, 1 + self.contrast)
        if self.brightness:
            params["brightness"] = keyed.uniform("clip.brightness", (), -self.brightness, self.brightness)
        if self.bias:
            params["bias"] = keyed.uniform("clip.bias", (5,), -self.bias, self.bias)
        if self.noise_sd:
            params["noise"] = keyed.normal("clip.noise", shape).mul_(self.noise_sd)
        if self.blur:
            params["blur"] = keyed.uniform("clip.blur", (), 0.0, self.blur).square() / 2  # variance of the kernel is 2w
        if self.cutout:
            side = torch.tensor([max(1, round(self.cutout * size)) for size in shape[2:]], device=keyed.device)
            room = torch.tensor(shape[2:], device=keyed.device) - side + 1
            params["cutout"], params["side"] = keyed.integers("clip.cutout", (2,), 0, room), side
        return params

    def apply(
        self,
        x: Float[Tensor, "n time channels height width"],
        low: Float[Tensor, "n"],
        high: Float[Tensor, "n"],
        params: Params,
    ) -> Float[Tensor, "n time channels height width"]:
        """The frames under `params`; `low` and `high` are the extremes of each clip.

        `x` is overwritten. Where `relative(params)`, it holds what each clip has above `low`.
        """
        span = high - low
        if "blur" in params:
            _blur(x, params["blur"])
        if "gamma" in params:
            x = _tone(x, span, params["gamma"])
        if "bias" in params:
            x.mul_(shading(params["bias"], (x.shape[-2], x.shape[-1]))[:, None, None])
        rise = low if relative(params) else torch.zeros_like(low)
        if "contrast" in params:
            x.mul_(expand(params["contrast"], x.ndim))
            rise = rise + span / 2 * (1 - params["contrast"])
        if "brightness" in params:
            rise = rise + params["brightness"]
        if relative(params) or "brightness" in params:
            x.add_(expand(rise, x.ndim))
        if "noise" in params:
            x.add_(params["noise"])
        if "cutout" in params:
            hidden = _rectangle(params["cutout"], params["side"], (x.shape[-2], x.shape[-1]))
            x = torch.where(hidden[:, None, None], expand(low, x.ndim), x)
        return x


def relative(params: Params) -> bool:
    """Is there a step for which the lowest value of a clip is the zero? Adding it back costs the last bit."""
    return not params.keys().isdisjoint({"matrix", "blur", "gamma", "bias", "contrast"})


def extremes(x: Float[Tensor, "n time ..."], valid: Bool[Tensor, "n time"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Least and greatest value of each clip's valid frames; 0 for a clip without any."""
    flat = x.flatten(2)
    low = flat.amin(2).masked_fill_(~valid, torch.inf).amin(1)
    high = flat.amax(2).masked_fill_(~valid, -torch.inf).amax(1)
    empty = ~valid.any(1)
    return low.masked_fill_(empty, 0), high.masked_fill_(empty, 0)


def shading(coefficients: Float[Tensor, "n 5"], shape: tuple[int, int]) -> Float[Tensor, "n height width"]:
    """1 + a y + b x + c y² + d xy + e x², with x and y from -1 to 1 across the frame."""
    y = torch.linspace(-1, 1, shape[0], device=coefficients.device, dtype=torch.float64).float()[:, None]
    x = torch.linspace(-1, 1, shape[1], device=coefficients.device, dtype=torch.float64).float()
    a, b, c, d, e = (coefficients[:, i, None, None] for i in range(5))
    return 1 + a * y + b * x + c * (y * y) + d * (y * x) + e * (x * x)


def _tone(x: Tensor, span: Float[Tensor, "n"], gamma: Float[Tensor, "n"]) -> Tensor:
    """Power of values from 0 to `span`, by straight lines between `LEVELS` levels; `x` is overwritten.

    Faster than a power of every pixel, and the same whatever the batch: the last bit of float's power differs with the place
    in a vector register, and that of double's, in the table, is rounded away.
    """
    level = torch.arange(LEVELS + 2, device=x.device, dtype=torch.float64).clamp_max(LEVELS) / LEVELS
    table = (level ** gamma.double()[:, None]).float() * span[:, None]
    rise = torch.cat([table.diff(dim=1), torch.zeros_like(table[:, :1])], 1)
    scale = LEVELS / span.clamp_min(FLOOR)
    first = torch.arange(len(x), device=x.device, dtype=torch.int32) * table.shape[1]
    table, rise = table.view(-1), rise.view(-1)
    block = max(1, CACHED // max(1, x[0].numel())) if x.device.type == "cpu" else len(x)
    for start in range(0, len(x), block):
        part = x[start : start + block]
        part.mul_(expand(scale[start : start + block], x.ndim)).clamp_(0, LEVELS)
        whole = part.floor()
        part.sub_(whole)
        index = whole.nan_to_num_(nan=0.0).to(torch.int32).add_(expand(first[start : start + block], x.ndim)).view(-1)
        part.mul_(rise.index_select(0, index).view(part.shape)).add_(table.index_select(0, index).view(part.shape))
    return x


def _blur(x: Tensor, weight: Float[Tensor, "n"]) -> None:
    """Three-point kernel [w, 1 - 2w, w] along rows and columns, in place; the edge is repeated."""
    w = expand(weight, x.ndim)
    for axis in (-2, -1):
        size = x.shape[axis]
        side = x * w
        x.mul_(1 - 2 * w)
        x.narrow(axis, 1, size - 1).add_(side.narrow(axis, 0, size - 1))
        x.narrow(axis, 0, size - 1).add_(side.narrow(axis, 1, size - 1))
        for edge in (0, size - 1):
            x.narrow(axis, edge, 1).add_(side.narrow(axis, edge, 1))


def _rectangle(first: Int[Tensor, "n 2"], side: Int[Tensor, "2"], shape: tuple[int, int]) -> Bool[Tensor, "n height width"]:
    inside = []
    for axis, size in enumerate(shape):
        index = torch.arange(size, device=first.device)
        inside.append((index >= first[:, axis, None]) & (index < first[:, axis, None] + side[axis]))
    return inside[0][:, :, None] & inside[1][:, None, :]


def normalise_clips(clips: Clips, how: Normalisation) -> Clips:
    """Every clip and channel on a common scale, by the valid frames and all their pixels. Padding is neither used nor changed.

    Args:
        clips: raw values.
        how: `zscore`: mean 0, standard deviation 1. `minmax`: 0 to 1. `percentile`: 1st and 99th percentile to 0 and 1, clamped
            (of about 16,000 pixels spread evenly over longer clips). `biovidnet`: z-scored with floor 1e-6, then
            smoothed in time (methods/biovidnet.md §2). `none`: as they are. A clip without variance becomes 0.
    """
    if how == "none":
        return clips
    if how not in ("zscore", "percentile", "minmax", "biovidnet"):
        raise ValueError(f"normalisation must be zscore, percentile, minmax, biovidnet or none, got {how}")
    there = clips.valid[:, None, :, None, None]
    x = clips.x.masked_fill(~there, 0)
    if how in ("zscore", "biovidnet"):
        x = _standardised(x, there)
    else:
        low, high = _quantiles(clips, LOW, HIGH) if how == "percentile" else _range(clips)
        x = (x - low) / (high - low).clamp_min(FLOOR)
        x = x.clamp_(0, 1) if how == "percentile" else x
    if how == "biovidnet":
        x = _smoothed(x, clips.valid.sum(1), clips.times)
    return clips._replace(x=torch.where(there, x, clips.x))


def _standardised(x: Tensor, there: Tensor) -> Tensor:
    """`x` is 0 in padding."""
    count = (there.sum((1, 2, 3, 4), keepdim=True) * x.shape[3] * x.shape[4]).clamp_min(1)
    mean = x.sum((2, 3, 4), keepdim=True, dtype=torch.float64) / count
    x = (x - mean.to(x.dtype)).masked_fill_(~there, 0)
    variance = x.square().sum((2, 3, 4), keepdim=True, dtype=torch.float64) / count
    return x / variance.sqrt().clamp_min(FLOOR).to(x.dtype)


def _range(clips: Clips) -> tuple[Tensor, Tensor]:
    """Extremes of each row and channel, [n, channels, 1, 1, 1]."""
    each = [extremes(clips.x[:, channel], clips.valid) for channel in range(clips.x.shape[1])]
    low, high = (torch.stack(values, 1)[:, :, None, None, None] for values in zip(*each, strict=True))
    return low, high


def _quantiles(clips: Clips, *shares: float) -> tuple[Tensor, ...]:
    """Quantiles of each row and channel, [n, channels, 1, 1, 1], linear between order statistics."""
    n, channels, _, height, width = clips.x.shape
    pixels = clips.valid.sum(1)[:, None] * (height * width)  # valid frames come first, so their pixels do
    count = pixels.clamp(1, SAMPLE)
    number = torch.arange(SAMPLE, device=pixels.device)
    index = (number * pixels // count).clamp_max(clips.x[0, 0].numel() - 1)
    sample = clips.x.flatten(2).gather(2, index[:, None].expand(n, channels, SAMPLE))
    ordered = sample.masked_fill_((number >= count)[:, None], torch.inf).sort(2).values
    found = []
    for share in shares:
        place = (count - 1) * share
        lower = place.floor().long()
        part = (place - lower)[:, None].to(sample.dtype)
        below, above = (
            ordered.gather(2, at.clamp_max(SAMPLE - 1)[:, None].expand(n, channels, 1))
            for at in (lower, torch.minimum(lower + 1, count - 1))
        )
        found.append((below + (above - below) * part)[..., None, None])
    return tuple(found)


def temporal_taps(
    length: Int[Tensor, "n"], times: Float[Tensor, "n time"]
) -> tuple[Float[Tensor, "n time"], Float[Tensor, "n time"]]:
    """Weights of the frames before and after each one (the rest is its own): 0.2928 at equal or unknown intervals.

    exp(-D² / 2σ²) with σ = 1.2 and D the interval in units of the clip's median one, normalised; at either end both
    neighbours are the same frame (reflection).
    """
    number = torch.arange(times.shape[1], device=times.device)
    gap = times.double().diff(dim=1)
    gap = gap.masked_fill_(number[1:] >= length[:, None], torch.nan)
    gap = (gap / gap.nanmedian(1, keepdim=True).values).nan_to_num(nan=1.0) if gap.shape[1] else gap
    weight = torch.exp(-gap.square() / (2 * KERNEL_VARIANCE))
    edge = weight.new_zeros(len(weight), 1)
    before, after = torch.cat([edge, weight], 1), torch.cat([weight, edge], 1)
    before = torch.where(number == 0, after, before)
    after = torch.where(number == length[:, None] - 1, before, after)
    total = 1 + before + after
    return (before / total).to(times.dtype), (after / total).to(times.dtype)


def _smoothed(x: Tensor, length: Int[Tensor, "n"], times: Tensor) -> Tensor:
    """Three-point Gaussian along time, reflected at the ends of each clip; clips of fewer than three frames stay."""
    number = torch.arange(x.shape[2], device=x.device)
    before, after = temporal_taps(length, times)
    last = (length - 1).clamp_min(0)[:, None]
    left = torch.where(number > 0, number - 1, torch.minimum(number + 1, last)).expand_as(times)
    right = torch.where(number < last, number + 1, (last - 1).clamp_min(0))
    frames = x.transpose(1, 2)
    a, b = _per_frame(before, x), _per_frame(after, x)
    out = frames * (1 - a - b) + pick(frames, left) * a + pick(frames, right) * b
    return torch.where(expand(length >= 3, x.ndim), out, frames).transpose(1, 2)


def _per_frame(values: Float[Tensor, "n time"], x: Tensor) -> Tensor:
    """One number per frame, against frames [n, time, channels, height, width]."""
    return values.to(x.dtype)[:, :, None, None, None]


def residual(clips: Clips) -> Clips:
    """Motion stream: each frame minus the next one, the last minus the first (methods/mvo.md §1); they sum to 0.

    A single frame gives 0. Padding becomes 0.
    """
    length = clips.valid.sum(1)[:, None].clamp_min(1)
    number = torch.arange(clips.x.shape[2], device=clips.x.device)
    following = torch.where(number < length, (number + 1) % length, number)
    frames = clips.x.transpose(1, 2)
    moved = frames - pick(frames, following)
    return clips._replace(x=moved.masked_fill_(~clips.valid[:, :, None, None, None], 0).transpose(1, 2))
