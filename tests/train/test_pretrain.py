"""Pretraining from a recipe: what a run leaves, resuming bit for bit, stopping, and errors that name rows."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState

from ssl4neuro import checkpoint
from ssl4neuro.config import from_mapping
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.ica_cohort import IcaCohort
from ssl4neuro.errors import UserError
from ssl4neuro.train.estimate import Estimate
from ssl4neuro.train.interruption import Interrupted
from ssl4neuro.train.loop import Loop, mix
from ssl4neuro.train.pretrain import PretrainConfig, pretrain

RECIPE: dict[str, Any] = {
    "modalities": {
        "map": {"encoder": {"name": "volume_resnet", "preset": "tiny"}, "augment": "volume"},
        "course": {
            "encoder": {"name": "course_session", "preset": "tiny"},
            "augment": {"name": "course", "halves": True},
            "views": 2,
        },
    },
    "objectives": {
        "cross": {"name": "infonce", "negatives": "all"},
        "person": {"name": "infonce", "between": ["course"], "level": "session", "weight": 0.5},
        "states": {"name": "supcon", "labels": ["state"], "weight": 0.1},
    },
    "sampling": {"kind": "sessions", "batch_size": 4},
    "split": {"holdout": 0.2, "validation": 0.3},
    "optimiser": {"rate": 1e-3},
    "loop": {"epochs": 3, "log_every": 1, "checkpoint_steps": 1},
    "monitor": {"label": "state", "patience": 50},
}


@pytest.fixture(scope="module")
def cohort(make_cohort: Callable[..., Cohort], tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("train") / "cohort", subjects=8)


def recipe(cohort: Cohort, out: Path, **changes: Any) -> PretrainConfig:
    values = json.loads(json.dumps(RECIPE))
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = values
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    return from_mapping(PretrainConfig, {**values, "data": str(cohort.path), "out": str(out)}, "test")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(run, "last").model


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def finished(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = pretrain(recipe(cohort, tmp_path_factory.mktemp("runs") / "run"))
    assert isinstance(run, Path)
    return run


def test_what_a_run_leaves(finished: Path, cohort: Cohort) -> None:
    assert {"config.yaml", "environment.json", "split.json", "log.jsonl", "summary.json", "checkpoints"} <= set(
        os.listdir(finished)
    )
    split = json.loads((finished / "split.json").read_text())
    assert sorted(s for part in split.values() for s in part) == sorted(set(cohort.index["subject"]))
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    train = [line for line in log if line["split"] == "train"]
    assert [line["step"] for line in train] == list(range(1, len(train) + 1))
    assert {"loss", "cross/loss", "person/accuracy", "lr", "data_wait"} <= set(train[0])
    validation = [line for line in log if line["split"] == "validation"]
    assert len(validation) == 3
    assert {"map/effective_rank", "course/uniformity", "retrieval", "alignment", "knn", "signal"} <= set(validation[0])
    assert json.loads((finished / "environment.json").read_text())["versions"]["torch"]
    again = from_mapping(PretrainConfig, yaml.safe_load((finished / "config.yaml").read_text()), "saved")
    assert again.objectives["cross"].name == "infonce"


def test_the_manifest_knows_train_and_validation_but_not_the_holdout(finished: Path, cohort: Cohort) -> None:
    split = json.loads((finished / "split.json").read_text())
    overlap = checkpoint.load(finished, "last").manifest.overlap(cohort.name, cohort.content_hashes())
    assert sorted(overlap) == sorted(split["train"] + split["validation"])
    renamed = checkpoint.load(finished, "last").manifest.overlap("another name", cohort.content_hashes())
    assert renamed == sorted(overlap), "the content of the files gives it away"


def test_held_out_subjects_are_never_read(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[int] = set()
    fetch = IcaCohort.fetch

    def spy(self: IcaCohort, rows: Any, modalities: Any = None) -> Any:
        read.update(rows.tolist())
        return fetch(self, rows, modalities)

    monkeypatch.setattr(IcaCohort, "fetch", spy)
    pretrain(recipe(cohort, tmp_path / "run", loop__epochs=1))
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    subjects = set(cohort.index["subject"].iloc[sorted(read)])
    assert subjects == set(split["train"]) | set(split["validation"])
    assert split["holdout"]


def test_same_seed_same_bits_and_another_seed_others(finished: Path, cohort: Cohort, tmp_path: Path) -> None:
    pretrain(recipe(cohort, tmp_path / "same"))
    pretrain(recipe(cohort, tmp_path / "other", seed=1))
    assert same(weights(tmp_path / "same"), weights(finished))
    assert not same(weights(tmp_path / "other"), weights(finished))


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the loop's own cleaning up may save anything."""


