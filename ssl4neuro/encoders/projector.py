"""Projection heads between an encoder and a contrastive loss; dropped after pretraining."""

import itertools
from typing import Any, Literal

from jaxtyping import Float
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn


class MLPProjector(nn.Module):
    """Linear, norm, activation, ..., Linear (SimCLR, Chen et al., ICML 2020), from lightly's building block.

    Layer norm by default: batch norm mixes samples, which small batches of few subjects do not stand.

    Args:
        in_dim: length of the encoder's output.
        dim: length of the projection.
        hidden: width of the hidden layers.
        layers: linear layers in total, at least 1.
        norm: `layer`, `batch` or `none`.
        activation: `gelu` or `relu`.
    """

    PRESETS: dict[str, dict[str, Any]] = {
        "tiny": {"dim": 32, "hidden": 64},
        "small": {"dim": 64, "hidden": 128},
        "base": {"dim": 128, "hidden": 512},
        "author": {"dim": 32, "hidden": 64, "norm": "none", "activation": "relu"},
    }

    def __init__(
        self,
        in_dim: int,
        dim: int = 64,
        hidden: int = 128,
        layers: int = 2,
        norm: Literal["layer", "batch", "none"] = "layer",
        activation: Literal["gelu", "relu"] = "gelu",
    ):
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.dim = dim
        norms = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "none": None}
        activations = {"gelu": nn.GELU, "relu": nn.ReLU}
        widths = [in_dim] + [hidden] * (layers - 1)
        blocks: list[Any] = []
        for a, b in itertools.pairwise(widths):
            make = norms[norm]
            blocks.append((a, b, make(b) if make is not None else None, activations[activation]()))
        self.head = ProjectionHead([*blocks, (widths[-1], dim, None, None)])

    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch dim"]:
        """Not normalised: the losses do that."""
        return self.head(x)


class Identity(nn.Module):
    """No projection: the objective shapes the embedding itself, as where a part of it gets a meaning (change-aware pairing)."""

    def __init__(self, in_dim: int):
        super().__init__()
        self.dim = in_dim

    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """The embedding."""
        return x
