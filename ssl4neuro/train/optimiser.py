"""Optimiser and learning-rate schedule; the rate is a pure function of the step, so nothing of it needs saving."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

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
    betas: tuple[float, float] = (0.9, 0.999)  # adamw and adam
    encoder_factor: float = 1.0  # of the learning rate for pretrained encoders under a head

    def __post_init__(self) -> None:
        if self.rate <= 0 or not 0 <= self.warmup < 1 or self.accumulate < 1:
            raise ValueError("optimiser: rate must be positive, warmup a share in [0, 1), accumulate at least 1")
        if self.encoder_factor < 0:
            raise ValueError("optimiser.encoder_factor is a factor of the rate, 0 or more")


def build_optimiser(module: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Optimiser over the trainable parameters, in groups: with and without weight decay, head and encoders.

    A module with `encoder_parameters` (identities) has its encoders at `encoder_factor` of the rate.
    """
    own: set[int] = getattr(module, "encoder_parameters", set)()
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in trainable if (p.ndim > 1) == matrix and (id(p) in own) == encoder],
            "weight_decay": config.weight_decay if matrix else 0.0,
            "scale": config.encoder_factor if encoder else 1.0,
        }
        for encoder in (False, True)
        for matrix in (True, False)
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.rate, betas=config.betas)
    if config.name == "adam":
        return torch.optim.Adam(groups, lr=config.rate, betas=config.betas)
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
    """Give every parameter group the learning rate, times the group's own factor."""
    groups: Iterable[dict[str, Any]] = optimiser.param_groups
    for group in groups:
        group["lr"] = rate * group.get("scale", 1.0)
