"""How long and how much memory a recipe will take, from a few real steps."""

import time
from dataclasses import dataclass

import psutil
import torch
from accelerate import Accelerator

from ssl4neuro.model import count_parameters
from ssl4neuro.train.loop import LoopConfig
from ssl4neuro.train.optimiser import OptimiserConfig, build_optimiser
from ssl4neuro.train.task import Task

STEPS = 4  # the first one warms up and is not timed


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a run."""

    parameters: int
    steps: int
    seconds_per_step: float
    memory_gib: float  # peak on the GPU, or resident memory of this process on the CPU
    device: str
    runs: int = 1
    parallel: int = 1  # runs at the same time
    detail: str = ""  # what else there is to know, e.g. operations of a head

    def __str__(self) -> str:
        seconds = self.steps * self.seconds_per_step * self.runs / self.parallel
        times = f"{self.runs} runs × " if self.runs > 1 else ""
        at_once = f", {self.parallel} at a time" if self.parallel > 1 else ""
        return (
            f"{self.parameters:,} parameters; {times}{self.steps} steps × {self.seconds_per_step:.2f} s{at_once} = about "
            f"{_duration(seconds)} (validation not counted); peak memory {self.memory_gib:.1f} GiB on {self.device}"
            + (f"; {self.detail}" if self.detail else "")
        )


def estimate(task: Task, loop: LoopConfig, optimiser: OptimiserConfig, accelerator: Accelerator) -> Estimate:
    """Run a few steps without keeping anything."""
    model, update = accelerator.prepare(task.model, build_optimiser(task.model, optimiser))
    cuda = accelerator.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    total = loop.batches(task.batches_per_epoch, optimiser.accumulate)
    seconds, peak, timed = 0.0, 0, 0
    for i, stored in enumerate(task.batches(0, min(STEPS, max(total, 1)), 0)):
        if i == STEPS:
            break
        started = time.monotonic()
        with accelerator.autocast():
            terms = model(task.views(stored, 0))
        accelerator.backward(terms["loss"])
        peak = max(peak, psutil.Process().memory_info().rss)
        update.step()
        update.zero_grad()
        if cuda:
            torch.cuda.synchronize()
        if i > 0 or total == 1:
            seconds += time.monotonic() - started
            timed += 1
    memory = torch.cuda.max_memory_allocated() if cuda else peak
    per_step = seconds / max(timed, 1) * optimiser.accumulate
    return Estimate(
        count_parameters(task.model), total // optimiser.accumulate, per_step, memory / 2**30, accelerator.device.type
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
