"""Course augmentation: windows, shared draws within a scan, spectra, replay, independence of batch and padding."""

import inspect

import numpy as np
import pytest
import torch

from ssl4neuro.augment import AUGMENTATIONS, CourseAugment, Keyed
from ssl4neuro.augment.course import phase_randomised
from ssl4neuro.augment.rowdft import row_irfft, row_rfft
from ssl4neuro.registry import Component, build

OFF = CourseAugment.PRESETS["none"]


def batch(lengths, time=None, seed=0):
    """Courses that count their own time points plus noise, zero-padded."""
    torch.manual_seed(seed)
    lengths = torch.as_tensor(lengths)
    time = time or int(lengths.max())
    valid = torch.arange(time) < lengths[:, None]
    return torch.randn(len(lengths), time) * valid, valid


def keyed(n, view=0, seed=0) -> Keyed:
    return Keyed(seed, 0, torch.arange(n), view)


def test_presets_are_built_from_the_table():
    for preset in CourseAugment.PRESETS:
        build(AUGMENTATIONS, Component("course", {"preset": preset}))
    assert set(OFF) == set(inspect.signature(CourseAugment).parameters) - {"halves"}


def test_neutral_options_are_the_identity():
    x, valid = batch([100, 80])
    out, mask = CourseAugment(**OFF)(x, valid, keyed(2))
    assert torch.equal(out, x)
    assert torch.equal(mask, valid)


def test_replay_and_key():
    x, valid = batch([150, 120, 90])
    augment, rate = CourseAugment(), torch.tensor([2.0, 0.8, torch.nan])
    params = augment.draw(keyed(3), x, valid)
    first = augment.apply(x, valid, params, rate)
    again = augment(x, valid, keyed(3), None, rate)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], augment(x, valid, keyed(3, view=1), None, rate)[0])
    assert first[0].isfinite().all()
    assert (first[0][~first[1]] == 0).all()


def test_crop_length_bound_and_content():
    x, valid = batch([150] * 300 + [40] * 20, seed=1)
    augment = CourseAugment(**{**OFF, "crop_min": 0.6})
    out, mask = augment(x, valid, keyed(320))
    length = mask.sum(1)
    assert length[:300].min() >= 90
    assert length[:300].max() <= 150
    assert length[:300].unique().numel() > 30
    assert length[300:].min() >= 32
    assert length[300:].max() <= 40
    start = augment.draw(keyed(320), x, valid)["start"]
    assert start.min() == 0
    assert (start + length <= valid.sum(1)).all()
    assert start[:300].unique().numel() > 20
    for i in (0, 7, 311):
        assert torch.equal(out[i, : length[i]], x[i, start[i] : start[i] + length[i]])
        assert (out[i, length[i] :] == 0).all()
        assert not mask[i, length[i] :].any()


def test_rows_of_a_scan_share_what_would_destroy_their_correlations():
    x, valid = batch([148] * 12)
    group = torch.tensor([7] * 6 + [3] * 6)
    augment = CourseAugment()
    params = augment.draw(keyed(12), x, valid, group)
    for name in ("start", "length", "gap", "gap_length", "highpass", "lowpass"):
        assert [half.unique().numel() for half in params[name].split(6)] == [1, 1], name
    assert params["scale"].unique().numel() == 12
    assert params["phase"][:, 3].unique().numel() == 12
    assert any((params[name][0] != params[name][6]) for name in ("start", "length"))
    _, mask = augment(x, valid, keyed(12), group)
    assert (mask[:6] == mask[0]).all()
    alone = augment.draw(keyed(12), x, valid)
    assert alone["start"].unique().numel() > 2

    # correlations of the window equal those of the same window of the input (scale and sign leave them alone)
    quiet = CourseAugment(**{**OFF, "crop_min": 0.6, "scale_low": 0.8, "scale_high": 1.2})
    out, mask = quiet(x, valid, keyed(12), group)
    params = quiet.draw(keyed(12), x, valid, group)
    start, length = int(params["start"][0]), int(params["length"][0])
    torch.testing.assert_close(
        torch.corrcoef(out[:6, :length]), torch.corrcoef(x[:6, start : start + length]), atol=1e-5, rtol=1e-4
    )


def test_halves_share_no_time_point_and_cover_the_scan():
    lengths = [150, 150, 97, 97, 64]
    x, valid = batch(lengths)
    group = torch.tensor([0, 0, 1, 1, 2])
    augment = CourseAugment(**{**OFF, "halves": True})
    first, mask_1 = augment(x, valid, keyed(5, view=0), group)
    second, mask_2 = augment(x, valid, keyed(5, view=1), group)
    for i, n in enumerate(lengths):
        a, b = int(mask_1[i].sum()), int(mask_2[i].sum())
        assert a + b == n
        assert 0.38 < a / n < 0.62
        assert torch.equal(torch.cat([first[i, :a], second[i, :b]]), x[i, :n])
    assert torch.equal(mask_1[0], mask_1[1])
    assert torch.equal(mask_1[2], mask_1[3])
    both, mask = augment(x[:2], valid[:2], keyed(2).with_rows(torch.tensor([0, 0])).with_view(torch.tensor([0, 1])), group[:2])
    assert torch.equal(both[0], first[0])
    assert torch.equal(both[1], second[1])
    assert torch.equal(mask[1], mask_2[1])


