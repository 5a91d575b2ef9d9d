"""Pre-norm transformer blocks with masked attention, shared by the tubelet and the temporal transformer."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention through `scaled_dot_product_attention`.

    Args:
        dim: features; must be a multiple of `heads`.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim ({dim}) must be a multiple of heads ({heads})")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], mask: Bool[Tensor, "batch 1 1 tokens"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """`mask` is False at tokens that nobody may look at."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a two-layer GELU network, each on normalised input and added to it."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0):
        super().__init__()
        hidden = round(dim * mlp_ratio)
        self.norm1, self.attention = nn.LayerNorm(dim, eps=1e-6), Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], mask: Bool[Tensor, "batch 1 1 tokens"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """Same shape as `x`."""
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


def attention_mask(valid: Bool[Tensor, "batch tokens"] | None) -> Bool[Tensor, "batch 1 1 tokens"] | None:
    """Which tokens may be looked at; None where all may (the fused kernels are fastest without a mask).

    A row without any valid token looks at all of them: attention over nothing is NaN, and its result is discarded anyway.
    """
    if valid is None or bool(valid.all()):
        return None
    return (valid | ~valid.any(1, keepdim=True))[:, None, None]


def initialise(module: nn.Module) -> None:
    """Xavier-uniform matrices and zero biases, as in the masked autoencoders (He et al., CVPR 2022)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def valid_mean(
    tokens: Float[Tensor, "batch tokens dim"], valid: Bool[Tensor, "batch tokens"] | None
) -> Float[Tensor, "batch dim"]:
    """Mean over valid tokens; 0 where there is none."""
    if valid is None:
        return tokens.mean(1)
    weight = valid.to(tokens.dtype)[:, :, None]
    return (tokens * weight).sum(1) / weight.sum(1).clamp_min(1)


def keep_valid(
    tokens: Float[Tensor, "batch tokens dim"], valid: Bool[Tensor, "batch tokens"] | None
) -> Float[Tensor, "batch tokens dim"]:
    """Tokens with zeros at the invalid ones."""
    return tokens if valid is None else torch.where(valid[:, :, None], tokens, 0.0)
