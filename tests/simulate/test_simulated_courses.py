"""Courses: band, slope, correlation."""

import numpy as np
import pytest

from ssl4neuro.simulate.courses import (
    BAND,
    LOADINGS,
    CourseModel,
    draw_courses,
    estimate_redundancy,
    fnc,
    log_spectrum,
    slope_error,
    spectral_slope,
)


def test_power_lies_in_the_band():
    courses = draw_courses(np.random.default_rng(0), np.eye(5), np.full(5, 1.0), 600, 2.0)[:, 0]
    power = np.abs(np.fft.rfft(courses * np.hanning(600), axis=1)) ** 2
    frequency = np.fft.rfftfreq(600, 2.0)
    inside = (frequency >= BAND[0] - 0.004) & (frequency <= BAND[1] + 0.004)  # the taper widens every line
    assert (power[:, inside].sum(axis=1) / power.sum(axis=1)).min() > 0.95
    assert power[:, frequency > 0.1].mean() < 0.02 * power[:, inside].mean()
    assert courses.std() == pytest.approx(1.0, abs=0.15)


def test_slope_is_recovered_and_its_error_known():
    rng = np.random.default_rng(1)
    for slope in (0.6, 1.4):
        courses = np.concatenate([draw_courses(rng, np.eye(5), np.full(5, slope), 400, 2.0)[:, 0] for _ in range(60)])
        found = spectral_slope(courses, 2.0)
        assert found.mean() == pytest.approx(slope, abs=0.12)  # leakage and measurement noise flatten it a little
        assert found.std() == pytest.approx(slope_error(400, 2.0), rel=0.2)


def test_slope_is_the_maximum_of_the_whittle_likelihood():
    course = draw_courses(np.random.default_rng(2), np.eye(1), np.array([1.2]), 300, 2.0)[0]
    frequency = np.fft.rfftfreq(300, 2.0)
    inside = (frequency >= BAND[0]) & (frequency <= BAND[1])
    power = np.abs(np.fft.rfft(course[0] - course.mean())[inside]) ** 2
    x = np.log(frequency[inside])
    grid = np.linspace(-1, 4, 5001)
    shape = np.exp(-grid[:, None] * x)
    level = (power / shape).mean(axis=1, keepdims=True)  # the best level for each slope in closed form
    likelihood = -(np.log(level * shape) + power / (level * shape)).sum(axis=1)
    assert spectral_slope(course, 2.0)[0] == pytest.approx(grid[likelihood.argmax()], abs=0.002)


def test_networks_correlate_as_told():
    rng, target = np.random.default_rng(3), fnc(LOADINGS)
    found = np.mean([np.corrcoef(draw_courses(rng, target, np.full(5, 1.0), 400, 2.0)[:, 0]) for _ in range(150)], axis=0)
    assert np.abs(found - target).max() < 0.06  # the measurement noise takes 2 %


def test_components_of_a_network_belong_together():
    rng = np.random.default_rng(4)
    courses = [draw_courses(rng, np.eye(2), np.full(2, 1.0), 600, 2.0, components=3, within=0.6) for _ in range(30)]
    correlation = np.mean([np.corrcoef(c.reshape(6, -1)) for c in courses], axis=0)
    assert correlation[0, 1] == pytest.approx(0.6, abs=0.08)
    assert correlation[0, 3] == pytest.approx(0.0, abs=0.08)


def test_redundancy_is_one_without_correlation_and_the_number_with_full():
    assert estimate_redundancy(CourseModel(), 1) == pytest.approx(1.0)
    assert 1.0 < estimate_redundancy(CourseModel(), 5) < 5.0


def test_log_spectrum_falls_with_the_slope():
    rng = np.random.default_rng(5)
    steep = draw_courses(rng, np.eye(1), np.array([2.0]), 600, 2.0)[0, 0]
    spectrum = log_spectrum(steep, 2.0)
    assert np.exp(spectrum).sum() == pytest.approx(1.0, abs=0.01)
    assert spectrum[0] > spectrum[-2] + 1
