"""Which normalisation a torchvision network gets, by name."""

from collections.abc import Callable
from typing import Literal

from torch import nn

GROUPS = 8
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm; group norm has none

Norm = Literal["group", "batch"]


def norm_layer(norm: Norm) -> Callable[[int], nn.Module]:
    """Builder of 2-D norms from a number of channels: group norm of at most 8 groups, or batch norm."""

    def group(channels: int) -> nn.Module:
        return nn.GroupNorm(max(g for g in range(1, GROUPS + 1) if channels % g == 0), channels)

    return group if norm == "group" else nn.BatchNorm2d
