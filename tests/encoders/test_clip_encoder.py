"""The 3-D encoders against torchvision's networks, and what padding may do."""

import pytest
import torch
from torchvision.models import video

from ssl4neuro.encoders import ClipEncoder
from ssl4neuro.encoders.clip import time_masks

BODIES = ("r3d_18", "mc3_18", "r2plus1d_18")
VALID = torch.arange(7) < torch.tensor([7, 4, 1])[:, None]


def make(**options) -> ClipEncoder:
    torch.manual_seed(0)
    return ClipEncoder(**{"dim": 16, "channels": (8, 8, 16, 16), "blocks": 1, **options}).eval()


def clips() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(3, 1, 7, 33, 40)


@pytest.mark.parametrize("body", BODIES)
def test_bodies_equal_torchvision(body):
    torch.manual_seed(0)
    theirs = getattr(video, body)(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    encoder = ClipEncoder(dim=8, body=body, in_channels=3, norm="batch").eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    encoder.body.load_state_dict(state)
    theirs.fc = torch.nn.Identity()
    x = torch.randn(1, 3, 5, 34, 41)
    with torch.no_grad():
        expected, out = theirs(x), encoder(x)
    torch.testing.assert_close(out.tokens.mean(1), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.pooled, encoder.head(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pool", ["mean", "attention"])
@pytest.mark.parametrize("body", BODIES)
def test_a_padded_clip_is_encoded_as_if_alone(body, pool):
    encoder, x = make(body=body, pool=pool), clips()
    out = encoder(x, VALID)
    for i, frames in enumerate((7, 4, 1)):
        alone = encoder(x[i : i + 1, :, :frames])
        torch.testing.assert_close(out.pooled[i], alone.pooled[0], atol=1e-5, rtol=1e-5)
        for level, expected in zip(out.levels, alone.levels, strict=True):
            real = expected.shape[2]
            torch.testing.assert_close(level[i, :, :real], expected[0], atol=1e-5, rtol=1e-5)
            assert (level[i, :, real:] == 0).all()
    (out.pooled * torch.randn_like(out.pooled)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-9, name


@pytest.mark.parametrize("body", BODIES)
def test_batch_norm_is_blind_to_padding_in_evaluation(body):
    encoder, x = make(body=body, norm="batch").train(), clips()
    encoder(x)  # moves the running statistics away from 0 and 1
    encoder.eval()
    torch.testing.assert_close(encoder(x, VALID).pooled[1], encoder(x[1:2, :, :4]).pooled[0], atol=1e-5, rtol=1e-5)


def test_time_masks_equal_a_loop_over_windows():
    masks = time_masks(VALID, clips())
    assert list(masks) == [7, 4, 2, 1]
    for size, step in zip(masks, (1, 2, 4, 8), strict=True):
        for t in range(size):
            assert torch.equal(masks[size][:, 0, t, 0, 0] > 0, VALID[:, t * step : (t + 1) * step].any(1))
    assert list(time_masks(VALID[:, :1], clips())) == [1]


def test_mixed_convolutions_keep_all_frames_and_the_others_halve_them():
    assert [level.shape[2] for level in make(body="mc3_18")(clips()).levels] == [7, 7, 7, 7]
    assert [level.shape[2] for level in make(body="r3d_18")(clips()).levels] == [7, 4, 2, 1]
    assert make()(clips()[:, :, :1]).pooled.isfinite().all()


def test_time_matters():
    encoder, x = make(), clips()
    assert (encoder(x).pooled - encoder(x.flip(2)).pooled).abs().max() > 1e-3


def test_memory_format_changes_nothing_but_the_layout():
    x = clips()
    for body in BODIES:
        plain, other = make(body=body), make(body=body, channels_last=True)
        torch.testing.assert_close(other(x, VALID).pooled, plain(x, VALID).pooled, atol=1e-5, rtol=1e-5)


def test_nothing_valid_gives_the_bias_of_the_head():
    encoder = make()
    out = encoder(clips(), torch.zeros(3, 7, dtype=torch.bool))
    torch.testing.assert_close(out.pooled, encoder.head.bias.expand(3, -1))
