"""Smooth fields: unit variance, and a covariance operator that equals the explicit matrix."""

import numpy as np
import pytest

from ssl4neuro.simulate.networks import Brain
from ssl4neuro.simulate.noise import TRUNCATE, SmoothField


@pytest.fixture
def brain() -> Brain:
    mask = np.zeros((7, 6, 8), dtype=bool)
    mask[1:6, 1:5, 2:8] = True  # touches one border of the grid
    mask[3, 2, 4] = False
    return Brain(mask, np.diag([8.0, 8.0, 8.0, 1.0]), 8.0)


def explicit_covariance(field: SmoothField, brain: Brain) -> np.ndarray:
    """Voxel by voxel from the kernel: the sum over the white noise that two voxels share."""
    reach = np.arange(-field.pad, field.pad + 1)
    kernel = np.exp(-0.5 * (reach / field.sigma) ** 2)
    kernel /= kernel.sum()
    lag = np.convolve(kernel, kernel[::-1])  # autocorrelation of the kernel, lags -2 pad .. 2 pad
    lag /= lag.max()
    voxels = np.argwhere(brain.mask)
    difference = voxels[:, None] - voxels[None]
    inside = np.abs(difference) <= 2 * field.pad
    return np.where(inside, lag[np.clip(difference + 2 * field.pad, 0, len(lag) - 1)], 0.0).prod(axis=2)


def test_covariance_operator_equals_the_matrix(brain: Brain):
    field = SmoothField(brain, fwhm=20.0)
    count = int(brain.mask.sum())
    assert field.pad == int(TRUNCATE * 20 / 2.3548 / 8 + 0.5)
    np.testing.assert_allclose(field.covariance(np.eye(count)), explicit_covariance(field, brain), atol=1e-9)


def test_drawn_fields_have_the_covariance(brain: Brain):
    field = SmoothField(brain, fwhm=20.0)
    drawn = field.draw(np.random.default_rng(0), 6000).astype(np.float64)
    empirical = drawn.T @ drawn / len(drawn)
    assert np.abs(empirical - explicit_covariance(field, brain)).max() < 0.08  # sd of an entry is 1 / sqrt(6000) = 0.013
    assert np.abs(np.diag(empirical) - 1).max() < 0.08
