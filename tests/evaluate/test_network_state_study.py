"""The pooled study: acceptance on arrays with a stand-in encoder, files, checks, the confounded variant, damaged folds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.folds import subject_folds
from ssl4neuro.evaluate.network_state import FoldScores, Study, pool, read_fold, render_study, write_fold, write_study
from ssl4neuro.evaluate.network_state.calibrate import calibrated
from ssl4neuro.evaluate.network_state.cells import make_cells
from ssl4neuro.evaluate.network_state.checks import study_checks
from ssl4neuro.evaluate.network_state.compact import Compact, StageTwoFeatures
from ssl4neuro.evaluate.network_state.items import WHOLE
from ssl4neuro.evaluate.network_state.logistic import LogisticScorer
from ssl4neuro.evaluate.network_state.metrics import auc
from ssl4neuro.evaluate.network_state.nuisance import nuisance_columns, nuisance_scores, residual_cells
from ssl4neuro.evaluate.network_state.part import make_part
from ssl4neuro.evaluate.network_state.results import evaluate_study
from ssl4neuro.evaluate.network_state.study import read_scores

NETWORKS = ("frontal", "motor")
CHECKS = {"subject in both folds": "passed", "subjects with both states": "passed", "lesion in the maps": "passed"}


# --- the whole of stage two, nested, on arrays ------------------------------------------------------------------------------


def _maps(seed: int, effect: float, subjects: int = 30) -> tuple[pd.DataFrame, np.ndarray]:
    """Maps of 120 voxels: network, person, and a state effect in the same fifteen voxels of every network."""
    rng = np.random.default_rng([seed, 1])
    template = {name: 3 * np.random.default_rng(k).standard_normal(120) for k, name in enumerate(NETWORKS)}
    lines, maps = [], []
    for s in range(subjects):
        person = rng.standard_normal(120)
        for state in ("post", "pre"):
            for name in NETWORKS:
                own = template[name] + person + rng.standard_normal(120)
                own[:15] += effect if state == "post" else 0.0
                lines.append((f"s{s:02d}", state, "", "", name, 1, state, int(state == "post")))
                maps.append(own)
    columns = ["subject", "session", "run", "site", "network", "component", "state", "y"]
    return pd.DataFrame(lines, columns=columns).assign(row=np.arange(len(lines))), np.stack(maps)


def _encoder(maps: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Stands in for stage one: what tells the states apart in the training rows, all networks together."""
    change = maps[train][y[train] == 1].mean(0) - maps[train][y[train] == 0].mean(0)
    return np.column_stack([maps @ change, maps @ np.sign(change)])


def _nested(seed: int, effect: float, own: bool = True) -> pd.DataFrame:
    """Held-out scores; without `own` those of PCA + logistic regression on the maps."""
    items, maps = _maps(seed, effect)
    subject, y = pd.factorize(items["subject"])[0].astype(np.int64), items["y"].to_numpy()
    compact, scorer = Compact(maps, np.zeros((len(maps), 0))), LogisticScorer(penalties=(0.3,))
    found = []
    for number, fold in enumerate(subject_folds(subject, np.ones(len(subject), dtype=bool), 3, seed)):
        inner = subject_folds(subject[fold.train], np.ones(len(fold.train), dtype=bool), 3, seed)[0]
        rest, held = fold.train[inner.train], fold.train[inner.test]
        parts = []
        for train, test in ((rest, held), (fold.train, fold.test)):
            vectors = _encoder(maps, y, train) if own else None
            features = StageTwoFeatures(compact, items["network"].to_numpy(dtype=str), vectors, components=10)
            parts.append(make_part(items, features, train, test, features.dim))
        options, logits = scorer.choose(parts[:1])
        lines, _ = calibrated(items, fold.test, scorer.score(parts[1], options), [held], logits)
        found.append(lines.assign(repeat=0, fold=number, model="logistic", baseline=False))
    return pd.concat(found, ignore_index=True)


