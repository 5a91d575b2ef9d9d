"""Rows of the study and the compact features: against plain formulas; signs, lengths and rates; nothing of the test rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.decomposition import PCA

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.parcels import make_parcels
from ssl4neuro.data.scan import Grid, ScanRows
from ssl4neuro.data.standardise import finalise
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.network_state.baselines import TemplateBands
from ssl4neuro.evaluate.network_state.compact import Compact, StageTwoFeatures, compact_features
from ssl4neuro.evaluate.network_state.course_features import NAMES, course_features
from ssl4neuro.evaluate.network_state.items import scan_codes, scan_table, study_items


@pytest.fixture(scope="module")
def cohort(make_cohort: Callable[..., Cohort], tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("network_state") / "cohort", subjects=6)


def test_items_are_named_components_of_scans_with_a_state(cohort: Cohort) -> None:
    items = study_items(cohort)
    assert len(items) == 6 * 2 * 4
    assert items.groupby("state")["y"].unique().map(list).to_dict() == {"post": [1], "pre": [0]}
    assert len(np.unique(scan_codes(items))) == 12
    assert set(study_items(cohort, networks=("net-1",))["network"]) == {"net-1"}
    np.testing.assert_array_equal(cohort.index["network"].to_numpy()[items["row"]], items["network"])


def test_what_is_not_there_is_named(cohort: Cohort) -> None:
    with pytest.raises(UserError, match=r"no 'during' \(it has post, pre\)"):
        study_items(cohort, after="during")
    with pytest.raises(UserError, match="no 'net-2' in both states"):
        study_items(cohort, networks=("net-2",))
    with pytest.raises(UserError, match="no column 'stage'"):
        study_items(cohort, state="stage")


def test_scans_carry_their_nuisances(cohort: Cohort) -> None:
    scans = scan_table(cohort, study_items(cohort, networks=("net-1",)))
    assert len(scans) == 12
    assert {"mean_fd", "tsnr", "n_volumes", "age", "tr", "n_components", "site"} <= set(scans)
    assert set(scans["n_components"]) == {4}  # those without a part in the study count too
    assert scans["age"].dtype.kind in "if"


SECONDS = np.arange(600) * 1.0


def test_powers_are_in_the_band_of_a_sine() -> None:
    for position, hertz in enumerate((0.018, 0.05, 0.085, 0.12, 0.2)):
        found = course_features([np.sin(2 * np.pi * hertz * SECONDS).astype(np.float32)], np.array([1.0]))[0]
        assert found[:5].argmax() == position


def test_shape_numbers_equal_plain_formulas() -> None:
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.standard_normal(300)) * 0.2 + rng.standard_normal(300)
    found = dict(zip(NAMES, course_features([x.astype(np.float32)], np.array([2.0]))[0], strict=True))
    c = x - x.mean()
    np.testing.assert_allclose(found["AR(1)"], (c[1:] * c[:-1]).sum() / (c * c).sum(), atol=1e-4)
    np.testing.assert_allclose(found["kurtosis"], stats.kurtosis(x), atol=1e-3)
    amplitude, hertz = np.abs(np.fft.rfft(c, n=4096)), np.fft.rfftfreq(4096, 2.0)
    inside = (hertz >= 0.01) & (hertz <= 0.08)
    np.testing.assert_allclose(found["fALFF"], amplitude[inside].sum() / amplitude[hertz > 0].sum(), rtol=1e-3)


def test_white_noise_has_flat_powers_and_full_entropy() -> None:
    rng = np.random.default_rng(1)
    found = course_features([rng.standard_normal(4000) for _ in range(30)], np.full(30, 2.0)).mean(0)
    np.testing.assert_allclose(found[:5], 0, atol=0.06)
    assert found[6] > 0.98


def test_course_numbers_know_neither_sign_nor_length_nor_rate() -> None:
    rng = np.random.default_rng(2)
    slow = [np.convolve(rng.standard_normal(4400), np.ones(30) / 30, "same")[:4000] for _ in range(8)]
    fine = course_features(slow, np.full(8, 0.5))
    np.testing.assert_allclose(course_features([-x for x in slow], np.full(8, 0.5)), fine, atol=1e-5)
    coarse = course_features([x[::2] for x in slow], np.full(8, 1.0))
    np.testing.assert_allclose(coarse.mean(0)[:8], fine.mean(0)[:8], atol=0.05)
    mixed = course_features([slow[0], slow[1][:700]], np.array([0.5, np.nan]))
    np.testing.assert_allclose(mixed[0], fine[0], atol=1e-3)  # padding changes nothing
    assert np.isfinite(course_features([np.zeros(80)], np.array([2.0]))).all()


def test_a_flipped_component_gives_the_same_features_after_sign_fixing() -> None:
    """Method section 9, test 2, for what stage two sees beside the embedding."""
    rng = np.random.default_rng(3)
    maps, courses = rng.gamma(1.0, size=(3, 200)), rng.standard_normal((3, 90))
    numbers = np.arange(1, 4)
    one = finalise(ScanRows(courses, 2.0, numbers, ["a"] * 3, maps), "scan")[0]
    other = finalise(ScanRows(-courses, 2.0, numbers, ["a"] * 3, -maps), "scan")[0]
    assert one.maps is not None
    assert other.maps is not None
    np.testing.assert_allclose(one.maps, other.maps, atol=1e-6)
    np.testing.assert_allclose(
        course_features(list(one.courses), np.full(3, 2.0)), course_features(list(other.courses), np.full(3, 2.0)), atol=1e-5
    )


def test_loadings_are_means_over_regions(cohort: Cohort) -> None:
    rows = np.array([7, 0, 30])
    compact = compact_features(cohort, rows)
    mask, affine = cohort.mask, cohort.affine  # type: ignore[attr-defined]
    parcels = make_parcels("dosenbach", Grid(affine, mask))
    maps = cohort.fetch(rows, ("map",))["map"].astype(np.float64)
    for column, code in enumerate(parcels.table["code"]):
        np.testing.assert_allclose(compact.regions[:, column], maps[:, parcels.labels[mask] == code].mean(1), atol=1e-3)
    assert compact.course.shape == (3, 9)


def _random(items: int = 60, seed: int = 0) -> tuple[Compact, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    compact = Compact(rng.standard_normal((items, 30)), rng.standard_normal((items, 9)) * 5 + 2)
    return compact, np.array(["a", "b", "c"] * (items // 3)), rng.standard_normal((items, 16)) * 0.01


@pytest.mark.parametrize("fitted", ["per network", "shared"])
def test_features_are_fitted_on_the_training_rows(fitted: str) -> None:
    compact, networks, embedding = _random()
    train, test = np.arange(45), np.arange(45, 60)
    features = StageTwoFeatures(compact, networks, embedding, components=5, fitted=fitted)  # type: ignore[arg-type]
    left, right = features.fold(train, test)
    spoiled = Compact(compact.regions.copy(), compact.course.copy())
    spoiled.regions[50:] *= 100
    spoiled.course[50:] -= 100
    other = embedding.copy()
    other[50:] += 9
    again, changed = StageTwoFeatures(spoiled, networks, other, components=5, fitted=fitted).fold(train, test)  # type: ignore[arg-type]
    np.testing.assert_array_equal(left, again)
    np.testing.assert_allclose(right[:5], changed[:5], rtol=1e-6)
    assert not np.allclose(right[5:], changed[5:])
    assert features.dim == 16
    for block in (slice(0, 16), slice(16, 21), slice(21, 30)):  # equal total variance of the three blocks
        np.testing.assert_allclose(left[:, block].var(0).sum(), 1, rtol=1e-3)


def test_regions_are_reduced_by_pca_of_each_network() -> None:
    compact, networks, _ = _random()
    train, test = np.arange(45), np.arange(45, 60)
    left, right = StageTwoFeatures(compact, networks, components=4).fold(train, test)
    own, mine = networks[train] == "b", networks[test] == "b"
    pca = PCA(4, svd_solver="full").fit(compact.regions[train][own])
    expected = pca.transform(compact.regions[train][own])
    scale = 2 * expected.std(0)
    np.testing.assert_allclose(left[own, :4], expected / scale, atol=1e-5)
    np.testing.assert_allclose(right[mine, :4], pca.transform(compact.regions[test][mine]) / scale, atol=1e-5)


def test_templates_come_from_the_training_rows(cohort: Cohort) -> None:
    items = study_items(cohort)
    features = TemplateBands(cohort, items)
    train, test = np.arange(32), np.arange(32, 48)
    left, right = features.fold(train, test)
    assert left.shape == (32, 2 + 7)  # two networks, six bands and the autocorrelation
    one, _ = features.fold(train, test[:3])
    np.testing.assert_array_equal(left, one)
    maps = cohort.fetch(items["row"].to_numpy(), ("map",))["map"].astype(np.float64)
    unit = (maps - maps.mean(1, keepdims=True)) / np.linalg.norm(maps - maps.mean(1, keepdims=True), axis=1, keepdims=True)
    template = unit[train][(items["network"][train] == "net-0").to_numpy()].mean(0)
    raw = np.array([np.corrcoef(m, template)[0, 1] for m in maps[train]])
    np.testing.assert_allclose(np.corrcoef(left[:, 0], raw)[0, 1], 1, atol=1e-5)
    assert np.isfinite(right).all()


def test_one_state_only_is_refused(make_cohort: Callable[..., Cohort], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no 'post'"):
        study_items(make_cohort(tmp_path / "one", subjects=3, sessions=("ses-pre",)))


def test_table_of_scans_counts_what_the_decomposition_found(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    told = cohort.sessions.assign(n_components=np.arange(20, 32))
    monkeypatch.setitem(cohort.__dict__, "sessions", told)
    scans = scan_table(cohort, study_items(cohort))
    assert isinstance(scans, pd.DataFrame)
    assert sorted(scans["n_components"]) == list(range(20, 32))
