"""Curves and calibration behind the figures, against closed forms and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from ssl4neuro.report import evidence_figures
from ssl4neuro.report.calibration import brier, expected_calibration_error, reliability, wilson
from ssl4neuro.report.roc import GRID, Scored, sensitivities, subject_band


def scored(n: int, effect: float, seed: int, rows: int = 1) -> Scored:
    rng = np.random.default_rng(seed)
    positive = np.repeat(np.arange(n) % 2 == 0, rows)
    subject = np.repeat([f"s{i}" for i in range(n)], rows)
    return Scored(rng.standard_normal(n * rows) + effect * positive, positive, subject)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_sensitivity_is_that_of_scikit_learn_whatever_the_ties(seed, levels):
    rng = np.random.default_rng(seed)
    positive = np.append(rng.random(30) < 0.4, [True, False])
    found = Scored(rng.integers(0, levels + 1, 32).astype(float), positive, np.arange(32))
    x, y, _ = roc_curve(found.positive, found.score, drop_intermediate=False)
    expected = [np.interp(g, x, y) if g not in x else y[x == g].max() for g in GRID]
    np.testing.assert_allclose(sensitivities(found, np.ones((1, 32)))[0], expected, atol=1e-12)


def test_weights_are_repeated_rows():
    found, weights = scored(20, 1.0, 0), np.random.default_rng(1).integers(0, 4, (5, 20)).astype(float)
    for line, weight in zip(sensitivities(found, weights), weights, strict=True):
        rows = np.repeat(np.arange(20), weight.astype(int))
        repeated = Scored(found.score[rows], found.positive[rows], found.subject[rows])
        np.testing.assert_allclose(line, sensitivities(repeated, np.ones((1, len(rows))))[0], atol=1e-12)


def test_a_resample_without_a_class_is_undefined():
    weights = np.stack([np.ones(20), (np.arange(20) % 2 == 0).astype(float)])
    found = sensitivities(scored(20, 1.0, 0), weights)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


def test_area_under_the_mean_curve_is_the_auc():
    repeats = [scored(400, 1.0, seed) for seed in range(3)]
    band = subject_band(repeats, draws=10)
    auc = np.mean([roc_auc_score(r.positive, r.score) for r in repeats])
    assert np.trapezoid(band.mean, GRID) == pytest.approx(auc, abs=0.01)


def test_the_band_resamples_subjects_and_not_rows():
    """Rows that repeat a subject add nothing: the band must stay as wide as that of one row per subject."""
    once = scored(40, 1.0, 3)
    many = Scored(*(np.repeat(part, 5) for part in once))
    narrow, wide = (subject_band([s], draws=400, seed=1) for s in (many, once))
    np.testing.assert_allclose(narrow.high - narrow.low, wide.high - wide.low, atol=1e-12)
    assert (wide.low <= wide.mean + 1e-12).all()
    assert (wide.high >= wide.mean - 1e-12).all()


@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_the_band_covers_the_true_curve(effect):
    """At 0.2 false alarms, for normal scores: the true sensitivity is Phi(effect - z(0.8))."""
    from scipy.stats import norm

    true, inside = norm.cdf(effect - norm.ppf(0.8)), 0
    for seed in range(60):
        band = subject_band([scored(80, effect, seed)], draws=200, seed=seed)
        inside += band.low[20] <= true <= band.high[20]
    assert binomtest(inside, 60, 0.95).pvalue > 0.001


def test_calibration_against_scikit_learn():
    rng = np.random.default_rng(0)
    probability = rng.random(500)
    outcome = rng.random(500) < probability
    found = reliability(probability, outcome, np.arange(500))
    observed, predicted = calibration_curve(outcome, probability, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.predicted, predicted)
    assert found.size.sum() == 500
    assert brier(probability, outcome) == pytest.approx(brier_score_loss(outcome, probability))
    assert expected_calibration_error(probability, outcome) == pytest.approx(np.mean(np.abs(observed - predicted)), abs=1e-3)


def test_calibration_error_sees_what_is_wrong():
    rng = np.random.default_rng(1)
    probability = rng.random(2000)
    outcome = rng.random(2000) < probability
    honest = expected_calibration_error(probability, outcome)
    bold = expected_calibration_error(np.clip(2.5 * (probability - 0.5) + 0.5, 0, 1), outcome)
    assert honest < 0.04
    assert bold > 3 * honest


def test_few_or_equal_predictions_share_a_bin():
    one = reliability(np.full(30, 0.4), np.arange(30) < 12, np.arange(30))
    assert (one.predicted, one.observed, one.size) == (pytest.approx([0.4]), pytest.approx([0.4]), [30])
    assert len(reliability(np.linspace(0, 1, 9), np.arange(9) > 4, np.arange(9)).size) == 1


def test_bins_count_subjects():
    """Ten rows of one subject are one trial."""
    rows = reliability(np.full(20, 0.5), np.arange(20) < 10, np.repeat([0, 1], 10))
    low, high = wilson(np.array([0.5]), np.array([2]))
    np.testing.assert_allclose([rows.low, rows.high], [low, high])


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
@settings(max_examples=40, deadline=None)
def test_wilson_interval(pair):
    n, hits = pair
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    low, high = wilson(np.array([hits / n]), np.array([n]))
    np.testing.assert_allclose([low[0], high[0]], [expected.low, expected.high], atol=1e-6)


def test_figures_draw_every_name_and_escape_it():
    row = {"label": "<b>site</b>", "group": "joint & co", "value": 0.7, "ci_low": 0.6, "ci_high": None, "note": "p 0.03"}
    drawn = evidence_figures.forest([row, {**row, "group": "fnc", "baseline": True, "value": None}], "AUC", chance=0.5)
    assert "&lt;b&gt;site&lt;/b&gt;" in drawn
    assert "joint &amp; co" in drawn
    assert "p 0.03" in drawn
    assert "<b>" not in drawn
    xy = np.random.default_rng(0).standard_normal((30, 2))
    by_class = evidence_figures.scatter(xy, np.array([f"c{i % 3}" for i in range(30)]))
    assert all(f">c{i}<" in by_class for i in range(3))
    assert "<image" in evidence_figures.scatter(xy, np.arange(30.0))  # the colour scale
    points = {"n": np.array([2.0, 10, 50]), "mean": np.array([0.5, 0.6, 0.8])}
    curve = evidence_figures.efficiency({"joint": {**points, "low": points["mean"], "high": points["mean"]}}, "AUC", chance=0.5)
    assert all(f">{n}<" in curve for n in (2, 10, 50))


def test_saved_figures_are_whole_files(tmp_path, pixels):
    import xml.etree.ElementTree as ET

    drawing = evidence_figures.roc_band({"joint": subject_band([scored(20, 1.0, 0)], draws=10)})
    drawing.save(tmp_path, "roc")
    assert ET.parse(tmp_path / "roc.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    picture = (tmp_path / "roc.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    width, height = (int.from_bytes(picture[i : i + 4], "big") for i in (16, 20))
    assert (width, height) == (880, 720)  # 4.4 × 3.6 inches at 200 dots per inch
    drawing.save(tmp_path, "again")
    assert (tmp_path / "again.png").read_bytes() == picture
