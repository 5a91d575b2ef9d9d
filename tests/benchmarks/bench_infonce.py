"""InfoNCE against lightly's NT-Xent in the same run (forward and backward), and the memory of its chunked form.

    python tests/benchmarks/bench_infonce.py [--batch 1024] [--dim 128] [--repeats 40] [--memory-batch 16384] [--threads 2]

Time: SimCLR's form, two views; the rounds of the contestants alternate, so that a busy machine slows them alike.
Memory: rise of the peak resident size over the size before the loss, each form in a process of its own (Linux: VmHWM, reset
beforehand; not `ru_maxrss`, where a child starts with its parent's peak).
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ssl4neuro.objectives import InfoNCE


class Projections:
    """A model that has projected already."""

    def __init__(self, views: Tensor) -> None:
        self.views = views

    def project(self, batch: dict, modality: str) -> Tensor:
        return self.views

    def project_sessions(self, batch: dict, modality: str) -> tuple[Tensor, Tensor]:
        return self.views, batch["row"]


def make(batch: int, dim: int) -> tuple[Tensor, dict]:
    """Two different views of each sample, ten samples of each subject."""
    torch.manual_seed(0)
    shared = torch.randn(batch, 1, dim)
    views = (shared + torch.randn(batch, 2, dim)).requires_grad_()
    row = torch.arange(batch)
    present = {"map": torch.ones(batch, dtype=torch.bool)}
    return views, {"row": row, "subject": row // 10, "group": row // 10, "present": present, "inputs": {}, "valid": {}}


def contestants(views: Tensor, batch: dict) -> dict[str, Callable[[], Tensor]]:
    from lightly.loss import NTXentLoss

    model, reference = Projections(views), NTXentLoss(temperature=0.1)
    found: dict[str, Callable[[], Tensor]] = {"lightly NTXentLoss": lambda: reference(views[:, 0], views[:, 1])}
    for negatives in ("all", "other_subjects"):
        for chunk in (None, 256):
            objective = InfoNCE(("map",), negatives=negatives, chunk=chunk)
            label = f"InfoNCE {negatives}" + (f", chunks of {chunk}" if chunk else "")
            found[label] = lambda objective=objective: objective(model, batch)["loss"]
    return found


def run_time(batch_size: int, dim: int, repeats: int) -> None:
    views, batch = make(batch_size, dim)
    rivals = contestants(views, batch)
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    losses, gradients = {}, {}
    for round_ in range(repeats + 3):
        for name, loss_of in rivals.items():
            views.grad = None
            start = time.perf_counter()
            loss = loss_of()
            loss.backward()
            if round_ >= 3:
                seconds[name].append(time.perf_counter() - start)
            losses[name], gradients[name] = loss.item(), views.grad
    reference = next(iter(rivals))
    print(
        f"batch {batch_size}, dim {dim}, {torch.get_num_threads()} threads, median (fastest) of {repeats}, forward + backward"
    )
    for name, values in seconds.items():
        ratio = statistics.median(seconds[reference]) / statistics.median(values)
        print(
            f"  {name:40s} {statistics.median(values) * 1e3:7.1f} ms ({min(values) * 1e3:6.1f})  {ratio:5.2f}x"
            f"  loss {losses[name]:.6f}  gradient differs by {(gradients[name] - gradients[reference]).abs().max():.1e}"
        )


def resident(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def run_memory(batch_size: int, dim: int, chunk: int | None) -> None:
    """One form, in this process."""
    views, batch = make(batch_size, dim)
    small, few = make(64, dim)
    objective = InfoNCE(("map",), negatives="other_subjects", chunk=chunk)
    objective(Projections(small), few)["loss"].backward()  # libraries have their buffers before the first reading
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from the present size
    before = resident("VmRSS")
    start = time.perf_counter()
    loss = objective(Projections(views), batch)["loss"]
    loss.backward()
    rise = resident("VmHWM") - before
    print(
        f"{rise:9.0f} MiB  {time.perf_counter() - start:6.1f} s  loss {loss.item():.6f}  gradient norm {views.grad.norm():.6f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--memory-batch", type=int, default=16384)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # a child: "plain", or rows per chunk
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        run_memory(options.memory_batch, options.dim, None if options.measure == "plain" else int(options.measure))
        return
    run_time(options.batch, options.dim, options.repeats)
    for batch_size in (options.memory_batch // 2, options.memory_batch):
        print(f"batch {batch_size}, two views: rise of the peak resident size")
        for form in ("plain", "512"):
            sizes = ["--memory-batch", str(batch_size), "--dim", str(options.dim), "--threads", str(options.threads)]
            child = [sys.executable, __file__, "--measure", form, *sizes]
            result = subprocess.run(child, check=True, capture_output=True, text=True)
            print(f"  {form:12s} {result.stdout.strip()}")


if __name__ == "__main__":
    main()