@pytest.mark.parametrize(("step", "workers"), [(1, 0), (2, 1), (4, 0), (5, 2)])
def test_killed_and_resumed_gives_the_same_bits(
    finished: Path, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, workers: int
) -> None:
    train_batch = Loop._train_batch

    def dying(self: Loop, raw: Any) -> Any:
        if self.done.batch == step:
            raise Killed
        return train_batch(self, raw)

    config = recipe(cohort, tmp_path / "run")
    monkeypatch.setattr(Loop, "_train_batch", dying)
    with pytest.raises(Killed):
        pretrain(config)
    monkeypatch.setattr(Loop, "_train_batch", train_batch)
    torch.manual_seed(123)  # whatever the new process's generator holds
    pretrain(replace(config, resume=True, loop=replace(config.loop, workers=workers)))
    assert same(weights(tmp_path / "run"), weights(finished))
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == [json.loads(line)["step"] for line in (finished / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("changes", [{"optimiser__accumulate": 2}, {"loop__ema": 0.9}])
def test_resume_with_accumulation_and_averaging(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    pretrain(recipe(cohort, tmp_path / "whole", **changes))
    train_batch = Loop._train_batch

    def dying(self: Loop, raw: Any) -> Any:
        if self.done.batch == 3:
            raise Killed
        return train_batch(self, raw)

    config = recipe(cohort, tmp_path / "run", **changes)
    monkeypatch.setattr(Loop, "_train_batch", dying)
    with pytest.raises(Killed):
        pretrain(config)
    monkeypatch.undo()
    pretrain(replace(config, resume=True))
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_ctrl_c_saves_says_so_and_resumes(
    finished: Path, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_batch = Loop._train_batch

    def interrupting(self: Loop, raw: Any) -> Any:
        if self.done.batch == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return train_batch(self, raw)

    config = recipe(cohort, tmp_path / "run", loop__checkpoint_steps=None)
    monkeypatch.setattr(Loop, "_train_batch", interrupting)
    with pytest.raises(Interrupted, match=r"stopped at step 3 of \d+; everything is saved"):
        pretrain(config)
    monkeypatch.undo()
    pretrain(replace(config, resume=True))
    assert same(weights(tmp_path / "run"), weights(finished))


def test_a_loss_that_is_not_finite_names_the_scans(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl4neuro.train.pretrain import PretrainTask

    original = PretrainTask.views

    def poisoned(self: PretrainTask, stored: Any, epoch: int) -> Any:
        batch = original(self, stored, epoch)
        batch["inputs"]["map"][0] = float("nan")
        return batch

    monkeypatch.setattr(PretrainTask, "views", poisoned)
    with pytest.raises(
        UserError, match=r"step 0: the loss is not finite .* sub-\d\d ses-.* \(rows \d+ to \d+\).*optimiser\.rate"
    ) as caught:
        pretrain(recipe(cohort, tmp_path / "run"))
    assert "\n" not in str(caught.value)


def test_a_batch_of_one_subject_names_it(cohort: Cohort, tmp_path: Path) -> None:
    config = recipe(cohort, tmp_path / "run", sampling__kind="subjects", sampling__batch_size=1, objectives__states=None)
    with pytest.raises(UserError, match=r"one subject.*sub-\d\d.*raise sampling\.batch_size"):
        pretrain(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives__states__labels": ["stat"]}, r"no column 'stat' \(did you mean 'state'\?\)"),
        ({"split__hold_sites": ["Z"]}, "no site 'Z'"),
        ({"optimiser__accumulate": 1000}, "accumulate is larger"),
        ({"modalities__map__encoder__preset": "huge"}, "no preset 'huge'"),
    ],
)
def test_mistakes_leave_nothing_behind(cohort: Cohort, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pretrain(recipe(cohort, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_resumed(finished: Path, cohort: Cohort, tmp_path: Path, make_cohort: Callable[..., Cohort]) -> None:
    config = recipe(cohort, finished)
    with pytest.raises(UserError, match="add --resume"):
        pretrain(config)
    with pytest.raises(UserError, match=r"optimiser\.rate was 0\.001 and is 0\.5 now"):
        pretrain(replace(config, resume=True, optimiser=replace(config.optimiser, rate=0.5)))
    with pytest.raises(UserError, match="no run to resume"):
        pretrain(replace(config, out=str(tmp_path / "none"), resume=True))
    with pytest.raises(UserError, match="one subject only"):
        pretrain(recipe(make_cohort(tmp_path / "single", subjects=1), tmp_path / "run"))
    with pytest.raises(UserError, match="--data COHORT is missing"):
        pretrain(replace(config, data=""))


def test_crossfit_holds_every_subject_out_once(cohort: Cohort, tmp_path: Path) -> None:
    pretrain(recipe(cohort, tmp_path / "run", crossfit=2, loop__epochs=1))
    held = [s for k in range(2) for s in json.loads((tmp_path / "run" / f"fold-{k}" / "split.json").read_text())["holdout"]]
    assert sorted(held) == sorted(set(cohort.index["subject"]))


def test_estimate_writes_nothing(cohort: Cohort, tmp_path: Path) -> None:
    found = pretrain(replace(recipe(cohort, tmp_path / "run"), estimate=True))
    assert isinstance(found, Estimate)
    assert found.steps == 6
    assert found.seconds_per_step > 0
    assert "parameters" in str(found)
    assert not (tmp_path / "run").exists()


def test_half_precision_and_averaging_train_and_validate(cohort: Cohort, tmp_path: Path) -> None:
    AcceleratorState._reset_state()  # Accelerate keeps one precision per process
    try:
        pretrain(recipe(cohort, tmp_path / "run", loop__precision="bf16", loop__ema=0.9, loop__epochs=1))
    finally:
        AcceleratorState._reset_state()
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert 0 <= log[-1]["knn"] <= 1
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())


def test_early_stopping_keeps_the_best(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl4neuro.train.validation import Validation

    signals = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(Validation, "__call__", lambda self, model: {"signal": next(signals)})
    pretrain(recipe(cohort, tmp_path / "run", loop__epochs=6, monitor__patience=2))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stopped_early"]
    assert summary["epochs"] == 4
    assert summary["best_signal"] == 1.0
    assert checkpoint.load(tmp_path / "run", "best").epoch == 2
    assert checkpoint.load(tmp_path / "run", "last").epoch == 4


def test_two_processes_train_like_one(cohort: Cohort, tmp_path: Path, finished: Path) -> None:
    """Same samples in the same order; sums are rounded in another order, so weights agree only closely."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "fusion": {"modality_dropout": 0.0}}, sort_keys=False))
    words = [
        "pretrain",
        str(path),
        "--data",
        str(cohort.path),
        "--out",
        str(tmp_path / "two"),
        "--loop.epochs",
        "1",
        "--optimiser.name",
        "sgd",
    ]
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        "29531",
        "-m",
        "ssl4neuro",
        *words,
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    pretrain(recipe(cohort, tmp_path / "one", loop__epochs=1, optimiser__name="sgd", fusion__modality_dropout=0.0))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    start = weights(finished)
    assert not same(one, start)
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-5), name


def test_mix_spreads_neighbouring_steps() -> None:
    seeds = {mix(seed, step, rank) for seed in range(10) for step in range(100) for rank in range(2)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)
