"""Optimiser and learning-rate schedule; the rate is a pure function of the step, so nothing of it needs saving."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class OptimiserConfig:
    """How weights are updated."""

    name: Literal["adamw", "adam", "sgd", "lars"] = "adamw"
    rate: float = 3e-4  # peak learning rate
    weight_decay: float = 1e-2  # not applied to biases and normalisation layers
    momentum: float = 0.9  # sgd and lars
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.05  # share of all steps
    clip: float | None = 1.0  # largest gradient norm; null switches clipping off
    accumulate: int = 1  # batches per weight update

    def __post_init__(self) -> None:
        if self.rate <= 0 or not 0 <= self.warmup < 1 or self.accumulate < 1:
            raise ValueError("optimiser: rate must be positive, warmup a share in [0, 1), accumulate at least 1")


def build_optimiser(module: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Optimiser over the trainable parameters, in two groups: with and without weight decay."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.rate)
    if config.name == "adam":
        return torch.optim.Adam(groups, lr=config.rate)
    if config.name == "lars":
        from lightly.utils.lars import LARS

        return LARS(groups, lr=config.rate, momentum=config.momentum)
    return torch.optim.SGD(groups, lr=config.rate, momentum=config.momentum)


def rate_at(step: int, steps: int, config: OptimiserConfig) -> float:
    """Learning rate of update `step` (from 0) of `steps`."""
    from lightly.utils.scheduler import cosine_schedule

    warmup = round(config.warmup * steps)
    if step < warmup:
        return config.rate * (step + 1) / warmup
    if config.schedule == "constant":
        return config.rate
    done, length = step - warmup, max(steps - warmup, 1)
    if config.schedule == "linear":
        return config.rate * (1 - done / length)
    return cosine_schedule(step=done, max_steps=length + 1, start_value=config.rate, end_value=0.0)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same learning rate."""
    groups: Iterable[dict[str, object]] = optimiser.param_groups
    for group in groups:
        group["lr"] = rate
