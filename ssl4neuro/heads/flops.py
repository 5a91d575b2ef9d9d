"""What a forward pass costs, counted without doing it."""

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


def forward_gflop(head: nn.Module, shape: tuple[int, ...]) -> dict[str, float]:
    """GFLOP (2 per multiplication and addition) of a forward pass of clips of this shape, by name of submodule; "": all.

    Only shapes are computed, on torch's `meta` device.
    """
    named = [*head.named_parameters(remove_duplicate=False), *head.named_buffers(remove_duplicate=False)]
    state = {name: tensor.detach().to("meta") for name, tensor in named}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(head, state, (torch.empty(shape, device="meta"),))
    root = type(head).__name__
    return {
        name.removeprefix(root).removeprefix("."): sum(counts.values()) / 1e9
        for name, counts in counter.get_flop_counts().items()
        if name == root or name.startswith(f"{root}.")
    }
