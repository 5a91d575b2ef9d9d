"""Occlusion: against a naive loop, with planted truth; parts that tile their input; frequency bands that know the TR."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssl4neuro.explain import (
    band_edges,
    dissimilarity,
    drop,
    holds_band,
    occlusion,
    patches,
    regions,
    without_band,
    without_patch,
    without_phase,
)


def octants() -> Tensor:
    """Labels 1 to 8 on a grid of 6 × 6 × 6 within a margin of 0."""
    axis = torch.arange(6) // 3
    labels = 1 + axis[:, None, None] * 4 + axis[None, :, None] * 2 + axis[None, None, :]
    return torch.nn.functional.pad(labels, (1, 1) * 3)


def test_only_the_region_that_the_score_depends_on_changes_it() -> None:
    labels = octants()
    x = torch.rand(5, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.5

    def encode(volumes: Tensor) -> Tensor:
        planted = (volumes[:, 0] * (labels == 6)).flatten(1).sum(1)
        return torch.stack([planted, volumes.new_ones(len(volumes))], dim=1)

    changes = occlusion(encode, x, regions(labels, range(1, 9)), drop(torch.tensor([[1.0, 0.0]])))
    expected = torch.zeros(5, 8)
    expected[:, 5] = x[:, 0][:, labels == 6].sum(1)
    assert torch.allclose(changes, expected, atol=1e-4)
    half = occlusion(encode, x, regions(labels, range(1, 9), x / 2), drop(torch.tensor([[1.0, 0.0]])))
    assert torch.allclose(half, expected / 2, atol=1e-4)


def test_occlusion_equals_a_loop_over_samples_and_parts() -> None:
    generator = torch.Generator().manual_seed(1)
    x, weights = torch.randn(4, 1, 9, 10, generator=generator), torch.randn(90, 7, generator=generator)
    direction = torch.randn(4, 7, generator=generator)
    boxes = patches(9, 10, 4)

    def encode(pictures: Tensor) -> Tensor:
        return (pictures.flatten(1) @ weights).tanh()

    found = occlusion(encode, x, [without_patch(box) for box in boxes], drop(direction))
    for i, picture in enumerate(x):
        for k, (top, bottom, left, right) in enumerate(boxes):
            hidden = picture.clone()
            hidden[:, top:bottom, left:right] = 0
            expected = (encode(picture[None]) - encode(hidden[None]))[0] @ direction[i]
            assert float(found[i, k]) == pytest.approx(float(expected), abs=1e-5)


def test_dissimilarity_is_zero_for_equal_and_two_for_opposite_embeddings() -> None:
    a = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 0.0]])
    b = torch.tensor([[2.0, 4.0], [-1.0, -2.0], [0.0, 1.0]])
    assert torch.allclose(dissimilarity(a, b), torch.tensor([0.0, 2.0, 1.0]), atol=1e-6)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 17))
def test_patches_tile_the_picture(height: int, width: int, side: int) -> None:
    count = np.zeros((height, width), dtype=int)
    for top, bottom, left, right in patches(height, width, side):
        count[top:bottom, left:right] += 1
    assert (count == 1).all()


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 9))
def test_phases_share_out_the_valid_frames_of_every_clip(lengths: list[int], phases: int) -> None:
    valid = torch.arange(12) < torch.tensor(lengths)[:, None]
    x = torch.ones(len(lengths), 1, 12, 2, 2)
    edges = np.linspace(0, 1, phases + 1)
    hidden = torch.stack([without_phase(a, b, valid)(x) == 0 for a, b in itertools.pairwise(edges)])
    assert (hidden.sum(0)[:, 0, :, 0, 0][valid] == 1).all()


@given(st.integers(40, 150), st.sampled_from([0.5, 0.72, 1.5, 2.0, 3.0]), st.integers(0, 20), st.integers(0, 2**31 - 1))
@settings(max_examples=40, deadline=None)
def test_bands_share_out_the_course(length: int, tr: float, padding: int, seed: int) -> None:
    """What the bands take away adds up to the course, and nothing happens beside it."""
    x = torch.zeros(1, length + padding)
    x[0, :length] = torch.randn(length, generator=torch.Generator().manual_seed(seed))
    x[0, length:] = 7.0  # rubbish
    valid, rate = torch.arange(length + padding)[None] < length, torch.tensor([tr])
    edges = band_edges([tr])
    removed = [x - without_band(valid, rate, low, high)(x) for low, high in itertools.pairwise(edges)]
    total = torch.stack(removed).sum(0)
    assert torch.allclose(total[valid], x[valid], atol=1e-4)
    assert (total[~valid] == 0).all()


@pytest.mark.parametrize("tr", [0.7, 2.0])
@pytest.mark.parametrize("frequency", [0.02, 0.06, 0.12])
def test_a_rhythm_lies_in_its_own_band_whatever_the_tr(tr: float, frequency: float) -> None:
    length = round(200 / tr)  # whole periods, so that nothing leaks
    time = torch.arange(length) * (200 / length)
    x = torch.sin(2 * torch.pi * frequency * time)[None]
    rate = torch.tensor([200 / length])
    edges = band_edges(rate.tolist())
    for low, high in itertools.pairwise(edges):
        left = without_band(torch.ones_like(x, dtype=torch.bool), rate, low, high)(x)
        expected = torch.zeros_like(x) if low <= frequency < high else x
        assert torch.allclose(left, expected, atol=1e-4), (low, high)


def test_bands_end_at_the_nyquist_frequency_of_the_fastest() -> None:
    assert band_edges([2.0, float("nan"), 0.8])[-1] == pytest.approx(0.625)
    assert band_edges([3.0], (0.0, 0.1, 0.2))[-2:] == pytest.approx((0.1, 1 / 6))
    there = holds_band(torch.tensor([2.0, 0.8, torch.nan]), 0.25)
    assert there.tolist() == [False, True, False]


def test_a_course_of_unknown_tr_and_a_band_above_its_nyquist_leave_it_as_it_is() -> None:
    x = torch.randn(2, 60, generator=torch.Generator().manual_seed(3))
    left = without_band(torch.ones_like(x, dtype=torch.bool), torch.tensor([torch.nan, 2.0]), 0.25, 0.6)(x)
    assert torch.equal(left, x)
