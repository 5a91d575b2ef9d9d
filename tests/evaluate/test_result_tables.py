"""Metrics by site, difference from the best baseline, DeLong's interval, probabilities, equivalence and what it is called."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from ssl4neuro.evaluate.crossval import Row
from ssl4neuro.evaluate.probe import ProbeResult, probe_arrays
from ssl4neuro.evaluate.results import render
from ssl4neuro.evaluate.statistics import bootstrap_interval, equivalence_p
from ssl4neuro.evaluate.verdict import verdict


@cache
def _result(**options) -> ProbeResult:
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(30), 2)
    y = np.where(who % 2, "patient", "control")
    x = rng.normal(size=(60, 4))
    x[:, 0] += 1.5 * (who % 2)
    sites = np.array(["Kiel", "Lund", "Oulu"])[who // 2 % 3]
    baselines = {"weak": x[:, 1:], "stronger": x[:, :1] + rng.normal(size=(60, 1))}
    return probe_arrays(
        {"new": x}, y, who, sites=sites, baselines=baselines, **{"permutations": 19, "bootstrap": 100, **options}
    )


def test_each_site_has_its_metric_and_interval() -> None:
    result = _result(repeats=2)
    table, lines = result.tables["sites"], result.predictions
    assert set(lines["site"]) == {"Kiel", "Lund", "Oulu"}
    assert len(table) == 4 * 3 * 3  # models, sites, metrics
    one = table[(table["model"] == "new") & (table["site"] == "Lund") & (table["metric"] == "AUC")].iloc[0]
    own = lines[(lines["model"] == "new") & (lines["site"] == "Lund")]
    by_repeat = [roc_auc_score(part["truth"] == "patient", part["score patient"]) for _, part in own.groupby("repeat")]
    assert one["value"] == pytest.approx(np.mean(by_repeat))
    assert one["ci_low"] <= one["value"] <= one["ci_high"]
    assert one["n_subjects"] == 10
    left_out = _result(leave_site_out=True)
    assert left_out.predictions.groupby("site")["fold"].nunique().eq(1).all()
    rng = np.random.default_rng(0)
    plain = probe_arrays({"x": rng.normal(size=(20, 3))}, np.arange(20) % 2, np.arange(20), permutations=0, bootstrap=0)
    assert "sites" not in plain.tables
    assert "site" not in plain.predictions


def test_every_metric_is_compared_with_the_baseline_that_is_best_in_it() -> None:
    result = _result()
    table = result.tables["comparison"].set_index("metric")
    for metric in ("AUC", "balanced accuracy", "F1"):
        values = {name: result.row(name, metric).value for name in ("weak", "stronger")}
        assert table.loc[metric, "baseline"] == max(values, key=lambda name: values[name])
        assert table.loc[metric, "difference"] == pytest.approx(result.row("new", metric).value - max(values.values()))
        assert table.loc[metric, "ci_low"] <= table.loc[metric, "difference"] <= table.loc[metric, "ci_high"]
        assert 0.05 <= table.loc[metric, "p"] * 20 <= 20
    assert "new less stronger, the best baseline: AUC" in render(result)
    assert np.isnan(_result(permutations=0).tables["comparison"]["p"]).all()


def test_delong_stands_beside_the_bootstrap() -> None:
    result = _result(bootstrap=1000)
    line = result.tables["delong"].set_index("model").loc["new"]
    row = result.row("new")
    assert line["auc"] == pytest.approx(row.value)
    assert (line["ci_low"], line["ci_high"]) == (pytest.approx(row.ci_low, abs=0.06), pytest.approx(row.ci_high, abs=0.06))
    assert "majority" not in result.tables["delong"]["model"].tolist()


def test_probabilities_are_the_models_own_and_missing_where_there_are_none() -> None:
    lines = _result().predictions.set_index("model")
    own = lines.loc["new", ["probability control", "probability patient"]].to_numpy()
    np.testing.assert_allclose(own.sum(1), 1, atol=1e-6)
    assert roc_auc_score(lines.loc["new", "truth"] == "patient", own[:, 1]) > 0.7
    ridge = _result(probe="ridge").predictions
    assert ridge.loc[ridge["model"] == "new", ["probability control", "probability patient"]].isna().all(axis=None)
    rng = np.random.default_rng(1)
    who = np.arange(45)
    three = probe_arrays(
        {"x": rng.normal(size=(45, 3)) + np.eye(3)[who % 3]}, np.array(list("abc"))[who % 3], who, permutations=0, bootstrap=0
    ).predictions
    values = three.loc[three["model"] == "x", [f"probability {name}" for name in "abc"]].to_numpy()
    np.testing.assert_allclose(values.sum(1), 1, atol=1e-5)


def test_equivalence_of_a_mean_is_that_of_two_t_tests() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(0.02, 0.2, 40)
    found = bootstrap_interval(lambda w: w @ x / w.sum(1), np.arange(40), draws=40_000)
    error = x.std(ddof=1) / np.sqrt(40)
    sides = [stats.t.sf((x.mean() + 0.1) / error, 39), stats.t.cdf((x.mean() - 0.1) / error, 39)]
    assert equivalence_p(found, 0.0, 0.1) == pytest.approx(max(sides), rel=0.3)
    assert equivalence_p(found, 0.0, 10.0) < 0.001
    assert equivalence_p(found, 5.0, 0.1) == 1.0
    assert np.isnan(equivalence_p(bootstrap_interval(lambda w: w @ x / w.sum(1), np.arange(40), draws=0), 0.0, 0.1))


def test_equivalence_is_tested_where_a_margin_means_something() -> None:
    result = _result()
    assert result.row("new", "AUC").p_equivalence > 0.05
    assert result.row("new", "balanced accuracy").p_equivalence is not None
    assert result.row("new", "F1").p_equivalence is None
    assert result.row("majority", "AUC").p_equivalence is None
    assert _result(equivalence_margin=0.0).row("new").p_equivalence is None
    age = probe_arrays({"x": np.eye(20)}, np.arange(20.0), np.arange(20), task="regression", permutations=0, bootstrap=50)
    assert all(row.p_equivalence is None for row in age.rows)


def test_the_verdict_tells_absence_of_evidence_from_equivalence() -> None:
    row = Row("x", False, "AUC", 0.6, 0.5, 0.7, 0.2, 0.5, 20, 20, "subject", p_equivalence=0.3)
    assert verdict(row, 0.1) == "no evidence of an effect"
    assert verdict(replace(row, p_equivalence=0.01), 0.1) == "equivalent to chance within ±0.1"
    assert verdict(replace(row, p=0.01), 0.1) == "evidence of an effect"
    assert verdict(replace(row, p=0.01, p_equivalence=0.01), 0.1) == "evidence of an effect, smaller than 0.1 above chance"
    assert verdict(replace(row, p=0.01, p_corrected=0.2), 0.1) == "no evidence of an effect"
    assert verdict(replace(row, p=None), 0.1) == "not tested"
    assert "new: evidence of an effect (AUC)" in render(_result())
    assert pd.notna(_result().row("new").p)
