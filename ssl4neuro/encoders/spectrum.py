"""Log-power spectrum of time courses in fixed bands in Hz, whatever their length and repetition time."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

_SHORTEST_FFT = 4096  # fixed, so that the frequencies do not depend on how far a batch is padded


class SpectrumBranch(nn.Module):
    """Courses [N, T] to a feature vector of their log power in `bands` bands between `low` and `high` Hz.

    Bands above a row's Nyquist frequency are marked as missing; rows with an unknown repetition time get one learned vector.

    Args:
        dim: length of the output.
        bands: number of equally wide bands.
        low, high: Hz.
    """

    edges: Tensor

    def __init__(self, dim: int = 64, bands: int = 32, low: float = 0.008, high: float = 0.25):
        super().__init__()
        self.register_buffer("edges", torch.linspace(low, high, bands + 1), persistent=False)
        self.encode = nn.Sequential(nn.Linear(2 * bands, dim), nn.LayerNorm(dim), nn.GELU(), nn.Linear(dim, dim))
        self.unknown = nn.Parameter(torch.randn(dim) / dim**0.5)

    def forward(
        self, x: Float[Tensor, "batch time"], valid: Bool[Tensor, "batch time"], rate: Float[Tensor, "batch"] | None
    ) -> Float[Tensor, "batch dim"]:
        """`rate` is the repetition time in s; NaN (or None) where unknown."""
        if rate is None:
            return self.unknown.expand(len(x), -1)
        known = rate.isfinite() & (rate > 0)
        return torch.where(known[:, None], self.encode(self.features(x, valid, rate)), self.unknown)

    def features(
        self, x: Float[Tensor, "batch time"], valid: Bool[Tensor, "batch time"], rate: Float[Tensor, "batch"] | None
    ) -> Float[Tensor, "batch features"]:
        """log10 of the band powers (floor -4) and whether each band exists; all 0 where the repetition time is unknown."""
        if rate is None:
            return x.new_zeros(len(x), 2 * (len(self.edges) - 1))
        known = rate.isfinite() & (rate > 0)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):  # of the data alone: nothing to learn before it
            power, available = band_power(x.float(), valid, torch.where(known, rate, 1.0).float(), self.edges)
            available = available & known[:, None]
            return torch.cat([(power + 1e-4).log10() * available, available.float()], dim=1)


def band_power(
    x: Float[Tensor, "batch time"],
    valid: Bool[Tensor, "batch time"],
    rate: Float[Tensor, "batch"],
    edges: Float[Tensor, "edges"],
) -> tuple[Float[Tensor, "batch bands"], Bool[Tensor, "batch bands"]]:
    """Mean power density in each band, relative to white noise of the same variance (1 in every band), and which bands exist.

    The course is centred and scaled to unit variance over its valid positions and tapered by a Hann window over its extent.
    The periodogram is integrated between the edges (Hz), so that neither length nor repetition time (`rate`, s) shifts a band.
    """
    x, mask = torch.where(valid, x, 0.0), valid.to(x.dtype)
    count = mask.sum(1, keepdim=True).clamp_min(1)
    position = torch.arange(x.shape[1], device=x.device)
    extent = (valid * (position + 1)).amax(1, keepdim=True).clamp_min(1)
    taper = torch.sin(torch.pi * (position + 0.5) / extent).square() * mask
    centred = (x - (x * mask).sum(1, keepdim=True) / count) * mask
    unit = centred / ((centred.square().sum(1, keepdim=True) / count).sqrt() + 1e-6)
    # the taper lets a little of the mean back in, which would leak into the lowest bands
    weighted = (unit * taper).sum(1, keepdim=True) / taper.sum(1, keepdim=True).clamp_min(1e-6)
    tapered = (unit - weighted) * taper
    tapered = tapered / taper.square().sum(1, keepdim=True).sqrt().clamp_min(1e-6)

    size = max(_SHORTEST_FFT, 1 << (x.shape[1] - 1).bit_length())
    periodogram = torch.fft.rfft(tapered, n=size).abs().square()  # mean 1 for white noise
    integral = nn.functional.pad(periodogram.double().cumsum(1), (1, 0))
    where = edges * rate[:, None] * size + 0.5  # bin k covers k - 1/2 .. k + 1/2
    nyquist = size // 2
    where = where.clamp_max(nyquist).double()
    below = where.floor().long().clamp_max(nyquist - 1)
    fraction = where - below
    at_edge = integral.gather(1, below) * (1 - fraction) + integral.gather(1, below + 1) * fraction
    available = edges[1:] * rate[:, None] <= 0.5
    width = (where[:, 1:] - where[:, :-1]).clamp_min(1e-6)
    power = (at_edge[:, 1:] - at_edge[:, :-1]) / width
    return (power * available).to(x.dtype), available
