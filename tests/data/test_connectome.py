"""Tangent-space connectivity against its definition."""

import numpy as np
import pytest
from scipy.linalg import logm, sqrtm
from sklearn.covariance import ledoit_wolf

from ssl4neuro.data.connectome import TangentSpace, singular
from ssl4neuro.evaluate.features import TangentFeatures


def _scans(count: int, components: int = 4, seed: int = 0) -> list[np.ndarray]:
    """Scans of different length, with correlated components."""
    rng = np.random.default_rng(seed)
    mixing = [np.eye(components) + 0.4 * rng.normal(size=(components, components)) for _ in range(count)]
    return [rng.normal(size=(60 + 10 * i, components)) @ m for i, m in enumerate(mixing)]


def _shrunk(scan: np.ndarray) -> np.ndarray:
    return ledoit_wolf((scan - scan.mean(axis=0)) / scan.std(axis=0))[0]


def test_vectors_are_logarithms_around_the_geometric_mean() -> None:
    scans = _scans(5)
    space = TangentSpace(scans)
    matrices = [_shrunk(scan) for scan in scans]
    mean = np.mean(matrices, axis=0)
    for _ in range(50):  # the geometric mean: where the mean logarithm is 0
        root = np.real(sqrtm(mean))
        inverse = np.linalg.inv(root)
        step = np.mean([np.real(logm(inverse @ m @ inverse)) for m in matrices], axis=0)
        power, vectors = np.linalg.eigh(step)
        mean = root @ (vectors * np.exp(power)) @ vectors.T @ root
    inverse = np.linalg.inv(np.real(sqrtm(mean)))
    for scan, vector in zip(scans, space.vectors(scans), strict=True):
        tangent = np.real(logm(inverse @ _shrunk(scan) @ inverse))
        expected = np.where(np.eye(4, dtype=bool), tangent / np.sqrt(2), tangent)[np.tril_indices(4)]
        np.testing.assert_allclose(vector, expected, atol=1e-4)
    np.testing.assert_allclose(np.mean(space.vectors(scans), axis=0), 0, atol=1e-4)


def test_scans_are_transformed_one_by_one() -> None:
    space, others = TangentSpace(_scans(4)), _scans(3, seed=1)
    np.testing.assert_allclose(space.vectors(others)[1], space.vectors([others[1]])[0], atol=1e-6)


@pytest.mark.parametrize("unit", [0, 3])
def test_features_are_fitted_on_the_training_units_and_averaged_over_scans(unit: int) -> None:
    scans = _scans(8)
    units = [scans[i : i + 2] for i in range(0, 8, 2)]
    train = np.array([i for i in range(4) if i != unit])
    left, right = TangentFeatures(units).fold(train, np.array([unit]))
    space = TangentSpace([scan for i in train for scan in units[i]])
    np.testing.assert_allclose(right[0], space.vectors(units[unit]).mean(axis=0), atol=1e-6)
    units[unit] = _scans(2, seed=9)
    np.testing.assert_array_equal(left, TangentFeatures(units).fold(train, np.array([unit]))[0])


def test_fewer_volumes_than_components_are_shrunk_and_copies_are_singular() -> None:
    rng = np.random.default_rng(0)
    short = [rng.normal(size=(20, 30)) for _ in range(4)]
    assert singular(short) == 0
    assert np.isfinite(TangentSpace(short).vectors(short)).all()
    course = np.repeat([1.0, -1.0], 50)[:, None]  # of constant size, which shrinkage takes to be known exactly
    copies = np.tile(course, (1, 3)) * [1, 1, -1]
    assert singular([copies]) == 1
