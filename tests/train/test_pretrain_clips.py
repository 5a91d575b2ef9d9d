"""Pretraining of clips: every shipped cine recipe from the folder to the probe, resumed bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from clip_sources import acdc

from ssl4neuro import checkpoint
from ssl4neuro.cli import main
from ssl4neuro.config import load
from ssl4neuro.data.clip_loading import ClipConfig
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.embeddings import Embeddings
from ssl4neuro.data.prepare_clips import prepare_clips
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.embed import clip_config, embed
from ssl4neuro.evaluate.probe import probe
from ssl4neuro.shipped import find_recipe
from ssl4neuro.train.loop import Loop
from ssl4neuro.train.pretrain import PretrainConfig, pretrain
from ssl4neuro.train.warmup import Choice, choose, this_process

RECIPES = ("cine_contrastive", "cine_masked", "cine_predictive")
SMALL = [
    "--clip.frames",
    "4",
    "--clip.size",
    "32",
    "--loop.epochs",
    "2",
    "--loop.checkpoint_steps",
    "1",
    "--sampling.batch_size",
    "3",
]
SMALL += ["--split.validation", "0.3", "--monitor.every", "1"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("clips")
    return prepare_clips(folder / "cohort", source=acdc(folder / "acdc", patients=10, frames=8), layout="acdc")


def config(name: str, cohort: Cohort, out: Path, *flags: str) -> PretrainConfig:
    return load(PretrainConfig, find_recipe(name), ["--data", str(cohort.path), "--out", str(out), *SMALL, *flags])


@pytest.fixture(scope="module")
def runs(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: Path(str(pretrain(config(name, cohort, folder / name)))) for name in RECIPES}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_from_the_cohort_to_the_probe(name: str, cohort: Cohort, runs: dict[str, Path], tmp_path: Path) -> None:
    log = [json.loads(line) for line in (runs[name] / "log.jsonl").read_text().splitlines()]
    validation = [line for line in log if line["split"] == "validation"]
    assert len(validation) == 2
    assert {"cine/effective_rank", "cine/uniformity", "cine/spread", "signal"} <= set(validation[0])
    assert all(np.isfinite(line["loss"]) for line in log)
    embed(runs[name], cohort.path, tmp_path / "e")
    opened = Embeddings.open(tmp_path / "e")
    assert {"view", "slice", "seen"} <= set(opened.table("sample").columns)
    assert opened.matrix("subject", "cine").shape[0] == 10
    result = probe(
        tmp_path / "e", target="group", out=tmp_path / "r", column="cine", permutations=0, bootstrap=50, allow_overlap=True
    )
    names = {row.name for row in result.rows}
    assert {
        "cine",
        "PCA of mean and sd image + logistic",
        "motion energy + logistic",
        "intensity and header + logistic",
    } <= names


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_stopped_and_resumed_has_the_same_bits(
    name: str, cohort: Cohort, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moving averages and the random masks included."""
    train_batch, steps = Loop._train_batch, []

    def dying(self: Loop, raw: Any) -> Any:
        steps.append(1)
        if len(steps) == 2:
            raise RuntimeError("killed")
        return train_batch(self, raw)

    monkeypatch.setattr(Loop, "_train_batch", dying)
    with pytest.raises(RuntimeError, match="killed"):
        pretrain(config(name, cohort, tmp_path / "run"))
    monkeypatch.setattr(Loop, "_train_batch", train_batch)
    pretrain(config(name, cohort, tmp_path / "run", "--resume"))
    there, here = (checkpoint.load(run, "last").model for run in (runs[name], tmp_path / "run"))
    assert there.keys() == here.keys()
    assert all(torch.equal(there[key], here[key]) for key in there)


def test_the_contract_says_how_clips_are_cut_and_embedding_does_so(cohort: Cohort, runs: dict[str, Path]) -> None:
    saved = checkpoint.load(runs["cine_contrastive"], "last")
    assert clip_config(saved.contract) == ClipConfig(frames=4, size=32)
    assert saved.contract["motion"]["residual_of"] == "cine"


def test_other_cohorts_are_embedded_only_when_they_fit(runs: dict[str, Path], tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 200, (12, 40, 40, 3), dtype=np.uint8)
    for subject in ("a", "b"):
        (tmp_path / "videos" / subject).mkdir(parents=True)
        np.savez(tmp_path / "videos" / subject / "echo.npz", frames=np.roll(values, ord(subject), axis=1))
    other = prepare_clips(tmp_path / "c", source=tmp_path / "videos", layout="files")
    with pytest.raises(UserError, match=r"cine\.channels: trained on grey, cohort is colour.*cine\.cyclic"):
        embed(runs["cine_contrastive"], other.path, tmp_path / "e")
    embed(runs["cine_contrastive"], other.path, tmp_path / "e", adapt=["colour", "cyclic"])
    assert Embeddings.open(tmp_path / "e").matrix("sample", "motion").shape[0] == 2


