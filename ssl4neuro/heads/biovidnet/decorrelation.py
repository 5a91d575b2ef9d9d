"""Motion and rhythm should not say the same: decorrelation of the two parts (methods/biovidnet.md §5, formula 14)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.heads.biovidnet.frames import everything

FLOOR = 1e-4  # least standard deviation
KEEP = 0.9  # of the running moments
TOKENS = 256  # at most, where every pair is compared


class Decorrelation(nn.Module):
    """Mean squared correlation between the dimensions of two subspaces, over all valid frames of the batch: 0 to 1.

    With fewer frames than four per dimension, moments and covariance are running means (0.9), through whose newest part
    the gradient goes. Only linear dependence is removed; `hsic` penalises any (Gaussian kernels, normalised like a correlation;
    Gretton et al., ALT 2005).
    """

    mean: Tensor
    square: Tensor
    cross: Tensor
    started: Tensor

    def __init__(self, motion: int, rhythm: int, kind: Literal["correlation", "hsic"] = "correlation") -> None:
        super().__init__()
        self.motion, self.rhythm, self.kind = motion, rhythm, kind
        self.register_buffer("mean", torch.zeros(motion + rhythm))
        self.register_buffer("square", torch.ones(motion + rhythm))
        self.register_buffer("cross", torch.zeros(motion, rhythm))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def forward(self, z: Float[Tensor, "batch time dim"], valid: Bool[Tensor, "batch time"] | None = None) -> Float[Tensor, ""]:
        """`z` holds the motion part first. 0 where fewer than two frames are valid."""
        tokens = z.float()[everything(z, valid)]
        if len(tokens) < 2:
            return z.sum() * 0
        if self.kind == "hsic":
            return hsic(tokens[:, : self.motion], tokens[:, self.motion :])
        mean, square = tokens.mean(0), tokens.square().mean(0)
        cross = tokens[:, : self.motion].T @ tokens[:, self.motion :] / len(tokens)
        if len(tokens) < 4 * max(self.motion, self.rhythm):
            if self.started:
                mean, square, cross = (
                    KEEP * old + (1 - KEEP) * new
                    for old, new in ((self.mean, mean), (self.square, square), (self.cross, cross))
                )
            if self.training:
                with torch.no_grad():
                    self.mean.copy_(mean)
                    self.square.copy_(square)
                    self.cross.copy_(cross)
                    self.started.fill_(True)
        spread = (square - mean.square()).clamp_min(FLOOR**2).sqrt()
        covariance = cross - mean[: self.motion, None] * mean[self.motion :]
        return (covariance / spread[: self.motion, None] / spread[self.motion :]).square().mean()


def hsic(a: Float[Tensor, "tokens _"], b: Float[Tensor, "tokens _"]) -> Float[Tensor, ""]:
    """Normalised Hilbert-Schmidt independence criterion, kernel width by the median distance; 0 to 1."""
    step = -(-len(a) // TOKENS)
    first, second = (_centred_kernel(x[::step]) for x in (a, b))
    return (first * second).sum() / ((first * first).sum() * (second * second).sum()).sqrt().clamp_min(1e-12)


def _centred_kernel(x: Tensor) -> Tensor:
    square = torch.cdist(x, x).square()
    kernel = torch.exp(-square / square.detach().median().clamp_min(1e-6))
    return kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
