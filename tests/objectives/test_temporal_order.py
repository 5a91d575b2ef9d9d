"""Temporal order: permutations, shortcuts, and whether it can be learnt."""

import itertools
import math

import pytest
import torch
from objective_fakes import FakeModel, make_clips
from torch import nn

from ssl4neuro.encoders.tubelet import TubeletViT
from ssl4neuro.objectives import NoNegatives, TemporalOrder
from ssl4neuro.objectives.temporal_order import disorders, shifted, shuffled
from ssl4neuro.types import Encoding


def bound(model: nn.Module, **options) -> TemporalOrder:
    objective = TemporalOrder(**options)
    objective.bind(model.encoders)
    return objective


def test_shuffling_permutes_valid_frames_and_is_no_rotation() -> None:
    torch.manual_seed(0)
    length = torch.arange(4, 12).repeat(30)
    for frames, line in zip(length.tolist(), shuffled(length, 4, 12).tolist(), strict=True):
        assert sorted(line[:frames]) == list(range(frames))
        assert line[frames:] == list(range(frames, 12))
        assert all(line[:frames] != [(k + t) % frames for t in range(frames)] for k in range(frames))
        assert sum(b != a + 1 for a, b in itertools.pairwise(line[:frames])) <= 3  # pieces stay whole
    assert [len(disorders(pieces)) for pieces in (3, 4, 5)] == [3, 20, 115]


def test_shifting_turns_the_valid_frames() -> None:
    found = shifted(torch.tensor([3, 5]), torch.tensor([2, 6]), 5)
    assert found.tolist() == [[2, 0, 1, 3, 4], [1, 2, 3, 4, 0]]


def test_times_stay_and_short_clips_take_no_part() -> None:
    model, batch = FakeModel(), make_clips(absent=False)
    objective, calls = bound(model).double(), []
    model.encoders["cine"].register_forward_hook(lambda _, args, kwargs, out: calls.append((args, kwargs)), with_kwargs=True)
    torch.manual_seed(1)
    expected = objective(model, batch)["loss"]
    long = batch["valid"]["cine"].sum(-1) >= 4
    (x, _), kwargs = calls[0]
    assert len(x) == 2 * long.sum()
    assert torch.equal(kwargs["times"].nan_to_num(-1), batch["times"]["cine"][long].repeat(2, 1).nan_to_num(-1))
    assert torch.equal(x[: len(x) // 2], batch["inputs"]["cine"][long])
    batch["inputs"]["cine"][~long] = torch.nan
    torch.manual_seed(1)
    assert torch.equal(objective(model, batch)["loss"], expected)
    batch["valid"]["cine"][..., 3:] = False
    with pytest.raises(NoNegatives, match="4 valid frames"):
        objective(model, batch)


class Blind(nn.Module):
    """Averages over time: cannot see order."""

    dim = 6

    def forward(self, x, valid=None, **_) -> Encoding:
        weight = valid[:, None, :, None, None].to(x.dtype)
        return Encoding(((x * weight).sum(2) / weight.sum(2)).flatten(2)[:, 0, :6])


def test_an_encoder_blind_to_order_stays_at_chance() -> None:
    model = nn.Module()
    model.encoders = nn.ModuleDict({"cine": Blind()})
    assert bound(model).double()(model, make_clips())["loss"] >= math.log(2) - 1e-9


@pytest.mark.parametrize(("task", "chance"), [("order", 0.5), ("shift", 1 / 3)])
def test_learns_from_a_turning_dot(task: str, chance: float) -> None:
    torch.manual_seed(0)
    model = nn.Module()
    model.encoders = nn.ModuleDict({"cine": TubeletViT(dim=48, depth=2, heads=2, patch=(8, 4, 4))})
    objective = bound(model, task=task, bins=3)
    optimiser = torch.optim.Adam([*model.parameters(), *objective.parameters()], 3e-3)
    axis, there, scores = torch.arange(8.0) - 3.5, torch.ones(32, dtype=torch.bool), []
    for _ in range(200):
        angle = 2 * math.pi * (torch.rand(32, 1) + torch.arange(8) / 8)
        down, across = (axis - 2.5 * wave[..., None] for wave in (angle.sin(), angle.cos()))
        x = 4 * torch.exp(-(down[..., :, None] ** 2 + across[..., None, :] ** 2) / 2)[:, None, None]
        batch = {
            "row": torch.arange(32),
            "group": torch.arange(32),
            "present": {"cine": there},
            "inputs": {"cine": x},
            "valid": {"cine": there[:, None, None].expand(-1, 1, 8)},
        }
        found = objective(model, batch)
        optimiser.zero_grad()
        found["loss"].backward()
        optimiser.step()
        scores.append((found["accuracy"].item(), found["pair_accuracy"].item()))
    accuracy, pairs = torch.tensor(scores[-20:]).mean(0).tolist()
    assert accuracy > chance + 0.25
    assert pairs > 0.75
