"""All terms of BioVidNet with their weights and when they enter (methods/biovidnet.md §8)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl4neuro.heads.biovidnet.consistency import SignalDecoder
from ssl4neuro.heads.biovidnet.decorrelation import Decorrelation
from ssl4neuro.heads.biovidnet.motion import MotionReadout, change
from ssl4neuro.heads.biovidnet.network import BioVidNetConfig, Trajectory
from ssl4neuro.heads.biovidnet.observation import FrameDecoder, observation_loss, small_frames
from ssl4neuro.heads.biovidnet.posterior import Latent, MarkovPrior, free_bits
from ssl4neuro.heads.biovidnet.rhythm import RhythmFit
from ssl4neuro.heads.biovidnet.smoothness import smoothness

MOTION_SHARE = 0.1  # of the smoothness of z^m, which is meant to carry sudden events
FLAT = 0.1  # weight of the variance floor of z^p within the rhythm term


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; a term of weight 0 is not computed. The defaults are those of supervised training."""

    elbo: float = 0.0
    decorrelation: float = 0.1
    motion: float = 0.1
    rhythm: float = 0.05
    velocity: float = 1e-2
    acceleration: float = 5e-3
    jerk: float = 1e-3
    signal: float = 0.0
    motion_target: Literal["features", "pixels"] = "features"
    dependence: Literal["correlation", "hsic"] = "correlation"
    frequencies: Literal["learned", "harmonic", "amortised"] = "learned"
    robust: Literal["square", "charbonnier"] = "square"
    waves: int = 4
    duration: float = 32.0  # median intervals of a typical training sequence
    ramp: float = 0.1  # share of the training in which the weights rise from 0
    warmup: float = 0.3  # share in which the divergence's weight rises
    free_bits: float = 0.02  # nat per dimension

    def __post_init__(self) -> None:
        if self.elbo and self.velocity:
            raise ValueError("velocity: the prior of the ELBO holds it already; set velocity to 0 where elbo is on")


UNSUPERVISED = LossWeights(elbo=1.0, motion=0.5, rhythm=0.2, velocity=0.0, motion_target="pixels")


class TrajectoryLosses(nn.Module):
    """The weighted sum, and every term unweighted.

    Args:
        config: of the network.
        signals: of the second signal (formula 12).
    """

    def __init__(self, config: BioVidNetConfig, weights: LossWeights = LossWeights(), signals: int = 1) -> None:
        super().__init__()
        self.config, self.weights = config, weights
        self.decorrelation = Decorrelation(config.motion, config.rhythm, weights.dependence) if weights.decorrelation else None
        self.motion = MotionReadout(config.motion) if weights.motion else None
        self.rhythm = None
        if weights.rhythm:
            self.rhythm = RhythmFit(config.rhythm, weights.waves, weights.duration, weights.frequencies, config.dim)
        self.prior = MarkovPrior(config.latent) if weights.elbo else None
        self.decoder = FrameDecoder(config.latent) if weights.elbo else None
        self.signal = SignalDecoder(config.latent, signals) if weights.signal else None

    def forward(
        self,
        found: Trajectory,
        x: Float[Tensor, "batch time channels height width"],
        signal: Float[Tensor, "batch time signals"] | None = None,
        progress: float = 1.0,
    ) -> dict[str, Tensor]:
        """`loss` and the terms; `x` as the network got it, `progress` the share of the training that is done."""
        w, z, m = self.weights, found.z, self.config.motion
        with torch.autocast(z.device.type, enabled=False):
            terms: dict[str, Tensor] = {}
            if self.decorrelation is not None:
                terms["decorrelation"] = self.decorrelation(z, found.valid)
            if self.motion is not None:
                pixels = w.motion_target == "pixels"
                terms["motion"] = self.motion(z[:, :, :m], change(x if pixels else found.s, found.clock, pixels), found.valid)
            if self.rhythm is not None:
                fit = self.rhythm(z[:, :, m:], found.clock, found.valid, found.h.mean(1))
                terms["rhythm"] = fit.loss + FLAT * fit.flat
            terms |= self._smoothness(found)
            if self.prior is not None and self.decoder is not None:
                terms |= self._elbo(found, x, progress)
            if self.signal is not None and signal is not None:
                terms["signal"] = self.signal.loss(z, signal, found.valid)
            ramp = min(1.0, progress / w.ramp) if w.ramp else 1.0
            weights = {name: ramp * getattr(w, name) for name in terms if hasattr(w, name)}
            total = sum((weights[name] * terms[name] for name in weights), z.new_zeros(()))
            return {"loss": total, **terms}

    def _smoothness(self, found: Trajectory) -> dict[str, Tensor]:
        w, m = self.weights, self.config.motion
        if not (w.velocity or w.acceleration or w.jerk):
            return {}
        motion = smoothness(found.z[:, :, :m], found.clock, found.valid, w.robust)
        rhythm = smoothness(found.z[:, :, m:], found.clock, found.valid, w.robust)
        share = m / self.config.latent
        return {name: MOTION_SHARE * share * motion[name] + (1 - share) * rhythm[name] for name in motion if getattr(w, name)}

    def _elbo(self, found: Trajectory, x: Tensor, progress: float) -> dict[str, Tensor]:
        assert self.prior is not None
        assert self.decoder is not None
        latent = Latent(found.z, found.mean, found.log_variance)
        kl = free_bits(self.prior.divergence(latent, found.clock, found.valid), found.valid, self.weights.free_bits)
        mean, log_variance = self.decoder(found.z)
        reconstruction = observation_loss(mean, log_variance, small_frames(x), found.valid)
        beta = min(1.0, progress / self.weights.warmup) if self.weights.warmup else 1.0
        return {"elbo": reconstruction + beta * kl, "reconstruction": reconstruction.detach(), "divergence": kl.detach()}
