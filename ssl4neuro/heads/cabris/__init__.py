"""CABRiS, the context-aware refinement of biomarker trajectories: gate, warp, fuse (methods/cabris.md)."""

from ssl4neuro.heads.cabris.confidence import ConfidenceFusion, Fused, confident_loss
from ssl4neuro.heads.cabris.gating import DomainGate, Gated, context_consistency, gate_entropy
from ssl4neuro.heads.cabris.strategy import CABRiS, CabrisConfig, Refined
from ssl4neuro.heads.cabris.warping import MonotoneSpline, Reference, WarpNetwork

__all__ = [
    "CABRiS",
    "CabrisConfig",
    "ConfidenceFusion",
    "DomainGate",
    "Fused",
    "Gated",
    "MonotoneSpline",
    "Reference",
    "Refined",
    "WarpNetwork",
    "confident_loss",
    "context_consistency",
    "gate_entropy",
]
