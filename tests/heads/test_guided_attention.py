"""Guided attention against torch's own attention module, frame by frame, and its cost against methods/mvo.md §3."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl4neuro.encoders import FrameEncoder
from ssl4neuro.heads import HEADS
from ssl4neuro.heads.guided_attention import GuidedAttention, MotionMagnitude
from ssl4neuro.registry import Component, build

B, D, C, H, W = 2, 3, 8, 6, 4


def plain(channels: int = C, **options) -> GuidedAttention:
    torch.manual_seed(0)
    layer = GuidedAttention(channels, channels, **{"norms": False, "reduce": "sum", "attn_dim": None, **options})
    for parameter in layer.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.5)
    return layer


def inputs(channels: int = C) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    clip = torch.randn(B, channels, H, W, generator=generator)
    motion = torch.randn(B, D, channels, H, W, generator=generator)
    return clip, motion, torch.ones(B, D, dtype=torch.bool)


def reference(layer: GuidedAttention, i: int, clip: torch.Tensor, motion: torch.Tensor) -> torch.Tensor:
    """torch's attention with the weights of frame i, on maps [B, C, H, W]; the random bias of the keys changes nothing."""
    i = min(i, len(layer.query.weight) - 1)
    attention = nn.MultiheadAttention(layer.dim, layer.heads, batch_first=True)
    parts = (layer.query, layer.key, layer.value)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([part.weight[i].T for part in parts]))
        biases = [torch.randn(layer.dim) if part.bias is None else part.bias[i] for part in parts]
        attention.in_proj_bias.copy_(torch.cat(biases))
        attention.out_proj.weight.copy_(layer.out.weight[i].T)
        attention.out_proj.bias.copy_(layer.out.bias[i])
    query, key = (x.flatten(2).transpose(1, 2) for x in (clip, motion))
    return attention(query, key, key, need_weights=False)[0].transpose(1, 2).unflatten(2, clip.shape[2:])


@pytest.mark.parametrize("frames", [None, D])
@pytest.mark.parametrize("heads", [1, 2])
def test_one_fused_call_equals_a_loop_over_frames(frames, heads):
    channels = 64 if heads == 2 else C
    layer = plain(channels, frames=frames, attn_dim=64 if heads == 2 else None)
    assert layer.heads == heads
    clip, motion, valid = inputs(channels)
    expected = sum(reference(layer, i, clip, motion[:, i]) for i in range(D))
    torch.testing.assert_close(layer(clip, motion, valid), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [None, D])
def test_the_mean_counts_valid_frames_only(frames):
    layer = plain(frames=frames, reduce="mean")
    nn.init.constant_(layer.scale, 0.7)
    clip, motion, valid = inputs()
    valid[1, 2] = False
    out = layer(clip, motion, valid)
    for row, count in ((0, 3), (1, 2)):
        each = [reference(layer, i, clip, motion[:, i])[row] for i in range(count)]
        torch.testing.assert_close(out[row], 0.7 * torch.stack(each).mean(0), atol=1e-5, rtol=1e-5)


def test_pooling_by_one_is_exact_and_by_two_averages_blocks():
    clip, motion, valid = inputs()
    torch.testing.assert_close(plain(pool=6)(clip, motion, valid), plain()(clip, motion, valid))
    layer = plain(pool=3)  # 6 × 4 positions become 3 × 2
    blocks = motion.unflatten(4, (2, 2)).unflatten(3, (3, 2)).mean((4, 6))
    expected = sum(reference(layer, 0, clip, blocks[:, i]) for i in range(D))
    torch.testing.assert_close(layer(clip, motion, valid), expected, atol=1e-5, rtol=1e-5)


def test_windows_are_attended_one_by_one():
    layer = plain(window=3)  # 3 divides 6 rows; of 4 columns it takes 2
    clip, motion, valid = inputs()
    out = layer(clip, motion, valid)
    for i in (0, 3):
        for j in (0, 2):
            cut = (..., slice(i, i + 3), slice(j, j + 2))
            expected = sum(reference(layer, 0, clip[cut], motion[:, k][cut]) for k in range(D))
            torch.testing.assert_close(out[cut], expected, atol=1e-5, rtol=1e-5)


