"""SIGKILL a process that saves checkpoints, again and again, and see what the next one can load.

    python tests/benchmarks/bench_checkpoint_kills.py [--kills 50] [--megabytes 8] [--seed 0]

Prints how many kills struck in the middle of a save, how many left a good latest checkpoint (all must), the same for plain
`torch.save` onto one file as the reference, and the time of a save against `torch.save`.
"""

import argparse
import os
import random
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ssl4neuro import checkpoint
from ssl4neuro.manifest import Manifest

CONTRACT = {"course": {"kind": "course", "tr": 2.0, "trs": [2.0], "band": None}}
Save = Callable[[Path, int, int], None]


def save_step(run: Path, step: int, floats: int) -> None:
    """A checkpoint whose every number is its step."""
    checkpoint.save(
        run,
        step=step,
        epoch=0,
        model={"w": torch.full((floats,), float(step))},
        training={"step": step, "moment": torch.full((floats,), float(step))},
        contract=CONTRACT,
        manifest=Manifest.of("d", [str(step)], [], salt="00"),
        config={"step": step},
        best=step % 5 == 0,
    )


def is_whole(found: checkpoint.Checkpoint) -> bool:
    """Weights, training state and records are all of one step, and nothing had to be passed over."""
    numbers = {*found.model["w"].unique().tolist(), *found.training["moment"].unique().tolist()}
    records = {found.training["step"], found.config["step"]}
    return numbers == {float(found.step)} and records == {found.step} and not found.notes


def kill_one(run: Path, first: int, floats: int, delay_s: float, save: Save = save_step) -> int:
    """Fork a process that saves steps `first`, `first` + 1, ..., kill it `delay_s` after its first save.

    Returns:
        The last step whose save had returned.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # never returns
        try:
            for step in range(first, first + 100_000):
                save(run, step, floats)
                os.write(writer, struct.pack("<q", step))
        finally:
            os._exit(1)
    os.close(writer)
    confirmed = os.read(reader, 8)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reader, 4096):
        confirmed = (confirmed + more)[-8:]
    os.close(reader)
    return struct.unpack("<q", confirmed)[0]


def kill_many(run: Path, kills: int, floats: int, longest_s: float, seed: int) -> tuple[int, int]:
    """Kills that left the latest confirmed checkpoint (or a later one) whole, and kills in the middle of a save."""
    rng = random.Random(seed)
    good = struck = step = 0
    for _ in range(kills):
        step = kill_one(run, step + 1, floats, rng.uniform(0, longest_s))
        folder = run / "checkpoints"
        struck += any(folder.glob(".*.partial")) or any(folder.glob(".*.old"))
        found = checkpoint.load(run, training=True)
        good += is_whole(found) and found.step >= step
        step = found.step
    return good, struck


def _torch_save(run: Path, step: int, floats: int) -> None:
    run.mkdir(exist_ok=True)
    state = {"w": torch.full((floats,), float(step)), "moment": torch.full((floats,), float(step)), "step": step}
    torch.save(state, run / "last.pt")


def _torch_kills(run: Path, kills: int, floats: int, longest_s: float, seed: int) -> int:
    rng = random.Random(seed)
    good = 0
    for kill in range(kills):
        kill_one(run, 1 + kill * 1000, floats, rng.uniform(0, longest_s), _torch_save)
        try:
            state = torch.load(run / "last.pt", weights_only=True)
            good += len({*state["w"].unique().tolist(), *state["moment"].unique().tolist(), float(state["step"])}) == 1
        except Exception:
            continue  # the file is there, and broken
    return good


def _seconds(save: Save, run: Path, floats: int, repeats: int = 7) -> float:
    times = []
    for step in range(1, repeats + 1):
        start = time.perf_counter()
        save(run, step, floats)
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--megabytes", type=int, default=8, help="weights; the training state is as large again")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    floats = options.megabytes * (1 << 20) // 4
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = _seconds(save_step, folder / "a", floats)
        plain = _seconds(_torch_save, folder / "b", floats)
        print(f"save of 2 × {options.megabytes} MB: {ours * 1e3:.0f} ms (hashed, fsynced); torch.save {plain * 1e3:.0f} ms "
              f"(neither); ratio {ours / plain:.1f}")  # fmt: skip
        good, struck = kill_many(folder / "c", options.kills, floats, 3 * ours, options.seed)
        print(f"ssl4neuro: {options.kills} kills, {struck} in the middle of a save, {good} left a good latest checkpoint")
        reference = _torch_kills(folder / "d", options.kills, floats, 3 * plain, options.seed)
        print(f"torch.save onto one file: {options.kills} kills, {reference} left a good file")
    return 0 if good == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