def _auc(scores: pd.DataFrame, network: str = WHOLE) -> float:
    cells = make_cells(scores[scores["network"] == network], "post")
    return float(auc(cells, np.ones((1, len(cells.y))))[0])


def test_an_encoder_in_the_fold_beats_pca_and_logistic_regression_where_there_is_an_effect() -> None:
    """Method section 9, test 5, with a stand-in for stage one."""
    own, plain = (np.mean([_auc(_nested(seed, 0.7, kind)) for seed in range(3)]) for kind in (True, False))
    assert own > plain + 0.05
    assert own > 0.75


def test_without_an_effect_the_mean_over_cohorts_is_chance() -> None:
    found = [_auc(_nested(seed, 0.0)) for seed in range(20)]
    assert abs(np.mean(found) - 0.5) < 0.03


# --- pooled -----------------------------------------------------------------------------------------------------------------


def _study(effect: float = 1.0, confounded: bool = False, repeats: int = 2, subjects: int = 24, seed: int = 0) -> Study:
    """Scores as a fold gives them, with nuisance variables that go with the state or do not."""
    rng = np.random.default_rng(seed)
    lines, vectors, scans = [], [], []
    for s in range(subjects):
        for state in ("post", "pre"):
            sign = 1 if state == "post" else -1
            fd = 0.2 + 0.05 * rng.standard_normal() - (0.1 * sign if confounded else 0.0)
            base = -10 * (fd - 0.2) + 0.3 * rng.standard_normal() if confounded else effect * sign + rng.standard_normal()
            for repeat in range(repeats):
                place = (repeat, (s + repeat) % 4, f"s{s:02d}", f"ses-{state}", "", state)
                scans.append((*place, "x", int(state == "post"), fd, 40 + rng.standard_normal(), 300, 30 + s))
                for network in (*NETWORKS, WHOLE):
                    z = base + 0.2 * rng.standard_normal()
                    component = -1 if network == WHOLE else 1
                    for model, baseline in (("network state", False), ("logistic", False), ("compact features", True)):
                        noise = 0.8 * rng.standard_normal() if baseline else 0.0
                        lines.append((*place, network, component, "x", model, baseline, z + noise))
                    if network != WHOLE:
                        vectors.append((*place, network, component, "x", rng.standard_normal(4) + z))
    place = ["repeat", "fold", "subject", "session", "run", "state"]
    scores = pd.DataFrame(lines, columns=[*place, "network", "component", "site", "model", "baseline", "logit"])
    scores["probability"] = 1 / (1 + np.exp(-scores["logit"]))
    table = pd.DataFrame(scans, columns=[*place, "site", "y", "mean_fd", "tsnr", "n_volumes", "age"])
    return Study(scores, pd.DataFrame(vectors, columns=[*place, "network", "component", "site", "embedding"]), table)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = {"name": "encoder inside the fold", "status": "passed", "detail": "none of 8 encoders has seen a held-out subject"}
    record = {"lesion_masks": True, "checks": [given], "preset": "paper", "notes": []}
    out = tmp_path_factory.mktemp("study") / "results"
    return write_study(out, _study(), record, bootstrap=200, permutations=199)


def test_results_hold_every_number_with_its_company(written: Path) -> None:
    record = json.loads((written / "results.json").read_text(encoding="utf-8"))
    assert record["format"] == "ssl4neuro network state"
    rows = pd.DataFrame(record["rows"])
    own = rows[rows["model"] == "network state"]
    assert set(own["network"]) == {*NETWORKS, WHOLE}
    assert len(own) == 3 * 10
    area = own[own["metric"] == "AUC"].set_index("network")
    assert (area["p"] <= 0.005).all()
    np.testing.assert_allclose(area.loc[list(NETWORKS), "p_corrected"], 2 * area.loc[list(NETWORKS), "p"])
    assert np.isnan(area.loc[WHOLE, "p_corrected"])
    assert ((area["ci_low"] < area["value"]) & (area["value"] < area["ci_high"])).all()
    majority = rows[(rows["model"] == "majority") & (rows["metric"] == "AUC")]
    assert majority["value"].tolist() == [0.5]
    assert {c["name"]: c["status"] for c in record["checks"]}.items() >= CHECKS.items()
    assert record["checks"][-1]["name"] == "encoder inside the fold"
    assert record["paper"]["AUC"] == [0.90, 0.94]
    assert len(pd.read_csv(written / "recovery.tsv", sep="\t")) == 24 * 3
    assert len(pd.read_csv(written / "table.csv")) == len(rows)
    assert "| motor | network state | AUC |" in (written / "table.md").read_text(encoding="utf-8")
    text = render_study(written)
    assert "whole brain" in text
    assert "nuisance only" in text
    assert "network state minus compact features, whole brain: " in text


