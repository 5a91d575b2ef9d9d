"""Baseline features against plain formulas; what is fitted must not see the test rows."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from ssl4neuro.data.embeddings import Embeddings
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate import connectivity
from ssl4neuro.evaluate.baselines import cohort_rows, open_cohort
from ssl4neuro.evaluate.features import GramPCA, MapPCA, NuisanceFeatures, nuisance_table


def test_fnc_is_fishers_z_of_the_correlations() -> None:
    courses = np.random.default_rng(0).normal(size=(5, 80)).astype(np.float32)
    expected = np.arctanh(np.corrcoef(courses)[np.triu_indices(5, 1)])
    np.testing.assert_allclose(connectivity.fnc(list(courses)), expected, rtol=1e-5)
    assert np.isfinite(connectivity.fnc([courses[0], courses[0]])).all()


def test_band_powers_find_the_band_of_a_sine() -> None:
    seconds = np.arange(300) * 2.0
    for position, (low, high) in enumerate(connectivity.BANDS_HZ):
        course = np.sin(2 * np.pi * (low + high) / 2 * seconds).astype(np.float32)
        assert connectivity.band_powers(course, 2.0)[:-1].argmax() == position
    slow = np.sin(2 * np.pi * 0.02 * np.arange(600) * 1.0).astype(np.float32)
    assert connectivity.band_powers(slow, 1.0)[0] == connectivity.band_powers(slow, 1.0)[:-1].max()
    assert np.isfinite(connectivity.band_powers(np.zeros(50, dtype=np.float32), float("nan"))).all()


def _units(tiny: SimpleNamespace, unit: str) -> tuple[pd.DataFrame, list[np.ndarray]]:
    table = Embeddings.open(tiny.path).table(unit)
    return table, cohort_rows(table, tiny.cohort, unit)


@pytest.mark.parametrize("unit", ["session", "subject"])
def test_unit_features_equal_the_plain_loop(tiny: SimpleNamespace, unit: str) -> None:
    table, units = _units(tiny, unit)
    parts = connectivity.layout(tiny.cohort.index, units)
    assert parts is not None
    assert parts.by == "component"
    fnc, gram = connectivity.unit_fnc(tiny.cohort, parts), connectivity.map_gram(tiny.cohort, parts)
    bands = connectivity.unit_bands(tiny.cohort, parts)
    index, everything = tiny.cohort.index, tiny.cohort.fetch(np.arange(len(tiny.cohort)))
    vectors = []
    for i, line in enumerate(table.itertuples()):
        mine = (index["subject"] == line.subject) & (unit == "subject" or index["session"] == getattr(line, "session", ""))
        scans = [np.flatnonzero(mine & (index["group_code"] == g)) for g in sorted(set(index["group_code"][mine]))]
        expected = [np.arctanh(np.corrcoef([everything["course"][r] for r in s])[np.triu_indices(6, 1)]) for s in scans]
        np.testing.assert_allclose(fnc[i], np.mean(expected, axis=0), rtol=1e-4, atol=1e-5)
        vectors.append(np.mean([everything["map"][s].astype(float).ravel() for s in scans], axis=0))
        power = [[connectivity.band_powers(everything["course"][r], 2.0) for r in s] for s in scans]
        np.testing.assert_allclose(bands[i], np.mean(power, axis=0).ravel(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gram, np.array(vectors) @ np.array(vectors).T, rtol=1e-3, atol=0.1)


def test_scans_with_other_components_are_compared_by_network(tiny: SimpleNamespace) -> None:
    _, units = _units(tiny, "session")
    fewer = [units[0][:-1], *units[1:]]  # the first scan lacks one VIS component
    index = tiny.cohort.index.assign(
        component=np.where(tiny.cohort.index["group_code"] == 0, 1, tiny.cohort.index["component"])
    )
    parts = connectivity.layout(index, fewer)
    assert parts is not None
    assert parts.by == "network"
    assert parts.keys == ("DMN", "SM", "VIS")
    assert [len(rows) for rows in parts.rows[0]] == [2, 2, 1]
    assert connectivity.unit_fnc(tiny.cohort, parts).shape == (len(units), 3)
    nameless = index.assign(network="")
    assert connectivity.layout(nameless, fewer) is None


def test_gram_pca_is_pca_fitted_on_the_training_rows() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 200)) * np.linspace(3, 0.1, 200) + 5
    train, test = np.arange(20), np.arange(20, 30)
    left, right = GramPCA(x @ x.T).fold(train, test)
    reference = PCA(19, svd_solver="full").fit(x[train])
    for got, expected in ((left, reference.transform(x[train])), (right, reference.transform(x[test]))):
        signs = np.sign((left * reference.transform(x[train])).sum(0))
        np.testing.assert_allclose(got * signs, expected, atol=1e-3)


def test_map_pca_is_pca_fitted_on_the_training_rows(tiny: SimpleNamespace) -> None:
    rows = np.arange(0, 144, 2)
    train, test = np.arange(50), np.arange(50, 72)
    left, right = MapPCA(tiny.cohort, rows).fold(train, test)
    maps = tiny.cohort.fetch(rows, ("map",))["map"].astype(np.float64)
    reference = PCA(5, svd_solver="full").fit(maps[train])
    signs = np.sign((left[:, :5] * reference.transform(maps[train])).sum(0))
    np.testing.assert_allclose(right[:, :5] * signs, reference.transform(maps[test]), atol=0.02)


def test_nuisances_are_filled_from_the_training_rows_alone() -> None:
    table = pd.DataFrame({"age": [20.0, np.nan, 40.0, 90.0, np.nan], "sex": ["F", "M", "F", "X", None], "tsnr": 1.0})
    used = nuisance_table(table, target="label")
    assert used is not None
    assert list(used) == ["age", "sex"]  # tsnr does not vary
    left, right = NuisanceFeatures(used).fold(np.array([0, 1, 2]), np.array([3, 4]))
    np.testing.assert_array_equal(left[:, 0], [20, 30, 40])  # median of 20 and 40, not of the 90 in the test fold
    np.testing.assert_array_equal(left[:, 1], [0, 1, 0])
    np.testing.assert_array_equal(right[:, 0], [90, 30])
    np.testing.assert_array_equal(right[:, 2:], 0)  # neither X nor a missing sex is known to the training fold
    assert nuisance_table(table[["tsnr"]], "label") is None
    assert "age" not in nuisance_table(table, target="age")


def test_cohort_rows_belong_to_the_embeddings(tiny: SimpleNamespace) -> None:
    table, units = _units(tiny, "sample")
    np.testing.assert_array_equal(np.concatenate(units), table["row"])
    foreign = table.assign(subject="sub-99")
    with pytest.raises(UserError, match=r"has no sample sub-99.*--cohort"):
        cohort_rows(foreign, tiny.cohort, "sample")


def test_a_cohort_that_is_gone_is_asked_for(tiny: SimpleNamespace) -> None:
    opened = Embeddings.open(tiny.path)
    assert open_cohort(opened, None).path == tiny.cohort.path
    lost = Embeddings(opened.path, {**opened.info, "cohort": "nowhere"}, opened.samples, opened.sessions)
    with pytest.raises(UserError, match=r"--cohort PATH or go without with --no-baselines"):
        open_cohort(lost, None)
