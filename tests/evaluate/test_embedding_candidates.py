"""Columns, layers and prefixes that a probe evaluates, and tables of other tools through the whole probe and the commands."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ssl4neuro.cli import main
from ssl4neuro.data.embeddings import Embeddings, write_embeddings
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.embedding_candidates import columns_to_probe
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.prefix import PrefixFeatures
from ssl4neuro.evaluate.probe import NO_COHORT, probe, probe_arrays

FAST = {"permutations": 19, "bootstrap": 50}


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is asked for is in the second of three stages."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"subject": [f"s{i:02d}" for i in range(24)], "session": "", "run": "", "seen": False})
    group = np.tile(["a", "b"], 12)
    columns = {
        name: rng.normal(size=(24, 6)).astype(np.float32)
        for name in ("map", "map_layer1", "map_layer2", "map_layer10", "joint")
    }
    columns["map_layer2"][:, 4] += 3 * (group == "b")
    path = tmp_path_factory.mktemp("layers")
    pd.DataFrame({"participant_id": frame["subject"], "group": group}).to_csv(path / "p.tsv", sep="\t", index=False)
    return write_embeddings(path / "e", {"name": "t"}, frame, frame, columns, columns, {"participants.tsv": path / "p.tsv"})


def test_layers_stand_side_by_side_in_order_of_depth(layered: Path, tmp_path: Path) -> None:
    result = probe(layered, target="group", out=tmp_path / "out", column="layers", baselines=False, **FAST)
    names = list(dict.fromkeys(row.name for row in result.rows))
    assert names == ["map_layer1", "map_layer2", "map_layer10", "map"]
    table = pd.read_csv(tmp_path / "out" / "layers.tsv", sep="\t")
    auc = table[table["metric"] == "AUC"].set_index("layer")["value"]
    assert list(auc.index) == ["1", "2", "10", "output"]
    assert auc["2"] > 0.9
    assert auc.drop("2").max() < auc["2"] - 0.1
    assert set(table["modality"]) == {"map"}


def test_layers_are_evaluated_on_request_only(layered: Path, tiny: SimpleNamespace) -> None:
    opened = Embeddings.open(layered)
    assert columns_to_probe(opened, "subject", None) == ["joint"]
    assert columns_to_probe(opened, "subject", "all") == ["map", "joint"]
    assert columns_to_probe(opened, "subject", "map_layer1") == ["map_layer1"]
    with pytest.raises(UserError, match="has no layers; embed the cohort again with --layers"):
        columns_to_probe(Embeddings.open(tiny.path), "session", "layers")


def test_prefixes_are_the_first_dimensions(layered: Path) -> None:
    result = probe(layered, target="group", out=None, column="map_layer2", prefix=(4, 5), baselines=False, **FAST)
    assert list(dict.fromkeys(row.name for row in result.rows)) == ["map_layer2", "map_layer2[:4]", "map_layer2[:5]"]
    opened = Embeddings.open(layered)
    x, y = opened.matrix("subject", "map_layer2"), opened.table("subject")["group"].to_numpy()
    for length in (4, 5):
        alone = probe_arrays({"x": x[:, :length]}, y, opened.table("subject")["subject"].to_numpy(), unit="subject", **FAST)
        assert alone.row("x").value == result.row(f"map_layer2[:{length}]").value
    assert result.row("map_layer2[:5]").value > result.row("map_layer2[:4]").value + 0.2
    with pytest.raises(UserError, match="prefix: 7: 'map_layer2' has 6 dimensions"):
        probe(layered, target="group", out=None, column="map_layer2", prefix=(7,), **FAST)


def test_prefixes_of_bags_cut_the_features_not_the_clips() -> None:
    bags = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    left, right = PrefixFeatures(ArrayFeatures(bags), 2).fold(np.array([0]), np.array([1]))
    np.testing.assert_array_equal(left, bags[:1, :, :2])
    np.testing.assert_array_equal(right, bags[1:, :, :2])


def _export(tiny: SimpleNamespace, path: Path) -> Path:
    """The tiny cohort's session embeddings as another tool would leave them."""
    opened = Embeddings.open(tiny.path)
    keys = opened.table("session")[["subject", "session"]].rename(
        columns={"subject": "participant_id", "session": "session_id"}
    )
    vectors = pd.DataFrame(opened.matrix("session", "joint")).add_prefix("emb_")
    pd.concat([keys.reset_index(drop=True), vectors], axis=1).to_csv(path, index=False)
    return path


def test_a_foreign_table_gives_the_numbers_of_the_same_vectors(tiny: SimpleNamespace, tmp_path: Path) -> None:
    table = _export(tiny, tmp_path / "theirs.csv")
    labels = tiny.cohort.path / "sessions.tsv"
    theirs = probe(table, target="state", out=tmp_path / "out", participants=labels, **FAST)
    ours = probe(tiny.path, target="state", out=None, allow_overlap=True, **FAST)
    assert theirs.row("emb").value == pytest.approx(ours.row("joint").value, abs=1e-6)
    assert theirs.row("emb").n_subjects == 12  # nobody is known to have been seen
    assert NO_COHORT in theirs.notes
    assert "majority" in {row.name for row in theirs.rows}
    assert "FNC + logistic" not in {row.name for row in theirs.rows}
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["source"]["foreign"] is True
    assert len(record["source"]["table_sha256"]) == 64
    with_cohort = probe(table, target="state", out=None, participants=labels, cohort=tiny.cohort.path, **FAST)
    assert with_cohort.row("FNC + logistic").value == pytest.approx(ours.row("FNC + logistic").value)


def test_our_own_embeddings_take_further_labels(tiny: SimpleNamespace, tmp_path: Path) -> None:
    people = Embeddings.open(tiny.path).table("subject")["subject"]
    pd.DataFrame({"participant_id": people, "arm": ["x", "y"] * 6}).to_csv(tmp_path / "p.tsv", sep="\t", index=False)
    result = probe(tiny.path, target="arm", out=None, participants=tmp_path / "p.tsv", baselines=False, **FAST)
    assert result.classes == ("x", "y")
    with pytest.raises(UserError, match="an embeddings folder needs neither"):
        probe(tiny.path, target="arm", out=None, features=("emb_",), **FAST)


def test_from_the_command_line(tiny: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = _export(tiny, tmp_path / "theirs.csv")
    words = ["probe", str(table), "--target", "state", "--participants", str(tiny.cohort.path / "sessions.tsv")]
    options = ["--permutations", "19", "--prefix", "2,4", "--features", "emb_", "--probe", "ridge"]
    assert main([*words, *options, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "emb[:4]" in shown
    assert "features of theirs.csv: emb (columns emb_0 to emb_7, 8 dimensions)" in shown
    assert main([*words, "--prefix", "two", "--out", str(tmp_path / "again")]) == 2
    assert "whole numbers are needed" in capsys.readouterr().err
    assert main(["identify", str(table)]) == 0
    assert "emb" in capsys.readouterr().out
    assert main(["retrieve", str(table)]) == 2
    assert "two modalities in one space" in capsys.readouterr().err
