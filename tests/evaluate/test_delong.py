"""Standard errors of the AUC against the plain double loop, and where they can be known otherwise."""

import numpy as np
import pytest
from scipy import stats

from ssl4neuro.evaluate.metrics import Held, macro_auc
from ssl4neuro.evaluate.statistics import bootstrap_interval, delong, delong_interval, delong_p


def naive(positive: np.ndarray, scores: np.ndarray, subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Obuchowski (1997), equations in the order of the paper, one subject at a time."""

    def wins(a: float, b: float) -> float:
        return float(a > b) + 0.5 * float(a == b)

    ups, downs = np.flatnonzero(positive), np.flatnonzero(~positive)
    models = range(scores.shape[1])
    auc = np.array([np.mean([wins(scores[i, k], scores[j, k]) for i in ups for j in downs]) for k in models])
    v10 = {i: [np.mean([wins(scores[i, k], scores[j, k]) for j in downs]) for k in models] for i in ups}
    v01 = {j: [np.mean([wins(scores[i, k], scores[j, k]) for i in ups]) for k in models] for j in downs}
    covariance = np.zeros((len(auc), len(auc)))
    people = sorted(set(subjects.tolist()))
    has_up, has_down = len(set(subjects[positive].tolist())), len(set(subjects[~positive].tolist()))
    for k in models:
        for m in models:
            s10 = s01 = s11 = 0.0
            for person in people:
                own_up = [i for i in ups if subjects[i] == person]
                own_down = [j for j in downs if subjects[j] == person]
                x = [sum(v10[i][c] for i in own_up) - len(own_up) * auc[c] for c in (k, m)]
                y = [sum(v01[j][c] for j in own_down) - len(own_down) * auc[c] for c in (k, m)]
                s10 += x[0] * x[1]
                s01 += y[0] * y[1]
                s11 += x[0] * y[1] + y[0] * x[1]
            s10 *= has_up / ((has_up - 1) * len(ups))
            s01 *= has_down / ((has_down - 1) * len(downs))
            s11 *= len(people) / (len(people) - 1)
            covariance[k, m] = s10 / len(ups) + s01 / len(downs) + s11 / (len(ups) * len(downs))
    return auc, covariance


@pytest.mark.parametrize("clustered", [False, True])
def test_equals_the_double_loop_with_ties(clustered: bool) -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(24) < 0.4
    scores = np.round(rng.normal(size=(24, 2)) + positive[:, None], 1)
    subjects = rng.integers(0, 9, 24) if clustered else np.arange(24)
    found = delong(positive, scores, subjects)
    auc, covariance = naive(positive, scores, subjects)
    np.testing.assert_allclose(found.auc, auc)
    np.testing.assert_allclose(found.covariance, covariance)
    held = Held(positive.astype(float), scores[:, :1], positive.astype(int))
    assert found.auc[0] == pytest.approx(macro_auc(held, np.ones((1, 24)))[0])


def test_copies_of_a_row_add_nothing() -> None:
    rng = np.random.default_rng(1)
    positive, scores, who = rng.random(30) < 0.5, rng.normal(size=(30, 2)), np.arange(30)
    once, twice = delong(positive, scores, who), delong(*(np.repeat(part, 3, axis=0) for part in (positive, scores, who)))
    np.testing.assert_allclose(once.covariance, twice.covariance)
    naively = delong(np.repeat(positive, 3), np.repeat(scores, 3, axis=0))
    assert naively.covariance[0, 0] < 0.4 * once.covariance[0, 0]  # rows taken for subjects


def test_the_smallest_example_by_hand() -> None:
    """Positives 1 and 3, negatives 0 and 2: placements 0.5, 1 and 1, 0.5, so AUC 0.75, variance 2 · 0.125 / 2."""
    found = delong(np.array([True, True, False, False]), np.array([[1.0], [3.0], [0.0], [2.0]]))
    assert found.auc[0] == 0.75
    assert found.covariance[0, 0] == pytest.approx(0.125)


def test_agrees_with_the_bootstrap_and_stays_between_0_and_1() -> None:
    rng = np.random.default_rng(2)
    who = np.repeat(np.arange(60), 2)
    y = (who % 2).astype(float)
    score = y + rng.normal(size=60)[who] + 0.5 * rng.normal(size=120)
    found = delong(y == 1, score[:, None], who)
    held = Held(y, score[:, None], y.astype(int))
    interval = bootstrap_interval(lambda w: macro_auc(held, w), who, strata=y.astype(int), draws=2000)
    assert np.sqrt(found.covariance[0, 0]) == pytest.approx(interval.resampled.std(), rel=0.1)
    low, high = delong_interval(0.97, 0.03**2)
    assert 0.5 < low < 0.97 < high < 1


def test_no_variance_gives_no_interval_and_no_difference_no_p() -> None:
    assert np.isnan(delong_interval(1.0, 0.0)).all()
    positive = np.array([True, True, False, False])
    assert np.isnan(delong(positive, np.ones((4, 1)), np.array([0, 0, 1, 2])).covariance).all()  # one subject has all positives
    score = np.array([1.0, 3.0, 0.0, 2.0])
    assert delong_p(delong(positive, np.stack([score, score], axis=1))) == 1.0
    rng = np.random.default_rng(3)
    y = np.arange(80) % 2 == 1
    scores = np.stack([2 * y + rng.normal(size=80), rng.normal(size=80)], axis=1)
    found = delong(y, scores)
    z = (found.auc[0] - found.auc[1]) / np.sqrt(np.array([1, -1]) @ found.covariance @ np.array([1, -1]))
    assert delong_p(found) == pytest.approx(2 * stats.norm.sf(z))
    assert delong_p(found) < 0.001
