"""Splits are by subject, disjoint, stable, and keep sites together on request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl4neuro.data.splits import SplitConfig, crossfit_splits, split_subjects
from ssl4neuro.errors import UserError


def cohort(subjects: int, sites: int) -> dict[str, str]:
    return {f"sub-{i:03d}": f"site-{i % sites}" for i in range(subjects)}


@given(st.integers(8, 60), st.integers(1, 5), st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 99), st.booleans())
def test_parts_are_disjoint_and_complete(
    subjects: int, sites: int, holdout: float, validation: float, seed: int, by_site: bool
) -> None:
    who = cohort(subjects, sites)
    try:
        split = split_subjects(who, SplitConfig(holdout, validation, by_site), seed)
    except UserError:
        assert by_site, "only whole sites can use up all subjects here"
        return
    parts = [set(split.train), set(split.validation), set(split.holdout)]
    assert set.union(*parts) == set(who)
    assert sum(map(len, parts)) == len(who)
    if by_site:
        assert all({who[s] for s in a}.isdisjoint({who[s] for s in b}) for i, a in enumerate(parts) for b in parts[i + 1 :])


@given(st.integers(6, 40), st.integers(2, 5), st.integers(0, 99))
def test_crossfit_holds_everyone_out_once(subjects: int, folds: int, seed: int) -> None:
    splits = crossfit_splits(cohort(subjects, 1), folds, SplitConfig(), seed)
    held = [s for split in splits for s in split.holdout]
    assert sorted(held) == sorted(cohort(subjects, 1))
    assert all(set(s.holdout).isdisjoint({*s.train, *s.validation}) for s in splits)


def test_order_of_subjects_does_not_matter_and_a_newcomer_moves_few() -> None:
    who = cohort(50, 1)
    split = split_subjects(who, SplitConfig(), 3)
    assert split == split_subjects(dict(reversed(who.items())), SplitConfig(), 3)
    more = split_subjects({**who, "sub-new": "site-0"}, SplitConfig(), 3)
    assert len(set(split.holdout) ^ set(more.holdout)) <= 2


def test_named_sites_are_held_out() -> None:
    who = cohort(20, 4)
    split = split_subjects(who, SplitConfig(hold_sites=("site-2",)), 0)
    assert {who[s] for s in split.holdout} == {"site-2"}
    assert len(split.holdout) == 5
    with pytest.raises(UserError, match="no site 'nowhere'"):
        split_subjects(who, SplitConfig(hold_sites=("nowhere",)), 0)


def test_too_few_subjects() -> None:
    with pytest.raises(UserError, match="at least 2"):
        split_subjects(cohort(2, 1), SplitConfig(), 0)
    with pytest.raises(UserError, match="not possible"):
        crossfit_splits(cohort(3, 1), 5, SplitConfig(), 0)


def test_named_subjects_are_the_holdout() -> None:
    sites = {f"sub-{n}": "" for n in range(10)}
    split = split_subjects(sites, SplitConfig(hold_subjects=("sub-3", "sub-7")), seed=0)
    assert split.holdout == ("sub-3", "sub-7")
    assert set(split.train) | set(split.validation) | set(split.holdout) == set(sites)
    with pytest.raises(UserError, match=r"no subject 'sub-33' in this cohort \(did you mean 'sub-3'"):
        split_subjects(sites, SplitConfig(hold_subjects=("sub-33",)), seed=0)
    with pytest.raises(ValueError, match="give one of them"):
        SplitConfig(hold_sites=("a",), hold_subjects=("sub-3",))


def test_strata_are_spread_over_the_holdout() -> None:
    sites = {f"sub-{n:02d}": "" for n in range(25)}
    groups = {subject: "ABCDE"[n % 5] for n, subject in enumerate(sites)}
    for seed in range(5):
        split = split_subjects(sites, SplitConfig(holdout=0.2, stratify="group"), seed, groups)
        assert sorted(groups[subject] for subject in split.holdout) == list("ABCDE")
        assert split_subjects(sites, SplitConfig(holdout=0.2), seed).holdout != split.holdout
    for fold in crossfit_splits(sites, 5, SplitConfig(stratify="group"), 0, groups):
        assert sorted(groups[subject] for subject in fold.holdout) == list("ABCDE")
    uneven = {subject: "rare" if n < 5 else "common" for n, subject in enumerate(sites)}
    split = split_subjects(sites, SplitConfig(holdout=0.4, stratify="group"), 0, uneven)
    assert sum(uneven[subject] == "rare" for subject in split.holdout) == 2
    with pytest.raises(ValueError, match="leave by_site"):
        SplitConfig(stratify="group", by_site=True)
