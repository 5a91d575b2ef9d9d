"""Do intervals cover and p-values hold their level when rows of one subject are alike? And what does a permutation keep?"""

import itertools

import numpy as np
import pytest
from scipy import stats

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.metrics import Held, macro_auc
from ssl4neuro.evaluate.probe import probe_arrays
from ssl4neuro.evaluate.statistics import (
    bootstrap_interval,
    bootstrap_weights,
    equivalence_p,
    expanded_tail,
    p_value,
    permutation_scheme,
    permuted_labels,
)


def test_bootstrap_draws_whole_subjects_and_keeps_the_classes() -> None:
    subjects = np.array([3, 3, 1, 1, 1, 7, 9])
    strata = np.array([0, 0, 1, 1, 1, 0, 1])
    weights = np.concatenate(list(bootstrap_weights(subjects, strata, 500, seed=0)))
    assert weights.shape == (500, 7)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 3]).all()
    assert (weights[:, 0] + weights[:, 5] == 2).all()  # two subjects of each class in every resample
    assert (weights[:, 2] + weights[:, 6] == 2).all()
    assert weights.mean() == pytest.approx(1, abs=0.05)


def test_interval_of_a_mean_has_the_width_of_a_t_interval() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=12)
    found = bootstrap_interval(lambda w: w @ x / w.sum(1), np.arange(12), draws=20_000, seed=1)
    half = stats.t.ppf(0.975, 11) * x.std(ddof=1) / np.sqrt(12)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)
    assert expanded_tail(10_000) == pytest.approx(0.025, abs=1e-4)


def test_perfect_separation_has_an_honest_interval() -> None:
    held = Held(np.repeat([0.0, 1.0], 8), np.repeat([-1.0, 1.0], 8)[:, None], np.repeat([0, 1], 8))
    found = bootstrap_interval(lambda w: macro_auc(held, w), np.arange(16), draws=200, bounded=True)
    assert found.value == found.high == 1
    assert found.low == pytest.approx(0.025 ** (1 / 16))  # Clopper and Pearson, 16 of 16


def test_interval_covers_where_rows_of_a_subject_are_alike_and_row_resampling_does_not() -> None:
    """24 subjects × 4 rows; most of the spread is between subjects. True AUC of N(1.2, var 1.25) against N(0, 1.25)."""
    truth = stats.norm.cdf(1.2 / np.sqrt(2 * 1.25))
    subjects = np.repeat(np.arange(24), 4)
    label = (subjects % 2).astype(float)
    inside = {"subject": 0, "row": 0}
    trials = 150
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        score = 1.2 * label + np.repeat(rng.normal(size=24), 4) + 0.5 * rng.normal(size=96)
        held = Held(label, score[:, None], label.astype(int))
        for name, units in (("subject", subjects), ("row", np.arange(96))):
            strata = label.astype(int)
            found = bootstrap_interval(lambda w, h=held: macro_auc(h, w), units, strata=strata, draws=300, seed=trial)
            inside[name] += found.low <= truth <= found.high
    assert inside["subject"] / trials >= 0.90  # 0.95 less three standard errors
    assert inside["row"] / trials <= 0.80


def test_scheme_follows_the_level_at_which_the_label_varies() -> None:
    subjects = np.repeat(np.arange(6), 4)
    scans = np.repeat(np.arange(12), 2)
    assert permutation_scheme(subjects % 2, subjects, scans) == "between subjects"
    assert permutation_scheme(scans % 2, subjects, scans) == "within subjects"
    assert permutation_scheme(np.tile([0, 1], 12), subjects, scans) == "within scans"


def test_between_subjects_moves_whole_subjects_of_any_size_within_blocks() -> None:
    subjects = np.array([0, 1, 1, 2, 2, 2, 3, 4, 5])
    labels = np.array([0, 1, 1, 0, 0, 0, 1, 0, 1])
    blocks = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
    moved = permuted_labels(labels, subjects, subjects, "between subjects", 300, 0, blocks)
    assert (moved[1] == moved[2]).all()
    assert (moved[3] == moved[4]).all()
    assert (moved[[0, 1, 3]].sum(0) == 1).all()
    assert (moved[6:].sum(0) == 2).all()
    assert len({tuple(column) for column in moved.T}) == 9  # 3 arrangements in each block


def test_within_subjects_moves_scans_as_wholes() -> None:
    subjects, scans = np.repeat([0, 1], 4), np.repeat([0, 1, 2, 3], 2)
    labels = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    moved = permuted_labels(labels, subjects, scans, "within subjects", 400, 0)
    assert (moved[::2] == moved[1::2]).all()
    assert {tuple(column[::2]) for column in moved.T} == {(0, 1, 0, 1), (1, 0, 0, 1), (0, 1, 1, 0), (1, 0, 1, 0)}


