"""Retrieval metrics against sorting by hand; exact chance by enumeration."""

from types import SimpleNamespace

import numpy as np
import pytest

from ssl4neuro.data.embeddings import Embeddings
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.retrieval_metrics import rank_counts, retrieval, retrieval_from_embeddings, score_ranks


def _vectors(n: int = 40, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(n, 8))
    return a, a + noise * rng.normal(size=(n, 8))


@pytest.mark.parametrize("grouped", [False, True])
def test_equals_sorting_by_hand(grouped: bool) -> None:
    query, key = _vectors()
    groups = np.repeat(np.arange(4), 10) if grouped else None
    ranks, sizes = [], []
    for i in range(40):
        rivals = [j for j in range(40) if not grouped or groups[j] == groups[i]]
        cosine = {j: query[i] @ key[j] / np.linalg.norm(query[i]) / np.linalg.norm(key[j]) for j in rivals}
        ranks.append(1 + sorted(rivals, key=lambda j: -cosine[j]).index(i))
        sizes.append(len(rivals))
    found = {m.metric: m for m in retrieval(query, key, np.repeat(np.arange(8), 5), groups=groups, bootstrap=100)}
    ranks = np.array(ranks)
    assert found["top-1"].value == pytest.approx((ranks == 1).mean())
    assert found["top-5"].value == pytest.approx((ranks <= 5).mean())
    assert found["MRR"].value == pytest.approx((1 / ranks).mean())
    assert found["top-5"].chance == pytest.approx(5 / sizes[0])
    assert found["MRR"].chance == pytest.approx(np.mean(1 / np.arange(1, sizes[0] + 1)))
    assert (found["MRR"].n_queries, found["MRR"].n_subjects, found["MRR"].gallery) == (40, 8, sizes[0])
    assert found["MRR"].ci_low < found["MRR"].value < found["MRR"].ci_high


def test_ties_score_their_expectation_so_that_collapse_is_chance() -> None:
    better, equal, size = rank_counts(np.ones((9, 4)), np.ones((9, 4)))
    assert (better == 0).all()
    assert (equal == 8).all()
    for value, chance in score_ranks(better, equal, size, (1, 5)).values():
        np.testing.assert_allclose(value, chance)
    # one better, two equal: rank 2, 3 or 4 with equal probability
    scores = score_ranks(np.array([1]), np.array([2]), np.array([9]), (1, 3))
    assert scores["top-1"][0][0] == 0
    assert scores["top-3"][0][0] == pytest.approx(2 / 3)
    assert scores["MRR"][0][0] == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)


def test_unrelated_vectors_are_at_chance() -> None:
    rng = np.random.default_rng(2)
    values = [retrieval(rng.normal(size=(50, 16)), rng.normal(size=(50, 16)), np.arange(50), bootstrap=0) for _ in range(60)]
    for i, chance in enumerate(m.chance for m in values[0]):
        got = np.array([v[i].value for v in values])
        assert abs(got.mean() - chance) < 4 * got.std() / np.sqrt(60)


def test_folder_retrieval_uses_unseen_rows_in_both_directions(tiny: SimpleNamespace) -> None:
    found = retrieval_from_embeddings(tiny.path, bootstrap=100)
    assert [m.direction for m in found] == ["course to map"] * 3 + ["map to course"] * 3
    assert {m.n_queries for m in found} == {8 * 2 * 6}
    assert found[0].gallery == 96
    assert found[0].value > 0.8
    assert found[0].stamp is None
    inside = retrieval_from_embeddings(tiny.path, within_scan=True, bootstrap=0)
    assert inside[0].chance == pytest.approx(1 / 6)
    stamped = retrieval_from_embeddings(tiny.path, allow_overlap=True, bootstrap=0)
    assert stamped[0].stamp == "overlap: 4 of 12 test subjects were seen in pretraining"
    assert "overlap" in str(stamped[0])
    with pytest.raises(UserError, match="no embedding 'cine_projected'"):
        retrieval_from_embeddings(Embeddings.open(tiny.path), goal="cine")
