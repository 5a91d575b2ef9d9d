"""Subject folds: nobody on both sides, only the unseen are tested."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.folds import firewall, inner_folds, site_folds, subject_folds


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 15), min_size=2, max_size=60), st.integers(2, 8), st.integers(0, 99), st.sets(st.integers(0, 15))
)
def test_every_testable_row_is_tested_once_and_no_subject_is_on_both_sides(
    rows: list[int], folds: int, seed: int, old: set[int]
) -> None:
    subjects = np.array(rows)
    testable = ~np.isin(subjects, list(old))
    if len(np.unique(subjects[testable])) < 2:
        return
    made = subject_folds(subjects, testable, folds, seed)
    assert sorted(np.concatenate([fold.test for fold in made]).tolist()) == np.flatnonzero(testable).tolist()
    assert len(made) == min(folds, len(np.unique(subjects[testable])))
    for fold in made:
        assert not set(subjects[fold.train]) & set(subjects[fold.test])
        assert len(fold.train) + len(fold.test) == len(subjects)  # seen subjects always train


def test_classes_are_spread_evenly_and_seeds_differ() -> None:
    subjects = np.repeat(np.arange(20), 3)
    label = (subjects >= 15).astype(int)  # 5 of 20
    everyone = np.ones(60, dtype=bool)
    for seed in range(5):
        for fold in subject_folds(subjects, everyone, 5, seed, label):
            assert label[fold.test].sum() == 3  # one positive subject of three rows in each fold
    tests = {tuple(subject_folds(subjects, everyone, 5, seed)[0].test) for seed in range(5)}
    assert len(tests) == 5
    again = [subject_folds(subjects, everyone, 5, 1)[0].test for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_leave_site_out_keeps_travelling_subjects_on_one_side() -> None:
    subjects = np.array([0, 0, 1, 2, 3, 4])
    sites = np.array(["A", "B", "A", "A", "B", "B"])
    for fold in site_folds(subjects, sites, np.ones(6, dtype=bool)):
        assert len(set(sites[fold.test])) == 1
        assert not set(sites[fold.test]) & set(sites[fold.train])
        assert not set(subjects[fold.train]) & set(subjects[fold.test])
    with pytest.raises(UserError, match="all rows are from one site"):
        site_folds(subjects, np.repeat("A", 6), np.ones(6, dtype=bool))


def test_firewall_names_the_seen_and_says_what_to_do() -> None:
    subjects = np.array(["s1", "s1", "s2", "s3"])
    with pytest.raises(UserError, match=r"2 of 3 labelled subjects were seen in pretraining \(s1, s2\).*--allow-overlap"):
        firewall(subjects, np.array([True, False, True, False]), allow_overlap=False)  # one seen scan makes s1 seen
    wall = firewall(subjects, np.array([True, False, False, False]), allow_overlap=False)
    assert wall.testable.tolist() == [False, False, True, True]
    assert wall.stamp is None
    wall = firewall(subjects, np.array([True, False, True, False]), allow_overlap=True)
    assert wall.testable.all()
    assert wall.stamp == "overlap: 2 of 3 test subjects were seen in pretraining"
    with pytest.raises(UserError, match="only one subject"):
        firewall(np.array(["a", "a"]), np.zeros(2, dtype=bool), allow_overlap=False)


def test_one_subject_has_no_inner_folds() -> None:
    assert inner_folds(np.zeros(5, dtype=int), 3, 0) == []
    assert len(inner_folds(np.array([0, 0, 1, 1]), 3, 0)) == 2