def permuted(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return x.flatten(-2)[..., order].unflatten(-1, x.shape[-2:])


def test_without_positions_queries_may_be_permuted_and_keys_too():
    layer = plain(frames=D)
    clip, motion, valid = inputs()
    order = torch.randperm(H * W, generator=torch.Generator().manual_seed(5))
    out = layer(clip, motion, valid)
    torch.testing.assert_close(layer(permuted(clip, order), motion, valid), permuted(out, order), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer(clip, permuted(motion, order), valid), out, atol=1e-5, rtol=1e-5)
    placed = plain(norms=True)
    out = placed(clip, motion, valid)
    assert not torch.allclose(placed(clip, permuted(motion, order), valid), out, atol=1e-3)
    assert not torch.allclose(placed(permuted(clip, order), motion, valid), permuted(out, order), atol=1e-3)


def test_with_norms_it_starts_at_zero():
    torch.manual_seed(0)
    layer = GuidedAttention(C, 6, attn_dim=4)
    clip, motion, valid = inputs()
    assert not layer(clip, motion[:, :, :6], valid).any()


def test_motion_magnitude_is_the_mean_of_mixed_magnitudes():
    torch.manual_seed(0)
    layer = MotionMagnitude(C, 5)
    clip, motion, valid = inputs()
    motion = motion[:, :, :5]
    valid[0, 1:] = False
    out = layer(clip, motion, valid)
    torch.testing.assert_close(out[0], layer.mix(motion[0, :1].abs())[0])
    torch.testing.assert_close(out[1], torch.stack([layer.mix(m.abs()[None])[0] for m in motion[1]]).mean(0))


RESNET50 = {64: 112, 256: 56, 512: 28, 1024: 14, 2048: 7}


def test_cost_agrees_with_the_table():
    with torch.device("meta"):
        layers = [GuidedAttention(c, c, 10, None, reduce="sum", norms=False) for c in RESNET50]
    gflop = [layer.matrix_flop(side, side) / 1e9 for layer, side in zip(layers, RESNET50.values(), strict=True)]
    assert gflop == pytest.approx([40.3, 10.1, 1.3, 0.16, 0.02], rel=0.05)
    assert 10 * sum(gflop) == pytest.approx(520, rel=0.01)
    parameters = [sum(p.numel() for p in layer.parameters()) / 10e6 for layer in layers]
    assert parameters == pytest.approx([0.02, 0.26, 1.05, 4.2, 16.8], abs=0.05, rel=0.01)
    assert 10 * sum(parameters) == pytest.approx(223, rel=0.01)
    pooled = GuidedAttention(64, 64, attn_dim=None, pool=14)
    assert pooled.matrix_flop(112, 112) / 1e9 == pytest.approx(0.63, rel=0.01)


def test_the_counted_attention_is_the_closed_form():
    frames, side = 5, 64
    encoders = {name: FrameEncoder(dim=16, body="tiny") for name in ("cine", "motion")}
    options = {"preset": "mvo_paper", "encoders": encoders, "classes": 2, "frames": frames}
    net = build(HEADS, Component("mvo", options))
    expected = 0
    for level, (layer, width) in enumerate(zip(net.fusions, encoders["cine"].widths, strict=True), start=1):
        size = side // 2**level
        expected += frames * (layer.matrix_flop(size, size) + 4 * 2 * size**2 * width**2)
    assert net.cost(side, side)["gflop_attention"] * 1e9 == pytest.approx(expected, rel=0.002)  # and a sum over biases


def test_all_attention_leaves_no_matrix_of_positions():
    # The largest tensor kept for the backward pass is a map of features, far below tokens by tokens.
    layer = plain(frames=D)
    clip, motion, valid = torch.randn(1, C, 48, 48), torch.randn(1, D, C, 48, 48), torch.ones(1, D, dtype=torch.bool)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        layer(clip, motion, valid)
    assert kept
    assert max(kept) <= D * 48 * 48 * C < 48**4 / 2


def test_pooled_maps_use_torch_averages_at_ragged_edges():
    clip, motion, valid = inputs()
    layer = plain(pool=4)  # 6 rows in blocks of 2, 4 columns as they are
    blocks = F.avg_pool2d(motion.flatten(0, 1), (2, 1)).unflatten(0, (B, D))
    expected = sum(reference(layer, 0, clip, blocks[:, i]) for i in range(D))
    torch.testing.assert_close(layer(clip, motion, valid), expected, atol=1e-5, rtol=1e-5)
