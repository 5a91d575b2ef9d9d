import numpy as np
import pytest
from bids_tree import maps, mask, scan

from ssl4neuro.data.dual_regression import SpatialRegression, dual_regression
from ssl4neuro.data.standardise import clean, detrend
from ssl4neuro.errors import UserError


def spatial(seed: int = 0) -> np.ndarray:
    return maps(seed)[mask()].T


def data(seed: int = 0, **options: float) -> np.ndarray:
    return np.ascontiguousarray(scan(seed, volumes=80, **options)[mask()].T)


def two_steps(volumes: np.ndarray, group: np.ndarray, confounds: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Plain two-step least squares in float64, with everything that is to be removed in the designs."""
    volumes = volumes.astype(np.float64)
    design = np.column_stack([group.T, np.ones(group.shape[1])])
    courses = np.linalg.lstsq(design, volumes.T, rcond=None)[0][: len(group)]
    ramp = np.column_stack([np.ones(len(volumes)), np.arange(len(volumes))])
    nuisance = ramp if confounds is None else np.column_stack([ramp, confounds])
    courses = courses - (nuisance @ np.linalg.lstsq(nuisance, courses.T, rcond=None)[0]).T
    volumes = volumes - nuisance @ np.linalg.lstsq(nuisance, volumes, rcond=None)[0]
    normed = courses / courses.std(axis=1, keepdims=True)
    return courses, np.linalg.lstsq(normed.T, volumes, rcond=None)[0]


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> bool:
    """Equal to 1e-4 of the standard deviation, after removing the one scale that each scan is divided by."""
    scale = (found * expected).sum() / (found * found).sum()
    return bool(np.abs(found * scale - expected).max() < tolerance * expected.std())


@pytest.mark.parametrize(("baseline", "scale"), [(0.0, 1.0), (1000.0, 10.0), (20000.0, 100.0), (0.01, 1e-4)])
def test_equals_plain_two_step_least_squares(baseline: float, scale: float) -> None:
    volumes, group = data(baseline=baseline, scale=scale), spatial()
    courses, expected = two_steps(volumes, group)
    found = dual_regression(volumes.copy(), SpatialRegression.of(group, "maps"), "scan", detrend)
    assert close(found.courses, courses)
    assert close(found.maps, expected)


def test_confounds_need_not_touch_the_data() -> None:
    volumes, group = data(), spatial()
    confounds = np.random.default_rng(5).standard_normal((80, 6))
    volumes += 40 * (confounds @ np.random.default_rng(6).standard_normal((6, volumes.shape[1]))).astype(np.float32)
    courses, expected = two_steps(volumes, group, confounds)

    def without(values: np.ndarray) -> np.ndarray:
        return clean(values, 2.0, "scan", confounds=confounds)

    found = dual_regression(volumes.copy(), SpatialRegression.of(group, "maps"), "scan", without)
    assert close(found.courses, courses, 1e-3)
    assert close(found.maps, expected, 1e-3)


def test_scrubbed_volumes_do_not_count() -> None:
    volumes, group = data(), spatial()
    kept = np.delete(np.arange(80), [10, 11, 40])
    _, expected = two_steps(volumes[kept], group)
    spiked = volumes.copy()
    spiked[[10, 11, 40]] += 500
    found = dual_regression(spiked, SpatialRegression.of(group, "maps"), "scan", lambda c: detrend(c[:, kept]), kept)
    assert found.courses.shape == (4, 77)
    assert close(found.maps, expected, 1e-3)


def test_intensity_scale_does_not_matter() -> None:
    regression = SpatialRegression.of(spatial(), "maps")
    first = dual_regression(data(), regression, "scan", detrend)
    second = dual_regression(data() * np.float32(37.5), regression, "scan", detrend)
    assert np.allclose(first.courses, second.courses, atol=1e-4 * np.abs(first.courses).max())
    assert np.allclose(first.maps, second.maps, atol=1e-4 * np.abs(first.maps).max())


def test_tsnr_is_the_median_over_the_mask() -> None:
    volumes = data()
    expected = float(np.median(volumes.mean(axis=0) / volumes.std(axis=0)))
    found = dual_regression(volumes.copy(), SpatialRegression.of(spatial(), "maps"), "scan", detrend)
    assert found.tsnr == pytest.approx(expected, rel=1e-3)
    centred = volumes - volumes.mean(axis=0)
    assert np.isnan(dual_regression(centred, SpatialRegression.of(spatial(), "maps"), "scan", detrend).tsnr)


def test_nothing_varies() -> None:
    with pytest.raises(UserError, match="all the same"):
        dual_regression(np.ones((30, 60), dtype=np.float32), SpatialRegression.of(spatial(), "maps"), "scan", detrend)


def test_more_maps_than_volumes() -> None:
    with pytest.raises(UserError, match="5 volumes are too few for 4 maps"):
        dual_regression(data()[:5].copy(), SpatialRegression.of(spatial(), "maps"), "scan", detrend)


def test_maps_that_cannot_be_told_apart() -> None:
    group = spatial()
    with pytest.raises(UserError, match="map 2 is constant"):
        SpatialRegression.of(np.stack([group[0], np.full(60, 3.0), group[1]]), "maps")
    with pytest.raises(UserError, match="depend linearly"):
        SpatialRegression.of(np.vstack([group, group[:1] * 2 + 1]), "maps")


def test_the_reference_library_gives_the_same_courses() -> None:
    import nibabel as nib
    from bids_tree import AFFINE
    from nilearn.maskers import NiftiMapsMasker

    centred = np.zeros((*mask().shape, 4), dtype=np.float32)
    centred[mask()] = (spatial() - spatial().mean(axis=1, keepdims=True)).T
    masker = NiftiMapsMasker(
        nib.Nifti1Image(centred, AFFINE), standardize=None, mask_img=nib.Nifti1Image(mask().astype(np.uint8), AFFINE)
    )
    expected = masker.fit_transform(nib.Nifti1Image(scan(0, volumes=80), AFFINE)).T
    found = dual_regression(data(), SpatialRegression.of(spatial(), "maps"), "scan", detrend)
    assert close(found.courses, detrend(expected.astype(np.float64)), 1e-3)
