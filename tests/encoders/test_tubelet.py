"""The tubelet transformer: tokens against loops, tokens left out, positions."""

import math

import numpy as np
import pytest
import torch

from ssl4neuro.encoders import TubeletViT
from ssl4neuro.encoders.tubelet import index_positions, tubelet_positions

SHAPE = (5, 19, 16)


def make(**options) -> TubeletViT:
    torch.manual_seed(0)
    return TubeletViT(**{"dim": 24, "depth": 2, "heads": 2, "patch": (2, 8, 8), **options}).eval()


def clips(channels: int = 1) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(3, channels, *SHAPE)


VALID = torch.arange(5) < torch.tensor([5, 3, 2])[:, None]


def test_patches_and_their_validity_equal_a_loop():
    encoder, x = make(in_channels=2), clips(2)
    patches, there = encoder.patches(x), encoder.token_valid(VALID, SHAPE)
    t, h, w = encoder.grid(SHAPE)
    assert (t, h, w) == (3, 3, 2)
    whole = np.zeros((3, 2, 6, 24, 16), np.float32)
    whole[:, :, :5, :19, :16] = x.numpy()
    for i in range(3):
        token = 0
        for a in range(t):
            for b in range(h):
                for c in range(w):
                    block = whole[i, :, 2 * a : 2 * a + 2, 8 * b : 8 * b + 8, 8 * c : 8 * c + 8]
                    np.testing.assert_array_equal(patches[i, token].numpy(), block.ravel())
                    assert there[i, token] == VALID[i, 2 * a : 2 * a + 2].any()
                    token += 1
    assert token == patches.shape[1] == there.shape[1]


@pytest.mark.parametrize("positions", ["seconds", "index"])
def test_padding_in_time_changes_nothing(positions):
    encoder, x = make(positions=positions), clips()
    out = encoder(x, VALID)
    for i, frames in ((1, 3), (2, 2)):
        alone = encoder(x[i : i + 1, :, :frames])
        torch.testing.assert_close(out.pooled[i], alone.pooled[0], atol=1e-5, rtol=1e-5)
        real = alone.tokens.shape[1]
        torch.testing.assert_close(out.tokens[i, :real], alone.tokens[0], atol=1e-5, rtol=1e-5)
        assert (out.tokens[i, real:] == 0).all()
    torch.testing.assert_close(out.pooled[1], out.tokens[1, :12].mean(0), atol=1e-6, rtol=1e-5)


def test_tokens_that_are_left_out_never_enter():
    encoder, x = make(), clips()
    everything = torch.stack([torch.randperm(18) for _ in range(3)])
    out, kept = encoder(x), encoder(x, keep=everything)
    torch.testing.assert_close(kept.pooled, out.pooled, atol=1e-5, rtol=1e-5)
    for i in range(3):
        torch.testing.assert_close(kept.tokens[i], out.tokens[i, everything[i]], atol=1e-5, rtol=1e-5)
    first_frames = torch.arange(12).expand(3, -1)  # two of three tubelets in time: the clip cut to four frames
    torch.testing.assert_close(encoder(x, keep=first_frames).tokens, encoder(x[:, :, :4]).tokens, atol=1e-5, rtol=1e-5)
    changed = x.clone()
    changed[:, :, 4:] = 99
    assert torch.equal(encoder(changed, keep=first_frames).pooled, encoder(x, keep=first_frames).pooled)


def test_kept_padding_is_zero_and_out_of_the_mean():
    encoder, x = make(), clips()
    keep = torch.tensor([[17, 0, 3]] * 3)  # the last is padding in the second and third clip
    out = encoder(x, VALID, keep=keep)
    assert (out.tokens[1:, 0] == 0).all()
    assert (out.tokens[0, 0] != 0).any()
    torch.testing.assert_close(out.pooled[1], encoder(x, VALID, keep=keep[:, 1:]).pooled[1], atol=1e-5, rtol=1e-5)


def test_times_count_in_seconds_from_the_first_frame():
    encoder, x = make(), clips()
    times = torch.arange(5) * torch.tensor([[0.03], [0.03], [1.5]])
    plain = encoder(x, times=times)
    torch.testing.assert_close(encoder(x, rate=torch.tensor([0.03, 0.03, 1.5])).pooled, plain.pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder(x, times=times + 8).pooled, plain.pooled, atol=1e-4, rtol=1e-4)
    assert (encoder(x, times=times * 7).pooled - plain.pooled).abs().max() > 1e-3


def test_positions_tell_all_tokens_apart_and_depend_on_differences():
    table = tubelet_positions((4, 3, 5), 48)
    assert table.shape == (60, 48)
    distance = torch.cdist(table, table) + 9 * torch.eye(60)
    assert distance.min() > 0.05
    similarity = (table @ table.T).view(4, 3, 5, 4, 3, 5)
    torch.testing.assert_close(similarity[0, 0, 0, 1, 1, 1], similarity[2, 1, 3, 3, 2, 4], atol=1e-4, rtol=1e-4)
    times = torch.tensor([[0.0, 0.5, 1.0, 1.5], [3.0, 3.5, 4.0, torch.nan]])
    timed = tubelet_positions((4, 3, 5), 48, times)
    assert timed.shape == (2, 60, 48)
    torch.testing.assert_close(timed[0, :45], timed[1, :45], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="one time per tubelet"):
        tubelet_positions((4, 3, 5), 48, times[:, :3])


def test_positions_of_the_encoder_are_those_for_decoders():
    encoder, times = make(), torch.arange(5)[None] * 0.25
    expected = tubelet_positions((3, 3, 2), 12, times[:, ::2])
    torch.testing.assert_close(encoder.positions(SHAPE, None, None, times, dim=12), expected)
    assert encoder.positions(SHAPE).shape == (1, 18, 24)


def test_index_positions_equal_the_formula_of_videomae():
    table = index_positions((2, 14, 14), 10)
    for token in (0, 1, 57, 391):
        expected = [(math.sin, math.cos)[j % 2](token / 10000 ** (2 * (j // 2) / 10)) for j in range(10)]
        torch.testing.assert_close(table[token], torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert index_positions((3, 2, 5), 10).shape == (30, 10)


@pytest.mark.parametrize(
    ("options", "message"), [({"dim": 25}, "even"), ({"dim": 26, "heads": 3}, "heads"), ({"patch": (0, 8, 8)}, "patch")]
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
