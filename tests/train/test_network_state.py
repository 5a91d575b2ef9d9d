"""The nested study: who trains and who is tested, the firewall, what is left behind, stopping and going on."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ssl4neuro import checkpoint
from ssl4neuro.cli import main
from ssl4neuro.config import from_mapping, load
from ssl4neuro.data.cells import write_cells
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.embed import embed
from ssl4neuro.evaluate.embed_rows import embed_rows
from ssl4neuro.evaluate.network_state import read_fold, study_items
from ssl4neuro.model import Model
from ssl4neuro.pretrained import load as load_run
from ssl4neuro.shipped import find_recipe
from ssl4neuro.train.estimate import Estimate
from ssl4neuro.train.loop import Loop
from ssl4neuro.train.network_state import network_state, run_fold
from ssl4neuro.train.network_state_ablate import ablate_network_state
from ssl4neuro.train.network_state_config import PRESETS, NetworkStateConfig
from ssl4neuro.train.network_state_folds import OuterFold, plan_folds

TINY: dict[str, Any] = {
    "modalities": {
        "map": {"encoder": {"name": "volume_resnet", "preset": "tiny"}, "augment": {"name": "volume", "preset": "none"}},
        "course": {"encoder": {"name": "course_conv", "preset": "tiny"}},
    },
    "fusion": {"dim": 16},
    "folds": 2,
    "loop": {"epochs": 1, "checkpoint_steps": 1},
    "stage_two": {"head": {"epochs": 2, "ensemble": 1}, "components": 4, "penalties": [0.1]},
    "bootstrap": 20,
    "permutations": 20,
}


@pytest.fixture(scope="module")
def cohort(make_cohort: Callable[..., Cohort], tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("study") / "cohort", subjects=10)


def recipe(cohort: Cohort, out: Path, **changes: Any) -> NetworkStateConfig:
    return from_mapping(NetworkStateConfig, {**TINY, **changes, "data": str(cohort.path), "out": str(out)}, "test")


@pytest.fixture(scope="module")
def finished(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = network_state(recipe(cohort, tmp_path_factory.mktemp("runs") / "run"))
    assert isinstance(run, Path)
    return run


def folds_of(run: Path) -> list[Path]:
    return sorted(run.glob("repeat-*/fold-*"))


def plan_of(run: Path) -> dict[str, dict[str, list[str]]]:
    return json.loads((run / "split.json").read_text())


def scores(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "results" / "scores.tsv", sep="\t")


def test_every_subject_is_tested_once_by_encoders_that_have_not_seen_it(finished: Path, cohort: Cohort) -> None:
    plan = plan_of(finished)
    tested = [subject for fold in plan.values() for subject in fold["test"]]
    assert sorted(tested) == sorted(set(cohort.index["subject"]))
    contents = cohort.content_hashes()
    for folder in folds_of(finished):
        fold = plan[str(folder.relative_to(finished))]
        seen = set(checkpoint.load(folder / "outer", "last").manifest.overlap(cohort.name, contents))
        assert seen == set(fold["train"])
        assert not seen & set(fold["test"])
        inner = set(checkpoint.load(folder / "inner-0", "last").manifest.overlap(cohort.name, contents))
        assert inner == set(fold["train"]) - set(fold["inner-0"])
        assert set(pd.read_csv(folder / "scores.tsv", sep="\t")["subject"]) == set(fold["test"])


def test_what_a_study_leaves(finished: Path, cohort: Cohort) -> None:
    assert {"config.yaml", "environment.json", "split.json", "cells", "repeat-0", "results"} <= set(os.listdir(finished))
    record = json.loads((finished / "results" / "results.json").read_text())
    assert record["study"]["preset"] == "paper"
    (own,) = [check for check in record["checks"] if check["name"] == "encoder inside the fold"]
    assert own["status"] == "passed"
    table = scores(finished)
    assert {"network state", "logistic"} <= set(table["model"])
    cells = table[(table["model"] == "network state") & (table["network"] != "whole brain")]
    assert len(cells) == len(cohort)  # each component of each scan once


def test_a_planted_leak_stops_the_study(finished: Path, cohort: Cohort, tmp_path: Path) -> None:
    """An encoder from another fold, that was trained on the subjects that are tested here, lies where this fold's should."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "results")
    first, second = folds_of(run)
    (first / "fold.json").unlink()
    config = replace(recipe(cohort, run), resume=True)
    fold = OuterFold(0, 0, **{name: tuple(s) for name, s in plan_of(run)["repeat-0/fold-0"].items() if name != "inner-0"})
    run_fold(config, fold)  # the clean twin
    (first / "fold.json").unlink()
    shutil.rmtree(first / "outer")
    shutil.copytree(second / "outer", first / "outer")
    with pytest.raises(UserError, match=r"outer: this encoder has seen 5 of the 5 subjects that are held out of it"):
        network_state(config)
    assert not (run / "results").exists()


