"""Two models on the same rows: the plain loop over all exchanges, and folders that cannot be paired."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from ssl4neuro.cli import main
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.compare import paired_difference
from ssl4neuro.evaluate.compare_results import compare_results, render, write
from ssl4neuro.evaluate.metrics import Held
from ssl4neuro.evaluate.probe import probe_arrays
from ssl4neuro.evaluate.results import record
from ssl4neuro.evaluate.statistics import delong, delong_p


def _pair(people: int = 8, seed: int = 0) -> tuple[Held, Held, np.ndarray]:
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), 2)
    y = (who % 2).astype(float)
    a, b = (np.round(rng.normal(size=(len(who), 1)) + gain * y[:, None], 1) for gain in (1.5, 0.3))
    return Held(y, a, (a[:, 0] > 0).astype(int)), Held(y, 100 * b, (b[:, 0] > 0).astype(int)), who


@pytest.mark.parametrize("metric", ["AUC", "balanced accuracy"])
def test_equals_the_loop_over_all_exchanges(metric: str) -> None:
    a, b, who = _pair()
    found = paired_difference("binary", metric, [a], [b], who, names=("a", "b"), draws=300)
    ranks = [rankdata(h.values[:, 0]) for h in (a, b)]
    answers = ranks if metric == "AUC" else [h.decision for h in (a, b)]
    score = roc_auc_score if metric == "AUC" else balanced_accuracy_score
    null = []
    for swap in itertools.product([False, True], repeat=8):
        moved = np.array(swap)[who]
        one, two = (np.where(moved, answers[1 - i], answers[i]) for i in (0, 1))
        null.append(abs(score(a.truth, one) - score(a.truth, two)))
    assert found.exact
    assert found.p == pytest.approx(np.mean(np.array(null) >= null[0] - 1e-9))
    assert found.value == pytest.approx(score(a.truth, a.values[:, 0] if metric == "AUC" else a.decision))
    assert found.difference == pytest.approx(found.value - found.value_other)
    assert found.ci_low < found.difference < found.ci_high
    assert (found.n_subjects, found.n_samples) == (8, 16)
    other = paired_difference("binary", metric, [b], [a], who, names=("b", "a"), draws=300)
    assert (other.p, other.difference) == (found.p, pytest.approx(-found.difference))


def test_repeats_share_exchanges_and_delong_stands_beside() -> None:
    a, b, who = _pair(people=30)
    once = paired_difference("binary", "AUC", [a], [b], who, names=("a", "b"), draws=200, permutations=499)
    twice = paired_difference("binary", "AUC", [a, a], [b, b], who, names=("a", "b"), draws=200, permutations=499)
    assert (once.p, once.ci_low) == (twice.p, pytest.approx(twice.ci_low))
    assert not once.exact
    scores = np.concatenate([a.values, b.values], axis=1)
    assert once.p_delong == twice.p_delong == pytest.approx(delong_p(delong(a.truth == 1, scores, who)))
    assert once.p == pytest.approx(once.p_delong, abs=0.03)
    same = paired_difference("binary", "AUC", [a], [a], who, names=("a", "a"), draws=50, permutations=99)
    assert (same.difference, same.p, same.p_delong, same.ci_low, same.ci_high) == (0, 1, 1, 0, 0)


def test_regression_exchanges_predicted_values() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(50, 10, 40)
    helds = [Held(truth, guess[:, None], guess) for guess in (truth + rng.normal(0, s, 40) for s in (3, 9))]
    for metric, sign in (("MAE", -1), ("R2", 1)):
        found = paired_difference("regression", metric, helds[:1], helds[1:], np.arange(40), names=("a", "b"), permutations=999)
        assert sign * found.difference > 0
        assert found.p <= 0.005
        assert found.ci_low > 0 or found.ci_high < 0
        assert found.p_delong is None


def _folder(out: Path, gain: float = 1.0, drop: int = 0, flip: bool = False, regression: bool = False, **options) -> Path:
    rng = np.random.default_rng(7)
    who = np.repeat(np.arange(24), 2)
    y = rng.normal(size=24) if regression else (np.arange(24) % 2).astype(float)
    x = rng.normal(size=(48, 4)) + np.random.default_rng(int(10 * gain)).normal(size=(48, 4))
    x[:, 0] += 2 * gain * y[who]
    if flip:
        y[[4, 5]] = y[[5, 4]]
    kept = who >= drop
    names = np.array([f"sub-{i:02d}" for i in who])[kept]
    labels = y[who][kept] if regression else np.where(y[who] > 0, "patient", "control")[kept]
    result = probe_arrays(
        {"new": x[kept].astype(np.float32)}, labels, names, baselines={"old": x[kept, 1:].astype(np.float32)}, bootstrap=50,
        permutations=9, task="regression" if regression else None, **options,
    )  # fmt: skip
    out.mkdir()  # what `write_results` writes, without the figures
    (out / "results.json").write_text(json.dumps(record(result)))
    result.predictions.to_csv(out / "predictions.tsv", sep="\t", index=False)
    result.tables["comparison"].to_csv(out / "comparison.tsv", sep="\t", index=False)
    return out


def test_folders_are_compared_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = _folder(tmp_path / "a", repeats=2), _folder(tmp_path / "b", gain=0.2, repeats=2)
    found = compare_results(a, b, draws=200, permutations=199)
    row = found.rows[0]
    assert [r.metric for r in found.rows] == ["AUC", "balanced accuracy", "F1"]
    assert (row.model, row.other, row.n_subjects, row.n_samples) == ("new (a)", "new (b)", 24, 48)
    for folder, value in ((a, row.value), (b, row.value_other)):
        stored = next(r for r in json.loads((folder / "results.json").read_text())["rows"] if r["metric"] == "AUC")
        assert value == pytest.approx(stored["value"])
    assert row.p <= 0.05
    assert "new (a)" in render(found)
    assert "random exchanges" in render(found)
    written = json.loads(write(found, tmp_path / "c.json").read_text())
    assert written["rows"][0]["difference"] == row.difference
    with pytest.raises(UserError, match="exists already"):
        write(found, tmp_path / "c.json")
    assert main(["compare", str(a), str(b), "--metric", "AUC", "--permutations", "99"]) == 0
    assert "difference" in capsys.readouterr().out
    inside = compare_results(a, a, models=("new", "old"), metric="AUC", draws=0, permutations=99)
    table = pd.read_csv(a / "comparison.tsv", sep="\t")
    assert inside.rows[0].difference == pytest.approx(table["difference"][0])


def test_folders_of_one_name_are_told_apart_and_damage_is_one_line(tmp_path: Path) -> None:
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
    first, second = _folder(tmp_path / "a" / "probe"), _folder(tmp_path / "b" / "probe", gain=0.2)
    found = compare_results(first, second, metric="AUC", draws=20, permutations=19)
    assert (found.rows[0].model, found.rows[0].other) == ("new (a/probe)", "new (b/probe)")
    with pytest.raises(UserError, match="with itself"):
        compare_results(first, first)
    with pytest.raises(UserError, match="permutations"):
        compare_results(first, second, permutations=0)
    (second / "results.json").write_text('{"cut')
    with pytest.raises(UserError, match="not valid JSON"):
        compare_results(first, second)


def test_regression_folders(tmp_path: Path) -> None:
    a, b = _folder(tmp_path / "a", regression=True), _folder(tmp_path / "b", gain=0.2, regression=True)
    found = compare_results(a, b, draws=50, permutations=99)
    assert [r.metric for r in found.rows] == ["R2", "MAE", "Spearman"]
    assert found.rows[0].difference > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": 2}, r"subjects: 2 of .*a are not in .*b \(e.g. sub-00\)"),
        ({"seed": 3}, r"seed of the folds: 0 in .*a, 3 in .*b"),
        ({"folds": 3}, r"folds: 5 in .*a, 3 in"),
        ({"repeats": 2}, r"repeats: 1 in .*a, 2 in"),
        ({"flip": True}, r"labels: 4 rows differ, e.g. subject sub-04 is 'control' in .*a and 'patient' in"),
        ({"target": "dx"}, r"target: label in .*a, dx in"),
        ({"regression": True}, r"task: binary in .*a, regression in"),
        ({"unit": "sample"}, r"unit: session in"),
        ({"positive": "control"}, r"classes of the target: control, patient in .*a, patient, control in"),
        ({"sites": np.repeat(np.arange(24) // 2 % 3, 2)}, r"folds: subject sub-\d\d was tested in another fold"),
    ],
)
def test_what_cannot_be_paired_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    a, b = _folder(tmp_path / "a"), _folder(tmp_path / "b", **changes)
    with pytest.raises(UserError, match=message) as caught:
        compare_results(a, b)
    assert "\n" not in str(caught.value)


def test_mistakes_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = _folder(tmp_path / "a")
    b = _folder(tmp_path / "b", gain=0.2)
    for call, message in (
        ({"first": a, "second": a}, "compares 'new .a.' with itself"),
        ({"first": a, "second": b, "models": ("nw",)}, "no model 'nw'.*did you mean 'new'"),
        ({"first": a, "second": b, "models": ("new", "old", "x")}, "at most two"),
        ({"first": a, "second": b, "metric": "dice"}, r"not one of a binary result \(AUC"),
        ({"first": a, "second": tmp_path}, "no results of 'probe' here"),
    ):
        with pytest.raises(UserError, match=message):
            compare_results(call.pop("first"), call.pop("second"), **call)
    run = tmp_path / "run" / "results"
    run.mkdir(parents=True)
    (run / "results.json").write_text("{}")
    for words, message in (
        ([str(a), str(run.parent)], "cannot be compared with results of probe"),
        ([str(run.parent), str(run.parent), "--models", "x"], "for results of probe only"),
        ([str(a), str(b), "--structure", "MVO"], "for runs of finetune only"),
    ):
        assert main(["compare", *words]) == 2
        assert message in capsys.readouterr().err
