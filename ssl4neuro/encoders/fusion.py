"""One embedding from several modalities, any of which may be missing (methods/network_state.md §3)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Fusion(nn.Module):
    """LayerNorm(Linear([e_1; e_2; ...])) with a learned stand-in for a missing modality.

    In training a modality that is there is taken as missing with probability `modality_dropout` (from torch's generator, which
    checkpoints restore), so that either alone works; a sample never loses all of them.

    Args:
        dims: modality to the length of its encoder's output; two or more.
        dim: length of the joint embedding.
        modality_dropout: probability, per sample and modality.
    """

    def __init__(self, dims: dict[str, int], dim: int = 128, modality_dropout: float = 0.2):
        super().__init__()
        if len(dims) < 2:
            raise ValueError(f"fusion needs two or more modalities, got {', '.join(dims) or 'none'}")
        if not 0 <= modality_dropout < 1:
            raise ValueError(f"modality_dropout must lie in [0, 1), got {modality_dropout}")
        self.modalities = tuple(dims)
        self.dim, self.modality_dropout = dim, modality_dropout
        self.stand_in = nn.ParameterList(nn.Parameter(torch.randn(d) * 0.02) for d in dims.values())
        self.linear = nn.Linear(sum(dims.values()), dim)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, pooled: dict[str, Float[Tensor, "batch _"]], present: dict[str, Bool[Tensor, "batch"]] | None = None
    ) -> Float[Tensor, "batch dim"]:
        """`present` says which rows have the modality; one without an entry is there for all."""
        first = pooled[self.modalities[0]]
        everywhere = torch.ones(len(first), dtype=torch.bool, device=first.device)
        there = torch.stack([(present or {}).get(m, everywhere) for m in self.modalities], dim=1)
        if self.training and self.modality_dropout:
            kept = there & (torch.rand(there.shape, device=there.device) >= self.modality_dropout)
            there = torch.where(kept.any(1, keepdim=True), kept, there)
        parts = [
            torch.where(there[:, i, None], pooled[m], stand_in.to(pooled[m].dtype))
            for i, (m, stand_in) in enumerate(zip(self.modalities, self.stand_in, strict=True))
        ]
        return self.norm(self.linear(torch.cat(parts, dim=1)))
