"""Schedules against their closed forms, and which parameters decay."""

import itertools
import math

import pytest
import torch
from torch import nn

from ssl4neuro.train.optimiser import OptimiserConfig, build_optimiser, rate_at, set_rate


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_schedule(schedule: str) -> None:
    config = OptimiserConfig(rate=2.0, schedule=schedule, warmup=0.1)  # type: ignore[arg-type]
    rates = [rate_at(step, 100, config) for step in range(100)]
    assert rates[:10] == pytest.approx([2.0 * (i + 1) / 10 for i in range(10)])
    for step in (10, 40, 99):
        done = (step - 10) / 90
        expected = {"cosine": 1 + math.cos(math.pi * done), "linear": 2 * (1 - done), "constant": 2.0}[schedule]
        assert rates[step] == pytest.approx(expected, abs=2e-2)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lars"])
def test_every_optimiser_learns_and_spares_biases(name: str) -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    optimiser = build_optimiser(module, OptimiserConfig(name=name, rate=0.05, weight_decay=0.1))  # type: ignore[arg-type]
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.1, 0.0]
    x, y = torch.randn(50, 3), torch.randn(50, 1)
    before = nn.functional.mse_loss(module(x), y)
    for _ in range(30):
        optimiser.zero_grad()
        nn.functional.mse_loss(module(x), y).backward()
        optimiser.step()
    assert nn.functional.mse_loss(module(x), y) < before


def test_set_rate_and_mistakes() -> None:
    optimiser = build_optimiser(nn.Linear(2, 2), OptimiserConfig())
    set_rate(optimiser, 0.5)
    assert {group["lr"] for group in optimiser.param_groups} == {0.5}
    with pytest.raises(ValueError, match="rate must be positive"):
        OptimiserConfig(rate=0.0)
