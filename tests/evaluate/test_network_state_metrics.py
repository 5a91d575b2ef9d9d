"""Metrics, ordering, exchanges, recovery and geometry of held-out scores against scikit-learn, plain loops and simulations."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from ssl4neuro.evaluate.network_state.cells import Cells, make_cells
from ssl4neuro.evaluate.network_state.items import WHOLE
from ssl4neuro.evaluate.network_state.metrics import METRICS
from ssl4neuro.evaluate.network_state.ordering import clopper_pearson, pair_ordering
from ssl4neuro.evaluate.network_state.recovery import mean_recovery, recovery_scores
from ssl4neuro.evaluate.network_state.space import neighbour_scores, space_table, variance_shares
from ssl4neuro.evaluate.network_state.swap import _auc_of_labels, holm, swap_p, swapped_labels


def _cells(later: np.ndarray, earlier: np.ndarray, fold: np.ndarray) -> Cells:
    """One scan of each state per subject; logits [subjects, repeats]."""
    n = len(later)
    logit = np.concatenate([later, earlier]).reshape(2 * n, -1).astype(np.float64)
    subject = np.tile(np.arange(n), 2)
    state = np.repeat(["post", "pre"], n)
    scans = pd.DataFrame({"subject": [f"s{i:03d}" for i in subject], "session": state, "run": "", "state": state, "site": ""})
    folds = np.tile(fold[subject][:, None], (1, logit.shape[1])).astype(np.int64)
    return Cells(scans, subject, (state == "post").astype(np.int64), logit, folds)


def _noise(n: int = 30, effect: float = 1.0, repeats: int = 2, seed: int = 0) -> Cells:
    rng = np.random.default_rng(seed)
    return _cells(effect + rng.standard_normal((n, repeats)), rng.standard_normal((n, repeats)) - effect, np.arange(n) % 5)


def test_metrics_equal_scikit_learns_mean_over_repeats() -> None:
    cells = _noise()
    ones = np.ones((1, 60))
    found = {name: float(metric.function(cells, ones)[0]) for name, metric in METRICS.items()}
    y, expected = cells.y, {}
    for name, function in (
        ("AUC", lambda p: sk.roc_auc_score(y, p)),
        ("accuracy", lambda p: sk.accuracy_score(y, p > 0.5)),
        ("balanced accuracy", lambda p: sk.balanced_accuracy_score(y, p > 0.5)),
        ("sensitivity", lambda p: sk.recall_score(y, p > 0.5)),
        ("specificity", lambda p: sk.recall_score(y, p > 0.5, pos_label=0)),
        ("precision", lambda p: sk.precision_score(y, p > 0.5)),
        ("F1", lambda p: sk.f1_score(y, p > 0.5)),
        ("Brier", lambda p: sk.brier_score_loss(y, p)),
    ):
        expected[name] = np.mean([function(p) for p in cells.probability.T])
    expected["ECE"] = np.mean([_plain_ece(p, y) for p in cells.probability.T])
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), [expected[name] for name in found], rtol=1e-9)


def _plain_ece(p: np.ndarray, y: np.ndarray) -> float:
    total = 0.0
    for low in np.arange(0, 1, 0.2):
        inside = (p >= low) & (p < low + 0.2)
        total += inside.sum() * abs(p[inside].mean() - y[inside].mean()) if inside.any() else 0
    return total / len(p)


def test_a_weight_of_two_is_the_row_twice() -> None:
    cells = _noise(12)
    weights = np.random.default_rng(1).integers(1, 3, size=(1, 24)).astype(np.float64)
    twice = np.repeat(np.arange(24), weights[0].astype(int))
    more = Cells(cells.scans.iloc[twice], cells.subject[twice], cells.y[twice], cells.logit[twice], cells.fold[twice])
    for name, metric in METRICS.items():
        np.testing.assert_allclose(
            metric.function(cells, weights), metric.function(more, np.ones((1, len(twice)))), err_msg=name
        )


def test_cells_average_components_as_calibrated_logits() -> None:
    lines = [
        (0, s, st, "", st, "", s, p)
        for s, st, p in [("a", "pre", 0.2), ("a", "pre", 0.6), ("a", "post", 0.9), ("b", "post", 0.5)]
    ]
    table = pd.DataFrame(lines, columns=["repeat", "subject", "session", "run", "state", "site", "fold", "probability"])
    cells = make_cells(table.assign(fold=0), "post")
    found = dict(zip(cells.scans["subject"] + cells.scans["state"], cells.probability[:, 0], strict=True))
    odds = np.log([0.2 / 0.8, 0.6 / 0.4]).mean()
    np.testing.assert_allclose(found["apre"], 1 / (1 + np.exp(-odds)))
    np.testing.assert_allclose([found["apost"], found["bpost"]], [0.9, 0.5])
    assert cells.y.sum() == 2


# --- ordering -----------------------------------------------------------------------------------------------------------


def test_ordering_counts_pairs_and_leaves_single_scans_out() -> None:
    cells = _cells(np.array([1.0, 2.0, 0.0, 5.0]), np.array([0.0, 3.0, 0.0, 1.0]), np.zeros(4, dtype=np.int64))
    found = pair_ordering(cells)
    assert (found.value, found.n_subjects) == (2.5 / 4, 4)
    kept = np.array([0, 1, 2, 3, 4, 5])  # the earlier scans of two subjects are missing
    less = Cells(cells.scans.iloc[kept], cells.subject[kept], cells.y[kept], cells.logit[kept], cells.fold[kept])
    assert (pair_ordering(less).value, pair_ordering(less).n_subjects) == (0.5, 2)
    alone = Cells(cells.scans.iloc[:4], cells.subject[:4], cells.y[:4], cells.logit[:4], cells.fold[:4])
    assert pair_ordering(alone).n_subjects == 0
    assert np.isnan(pair_ordering(alone).value)
    assert swap_p(alone, 100, 0) is None


@settings(max_examples=40, deadline=None)
@given(trials=st.integers(1, 60), data=st.data())
def test_clopper_pearson_is_scipys_exact_interval(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    expected = stats.binomtest(hits, trials).proportion_ci(method="exact")
    np.testing.assert_allclose(clopper_pearson(hits, trials), [expected.low, expected.high], atol=1e-9)


# --- exchanges ----------------------------------------------------------------------------------------------------------


def test_exchanges_stay_within_subjects() -> None:
    cells = _noise(10)
    labels = swapped_labels(cells, 50, 0)
    assert labels.shape == (50, 20)
    for subject in range(10):
        assert (labels[:, cells.subject == subject].sum(1) == 1).all()
    fast = _auc_of_labels(cells, labels)
    expected = [np.mean([sk.roc_auc_score(row, z) for z in cells.logit.T]) for row in labels]
    np.testing.assert_allclose(fast, expected)


def _crossvalidated_null(seed: int, subjects: int = 24, dim: int = 30, folds: int = 4) -> Cells:
    """Scores of a mean-difference classifier in folds by subject, where the states mean nothing."""
    rng = np.random.default_rng([seed, 7])
    x = rng.standard_normal((subjects, 1, dim)) + rng.standard_normal((subjects, 2, dim))
    fold = rng.permutation(subjects) % folds
    score = np.zeros((subjects, 2))
    for number in range(folds):
        train = fold != number
        score[~train] = x[~train] @ (x[train, 0] - x[train, 1]).mean(0)
    return _cells(score[:, 0], score[:, 1], fold)


def test_p_is_uniform_without_an_effect() -> None:
    """Method section 9, test 7. Exchanges with fixed models alone are far too small; see `swap`."""
    p = [swap_p(_crossvalidated_null(seed), 199, seed) for seed in range(200)]
    assert stats.kstest(np.array(p, dtype=np.float64), "uniform").pvalue > 0.01
    assert (np.array(p) <= 0.05).mean() <= 0.09  # 99 % limit of 200 draws at 5 %


def test_a_single_test_set_needs_no_widening_and_an_effect_is_found() -> None:
    rng = np.random.default_rng(0)
    ps = []
    for seed in range(200):
        z = rng.standard_normal((2, 20))
        ps.append(swap_p(_cells(z[0], z[1], np.zeros(20, dtype=np.int64)), 199, seed))
    assert stats.kstest(np.array(ps, dtype=np.float64), "uniform").pvalue > 0.01
    p = swap_p(_noise(30), 999, 0)
    assert p is not None
    assert p <= 0.002
    assert swap_p(_noise(30), 0, 0) is None


def test_holm_is_the_step_down_rule() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


# --- recovery -----------------------------------------------------------------------------------------------------------


def _scores(components: int = 3, subjects: int = 8, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    lines = [
        (
            0,
            s % 2,
            f"s{s}",
            state,
            "",
            state,
            "net",
            c,
            "x",
            1 / (1 + np.exp(-(rng.standard_normal() + (1 if state == "post" else -1)))),
        )
        for s in range(subjects)
        for state in ("post", "pre")
        for c in range(components)
    ]
    columns = ["repeat", "fold", "subject", "session", "run", "state", "network", "component", "site", "probability"]
    return pd.DataFrame(lines, columns=columns)


def test_recovery_is_the_change_of_calibrated_probability() -> None:
    scores = _scores()
    found = recovery_scores(scores, "post").set_index("subject")
    own = scores[scores["subject"] == "s3"]
    value = {state: part["probability"].to_numpy() for state, part in own.groupby("state")}
    mean = {state: 1 / (1 + np.exp(-np.log(p / (1 - p)).mean())) for state, p in value.items()}
    np.testing.assert_allclose(found.loc["s3", ["before", "after"]].to_numpy(float), [mean["pre"], mean["post"]])
    np.testing.assert_allclose(found.loc["s3", "recovery"], mean["post"] - mean["pre"])
    welch = stats.ttest_ind(value["post"], value["pre"], equal_var=False).confidence_interval()
    low, high = found.loc["s3", ["ci_low", "ci_high"]].to_numpy(float)
    np.testing.assert_allclose(high - low, welch.high - welch.low)
    np.testing.assert_allclose((low + high) / 2, found.loc["s3", "recovery"])
    assert found["distance"].isna().all()
    single = recovery_scores(_scores(components=1), "post")
    assert single["ci_low"].isna().all()
    lonely = scores[(scores["subject"] != "s3") | (scores["state"] == "post")]
    assert "s3" not in set(recovery_scores(lonely, "post")["subject"])
    mean_line = mean_recovery(found.reset_index(), 500, 0).iloc[0]
    np.testing.assert_allclose(mean_line["value"], found["recovery"].mean())
    assert mean_line["ci_low"] < mean_line["value"] < mean_line["ci_high"]


def test_recovery_lies_within_its_interval_whatever_the_sizes_of_the_sessions() -> None:
    first = _scores(subjects=2).assign(probability=lambda t: np.where(t["state"] == "post", 0.9, 0.1))
    more = _scores(components=40, subjects=2).query("state == 'post'").assign(session="post-2")
    more["probability"] = 0.05 + 0.01 * np.sin(more["component"])
    first["probability"] += 0.01 * np.cos(first["component"])
    found = recovery_scores(pd.concat([first, more], ignore_index=True), "post")
    assert ((found["ci_low"] < found["recovery"]) & (found["recovery"] < found["ci_high"])).all()
    assert (found["recovery"] > 0.3).all()  # the two later sessions weigh the same


def test_distance_is_between_the_mean_changes_of_a_fold() -> None:
    scores = _scores()
    vectors = np.random.default_rng(1).standard_normal((len(scores), 4))
    table = scores.drop(columns="probability").assign(change=list(vectors))
    found = recovery_scores(scores, "post", table).set_index("subject")
    own = (scores["subject"] == "s5").to_numpy()
    later = own & (scores["state"] == "post").to_numpy()
    expected = np.linalg.norm(vectors[later].mean(0) - vectors[own & ~later].mean(0))
    np.testing.assert_allclose(found.loc["s5", "distance"], expected)


# --- embeddings ---------------------------------------------------------------------------------------------------------


def test_neighbours_are_of_other_subjects() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.0, 1.1], [0.9, 0.1], [0.1, 0.9]])
    later = np.array([True, False, False, True, True, False])
    subject = np.array(["a", "a", "b", "b", "c", "c"])
    np.testing.assert_array_equal(neighbour_scores(vectors, later, subject, k=1), [1, 1, 0, 0, 0, 0])
    assert np.isnan(neighbour_scores(vectors[:2], later[:2], subject[:2], k=1)).all()


def test_shares_of_variance_equal_sums_of_squares_of_a_balanced_design() -> None:
    rng = np.random.default_rng(2)
    network, state, subject = (np.array(x).ravel() for x in np.meshgrid(["a", "b", "c"], ["pre", "post"], list("uvwxyz")))
    vectors = rng.standard_normal((36, 5)) + 2.0 * (network == "a")[:, None] + 0.5 * (state == "pre")[:, None]
    total = ((vectors - vectors.mean(0)) ** 2).sum()
    found = variance_shares(vectors, network, state, subject)

    def between(labels: np.ndarray) -> float:
        return sum(
            (labels == v).sum() * ((vectors[labels == v].mean(0) - vectors.mean(0)) ** 2).sum() for v in np.unique(labels)
        )

    for name, labels in (("network", network), ("subject", subject), ("state", state)):
        np.testing.assert_allclose(found[name][0], between(labels) / total, rtol=1e-9)
    pairs = between(np.char.add(network, state)) - between(network) - between(state)
    np.testing.assert_allclose(found["network × state"][0], pairs / total, rtol=1e-9)
    np.testing.assert_allclose([sum(v for v, _ in found.values()), sum(c for _, c in found.values())], 1)
    np.testing.assert_allclose(found["subject"][1], 5 / 35)


def test_neighbour_auc_pairs_repeats_by_component_not_by_the_order_of_their_lines() -> None:
    scores = _scores(components=2, subjects=12)
    vectors = np.random.default_rng(5).standard_normal((len(scores), 4)) + 0.7 * (scores["state"] == "post").to_numpy()[:, None]
    one = scores.assign(embedding=list(vectors))
    twice = pd.concat([one, one.assign(repeat=1).iloc[::-1]], ignore_index=True)  # the same again, in another order
    auc, both = (space_table(t, "post", draws=300).iloc[0] for t in (one, twice))
    assert auc["measure"] == both["measure"] == "kNN AUC of the state"
    np.testing.assert_allclose(both[["value", "ci_low", "ci_high"]].to_list(), auc[["value", "ci_low", "ci_high"]].to_list())


def test_space_is_measured_within_each_folds_own_space() -> None:
    rng = np.random.default_rng(3)
    scores = _scores(components=1, subjects=20)
    table = pd.concat([scores.assign(network=n) for n in ("net", "other")], ignore_index=True)
    effect = np.where(table["state"] == "post", 2.0, -2.0) * np.where(table["fold"] == 0, 1, -1)  # opposite in the other fold
    vectors = rng.standard_normal((len(table), 6))
    vectors[:, 0] += effect
    vectors[:, 1] += np.where(table["network"] == "net", 5.0, -5.0)
    found = space_table(table.assign(embedding=list(vectors)), "post", draws=200).set_index(["measure", "network"])
    auc = found.loc[("kNN AUC of the state", "net")]
    assert auc["value"] > 0.85
    assert auc["ci_low"] > 0.5
    assert found.loc[("silhouette of the network", ""), "value"] > 0.5
    assert found.loc[("variance with network", ""), "value"] > found.loc[("variance with state", ""), "value"]
    assert WHOLE not in set(table["network"])
