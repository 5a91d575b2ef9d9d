"""A copy of a network that follows it slowly: an exponential moving average of its parameters, without gradient."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """Starts equal to `source`; always in evaluation mode; its parameters are in the state, but never trained.

    Args:
        decay: share of the old copy that stays in a step at the start of training; grows to 1 along a cosine (BYOL,
            arXiv 2006.07733, section 3.2).
    """

    decay: Tensor

    def __init__(self, source: nn.Module, decay: float = 0.996) -> None:
        super().__init__()
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie between 0 and 1, got {decay:g}")
        self.start = decay
        self.copy = copy.deepcopy(source).requires_grad_(False)
        self.register_buffer("decay", torch.tensor(decay))  # of the last step
        self.train()

    def train(self, mode: bool = True) -> "MovingAverage":
        """The copy neither drops anything nor counts batches, whatever the model around it does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.copy(*args, **kwargs)

    @torch.no_grad()
    def update(self, source: nn.Module, progress: float) -> None:
        """copy ← decay · copy + (1 - decay) · source; buffers are taken over. `progress`: share of training done, 0 to 1."""
        decay = decay_at(progress, self.start)
        self.decay.fill_(decay)
        for old, new in zip(self.copy.parameters(), source.parameters(), strict=True):
            old.lerp_(new.to(old.dtype), 1 - decay)
        for kept, current in zip(self.copy.buffers(), source.buffers(), strict=True):
            kept.copy_(current)


def decay_at(progress: float, start: float) -> float:
    """From `start` at 0 to 1 at the end of training, along a cosine."""
    return 1 - (1 - start) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