def test_all_arrangements_are_equally_likely() -> None:
    labels, subjects = np.array([0, 1, 2, 3]), np.arange(4)
    moved = permuted_labels(labels, subjects, subjects, "between subjects", 4800, 0)
    counts = [sum(tuple(column) == order for column in moved.T) for order in itertools.permutations(range(4))]
    assert sum(counts) == 4800
    assert stats.chisquare(counts).pvalue > 0.001


def test_nothing_to_exchange_is_said() -> None:
    with pytest.raises(UserError, match="no two labels can change places"):
        permuted_labels(np.array([0, 0, 1, 1]), np.arange(4), np.arange(4), "between subjects", 9, 0, np.array([0, 0, 1, 1]))


def test_p_value_counts_the_observed_arrangement_and_the_direction() -> None:
    null = np.arange(99) / 100
    assert p_value(2.0, null) == pytest.approx(0.01)
    assert p_value(-1.0, null) == 1.0
    assert p_value(-1.0, null, higher_is_better=False) == pytest.approx(0.01)
    assert np.isnan(p_value(float("nan"), null))


def _null_trial(design: str, seed: int, folds: int, probe: str = "linear") -> tuple[float, float]:
    """Features with strong subject effects and no relation to the label."""
    rng = np.random.default_rng([seed, 77])
    subjects = np.repeat(np.arange(12), 2)
    x = (np.repeat(rng.normal(size=(12, 6)), 2, axis=0) + 0.5 * rng.normal(size=(24, 6))).astype(np.float32)
    y = rng.permutation(np.arange(12) % 2)[subjects] if design == "between" else np.tile([0, 1], 12)
    result = probe_arrays({"x": x}, y, subjects, folds=folds, permutations=39, bootstrap=0, seed=seed, probe=probe)
    row = result.row("x", "AUC")
    assert row.p is not None
    return row.value, row.p


@pytest.mark.parametrize(("design", "folds", "probe"), [("between", 3, "linear"), ("within", 3, "knn")])
def test_false_positives_stay_at_the_nominal_level(design: str, folds: int, probe: str) -> None:
    trials = 60  # thousands in benchmarks/bench_probe_null.py
    values, ps = np.array([_null_trial(design, seed, folds, probe) for seed in range(trials)]).T
    assert (ps <= 0.05).sum() <= stats.binom.ppf(0.999, trials, 0.05)
    assert ps.mean() == pytest.approx(0.5, abs=0.15)
    assert values.mean() == pytest.approx(0.5, abs=0.08)


def test_leave_one_subject_out_has_no_downward_bias() -> None:
    """With an intercept in the pooled score the mean AUC of null data falls far below 0.5; ours does not."""
    values, naive = [], []
    for seed in range(24):
        rng = np.random.default_rng([seed, 5])
        x, y = rng.normal(size=(12, 4)).astype(np.float32), rng.permutation(np.arange(12) % 2)
        result = probe_arrays({"x": x}, y, np.arange(12), folds=12, permutations=0, bootstrap=0, seed=seed)
        values.append(result.row("x", "AUC").value)
        prior = np.array([np.delete(y, i).mean() for i in range(12)])
        score = result.predictions.query("model == 'x'").sort_values("fold")
        lines = score["subject"].astype(int).to_numpy()
        raw = 0.05 * score["score 1"].to_numpy() + prior[lines]  # a strongly penalised fit is the prior and little else
        naive.append(macro_auc(Held(y[lines].astype(float), raw[:, None], y[lines]), np.ones((1, 12)))[0])
    assert np.mean(naive) < 0.35
    assert np.mean(values) == pytest.approx(0.5, abs=0.12)


def test_power_a_real_effect_is_found() -> None:
    found = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        y = np.tile([0, 1], 12)
        x = rng.normal(size=(24, 5)).astype(np.float32)
        x[:, 0] += 3 * y
        result = probe_arrays({"x": x}, y, np.repeat(np.arange(12), 2), permutations=99, bootstrap=0, seed=seed)
        found += (result.row("x").p or 1) <= 0.05
    assert found >= 9


def test_resamples_that_all_agree_prove_no_equivalence() -> None:
    subjects = np.arange(30)
    always = bootstrap_interval(lambda weights: np.full(len(weights), 0.5), subjects, draws=200)
    assert np.isnan(equivalence_p(always, 0.5, 0.1))