def test_differences_are_of_the_same_subjects(written: Path) -> None:
    record = json.loads((written / "results.json").read_text(encoding="utf-8"))
    auc_of = {(r["model"], r["network"]): r["value"] for r in record["rows"] if r["metric"] == "AUC"}
    table = pd.read_csv(written / "differences.tsv", sep="\t")
    assert set(table["other"]) == {"logistic", "compact features", "nuisance only"}
    for _, line in table.iterrows():
        gap = auc_of[line["model"], line["network"]] - auc_of[line["other"], line["network"]]
        np.testing.assert_allclose(line["value"], gap, atol=1e-12)
        assert line["ci_low"] <= line["value"] <= line["ci_high"]
    same = table[table["other"] == "logistic"]  # the stand-in's scores are those of the model: paired, nothing is left
    np.testing.assert_array_equal(same[["value", "ci_low", "ci_high"]].to_numpy(), 0)


@pytest.mark.parametrize(
    ("masked", "status", "told"),
    [
        (None, "not checkable", "not known whether"),
        (False, "not checkable", "no lesion masks were given"),
        ({"masked": 0, "subjects": 24}, "not checkable", "no lesion masks were given"),
        ({"masked": 7, "subjects": 24}, "flagged", "7 of 24 subjects have a lesion mask; "),
        ({"masked": 24, "subjects": 24}, "passed", "both scans"),
    ],
)
def test_lesion_masks_are_told_as_far_as_known(masked: bool | dict[str, int] | None, status: str, told: str) -> None:
    study = _study(repeats=1, subjects=4)
    check = study_checks(study.scores, study.scans, masked)[-1]
    assert check.status == status
    assert told in check.detail


def test_names_that_look_like_missing_values_stay_names(tmp_path: Path) -> None:
    table = pd.DataFrame({"subject": ["NA", "null", "None"], "run": "", "age": [1.0, np.nan, 3.0], "sex": ["NA", "f", None]})
    table.to_csv(tmp_path / "scans.tsv", sep="\t", index=False)
    found = read_scores(tmp_path / "scans.tsv")
    assert found["subject"].tolist() == ["NA", "null", "None"]
    assert found["run"].tolist() == ["", "", ""]
    np.testing.assert_array_equal(found["age"], [1, np.nan, 3])
    assert found["sex"].isna().tolist() == [False, False, True]


def test_nuisance_variables_that_know_the_state_are_flagged() -> None:
    result = evaluate_study(_study(confounded=True, repeats=1), {}, bootstrap=200, permutations=199)
    found = {check.name: check for check in result.checks}
    assert found["nuisance variables"].status == "flagged"
    assert "confounded" in found["nuisance variables"].detail
    assert found["lesion in the maps"].status == "not checkable"
    left = result.row("network state, nuisances regressed out", WHOLE, "AUC")
    assert left.value < result.row("network state", WHOLE, "AUC").value - 0.15
    clean = evaluate_study(_study(repeats=1), {}, bootstrap=200, permutations=199)
    (check,) = (check for check in clean.checks if check.name == "nuisance variables")
    assert check.status == "passed"
    assert check.detail.startswith("no evidence that nuisance variables tell the states apart (AUC 0.")
    assert "age cannot differ between a subject's scans; the age gap between the scans is not controlled" in check.detail
    with pytest.raises(KeyError):
        clean.row("network state", "no such network", "AUC")


