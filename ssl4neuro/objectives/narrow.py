"""A small transformer that says what stands at the hidden places of a clip, from the encoder's tokens of the visible ones.

The decoder of masked clip modelling and the predictor of latent prediction.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.objectives.clips import Encoders
from ssl4neuro.objectives.tubes import Grid, grid_positions


class Context(NamedTuple):
    """Other embeddings that a clip may look at."""

    values: Float[Tensor, "n others dim"]
    there: Bool[Tensor, "n others"]


class NarrowTransformer(nn.Module):
    """Pre-norm transformer over all tubelets of a clip; a learned token stands at the hidden ones.

    Args:
        in_dim: of the encoder's tokens.
        out_dim: features to predict per token.
        dim, depth, heads: of this transformer; `dim` None is half of `in_dim`, a multiple of `heads`.
        looks: build cross-attention, to embeddings of `in_dim` features.
    """

    def __init__(
        self, in_dim: int, out_dim: int, dim: int | None = None, depth: int = 2, heads: int = 4, looks: bool = False
    ) -> None:
        super().__init__()
        self.dim = dim = narrow_dim(in_dim, dim, heads)
        self.enter = nn.Linear(in_dim, dim)
        self.hidden = nn.Parameter(0.02 * torch.randn(dim))
        self.look = nn.Linear(in_dim, dim) if looks else None
        self.nobody = nn.Parameter(0.02 * torch.randn(dim)) if looks else None
        self.blocks = nn.ModuleList([Block(dim, heads, looks) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.leave = nn.Linear(dim, out_dim)

    def forward(
        self,
        tokens: Float[Tensor, "n kept in_dim"],
        keep: Int[Tensor, "n kept"],
        hidden: Bool[Tensor, "n tokens"],
        valid: Bool[Tensor, "n tokens"],
        grid: Grid,
        context: Context | None = None,
    ) -> Float[Tensor, "predicted out_dim"]:
        """Predictions at the hidden tokens of all clips, in the order of `hidden.nonzero()`.

        Tokens that are neither kept nor hidden, and padding, are attended to by nobody.
        """
        entered = self.enter(tokens.to(self.enter.weight.dtype)).to(self.hidden.dtype)
        x = self.hidden.expand(*hidden.shape, -1).scatter(1, keep[..., None].expand(-1, -1, self.dim), entered)
        x = x + grid_positions(grid, self.dim, x.device).to(x.dtype)
        keys = (torch.zeros_like(hidden).scatter(1, keep, True) | hidden) & valid
        others = None if context is None else self._others(context)
        for block in self.blocks:
            x = block(x, keys, others)
        return self.leave(self.norm(x[hidden]))

    def _others(self, context: Context) -> Context:
        """What there is to look at, in this transformer's features, behind a learned one for those who have nobody."""
        assert self.look is not None
        assert self.nobody is not None
        values = self.look(context.values.to(self.look.weight.dtype)).to(self.nobody.dtype)
        values = torch.cat([self.nobody.expand(len(values), 1, -1), values], dim=1)
        return Context(values, nn.functional.pad(context.there, (1, 0), value=True))


class Block(nn.Module):
    """Self-attention, cross-attention if wanted, and a two-layer network, each added to its input."""

    def __init__(self, dim: int, heads: int, looks: bool) -> None:
        super().__init__()
        self.own = Attention(dim, heads)
        self.cross = Attention(dim, heads) if looks else None
        self.think = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(
        self, x: Float[Tensor, "n tokens dim"], keys: Bool[Tensor, "n tokens"], others: Context | None
    ) -> Float[Tensor, "n tokens dim"]:
        x = x + self.own(x, None, keys)
        if self.cross is not None and others is not None:
            x = x + self.cross(x, others.values, others.there)
        return x + self.think(x)


class Attention(nn.Module):
    """Multi-head attention with the norm in front; keys are `others`, or the normalised input itself."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.ask, self.tell, self.leave = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "n tokens dim"],
        others: Float[Tensor, "n others dim"] | None,
        there: Bool[Tensor, "n others"],
    ) -> Float[Tensor, "n tokens dim"]:
        x = self.norm(x)
        key, value = self.tell(x if others is None else others).chunk(2, dim=-1)
        there = there | ~there.any(1, keepdim=True)  # a softmax over nothing is NaN; such a clip predicts nothing
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.ask(x), key, value))
        found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None, :])
        return self.leave(found.transpose(1, 2).flatten(2))


def narrow_dim(in_dim: int, dim: int | None, heads: int) -> int:
    """`dim`, or half of `in_dim` as a multiple of `heads`.

    Raises:
        ValueError: not a multiple of `heads`, or too few features for three axes of positions.
    """
    if dim is None:
        dim = max(in_dim // 2 // heads, -(-6 // heads)) * heads
    if dim < 6 or dim % heads:
        raise ValueError(f"dim must be a multiple of heads ({heads}) and 6 or more, got {dim}")
    return dim


def check_lighter(name: str, narrow: nn.Module, encoder: nn.Module) -> None:
    """Raises ValueError unless `narrow` has fewer parameters than the encoder: the encoder is to do the work."""
    sizes = [sum(p.numel() for p in module.parameters()) for module in (narrow, encoder)]
    if sizes[0] >= sizes[1]:
        raise ValueError(
            f"{name} ({sizes[0]:,} parameters) must be lighter than the encoder ({sizes[1]:,}); lower its dim or depth"
        )


def check_maskable(name: str, on: str, encoders: Encoders) -> None:
    """Raises ValueError unless the modality `on` has an encoder that can leave tokens out."""
    if on not in encoders:
        raise ValueError(f"{name}: no modality '{on}' in this recipe; name one with `on`")
    encoder = encoders[on]
    if not all(hasattr(encoder, wanted) for wanted in ("patch", "grid", "patches", "token_valid")):
        raise ValueError(f"{name}: the encoder of '{on}', {type(encoder).__name__}, cannot leave tubelets out; use tubelet_vit")
