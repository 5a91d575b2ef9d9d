"""Mix each latent with what the context leads one to expect (methods/cabris.md §2, formulas 25 to 28)."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.heads.biovidnet.frames import valid_average

OPEN = 2.0  # bias of the gate at the start: 0.88 open
EDGE = 1e-4
PAIRS = 4  # compared, per sample


class Gated(NamedTuple):
    """Latents after the gate."""

    z: Float[Tensor, "batch time dim"]
    gate: Float[Tensor, "batch time dim"]
    prototype: Float[Tensor, "batch dim"]


class DomainGate(nn.Module):
    """z̃ = g ⊙ z + (1 - g) ⊙ p(c), with g = σ(W [z ; c] + b), per dimension or one for all.

    Args:
        dim: of z.
        context: of c.
        gate: one number per dimension, or per frame.
        hidden: of the prototype's network.
    """

    def __init__(self, dim: int, context: int, gate: Literal["vector", "scalar"] = "vector", hidden: int = 64) -> None:
        super().__init__()
        self.gate = nn.Linear(dim + context, dim if gate == "vector" else 1)
        nn.init.normal_(self.gate.weight, std=1e-3)
        nn.init.constant_(self.gate.bias, OPEN)
        self.prototype = nn.Sequential(nn.Linear(context, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        nn.init.zeros_(self.prototype[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.prototype[2].bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def start_at(self, mean: Float[Tensor, "dim"]) -> None:
        """Let every prototype begin as the mean of z over the training samples."""
        self.prototype[2].bias.copy_(mean)  # type: ignore[operator]

    def forward(self, z: Float[Tensor, "batch time dim"], context: Float[Tensor, "batch context"]) -> Gated:
        """Gate every frame."""
        c = context[:, None].expand(-1, z.shape[1], -1)
        gate = self.gate(torch.cat([z, c], 2)).sigmoid().expand_as(z)
        prototype = self.prototype(context)
        return Gated(gate * z + (1 - gate) * prototype[:, None], gate, prototype)


def gate_entropy(
    gate: Float[Tensor, "batch time dim"], valid: Bool[Tensor, "batch time"], over: Literal["batch", "per_element"] = "batch"
) -> Float[Tensor, ""]:
    """-H, to be minimised: the entropy of the mean gate of each dimension, or the mean of every gate's own.

    The paper maximises that of each element, whose optimum is g = 1/2 everywhere, a gate that says nothing; that the
    dataset relies on neither source alone is a matter of the mean.
    """
    clamped = gate.float().clamp(EDGE, 1 - EDGE)
    if over == "batch":
        mean = (clamped * valid[:, :, None]).sum((0, 1)) / valid.sum().clamp_min(1)
        return -_entropy(mean.clamp(EDGE, 1 - EDGE)).mean()
    return -valid_average(_entropy(clamped).mean(2), valid)


def _entropy(share: Tensor) -> Tensor:
    return -share * share.log() - (1 - share) * (1 - share).log()


def context_consistency(
    part: Float[Tensor, "batch time dim"],
    context: Float[Tensor, "batch context"],
    valid: Bool[Tensor, "batch time"],
    subject: Int[Tensor, "batch"],
    label: Int[Tensor, "batch"] | None = None,
    quantile: float = 0.1,
    seed: int = 0,
) -> Float[Tensor, ""]:
    """Mean squared distance, frame by frame, between samples of different subjects in similar contexts (formula 27).

    Pairs within the nearest tenth of the batch's context distances, at most four per sample; pairs of different known labels
    (not -1) are left out. On all of z̃ it erases what tells two patients of one age and site apart: give it the part that
    the context explains, (1 - g) ⊙ p(c).
    """
    first, second = torch.triu_indices(len(part), len(part), 1, device=part.device)
    keep = subject[first] != subject[second]
    if label is not None:
        keep &= ~((label[first] >= 0) & (label[second] >= 0) & (label[first] != label[second]))
    first, second = first[keep], second[keep]
    if not len(first):
        return part.sum() * 0
    distance = (context.detach()[first] - context.detach()[second]).float().norm(dim=1)
    near = (distance <= distance.quantile(quantile)).nonzero().flatten()
    if len(near) > PAIRS * len(part):
        order = torch.randperm(len(near), generator=torch.Generator().manual_seed(seed))[: PAIRS * len(part)]
        near = near[order.to(near.device)]
    a, b = first[near], second[near]
    return valid_average((part[a] - part[b]).float().square().mean(2), valid[a] & valid[b])
