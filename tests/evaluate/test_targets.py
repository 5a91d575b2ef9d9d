"""Several targets at once: shared permutations, corrected p, macro average, and the folder that `probe` writes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from null_trials import features_of, problem_of

from ssl4neuro.cli import main
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.crossval import Candidate, Settings, evaluate
from ssl4neuro.evaluate.features import ArrayFeatures, ConstantFeatures
from ssl4neuro.evaluate.linear import RidgeProbe
from ssl4neuro.evaluate.metrics import Held, macro_auc
from ssl4neuro.evaluate.problem import Problem
from ssl4neuro.evaluate.statistics import max_statistic_p, p_value
from ssl4neuro.evaluate.targets import COLUMNS, evaluate_targets, joint_null

SETTINGS = Settings(permutations=199, bootstrap=100)


def _targets() -> tuple[list[Problem], list[list[Candidate]]]:
    rng, who = np.random.default_rng(0), np.repeat(np.arange(20), 2)
    x = features_of(who, 5, rng)
    sick = (np.arange(20) % 2).astype(float)
    sex = np.arange(20) // 2 % 2
    age = rng.normal(50, 10, 20)
    age[16:] = np.nan
    x[:, 0] += 4 * sick[who]
    labels = {"sick": sick[who], "sex": sex[who].astype(float), "age": age[who], "state": np.arange(40) % 2}
    problems = [problem_of(y, who, target=name) for name, y in labels.items()]
    candidates = [[Candidate("x", ArrayFeatures(x[p.kept]), RidgeProbe())] for p in problems]
    candidates[0].append(Candidate("only here", ConstantFeatures(), RidgeProbe(), baseline=True))
    return problems, candidates


def test_corrected_p_is_the_family_of_one_model_over_all_targets() -> None:
    problems, candidates = _targets()
    answers, table = evaluate_targets(problems, candidates, SETTINGS)
    assert tuple(table.columns) == COLUMNS
    rows = [answer.models["x"].rows[0] for answer in answers]
    nulls = [answer.models["x"].null[row.metric] for answer, row in zip(answers, rows, strict=True)]
    expected = max_statistic_p(np.array([row.value for row in rows]), np.stack(nulls, axis=1))
    np.testing.assert_allclose([row.p_corrected for row in rows], expected)
    assert all(row.p <= row.p_corrected for row in rows)
    assert rows[0].p_corrected <= 0.05 < min(row.p_corrected for row in rows[1:])
    assert answers[0].models["only here"].rows[0].p_corrected is None
    assert answers[0].models["x"].rows[1].p_corrected is None  # one metric per target
    own = table[table["model"] == "x"].set_index("target")["p_corrected"]
    np.testing.assert_allclose(own.to_numpy()[:4], expected)
    assert [answer.permutation.split(",")[0] for answer in answers] == ["between subjects"] * 3 + ["within subjects"]


def test_permuted_labels_of_targets_belong_to_the_same_rearrangement() -> None:
    problems, _ = _targets()
    labels = [found for found, _ in joint_null(problems[:2], SETTINGS)]
    pairs = labels[0] * 2 + labels[1]  # a subject's two labels as one number
    kept = np.sort(pairs[:, 0])
    assert all((np.sort(column) == kept).all() for column in pairs.T)
    separate = [joint_null([problem], Settings(permutations=50, seed=seed))[0][0] for seed, problem in enumerate(problems[:2])]
    mixed = separate[0][:, 1:] * 2 + separate[1][:, 1:]
    assert not all((np.sort(column) == kept).all() for column in mixed.T)
    none = joint_null(problems, Settings(permutations=0))
    assert [(found.shape[1], told) for found, told in none] == [(1, "none")] * 4


def test_macro_average_is_the_mean_with_its_own_null() -> None:
    problems, candidates = _targets()
    answers, table = evaluate_targets(problems, candidates, SETTINGS)
    binary = [answer.models["x"] for answer in (answers[0], answers[1], answers[3])]
    line = table[table["target"].str.startswith("macro average of 3")].iloc[0]
    assert line["value"] == pytest.approx(np.mean([outcome.rows[0].value for outcome in binary]))
    assert line["p"] == pytest.approx(p_value(line["value"], np.mean([outcome.null["AUC"] for outcome in binary], axis=0)))
    assert line["ci_low"] < line["value"] < line["ci_high"]
    assert line["n_subjects"] == 20
    assert (table["target"].str.startswith("macro")).sum() == 1  # the baseline is not in every target


def test_one_target_is_what_evaluate_says_without_correction() -> None:
    problems, candidates = _targets()
    answers, _ = evaluate_targets(problems[:1], candidates[:1], SETTINGS)
    outcomes, _ = evaluate(problems[0], candidates[0], SETTINGS, labels=joint_null(problems[:1], SETTINGS)[0])
    assert answers[0].outcomes[0].rows == outcomes[0].rows


def test_held_out_predictions_of_an_outcome_give_its_value() -> None:
    problems, candidates = _targets()
    outcome = evaluate(problems[0], candidates[0], Settings(repeats=3, permutations=0, bootstrap=0))[0][0]
    values = [macro_auc(Held(h.truth, h.values, h.decision), np.ones((1, 40)))[0] for h in outcome.held]
    assert outcome.rows[0].value == pytest.approx(np.mean(values))
    np.testing.assert_array_equal(outcome.held[0].truth, problems[0].y[outcome.tested])


@pytest.fixture
def foreign(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(1)
    y = np.arange(24) % 2
    x = rng.normal(size=(24, 4))
    x[:, 0] += 2.5 * y
    names = [f"sub-{i:02d}" for i in range(24)]
    pd.DataFrame(x, columns=[f"f{i}" for i in range(4)]).assign(subject=names).to_csv(tmp_path / "x.csv", index=False)
    labels = pd.DataFrame({"participant_id": names, "dx": np.where(y, "patient", "control"), "sex": np.arange(24) // 2 % 2})
    labels.assign(age=rng.normal(40, 9, 24)).to_csv(tmp_path / "p.tsv", sep="\t", index=False)
    return tmp_path / "x.csv", tmp_path / "p.tsv"


def test_probe_writes_a_folder_per_target_and_one_table(
    foreign: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "probe",
        str(foreign[0]),
        "--participants",
        str(foreign[1]),
        "--permutations",
        "99",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*words, "--target", "dx,age"]) == 0
    text = capsys.readouterr().out
    assert "p corrected" in text
    assert "macro" not in text  # one binary target
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"dx", "age", "targets.tsv", "targets.json"}
    table = pd.read_csv(tmp_path / "out" / "targets.tsv", sep="\t")
    assert tuple(table.columns) == COLUMNS
    record = json.loads((tmp_path / "out" / "targets.json").read_text())
    assert record["folders"] == ["dx", "age"]
    own = json.loads((tmp_path / "out" / "dx" / "results.json").read_text())
    assert own["rows"][0]["p_corrected"] == table["p_corrected"][0] == record["rows"][0]["p_corrected"]
    assert own["permutation"] == "between subjects, the same for all targets"
    assert main([*words, "--target", "dx,age"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "out"), str(tmp_path / "out" / "dx")]) == 2
    assert "holds several targets; compare one of them" in capsys.readouterr().err


def test_mistakes_are_one_clear_line(foreign: tuple[Path, Path], tmp_path: Path) -> None:
    from ssl4neuro.evaluate.probe_targets import probe_targets

    for targets, message in ((["dx", "dx"], "'dx' is named twice"), (["dx", "agee"], "did you mean 'age'")):
        with pytest.raises(UserError, match=message):
            probe_targets(foreign[0], targets, out=tmp_path / "no", participants=foreign[1])
    assert not (tmp_path / "no").exists()
