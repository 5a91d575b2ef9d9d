"""Stage two in one fold: calibration, choice of penalty and epochs, no leakage, and what head and reference find."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.network_state import FoldScores, InnerSplit, StageTwo, score_encoder, score_fold, study_items
from ssl4neuro.evaluate.network_state.calibrate import calibrated
from ssl4neuro.evaluate.network_state.head import HeadScorer
from ssl4neuro.evaluate.network_state.items import WHOLE
from ssl4neuro.evaluate.network_state.logistic import LogisticScorer
from ssl4neuro.evaluate.network_state.part import Part, cell_loss, make_part
from ssl4neuro.evaluate.network_state.platt import Platt, fit_platt
from ssl4neuro.heads.network_state import HeadConfig

FAST = StageTwo(head=HeadConfig(hidden=8, epochs=12, patience=3, ensemble=1), components=4, penalties=(0.3, 3.0))


def _items(subjects: int, networks: tuple[str, ...] = ("a", "b"), components: int = 1) -> pd.DataFrame:
    lines = [
        (f"s{s:02d}", state, "", "x", network, c + 1, state, int(state == "post"))
        for s in range(subjects)
        for state in ("post", "pre")
        for network in networks
        for c in range(components)
    ]
    columns = ["subject", "session", "run", "site", "network", "component", "state", "y"]
    return pd.DataFrame(lines, columns=columns).assign(row=np.arange(len(lines)))


def _part(items: pd.DataFrame, x: np.ndarray, first: int, embedded: int = 0) -> Part:
    """The first subjects train, the others are tested."""
    code = pd.factorize(items["subject"])[0]
    return make_part(items, ArrayFeatures(x), np.flatnonzero(code < first), np.flatnonzero(code >= first), embedded)


# --- calibration --------------------------------------------------------------------------------------------------------


def test_platt_finds_the_scale_of_the_logits() -> None:
    rng = np.random.default_rng(0)
    true = 1.5 * rng.standard_normal(4000)
    y = (rng.random(4000) < expit(true)).astype(np.int64)
    found = fit_platt((true - 0.7) / 3, y)
    np.testing.assert_allclose([found.slope, found.intercept], [3, 0.7], atol=0.25)
    np.testing.assert_allclose(found(np.array([0.0, 1.0])), [found.intercept, found.intercept + found.slope])


def test_platt_equals_logistic_regression_on_its_smoothed_targets() -> None:
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], 40)
    z = y + rng.standard_normal(80)
    found = fit_platt(z, y)
    weight = np.concatenate([np.full(80, 41 / 42), np.full(80, 1 / 42)])
    model = LogisticRegression(C=1e6).fit(np.tile(z, 2)[:, None], np.concatenate([y, 1 - y]), sample_weight=weight)
    np.testing.assert_allclose([found.slope, found.intercept], [model.coef_[0, 0], model.intercept_[0]], rtol=0.03, atol=0.01)


def test_calibration_never_reverses_and_never_explodes() -> None:
    rng = np.random.default_rng(2)
    y = np.repeat([0, 1], 20)
    assert fit_platt(-(y + 0.1 * rng.standard_normal(40)), y).slope > 0
    assert fit_platt(2.0 * y - 1 + 0.01 * rng.standard_normal(40), y).slope < 10
    assert fit_platt(np.zeros(40), y) == Platt()
    prior = Platt(2.0, 0.5)
    assert fit_platt(np.ones(3), np.ones(3, dtype=np.int64), prior) == prior
    few = fit_platt(rng.standard_normal(4), np.array([0, 1, 0, 1]), prior)  # little data stays near the others
    assert 1 < few.slope < 3


def test_probability_of_the_whole_brain_combines_the_networks() -> None:
    items = _items(40)
    rng = np.random.default_rng(3)
    logit = (2.0 * items["y"].to_numpy() - 1) + rng.standard_normal(len(items))
    code = pd.factorize(items["subject"])[0]
    held, test = np.flatnonzero(code < 20), np.flatnonzero(code >= 20)
    table, record = calibrated(items, test, logit[test], [held], [logit[held]])
    whole = table[table["network"] == WHOLE]
    assert len(whole) == 40
    assert set(whole["component"]) == {-1}
    assert set(record) == {"a", "b", WHOLE}
    for _, line in whole.head(6).iterrows():
        own = table[(table["subject"] == line["subject"]) & (table["state"] == line["state"]) & (table["network"] != WHOLE)]
        expected = np.log(own["probability"] / (1 - own["probability"])).mean()
        np.testing.assert_allclose(line["logit"], expected, rtol=1e-6)
    brier = ((whole["probability"] - (whole["state"] == "post")) ** 2).mean()
    assert brier < ((table["probability"] - (table["state"] == "post")) ** 2)[table["network"] != WHOLE].mean()


def test_without_inner_splits_nothing_is_calibrated() -> None:
    items = _items(4)
    test = np.arange(len(items))
    logit = np.linspace(-2, 2, len(items))
    table, _ = calibrated(items, test, logit, [], [])
    np.testing.assert_allclose(table["probability"][: len(items)], expit(logit))


# --- scorers ------------------------------------------------------------------------------------------------------------


def test_logistic_is_scikit_learns_per_network() -> None:
    items = _items(20)
    x = np.random.default_rng(4).standard_normal((len(items), 6)).astype(np.float32)
    part = _part(items, x, 14)
    z = LogisticScorer().score(part, {"penalty": 0.5, "weight": 1.0})
    a, b = part.network == 1, part.network_test == 1
    model = LogisticRegression(C=0.5).fit(part.train[a], part.y[a])
    np.testing.assert_allclose(z[b], model.decision_function(part.test[b]), atol=1e-4)


def test_logistic_distrusts_an_embedding_that_knows_only_its_training_subjects() -> None:
    items = _items(60)
    rng = np.random.default_rng(5)
    y = 2.0 * items["y"].to_numpy() - 1
    honest = 0.8 * y[:, None] + rng.standard_normal((len(items), 4))
    code = pd.factorize(items["subject"])[0]
    known = np.where((code < 40)[:, None], y[:, None] * 2, 0) + rng.standard_normal((len(items), 12))
    x = np.column_stack([known / 12**0.5, honest / 2]).astype(np.float32)
    part = _part(items, x, 40, embedded=12)
    chosen, held = LogisticScorer().choose([part])
    assert chosen["weight"] == 0.1
    naive = LogisticScorer().score(part, {"penalty": chosen["penalty"], "weight": 1.0})
    assert cell_loss(part, held[0]) < cell_loss(part, naive)


@pytest.mark.parametrize("heads", ["per network", "shared"])
def test_head_learns_is_deterministic_and_leaves_torch_alone(heads: str) -> None:
    import torch

    items = _items(60)
    rng = np.random.default_rng(6)
    x = (1.2 * (2.0 * items["y"].to_numpy() - 1)[:, None] + rng.standard_normal((len(items), 5))).astype(np.float32)
    part = _part(items, x, 44)
    scorer = HeadScorer(HeadConfig(hidden=16, epochs=25, ensemble=1, rate=5e-3), heads)  # type: ignore[arg-type]
    options, held = scorer.choose([part], seed=3)
    before = torch.get_rng_state()
    z, again = scorer.score(part, options, seed=3), scorer.score(part, options, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(z, again)
    np.testing.assert_allclose(z, held[0], atol=1e-6)  # the kept logits are those of the chosen epoch
    assert ((z > 0) == part.y_test).mean() > 0.9
    assert not np.allclose(z, scorer.score(part, options, seed=4))


# --- a fold -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort(make_cohort: Callable[..., Cohort], tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("fold") / "cohort", subjects=12)


def _fold(cohort: Cohort, embedding: np.ndarray | None = None, **options: object) -> tuple[pd.DataFrame, FoldScores]:
    items = study_items(cohort)
    code = pd.factorize(items["subject"])[0]
    if embedding is None:
        embedding = np.random.default_rng(0).standard_normal((len(items), 6)).astype(np.float32)
        embedding[:, 0] += 2 * items["y"]
    train, test, held = np.flatnonzero(code < 9), np.flatnonzero(code >= 9), np.flatnonzero((code >= 6) & (code < 9))
    inner = [InnerSplit(np.flatnonzero(code < 6), held, embedding)]
    return items, score_fold(cohort, items, embedding, train, test, inner, config=FAST, repeat=1, fold=2, **options)  # type: ignore[arg-type]


def test_a_fold_has_every_model_and_every_held_out_component(cohort: Cohort) -> None:
    items, found = _fold(cohort, change=np.ones((96, 2), dtype=np.float32))
    expected = ["repeat", "fold", "model", "baseline", "subject", "session", "run", "state", "network", "component", "site"]
    assert list(found.scores.columns) == [*expected, "logit", "probability"]
    models = found.scores.drop_duplicates("model").set_index("model")["baseline"].to_dict()
    assert models == {"network state": False, "logistic": False, "compact features": True, "template + band power": True}
    for _, own in found.scores.groupby("model"):
        assert (own["network"] == WHOLE).sum() == 6
        assert (own["network"] != WHOLE).sum() == 24
    assert set(found.scores["subject"]) == {"sub-09", "sub-10", "sub-11"} == set(found.embeddings["subject"])
    assert set(found.scores["repeat"]) == {1}
    assert set(found.scores["fold"]) == {2}
    assert len(found.embeddings) == 24
    assert len(found.embeddings["change"].iloc[0]) == 2
    assert len(found.scans) == 6
    assert found.record["test_subjects"] == 3
    assert np.isfinite(found.scores[["logit", "probability"]].to_numpy()).all()
    assert len(items) == 96


def test_labels_and_embeddings_of_the_held_out_subjects_change_nothing_that_is_fitted(cohort: Cohort) -> None:
    items = study_items(cohort)
    code = pd.factorize(items["subject"])[0]
    embedding = np.random.default_rng(0).standard_normal((len(items), 6)).astype(np.float32)
    _, one = _fold(cohort, embedding)
    spoiled = embedding.copy()
    spoiled[code == 11] = 1e3
    _, other = _fold(cohort, spoiled)
    assert one.record == other.record
    same = one.scores["subject"] != "sub-11"
    pd.testing.assert_frame_equal(one.scores[same], other.scores[same])
    flipped = items.assign(y=np.where(code >= 9, 1 - items["y"], items["y"]))
    train, test = np.flatnonzero(code < 9), np.flatnonzero(code >= 9)
    left, right = (score_fold(cohort, table, embedding, train, test, [], config=FAST) for table in (items, flipped))
    np.testing.assert_array_equal(left.scores["logit"], right.scores["logit"])


def test_folds_that_leak_are_refused(cohort: Cohort) -> None:
    items = study_items(cohort)
    code = pd.factorize(items["subject"])[0]
    embedding = np.zeros((len(items), 2), dtype=np.float32)
    train, test = np.flatnonzero(code < 9), np.flatnonzero(code >= 8)
    with pytest.raises(UserError, match="outer fold: 1 subjects train and are tested"):
        score_fold(cohort, items, embedding, train, test, [])
    test = np.flatnonzero(code >= 9)
    with pytest.raises(UserError, match="reaches beyond the outer training rows"):
        score_fold(cohort, items, embedding, train, test, [InnerSplit(train, test, embedding)])
    with pytest.raises(UserError, match="all training rows have one state"):
        score_fold(cohort, items, embedding, np.flatnonzero((code < 9) & (items["y"] == 1)), test, [])


def test_a_missing_modality_leaves_finite_scores(
    make_cohort: Callable[..., Cohort], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Method section 9, test 6: courses without maps."""
    courses = make_cohort(tmp_path_factory.mktemp("courses") / "cohort", subjects=12, maps=False)
    _, found = _fold(courses)
    assert np.isfinite(found.scores[["logit", "probability"]].to_numpy()).all()
    assert "template + band power" not in set(found.scores["model"])


def test_another_encoder_in_the_same_fold(cohort: Cohort) -> None:
    items = study_items(cohort)
    code = pd.factorize(items["subject"])[0]
    embedding = np.random.default_rng(1).standard_normal((len(items), 3)).astype(np.float32)
    train, test = np.flatnonzero(code < 9), np.flatnonzero(code >= 9)
    scores = score_encoder(cohort, items, embedding, train, test, [], model="map only", baseline=True, config=FAST)
    assert set(scores["model"]) == {"map only"}
    assert scores["baseline"].all()
    assert len(scores) == 24 + 6
