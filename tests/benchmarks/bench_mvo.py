"""The MVO head: seconds and peak memory per scan for each preset, and fused attention against the loop that holds its matrices.

    python tests/benchmarks/bench_mvo.py [--size 224] [--frames 10] [--threads 2] [--body resnet50] [--repeats 3]

A scan is one slice. Each preset runs in a process of its own, whose peak resident size is reported (Linux: VmHWM), weights and
libraries included. The loop is what the equation says, one frame after the other, softmax(QKᵀ/√d)V with the whole matrix; the
two take turns, so that a busy machine slows both.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from ssl4neuro.encoders import FrameEncoder
from ssl4neuro.heads.guided_attention import GuidedAttention
from ssl4neuro.heads.mvo import SpatioTemporalSegNet
from ssl4neuro.registry import Component, build

PRESETS = {"mvo_tiny": "tiny", "mvo_default": "resnet18", "mvo_paper": "resnet50"}  # with the body they are usually given


def network(preset: str, body: str, frames: int) -> SpatioTemporalSegNet:
    torch.manual_seed(0)
    norm = "batch" if preset == "mvo_paper" else "group"
    encoders = {name: FrameEncoder(body=body, norm=norm) for name in ("cine", "motion")}
    options = {"preset": preset, "encoders": encoders, "classes": 2, "frames": frames}
    return build({"mvo": SpatioTemporalSegNet}, Component("mvo", options)).eval()


def one(preset: str, args: argparse.Namespace) -> None:
    """In the child: seconds of one scan, the best of a few."""
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = network(preset, args.body or PRESETS[preset], args.frames).to(device)
    x = torch.randn(1, 1, args.frames, args.size, args.size, device=device)
    spent = []
    with torch.inference_mode():
        for _ in range(args.repeats + 1):
            started = time.perf_counter()
            model(x).probabilities.cpu()
            spent.append(time.perf_counter() - started)
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    cost = model.cost(args.size, args.size)
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else int(peak[1]) / 1024 if peak else 0
    print(
        f"{preset:12} {args.body or PRESETS[preset]:9} {cost['parameters'] / 1e6:6.1f} M, {cost['gflop']:7.1f} GFLOP  "
        f"{min(spent[1:]):6.2f} s/scan  {memory:6.0f} MiB on {device.type}"
    )


def loop(attention: GuidedAttention, clip: Tensor, motion: Tensor) -> Tensor:
    """Equation 1 by the letter, for an attention without norms and pooling, shared by the frames, one head, reduce sum."""
    query = attention.query(clip.flatten(2).transpose(1, 2)[:, None])[:, 0]
    total = torch.zeros_like(clip)
    for i in range(motion.shape[1]):
        source = motion[:, i].flatten(2).transpose(1, 2)[:, None]
        key, value = attention.key(source)[:, 0], attention.value(source)[:, 0]
        matrix = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1)
        found = attention.out((matrix @ value)[:, None])[:, 0]
        total = total + found.transpose(1, 2).unflatten(2, clip.shape[2:])
    return total


def compare(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    for side, channels in ((args.size // 4, 64), (args.size // 8, 128)):
        attention = GuidedAttention(channels, channels, attn_dim=None, reduce="sum", norms=False).eval()
        inputs = torch.randn(1, channels, side, side), torch.randn(1, args.frames, channels, side, side)
        valid = torch.ones(1, args.frames, dtype=torch.bool)
        best = {"fused": float("inf"), "loop": float("inf")}
        with torch.inference_mode():
            error = (attention(*inputs, valid) - loop(attention, *inputs)).abs().max()
            for _ in range(args.repeats):
                for name in best:
                    started = time.perf_counter()
                    attention(*inputs, valid) if name == "fused" else loop(attention, *inputs)
                    best[name] = min(best[name], time.perf_counter() - started)
        held = (side * side) ** 2 * 4 / 2**20
        print(
            f"attention over {side}×{side} positions, {args.frames} frames: fused {best['fused'] * 1e3:.0f} ms, loop "
            f"{best['loop'] * 1e3:.0f} ms ({best['loop'] / best['fused']:.1f}x), difference {error:.0e}; the loop holds "
            f"{held:.0f} MiB per frame"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--body", default="")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    if args.only:
        one(args.only, args)
        return
    for preset in PRESETS:
        subprocess.run([sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--only", preset], check=True)
    compare(args)


if __name__ == "__main__":
    main()