def test_an_inner_encoder_that_knows_those_who_calibrate_stops_the_study(
    finished: Path, cohort: Cohort, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    first = folds_of(run)[0]
    (first / "fold.json").unlink()
    shutil.rmtree(first / "inner-0")
    shutil.copytree(first / "outer", first / "inner-0")
    with pytest.raises(UserError, match=r"inner-0: this encoder has seen \d of the \d subjects"):
        network_state(replace(recipe(cohort, run), resume=True))


class Killed(Exception):
    pass


def test_killed_and_resumed_it_is_the_same_study(
    finished: Path, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed within the second fold's inner encoder, whose first step is saved; the first fold is not trained again."""
    run, train_batch, steps = tmp_path / "run", Loop._train_batch, []

    def dying(self: Loop, raw: Any) -> Any:
        if "fold-1/inner-0" in str(self.run.path) and self.done.batch == 0:
            raise Killed
        steps.append(str(self.run.path))
        return train_batch(self, raw)

    config = recipe(cohort, run)
    monkeypatch.setattr(Loop, "_train_batch", dying)
    with pytest.raises(Killed):
        network_state(config)
    done = (run / "repeat-0" / "fold-0" / "fold.json").stat().st_mtime_ns
    monkeypatch.undo()
    torch.manual_seed(5)
    network_state(replace(config, resume=True))
    assert (run / "repeat-0" / "fold-0" / "fold.json").stat().st_mtime_ns == done
    pd.testing.assert_frame_equal(scores(run), scores(finished))


def test_ctrl_c_saves_and_the_command_says_how_to_go_on(
    finished: Path, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    file, run, train_batch = tmp_path / "tiny.yaml", tmp_path / "run", Loop._train_batch
    file.write_text(yaml.safe_dump({"task": "network_state", **TINY}, sort_keys=False))
    words = ["finetune", str(file), "--data", str(cohort.path), "--out", str(run)]

    def interrupting(self: Loop, raw: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return train_batch(self, raw)

    monkeypatch.setattr(Loop, "_train_batch", interrupting)
    assert main(words) == 130
    told = capsys.readouterr().err
    assert "everything is saved" in told
    assert f"continue with: ssl4neuro {' '.join(words)} --resume" in told
    monkeypatch.undo()
    assert main([*words, "--resume"]) == 0
    assert "held-out subjects, n = 10" in capsys.readouterr().out
    pd.testing.assert_frame_equal(scores(run), scores(finished))


def test_folds_can_be_handed_to_other_processes(cohort: Cohort, tmp_path: Path) -> None:
    """And how many there are does not make another study."""
    config = recipe(cohort, tmp_path / "run", jobs=2)
    fold = OuterFold(0, 1, ("a", "b"), ("c",), (("b",),))
    assert ForkingPickler.loads(ForkingPickler.dumps((config, fold))) == (config, fold)
    assert config.identity() == recipe(cohort, tmp_path / "other").identity()


def test_what_cannot_be_resumed(finished: Path, cohort: Cohort, tmp_path: Path, make_cohort: Callable[..., Cohort]) -> None:
    config = recipe(cohort, finished)
    with pytest.raises(UserError, match="add --resume"):
        network_state(config)
    with pytest.raises(UserError, match=r"cannot resume, folds was 2 and is 3 now"):
        network_state(replace(config, resume=True, folds=3))
    other = make_cohort(tmp_path / "other", subjects=10, seed=1)
    with pytest.raises(UserError, match="rows of another cohort"):
        network_state(replace(config, resume=True, data=str(other.path)))


def test_estimate_writes_nothing(cohort: Cohort, tmp_path: Path) -> None:
    found = network_state(replace(recipe(cohort, tmp_path / "run", inner=2, jobs=2), estimate=True))
    assert isinstance(found, Estimate)
    assert "6 encoders of 2 outer folds" in str(found)
    assert "2 at a time" in str(found)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": "stat"}, r"no column 'stat' \(did you mean 'state'\?\)"),
        ({"after": "6 months"}, "column 'state' has no '6 months'"),
        ({"networks": ["visual"]}, "no 'visual'"),
        ({"folds": 6}, "10 subjects take part; 6 outer and 4 inner folds need at least 12"),
        ({"stratify": "scanner"}, "no column 'scanner'"),
    ],
)
def test_refusals_leave_nothing_behind(cohort: Cohort, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        network_state(recipe(cohort, tmp_path / "run", **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_one_session_is_refused(make_cohort: Callable[..., Cohort], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    once = make_cohort(tmp_path / "once", subjects=8, sessions=("ses-pre",))
    status = main(["finetune", "network_state", "--data", str(once.path), "--out", str(tmp_path / "run")])
    told = capsys.readouterr().err
    assert status == 2
    assert "column 'state' has no 'post'" in told
    assert told.count("\n") == 1
    courses = make_cohort(tmp_path / "courses", subjects=8, maps=False)
    with pytest.raises(UserError, match="the study needs maps and courses"):
        network_state(recipe(courses, tmp_path / "run"))


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "paper"])
def test_presets(cohort: Cohort, tmp_path: Path, preset: str) -> None:
    folder = one_fold(recipe(cohort, tmp_path / "run", preset=preset))
    assert bool(load_run(folder / "outer").model.labels) == (preset != "label_free")
    vectors = read_fold(folder).embeddings
    assert ("change" in vectors) == (preset == "change_aware")
    if preset == "change_aware":
        e, change = (np.stack(vectors[column].tolist()) for column in ("embedding", "change"))
        assert np.array_equal(e[:, 8:], change)


def one_fold(config: NetworkStateConfig) -> Path:
    """The first outer fold of a study, without the others."""
    source = Cohort.open(config.data)
    items = study_items(source)
    write_cells(Path(config.out) / "cells", source, items["row"].to_numpy(), aggregate=config.cells == "aggregated")
    sites = dict(zip(items["subject"], items["site"], strict=True))
    fold = plan_folds(config, sites, {})[0]
    run_fold(config, fold)
    return Path(config.out) / fold.name


def test_default_objective_is_that_of_the_method(cohort: Cohort, tmp_path: Path) -> None:
    model = Model(recipe(cohort, tmp_path).encoder("x", 0).model)
    assert {name: type(o).__name__ for name, o in model.objectives.items()} == {"states": "SupCon", "cross_modal": "InfoNCE"}
    assert model.weights == {"states": 1.0, "cross_modal": 0.5}
    assert model.objectives["states"].coarse_weight == 0.3
    assert float(model.objectives["states"].temperature(torch.zeros(()))) == pytest.approx(10)


def test_aggregated_cells(cohort: Cohort, tmp_path: Path) -> None:
    scores = read_fold(one_fold(recipe(cohort, tmp_path / "run", cells="aggregated"))).scores
    assert len(Cohort.open(tmp_path / "run" / "cells")) == 10 * 2 * 2  # networks of scans
    own = scores[(scores["model"] == "network state") & (scores["network"] != "whole brain")]
    assert not own.duplicated(["subject", "session", "network"]).any()


def test_ablations_share_the_folds_and_one_table(cohort: Cohort, tmp_path: Path) -> None:
    config = recipe(cohort, tmp_path / "run", ablations={"inputs": {"maps only": {"modalities.course": None}}})
    ablate_network_state(config)
    ablate_network_state(config)  # nothing is left to do
    models = set(scores(tmp_path / "run")["model"])
    assert {"network state", "logistic", "inputs: maps only"} <= models
    assert load_run(tmp_path / "run" / "inputs-maps-only" / "repeat-0" / "fold-0" / "outer").model.modalities == ("map",)


def test_folds_are_spread_over_the_strata() -> None:
    sites = {f"sub-{i:02d}": "AB"[i % 2] for i in range(20)}
    config = NetworkStateConfig(modalities={}, folds=5, repeats=2, inner=4)
    plan = plan_folds(config, sites, sites)
    assert len(plan) == 10
    for fold in plan:
        assert {sites[s] for s in fold.test} == {"A", "B"}
        assert not set(fold.test) & set(fold.train)
        held = [s for own in fold.held for s in own]
        assert sorted(held) == sorted(fold.train)  # all four inner folds are used
        for name, split in fold.encoders().items():
            assert set(split.train) | set(split.holdout) == set(sites)
            assert set(fold.test) <= set(split.holdout), name
    assert {fold.test for fold in plan[:5]} != {fold.test for fold in plan[5:]}


def test_embeds_as_the_command_does(finished: Path, cohort: Cohort, tmp_path: Path) -> None:
    run, cells = folds_of(finished)[0] / "outer", Cohort.open(finished / "cells")
    embed(run, cells.path, tmp_path / "embeddings", which="last")
    expected = np.stack(pd.read_parquet(tmp_path / "embeddings" / "samples.parquet")["joint"])
    rows = np.array([3, 4, 5, 40, 41, 79])
    np.testing.assert_allclose(embed_rows(load_run(run, "last").model, cells, rows), expected[rows], atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stratify", "state"], "every subject has both states"),
        (["--before", "post"], "before and after are both 'post'"),
        (["--inner", "5"], "inner 1 to 4"),
        (["--folds", "1"], "folds must be 2 or more"),
        (["--preset", "papr"], "preset"),
    ],
)
def test_settings_that_cannot_be(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(NetworkStateConfig, find_recipe("network_state"), flags)


def test_thorough_is_ten_by_five_by_four() -> None:
    config = load(NetworkStateConfig, find_recipe("network_state"), ["--thorough"]).settled
    assert (config.repeats, config.folds, config.inner) == (10, 5, 4)
    default = load(NetworkStateConfig, find_recipe("network_state"))
    assert (default.repeats, default.folds, default.inner, default.permutations) == (1, 5, 1, 1000)
    assert default.loop.epochs <= 40
