"""The small classifier of the network-state study: before or after the operation, from one component (network_state.md §5)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

IDENTITY = 16  # length of the code of a network where one head serves all


@dataclass(frozen=True)
class HeadConfig:
    """The head and its training.

    Raises:
        ValueError: a value out of range.
    """

    hidden: int = 64
    dropout: float = 0.3
    rate: float = 5e-4  # Adam
    weight_decay: float = 1e-5
    batch_size: int = 32
    epochs: int = 100  # at most
    patience: int = 10  # epochs without a better inner split
    ensemble: int = 3  # heads that differ in their start alone, and whose logits are averaged

    def __post_init__(self) -> None:
        if min(self.hidden, self.epochs, self.patience, self.ensemble) < 1 or self.batch_size < 2:
            raise ValueError("hidden, epochs, patience and ensemble must be 1 or more, batch_size 2 or more")
        if not 0 <= self.dropout < 1 or self.rate <= 0 or self.weight_decay < 0:
            raise ValueError("dropout must lie in [0, 1), rate above 0, weight_decay at 0 or above")


class NetworkStateHead(nn.Module):
    """Batch norm, linear, GELU, dropout, linear: features [N, dim] to one logit [N], above 0 for the later state.

    Args:
        dim: number of features.
        networks: how many networks share the head; each then gets a learned code of length 16, which joins the features here
            and not in the encoder, where it would make separating networks trivial. 0: the head serves one network.
        gain: initial weight of every feature behind the normalisation, 1 without it.
    """

    def __init__(
        self,
        dim: int,
        hidden: int = 64,
        dropout: float = 0.3,
        networks: int = 0,
        gain: Float[Tensor, "dim"] | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)
        if gain is not None:
            with torch.no_grad():
                self.norm.weight.copy_(gain)
        self.identity = nn.Embedding(networks, IDENTITY) if networks else None
        self.layers = nn.Sequential(
            nn.Linear(dim + (IDENTITY if networks else 0), hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
        )

    def forward(self, x: Float[Tensor, "batch dim"], network: Int[Tensor, "batch"] | None = None) -> Float[Tensor, "batch"]:
        """`network` holds codes 0..networks-1; only a shared head reads it.

        Raises:
            ValueError: a shared head without them.
        """
        x = self.norm(x)
        if self.identity is not None:
            if network is None:
                raise ValueError("a head that networks share needs to know the network of every row")
            x = torch.cat([x, self.identity(network)], dim=1)
        return self.layers(x)[:, 0]
