"""The frame encoder against torchvision's networks and against frames encoded one at a time."""

import pytest
import torch
import torchvision

from ssl4neuro.encoders import FrameEncoder

VALID = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])


def make(seed: int = 0, **options) -> FrameEncoder:
    torch.manual_seed(seed)
    return FrameEncoder(**{**FrameEncoder.PRESETS["tiny"], **options}).eval()


def clips(channels: int = 1, side: int = 40) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(3, channels, 4, side, side + 5)


@pytest.mark.parametrize("body", ["resnet18", "resnet50"])
def test_bodies_equal_torchvision(body):
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(body, weights=None).eval()
    encoder = make(body=body, norm="batch", in_channels=3, dim=8)
    state = theirs.state_dict()
    assert set(encoder.body.state_dict()) == {k for k in state if not k.startswith("fc.")}
    encoder.body.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})
    theirs.fc = torch.nn.Identity()
    x = clips(3, 64)[:2, :, :2]
    expected = theirs(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 2))
    out = encoder(x)
    torch.testing.assert_close(out.levels[-1].mean((3, 4)), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.tokens, encoder.head(expected), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.pooled, encoder.head(expected).mean(1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 33)])
def test_levels_have_the_documented_strides_and_widths(height, width):
    encoder = make()
    levels = encoder(torch.randn(2, 1, 3, height, width)).levels
    assert encoder.widths == (16, 24, 32, 48, 64)
    for level, stride, channels in zip(levels, (2, 4, 8, 16, 32), encoder.widths, strict=True):
        assert level.shape == (2, 3, channels, -(-height // stride), -(-width // stride))


def test_a_frame_is_encoded_as_if_alone_and_padding_as_zero():
    encoder, x = make(), clips()
    out = encoder(x, VALID)
    for i in range(3):
        for t in range(4):
            if VALID[i, t]:
                alone = encoder(x[i : i + 1, :, t : t + 1])
                torch.testing.assert_close(out.tokens[i, t], alone.tokens[0, 0], atol=1e-5, rtol=1e-5)
                for level, expected in zip(out.levels, alone.levels, strict=True):
                    torch.testing.assert_close(level[i, t], expected[0, 0], atol=1e-5, rtol=1e-5)
            else:
                assert all((level[i, t] == 0).all() for level in (out.tokens, *out.levels))


def test_mean_and_deviation_are_over_valid_frames():
    encoder, x = make(pool="mean_std"), clips()
    out = encoder(x, VALID)
    for i in range(3):
        tokens = out.tokens[i][VALID[i]]
        both = torch.cat([tokens.mean(0), (tokens.var(0, correction=0) + 1e-6).sqrt()])
        torch.testing.assert_close(out.pooled[i], encoder.pool(both), atol=1e-5, rtol=1e-5)
    plain = make()(x, VALID)
    torch.testing.assert_close(plain.pooled[1], plain.tokens[1, :2].mean(0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "mean_std", "attention", "transformer"])
def test_every_pooling_ignores_padding_and_trains_every_parameter(pool):
    encoder, x = make(pool=pool), clips()
    out, short = encoder(x, VALID), encoder(x[1:, :, :2], VALID[1:, :2])
    torch.testing.assert_close(out.pooled[1:], short.pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.tokens[1:, :2], short.tokens, atol=1e-5, rtol=1e-5)
    (out.pooled * torch.randn_like(out.pooled)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-9, name
    assert encoder(x[:, :, :1]).pooled.isfinite().all()


def test_only_the_transformer_knows_the_order_and_the_times():
    x, order = clips(), torch.tensor([2, 0, 3, 1])
    times = torch.tensor([[0.0, 0.03, 0.06, 0.09]] * 3)
    mean, transformer = make(), make(pool="transformer")
    torch.testing.assert_close(mean(x).pooled, mean(x[:, :, order]).pooled, atol=1e-5, rtol=1e-5)
    plain = transformer(x, times=times).pooled
    assert (plain - transformer(x[:, :, order], times=times).pooled).abs().max() > 1e-3
    assert (plain - transformer(x, times=5 * times).pooled).abs().max() > 1e-3
    together = transformer(x[:, :, order], times=times[:, order])  # frames with their times: order in memory is nothing
    torch.testing.assert_close(together.pooled, plain, atol=1e-5, rtol=1e-5)


def test_batch_norm_in_training_does_not_see_padding():
    x, first, second = clips(), make(norm="batch").train(), make(norm="batch").train()
    valid = VALID[:, :4] & (torch.arange(4) < 2)
    one, other = first(x, valid), second(x[:, :, :2], valid[:, :2])
    torch.testing.assert_close(one.pooled, other.pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(first.body.bn1.running_var, second.body.bn1.running_var)


def test_a_batch_without_any_frame_is_zero_and_keeps_every_gradient():
    encoder = make()
    out = encoder(torch.full((2, 1, 3, 32, 32), torch.nan), torch.zeros(2, 3, dtype=torch.bool))
    assert all((t == 0).all() for t in (out.pooled, out.tokens, *out.levels))
    out.pooled.sum().backward()
    assert all(p.grad is not None and (p.grad == 0).all() for p in encoder.parameters())


def test_memory_format_changes_nothing_but_the_layout():
    plain, other = make(), make(channels_last=True)
    torch.testing.assert_close(other(clips(), VALID).pooled, plain(clips(), VALID).pooled, atol=1e-5, rtol=1e-5)


def test_bottlenecks_train():
    encoder, x = make(body="resnet50", dim=8), clips(side=32)[:2, :, :2]
    out = encoder(x)
    (out.pooled * torch.randn_like(out.pooled)).sum().backward()
    assert all(p.grad.abs().max() > 1e-9 for p in encoder.parameters())
