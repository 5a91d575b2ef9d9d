"""AUC, bootstrap, oracle and baselines: against naive computations, and the calibration over several seeds."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ssl4neuro.simulate.baseline import coarse, nuisance_logistic, pca_logistic, subject_folds
from ssl4neuro.simulate.cohort import IcaSettings, SimulatedCohort
from ssl4neuro.simulate.difficulty import Difficulty, describe, fnc_identification
from ssl4neuro.simulate.networks import Brain, load_brain
from ssl4neuro.simulate.oracle import Oracle, auc, standardise, subject_interval


def collect(settings: IcaSettings) -> Difficulty:
    difficulty = Difficulty(SimulatedCohort(settings))
    for _, scans in difficulty.cohort:
        for scan in scans:
            difficulty.add(scan)
    return difficulty


def session_auc(difficulty: Difficulty) -> float:
    return auc(np.array([e.session for e in difficulty.evidence]), np.array(difficulty.state))


@pytest.fixture(scope="module")
def default() -> Difficulty:
    return collect(IcaSettings(subjects=40, seed=1000))


@pytest.fixture(scope="module")
def confounded() -> Difficulty:
    return collect(IcaSettings(subjects=40, seed=1000, confounded=True))


def test_auc_equals_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 6, 80).astype(float), rng.random(80) < 0.4
    assert auc(score, positive) == pytest.approx(roc_auc_score(positive, score))


def test_subject_interval_equals_a_naive_bootstrap():
    rng = np.random.default_rng(1)
    subject = np.repeat(np.arange(12), 2)
    positive = np.tile([False, True], 12)
    score = rng.standard_normal(24) + positive
    counts = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=200)
    naive = []
    for draw in counts:
        rows = np.concatenate([np.flatnonzero(subject == s) for s in np.repeat(np.arange(12), draw)])
        naive.append(roc_auc_score(positive[rows], score[rows]))
    np.testing.assert_allclose(subject_interval(score, positive, subject, draws=200), np.quantile(naive, [0.025, 0.975]))


def test_standardise_fixes_scale_and_sign():
    maps = np.random.default_rng(2).gamma(1.0, size=(3, 500))
    z, sign = standardise(maps)
    flipped, flipped_sign = standardise(-7 * maps + 2)
    np.testing.assert_allclose(z, flipped, atol=1e-9)
    np.testing.assert_array_equal(sign, -flipped_sign)
    np.testing.assert_allclose([z.mean(1), z.std(1)], [[0] * 3, [1] * 3], atol=1e-9)


def test_weights_solve_the_constrained_discriminant():
    """Against the explicit matrix, on a network of a coarse grid."""
    cohort = SimulatedCohort(IcaSettings(subjects=2, networks=1, resolution=10.0))
    oracle = Oracle(cohort)
    m, eye = cohort.model, np.eye(len(cohort.xyz))
    template = oracle.before[0] + oracle.delta[0] / 2
    noise, person = cohort.noise_field.covariance(eye), cohort.subject_field.covariance(eye)
    matrix = cohort.noise_sd**2 * (1 + m.texture**2 + m.node**2) * template[:, None] * noise * template
    matrix = matrix + cohort.background_sd**2 * noise + cohort.white_sd**2 * eye
    matrix = matrix + m.texture**2 * template[:, None] * person * template + m.field**2 * person
    low = oracle._individual(0)
    matrix = matrix + low.T @ low
    fixed = np.stack([np.ones(len(template)), oracle.middle[0], cohort.rim])
    solved = np.linalg.solve(matrix, np.concatenate([oracle.delta[:1], fixed]).T).T
    w = solved[0] - np.linalg.solve(fixed @ solved[1:].T, fixed @ solved[0]) @ solved[1:]
    assert oracle.power[0] == pytest.approx(w @ oracle.delta[0], rel=0.01)
    assert np.corrcoef(oracle.weights[0], w)[0, 1] > 0.999
    np.testing.assert_allclose(fixed @ oracle.weights[0] / np.linalg.norm(oracle.weights[0]), 0, atol=1e-6)


def test_oracle_and_baseline_are_calibrated_over_seeds():
    """One cohort of 40 has an AUC with sd 0.02 (oracle) and 0.08 (PCA + logistic); the mean of several is in the bands."""
    numbers = [collect(IcaSettings(subjects=40, seed=seed)).numbers() for seed in range(2000, 2004)]
    oracle = np.mean([n["oracle"]["session"]["auc"] for n in numbers])
    assert 0.93 <= oracle <= 0.97
    assert np.mean([n["expected_oracle"] for n in numbers]) == pytest.approx(oracle, abs=0.03)
    for row in ("pca_logistic", "pca_logistic_with_spectra"):
        assert 0.62 <= np.mean([n[row]["session"]["auc"] for n in numbers]) <= 0.88


def test_oracle_needs_both_modalities(default: Difficulty):
    post = np.array(default.state)
    alone = [auc(np.array([getattr(e, name) for e in default.evidence]), post) for name in ("map_session", "course_session")]
    assert min(alone) > 0.7
    assert max(alone) < session_auc(default)


def test_null_effect_is_at_chance():
    found = []
    for seed in range(3):
        difficulty = collect(IcaSettings(subjects=40, networks=2, seed=seed, effect=0.0))
        found.append(session_auc(difficulty))
        assert difficulty.oracle.expected_auc() == 0.5
    assert np.mean(found) == pytest.approx(0.5, abs=0.09)  # 240 sessions, 2.4 sd


def test_larger_effect_is_easier(default: Difficulty):
    cohorts = [SimulatedCohort(replace(default.cohort.settings, effect=effect)) for effect in (0.5, 2.0)]
    half, double = (Oracle(cohort).expected_auc() for cohort in cohorts)
    assert half < default.oracle.expected_auc() < double


def test_nuisances_reveal_the_confounded_variant_only(default: Difficulty, confounded: Difficulty):
    assert confounded.numbers()["nuisance_logistic"]["session"]["auc"] > 0.9
    assert 0.3 < default.numbers()["nuisance_logistic"]["session"]["auc"] < 0.7


def test_people_are_known_by_their_fnc(default: Difficulty):
    assert default.numbers()["fnc_identification"] > 0.5  # chance 1 / 40


def test_fnc_identification_equals_a_naive_search():
    rng = np.random.default_rng(3)
    fnc, subject, post = rng.standard_normal((16, 10)), np.repeat(np.arange(8), 2), np.tile([False, True], 8)
    fnc[post] += 0.6 * fnc[~post]
    hits = 0
    for s in range(8):
        probe = fnc[2 * s + 1]
        hits += min(range(8), key=lambda g: float(np.linalg.norm(probe - fnc[2 * g]))) == s
    assert fnc_identification(fnc, post, subject) == hits / 8


def test_numbers_do_not_depend_on_the_grid():
    coarse_grid = Oracle(SimulatedCohort(IcaSettings(subjects=2, networks=1))).expected_auc()
    fine_grid = Oracle(SimulatedCohort(IcaSettings(subjects=2, networks=1, resolution=5.0))).expected_auc()
    assert fine_grid == pytest.approx(coarse_grid, abs=0.02)


def test_coarse_takes_block_means():
    brain = load_brain(4.0)
    maps = np.random.default_rng(4).standard_normal((2, int(brain.mask.sum())))
    small = coarse(brain, maps)
    assert small.shape[1] < maps.shape[1] / 5
    volume = brain.volume(maps)
    assert (np.abs(small - volume[:, 24:26, 20:22, 20:22].mean(axis=(1, 2, 3))[:, None]).min(axis=1) < 1e-12).all()
    same = Brain(brain.mask, brain.affine, 8.0)
    assert coarse(same, maps) is maps


def test_folds_keep_subjects_together_and_scores_are_out_of_fold():
    rng = np.random.default_rng(5)
    subject, positive = np.repeat(np.arange(20), 2), np.tile([False, True], 20)
    tested = np.concatenate([test for _, test in subject_folds(subject)])
    assert sorted(tested) == list(range(40))
    assert all(not set(subject[train]) & set(subject[test]) for train, test in subject_folds(subject))
    labels = rng.permutation(positive)
    noise = rng.standard_normal((40, 1, 300))
    assert 0.2 < auc(pca_logistic([(noise, 20)], labels, subject)[:, 0], labels) < 0.8  # in-sample it would be 1
    told = noise.copy()
    told[:, 0, :100] += 3 * labels[:, None]
    assert auc(pca_logistic([(told, 20)], labels, subject)[:, 0], labels) > 0.95
    assert auc(nuisance_logistic(told[:, 0, :3], labels, subject), labels) > 0.9


def test_the_table_states_unit_n_and_interval(default: Difficulty):
    text = describe(default.numbers())
    assert "AUC per session [95 % CI]" in text
    assert "n = 40 subjects, 80 sessions" in text
    assert "oracle" in text
