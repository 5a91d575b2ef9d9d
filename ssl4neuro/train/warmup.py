"""`loop.precision: auto`: numerical precision and memory layout by a few timed steps on this machine, not by belief.

bfloat16 and channels-last convolutions halve the time of a step on one processor and double it on the next. What was measured
and chosen stands in the run (`precision.json`) and its configuration, which a resumed run keeps.
"""

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, str_to_bool

from ssl4neuro.encoders import ENCODERS
from ssl4neuro.errors import UserError
from ssl4neuro.model import ModalityConfig
from ssl4neuro.registry import Component, find
from ssl4neuro.train.optimiser import OptimiserConfig, build_optimiser
from ssl4neuro.train.task import Task

STEPS = 3  # timed; one more before them warms up
GAIN = 0.95  # what another setting's time must fall below, relative to plain float32, to be worth a change
TYPES = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Choice:
    """One setting and what a step with it took."""

    precision: str
    channels_last: bool
    seconds: float  # of one step; infinite where the loss was not finite


def this_process() -> PartialState:
    """Device and place among the processes, before an `Accelerator` has fixed the precision for good."""
    return PartialState(cpu=bool(str_to_bool(os.environ.get("ACCELERATE_USE_CPU", "false"))))


def laid_out(modalities: dict[str, ModalityConfig], channels_last: bool) -> dict[str, ModalityConfig]:
    """The modalities with `channels_last` set in every encoder that has this option."""
    import inspect

    changed = {}
    for name, modality in modalities.items():
        cls = find(ENCODERS, modality.encoder.name, f"modalities.{name}.encoder")
        options: dict[str, Any] = dict(modality.encoder.options)
        if "channels_last" in inspect.signature(cls).parameters:
            options["channels_last"] = channels_last
        changed[name] = replace(modality, encoder=Component(modality.encoder.name, options))
    return changed


def measure(make: Callable[[bool], Task], optimiser: OptimiserConfig, state: PartialState) -> list[Choice]:
    """Time each setting; plain float32 first. `make` builds the task with or without channels-last encoders."""
    half = "bf16" if state.device.type != "cuda" or torch.cuda.is_bf16_supported() else "fp16"
    return [
        Choice(precision, layout, _seconds(make(layout), optimiser, state, TYPES[precision]))
        for precision, layout in itertools.product(("no", half), (False, True))
    ]


def choose(measured: list[Choice], state: PartialState) -> Choice:
    """The fastest, unless plain float32 is about as fast; the first process's choice for all.

    Raises:
        UserError: no setting gives a finite loss.
    """
    best = min(measured, key=lambda choice: choice.seconds)
    if best.seconds == float("inf"):
        raise UserError("loop.precision auto: the loss is not finite in any precision; lower optimiser.rate or check the data")
    chosen = [best if best.seconds < GAIN * measured[0].seconds else measured[0]]
    if state.num_processes > 1:
        broadcast_object_list(chosen)
    return chosen[0]


def _seconds(task: Task, optimiser: OptimiserConfig, state: PartialState, half: torch.dtype | None) -> float:
    model = task.model.to(state.device).train()
    update, spent = build_optimiser(model, optimiser), []
    for stored in itertools.islice(itertools.cycle(task.batches(0, 1, 0)), STEPS + 1):
        batch = task.views(stored, 0)
        _wait(state)
        started = time.perf_counter()
        with torch.autocast(state.device.type, dtype=half or torch.bfloat16, enabled=half is not None):
            loss = model(batch)["loss"]
        loss.backward()
        update.step()
        update.zero_grad()
        _wait(state)
        spent.append(time.perf_counter() - started)
        if not torch.isfinite(loss):
            return float("inf")
    return min(spent[1:])


def _wait(state: PartialState) -> None:
    if state.device.type == "cuda":
        torch.cuda.synchronize()
