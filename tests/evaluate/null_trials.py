"""Data without the effect that a test looks for, and what the test said: one function per test that is shipped.

Shared by the test suite (few data sets) and `tests/benchmarks/bench_statistics.py` (2,000). Every trial returns a p-value.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from ssl4neuro.evaluate.compare import paired_difference
from ssl4neuro.evaluate.crossval import Candidate, Settings, evaluate
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.linear import RidgeProbe
from ssl4neuro.evaluate.metrics import Held, macro_auc
from ssl4neuro.evaluate.problem import Problem, pose
from ssl4neuro.evaluate.segmentation_compare import sign_flip_p
from ssl4neuro.evaluate.statistics import bootstrap_interval, delong, delong_interval, delong_p, equivalence_p
from ssl4neuro.evaluate.targets import evaluate_targets

SETTINGS = Settings(folds=4, permutations=99, bootstrap=0)


def features_of(who: np.ndarray, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Half of the variance is the subject's own."""
    return (rng.normal(size=(who.max() + 1, dim))[who] + rng.normal(size=(len(who), dim))).astype(np.float32)


def problem_of(
    y: np.ndarray,
    who: np.ndarray,
    *,
    target: str = "label",
    scans: np.ndarray | None = None,
    sites: np.ndarray | None = None,
    seen: np.ndarray | None = None,
) -> Problem:
    """A problem from arrays; NaN is a missing label."""
    table = pd.DataFrame({"subject": [f"s{i:03d}" for i in who], "session": np.arange(len(who)).astype(str)})
    if scans is not None:
        table["session"], table["component"] = scans.astype(str), np.arange(len(who)).astype(str)
    table["seen"] = np.zeros(len(who), dtype=bool) if seen is None else seen
    if sites is not None:
        table["site"] = sites
    return pose(table, pd.Series(y), target, "session", site=None if sites is None else "site")


def _probed(problem: Problem, x: np.ndarray, seed: int, settings: Settings = SETTINGS) -> float:
    candidate = Candidate("x", ArrayFeatures(x[problem.kept]), RidgeProbe())
    options = vars(settings) | {"seed": seed}
    p = evaluate(problem, [candidate], Settings(**options))[0][0].rows[0].p
    assert p is not None
    return p


def between(seed: int) -> float:
    """Label of the subject."""
    rng, who = np.random.default_rng([seed, 1]), np.repeat(np.arange(24), 2)
    return _probed(problem_of(rng.permutation(np.arange(24) % 2)[who], who), features_of(who, 8, rng), seed)


def regression(seed: int) -> float:
    """Value of the subject."""
    rng, who = np.random.default_rng([seed, 2]), np.repeat(np.arange(24), 2)
    return _probed(problem_of(rng.normal(size=24)[who], who), features_of(who, 8, rng), seed)


def with_seen(seed: int) -> float:
    """A third of the subjects only train, and their classes are not balanced."""
    rng, who = np.random.default_rng([seed, 3]), np.repeat(np.arange(30), 2)
    y = np.concatenate([rng.permutation(np.r_[np.zeros(7), np.ones(3)]), rng.permutation(np.arange(20) % 2)])
    return _probed(problem_of(y[who], who, seen=who < 10), features_of(who, 8, rng), seed)


def site_confounded(seed: int) -> float:
    """Features and label depend on the site, but not on each other within one."""
    rng, who = np.random.default_rng([seed, 4]), np.arange(32)
    sites = who % 2
    y = (rng.random(32) < np.where(sites, 0.7, 0.3)).astype(int)
    y[:4] = [0, 0, 1, 1]
    x = features_of(who, 6, rng) + 1.5 * sites[:, None]
    return _probed(problem_of(y, who, sites=sites), x.astype(np.float32), seed)


def leave_site_out(seed: int) -> float:
    """Three sites with their own features, a fold each."""
    rng, who = np.random.default_rng([seed, 5]), np.arange(36)
    sites = who % 3
    y = np.concatenate([rng.permutation(np.arange(12) % 2) for _ in range(3)]).reshape(3, 12).T.ravel()
    x = features_of(who, 6, rng) + 1.5 * rng.normal(size=(3, 6))[sites]
    settings = Settings(permutations=99, bootstrap=0, leave_site_out=True)
    return _probed(problem_of(y, who, sites=sites), x.astype(np.float32), seed, settings)


def within_subjects(seed: int) -> float:
    """Two states of every subject, in random order."""
    rng, who = np.random.default_rng([seed, 6]), np.repeat(np.arange(24), 2)
    return _probed(problem_of(np.arange(48) % 2, who), features_of(who, 8, rng), seed)


def within_scans(seed: int) -> float:
    """Labels of components."""
    rng, who, scans = np.random.default_rng([seed, 7]), np.repeat(np.arange(12), 6), np.repeat(np.arange(24), 3)
    return _probed(problem_of(np.arange(72) % 3, who, scans=scans), features_of(who, 8, rng), seed)


def max_statistic(seed: int) -> float:
    """Smallest corrected p of three related targets, one of them missing in some subjects, one varying within subjects."""
    rng, who = np.random.default_rng([seed, 8]), np.repeat(np.arange(24), 2)
    hidden = rng.normal(size=24)
    age = hidden + 0.5 * rng.normal(size=24)
    sex = (hidden + 0.5 * rng.normal(size=24) > np.median(hidden)).astype(float)
    sex[:4] = [0, 0, 1, 1]
    age[20:] = np.nan
    x = features_of(who, 8, rng)
    problems = [
        problem_of(y, who, target=name) for name, y in (("age", age[who]), ("sex", sex[who]), ("state", np.arange(48) % 2))
    ]
    candidates = [[Candidate("x", ArrayFeatures(x[problem.kept]), RidgeProbe())] for problem in problems]
    options = vars(SETTINGS) | {"seed": seed}
    return float(evaluate_targets(problems, candidates, Settings(**options))[1]["p_corrected"].min())


