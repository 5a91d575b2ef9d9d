"""Augmentation in batches against a loop over samples, and the time of one training step of every encoder preset.

Run: python tests/benchmarks/bench_augment.py [--batch 64] [--side 23 27 23] [--threads 2]
The reference is MONAI's RandAffine with RandGaussianNoise, one map at a time, in the same process on the same maps, doing a
comparable rotation, scale, shift (trilinear, zeros outside) and noise; ours also masks, smooths, thresholds and cuts out.
"""

import argparse
import math
import time
from collections.abc import Callable

import torch
from monai.transforms import Compose, RandAffine, RandGaussianNoise

from ssl4neuro.augment import CourseAugment, Keyed, VolumeAugment
from ssl4neuro.encoders import ENCODERS
from ssl4neuro.registry import Component, build


def shortest(repeats: int, *runs: Callable[[], object]) -> list[float]:
    """Shortest of several runs of each, s; taken in turn, so that other load on the machine hits all alike."""
    times: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats + 1):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            if repeat:  # the first is a warm-up
                taken.append(time.perf_counter() - start)
    return [min(taken) for taken in times]


def maps(batch: int, side: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Random maps in an ellipsoid of the grid."""
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, s) for s in side], indexing="ij"))
    valid = (grid.square().sum(0) < 1)[None].repeat(batch, 1, 1, 1)
    return torch.randn(batch, 1, *side) * valid[:, None], valid


def monai_loop(x: torch.Tensor) -> Callable[[], object]:
    """MONAI's transforms per sample, as its users' data loaders run them."""
    angle = math.radians(10)
    transform = Compose(
        [
            RandAffine(
                prob=1.0,
                rotate_range=(angle, angle, angle),
                scale_range=(0.05, 0.05, 0.05),
                translate_range=(1, 1, 1),
                mode="bilinear",
                padding_mode="zeros",
            ),
            RandGaussianNoise(prob=1.0, std=0.1, sample_std=False),
        ]
    )
    transform.set_random_state(seed=0)
    return lambda: [transform(volume) for volume in x]


def compare_volumes(x: torch.Tensor, valid: torch.Tensor, repeats: int) -> None:
    """Ours at the same job and at the full one, beside MONAI's loop."""
    keyed = Keyed(0, 0, torch.arange(len(x)))
    same = VolumeAugment(smoothing_voxels=0.0, threshold=0.0, cutout=0)
    full = VolumeAugment()
    n = len(x)
    reference, ours, everything, loop = shortest(
        repeats,
        monai_loop(x),
        lambda: same(x, valid, keyed),
        lambda: full(x, valid, keyed),
        lambda: [full(x[i : i + 1], valid[i : i + 1], Keyed(0, 0, torch.tensor([i]))) for i in range(n)],
    )
    print(f"volumes, {n} of {'x'.join(map(str, x.shape[2:]))}: affine and noise {ours / n * 1e3:.2f} ms a map;", end=" ")
    print(f"MONAI loop {reference / n * 1e3:.2f} ms; ratio {reference / ours:.1f}x")
    print(f"  everything {everything / n * 1e3:.2f} ms a map; the same one map at a time {loop / everything:.1f}x as long")


def compare_courses(n: int, time_points: int, repeats: int) -> None:
    """Ours batched beside itself row by row."""
    x, rate = torch.randn(n, time_points), torch.full((n,), 2.0)
    augment = CourseAugment()
    batched, loop = shortest(
        repeats,
        lambda: augment(x, None, Keyed(0, 0, torch.arange(n)), None, rate),
        lambda: [augment(x[i : i + 1], None, Keyed(0, 0, torch.tensor([i])), None, rate[i : i + 1]) for i in range(n)],
    )
    print(f"courses, {n} of {time_points}: {batched / n * 1e3:.3f} ms a course; row by row {loop / batched:.1f}x as long")


def step_times(x: torch.Tensor, valid: torch.Tensor, repeats: int) -> None:
    """Forward and backward of every encoder and preset, float32 and bfloat16 autocast."""
    n = len(x)
    courses, rate, group = torch.randn(n, 148), torch.full((n,), 2.0), torch.arange(n) // 32
    for name, cls in ENCODERS.items():
        for preset in cls.PRESETS:
            encoder = build(ENCODERS, Component(name, {"preset": preset}))
            inputs = (x, valid, None, None) if name.startswith("volume") else (courses, None, rate, group)
            row = [step(encoder, inputs, half, repeats) / n * 1e3 for half in (False, True)]
            size = sum(p.numel() for p in encoder.parameters()) / 1e6
            print(f"{name:15s} {preset:7s} {size:6.2f} M  {row[0]:7.2f} ms a sample, bfloat16 {row[1]:7.2f} ms")


def step(encoder: torch.nn.Module, inputs: tuple[torch.Tensor | None, ...], half: bool, repeats: int) -> float:
    """Shortest forward and backward pass, s."""

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = encoder(*inputs)
        loss = out.pooled.float().square().mean()
        (loss if out.session is None else loss + out.session.float().square().mean()).backward()

    return shortest(repeats, run)[0]


def main() -> None:
    """Print the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, nargs=3, default=(23, 27, 23))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    x, valid = maps(arguments.batch, tuple(arguments.side))
    compare_volumes(x, valid, arguments.repeats)
    compare_courses(2 * arguments.batch, 148, arguments.repeats)
    step_times(x[:32], valid[:32], arguments.repeats)


if __name__ == "__main__":
    main()
