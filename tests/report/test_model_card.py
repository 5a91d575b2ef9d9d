"""The model card of a run: complete, and without a name."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from ssl4neuro.cli import main
from ssl4neuro.errors import UserError
from ssl4neuro.report import write_report
from ssl4neuro.report.people import described

SPLIT = {
    "train": [f"sub-alice{i:02d}" for i in range(20)],
    "validation": ["sub-bob"],
    "holdout": ["sub-carol", "sub-dave"],
}
SHA = {"step-00000002": "aa" * 32, "step-00000009": "bb" * 32}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two checkpoints, of which the first is the best, beside its cohort."""
    run, cohort = tmp_path / "secret" / "run", tmp_path / "secret" / "cohort"
    cohort.mkdir(parents=True)
    people = [*SPLIT["train"], *SPLIT["validation"], *SPLIT["holdout"]]
    table = pd.DataFrame({"participant_id": people, "sex": ["F", "M"] * 11 + ["F"], "site": ["A", "B"] * 11 + ["C"]})
    table["age"] = [25.0] * 12 + [41.0] * 8 + [83.0] + [100.0] * 2
    table.to_csv(cohort / "participants.tsv", sep="\t", index=False)
    (cohort / "cohort.json").write_text('{"scans": 46}')
    config = {
        "modalities": {"map": {"encoder": {"name": "volume_resnet", "preset": "small"}}},
        "objectives": {"states": {"name": "supcon", "labels": ["state"]}},
        "data": str(cohort),
        "optimiser": {"name": "adamw", "rate": 0.001},
        "seed": 3,
    }
    manifest = {"entries": [{"salt": "00", "subjects": ["a" * 64] * 21, "provenance": {"dataset": "rest"}}]}
    for step, sha in SHA.items():
        folder = run / "checkpoints" / step
        folder.mkdir(parents=True)
        (folder / "contract.json").write_text(json.dumps({"map": {"kind": "volume", "shape": [4, 5, 6], "mask": "packed"}}))
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "state.json").write_text(json.dumps({"step": int(step[5:])}))
        (folder / "SHA256.json").write_text(json.dumps({"files": {"model.safetensors": {"sha256": sha}}}))
    (run / "checkpoints" / "best.json").write_text('{"step": 2}')
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "split.json").write_text(json.dumps(SPLIT))
    (run / "environment.json").write_text(json.dumps({"seed": 3, "python": "3.12", "versions": {"torch": "2.15"}}))
    (run / "summary.json").write_text(json.dumps({"steps": 9, "seconds": 75.0, "alarms": ["map: collapsed"]}))
    return run


def results(path: Path, sha: str | None, **changed: object) -> Path:
    row = {
        "metric": "AUC",
        "value": 0.7,
        "ci_low": 0.6,
        "ci_high": 0.8,
        "p": 0.01,
        "chance": 0.5,
        "n_subjects": 20,
        "unit": "subject",
    }
    rows = [
        row | {"name": "joint", "baseline": False},
        row | {"name": "FNC + logistic", "baseline": True, "value": 0.72},
        row | {"name": "nuisance only", "baseline": True, "value": 0.55, "p": 0.4},
    ]
    record = {"format": "ssl4neuro results", "version": 1, "target": "state", "task": "binary", "rows": rows}
    path.mkdir()
    (path / "results.json").write_text(json.dumps(record | {"source": {"checkpoint_sha256": sha}} | changed))
    return path


def test_everything_a_reader_needs(run, tmp_path):
    found = results(tmp_path / "state", SHA["step-00000002"], stamp="overlap: 2 of 20 subjects")
    write_report(run, results=[found])
    card = (run / "model_card.md").read_text()
    headings = [line[3:] for line in card.splitlines() if line.startswith("## ")]
    assert headings == [
        "Intended use", "Training data", "Objectives and training", "Input contract", "Evaluation", "Limitations", "Versions",
        "How to load", "Licence",
    ]  # fmt: skip
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "ssl4neuro"
    for words in (
        "map: volume_resnet (small)", "`step-00000002`", SHA["step-00000002"], "train 20, validation 1, holdout 2",
        "Dataset 'rest': 21 subjects seen", "supcon on labels state", "seed: 3", "9 steps in 1 min 15 s", "map: collapsed",
        "| map | shape | 4 × 5 × 6 |", "Evidence that it can (p = 0.010).", "overlap: 2 of 20 subjects",
        "0.720 (0.600 to 0.800)", "FNC + logistic", "0.550", "| torch | 2.15 |", 'load("run")',
        "ssl4neuro embed run COHORT OUT",
    ):  # fmt: skip
        assert words.lower() in card.lower(), words


def test_people_are_counted_and_small_groups_are_not(run):
    """Of those who trained: the held-out ones, one of them 100 years old, are not described."""
    write_report(run)
    card = (run / "model_card.md").read_text()
    assert "Sites: 2." in card
    assert "Sex: F 11, M 10." in card
    assert "median 25, subjects by decade: 20–29: 12, 40–49: 8, 80–89: fewer than 5." in card
    for word in ("alice", "bob", "carol", "secret", "100", "packed"):
        assert word not in card, word


def test_numbers_of_another_checkpoint_of_the_run_are_marked(run, tmp_path):
    write_report(run, results=[results(tmp_path / "state", SHA["step-00000009"])])
    assert "These are numbers of another checkpoint of this run, `step-00000009`." in (run / "model_card.md").read_text()


def test_results_of_another_encoder_are_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"state: are results of an encoder of another run \(checkpoint cccccccccccc\)"):
        write_report(run, results=[results(tmp_path / "state", "cc" * 32)])
    assert not list(run.glob("report*"))


def test_without_results_and_without_a_cohort(run):
    import shutil

    shutil.rmtree(run.parent / "cohort")
    write_report(run)
    card = (run / "model_card.md").read_text()
    assert "No results were given" in card
    assert "the cohort is not at hand" in card


def test_no_card_without_a_checkpoint(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text('{"step": 1, "split": "train", "loss": 1.0}\n')
    write_report(tmp_path / "run")
    assert not (tmp_path / "run" / "model_card.md").exists()
    with pytest.raises(UserError, match="holds no checkpoint, so there is no model card"):
        write_report(tmp_path / "run", results=[results(tmp_path / "state", None)])


def test_command_line_takes_several_results(run, tmp_path, capsys):
    folders = [str(results(tmp_path / name, None, target=name)) for name in ("age", "sex", "state")]
    assert main(["report", str(run), "--results", ",".join(folders[:2]), folders[2]]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    card = (run / "model_card.md").read_text()
    assert all(f"| {name} (AUC, chance 0.500) |" in card for name in ("age", "sex", "state"))


def test_ages_that_are_missing_or_no_numbers(tmp_path):
    table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(8)], "Age": [*map(str, np.arange(30, 36)), "n/a", "?"]})
    table.to_csv(tmp_path / "participants.tsv", sep="\t", index=False)
    told = described(tmp_path, set(table["participant_id"]))
    assert told == ["Age in years, median 32, subjects by decade: 30–39: 6; unknown for 2 subjects."]
