"""Temporal reductions against loops over frames."""

import pytest
import torch

from ssl4neuro.heads.temporal_reduction import KERNELS, DepthwiseReduction, FirstFramePool, SharedStack, frame_weights


def maps(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, frames, 6, 4, 3, generator=torch.Generator().manual_seed(seed))


def everything(frames: int) -> torch.Tensor:
    return torch.ones(2, frames, dtype=torch.bool)


def test_depthwise_is_a_weighted_sum_and_starts_as_the_mean():
    layer, x = DepthwiseReduction(6, 5), maps(5)
    torch.testing.assert_close(layer(x, everything(5)), x.mean(1))
    torch.nn.init.normal_(layer.weight)
    expected = sum(x[:, i] * layer.weight[:, i, None, None] for i in range(5))
    torch.testing.assert_close(layer(x, everything(5)), expected)


def test_depthwise_with_missing_frames_is_the_mean_of_the_rest():
    x = maps(5)
    valid = torch.arange(5) < torch.tensor([[5], [2]])
    out = DepthwiseReduction(6, 5)(x, valid)
    torch.testing.assert_close(out[1], x[1, :2].mean(0))
    torch.testing.assert_close(out[0], x[0].mean(0))


@pytest.mark.parametrize("frames", KERNELS)
def test_shared_stack_treats_every_channel_and_position_alike(frames):
    torch.manual_seed(0)
    layer, x = SharedStack(frames, 3), maps(frames)
    out = layer(x, everything(frames))
    assert out.shape == (2, 6, 4, 3)
    assert (out >= 0).all()
    course = x[1, :, 4, 2, 1][None]  # channels 1, then hidden; one strided convolution after the other
    convs = [part for part in layer.stack if isinstance(part, torch.nn.Conv3d)]
    for conv in convs:
        kernel = conv.weight.shape[2]
        steps = [
            (conv.weight[..., 0, 0] * course[None, :, i : i + kernel]).sum((1, 2)) + conv.bias
            for i in range(0, course.shape[1] - kernel + 1, kernel)
        ]
        course = torch.stack(steps, 1).relu()
    assert course.shape == (3, 1)
    torch.testing.assert_close(out[1, 4, 2, 1], course.mean())


def test_shared_stack_names_the_frames_it_has_kernels_for():
    with pytest.raises(ValueError, match=r"5, 10, 15, 20, 30 frames, got 8"):
        SharedStack(8, 2)


def test_pool_by_the_first_frame_equals_a_loop_over_positions():
    torch.manual_seed(0)
    layer, x = FirstFramePool(6, dim=4), maps(3)
    torch.nn.init.constant_(layer.first, 0.7)
    out = layer(x, torch.tensor([[True, True, True], [True, True, False]]))
    for row, frames in ((0, 3), (1, 2)):
        for i in range(4):
            for j in range(3):
                pixel = x[row, :frames, :, i, j]
                q = layer.query.weight[:, :, 0, 0] @ pixel[0] + layer.query.bias
                logits = torch.stack([q @ (layer.key.weight[:, :, 0, 0] @ p) / 2 for p in pixel])
                logits[0] += 0.7
                torch.testing.assert_close(out[row, :, i, j], logits.softmax(0) @ pixel)


def test_frame_weights_sum_to_one_or_nothing():
    weights = frame_weights(torch.tensor([[True, True, False], [False, False, False]]))
    assert weights.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
