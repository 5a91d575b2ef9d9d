"""Collapse measures against closed forms."""

import math

import pytest
import torch

from ssl4neuro.train.monitors import (
    MonitorConfig,
    alignment,
    collapse_alarms,
    effective_rank,
    knn_accuracy,
    retrieval_top1,
    spread,
    uniformity,
)


def test_effective_rank_of_known_spectra() -> None:
    identity = torch.cat([torch.eye(8), -torch.eye(8)])
    assert effective_rank(identity) == pytest.approx(8, abs=1e-4)
    line = torch.linspace(-1, 1, 50)[:, None] * torch.ones(1, 16)
    assert effective_rank(line) == pytest.approx(1, abs=1e-3)
    two = torch.zeros(4, 5)
    two[0, 0], two[1, 0], two[2, 1], two[3, 1] = 3, -3, 1, -1  # singular values 3√2 and √2: shares 3/4 and 1/4
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(two) == pytest.approx(expected, abs=1e-4)


def test_alignment_and_uniformity() -> None:
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    assert alignment(x, 3 * x) == pytest.approx(0, abs=1e-5)
    assert alignment(x, -x) == pytest.approx(4, abs=1e-4)
    assert uniformity(torch.ones(10, 4)) == pytest.approx(0, abs=1e-5)
    assert uniformity(x) < -3
    pair = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # one pair at squared distance 2
    assert uniformity(pair) == pytest.approx(-4, abs=1e-5)


def test_spread_is_relative_to_what_all_share() -> None:
    x = torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
    assert spread(x - x.mean(0)) == pytest.approx(1)
    assert spread(x * 0 + 3) == pytest.approx(0, abs=1e-6)
    shifted = x - x.mean(0) + 10 * x.std(0)
    assert spread(shifted) == pytest.approx(1 / 101**0.5, rel=0.02)


def test_retrieval_counts_own_rows() -> None:
    x = torch.eye(6)
    assert retrieval_top1(x, 2 * x) == 1
    assert retrieval_top1(x, x.roll(1, 0)) == 0


def test_knn_is_balanced_over_classes() -> None:
    gallery = torch.tensor([[1.0, 0.0]] * 9 + [[0.0, 1.0]] * 3)
    labels = torch.tensor([0] * 9 + [1] * 3)
    queries = torch.tensor([[1.0, 0.1]] * 8 + [[1.0, 0.05], [0.1, 1.0]])
    truth = torch.tensor([0] * 8 + [1, 1])
    assert knn_accuracy(gallery, labels, queries, truth, 3) == pytest.approx((1 + 0.5) / 2)


def test_alarms_name_what_collapsed_and_a_healthy_model_has_none() -> None:
    dims = {"map": 64, "course": 64}
    measures = {"map/effective_rank": 1.2, "map/spread": 0.5, "course/effective_rank": 30.0, "course/spread": 0.5}
    alarms = collapse_alarms(measures, dims)
    assert len(alarms) == 1
    assert alarms[0].startswith("map: effective rank 1.2 of 64")
    assert "vicreg" in alarms[0]
    flat = {"course/effective_rank": 30.0, "course/spread": 0.001}
    assert collapse_alarms(flat, dims)[0].startswith("course: spread")


def test_better_knows_its_direction() -> None:
    assert MonitorConfig(signal="loss", min_delta=0.1).better(0.8, 1.0)
    assert not MonitorConfig(signal="loss", min_delta=0.1).better(0.95, 1.0)
    assert MonitorConfig(signal="retrieval").better(0.5, 0.4)
    assert not MonitorConfig().better(float("nan"), None)
    with pytest.raises(ValueError, match=r"monitor\.label"):
        MonitorConfig(signal="knn")
