"""ComBat against neuroCombat's figures and against what it promises; only training rows may shape it.

`neurocombat.json` holds what neuroCombat 0.2.12 (numpy 1.26) makes of `example()`: `neuroCombat(dat=x.T, covars=...,
batch_col="site", categorical_cols=["sex"], continuous_cols=["age"])`, `as_installed` and with the tolerance of its iteration at
1e-11 (`parametric`), with `mean_only=True`, and without covariates.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.combat import Combat

REFERENCE = json.loads((Path(__file__).parent / "neurocombat.json").read_text())


def example() -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """30 rows of 3 sites × 8 features, by formula."""
    i, j = np.arange(30)[:, None], np.arange(8)[None]
    site = np.repeat(np.arange(3), (8, 10, 12))
    age = (
        (20 + 40 * np.modf(np.arange(30) * 0.6180339887498949)[0]).astype(np.float32).astype(float)
    )  # as neuroCombat rounds it
    exact = 20 + 40 * np.modf(np.arange(30) * 0.6180339887498949)[0]
    sex = np.array(["F", "M"])[(np.arange(30) * 7 % 5) % 2]
    noise = np.sin(1.7 * (i + 1) * (j + 1) + 0.3 * (i + 1) ** 2)
    shift = (site[:, None] - 1) * np.cos(j)
    x = 5 + j + noise * (1 + 0.3 * site[:, None]) + shift + 0.03 * exact[:, None] + 0.5 * (sex == "M")[:, None]
    return x, np.array(["A", "B", "C"])[site], pd.DataFrame({"age": age, "sex": sex})


@pytest.mark.parametrize("case", ["parametric", "as_installed", "mean_only", "no_covariates"])
def test_figures_of_neurocombat(case: str) -> None:
    x, sites, covariates = example()
    kept = None if case == "no_covariates" else covariates
    ours = Combat.fit(x, sites, kept, mean_only=case == "mean_only").apply(x, sites, kept)
    assert np.abs(ours - x).max() > 0.5  # there is something to take out
    np.testing.assert_allclose(ours, REFERENCE[case], atol=1e-6)


def _simulated(seed: int, n: int = 400, features: int = 30) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Two sites that differ in mean, spread and age; age matters to the features."""
    rng = np.random.default_rng(seed)
    site = rng.integers(0, 2, n)
    age = rng.normal(40 + 10 * site, 8)
    x = rng.normal(size=(n, features)) * np.where(site == 1, 2.0, 1.0)[:, None] + 0.1 * (age[:, None] - 45)
    x += site[:, None] * rng.normal(2, 1, features)
    return x, np.array(["A", "B"])[site], pd.DataFrame({"age": age})


def test_sites_lose_their_mean_and_variance_and_age_stays() -> None:
    x, sites, covariates = _simulated(0)
    harmonised = Combat.fit(x, sites, covariates).apply(x, sites, covariates)
    design = np.column_stack([sites == "B", covariates["age"], np.ones(len(x))]).astype(float)
    weights, *_ = np.linalg.lstsq(design, harmonised, rcond=None)
    before, *_ = np.linalg.lstsq(design, x, rcond=None)
    assert np.abs(weights[0]).mean() < 0.05 * np.abs(before[0]).mean()
    np.testing.assert_allclose(weights[1], before[1], atol=0.02)
    residual = harmonised - design @ weights
    ratio = residual[sites == "B"].std(axis=0) / residual[sites == "A"].std(axis=0)
    assert (x - design @ before)[sites == "B"].std() / (x - design @ before)[sites == "A"].std() > 1.5
    np.testing.assert_allclose(ratio, 1, atol=0.1)


def test_without_preserving_it_age_goes_with_the_sites() -> None:
    x, sites, covariates = _simulated(1)
    old = covariates["age"].to_numpy() > 45
    contrast = [
        m[old].mean() - m[~old].mean()
        for m in (Combat.fit(x, sites).apply(x, sites), Combat.fit(x, sites, covariates).apply(x, sites, covariates))
    ]
    assert contrast[0] < 0.9 * contrast[1]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 9))
def test_affine_units_do_not_matter(seed: int, features: int) -> None:
    """A feature in other units comes out in these units; empirical Bayes shrinks in units of the pooled spread."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(24, features)) * rng.uniform(0.5, 2, features)
    sites = np.repeat(["A", "B", "C"], 8)
    scale, offset = rng.uniform(0.1, 10, features), rng.normal(size=features) * 5
    plain = Combat.fit(x, sites).apply(x, sites)
    moved = Combat.fit(x * scale + offset, sites).apply(x * scale + offset, sites)
    np.testing.assert_allclose(moved, plain * scale + offset, rtol=1e-5, atol=1e-6)


def test_rows_are_treated_one_by_one() -> None:
    """Applying to one row equals applying to all: nothing is estimated when it is applied."""
    x, sites, covariates = _simulated(2, n=60)
    model = Combat.fit(x[:40], sites[:40], covariates[:40])
    together = model.apply(x[40:], sites[40:], covariates[40:])
    alone = [model.apply(x[[i]], sites[[i]], covariates.iloc[[i]])[0] for i in range(40, 60)]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_a_constant_feature_and_a_single_one() -> None:
    x, sites, _ = _simulated(3, n=40, features=4)
    x[:, 1] = 7.0
    out = Combat.fit(x, sites).apply(x, sites)
    np.testing.assert_allclose(out[:, 1], 7.0)
    assert np.isfinite(out).all()
    single = Combat.fit(x[:, :1], sites).apply(x[:, :1], sites)
    np.testing.assert_allclose(single[sites == "A"].mean(), single[sites == "B"].mean())


def test_unseen_sites_are_refused_or_taken_as_they_are() -> None:
    x, sites, covariates = _simulated(4, n=40)
    model = Combat.fit(x, sites, covariates)
    new = np.array(["A", "C"])
    with pytest.raises(UserError, match=r"^harmonise: no training rows of site 'C',.*--unseen-sites pool$"):
        model.apply(x[:2], new, covariates[:2])
    pooled = model.apply(x[:2], new, covariates[:2], unseen="pool")
    np.testing.assert_allclose(pooled[1], x[1])
    np.testing.assert_array_equal(pooled[0], model.apply(x[:1], ["A"], covariates[:1])[0])


def test_what_cannot_be_estimated_is_refused() -> None:
    x, sites, covariates = _simulated(5, n=40)
    alone = sites.astype("<U8")
    alone[0] = "lonely"
    with pytest.raises(UserError, match=r"one training row of site 'lonely'"):
        Combat.fit(x, alone)
    bound = pd.DataFrame({"age": covariates["age"], "coil": np.where(sites == "A", "head", "body")})
    with pytest.raises(UserError, match=r"'coil' cannot be told apart from the sites"):
        Combat.fit(x, sites, bound)
    with pytest.raises(UserError, match=r"4 training rows for 2 sites and 2 covariates; preserve fewer"):
        Combat.fit(x[:4], ["A", "A", "B", "B"], pd.DataFrame({"age": [1.0, 2, 3, 5], "size": [1.0, 4, 2, 2]}))


def test_a_feature_that_is_nothing_but_the_site_is_gone_and_a_constant_stays() -> None:
    rng = np.random.default_rng(0)
    sites = np.array(["a", "b"] * 20)
    x = rng.normal(size=(40, 5))
    x[:, 3], x[:, 4] = 5.0 * (sites == "a"), 7.0
    clean = Combat.fit(x, sites).apply(x, sites)
    assert np.ptp(clean[:, 3]) < 1e-9
    assert np.allclose(clean[:, 4], 7.0)
