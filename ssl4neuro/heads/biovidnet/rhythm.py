"""The rhythm part of the latent is a sum of a few sinusoids (methods/biovidnet.md §5, formula 16)."""

import math
import warnings
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.heads.biovidnet.frames import everything

RIDGE = 1e-3  # per frame


class Rhythm(NamedTuple):
    """What the fit of a batch found."""

    loss: Float[Tensor, ""]  # unexplained share of the variance over time, 1 - R²
    flat: Float[Tensor, ""]  # how far the spread over time falls short of 1, mean over dimensions
    fitted: Float[Tensor, "batch time dim"]
    amplitude: Float[Tensor, "batch waves"]  # of each frequency, root of the summed squares over dimensions
    frequency: Float[Tensor, "batch waves"]  # cycles per median interval


class RhythmFit(nn.Module):
    """Ridge fit of sinusoids to each sequence, in closed form and differentiable in z and in the frequencies.

    A free parameter per sequence could not answer for unseen sequences; the closed form can. Frequencies lie between one
    cycle per sequence and half the frame rate; a sequence with fewer frames than 2 (2K + 1) gets fewer waves, since
    otherwise anything would fit.

    Args:
        dim: of z^p.
        waves: frequencies K.
        duration: median intervals of a typical training sequence.
        frequencies: learned for all, the harmonics of the sequence (one cycle of a cine), or predicted from `pooled`.
        pooled: features of the vector from which they are predicted.
    """

    def __init__(
        self,
        dim: int,
        waves: int = 4,
        duration: float = 32.0,
        frequencies: Literal["learned", "harmonic", "amortised"] = "learned",
        pooled: int = 128,
    ) -> None:
        super().__init__()
        if duration <= 2:
            raise ValueError(f"duration: a rhythm needs sequences longer than 2 frames, got {duration:g}")
        self.dim, self.waves, self.kind = dim, waves, frequencies
        self.lowest, self.highest = 2 * math.pi / duration, math.pi
        inside = torch.linspace(0, 1, waves + 2)[1:-1]
        start = self.lowest * (self.highest / self.lowest) ** inside
        share = (start - self.lowest) / (self.highest - self.lowest)
        self.logit = nn.Parameter(torch.logit(share)) if frequencies != "harmonic" else None
        self.predict = nn.Linear(pooled, waves) if frequencies == "amortised" else None
        if self.predict is not None:
            nn.init.zeros_(self.predict.weight)
            nn.init.zeros_(self.predict.bias)

    def omega(
        self,
        clock: Float[Tensor, "batch time"],
        valid: Bool[Tensor, "batch time"],
        pooled: Float[Tensor, "batch pooled"] | None,
    ) -> Float[Tensor, "batch waves"]:
        """Angular frequencies, per median interval."""
        if self.logit is None:
            count = valid.sum(1)
            # a cycle ends one interval after its last frame
            span = (clock * valid).amax(1) * count / (count - 1).clamp_min(1)
            return 2 * math.pi * torch.arange(1, self.waves + 1, device=clock.device) / span.clamp_min(1)[:, None]
        logit = self.logit.expand(len(clock), -1)
        if self.predict is not None and pooled is not None:
            logit = logit + self.predict(pooled.float())
        return self.lowest + (self.highest - self.lowest) * logit.sigmoid()

    def forward(
        self,
        z: Float[Tensor, "batch time dim"],
        clock: Float[Tensor, "batch time"],
        valid: Bool[Tensor, "batch time"] | None = None,
        pooled: Float[Tensor, "batch pooled"] | None = None,
    ) -> Rhythm:
        """Fit every sequence; one too short for a single wave, or for a cycle of the slowest, adds nothing to the loss."""
        there = everything(z, valid)
        with torch.autocast(z.device.type, enabled=False):
            return self._fit(z.float(), clock.float(), there, None if pooled is None else pooled.float())

    def _fit(self, z: Tensor, clock: Tensor, there: Tensor, pooled: Tensor | None) -> Rhythm:
        count = there.sum(1)
        waves = ((count / 2 - 1) / 2).floor().clamp(0, self.waves)  # 2K + 1 <= T / 2
        if bool((waves < self.waves).any()):
            warnings.warn(f"rhythm: sequences of {int(count.min())} frames get fewer than {self.waves} waves", stacklevel=3)
        omega = self.omega(clock, there, pooled)
        used = torch.arange(self.waves, device=z.device) < waves[:, None]
        angle = omega[:, None] * clock[:, :, None]
        waveforms = torch.cat([angle.cos(), angle.sin()], 2) * torch.cat([used, used], 1)[:, None]
        design = torch.cat([torch.ones_like(clock)[:, :, None], waveforms], 2) * there[:, :, None]
        gram = design.mT @ design
        ridge = RIDGE * count.clamp_min(1)[:, None, None] * torch.eye(gram.shape[1], device=z.device)
        ridge[:, 0, 0] = 1e-6  # the mean is not shrunk
        weights = torch.linalg.solve(gram + ridge, design.mT @ (z * there[:, :, None]))
        fitted = design @ weights
        share = there.to(z.dtype)[:, :, None]
        centred = (z - (z * share).sum(1, keepdim=True) / count.clamp_min(1)[:, None, None]) * share
        total, left = centred.square().sum((1, 2)), ((z - fitted) * share).square().sum((1, 2))
        long = (clock * there).amax(1) + 1 >= 2 * math.pi / omega.amin(1)
        fit = (waves >= 1) & long
        loss = torch.where(fit, left / (total + 1e-6), 0.0).sum() / fit.sum().clamp_min(1)
        spread = (centred.square().sum((0, 1)) / count.sum().clamp_min(1) + 1e-8).sqrt()
        amplitude = (weights[:, 1 : self.waves + 1].square() + weights[:, self.waves + 1 :].square()).sum(2)
        return Rhythm(loss, (1 - spread).clamp_min(0).mean(), fitted, (amplitude + 1e-12).sqrt(), omega / (2 * math.pi))