def test_nuisance_only_is_refitted_under_exchanged_states() -> None:
    ps = [nuisance_scores(_study(0.0, repeats=1, subjects=12, seed=s).scans, "post", 19, s)[1] for s in range(40)]
    assert 0.3 < np.mean(np.array(ps, dtype=np.float64)) < 0.7
    assert (np.array(ps) <= 0.05).mean() <= 0.175  # 99.9 % limit of 40 draws at 5 %
    scores, p = nuisance_scores(_study(confounded=True).scans, "post", 99, 0)
    assert p == 0.01
    assert _auc(scores[scores["repeat"] == 0]) > 0.8
    same = _study().scans.assign(mean_fd=1.0, tsnr=1.0, age=1.0)
    assert nuisance_columns(same) == []
    assert nuisance_scores(same, "post", 9, 0)[1] is None


def test_residual_scores_are_fitted_on_the_other_folds() -> None:
    study = _study(confounded=True, repeats=1)
    cells = make_cells(study.scores.query("model == 'logistic' and network == @WHOLE"), "post")
    found = residual_cells(cells, study.scans)
    assert found is not None
    inside = cells.fold[:, 0] == 2
    again = residual_cells(replace(cells, logit=cells.logit + 50 * inside[:, None]), study.scans)
    assert again is not None
    np.testing.assert_allclose(again.logit[inside] - 50, found.logit[inside])  # its own scores do not enter its fit
    assert not np.allclose(again.logit[~inside], found.logit[~inside])


def test_a_subject_with_one_state_is_scored_and_not_ordered() -> None:
    study = _study(repeats=1)
    lonely = (study.scores["subject"] == "s03") & (study.scores["state"] == "pre")
    scans = study.scans[(study.scans["subject"] != "s03") | (study.scans["state"] == "post")]
    result = evaluate_study(Study(study.scores[~lonely], study.embeddings, scans), {}, bootstrap=50, permutations=49)
    assert result.row("network state", WHOLE, "AUC").n_subjects == 24
    assert result.row("network state", WHOLE, "pair ordering").n_subjects == 23
    assert "s03" not in set(result.recovery["subject"])
    assert Check("subjects with both states", "passed", result.checks[1].detail) in result.checks
    assert result.checks[1].detail.startswith("23 of 24")


# --- folds on disk ----------------------------------------------------------------------------------------------------------


def _split(study: Study, folder: Path) -> list[Path]:
    folders = []
    for (repeat, fold), own in study.scores.groupby(["repeat", "fold"]):
        place = folder / f"repeat-{repeat}" / f"fold-{fold}"
        others = [
            t[(t["repeat"] == repeat) & (t["fold"] == fold)].reset_index(drop=True) for t in (study.embeddings, study.scans)
        ]
        write_fold(place, FoldScores(own.reset_index(drop=True), *others, {"repeat": int(repeat), "fold": int(fold)}))
        folders.append(place)
    return folders


def test_pooled_folds_are_what_was_written(tmp_path: Path) -> None:
    study = _study(subjects=8)
    folders = _split(study, tmp_path)
    back = pool(folders)
    key = ["repeat", "fold", "model", "subject", "state", "network"]
    left, right = (t.sort_values(key).reset_index(drop=True)[[*key, "probability"]] for t in (study.scores, back.scores))
    pd.testing.assert_frame_equal(left, right)
    assert len(back.folds) == 8
    assert len(back.embeddings) == len(study.embeddings)


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    folders = _split(_study(subjects=8), tmp_path)
    with pytest.raises(UserError, match=r"do not hold out the same scans .*repeat 1: 12.*--resume"):
        pool(folders[:-1])
    with pytest.raises(UserError, match="no finished fold"):
        pool([])
    (folders[0] / "embeddings.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match="damaged"):
        read_fold(folders[0])
    (folders[0] / "fold.json").unlink()
    with pytest.raises(UserError, match=r"fold.json: missing.*--resume"):
        read_fold(folders[0])
    with pytest.raises(UserError, match=r"results.json: missing or damaged"):
        render_study(tmp_path)