def test_samples_are_found_again(
    cohort: Cohort, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(runs["cine_contrastive"], cohort.path, tmp_path / "e")
    assert main(["index", str(tmp_path / "e"), str(tmp_path / "i")]) == 0
    assert main(["query", str(tmp_path / "i"), "--row", "0", "--from", "cine", "--to", "motion", "-k", "3"]) == 0
    assert main(["retrieve", str(tmp_path / "e"), "--allow-overlap"]) == 0
    told = capsys.readouterr().out
    assert "cine to motion top-1" in told
    assert "slice" in told
    assert "patient0" in told


def test_one_modality_has_nothing_to_be_retrieved_in(
    cohort: Cohort, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(runs["cine_masked"], cohort.path, tmp_path / "e")
    assert main(["retrieve", str(tmp_path / "e"), "--allow-overlap"]) == 2
    assert "needs two modalities in one space, and none is" in capsys.readouterr().err


def test_the_attention_probe_pools_slices(cohort: Cohort, runs: dict[str, Path], tmp_path: Path) -> None:
    embed(runs["cine_contrastive"], cohort.path, tmp_path / "e")
    result = probe(
        tmp_path / "e", target="group", out=None, column="cine", probe="attention", permutations=0, bootstrap=50,
        allow_overlap=True, baselines=False,
    )  # fmt: skip
    assert 0 <= result.row("cine").value <= 1
    words = [
        "probe",
        str(tmp_path / "e"),
        "--target",
        "group",
        "--probe",
        "attention",
        "--permutations",
        "0",
        "--allow-overlap",
    ]
    assert main([*words, "--column", "cine", "--no-baselines", "--out", str(tmp_path / "r")]) == 0
    assert main([*words[:5], "attentoin", "--out", str(tmp_path / "q")]) == 2
    bags = Embeddings.open(tmp_path / "e").bags("subject", "cine")
    assert bags.shape[:2] == (10, 2)
    np.testing.assert_allclose(np.nanmean(bags, axis=1), Embeddings.open(tmp_path / "e").matrix("subject", "cine"), atol=1e-5)


@pytest.fixture
def any_precision() -> Any:
    """Accelerate keeps one precision per process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("any_precision")
def test_precision_is_chosen_by_measuring(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl4neuro.train.warmup.STEPS", 1)
    run = Path(
        str(pretrain(config("cine_contrastive", cohort, tmp_path / "run", "--loop.precision", "auto", "--loop.epochs", "1")))
    )
    measured = json.loads((run / "precision.json").read_text())
    assert [(m["precision"], m["channels_last"]) for m in measured] == [
        ("no", False),
        ("no", True),
        ("bf16", False),
        ("bf16", True),
    ]
    saved = load(PretrainConfig, run / "config.yaml")
    assert saved.loop.precision in {"no", "bf16"}
    pretrain(config("cine_contrastive", cohort, run, "--loop.precision", "auto", "--loop.epochs", "1", "--resume"))


def test_plain_float32_stays_unless_another_setting_is_faster() -> None:
    plain, same, fast, broken = (
        Choice("no", False, 1.0),
        Choice("no", True, 0.97),
        Choice("bf16", True, 0.5),
        Choice("bf16", False, np.inf),
    )
    state = this_process()
    assert choose([plain, same, broken], state) is plain
    assert choose([plain, same, broken, fast], state) is fast
    with pytest.raises(UserError, match="not finite in any precision"):
        choose([broken], state)


def test_motion_of_single_frames_is_an_error_that_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for subject in "abcdef":
        (tmp_path / "stills" / subject).mkdir(parents=True)
        np.savez(tmp_path / "stills" / subject / "x.npz", frames=rng.integers(0, 200, (1, 40, 40), dtype=np.uint8))
    cohort = prepare_clips(tmp_path / "c", source=tmp_path / "stills", layout="files")
    with pytest.raises(UserError, match="one frame"):
        pretrain(config("cine_contrastive", cohort, tmp_path / "run"))


def test_a_run_that_began_with_a_weights_file_needs_it_no_more(cohort: Cohort, tmp_path: Path) -> None:
    from ssl4neuro.encoders import FrameEncoder

    file = tmp_path / "public.pth"
    torch.manual_seed(3)
    torch.save(FrameEncoder(dim=64, body="tiny").body.state_dict(), file)
    flags = ["--modalities.cine.encoder", f"{{name: frame, preset: tiny, weights: {file}}}"]
    run = Path(str(pretrain(config("cine_contrastive", cohort, tmp_path / "run", *flags))))
    file.unlink()
    embed(run, cohort.path, tmp_path / "e")
    pretrain(config("cine_contrastive", cohort, run, *flags, "--resume"))
    with pytest.raises(UserError, match="public"):
        pretrain(config("cine_contrastive", cohort, tmp_path / "again", *flags))
