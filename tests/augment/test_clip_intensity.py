"""Normalisation against numpy and closed forms, random changes of brightness against naive ones, residual frames."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from ssl4neuro.augment import ClipAugment, Clips, Keyed, normalise_clips, residual
from ssl4neuro.augment.clip_intensity import SAMPLE, shading, temporal_taps

OFF = {**ClipAugment.PRESETS["none"], "frames": 6}
TAPS = np.array([0.2928, 0.4144, 0.2928])  # methods/biovidnet.md §2
LENGTHS = (6, 3, 2, 1)


@pytest.fixture
def clips():
    """Raw two-channel clips; the padding holds rubbish that must neither matter nor change."""
    torch.manual_seed(0)
    valid = torch.arange(6) < torch.tensor(LENGTHS)[:, None]
    x = torch.rand(4, 2, 6, 7, 9) * 300 + 40
    x[:, 1] *= 5
    x.transpose(1, 2)[~valid] = -1e9
    return Clips(x, valid, torch.where(valid, torch.arange(6) * 0.04, torch.nan))


@pytest.mark.parametrize("how", ["zscore", "minmax", "percentile", "biovidnet"])
def test_padding_and_batch_do_not_matter(clips, how):
    out = normalise_clips(clips, how).x
    assert (out.transpose(1, 2)[~clips.valid] == -1e9).all()
    for i, length in enumerate(LENGTHS):
        alone = Clips(clips.x[i : i + 1, :, :length], clips.valid[i : i + 1, :length], clips.times[i : i + 1, :length])
        assert torch.equal(normalise_clips(alone, how).x[0], out[i, :, :length])
    assert normalise_clips(clips, "none").x is clips.x


def test_scales_equal_numpy(clips):
    scored, ranged, clipped = (normalise_clips(clips, how).x for how in ("zscore", "minmax", "percentile"))
    for i, length in enumerate(LENGTHS):
        for channel in range(2):
            raw = clips.x[i, channel, :length].double().numpy()
            np.testing.assert_allclose(scored[i, channel, :length], (raw - raw.mean()) / raw.std(), atol=1e-4)
            np.testing.assert_allclose(ranged[i, channel, :length], (raw - raw.min()) / np.ptp(raw), atol=1e-5)
            low, high = np.quantile(raw, [0.01, 0.99])
            np.testing.assert_allclose(clipped[i, channel, :length], np.clip((raw - low) / (high - low), 0, 1), atol=1e-5)


def test_percentiles_of_long_clips_are_close_to_exact():
    torch.manual_seed(0)
    x = torch.randn(2, 1, 20, 64, 64).exp() * torch.linspace(0.2, 3, 64)  # skewed, with a gradient across columns
    assert x[0].numel() > 4 * SAMPLE
    out = normalise_clips(Clips(x, torch.ones(2, 20, dtype=torch.bool), torch.zeros(2, 20)), "percentile").x
    assert ((out == 0).float().mean((1, 2, 3, 4)) - 0.01).abs().max() < 0.004
    assert ((out == 1).float().mean((1, 2, 3, 4)) - 0.01).abs().max() < 0.004


@pytest.mark.parametrize("how", ["zscore", "minmax", "percentile", "biovidnet"])
def test_constant_and_empty_clips_stay_finite(how):
    clips = Clips(torch.full((2, 1, 4, 5, 5), 1234.5), torch.tensor([[True] * 4, [False] * 4]), torch.full((2, 4), torch.nan))
    out = normalise_clips(clips, how).x
    assert (out[0] == 0).all()
    assert (out[1] == 1234.5).all()


def test_biovidnet_equals_the_method(clips):
    out, scored = normalise_clips(clips, "biovidnet").x.double().numpy(), normalise_clips(clips, "zscore").x.double().numpy()
    for i, length in enumerate(LENGTHS):
        expected = scored[i, :, :length]
        if length >= 3:
            expected = ndimage.correlate1d(expected, TAPS, axis=1, mode="mirror")  # the edge frame is not repeated
        np.testing.assert_allclose(out[i, :, :length], expected, atol=5e-4)


def test_taps_follow_irregular_times():
    times = torch.tensor([[0.0, 0.1, 0.3, 0.4, 0.5, torch.nan]])
    before, after = (w[0].double().numpy() for w in temporal_taps(torch.tensor([5]), times))
    one, two = np.exp(-1 / 2.88), np.exp(-4 / 2.88)
    np.testing.assert_allclose(before[1:4], [one / (1 + one + two), two / (1 + one + two), one / (1 + 2 * one)], atol=1e-6)
    np.testing.assert_allclose(after[1:4], [two / (1 + one + two), one / (1 + one + two), one / (1 + 2 * one)], atol=1e-6)
    np.testing.assert_allclose([before[0], before[4]], one / (1 + 2 * one), atol=1e-6)
    regular = temporal_taps(torch.tensor([4]), torch.full((1, 4), torch.nan))
    np.testing.assert_allclose(torch.stack(regular).numpy(), TAPS[0], atol=5e-5)


def test_residual_frames(clips):
    out = residual(clips).x
    for i, length in enumerate(LENGTHS):
        frames = clips.x[i, :, :length]
        assert torch.equal(out[i, :, :length], frames - frames.roll(-1, 1))
        assert (out[i, :, length:] == 0).all()
        assert out[i, :, :length].sum(1).abs().max() < 1e-3
    assert (out[3] == 0).all()


@pytest.fixture
def full():
    torch.manual_seed(3)
    x = torch.randn(8, 1, 6, 12, 10) * 2 + 1
    return Clips(x, torch.ones(8, 6, dtype=torch.bool), torch.zeros(8, 6))


def test_tone_curve_contrast_and_brightness(full):
    keyed = Keyed(0, 0, torch.arange(8))
    for options in ({"gamma": 0.8}, {"contrast": 0.4}, {"brightness": 0.7}):
        augment = ClipAugment(**{**OFF, **options})
        params, out = augment.draw(keyed, full), augment(full, keyed).x
        for i in range(8):
            x = full.x[i].double()
            low, high = x.min(), x.max()
            if "gamma" in params:
                expected = ((x - low) / (high - low)) ** float(params["gamma"][i]) * (high - low) + low
            elif "contrast" in params:
                middle = (low + high) / 2
                expected = (x - middle) * float(params["contrast"][i]) + middle
            else:
                expected = x + float(params["brightness"][i])
            # the tone curve is a table of straight lines, steepest at the dark end
            torch.testing.assert_close(out[i].double(), expected, atol=1e-5 if "gamma" not in params else 5e-3, rtol=0)
    gamma = ClipAugment(**{**OFF, "gamma": 0.8}).draw(Keyed(0, 0, torch.arange(5000)), full)["gamma"]
    assert gamma.log().mean().abs() < 0.02
    assert 1 / 1.8 <= gamma.min() < 0.58 < 1.75 < gamma.max() <= 1.8


def test_shading_blur_noise_and_cutout_are_the_same_in_all_frames(full):
    keyed = Keyed(0, 0, torch.arange(8))
    augment = ClipAugment(**{**OFF, "bias": 0.15})
    field = shading(augment.draw(keyed, full)["bias"], (12, 10))
    low = full.x.flatten(1).amin(1)[:, None, None, None, None]
    torch.testing.assert_close(augment(full, keyed).x, (full.x - low) * field[:, None, None] + low, atol=1e-5, rtol=0)
    assert field.amin() > 0
    assert field.flatten(1).std(1).min() > 0.01

    augment = ClipAugment(**{**OFF, "blur": 0.7})
    w = float(augment.draw(keyed, full)["blur"][2])
    expected = full.x[2].double().numpy()
    for axis in (2, 3):
        expected = ndimage.convolve1d(expected, [w, 1 - 2 * w, w], axis=axis, mode="nearest")
    np.testing.assert_allclose(augment(full, keyed).x[2].numpy(), expected, atol=1e-5)

    noise = ClipAugment(**{**OFF, "noise_sd": 0.3})(full, keyed).x - full.x
    assert noise.std() == pytest.approx(0.3, rel=0.03)
    assert np.corrcoef(noise[:, :, 0].flatten(), noise[:, :, 1].flatten())[0, 1] == pytest.approx(0, abs=0.1)  # per frame

    out = ClipAugment(**{**OFF, "cutout": 0.5})(full, keyed).x
    hidden = out != full.x
    assert (hidden.sum((3, 4)) >= 6 * 5 - 1).all()  # the lowest pixel itself may lie inside
    assert (hidden.sum((3, 4)) <= 6 * 5).all()
    torch.testing.assert_close(out[hidden], low.expand_as(out)[hidden])
