"""Associations against scipy and closed forms."""

from itertools import permutations
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ssl4neuro.data.association import (
    Association,
    Labels,
    _basis,
    _best,
    _label_basis,
    _share,
    as_property,
    associate,
    flagged,
    least_p,
    undecided,
)


def _raw_share(values: pd.Series, labels: Labels) -> float:
    x = _basis(as_property(values))
    return float(_share(x, _label_basis(labels)[None], 1.0)[0])


def test_number_and_class_is_kruskal_wallis() -> None:
    rng = np.random.default_rng(0)
    y, x = rng.integers(0, 3, 50).astype(float), rng.normal(size=50)
    h = stats.kruskal(*(x[y == code] for code in range(3))).statistic
    # eta² of ranks is H / (n - 1); one number has one canonical correlation
    assert _raw_share(pd.Series(x), Labels(y, 3)) == pytest.approx(h / 49)


def test_two_categories_are_cramers_v() -> None:
    rng = np.random.default_rng(1)
    y, x = rng.integers(0, 2, 80).astype(float), rng.integers(0, 4, 80)
    table = pd.crosstab(x, y).to_numpy()
    v = stats.contingency.association(table, method="cramer")
    assert _raw_share(pd.Series(x).map(str), Labels(y, 2)) == pytest.approx(v**2)


def test_two_numbers_are_spearman() -> None:
    rng = np.random.default_rng(2)
    y, x = rng.normal(size=40), rng.normal(size=40)
    assert _raw_share(pd.Series(x), Labels(y, 0)) == pytest.approx(stats.spearmanr(x, y).statistic ** 2)


def test_a_number_that_sorts_unequal_classes_has_strength_one() -> None:
    y = np.repeat([0.0, 1.0], [50, 6])
    x = pd.Series(np.arange(56.0))
    labels = Labels(y, 2)
    assert _raw_share(x, labels) < 0.5  # as eta², which such classes bound
    assert _share(_basis(x), _label_basis(labels)[None], _best(_basis(x), labels))[0] == pytest.approx(1)


def test_auc_in_words_is_that_of_mann_whitney() -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 60).astype(float)
    x = y + rng.normal(size=60)
    u = stats.mannwhitneyu(x[y == 1], x[y == 0]).statistic / ((y == 1).sum() * (y == 0).sum())
    found = associate("n_volumes", pd.Series(x), Labels(y, 2))
    assert found is not None
    assert found.words == f"n_volumes: AUC {u:.2f}"


def test_p_agrees_with_the_exact_test() -> None:
    """Seven units, material association: p of 999 exchanges is near that of all arrangements."""
    y, x = np.array([0, 0, 0, 0, 1, 1, 1.0]), np.array([1, 2, 3, 6, 4, 5, 7.0])
    ranks = stats.rankdata(x)
    gap = abs(ranks[y == 1].mean() - 4)
    exact = np.mean([abs(np.array(p)[:3].mean() - 4) >= gap - 1e-9 for p in permutations(ranks)])
    found = associate("x", pd.Series(x).add(0.25), Labels(y, 2))
    assert found is not None
    assert found.p == pytest.approx(exact, abs=0.05)


def test_least_p_counts_arrangements() -> None:
    assert least_p(Labels(np.repeat([0.0, 1.0], 5), 2)) == pytest.approx(2 / comb(10, 5))
    within = Labels(np.tile([0.0, 1.0], 6), 2, np.repeat(np.arange(6), 2))
    assert least_p(within) == pytest.approx(2 / 2**6)


def test_exchange_within_blocks_stays_there() -> None:
    blocks = np.array([3, 1, 3, 1, 2, 2, 2])
    labels = Labels(np.arange(7.0), 0, blocks)
    for order in labels.shuffled():
        assert (blocks[order] == blocks).all()
        assert (np.sort(order, axis=1) == np.arange(7)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([12, 30, 80]), st.booleans())
def test_relabelling_and_reordering_change_nothing(seed: int, n: int, number: bool) -> None:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 2).astype(float)
    values = pd.Series(rng.normal(size=n)) if number else pd.Series(rng.choice(list("abc"), n))
    labels = Labels(y, 2)
    x = _basis(values)
    again = values**3 if number else values.map({"a": "z", "b": "y", "c": "x"})
    order = rng.permutation(n)
    moved = Labels(1 - y[order], 2)
    a = _share(x, _label_basis(labels)[None], _best(x, labels))[0]
    x2 = _basis(again.iloc[order].reset_index(drop=True))
    assert _share(x2, _label_basis(moved)[None], _best(x2, moved))[0] == pytest.approx(a)


def test_kinds_of_property() -> None:
    assert pd.api.types.is_numeric_dtype(as_property(pd.Series([str(n) for n in range(20)])))
    assert as_property(pd.Series([1, 2, 1, 2])).tolist() == ["1", "2", "1", "2"]
    days = as_property(pd.Series(["2020-01-01", "2020-01-11T12:00:00", None, *(f"2021-02-{d:02d}" for d in range(1, 9))]))
    assert days[1] - days[0] == pytest.approx(10.5)
    assert np.isnan(days[2])
    assert as_property(pd.Series(["S1", "S2", None])).isna().sum() == 1
    assert associate("x", pd.Series(["a"] * 9), Labels(np.arange(9.0), 0)) is None


def test_holm_and_the_counting_of_equal_columns() -> None:
    strong = Association("a", 0.9, 0.0006, "a", "one")
    same = Association("b", 0.9, 0.0006, "b", "one")
    others = [Association(f"n{i}", 0.1, 0.5, "", f"k{i}") for i in range(15)]
    assert flagged([strong, same, *others]) == [strong, same]  # 0.0006 * 16 <= 0.01
    other_key = Association("b", 0.9, 0.0006, "b", "two")
    assert flagged([strong, other_key, *others]) == []  # 0.0006 * 17 > 0.01
    assert flagged([Association("weak", 0.2, 1e-9, "", "w")]) == []  # certain and immaterial
    labels = Labels(np.repeat([0.0, 1.0], 40), 2)
    assert undecided([strong, other_key, *others], labels) == [strong, other_key]  # below 5 %
    few = Labels(np.repeat([0.0, 1.0], 3), 2)
    complete = Association("c", 1.0, 0.1, "", "c")
    assert undecided([complete], few) == [complete]
