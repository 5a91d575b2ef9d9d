"""Masked layers and pooling against torch's own where everything is valid, and against loops where not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl4neuro.encoders.masked import Conv3d, MaskedGroupNorm, halve, masked_halving
from ssl4neuro.encoders.pooling import AttentionPool, BinPool, masked_max, masked_mean


@pytest.fixture
def features():
    torch.manual_seed(0)
    mask = torch.rand(3, 1, 6, 7, 5) < 0.6
    return torch.randn(3, 8, 6, 7, 5) * 2 + 3, mask.float()


def test_group_norm_equals_torch_where_everything_is_valid(features):
    x, mask = features
    ours, theirs = MaskedGroupNorm(4, 8), nn.GroupNorm(4, 8)
    with torch.no_grad():
        theirs.weight.copy_(ours.weight.normal_())
        theirs.bias.copy_(ours.bias.normal_())
    torch.testing.assert_close(ours(x, torch.ones_like(mask)), theirs(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours(x), theirs(x))


def test_group_norm_equals_a_loop_over_valid_positions(features):
    x, mask = features
    norm = MaskedGroupNorm(4, 8)
    with torch.no_grad():
        norm.weight.normal_(), norm.bias.normal_()
    out = norm(x, mask)
    for i in range(3):
        inside = mask[i, 0] > 0
        for g in range(4):
            values = x[i, 2 * g : 2 * g + 2][:, inside].double()
            unit = (values - values.mean()) / (values.var(correction=0) + 1e-5).sqrt()
            for j in range(2):
                c = 2 * g + j
                expected = unit[j] * norm.weight[c] + norm.bias[c]
                torch.testing.assert_close(out[i, c][inside].double(), expected, atol=1e-4, rtol=1e-4)
        assert (out[i][:, ~inside] == 0).all()


def test_group_norm_gradient(features):
    x, mask = features
    norm = MaskedGroupNorm(2, 4).double()
    x = x[:2, :4, :3, :3, :2].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: norm(t, mask[:2, :, :3, :3, :2].double()), x, atol=1e-3)


def test_groups_are_lowered_to_a_divisor():
    assert MaskedGroupNorm(8, 12).groups == 6
    assert MaskedGroupNorm(8, 7).groups == 7
    assert MaskedGroupNorm(8, 16).groups == 8


def test_convolution_of_two_voxels_has_finite_gradients_under_cpu_autocast():
    # nn.Conv3d fails this within a few trials (torch 2.15, oneDNN): freed memory full of NaN shows up in its weight gradient.
    for _ in range(20):
        junk = [torch.full((n,), torch.nan) for n in (1_000, 100_000, 1_000_000)]
        del junk
        conv, x = Conv3d(48, 48, 3, padding=1), torch.randn(4, 48, 2, 2, 2)
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(x)
        out.float().sum().backward()
        assert conv.weight.grad.isfinite().all()


def test_halved_mask_has_the_size_of_a_strided_convolution():
    for sides in ((17, 20, 16), (5, 6, 7)):
        mask = torch.zeros(1, 1, *sides)
        mask[0, 0, -1, -1, -1] = 1
        out = halve(mask)
        assert out.shape == nn.Conv3d(1, 1, 3, stride=2, padding=1)(mask).shape
        assert out.sum() == 1
        assert out[0, 0, -1, -1, -1] == 1


@pytest.mark.parametrize("time", [8, 9])
def test_masked_halving_is_the_mean_of_valid_pairs(time):
    torch.manual_seed(0)
    x, mask = torch.randn(2, 3, time), (torch.rand(2, 1, time) < 0.6).float()
    out, half = masked_halving(x * mask, mask)
    for i in range(2):
        for t in range((time + 1) // 2):
            inside = mask[i, 0, 2 * t : 2 * t + 2] > 0
            expected = x[i, :, 2 * t : 2 * t + 2][:, inside].mean(1) if inside.any() else torch.zeros(3)
            torch.testing.assert_close(out[i, :, t], expected)
            assert half[i, 0, t] == inside.any()


def test_mean_and_max(features):
    x, mask = features
    x = x - 10  # all negative: zeros at invalid positions must not win the maximum
    inside = mask[:, 0] > 0
    for i in range(3):
        torch.testing.assert_close(masked_mean(x * mask, mask)[i], x[i][:, inside[i]].mean(1))
        torch.testing.assert_close(masked_max(x * mask, mask)[i], x[i][:, inside[i]].amax(1))
    empty = torch.zeros_like(mask)
    assert (masked_mean(x * empty, empty) == 0).all()
    assert (masked_max(x * empty, empty) == 0).all()


@pytest.mark.parametrize(("shape", "bins"), [((9, 5, 8), (6, 6, 5)), ((12, 12, 12), (6, 6, 5)), ((7, 9, 4), (2, 3, 4))])
def test_bins_equal_torch_and_follow_the_valid_box(shape, bins):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *shape)
    expected = F.adaptive_avg_pool3d(x, bins)
    torch.testing.assert_close(BinPool(*bins)(x), expected, atol=1e-5, rtol=1e-5)
    pads = [1, 4, 2, 0, 3, 1]
    mask = F.pad(torch.ones(2, 1, *shape), pads)
    torch.testing.assert_close(BinPool(*bins)(F.pad(x, pads), mask), expected, atol=1e-5, rtol=1e-5)


def test_bins_over_time_equal_torch():
    x = torch.randn(2, 3, 20)
    torch.testing.assert_close(BinPool(147)(x), F.adaptive_avg_pool1d(x, 147), atol=1e-5, rtol=1e-5)
    assert (BinPool(4)(x, torch.zeros(2, 1, 20)) == 0).all()


def test_attention_pool_equals_a_loop():
    torch.manual_seed(0)
    pool, x, mask = AttentionPool(8, 2), torch.randn(3, 8, 11), (torch.rand(3, 1, 11) < 0.7).float()
    out = pool(x * mask, mask)
    logits = pool.score(x * mask)
    for i in range(3):
        inside = mask[i, 0] > 0
        for h in range(2):
            weight = logits[i, h][inside].softmax(0)
            expected = (x[i, 4 * h : 4 * h + 4][:, inside] * weight).sum(1)
            torch.testing.assert_close(out[i, 4 * h : 4 * h + 4], expected, atol=1e-5, rtol=1e-5)
    assert (pool(x, torch.zeros(3, 1, 11)) == 0).all()
    with pytest.raises(ValueError, match="multiple of heads"):
        AttentionPool(10, 4)
