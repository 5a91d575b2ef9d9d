"""The page of a network-state study: what it says and shows, in both outcomes, and what it does with unfinished runs."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.network_state import Study, write_study
from ssl4neuro.report import write_report
from ssl4neuro.report.network_state import is_network_state, network_state_page
from ssl4neuro.report.network_state_folder import read_folder
from ssl4neuro.report.network_state_words import methods

NETWORKS = ("motor", "temporal", "vision")


def _study(effect: float, motion: float, subjects: int = 16) -> Study:
    rng = np.random.default_rng(0)
    lines, vectors, scans = [], [], []
    for s in range(subjects):
        for state in ("post", "pre"):
            sign = 1 if state == "post" else -1
            place = (0, s % 2, f"subject-{s:02d}", f"ses-{state}", "", state)
            fd = 0.2 + 0.05 * rng.standard_normal() - motion * sign
            scans.append((*place, "x", int(state == "post"), fd, 300.0 + 10 * s))
            for network in (*NETWORKS, "whole brain"):
                z = effect * sign + rng.standard_normal()
                lines += [
                    (*place, network, 1, "x", "network state", False, z),
                    (*place, network, 1, "x", "logistic", False, z + 0.1),
                    (*place, network, 1, "x", "compact features", True, z + 0.02 * s),
                ]
                if network != "whole brain":
                    vectors.append((*place, network, 1, "x", rng.standard_normal(5)))
    place = ["repeat", "fold", "subject", "session", "run", "state"]
    scores = pd.DataFrame(lines, columns=[*place, "network", "component", "site", "model", "baseline", "logit"])
    scores["probability"] = 1 / (1 + np.exp(-scores["logit"]))
    table = pd.DataFrame(scans, columns=[*place, "site", "y", "mean_fd", "n_volumes"])
    return Study(scores, pd.DataFrame(vectors, columns=[*place, "network", "component", "site", "embedding"]), table)


RECORD = {
    "cohort": "hh",
    "preset": "paper",
    "folds": 2,
    "repeats": 1,
    "inner": 1,
    "epochs": 40,
    "grid_mm": 8,
    "parameters": 812000,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    folder.mkdir()
    write_study(folder / "results", _study(1.5, 0.0), RECORD, bootstrap=100, permutations=199)
    return folder


def test_page_answers_and_stands_alone(run: Path) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]+\"", page)
    assert "<script" not in page
    assert "Evidence that it can" in page
    assert "Evidence in 3 of 3 networks" in page
    assert "No controls were scanned" in page
    for title in (
        "AUC per network",
        "Recovery scores, subject by subject",
        "ROC per network",
        "Calibration",
        "Held-out embeddings of one fold",
    ):
        assert title in page
    assert "Encoders of different folds have different spaces" in page
    assert "context only" in page
    assert "subject-03" not in page  # nobody is named
    assert len(pd.read_csv(run / "report_results.csv")) == len(pd.read_csv(run / "results" / "table.csv"))


def test_page_of_the_results_folder_is_that_of_the_run(run: Path) -> None:
    assert is_network_state(run)
    assert is_network_state(run / "results")
    one, other = network_state_page(run), network_state_page(run / "results")
    assert one.answers == other.answers
    assert one.methods == other.methods
    assert "2 outer folds" in one.methods
    assert "812,000 parameters" in one.methods


def test_the_encoder_is_compared_with_the_compact_features_subject_by_subject(run: Path) -> None:
    page = network_state_page(run)
    said = dict(page.answers)
    assert "overlap" not in said["Beside it"]
    assert "minus compact features" in said["Beside it"]
    assert "not shown to add to the compact features" in said["Beside it"]
    assert "n_volumes cannot differ between a subject's scans" in said["Nuisance variables"]
    (table,) = (table for table in page.tables if table.name == "differences")
    assert [line[0] for line in table.rows] == ["minus logistic", "minus compact features", "minus nuisance only"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "network and state (O1)"),
        ({"preset": "each_modality"}, "on each modality (temperature 0.5)"),
        ({"custom": True, "objective": "my own loss"}, "was trained by my own loss"),
        (
            {"modalities": ["map"], "objective": "one loss"},
            "an encoder of spatial map (812,000 parameters) was trained by one loss",
        ),
        ({"hidden": 8, "heads": "shared"}, "one for all networks, with a code for the network"),
        ({"lesion_masks": {"masked": 7, "subjects": 16}}, "7 of 16 subjects were masked"),
        ({"lesion_masks": {"masked": 16, "subjects": 16}}, "Maps were masked by the lesions"),
    ],
)
def test_methods_are_those_of_the_run(run: Path, more: dict[str, Any], told: str) -> None:
    folder = read_folder(run)
    changed = replace(folder, record={**folder.record, "study": {**folder.study, **more}})
    assert told in methods(changed)


def test_a_confounded_study_says_so_where_the_answer_stands(tmp_path: Path) -> None:
    write_study(tmp_path / "results", _study(0.8, 0.15), RECORD, bootstrap=100, permutations=199)
    page = network_state_page(tmp_path)
    answer = dict(page.answers)["Answer"]
    assert "nuisance variables tell the scans apart as well" in answer
    assert page.notices[0].level == "warning"
    assert "confounded" in page.notices[0].text


def test_no_evidence_is_not_evidence_of_absence(tmp_path: Path) -> None:
    write_study(tmp_path / "results", _study(0.0, 0.0), RECORD, bootstrap=100, permutations=199)
    answers = dict(network_state_page(tmp_path).answers)
    assert answers["Answer"].startswith("No evidence that it can")
    assert "no evidence against it" in answers["Answer"]
    assert answers["Networks"].startswith("Evidence in 0 of 3 networks")


def test_pictures_of_explain_are_on_the_page(run: Path) -> None:
    folder = run / "explain"
    folder.mkdir(exist_ok=True)
    (folder / "eigen_cam.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
    figures = network_state_page(run).figures
    assert figures[-1].title == "Eigen cam"
    assert figures[-1].section == "What the encoder looks at"


def test_unfinished_and_damaged_studies_are_named(run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task: network_state\n", encoding="utf-8")
    (tmp_path / "repeat-0" / "fold-0").mkdir(parents=True)
    (tmp_path / "repeat-0" / "fold-0" / "fold.json").write_text("{}", encoding="utf-8")
    assert is_network_state(tmp_path)
    with pytest.raises(UserError, match=r"not finished \(1 folds are\); continue it with --resume"):
        network_state_page(tmp_path)
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "results.json").write_bytes((run / "results" / "results.json").read_bytes())
    with pytest.raises(UserError, match=r"(?:scores|recovery).tsv: missing or damaged"):
        network_state_page(moved)
    assert not is_network_state(tmp_path / "repeat-0")
