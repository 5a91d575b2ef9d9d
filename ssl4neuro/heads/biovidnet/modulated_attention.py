"""Causal attention over frames that the context modulates (methods/biovidnet.md §6, formulas 17, 18 and 20)."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.encoders.temporal import sinusoids

PERIODS = (2.0, 1000.0)  # median intervals: from the shortest that frames can show


class Seen(NamedTuple):
    """Keys and values of the frames so far, one pair per block: what streaming keeps."""

    keys: tuple[Float[Tensor, "batch heads past head"], ...]
    values: tuple[Float[Tensor, "batch heads past head"], ...]


class ModulatedAttention(nn.Module):
    """Multi-head attention whose queries the context shifts (formula 20), or scales and shifts (`film`).

    Additively, the logits gain (W_c c)·k_j / √d_h, alike for every query: the context re-weights frames; the residual network
    adds what depends on the query. All of it is 0 at initialisation: the attention is then the ordinary one, exactly.

    Args:
        dim: features; a multiple of `heads`.
        context: features of the context vector.
    """

    def __init__(
        self, dim: int, heads: int, context: int, modulation: Literal["additive", "film", "none"] = "additive"
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim ({dim}) must be a multiple of heads ({heads})")
        self.heads, self.modulation = heads, modulation
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        if modulation == "additive":
            self.shift = nn.Linear(context, dim, bias=False)
            self.residual = nn.Sequential(nn.Linear(dim + context, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim))
            last: list[nn.Linear] = [self.shift, self.residual[2]]  # type: ignore[list-item]
        elif modulation == "film":
            self.film = nn.Linear(context, 2 * dim)
            last = [self.film]
        else:
            last = []
        for layer in last:
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def queries(
        self, x: Float[Tensor, "batch time dim"], context: Float[Tensor, "batch context"]
    ) -> Float[Tensor, "batch time dim"]:
        """Modulated queries."""
        q = self.query(x)
        if self.modulation == "additive":
            c = context[:, None].expand(-1, x.shape[1], -1)
            return q + self.shift(c) + self.residual(torch.cat([q, c], 2))
        if self.modulation == "film":
            scale, shift = self.film(context)[:, None].chunk(2, 2)
            return (1 + scale) * q + shift
        return q

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        context: Float[Tensor, "batch context"],
        mask: Bool[Tensor, "batch 1 time all"] | None = None,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], Tensor, Tensor]:
        """The result, and the keys and values of all frames so far. `mask` is True where a query may look."""
        q, k, v = (
            t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (self.queries(x, context), self.key(x), self.value(x))
        )
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2)), k, v


class ModulatedBlock(nn.Module):
    """Pre-norm block: modulated attention, then a two-layer network, each added to its input."""

    def __init__(
        self, dim: int, heads: int, context: int, dropout: float, modulation: Literal["additive", "film", "none"]
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = ModulatedAttention(dim, heads, context, modulation)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim), nn.Dropout(dropout)
        )
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, context: Tensor, mask: Tensor | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As the attention."""
        y, k, v = self.attention(self.norm1(x), context, mask, past)
        x = x + self.drop(y)
        return x + self.mlp(self.norm2(x)), k, v


class CausalEncoder(nn.Module):
    """Frame features in the context of the frames before them: h_t depends on frames 1 to t alone.

    Args:
        dim: features of a frame; even and a multiple of `heads`.
        context: of the context vector.
        causal: False lets every frame see all, for work that is not in real time.
    """

    def __init__(
        self,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        context: int = 64,
        dropout: float = 0.1,
        modulation: Literal["additive", "film", "none"] = "additive",
        causal: bool = True,
    ) -> None:
        super().__init__()
        self.dim, self.causal = dim, causal
        self.first_norm, self.last_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(ModulatedBlock(dim, heads, context, dropout, modulation) for _ in range(depth))

    def forward(
        self,
        s: Float[Tensor, "batch time dim"],
        clock: Float[Tensor, "batch time"],
        context: Float[Tensor, "batch context"],
        valid: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time dim"]:
        """h_t; 0 at frames that are not valid. `clock` in median intervals."""
        frames = s.shape[1]
        own = torch.eye(frames, dtype=torch.bool, device=s.device)  # everybody may see itself: attention over nothing is NaN
        mask = valid[:, None, None] | own
        if self.causal:
            mask = mask & torch.ones(frames, frames, dtype=torch.bool, device=s.device).tril()
        x = self._enter(s, clock)
        for block in self.blocks:
            x, _, _ = block(x, context, mask, None)
        return self.last_norm(x) * valid[:, :, None]

    def step(
        self,
        s: Float[Tensor, "batch 1 dim"],
        clock: Float[Tensor, "batch 1"],
        context: Float[Tensor, "batch context"],
        seen: Seen | None,
    ) -> tuple[Float[Tensor, "batch 1 dim"], Seen]:
        """The next frame of a stream, given what was seen; equal to `forward` on the whole clip.

        Raises:
            ValueError: the encoder is not causal.
        """
        if not self.causal:
            raise ValueError("only a causal encoder can stream: it was built with causal=False")
        x, keys, values = self._enter(s, clock), [], []
        for number, block in enumerate(self.blocks):
            past = None if seen is None else (seen.keys[number], seen.values[number])
            x, k, v = block(x, context, None, past)
            keys.append(k)
            values.append(v)
        return self.last_norm(x), Seen(tuple(keys), tuple(values))

    def _enter(self, s: Tensor, clock: Tensor) -> Tensor:
        return self.first_norm(s) + sinusoids(clock, self.dim, PERIODS).to(s.dtype)
