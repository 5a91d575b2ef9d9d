"""Courses without one frequency band: its Fourier coefficients set to 0, whatever the repetition time."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl4neuro.explain.occlusion import Alter

EDGES = (0.0, 0.01, 0.027, 0.05, 0.073, 0.1, 0.15, 0.198, 0.25)  # Hz; slow-5 to slow-2 (Zuo et al., NeuroImage 2010), halved


def band_edges(rates: Sequence[float], edges: Sequence[float] = EDGES) -> tuple[float, ...]:
    """`edges` (Hz) up to the Nyquist frequency of the shortest repetition time, which ends the last band.

    `rates` are repetition times in s; there must be a known one.
    """
    highest = max(0.5 / rate for rate in rates if rate == rate and rate > 0)
    return (*(edge for edge in edges if edge < highest * (1 - 1e-6)), highest)


def holds_band(rate: Float[Tensor, "batch"], low: float) -> Bool[Tensor, "batch"]:
    """Whether a course with this repetition time (s, NaN where unknown) can hold anything above `low` Hz."""
    return rate.isfinite() & (rate > 0) & (low < 0.5 / rate * (1 - 1e-6))


def without_band(valid: Bool[Tensor, "batch time"], rate: Float[Tensor, "batch"], low: float, high: float) -> Alter:
    """Courses [N, time] without what lies from `low` up to `high` Hz; the highest band takes the Nyquist frequency with it.

    Every course is transformed over its own extent, from its first to its last valid position, so that no padding enters.
    Courses of unknown `rate` (s) stay as they are. The result is not standardised again: the rest of the spectrum would rise.
    """

    def alter(x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        out = torch.where(valid, x, 0.0)
        for i in holds_band(rate, low).nonzero().flatten().tolist():
            where = valid[i].nonzero().flatten()
            if not len(where):
                continue
            first, end = int(where[0]), int(where[-1]) + 1
            spectrum = torch.fft.rfft(out[i, first:end].double())
            frequency = torch.fft.rfftfreq(end - first, d=float(rate[i]), device=x.device)
            inside = (frequency >= low - 1e-9) & (frequency < high - 1e-9)
            if high >= 0.5 / float(rate[i]) * (1 - 1e-6):
                inside |= frequency >= high - 1e-9
            out[i, first:end] = torch.fft.irfft(spectrum.masked_fill(inside, 0), n=end - first).to(x.dtype)
        return torch.where(valid, out, x)

    return alter