def test_gap_is_contiguous_and_bounded():
    x, valid = batch([100, 60])
    out, mask = CourseAugment(**{**OFF, "mask_fraction": 0.15})(x, valid, keyed(2))
    for i, (n, gap) in enumerate([(100, 15), (60, 9)]):
        lost = (valid[i] & ~mask[i]).nonzero()[:, 0]
        assert len(lost) == gap
        assert lost[-1] - lost[0] == gap - 1
        assert lost[-1] < n
    assert torch.equal(out, x * mask)


def test_scale_is_positive_and_bounded():
    x, valid = batch([100] * 500)
    out, _ = CourseAugment(**{**OFF, "scale_low": 0.8, "scale_high": 1.2})(x, valid, keyed(500))
    ratio = (out / x).median(1).values
    torch.testing.assert_close(out, ratio[:, None] * x, atol=1e-5, rtol=1e-4)
    assert 0.8 <= ratio.min() < 0.82
    assert 1.18 < ratio.max() <= 1.2


@pytest.mark.parametrize("length", [64, 97, 150])
def test_row_transform_equals_numpy_at_the_rows_own_length(length):
    x, _ = batch([length, 150, 33], time=150)
    lengths = torch.tensor([length, 150, 33])
    spectrum = row_rfft(x, lengths)
    for i, n in enumerate(lengths.tolist()):
        np.testing.assert_allclose(spectrum[i, : n // 2 + 1].numpy(), np.fft.rfft(x[i, :n].double().numpy()), atol=1e-3)
        assert (spectrum[i, n // 2 + 1 :] == 0).all()
    torch.testing.assert_close(row_irfft(spectrum, lengths, 150), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [100, 101])
def test_phase_randomisation_keeps_the_amplitude_spectrum(length):
    x, _ = batch([length] * 4, time=120)
    lengths = torch.full((4,), length)
    spectrum = row_rfft(x, lengths)
    phase = keyed(4).uniform("p", (61,), 0.0, 2 * torch.pi)
    noise = row_irfft(phase_randomised(spectrum, phase, lengths), lengths, 120)
    original = np.abs(np.fft.rfft(x[:, :length].numpy()))
    np.testing.assert_allclose(np.abs(np.fft.rfft(noise[:, :length].numpy())), original, atol=1e-3)
    assert (noise[:, length:] == 0).all()
    assert abs(np.corrcoef(noise[0, :length], x[0, :length])[0, 1]) < 0.35
    assert noise[:, :length].std() == pytest.approx(float(x[:, :length].std()), rel=0.05)


def test_noise_has_the_stated_amplitude():
    x, valid = batch([148] * 50)
    out, _ = CourseAugment(**{**OFF, "phase_noise": 0.3})(x, valid, keyed(50))
    assert (out - x).std() == pytest.approx(0.3 * float(x.std()), rel=0.05)


def test_band_edges_are_in_hz():
    # Two scans with the same samples and different repetition times: the same edge in Hz falls on other bins.
    x = torch.randn(1, 400).repeat(2, 1)
    augment = CourseAugment(**{**OFF, "lowpass_hz": 0.1, "highpass_hz": 0.02})
    key = Keyed(0, 0, torch.tensor([3, 3]))
    params = augment.draw(key, x, None)
    low, high = float(params["highpass"][0]), float(params["lowpass"][0])
    assert 0 <= low <= 0.02
    assert 0.1 <= high <= 0.25
    out, _ = augment(x, None, key, None, torch.tensor([2.0, 0.5]))
    for i, tr in enumerate((2.0, 0.5)):
        f = np.fft.rfftfreq(400, tr)
        gain = np.abs(np.fft.rfft(out[i].numpy())) / np.abs(np.fft.rfft(x[i].numpy()))
        expected = np.divide(f**2, f**2 + low**2, where=f > 0, out=np.zeros_like(f)) / np.sqrt(1 + (f / high) ** 8)
        np.testing.assert_allclose(gain, expected, atol=5e-3)
    unknown, _ = augment(x, None, key, None, torch.tensor([2.0, torch.nan]))
    assert torch.allclose(unknown[1], unknown[0])


def test_independent_of_batch_and_padding():
    x, valid = batch([148, 120, 148, 90, 100], time=148)
    rate, group = torch.tensor([2.0, 1.0, 2.0, 3.0, torch.nan]), torch.tensor([0, 1, 0, 2, 3])
    augment = CourseAugment()
    whole, mask = augment(x, valid, keyed(5), group, rate)
    for order, time in (([3], 90), ([4, 1], 200), ([2, 0], 148)):
        padded = torch.zeros(len(order), max(time, 148))
        padded[:, :148] = x[order]
        mask_in = torch.zeros(len(order), max(time, 148), dtype=torch.bool)
        mask_in[:, :148] = valid[order]
        out, mask_out = augment(
            padded[:, :time], mask_in[:, :time], Keyed(0, 0, torch.tensor(order)), group[order], rate[order]
        )
        width = min(time, 148)
        torch.testing.assert_close(out[:, :width], whole[order][:, :width], atol=2e-5, rtol=0)
        assert torch.equal(mask_out[:, :width], mask[order][:, :width])
        assert not mask_out[:, width:].any()


@pytest.mark.parametrize("options", [{"crop_min": 0.0}, {"mask_fraction": 0.9}, {"scale_low": 1.5}, {"lowpass_hz": 0.4}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        CourseAugment(**options)
