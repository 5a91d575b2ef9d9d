"""Augmentation of a batch of clips against MONAI clip by clip, and what its parts and normalisation cost.

Run: python tests/benchmarks/bench_clip_augment.py [--batch 16] [--frames 16] [--side 64] [--threads 2]
The reference does rotation, scale, shift (bilinear, zeros outside), left-right mirroring, gamma and noise on one clip at a time
with its frames as channels, so that they share one map as ours do; both read the same clips in the same process.
"""

import argparse
import math
import time
from collections.abc import Callable

import torch
from monai.transforms import Compose, RandAdjustContrast, RandAffine, RandFlip, RandGaussianNoise

from ssl4neuro.augment import ClipAugment, Clips, Keyed, normalise_clips, residual

SAME = {
    **ClipAugment.PRESETS["none"],
    **{"rotation_deg": 15.0, "scale": 0.1, "shift": 0.05, "flip_h": True, "gamma": 0.3, "noise_sd": 0.05},
}


def shortest(repeats: int, runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Shortest of several runs of each, s; taken in turn, so that other load on the machine hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat:  # the first is a warm-up
                times[name].append(time.perf_counter() - start)
    return {name: min(taken) for name, taken in times.items()}


def monai_loop(x: torch.Tensor) -> Callable[[], object]:
    """MONAI's transforms per clip, as its users' data loaders run them."""
    side = x.shape[-1]
    transform = Compose(
        [
            RandFlip(prob=0.5, spatial_axis=1),
            RandAffine(
                prob=1.0,
                rotate_range=math.radians(15),
                scale_range=(0.1, 0.1),
                translate_range=(0.05 * side, 0.05 * side),
                mode="bilinear",
                padding_mode="zeros",
            ),
            RandAdjustContrast(prob=1.0, gamma=(0.75, 1.3)),
            RandGaussianNoise(prob=1.0, std=0.05, sample_std=False),
        ]
    )
    transform.set_random_state(seed=0)
    return lambda: [transform(clip[0]) for clip in x]


def main() -> None:
    """Print the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    n, frames, side = arguments.batch, arguments.frames, arguments.side
    x = torch.rand(n, 1, frames, side, side)
    clips = Clips(x, torch.ones(n, frames, dtype=torch.bool), torch.zeros(n, frames))
    masked = clips._replace(masks=(x[:, 0] > 0.5).long())
    keyed = Keyed(0, 0, torch.arange(n))
    same, full = ClipAugment(**{**SAME, "frames": frames}), ClipAugment(frames=frames)
    single = [Clips(x[i : i + 1], clips.valid[i : i + 1], clips.times[i : i + 1]) for i in range(n)]
    runs: dict[str, Callable[[], object]] = {
        "MONAI, clip by clip": monai_loop(x),
        "the same, batched": lambda: same(clips, keyed),
        "the same, ours clip by clip": lambda: [same(clip, Keyed(0, 0, torch.tensor([i]))) for i, clip in enumerate(single)],
        "everything on by default": lambda: full(clips, keyed),
        "the same with masks": lambda: same(masked, keyed),
        "z-scores": lambda: normalise_clips(clips, "zscore"),
        "percentiles": lambda: normalise_clips(clips, "percentile"),
        "biovidnet": lambda: normalise_clips(clips, "biovidnet"),
        "residual frames": lambda: residual(clips),
    }
    taken = shortest(arguments.repeats, runs)
    for name, seconds in taken.items():
        print(f"{name:30s} {seconds / n * 1e3:8.3f} ms a clip")
    print(f"MONAI over ours: {taken['MONAI, clip by clip'] / taken['the same, batched']:.1f}x")


if __name__ == "__main__":
    main()
