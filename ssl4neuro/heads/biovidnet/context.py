"""What is known of a subject besides the pictures, as one vector (methods/biovidnet.md §6, formula 19)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl4neuro.errors import UserError

CATEGORY_DIM = 8


class ContextEncoder(nn.Module):
    """Numbers (age, TR, field strength) and categories (sex, site), each of which may be missing.

    The label, and whatever was recorded because of it, must not be among them.

    Args:
        numbers: how many.
        categories: levels of each category; one more, for an unknown level, is added.
        dim: of the context vector.
        dropout: share of the samples that see no context in training, so that the network answers without any.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, numbers: int = 0, categories: Sequence[int] = (), dim: int = 64, dropout: float = 0.15) -> None:
        super().__init__()
        self.numbers, self.categories, self.dim, self.dropout = numbers, tuple(categories), dim, dropout
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("spread", torch.ones(numbers))
        self.embeddings = nn.ModuleList(nn.Embedding(levels + 1, CATEGORY_DIM) for levels in categories)
        width = 2 * numbers + CATEGORY_DIM * len(self.categories)
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, dim), nn.LayerNorm(dim)) if width else None
        self.nothing = nn.Parameter(0.02 * torch.randn(dim))

    def fit(self, numbers: Float[Tensor, "samples numbers"]) -> None:
        """Take mean and spread of each number from the training samples (NaN where missing); the checkpoint keeps them.

        Raises:
            UserError: a number that no training sample has.
        """
        known = numbers.isfinite()
        missing = (~known.any(0)).nonzero().flatten().tolist()
        if missing:
            raise UserError(f"context: number {missing[0] + 1} is missing in every training subject; leave it out")
        mean = torch.where(known, numbers, 0).sum(0) / known.sum(0)
        variance = torch.where(known, (numbers - mean) ** 2, 0).sum(0) / known.sum(0)
        self.mean.copy_(mean)
        self.spread.copy_(variance.sqrt().clamp_min(1e-6))

    def forward(
        self,
        batch: int,
        numbers: Float[Tensor, "batch numbers"] | None = None,
        categories: Int[Tensor, "batch categories"] | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """One vector per sample; NaN and -1 are missing. Without any context everybody gets the learned null vector."""
        nothing = self.nothing.expand(batch, -1)
        if self.mlp is None or (numbers is None and categories is None):
            return nothing
        parts = []
        if self.numbers:
            given = self.nothing.new_full((batch, self.numbers), torch.nan) if numbers is None else numbers
            there = given.isfinite()
            parts += [torch.where(there, (given - self.mean) / self.spread, 0.0), (~there).to(self.nothing.dtype)]
        for column, (levels, embedding) in enumerate(zip(self.categories, self.embeddings, strict=True)):
            code = torch.full((batch,), -1, device=nothing.device) if categories is None else categories[:, column]
            parts.append(embedding(torch.where((code >= 0) & (code < levels), code, levels)))
        context = self.mlp(torch.cat(parts, 1))
        if self.training and self.dropout:
            dropped = torch.rand(batch, 1, device=context.device) < self.dropout
            context = torch.where(dropped, nothing, context)
        return context
