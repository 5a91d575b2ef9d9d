"""CABRiS: gate, warp and fuse the trajectory of BioVidNet (methods/cabris.md). Each part can be switched off."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.encoders.pooling import AttentionPool
from ssl4neuro.heads.biovidnet.frames import valid_average
from ssl4neuro.heads.cabris.confidence import ConfidenceFusion
from ssl4neuro.heads.cabris.gating import DomainGate, context_consistency, gate_entropy
from ssl4neuro.heads.cabris.warping import (
    SHORTEST,
    MonotoneSpline,
    Reference,
    WarpNetwork,
    anchor,
    curvature,
    local_structure,
    normalised_time,
    sample_at,
)


@dataclass(frozen=True)
class CabrisConfig:
    """Switches and weights (§1)."""

    gating: bool = True
    warping: bool = True
    fusion: bool = True
    gate: Literal["vector", "scalar"] = "vector"
    entropy: Literal["batch", "per_element"] = "batch"
    target: Literal["prototype", "full"] = "prototype"  # of the context consistency
    local: Literal["a", "b"] = "b"
    free_ends: bool = False
    tokens: int = 16
    consistency: float = 1e-2  # weights of the terms
    gate_entropy: float = 1e-3
    align: float = 1e-1
    curvature: float = 1.0
    local_weight: float = 1e-2
    anchor: float = 1e-1
    quiet: float = 0.2  # share of the training in which consistency and alignment rest


class Refined(NamedTuple):
    """What CABRiS makes of a batch."""

    z_gated: Float[Tensor, "batch time dim"]
    tau: Float[Tensor, "batch time"]  # normalised time
    z_aligned: Float[Tensor, "batch time dim"]
    r: Float[Tensor, "batch dim"]
    f: Float[Tensor, "batch dim"]
    confidence: Float[Tensor, "batch"]
    gate: Float[Tensor, "batch time dim"]
    losses: dict[str, Tensor]  # weighted sum under `loss`, the terms unweighted


class CABRiS(nn.Module):
    """Refine trajectories: near the identity at initialisation, the identity where a part is off.

    Args:
        dim: of z.
        context: of the context vector.
        features: of the pooled frame features that the confidence sees.
    """

    def __init__(self, dim: int = 64, context: int = 64, features: int = 128, config: CabrisConfig = CabrisConfig()) -> None:
        super().__init__()
        self.config = config
        self.gate = DomainGate(dim, context, config.gate) if config.gating else None
        if config.warping:
            self.spline = MonotoneSpline(config.free_ends)
            self.warp = WarpNetwork(dim, self.spline.parameters_per_warp)
            self.reference = Reference(dim)
        self.pool = AttentionPool(dim)
        self.fusion = ConfidenceFusion(dim, features, config.tokens) if config.fusion else None

    def forward(
        self,
        z: Float[Tensor, "batch time dim"],
        context: Float[Tensor, "batch context"],
        clock: Float[Tensor, "batch time"],
        valid: Bool[Tensor, "batch time"],
        x: Float[Tensor, "batch features"],
        subject: Int[Tensor, "batch"] | None = None,
        label: Int[Tensor, "batch"] | None = None,
        progress: float = 1.0,
    ) -> Refined:
        """Refine a batch; buffers move in training only.

        Args:
            clock: rising times, in median intervals.
            x: pooled frame features, before the latent.
            label: classes, -1 where unknown; keeps the consistency from pulling classes together. Never used in evaluation.
            progress: share of the training that is done.
        """
        with torch.autocast(z.device.type, enabled=False):
            z, context, x = z.float(), context.float(), x.float()
            losses: dict[str, Tensor] = {}
            gated, gate, prototype = (z, torch.ones_like(z), None) if self.gate is None else self.gate(z, context)
            if prototype is not None and self.training:
                self._gate_losses(losses, gated, gate, prototype, context, valid, subject, label)
            u = normalised_time(clock, valid)
            tau, aligned = u, gated
            if self.config.warping:
                tau, aligned = self._warp(losses, gated, u, valid, progress)
            r = self.pool(aligned.transpose(1, 2), valid[:, None].to(aligned.dtype))
            f, confidence = (r, r.new_ones(len(r))) if self.fusion is None else self.fusion(r, x)
            losses["loss"] = self._total(losses, progress, z)
            return Refined(gated, tau, aligned, r, f, confidence, gate, losses)

    def _gate_losses(
        self, losses: dict[str, Tensor], gated: Tensor, gate: Tensor, prototype: Tensor, context: Tensor, valid: Tensor,
        subject: Tensor | None, label: Tensor | None,
    ) -> None:  # fmt: skip
        part = gated if self.config.target == "full" else (1 - gate) * prototype[:, None]
        subject = torch.arange(len(gated), device=gated.device) if subject is None else subject
        losses["consistency"] = context_consistency(part, context, valid, subject, label)
        losses["gate_entropy"] = gate_entropy(gate, valid, self.config.entropy)

    def _warp(self, losses: dict[str, Tensor], z: Tensor, u: Tensor, valid: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """τ and the aligned trajectories; the identity for short sequences, and as long as there is no reference."""
        if self.training and progress >= self.config.quiet and not self.reference.started:
            self.reference.update(z, u, u)
        if not self.reference.started or z.shape[1] < 2:
            return u, z
        standard, reference = self.reference.standardise(z), self.reference.at(u)
        long = (valid.sum(1) >= SHORTEST)[:, None]
        tau = torch.where(long, self.spline(u, self.warp(standard, reference, valid)).tau, u)
        aligned = torch.where(long[:, :, None], sample_at(z, u, tau), z)
        if self.training:
            difference = (self.reference.standardise(aligned) - reference.detach()).square().mean(2)
            losses["align"] = valid_average(difference, valid)
            losses["curvature"] = curvature(tau, valid)
            losses["local"] = local_structure(aligned, z, valid, self.config.local)
            losses["anchor"] = anchor(tau, u, valid)
            self.reference.update(z.detach(), u, tau.detach())
        return tau, aligned

    def _total(self, losses: dict[str, Tensor], progress: float, z: Tensor) -> Tensor:
        c = self.config
        late = float(progress >= c.quiet)
        weights = {
            "consistency": late * c.consistency, "gate_entropy": c.gate_entropy, "align": late * c.align,
            "curvature": c.curvature, "local": c.local_weight, "anchor": c.anchor,
        }  # fmt: skip
        return sum((weights[name] * value for name, value in losses.items()), z.new_zeros(()))
