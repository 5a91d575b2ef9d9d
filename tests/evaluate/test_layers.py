"""Stages of the encoders: pooled over what is valid only, whatever the padding and the batch."""

import pytest
import torch
from torch import nn

from ssl4neuro.encoders import ENCODERS
from ssl4neuro.evaluate.layers import pool_level, watched
from ssl4neuro.registry import Component, build

CASES = [
    ("course_conv", (100,), (28,)),
    ("course_conv", (64,), (64,)),
    ("volume_resnet", (1, 24, 24, 24), (8, 0, 0)),
    ("clip", (1, 9, 32, 32), (7,)),
    ("frame", (1, 9, 32, 32), (5,)),
]


@pytest.mark.parametrize(("name", "shape", "padding"), CASES)
def test_padding_changes_no_layer(name: str, shape: tuple[int, ...], padding: tuple[int, ...]) -> None:
    """A sample alone, and the same sample padded at its end to stand beside a longer one."""
    torch.manual_seed(0)
    encoder = build(ENCODERS, Component(name, {"preset": "tiny"}), "test").eval()
    x = torch.randn(1, *shape)
    space = x.shape[1:] if len(shape) == 1 else x.shape[2:]
    valid = torch.ones(1, *space[: len(padding)], dtype=torch.bool)
    pad = [p for extra in reversed((*padding, *[0] * (len(space) - len(padding)))) for p in (0, extra)]
    mask_pad = [p for extra in reversed(padding) for p in (0, extra)]
    with torch.no_grad(), watched({"m": encoder}) as found:
        encoder(x, valid)
        alone = dict(found)
        encoder(nn.functional.pad(x, pad), nn.functional.pad(valid, mask_pad))
        padded = dict(found)
    assert list(alone) == [f"m_layer{k}" for k in range(1, len(alone) + 1)]
    assert len(alone) >= 2
    for layer, values in alone.items():
        torch.testing.assert_close(padded[layer], values, atol=2e-4, rtol=1e-3)
        assert values.ndim == 2


def test_hooks_are_gone_afterwards() -> None:
    encoder = nn.Linear(2, 2)
    with watched({"m": encoder}):
        assert len(encoder._forward_hooks) == 1
    assert not encoder._forward_hooks


def test_pooling_is_the_mean_over_valid_positions() -> None:
    level, valid = torch.randn(2, 3, 5), torch.tensor([[True] * 10, [True] * 5 + [False] * 5])
    expected = torch.stack([level[0].mean(1), level[1, :, :3].mean(1)])  # 5 of 10 reach into the third of 5
    torch.testing.assert_close(pool_level(level, valid), expected)
    clip = torch.randn(2, 3, 5, 4, 4)
    torch.testing.assert_close(pool_level(clip, valid), pool_level(clip.mean((3, 4)), valid))
    torch.testing.assert_close(pool_level(clip, None), clip.mean((2, 3, 4)))
    assert (pool_level(level, torch.zeros(2, 10, dtype=torch.bool)) == 0).all()
