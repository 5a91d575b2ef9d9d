"""The probe from disk to results folder, its refusals, and that nothing of a test fold reaches the fit."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ssl4neuro.data.embeddings import Embeddings
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.probe import ProbeResult, probe, probe_arrays
from ssl4neuro.evaluate.results import render

FAST = {"permutations": 19, "bootstrap": 50}


def _names(result: ProbeResult) -> list[str]:
    return list(dict.fromkeys(row.name for row in result.rows))


def test_state_probe_writes_a_complete_folder(tiny: SimpleNamespace, tmp_path: Path) -> None:
    result = probe(tiny.path, target="state", out=tmp_path / "results", **FAST)
    assert result.unit == "session"
    assert result.classes == ("pre", "post")  # the reference first, so that `post` is the positive class
    from_scans = ["FNC", "tangent connectivity", "band power", "course quality", "PCA"]
    assert _names(result) == ["joint", *[f"{name} + logistic" for name in from_scans], "nuisance only", "majority"]
    assert result.permutation == "within subjects"
    assert result.row("joint").value > 0.9
    assert result.row("FNC + logistic").value > 0.8  # coupled courses in `post`
    assert result.row("majority").value == 0.5
    for row in result.rows:
        assert (row.n_subjects, row.n_samples, row.unit) == (8, 16, "session")  # 4 of 12 subjects were seen
        assert row.ci_low <= row.value <= row.ci_high
    assert {p.name for p in (tmp_path / "results").iterdir()} == {
        "results.json", "predictions.tsv", "table.md", "table.csv", "estimates.png", "confusion.png", "comparison.tsv",
        "delong.tsv",
    }  # fmt: skip
    record = json.loads((tmp_path / "results" / "results.json").read_text())
    assert record["rows"][0]["value"] == result.rows[0].value
    assert record["source"]["checkpoint_sha256"] == "0" * 64
    predictions = pd.read_csv(tmp_path / "results" / "predictions.tsv", sep="\t")
    assert not set(predictions["subject"]) & tiny.seen
    assert not predictions["seen"].any()
    counts = predictions.groupby("model").size()
    assert (counts == 16).all()
    assert predictions.groupby("subject")["fold"].nunique().max() == 1
    same = predictions.groupby(["subject", "session"])["fold"].nunique()
    assert same.max() == 1  # one set of folds for all models
    text = render(result)
    assert "8 subjects, 16 sessions" in text
    assert "95 % CI" in text
    with pytest.raises(UserError, match="exists already"):
        probe(tiny.path, target="state", out=tmp_path / "results", **FAST)


def test_network_probe_of_components(tiny: SimpleNamespace) -> None:
    result = probe(tiny.path, target="network", out=None, column="all", probe="knn", **FAST)
    assert result.unit == "sample"
    assert _names(result) == ["map", "joint", "PCA + logistic", "template correlation", "band power + logistic", "majority"]
    assert result.permutation == "within scans"
    assert result.row("map").value > 0.95
    assert result.row("template correlation").value > 0.95
    assert result.row("majority", "balanced accuracy").value == pytest.approx(1 / 3)
    assert result.row("map").n_samples == 8 * 2 * 6
    assert np.array(result.confusion["map"]).sum() == 8 * 2 * 6


def test_age_is_regressed_at_subject_level(tiny: SimpleNamespace, tmp_path: Path) -> None:
    result = probe(tiny.path, target="age", out=tmp_path / "age", site="scanner", repeats=2, **FAST)
    assert (result.task, result.unit, result.permutation) == ("regression", "subject", "between subjects of the same site")
    assert {row.metric for row in result.rows} == {"R2", "MAE", "Spearman"}
    assert "FNC + ridge" in _names(result)
    assert "training mean" in _names(result)
    assert len(result.predictions.query("model == 'joint'")) == 16  # 8 subjects, two repeats
    assert not (tmp_path / "age" / "confusion.png").exists()
    record = json.loads((tmp_path / "age" / "results.json").read_text())
    assert any("component" in note for note in record["notes"])


def test_leave_site_out_tests_each_site_on_the_others(tiny: SimpleNamespace) -> None:
    result = probe(tiny.path, target="state", out=None, site="scanner", leave_site_out=True, baselines=False, **FAST)
    table = Embeddings.open(tiny.path).table("subject").set_index("subject")["scanner"]
    lines = result.predictions.query("model == 'joint'")
    assert lines.groupby(table[lines["subject"]].to_numpy())["fold"].nunique().tolist() == [1, 1]
    assert lines["fold"].nunique() == 2


def test_overlap_stops_or_is_stamped(tiny: SimpleNamespace, tmp_path: Path) -> None:
    """With everyone seen there is nobody to test."""
    opened = Embeddings.open(tiny.path)
    table = opened.table("session")
    vectors = opened.matrix("session", "joint")
    seen = np.ones(len(table), dtype=bool)
    with pytest.raises(UserError, match=r"12 of 12 labelled subjects were seen in pretraining \(sub-00, .*--allow-overlap"):
        probe_arrays({"x": vectors}, table["state"].to_numpy(), table["subject"].to_numpy(), seen=seen, **FAST)
    result = probe(tiny.path, target="state", out=tmp_path / "stamped", baselines=False, allow_overlap=True, **FAST)
    stamp = "overlap: 4 of 12 test subjects were seen in pretraining"
    assert result.stamp == stamp
    assert stamp in render(result)
    assert stamp in (tmp_path / "stamped" / "table.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "stat"}, "did you mean 'state'"),
        ({"target": "state", "unit": "subject"}, "'state' is no property of a subject; use --unit session"),
        ({"target": "state", "column": "jont"}, "no embedding 'jont'.*did you mean 'joint'"),
        ({"target": "state", "probe": "liner"}, "unknown name 'liner'.*did you mean 'linear'"),
        ({"target": "state", "site": "scaner"}, "did you mean 'scanner'"),
        ({"target": "state", "leave_site_out": True}, "name the column with --site"),
        ({"target": "state", "folds": 1}, "folds: must be at least 2"),
        ({"target": "state", "positive": "after"}, "no value 'after'"),
        ({"target": "subject"}, "no column 'subject'"),
        ({"target": "state", "task": "regression"}, "not numeric"),
        ({"target": "age", "task": "multiclass"}, "occur in one subject only"),
    ],
)
def test_mistakes_are_one_clear_line(tiny: SimpleNamespace, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        probe(tiny.path, out=tmp_path / "out", baselines=False, **{**FAST, **options})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def _arrays(n: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(2 * n, 5)).astype(np.float32), np.tile([0, 1], n), np.repeat(np.arange(n), 2)


@pytest.mark.parametrize(
    ("y", "subjects", "message"),
    [
        (["a"] * 6, list("112233"), "all rows have the same value"),
        (["a", "b"] * 3, list("111111"), "only one subject"),
        (["a", "a", "a", "b", "b", "b"], list("112333"), "one subject only"),
        ([None] * 6, list("112233"), "no row has a value"),
    ],
)
def test_too_little_to_learn_from(y: list[Any], subjects: list[str], message: str) -> None:
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    with pytest.raises(UserError, match=message):
        probe_arrays({"x": x}, np.array(y, dtype=object), subjects, **FAST)


def test_missing_labels_and_rare_classes_are_counted() -> None:
    x, _, subjects = _arrays()
    y = np.array(["a", "b", "c"] * 8, dtype=object)
    y[subjects == 3], y[subjects == 4] = None, "rare"
    result = probe_arrays({"x": x}, y, subjects, **FAST)
    assert result.notes == ("2 of 24 rows have no 'label' and were left out", "classes of one subject only were left out: rare")
    assert result.row("x").n_samples == 20


@pytest.mark.parametrize("name", ["linear", "knn"])
def test_a_test_row_changes_no_other_prediction_of_its_fold(name: str) -> None:
    """Scaling, penalty and weights of a fold come from its training rows: an outlier in it moves only itself."""
    x, y, subjects = _arrays()
    options = {"folds": 3, "permutations": 0, "bootstrap": 0, "probe": name}
    before = probe_arrays({"x": x}, y, subjects, **options).predictions.query("model == 'x'").reset_index(drop=True)
    moved = x.copy()
    moved[0] += 100
    after = probe_arrays({"x": moved}, y, subjects, **options).predictions.query("model == 'x'").reset_index(drop=True)
    mine = before["fold"] == before["fold"][before["session"] == "0"].iloc[0]
    others = mine & (before["session"] != "0")
    np.testing.assert_allclose(before["score 1"][others], after["score 1"][others], rtol=1e-4, atol=1e-5)
    assert not np.allclose(before["score 1"][~mine], after["score 1"][~mine], rtol=1e-3)  # where it trains, it matters


def test_a_duplicated_subject_gains_nothing() -> None:
    """Rows copied within their subject stay in its fold: random labels remain unpredictable for 1-NN."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 6)).astype(np.float32), np.arange(30) % 2
    twice = np.repeat(np.arange(30), 2)
    result = probe_arrays({"x": x[twice]}, y[twice], twice, probe="knn", permutations=99, bootstrap=50)
    assert result.row("x").value < 0.7
    leaky = probe_arrays({"x": x[twice]}, y[twice], np.arange(60), probe="knn", permutations=0, bootstrap=0)
    assert leaky.row("x").value > 0.8  # the same rows under other names: what grouping prevents


