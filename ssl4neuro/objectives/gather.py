"""All-gather with gradients across processes, for local batches of any size.

Two ways of sharing a loss give exactly the gradient of one process that holds the union of the batches, once
DistributedDataParallel has averaged the gradients over processes:

- each process scores *its* samples against everybody's: the sum over its samples times `world / samples of all` (`mean`);
- each process computes the *whole* loss from the gathered samples (small losses only).

Both rest on the backward pass of `gather`, which sums what every process says about a sample and hands it to its owner.
Without torch.distributed, or with one process, everything here is the identity. All functions are collective: every
process calls them in the same order, also with no sample of its own.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable


class Shards(NamedTuple):
    """How many samples each process holds, and which process this is."""

    sizes: tuple[int, ...]
    rank: int

    @property
    def world(self) -> int:
        return len(self.sizes)

    @property
    def total(self) -> int:
        return sum(self.sizes)

    @property
    def mine(self) -> slice:
        """Where this process's samples are among the gathered ones."""
        start = sum(self.sizes[: self.rank])
        return slice(start, start + self.sizes[self.rank])


def shards(count: int, device: torch.device) -> Shards:
    """The number of samples in every process; `count` is this process's own."""
    if not _distributed():
        return Shards((count,), 0)
    own = torch.tensor([count], device=device)
    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(found, own)
    return Shards(tuple(torch.cat(found).tolist()), dist.get_rank())


def gather(x: Shaped[Tensor, "sample *rest"], parts: Shards) -> Shaped[Tensor, "total *rest"]:
    """Samples of all processes in order of rank. `x` has `parts.sizes[parts.rank]` samples; gradients flow to their owners."""
    if parts.world == 1 or parts.total == 0:
        return x
    return _Gather.apply(x, parts)


def total(x: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Sum over processes, without gradient."""
    x = x.detach().clone()
    if _distributed():
        dist.all_reduce(x)
    return x


def mean(local_sum: Float[Tensor, ""], count: Float[Tensor, ""], parts: Shards) -> Float[Tensor, ""]:
    """This process's share of a mean over `count` samples of all: averaged over processes, it is the mean over samples."""
    return local_sum * (parts.world / count)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: Shards) -> Tensor:
        ctx.parts = parts
        padded = x.new_zeros(max(parts.sizes), *x.shape[1:])  # all_gather wants equal shapes
        padded[: len(x)] = x
        found = [torch.empty_like(padded) for _ in parts.sizes]
        dist.all_gather(found, padded)
        return torch.cat([part[:size] for part, size in zip(found, parts.sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        summed = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed[ctx.parts.mine], None
