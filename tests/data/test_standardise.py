import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from ssl4neuro.data.scan import ScanRows
from ssl4neuro.data.standardise import clean, detrend, finalise, fix_signs, zscore_maps
from ssl4neuro.errors import UserError


def rows(seed: int = 0, components: int = 5, volumes: int = 60, voxels: int = 200) -> ScanRows:
    rng = np.random.default_rng(seed)
    return ScanRows(
        courses=rng.standard_normal((components, volumes)) * 30 + 500 + np.arange(volumes),
        tr=2.0,
        component=np.arange(1, components + 1),
        network=[f"n{i}" for i in range(components)],
        maps=rng.gamma(1.0, size=(components, voxels)) * 7,
    )


def test_maps_and_courses_are_z_values() -> None:
    done, left_out = finalise(rows(), "scan")
    assert left_out == []
    assert np.allclose(done.maps.mean(axis=1), 0, atol=1e-5)
    assert np.allclose(done.maps.std(axis=1), 1, atol=1e-5)
    assert np.allclose(done.courses.mean(axis=1), 0, atol=1e-5)
    assert np.allclose(done.courses.std(axis=1), 1, atol=1e-5)
    assert np.allclose(done.courses, stats.zscore(signal.detrend(rows().courses), axis=1), atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-3, 1e5), offset=st.floats(-1e4, 1e4), trend=st.floats(-10, 10))
def test_scale_offset_and_trend_do_not_matter(scale: float, offset: float, trend: float) -> None:
    plain, changed = rows(), rows()
    changed.courses = (changed.courses + offset + trend * np.arange(60)) * scale
    changed.maps = (changed.maps + offset) * scale
    expected, found = finalise(plain, "a")[0], finalise(changed, "b")[0]
    assert np.allclose(found.courses, expected.courses, atol=1e-3)
    assert np.allclose(found.maps, expected.maps, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=5, max_size=5))
def test_signs_do_not_matter_and_skewness_is_positive(signs: list[float]) -> None:
    flipped = rows()
    flipped.courses = flipped.courses * np.array(signs)[:, None]
    flipped.maps = flipped.maps * np.array(signs)[:, None]
    expected, found = finalise(rows(), "a")[0], finalise(flipped, "b")[0]
    assert np.allclose(found.maps, expected.maps, atol=1e-5)
    assert np.allclose(found.courses, expected.courses, atol=1e-5)
    assert (stats.skew(found.maps, axis=1) > 0).all()


def test_map_and_course_flip_together() -> None:
    maps, courses = -rows().maps, rows().courses
    fixed_maps, fixed_courses = fix_signs(maps, courses)
    assert np.array_equal(fixed_maps, -maps)
    assert np.array_equal(fixed_courses, -courses)


def test_outliers_are_clipped() -> None:
    maps = np.zeros((1, 1000))
    maps[0, 0] = 1e6
    maps[0, 1:] = np.random.default_rng(0).standard_normal(999)
    assert zscore_maps(maps).max() == 10


def test_courses_without_maps_keep_their_sign() -> None:
    plain = rows()
    plain.maps = None
    done, _ = finalise(plain, "scan")
    assert done.maps is None
    assert (np.sum(done.courses * detrend(rows().courses), axis=1) > 0).all()


def test_constant_components_are_left_out() -> None:
    with_constant = rows()
    with_constant.courses[1] = 7.0
    with_constant.courses[2] = 3.0 * np.arange(60) + 1e4  # nothing but a trend
    with_constant.maps[4] = 2.0
    done, left_out = finalise(with_constant, "scan")
    assert done.component.tolist() == [1, 4]
    assert done.network == ["n0", "n3"]
    assert [line.split()[1] for line in left_out] == ["2", "3", "5"]
    with_constant.courses[:] = 1.0
    with pytest.raises(UserError, match="no signal"):
        finalise(with_constant, "scan")


@pytest.mark.parametrize("volumes", [1, 9])
def test_too_few_volumes(volumes: int) -> None:
    with pytest.raises(UserError, match=f"scan: has {volumes} volume"):
        finalise(rows(volumes=volumes), "scan")


def test_nan_is_refused() -> None:
    bad = rows()
    bad.courses[3, 5] = np.nan
    with pytest.raises(UserError, match="NaN or infinite values in 1 of 5 courses"):
        finalise(bad, "scan")
    bad = rows()
    bad.maps[0, 0] = np.inf
    with pytest.raises(UserError, match="in the maps"):
        finalise(bad, "scan")


def test_band_keeps_the_band() -> None:
    tr, volumes = 2.0, 400
    time = np.arange(volumes) * tr
    inside, outside = np.sin(2 * np.pi * 0.05 * time), np.sin(2 * np.pi * 0.2 * time)
    plain = ScanRows((inside + outside)[None], tr, np.array([1]), [""])
    done, _ = finalise(plain, "scan", band=(0.01, 0.1))
    middle = slice(50, -50)
    assert np.corrcoef(done.courses[0, middle], inside[middle])[0, 1] > 0.99


@pytest.mark.parametrize(
    ("band", "tr", "message"),
    [((0.1, 0.01), 2.0, "lowest"), ((0.0, 0.1), 2.0, "lowest"), ((0.01, 0.3), 2.0, "TR 2 s"), ((0.01, 0.1), np.nan, "unknown")],
)
def test_bands_that_do_not_fit(band: tuple[float, float], tr: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        clean(rows().courses, tr, "scan", band=band)


def test_confounds_and_scrubbing_against_plain_least_squares() -> None:
    rng = np.random.default_rng(0)
    courses, confounds = rng.standard_normal((3, 50)), rng.standard_normal((50, 4))
    kept = np.delete(np.arange(50), [3, 20, 21])
    found = clean(courses, 2.0, "scan", confounds=confounds, kept=kept)
    design = np.column_stack([confounds, np.ones(50), np.arange(50)])
    assert found.shape == (3, 47)
    # Residuals of all regressors at once; nilearn detrends, then regresses on the volumes kept, hence the tolerance.
    expected = courses[:, kept].T - design[kept] @ np.linalg.lstsq(design[kept], courses[:, kept].T, rcond=None)[0]
    assert np.corrcoef(found.ravel(), expected.T.ravel())[0, 1] > 0.99


def test_a_known_sign_wins_over_skewness() -> None:
    generator = np.random.default_rng(3)
    maps = generator.gamma(1.0, size=(4, 200)).astype(np.float32)  # positively skewed
    courses = generator.standard_normal((4, 50))
    flipped_maps, flipped_courses = fix_signs(-maps, -courses)
    assert np.allclose(flipped_maps, maps)
    assert np.allclose(flipped_courses, courses)
    known = np.array([1, -1, 0, 1])
    told_maps, told_courses = fix_signs(-maps, -courses, known)
    expected = np.array([-1, 1, 1, -1])[:, None]  # as given, turned, by skewness, as given
    assert np.allclose(told_maps, expected * maps)
    assert np.allclose(told_courses, expected * courses)
