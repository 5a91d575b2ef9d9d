"""Embedding a cohort: equal whatever the batches, continued after a kill, checked against contract and firewall."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl4neuro import checkpoint
from ssl4neuro.config import from_mapping, to_mapping
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.embeddings import Embeddings
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate import embed as embedding
from ssl4neuro.evaluate.embed import embed
from ssl4neuro.manifest import Manifest
from ssl4neuro.model import Model, ModelConfig

MODEL: dict[str, Any] = {
    "modalities": {
        "map": {"encoder": {"name": "volume_resnet", "preset": "tiny"}},
        "course": {"encoder": {"name": "course_session", "preset": "tiny"}},
    },
    "objectives": {"cross": {"name": "infonce"}, "states": {"name": "supcon", "labels": ["state"]}},
}


def save_run(path: Path, cohort: Cohort, seen: tuple[str, ...]) -> Path:
    """A checkpoint with random weights that says it has seen these subjects."""
    config = from_mapping(ModelConfig, MODEL, "test")
    contents = {c for s in seen for c in cohort.content_hashes()[s]}
    checkpoint.save(
        path,
        step=1,
        epoch=1,
        model=Model(config).state_dict(),
        contract=cohort.info["contract"],
        manifest=Manifest.of(cohort.name, seen, contents),
        config={"model": to_mapping(config)},
    )
    return path


@pytest.fixture(scope="module")
def cohort(make_cohort: Callable[..., Cohort], tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("embed") / "cohort")


@pytest.fixture(scope="module")
def run(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("embed") / "run", cohort, ("sub-00", "sub-03"))


def test_rows_keep_their_order_and_batches_change_nothing(run: Path, cohort: Cohort, tmp_path: Path) -> None:
    one = Embeddings.open(embed(run, cohort.path, tmp_path / "one", batch_scans=1))
    all_at_once = Embeddings.open(embed(run, cohort.path, tmp_path / "all", batch_scans=100))
    assert one.table("sample")[["subject", "session", "component"]].equals(
        cohort.index[["subject", "session", "component"]].astype(
            one.table("sample")[["subject", "session", "component"]].dtypes
        )
    )
    assert {"map", "course", "joint", "map_projected", "course_projected"} == set(one.columns)
    for unit in ("sample", "session"):
        for column in one.columns:
            assert np.allclose(one.matrix(unit, column), all_at_once.matrix(unit, column), atol=1e-4), (unit, column)
    assert len(one.table("session")) == 12
    assert one.table("session")["rows"].tolist() == [4] * 12


def test_seen_follows_names_and_files(run: Path, cohort: Cohort, make_cohort: Callable[..., Cohort], tmp_path: Path) -> None:
    table = Embeddings.open(embed(run, cohort.path, tmp_path / "own")).table("subject")
    assert dict(zip(table["subject"], table["seen"], strict=True)) == {f"sub-{i:02d}": i in (0, 3) for i in range(6)}
    renamed = make_cohort(tmp_path / "renamed", name="another")  # the same scans under another dataset name
    assert (
        Embeddings.open(embed(run, renamed.path, tmp_path / "same-files")).table("subject")["seen"].tolist()
        == table["seen"].tolist()
    )
    other = make_cohort(tmp_path / "other", name="another", seed=9)
    assert not Embeddings.open(embed(run, other.path, tmp_path / "others")).table("subject")["seen"].any()


def test_a_killed_embedding_continues(run: Path, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[str] = []
    save_file = embedding.save_file

    def dying(vectors: Any, path: Any) -> None:
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(str(path))
        save_file(vectors, path)

    monkeypatch.setattr(embedding, "save_file", dying)
    with pytest.raises(KeyboardInterrupt):
        embed(run, cohort.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(embedding, "save_file", lambda vectors, path: (saved.append(str(path)), save_file(vectors, path)))
    embed(run, cohort.path, tmp_path / "out")
    assert len(saved) == 3, "12 scans in 3 parts, two of them kept"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_is_refused(run: Path, cohort: Cohort, make_cohort: Callable[..., Cohort], tmp_path: Path) -> None:
    embed(run, cohort.path, tmp_path / "out")
    with pytest.raises(UserError, match="exists already"):
        embed(run, cohort.path, tmp_path / "out")
    with pytest.raises(UserError, match=r"course\.tr"):
        embed(run, make_cohort(tmp_path / "fast", tr=0.7).path, tmp_path / "fast-out")
    with pytest.raises(UserError, match="unknown adaptation 'grdi'"):
        embed(run, cohort.path, tmp_path / "x", adapt=("grdi",))
    with pytest.raises(UserError, match="no such run"):
        embed(tmp_path / "nowhere", cohort.path, tmp_path / "x")


def test_courses_alone_are_embedded(run: Path, make_cohort: Callable[..., Cohort], tmp_path: Path) -> None:
    courses = make_cohort(tmp_path / "courses", maps=False, name="new", seed=4)
    opened = Embeddings.open(embed(run, courses.path, tmp_path / "out"))
    assert "map" not in opened.columns
    assert np.isfinite(opened.matrix("session", "joint")).all()


def test_embed_writes_layers_that_batches_do_not_change(
    run: Path, cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Embeddings.open(embed(run, cohort.path, tmp_path / "one", batch_scans=1, layers=True))
    printed = capsys.readouterr().out
    assert "the encoder of 'course' has no stages to read" in printed
    many = Embeddings.open(embed(run, cohort.path, tmp_path / "many", batch_scans=100, layers=True))
    layers = [c for c in one.columns if "_layer" in c]
    assert layers[0] == "map_layer1"
    assert len(layers) > 1
    for name in layers:
        for unit in ("sample", "session"):
            assert np.allclose(one.matrix(unit, name), many.matrix(unit, name), atol=1e-4), (unit, name)
        rows = one.table("sample").groupby(["subject", "session", "run"], sort=False).ngroup().to_numpy()
        means = np.stack([one.matrix("sample", name)[rows == i].mean(0) for i in range(rows.max() + 1)])
        np.testing.assert_allclose(one.matrix("session", name), means, atol=1e-5)
    plain = Embeddings.open(embed(run, cohort.path, tmp_path / "plain"))
    assert not [c for c in plain.columns if "_layer" in c]
    np.testing.assert_allclose(plain.matrix("sample", "map"), one.matrix("sample", "map"), atol=1e-4)


def test_the_record_carries_contract_and_encoder(run: Path, cohort: Cohort, tmp_path: Path) -> None:
    info = Embeddings.open(embed(run, cohort.path, tmp_path / "out")).info
    assert info["contract"] == json.loads(json.dumps(cohort.info["contract"]))
    assert info["checkpoint_sha256"] == checkpoint.load(run).checkpoint_sha256
    assert info["rows"] == len(cohort)


def test_two_processes_share_the_work(run: Path, cohort: Cohort, tmp_path: Path) -> None:
    words = ["embed", str(run), str(cohort.path), str(tmp_path / "two"), "--batch-scans", "1"]
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        "29537",
        "-m",
        "ssl4neuro",
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *words], env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("Traceback") == 0
    one, two = Embeddings.open(embed(run, cohort.path, tmp_path / "one", batch_scans=1)), Embeddings.open(tmp_path / "two")
    for column in one.columns:
        assert np.allclose(one.matrix("sample", column), two.matrix("sample", column), atol=1e-5), column