def test_results_are_a_function_of_the_seed() -> None:
    x, y, subjects = _arrays()
    one, same, other = (probe_arrays({"x": x}, y, subjects, seed=seed, **FAST) for seed in (1, 1, 2))
    assert one.rows == same.rows
    assert one.rows != other.rows


def test_seen_subjects_train_but_are_not_tested() -> None:
    x, y, subjects = _arrays()
    x[:, 0] += 4 * y
    seen = subjects < 9
    few = probe_arrays({"x": x}, y, subjects, seen=seen, folds=5, **FAST)
    assert few.row("x").n_subjects == 3
    assert few.notes == ("only 3 subjects are tested: read the intervals as a rough guide",)
    assert few.predictions["fold"].nunique() == 3  # leave one subject out
    assert few.row("x").value > 0.9  # two subjects alone could not teach this


def test_a_class_whose_people_were_all_seen_is_left_out_or_stops_the_probe() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(["NOR", "DCM", "HCM"], 8)
    x = (rng.normal(size=(24, 6)) + 2 * np.eye(6)[np.unique(groups, return_inverse=True)[1]]).astype(np.float32)
    subjects = np.arange(24)
    seen = (groups == "HCM") | (subjects % 4 == 0)
    result = probe_arrays({"x": x}, groups, subjects, seen=seen, unit="subject", **FAST)
    assert set(result.classes) == {"NOR", "DCM"}
    assert any("left out: HCM; hold out more subjects" in note for note in result.notes)
    assert result.row("x").n_subjects == 12
    whole = probe_arrays({"x": x}, groups, subjects, seen=seen, unit="subject", allow_overlap=True, **FAST)
    assert len(whole.classes) == 3
    two = groups != "DCM"
    with pytest.raises(UserError, match="no unseen subject has 'label' = 'HCM'"):
        probe_arrays({"x": x[two]}, groups[two], subjects[two], seen=seen[two], unit="subject", **FAST)
