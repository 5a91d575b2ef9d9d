"""Permutations that targets share, and the largest statistic over targets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.statistics import Exchange, joint_labels, max_statistic_p, p_value


def _between(unit: np.ndarray, labels: np.ndarray, pool: np.ndarray | None = None) -> Exchange:
    return Exchange("between subjects", unit, np.zeros(len(unit), dtype=int) if pool is None else pool, labels)


def test_all_labels_of_a_subject_move_together_whatever_its_rows() -> None:
    scans = np.array(["a", "a", "b", "c", "c", "c", "d", "e"])  # one target by scan, one by subject, in another order
    people = np.array(["e", "d", "c", "b", "a"])
    number = {name: i for i, name in enumerate("abcde")}
    first, second = (np.array([number[name] for name in unit], dtype=float) for unit in (scans, people))
    moved = joint_labels([_between(scans, first), _between(people, second)], 200, 0)
    for column in range(200):
        by_scan = dict(zip(scans, moved[0][:, column], strict=True))
        assert by_scan == dict(zip(people, moved[1][:, column], strict=True))
        assert sorted(by_scan.values()) == [0, 1, 2, 3, 4]
        assert all(moved[0][i, column] == by_scan[name] for i, name in enumerate(scans))
    assert len({tuple(column) for column in moved[1].T}) > 80  # of 120


@given(seed=st.integers(0, 1000), people=st.integers(4, 12))
@settings(max_examples=40, deadline=None)
def test_missing_labels_stay_missing_and_blocks_are_kept(seed: int, people: int) -> None:
    rng = np.random.default_rng(seed)
    names, site = np.array([f"s{i:02d}" for i in range(people)]), np.arange(people) % 2
    has = np.ones(people, dtype=bool)
    has[rng.choice(people, people // 2, replace=False)] = False
    has[:4] = True
    label, other = np.arange(people), 100 + np.arange(people)
    whole, part = joint_labels([_between(names, label, site), _between(names[has], other[has], site[has])], 30, seed)
    for column in range(30):
        source = whole[:, column]  # whose labels everyone got
        assert sorted(source) == list(range(people))
        assert (site[source] == site).all()
        assert (has[source] == has).all()
        np.testing.assert_array_equal(part[:, column] - 100, source[has])


def test_sequences_move_only_between_subjects_of_as_many_scans() -> None:
    unit = np.array(["a", "a", "b", "b", "c", "c", "c", "d", "d", "d"])
    labels = np.array([1, 1, 2, 3, 4, 4, 4, 5, 6, 7])  # a label that varies within some
    (moved,) = joint_labels([_between(unit, labels)], 100, 0)
    assert {tuple(column) for column in moved[:4].T} == {(1, 1, 2, 3), (2, 3, 1, 1)}
    assert {tuple(column) for column in moved[4:].T} == {(4, 4, 4, 5, 6, 7), (5, 6, 7, 4, 4, 4)}


def test_schemes_are_drawn_apart_and_scans_stay_in_their_subject() -> None:
    people, scans = np.repeat(["a", "b", "c", "d"], 2), np.array([f"{p}{i}" for p in "abcd" for i in (0, 1)])
    state = Exchange("within subjects", scans, np.repeat(np.arange(4), 2), np.arange(8))
    age, moved = joint_labels([_between(people, np.repeat(np.arange(4), 2)), state], 400, 1)
    assert (moved // 2 == np.repeat(np.arange(4), 2)[:, None]).all()
    swapped, changed = moved[0] == 1, age[0] != 0
    assert abs(np.corrcoef(swapped, changed)[0, 1]) < 0.2
    assert 0.4 < swapped.mean() < 0.6


def test_a_target_that_cannot_move_is_named_in_one_line() -> None:
    names = np.array(["a", "b", "c", "d"])
    alone = _between(names[:1], np.array([1.0]))
    with pytest.raises(UserError, match=r"no two labels can change places.*probe this target by itself"):
        joint_labels([_between(names, np.arange(4.0)), alone], 10, 0)


def test_one_target_needs_no_correction_and_copies_cost_nothing() -> None:
    rng = np.random.default_rng(0)
    null, observed = rng.normal(size=999), 1.8
    alone = p_value(observed, null)
    assert max_statistic_p(np.array([observed]), null[:, None])[0] == pytest.approx(alone)
    copies = max_statistic_p(np.array([observed, 10 * observed + 3]), np.stack([null, 10 * null + 3], axis=1))
    np.testing.assert_allclose(copies, alone)


def test_between_plain_and_bonferroni_and_equal_to_the_loop() -> None:
    rng = np.random.default_rng(1)
    null = rng.normal(size=(499, 4)) * [1, 5, 0.1, 2] + [0, 3, 0, 1]
    observed = np.array([2.2, 8.0, 0.1, 7.0])
    found = max_statistic_p(observed, null)
    plain = np.array([p_value(o, n) for o, n in zip(observed, null.T, strict=True)])
    assert (found >= plain - 1e-12).all()
    assert (found <= 4 * plain + 4 / 500).all()
    every = np.vstack([observed, null])
    z = (every - every.mean(0)) / every.std(0)
    for target in range(4):
        assert found[target] == pytest.approx(np.mean([max(row) >= z[0, target] for row in z]))


def test_undefined_statistics_take_no_part() -> None:
    null = np.random.default_rng(2).normal(size=(99, 2))
    null[:50, 1] = np.nan
    found = max_statistic_p(np.array([3.0, np.nan]), null)
    assert np.isnan(found[1])
    assert found[0] <= 0.05
    constant = max_statistic_p(np.array([0.5, 2.0]), np.stack([np.full(99, 0.5), null[:, 0]], axis=1))
    assert constant[0] == 1.0
