"""Two processes with uneven batches give the gradients of one process with the union of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from objective_fakes import CASES, make_batch
from safetensors.torch import load_file
from two_processes import gradients, lopsided, union

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the two processes wrote."""
    path = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(SCRIPT)]
    processes = [
        subprocess.Popen([*command, str(rank), str(path)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=200)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return path


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in ("uneven", "lopsided") for name in CASES if kind == "uneven" or lopsided(name)]
)
def test_gradients_of_two_are_those_of_one(folder: Path, kind: str, name: str) -> None:
    two = load_file(folder / f"{kind}-{name}.safetensors")
    one = gradients(name, union(kind, name), wrap=False)
    assert two.keys() == one.keys()
    assert sum(float(g.abs().sum()) for g in one.values()) > 1e-3  # comparing zeros would prove nothing
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-9, atol=1e-11, msg=lambda m, key=key: f"{key}: {m}")


def test_both_processes_refuse_a_batch_of_one_subject(folder: Path) -> None:
    expected = sorted(make_batch(subjects=1, absent=False)["row"].tolist())
    for rank in range(2):
        assert [int(row) for row in (folder / f"rows-{rank}.txt").read_text().split()] == expected
