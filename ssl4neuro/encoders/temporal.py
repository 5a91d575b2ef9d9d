"""Frames in time: what the clock shows, its sinusoidal encoding, and a transformer over frame features."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.encoders.transformer import Block, attention_mask, initialise, keep_valid

NOMINAL_INTERVAL = 1 / 30  # s between frames where nothing is known: cine MR and most videos are near it
PERIODS = (0.05, 1000.0)  # s; from neighbouring frames of a fast ultrasound clip to the wash-out of a contrast agent


def clock(
    frames: int,
    valid: Bool[Tensor, "batch frames"] | None = None,
    rate: Float[Tensor, "batch"] | None = None,
    times: Float[Tensor, "batch frames"] | None = None,
    device: torch.device | None = None,
) -> Float[Tensor, "#batch frames"]:
    """Seconds since the first valid frame.

    A clip whose valid frames all have a time uses `times`. Otherwise the frame number times `rate` (frame interval, s; NaN
    where unknown) or, where that is unknown too, times 1/30 s; two clocks are never mixed within a clip.
    """
    given = next((t for t in (times, rate, valid) if t is not None), None)
    device = device if given is None else given.device
    number = torch.arange(frames, device=device, dtype=torch.float32)[None]
    step = torch.full((1, 1), NOMINAL_INTERVAL, device=device)
    if rate is not None:
        known_rate = (rate.isfinite() & (rate > 0))[:, None]
        step = torch.where(known_rate, rate.float()[:, None], step)
    seconds = number * step
    if times is None:
        return seconds
    there = torch.ones_like(times, dtype=torch.bool) if valid is None else valid
    known = (times.isfinite() | ~there).all(1, keepdim=True) & there.any(1, keepdim=True)
    start = torch.where(there & times.isfinite(), times, torch.inf).amin(1, keepdim=True)
    since = torch.where(there & known, times - start, 0.0)
    return torch.where(known, since.float(), seconds)


def sinusoids(position: Float[Tensor, "*shape"], dim: int, periods: tuple[float, float]) -> Float[Tensor, "*shape {dim}"]:
    """Sines and cosines of a continuous position, periods spaced geometrically; float32 under autocast.

    Raises:
        ValueError: `dim` is odd.
    """
    if dim % 2:
        raise ValueError(f"an encoding has a sine and a cosine for every period: its length must be even, got {dim}")
    exponent = torch.linspace(0, 1, dim // 2, device=position.device) if dim > 2 else position.new_zeros(1)
    frequency = 2 * math.pi / periods[0] * (periods[0] / periods[1]) ** exponent
    angle = position.float()[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class TemporalTransformer(nn.Module):
    """Let the frames of a clip see each other.

    Args:
        dim: features of a frame; even and a multiple of `heads`.
        depth: transformer blocks.
        heads: of the attention.
        mlp_ratio: width of the blocks' inner layer over `dim`.
    """

    def __init__(self, dim: int, depth: int = 2, heads: int = 4, mlp_ratio: float = 4.0):
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim must be even, got {dim}")
        self.dim = dim
        self.first_norm = nn.LayerNorm(dim, eps=1e-6)  # features at the scale of the time encoding, whatever made them
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio) for _ in range(depth))
        self.last_norm = nn.LayerNorm(dim, eps=1e-6)
        initialise(self)

    def forward(
        self,
        x: Float[Tensor, "batch frames dim"],
        valid: Bool[Tensor, "batch frames"] | None = None,
        rate: Float[Tensor, "batch"] | None = None,
        times: Float[Tensor, "batch frames"] | None = None,
    ) -> Float[Tensor, "batch frames dim"]:
        """Features in context, 0 at invalid frames. `rate` (s) and `times` (s) as in `clock`."""
        seconds = clock(x.shape[1], valid, rate, times, x.device)
        x = keep_valid(x, valid)
        x = self.first_norm(x) + sinusoids(seconds, self.dim, PERIODS).to(x.dtype)
        mask = attention_mask(valid)
        for block in self.blocks:
            x = block(x, mask)
        return keep_valid(self.last_norm(x), valid)
