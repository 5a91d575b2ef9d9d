"""Run as `two_processes.py RANK FOLDER`: gradients of each case under DistributedDataParallel, written by process 0.

The union batch is dealt out unevenly, once so that process 1 has no sample with both modalities.
"""

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from objective_fakes import CASES, FakeModel, build_case, case_batch, make_batch, take
from safetensors.torch import save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl4neuro.objectives import NoNegatives, gather, tubes

SPLIT = 20  # of 32 rows; a boundary between sessions


class Scored(nn.Module):
    """Model and objective in one module, as DistributedDataParallel wants it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = FakeModel()
        self.objective = build_case(name, self.model).double()

    def forward(self, batch: dict) -> torch.Tensor:
        return self.objective(self.model, batch)["loss"]


def gradients(name: str, batch: dict, wrap: bool) -> dict[str, torch.Tensor]:
    """Gradient of every parameter, zero where it has none, and the loss."""
    module = Scored(name)
    model = DistributedDataParallel(module, find_unused_parameters=True) if wrap else module
    with one_generator():
        loss = model(batch)
    loss.backward()
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in module.named_parameters()}
    return {"loss": loss.detach().clone(), **found}


@contextmanager
def one_generator() -> Iterator[None]:
    """Every process draws the numbers that one process with all clips would draw for its own, instead of independent ones."""
    call = itertools.count()

    def uniform(count: int, *rest: int) -> torch.Tensor:
        parts = gather.shards(count, torch.device("cpu"))
        generator = torch.Generator().manual_seed(next(call))
        return torch.rand(parts.total, *rest, generator=generator)[parts.mine]

    with mock.patch.object(tubes, "uniform", uniform):
        yield


def union(kind: str, name: str) -> dict:
    """The batch of both processes together."""
    batch = case_batch(name)
    if kind == "lopsided":
        batch["present"]["course" if "course" in batch["present"] else "cine"][SPLIT:] = False
        batch["targets"]["state"][SPLIT:] = -1
    return batch


def lopsided(name: str) -> bool:
    """Whether the case still has something to compare when process 1 has nothing."""
    return not name.startswith(("paired", "change_aware"))


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = slice(0, SPLIT) if rank == 0 else slice(SPLIT, None)
    for kind in ("uneven", "lopsided"):
        for name in CASES:
            if kind == "lopsided" and not lopsided(name):
                continue
            found = gradients(name, take(union(kind, name), rows), wrap=True)
            dist.all_reduce(found["loss"])
            found["loss"] /= 2
            if rank == 0:
                save_file(found, folder / f"{kind}-{name}.safetensors")
    one_subject = take(make_batch(subjects=1, absent=False), slice(0, 5) if rank == 0 else slice(5, None))
    try:
        build_case("infonce")(FakeModel(), one_subject)
    except NoNegatives as error:
        (folder / f"rows-{rank}.txt").write_text(" ".join(map(str, error.rows)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
