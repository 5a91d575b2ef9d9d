"""The sampling plan: stateless, complete, balanced, and shared by processes without changing its order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4neuro.data.plan import Plan, SamplingConfig, share_of
from ssl4neuro.errors import UserError


def make(config: SamplingConfig, subjects: int = 6, scans: int = 2, components: int = 5, seed: int = 0) -> Plan:
    n = subjects * scans * components
    rows = np.arange(n) + 100
    subject = np.repeat(np.arange(subjects), scans * components)
    group = np.repeat(np.arange(subjects * scans), components)
    label = np.tile(np.arange(components), subjects * scans)
    return Plan(config, seed, rows, subject, group, label)


def rows_of(batches: list[list[np.ndarray]]) -> list[list[int]]:
    return [np.concatenate(batch).tolist() for batch in batches]


@settings(max_examples=40)
@given(
    st.sampled_from(["rows", "sessions", "subjects", "classes"]),
    st.integers(2, 20),
    st.integers(3, 9),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_pure_in_seed_and_epoch(kind: str, batch_size: int, subjects: int, seed: int, epoch: int) -> None:
    config = SamplingConfig(kind=kind, batch_size=batch_size, labels=("network",))  # type: ignore[arg-type]
    plan = make(config, subjects=subjects, seed=seed)
    first = rows_of(plan.epoch(epoch))
    assert first == rows_of(make(config, subjects=subjects, seed=seed).epoch(epoch))
    assert len(first) == len(plan)
    assert any(first != rows_of(plan.epoch(epoch + later)) for later in range(1, 20))
    if kind != "classes":
        everything = np.concatenate(first)
        assert len(np.unique(everything)) == len(everything), "no row twice in an epoch"


def test_sessions_and_subjects_stay_whole() -> None:
    for kind, size in (("sessions", 5), ("subjects", 10)):
        plan = make(SamplingConfig(kind=kind, batch_size=2))  # type: ignore[arg-type]
        for unit in (unit for batch in plan.epoch(0) for unit in batch):
            assert len(unit) == size
            assert len(set(((unit - 100) // size).tolist())) == 1


def test_components_are_limited_and_drawn_anew() -> None:
    plan = make(SamplingConfig(kind="sessions", batch_size=2, components=3))
    chosen = [tuple(sorted(np.concatenate([u for b in plan.epoch(e) for u in b]).tolist())) for e in range(6)]
    assert all(len(u) == 3 for b in plan.epoch(0) for u in b)
    assert len(set(chosen)) > 1
    places = {tuple(((unit - 100) % 5).tolist()) for batch in plan.epoch(0) for unit in batch}
    assert len(places) == 1, "the choice must not tell one scan from another"


def test_classes_are_balanced_over_different_subjects() -> None:
    plan = make(SamplingConfig(kind="classes", batch_size=20, samples_per_class=4, labels=("network",)), subjects=8)
    for batch in plan.epoch(1):
        rows = np.concatenate(batch) - 100
        classes, counts = np.unique(rows % 5, return_counts=True)
        assert len(classes) == 5
        assert (counts == 4).all()
        for c in classes:
            assert len(set((rows[rows % 5 == c] // 10).tolist())) == 4, "four rows of a class, four subjects"


def test_unlabelled_rows_are_never_drawn_by_class() -> None:
    plan = make(SamplingConfig(kind="classes", batch_size=8, labels=("network",)))
    label = plan.label.copy()  # type: ignore[union-attr]
    label[label == 0] = -1
    plan = Plan(plan.config, 0, plan.rows, plan.subject, plan.group, label)
    drawn = np.concatenate([u for e in range(4) for b in plan.epoch(e) for u in b])
    assert ((drawn - 100) % 5 != 0).all()


@given(st.integers(1, 4), st.sampled_from(["rows", "sessions"]))
def test_processes_share_a_batch_in_order(processes: int, kind: str) -> None:
    plan = make(SamplingConfig(kind=kind, batch_size=5))  # type: ignore[arg-type]
    for batch in plan.epoch(0):
        shares = [share_of(batch, p, processes) for p in range(processes)]
        assert np.concatenate(shares).tolist() == np.concatenate(batch).tolist()
        assert all(len(share) for share in shares)


def test_mistakes() -> None:
    with pytest.raises(UserError, match="no row is left"):
        Plan(SamplingConfig(), 0, *[np.array([], dtype=np.int64)] * 3)
    with pytest.raises(ValueError, match=r"needs sampling\.labels"):
        SamplingConfig(kind="classes")
    with pytest.raises(UserError, match="fewer than two classes"):
        make(SamplingConfig(kind="classes", labels=("x",)), components=1)
    with pytest.raises(UserError, match="cannot be shared"):
        share_of([np.array([1])], 0, 2)
