"""Whole-brain averages of courses."""

from types import SimpleNamespace

import numpy as np

from ssl4neuro.evaluate import connectivity
from ssl4neuro.evaluate.course_quality import NAMES, course_quality, unit_quality


def test_it_knows_the_filter_and_the_spikes_and_no_pattern() -> None:
    rng = np.random.default_rng(0)
    white = rng.normal(size=(6, 400))
    smooth = np.apply_along_axis(np.convolve, 1, white, np.ones(5) / 5, mode="same")
    spiky = white.copy()
    spiky[:, [50, 51, 200]] += 8
    plain, filtered, moved = (dict(zip(NAMES, course_quality(x, 2.0), strict=True)) for x in (white, smooth, spiky))
    assert abs(plain["lag-one autocorrelation"]) < 0.1
    assert filtered["lag-one autocorrelation"] > 0.7
    assert moved["spikes"] >= np.log1p(3) > plain["spikes"] * 0.99
    assert moved["kurtosis"] > plain["kurtosis"] + 1
    np.testing.assert_allclose(course_quality(white[::-1] * -3 + 2, 2.0), course_quality(white, 2.0), rtol=1e-9)


def test_a_subject_has_the_mean_of_its_scans(tiny: SimpleNamespace) -> None:
    cohort = tiny.cohort
    index = cohort.index
    units = [np.flatnonzero(index["subject"] == name) for name in ("sub-03", "sub-07")]
    parts = connectivity.layout(index, units)
    assert parts is not None
    found = unit_quality(cohort, parts)
    for unit, rows in enumerate(units):
        scans = [rows[index["group_code"][rows] == group] for group in np.unique(index["group_code"][rows])]
        assert len(scans) == 2
        each = [course_quality(np.stack(cohort.fetch(scan, ("course",))["course"]), 2.0) for scan in scans]
        np.testing.assert_allclose(found[unit], np.mean(each, axis=0), rtol=1e-5)
