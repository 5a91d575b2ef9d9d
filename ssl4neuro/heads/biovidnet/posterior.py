"""The trajectory as a process: causal Gaussian posterior, Ornstein-Uhlenbeck prior (methods/biovidnet.md §3, F2, F11)."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.heads.biovidnet.frames import at, everything, previous_valid

LOG_VARIANCE = (-8.0, 4.0)


class Latent(NamedTuple):
    """Posterior of z_t, and a sample of it (its mean in evaluation)."""

    z: Float[Tensor, "batch time dim"]
    mean: Float[Tensor, "batch time dim"]
    log_variance: Float[Tensor, "batch time dim"]


class Posterior(nn.Module):
    """Two subspaces from h_t: [z^m ; z^p], each a linear layer and layer norm (formula 13), with a log variance.

    Args:
        dim: of h_t.
        motion, rhythm: dimensions of the two subspaces.
        deterministic: no variance: z_t is the mean, in training too.
    """

    def __init__(
        self, dim: int = 128, motion: int = 32, rhythm: int = 32, deterministic: bool = True, norm: bool = True
    ) -> None:
        super().__init__()
        self.motion, self.rhythm, self.deterministic = motion, rhythm, deterministic
        self.to_motion = nn.Sequential(nn.Linear(dim, motion), nn.LayerNorm(motion) if norm else nn.Identity())
        self.to_rhythm = nn.Sequential(nn.Linear(dim, rhythm), nn.LayerNorm(rhythm) if norm else nn.Identity())
        self.to_log_variance = nn.Linear(dim, motion + rhythm)
        nn.init.zeros_(self.to_log_variance.weight)
        nn.init.constant_(self.to_log_variance.bias, -4.0)

    def forward(self, h: Float[Tensor, "batch time features"]) -> Latent:
        """z_t: a sample in training unless `deterministic`, else the mean."""
        mean = torch.cat([self.to_motion(h), self.to_rhythm(h)], 2)
        log_variance = self.to_log_variance(h).float().clamp(*LOG_VARIANCE)
        if self.deterministic or not self.training:
            return Latent(mean, mean, log_variance)
        return Latent(mean + torch.randn_like(mean) * (log_variance / 2).exp().to(mean.dtype), mean, log_variance)


class MarkovPrior(nn.Module):
    """z_1 ~ N(0, I); z_t given z_{t-1} ~ N(A^Δ z_{t-1}, Q_Δ), diagonal, the Ornstein-Uhlenbeck process on any time stamps."""

    def __init__(self, dim: int, persistence: float = 0.95) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.full((dim,), persistence).logit())
        self.log_noise = nn.Parameter(torch.full((dim,), 1 - persistence**2).log())

    def step(self, interval: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape dim"], Float[Tensor, "*shape dim"]]:
        """A^Δ and Q_Δ for intervals in median intervals."""
        persistence = self.logit.float().sigmoid()
        decay = persistence ** interval[..., None]
        # Q (1 - A^{2Δ}) / (1 - A²); both differences through expm1, which keeps its digits for A near 1
        grown = torch.expm1(2 * interval[..., None] * persistence.log()) / torch.expm1(2 * persistence.log())
        return decay, self.log_noise.float().exp() * grown

    def divergence(
        self, latent: Latent, clock: Float[Tensor, "batch time"], valid: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time dim"]:
        """KL of each frame's posterior from the prior given the frame before, in expectation over that; 0 where not valid.

        A frame whose predecessors are not valid is compared with the last one that is, over the longer interval.
        """
        there = everything(latent.mean, valid)
        mean, variance = latent.mean.float(), latent.log_variance.exp()
        before = previous_valid(there)
        has = before >= 0
        interval = clock - clock.gather(1, before.clamp_min(0))
        decay, noise = self.step(torch.where(has, interval, 1.0))
        past_mean, past_variance = at(mean, before), at(variance, before)
        first = has[:, :, None]
        decay, noise = torch.where(first, decay, 0.0), torch.where(first, noise, 1.0)
        spread = variance + (mean - decay * past_mean).square() + decay.square() * past_variance
        kl = 0.5 * (noise.log() - latent.log_variance - 1 + spread / noise)
        return kl * there[:, :, None]


def free_bits(kl: Float[Tensor, "batch time dim"], valid: Bool[Tensor, "batch time"], least: float = 0.02) -> Float[Tensor, ""]:
    """Mean over valid frames, then over dimensions, none of which is pushed below `least` nat."""
    per_dim = torch.where(valid[:, :, None], kl, 0.0).sum((0, 1)) / valid.sum().clamp_min(1)
    return per_dim.clamp_min(least).mean()