def macro_average(seed: int) -> float:
    """Mean AUC of two related labels."""
    rng, who = np.random.default_rng([seed, 15]), np.repeat(np.arange(24), 2)
    first = rng.permutation(np.arange(24) % 2).astype(float)
    second = np.where(rng.random(24) < 0.7, first, 1 - first)
    second[:4] = [0, 0, 1, 1]
    x = features_of(who, 8, rng)
    problems = [problem_of(y[who], who, target=name) for name, y in (("one", first), ("two", second))]
    options = vars(SETTINGS) | {"seed": seed}
    candidates = [[Candidate("x", ArrayFeatures(x), RidgeProbe())] for _ in problems]
    return float(evaluate_targets(problems, candidates, Settings(**options))[1]["p"].iloc[-1])


def scores_of(
    seed: int, key: int, gains: tuple[float, float], people: int = 24, rows: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of subjects, two models' scores with a shared part, and subjects; d' of each model is its gain."""
    rng, who = np.random.default_rng([seed, key]), np.repeat(np.arange(people), rows)
    y = (np.arange(people) % 2).astype(float)[who]
    shared = rng.normal(size=people)[who]
    scores = [0.6 * shared + 0.6 * rng.normal(size=people)[who] + 0.53 * rng.normal(size=len(who)) + gain * y for gain in gains]
    return y, np.stack(scores, axis=1), who


def _models(y: np.ndarray, scores: np.ndarray) -> list[list[Held]]:
    """On different scales: the second model's scores are stretched."""
    values = (scores[:, :1], np.exp(3 * scores[:, 1:]))
    return [[Held(y, value, (scores[:, i] > 0.5).astype(int))] for i, value in enumerate(values)]


def paired_auc(seed: int) -> float:
    """Two models of equal AUC, 0.74."""
    y, scores, who = scores_of(seed, 9, (0.9, 0.9))
    a, b = _models(y, scores)
    return paired_difference("binary", "AUC", a, b, who, names=("a", "b"), draws=0, permutations=199, seed=seed).p


def paired_accuracy(seed: int) -> float:
    """Balanced accuracy of the same."""
    y, scores, who = scores_of(seed, 10, (0.9, 0.9))
    a, b = _models(y, scores)
    return paired_difference("binary", "balanced accuracy", a, b, who, names=("a", "b"), draws=0, permutations=199, seed=seed).p


def delong_difference(seed: int) -> float:
    """Clustered DeLong of the same."""
    y, scores, who = scores_of(seed, 11, (0.9, 0.9), people=40)
    return delong_p(delong(y == 1, scores, who))


def equivalence(seed: int) -> float:
    """True AUC at the margin: 0.6; in a small sample two one-sided tests are conservative by design."""
    gain = float(stats.norm.ppf(0.6) * np.sqrt(2))
    y, scores, who = scores_of(seed, 12, (gain, gain), people=400, rows=1)
    held = Held(y, scores[:, :1], (scores[:, 0] > 0).astype(int))
    found = bootstrap_interval(lambda w: macro_auc(held, w), who, strata=y.astype(int), draws=400, seed=seed)
    return equivalence_p(found, 0.5, 0.1)


def segmentation(seed: int) -> float:
    """Sign flips of patients' differences, which share a patient's effect."""
    rng = np.random.default_rng([seed, 13])
    gain = rng.normal(size=16) + 0.5 * rng.normal(size=(16, 5)).mean(1)
    return sign_flip_p(gain, 199, seed)[0]


class Trial(NamedTuple):
    """A test on null data."""

    run: Callable[[int], float]
    upper_only: bool = False  # few possible values, or conservative by design


TRIALS = {
    "permutation, between subjects": Trial(between),
    "permutation, between subjects, regression": Trial(regression),
    "permutation, some subjects seen": Trial(with_seen),
    "permutation, within sites (site confounded)": Trial(site_confounded),
    "permutation, leave site out": Trial(leave_site_out),
    "permutation, within subjects": Trial(within_subjects),
    "permutation, within scans": Trial(within_scans),
    "largest statistic, family of 3 targets": Trial(max_statistic),
    "permutation, macro average of 2 targets": Trial(macro_average),
    "paired comparison, AUC": Trial(paired_auc),
    "paired comparison, balanced accuracy": Trial(paired_accuracy, upper_only=True),
    "DeLong by subject, difference": Trial(delong_difference),
    "equivalence, at the margin": Trial(equivalence),
    "segmentation, sign flips of patients": Trial(segmentation),
}


def auc_intervals(seed: int) -> dict[str, bool]:
    """Do bootstrap and DeLong intervals of the AUC of clustered rows hold the truth?"""
    y, scores, who = scores_of(seed, 14, (0.9, 0.9), people=30)
    truth = stats.norm.cdf(0.9 / np.sqrt(2 * (0.36 + 0.36 + 0.53**2)))
    a, b = _models(y, scores)
    found = bootstrap_interval(lambda w: macro_auc(a[0], w), who, strata=y.astype(int), draws=400, seed=seed)
    one = delong(y == 1, scores, who)
    low, high = delong_interval(float(one.auc[0]), float(one.covariance[0, 0]))
    both = paired_difference(
        "binary", "AUC", a, b, who, names=("a", "b"), strata=y.astype(int), draws=400, permutations=0, seed=seed
    )
    return {
        "bootstrap, AUC": found.low <= truth <= found.high,
        "DeLong by subject, AUC": low <= truth <= high,
        "bootstrap, difference of two AUCs": both.ci_low <= 0 <= both.ci_high,
    }
