"""Metrics of many columns at once against the same metrics one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from ssl4neuro.evaluate.column_metrics import FAST, HeldColumns, column_metric, column_ranks
from ssl4neuro.evaluate.metrics import METRICS, Metric


def _columns(kind: str, rows: int, columns: int, seed: int, shared: bool) -> HeldColumns:
    rng = np.random.default_rng(seed)
    width = 1 if shared else columns
    if kind == "regression":
        guess = np.round(rng.normal(size=(rows, columns)), 1)  # ties
        return HeldColumns(np.round(rng.normal(size=(rows, width)), 1), guess[:, :, None] - 3, guess)
    classes = 2 if kind == "binary" else 4
    truth = rng.integers(0, classes, (rows, width)).astype(float)
    values = np.round(rng.normal(size=(rows, columns, 1 if classes == 2 else classes)), 1)
    return HeldColumns(truth, values, (values[:, :, 0] > 0).astype(int) if classes == 2 else values.argmax(2))


@given(
    kind=st.sampled_from(["binary", "multiclass", "regression"]), rows=st.integers(2, 40), columns=st.integers(1, 6),
    seed=st.integers(0, 10_000), shared=st.booleans(),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_equal_the_plain_metrics_column_by_column(kind: str, rows: int, columns: int, seed: int, shared: bool) -> None:
    held = _columns(kind, rows, columns, seed, shared)
    for name, metric in METRICS[kind].items():
        assert name in FAST
        plain = [metric.function(held.column(i), np.ones((1, rows)))[0] for i in range(columns)]
        np.testing.assert_allclose(column_metric(kind, name, held), plain, rtol=1e-9, atol=1e-9)


@given(seed=st.integers(0, 10_000), decimals=st.integers(0, 8))
@settings(max_examples=50, deadline=None)
def test_ranks_are_mid_ranks(seed: int, decimals: int) -> None:
    values = np.round(np.random.default_rng(seed).normal(size=(17, 5)), decimals)
    np.testing.assert_array_equal(column_ranks(values), rankdata(values, axis=0).T)


def test_a_metric_without_a_fast_form_is_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    held = _columns("binary", 12, 3, 0, shared=True)
    share = Metric(lambda h, w: w @ (h.decision == h.truth) / w.sum(1), lambda classes: None)
    monkeypatch.setitem(METRICS["binary"], "accuracy", share)
    np.testing.assert_allclose(column_metric("binary", "accuracy", held), (held.decision == held.truth).mean(0))
