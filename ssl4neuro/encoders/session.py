"""Courses of a session seen together: one output per component and one for the session (DESIGN §8).

One component's course says little about which component it is or whose; the correlations among the courses do. They enter
twice: as the relation of a set transformer (so that a component is recognised by its partners), and in the session's readout,
which reorders them by learned prototypes into a matrix of fixed size. Nothing depends on the order or number of components.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.encoders.connectivity import NODE_STATISTICS, node_statistics
from ssl4neuro.encoders.course import CourseConv
from ssl4neuro.encoders.readout import SetReadout, relations
from ssl4neuro.encoders.setlayout import SetLayout
from ssl4neuro.types import Encoding


class CourseSession(nn.Module):
    """Encode the courses [N, T] of one or more sessions; `group` says which rows belong together.

    Args:
        dim: length of both outputs.
        channels: of the course network that all components share.
        spectrum_dim: of its spectrum branch.
        bands: of its spectrum branch, at least 1.
        layers: of the set transformer; 0 leaves each component alone.
        heads: of its attention; must divide `dim`.
        networks: number of prototypes, the size of the reordered connectivity matrix.
        max_components: largest session (memory grows with its square).
    """

    PRESETS: dict[str, dict[str, Any]] = {
        "tiny": {"dim": 64, "channels": (16, 32, 32, 48), "spectrum_dim": 32, "layers": 2, "networks": 32},
        "small": {"dim": 128},
        "base": {
            "dim": 256,
            "channels": (64, 128, 128, 192),
            "spectrum_dim": 128,
            "layers": 4,
            "heads": 8,
            "networks": 96,
        },
    }

    def __init__(
        self,
        dim: int = 128,
        channels: tuple[int, ...] = (32, 64, 64, 96),
        spectrum_dim: int = 64,
        bands: int = 32,
        layers: int = 3,
        heads: int = 4,
        networks: int = 64,
        max_components: int = 512,
    ):
        super().__init__()
        if bands < 1:
            raise ValueError(f"bands must be at least 1, got {bands}")
        if dim % heads:
            raise ValueError(f"dim ({dim}) must be a multiple of heads ({heads})")
        self.dim, self.max_components = dim, max_components
        self.course = CourseConv(dim=dim, channels=channels, bands=bands, spectrum_dim=spectrum_dim)
        self.statistics = nn.Sequential(nn.Linear(NODE_STATISTICS, dim), nn.GELU(), nn.Linear(dim, dim))
        self.layers = nn.ModuleList(_SetLayer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, dim)
        self.readout = SetReadout(dim, dim, networks)
        self.mean = nn.Linear(dim, dim)
        # The mean spectrum is the most personal thing that needs no component recognised: it reaches the session unmixed.
        self.spectrum = nn.Linear(2 * bands, dim)

    def forward(
        self,
        x: Float[Tensor, "batch time"],
        valid: Bool[Tensor, "batch time"] | None = None,
        rate: Float[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
        times: Tensor | None = None,
    ) -> Encoding:
        """`pooled` per course and `session` (the same for all rows of a group).

        Two augmented views of a scan are two sessions: give them different codes. None means that all rows are one session.

        Raises:
            ValueError: fewer than 32 time points, or more courses in a session than `max_components`.
        """
        valid = torch.ones_like(x, dtype=torch.bool) if valid is None else valid
        layout, member, z = relations(x, valid, group, self.max_components)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            statistics = node_statistics(z, member)
        h = layout.pad(self.course(x, valid, rate).pooled.float()) + self.statistics(statistics).float()
        h = h * member[:, :, None]
        for layer in self.layers:
            h = layer(h, z, member)
        h = self.norm(h) * member[:, :, None]
        count = member.sum(1, keepdim=True).clamp_min(1)
        session = self.readout(h, z, member) + self.mean(h.sum(1) / count)
        session = session + self._mean_spectrum(x, valid, rate, layout, member)
        return Encoding(pooled=layout.unpad(self.head(h)), session=session[layout.which])

    def _mean_spectrum(
        self, x: Tensor, valid: Tensor, rate: Tensor | None, layout: SetLayout, member: Tensor
    ) -> Float[Tensor, "sets dim"]:
        assert self.course.spectrum is not None  # bands >= 1
        features = layout.pad(self.course.spectrum.features(x, valid, rate)) * member[:, :, None]
        return self.spectrum(features.sum(1) / member.sum(1, keepdim=True).clamp_min(1))


class _SetLayer(nn.Module):
    """Pre-norm attention whose logits know the correlation of each pair, signed messages along it, and a feed-forward block."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project = nn.Linear(dim, 4 * dim)
        self.bias = nn.Sequential(nn.Linear(2, 16), nn.GELU(), nn.Linear(16, heads, bias=False))
        self.mix = nn.Linear(2 * dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, h: Tensor, z: Tensor, member: Tensor) -> Tensor:
        query, key, value, signed = self.project(self.norm1(h)).chunk(4, dim=2)
        query, key, value = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (query, key, value))
        bias = self.bias(torch.stack([z, z.abs()], dim=3)).permute(0, 3, 1, 2)
        itself = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)  # leaves no row without a key
        bias = bias.masked_fill(~(member[:, None, None, :] | itself), -torch.inf)
        attended = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype)).transpose(1, 2).flatten(2)
        # Softmax weights are positive: what an anticorrelated partner means needs the sign, as in a linear graph network.
        degree = z.abs().sum(2, keepdim=True).clamp_min(1e-3)
        message = (z / degree).to(signed.dtype) @ signed
        h = h + self.mix(torch.cat([attended, message], dim=2))
        return (h + self.feed(self.norm2(h))) * member[:, :, None]
