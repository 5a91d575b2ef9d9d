"""How far a sequence is to be trusted, and what is taken instead (methods/cabris.md §4, formulas 33 to 36)."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

EDGE = 1e-4
OPEN = 2.0  # bias of the confidence at the start: 0.88


class Fused(NamedTuple):
    """Sequences after the fusion."""

    f: Float[Tensor, "batch dim"]
    confidence: Float[Tensor, "batch"]


class ConfidenceFusion(nn.Module):
    """f = γ r + (1 - γ) ψ(g): the sequence's own vector and the population's, by a confidence that sees both.

    The population is K prototypes of r, moved like k-means with momentum 0.99, in training only; with one (the paper's
    reading) the attention's softmax is 1 whatever the sequence, so that γ cannot depend on the population. In training g is the
    mean of the *other* sequences of the batch; in evaluation that of the prototypes: no answer depends on batch mates.

    Args:
        dim: of r.
        features: of x, the pooled frame features before the latent, in which picture quality can be seen.
        tokens: K.
    """

    tokens: Tensor
    count: Tensor

    def __init__(self, dim: int, features: int, tokens: int = 16, keep: float = 0.99) -> None:
        super().__init__()
        self.keep = keep
        self.register_buffer("tokens", torch.zeros(tokens, dim))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.query, self.key, self.value = nn.Linear(features, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.score = nn.Sequential(nn.Linear(features + dim, 64), nn.GELU(), nn.Linear(64, 1))
        nn.init.zeros_(self.score[2].weight)  # type: ignore[arg-type]
        nn.init.constant_(self.score[2].bias, OPEN)  # type: ignore[arg-type]
        self.psi = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        nn.init.zeros_(self.psi[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.psi[2].bias)  # type: ignore[arg-type]

    def forward(self, r: Float[Tensor, "batch dim"], x: Float[Tensor, "batch features"]) -> Fused:
        """Fuse; in training the prototypes have moved with the batch afterwards."""
        tokens = self.tokens.clone()  # the gradient needs them as they were before the update
        population = tokens.mean(0).expand_as(r)
        if self.training and len(r) > 1:
            population = ((r.sum(0) - r) / (len(r) - 1)).detach()
        attention = (self.query(x) @ self.key(tokens).T / r.shape[1] ** 0.5).softmax(1) @ self.value(tokens)
        score = self.score(torch.cat([x, attention], 1)).squeeze(1)
        confidence = score.float().sigmoid().clamp(EDGE, 1 - EDGE)
        share = confidence[:, None].to(r.dtype)
        if self.training:
            self.update(r.detach())
        return Fused(share * r + (1 - share) * (population + self.psi(population)), confidence)

    @torch.no_grad()
    def update(self, r: Float[Tensor, "batch dim"]) -> None:
        """Move the prototypes; the first batch gives them their places."""
        r = r.float()
        if self.count == 0:
            picks = torch.arange(len(self.tokens), device=r.device) % len(r)
            self.tokens.copy_(r[picks])
        near = torch.cdist(r, self.tokens).argmin(1)
        for token in near.unique().tolist():
            self.tokens[token].mul_(self.keep).add_((1 - self.keep) * r[near == token].mean(0))
        self.count += 1


def confident_loss(
    loss: Float[Tensor, "batch"],
    confidence: Float[Tensor, "batch"],
    objective: Literal["attenuated", "paper"] = "attenuated",
    strength: float = 0.1,
    plain: float = 0.5,
    sparsity: float = 0.0,
) -> Float[Tensor, ""]:
    """The task's loss of every sequence, weighted by its confidence (formula 36), beside a share of the unweighted loss.

    "attenuated": γ ℓ - λ log γ, best at min(1, λ / ℓ): λ is the loss that full confidence tolerates. "paper": γ ℓ - λ H(γ),
    best at σ(-ℓ / λ), never above a half. Without the unweighted share, rare hard classes would be given up.

    Args:
        strength: λ, in units of the loss.
        plain: share of the unweighted loss.
    """
    g = confidence.clamp(EDGE, 1 - EDGE)
    if objective == "attenuated":
        price = -strength * g.log()
    else:
        price = strength * (g * g.log() + (1 - g) * (1 - g).log())
    return (plain * (g * loss + price) + (1 - plain) * loss + sparsity * g).mean()
