"""One contrastive-like step of the clip encoders (forward, backward, SGD) against plain torchvision r3d_18 in float32.

    python tests/benchmarks/bench_clip_encoder.py [--pairs 2] [--frames 16] [--side 64] [--steps 2] [--threads 2] [--half]

A pair is two clips of one subject; the loss is InfoNCE of the pairs. All ways take turns in one process, so that other load
hits all alike, and each counts by its fastest step after a warm-up. `--half` adds bfloat16, which takes minutes per step on
processors without instructions for it. The ratio of the best of ours to torchvision's is what `--precision auto` can gain.
"""

import argparse
import itertools
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.video import r3d_18

from ssl4neuro.encoders import ENCODERS
from ssl4neuro.registry import Component, build

R3D = {"preset": "base", "dim": 128}


class Reference(nn.Module):
    """torchvision's network as published: three channels, batch norm, its own head as the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.body = r3d_18(weights=None, num_classes=128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Clips of one channel; the grey image is repeated, as users of the published stem do."""
        return self.body(x.expand(-1, 3, -1, -1, -1))


class Ours(nn.Module):
    """One of ours by name and options."""

    def __init__(self, name: str, **options: object) -> None:
        super().__init__()
        self.encoder = build(ENCODERS, Component(name, dict(options)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The embedding."""
        return self.encoder(x).pooled


def step(model: nn.Module, x: torch.Tensor, half: bool) -> Callable[[], None]:
    """A training step: rows 2i and 2i + 1 of `x` are a pair."""
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    label = torch.arange(len(x) // 2)

    def run() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            z = F.normalize(model(x).float(), dim=1)
        loss = F.cross_entropy(z[::2] @ z[1::2].T / 0.1, label)
        loss.backward()
        optimiser.step()

    return run


def measure(runs: dict[str, Callable[[], None]], steps: int) -> dict[str, float]:
    """Shortest step of each, s, after one warm-up."""
    for run in runs.values():
        run()
    rounds = [{name: timed(run) for name, run in runs.items()} for _ in range(steps)]
    return {name: min(taken[name] for taken in rounds) for name in runs}


def timed(run: Callable[[], None]) -> float:
    """Seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def candidates(x: torch.Tensor, with_half: bool) -> dict[str, Callable[[], None]]:
    """Ours: r3d_18 in every precision and layout, then the small encoders."""
    runs = {}
    for norm, half, last in itertools.product(("group", "batch"), (False, True), (False, True)):
        name = (
            f"r3d_18 of ours, {norm} norm, {'bfloat16' if half else 'float32'}, {'channels_last_3d' if last else 'contiguous'}"
        )
        if not half or (with_half and norm == "group"):
            runs[name] = step(Ours("clip", **R3D, norm=norm, channels_last=last), x, half)
    for last in (False, True):
        name = f"frame tiny, float32, {'channels_last' if last else 'contiguous'}"
        runs[name] = step(Ours("frame", preset="tiny", channels_last=last), x, half=False)
    for name in ("clip", "tubelet_vit"):
        runs[f"{name} tiny, float32"] = step(Ours(name, preset="tiny"), x, half=False)
    return runs


def main() -> None:
    """Print pairs per second and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--half", action="store_true", help="also bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    x = torch.randn(2 * arguments.pairs, 1, arguments.frames, arguments.side, arguments.side)
    reference = "torchvision r3d_18, float32"
    runs = {reference: step(Reference(), x, half=False)} | candidates(x, arguments.half)
    best = measure(runs, arguments.steps)
    print(f"{arguments.pairs} pairs of {arguments.frames}x{arguments.side}x{arguments.side}, {arguments.threads} threads")
    for name, seconds in best.items():
        print(f"{name:58s} {arguments.pairs / seconds:8.2f} pairs/s   {best[reference] / seconds:7.2f}x")


if __name__ == "__main__":
    main()
