"""Kill a pretraining with SIGKILL at random moments, resume it, and compare the final weights bit by bit.

    python tests/benchmarks/bench_resume.py [--trials 20] [--seed 0]

Each trial is killed one to three times and resumed with another number of loader workers. Children are forks of this process,
so that a trial costs seconds; each starts from whatever random state this process is in, as a new process would.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from ssl4neuro import checkpoint
from ssl4neuro.config import load
from ssl4neuro.data.prepare import prepare_ica
from ssl4neuro.shipped import find_recipe
from ssl4neuro.simulate.ica import simulate_ica
from ssl4neuro.train.pretrain import PretrainConfig, pretrain

FLAGS = ["--loop.epochs", "6", "--loop.checkpoint_steps", "2", "--monitor.every", "2"]


def in_child(config: PretrainConfig, kill_after: float | None) -> bool:
    """Train in a fork; True when it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            pretrain(config)
            os._exit(0)
        except BaseException as error:
            print(f"child: {error}", flush=True)
            os._exit(1)
    if kill_after is not None:
        deadline = time.monotonic() + kill_after
        while time.monotonic() < deadline:
            if os.waitpid(child, os.WNOHANG) != (0, 0):
                return True
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a child failed")
    return os.WIFEXITED(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = simulate_ica(work / "data", subjects=10, show=False)
        prepare_ica(
            work / "cohort", melodic=tuple(sorted(data.glob("sub-*/ses-*"))), networks=data / "networks.tsv",
            templates=data / "templates.nii.gz", participants=data / "participants.tsv", sessions=data / "sessions.tsv",
        )  # fmt: skip
        make = lambda name: load(  # noqa: E731
            PretrainConfig, find_recipe("quickstart"), ["--data", str(work / "cohort"), "--out", str(work / name), *FLAGS]
        )
        started = time.monotonic()
        in_child(make("reference"), None)
        length = time.monotonic() - started
        expected = checkpoint.load(work / "reference").model
        kills = same = 0
        for trial in range(options.trials):
            config, done = make(f"trial-{trial}"), False
            for _ in range(dice.randint(1, 3)):
                resume = (work / f"trial-{trial}" / "config.yaml").is_file()
                done = in_child(replace(config, resume=resume), dice.uniform(0.1, 0.9) * length)
                kills += not done
                if done:
                    break
                config = replace(config, loop=replace(config.loop, workers=dice.choice([0, 0, 1, 2])))
            if not done:
                in_child(replace(config, resume=(work / f"trial-{trial}" / "config.yaml").is_file()), None)
            found = checkpoint.load(work / f"trial-{trial}").model
            same += all(torch.equal(found[name], value) for name, value in expected.items())
            print(f"trial {trial + 1}: {kills} kills so far, {same} of {trial + 1} bit-identical", flush=True)


if __name__ == "__main__":
    main()
