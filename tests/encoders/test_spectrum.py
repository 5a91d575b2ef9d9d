"""Band powers in Hz: known sines, white noise, independence of length and repetition time."""

import numpy as np
import pytest
import torch

from ssl4neuro.encoders.spectrum import SpectrumBranch, band_power

EDGES = torch.linspace(0.008, 0.25, 33)


def powers(x, tr, valid=None):
    valid = torch.ones_like(x, dtype=torch.bool) if valid is None else valid
    return band_power(x, valid, torch.full((len(x),), tr), EDGES)


@pytest.mark.parametrize(("tr", "time"), [(2.0, 300), (0.72, 1200), (1.0, 250)])
def test_a_sine_lands_in_its_band_whatever_the_repetition_time(tr, time):
    frequency = torch.tensor([0.03, 0.08, 0.15, 0.22])
    x = torch.sin(2 * torch.pi * frequency[:, None] * torch.arange(time) * tr)
    power, available = powers(x, tr)
    expected = np.searchsorted(EDGES.numpy(), frequency.numpy()) - 1
    assert power.argmax(1).tolist() == expected.tolist()
    assert available.all()
    near = torch.stack([row[max(0, i - 1) : i + 2].sum() for row, i in zip(power, expected, strict=True)])
    assert (near > 0.98 * power.sum(1)).all()


def test_white_noise_has_density_one_in_every_band():
    torch.manual_seed(0)
    power, _ = powers(torch.randn(400, 200) * 7 + 100, 2.0)  # scale and mean are taken out
    torch.testing.assert_close(power.mean(0)[2:], torch.ones(30), atol=0.15, rtol=0)


def test_equal_to_a_direct_sum_over_the_periodogram():
    torch.manual_seed(0)
    x = torch.randn(1, 150)
    taper = np.sin(np.pi * (np.arange(150) + 0.5) / 150) ** 2
    unit = (x[0].double().numpy() - x.mean().item()) / x.double().numpy().std()
    tapered = (unit - (unit * taper).sum() / taper.sum()) * taper
    fine = np.linspace(0.008, 0.25, 32 * 200 + 1)
    fine = (fine[1:] + fine[:-1]) / 2
    basis = np.exp(-2j * np.pi * fine[:, None] * 2.0 * np.arange(150))
    density = np.abs(basis @ tapered) ** 2 / (taper**2).sum()
    power, _ = powers(x, 2.0)
    np.testing.assert_allclose(power[0].numpy(), density.reshape(32, 200).mean(1), rtol=2e-2, atol=1e-3)


def test_bands_above_nyquist_are_marked():
    power, available = powers(torch.randn(2, 200), 3.0)
    assert (available == (EDGES[1:] <= 1 / 6)).all()
    assert (power[~available] == 0).all()
    assert 0 < available[0].sum() < 32


def test_padding_and_scale_do_not_matter():
    torch.manual_seed(0)
    x = torch.randn(3, 100).cumsum(1)
    valid = torch.zeros(3, 260, dtype=torch.bool)
    valid[:, :100] = True
    wide = torch.zeros(3, 260)
    wide[:, :100] = 3 * x
    torch.testing.assert_close(powers(wide, 2.0, valid)[0], powers(x, 2.0)[0], atol=1e-5, rtol=1e-4)


def test_unknown_repetition_time_gets_the_learned_vector():
    branch = SpectrumBranch(dim=16)
    x, valid = torch.randn(3, 100), torch.ones(3, 100, dtype=torch.bool)
    out = branch(x, valid, torch.tensor([2.0, torch.nan, 2.0]))
    assert torch.equal(out[1], branch.unknown)
    assert not torch.allclose(out[0], branch.unknown)
    assert torch.equal(branch(x, valid, None), branch.unknown.expand(3, -1))
    assert (branch.features(x, valid, torch.tensor([2.0, torch.nan, 2.0]))[1] == 0).all()
    assert torch.equal(branch(x, valid, torch.tensor([2.0, torch.nan, 2.0]))[0], branch(x, valid, torch.tensor([2.0] * 3))[0])
