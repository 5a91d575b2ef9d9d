"""Explaining a run: planted regions and bands are found, nobody who trained is explained, and the folder holds what it says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from clip_sources import acdc
from scipy import stats
from torch import Tensor, nn

from ssl4neuro import checkpoint
from ssl4neuro.cli import main
from ssl4neuro.config import from_mapping, to_mapping
from ssl4neuro.data.clip_loading import ClipConfig
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.prepare_clips import prepare_clips
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate import explain_write
from ssl4neuro.evaluate.explain import explain
from ssl4neuro.evaluate.explain_fill import mean_maps
from ssl4neuro.evaluate.explain_inputs import Inputs, embed_rows
from ssl4neuro.evaluate.explain_model import Explanation, explain_model
from ssl4neuro.evaluate.explain_parts import ExplainConfig
from ssl4neuro.evaluate.explain_summary import Rows, _flips, _t, cells, compare, mean_change, summarise, verdicts
from ssl4neuro.evaluate.explain_target import ask, read_out
from ssl4neuro.manifest import Manifest
from ssl4neuro.model import Model, ModelConfig
from ssl4neuro.types import Encoding

MODEL: dict[str, Any] = {
    "modalities": {
        "map": {"encoder": {"name": "volume_resnet", "preset": "tiny"}},
        "course": {"encoder": {"name": "course_conv", "preset": "tiny"}},
    },
    "objectives": {"cross": {"name": "infonce"}, "states": {"name": "supcon", "labels": ["state"]}},
}
CLIPS: dict[str, Any] = {
    "modalities": {"cine": {"encoder": {"name": "frame", "preset": "tiny"}, "views": 2}},
    "objectives": {"views": {"name": "infonce", "between": ["cine"]}},
}


def model_of(mapping: dict[str, Any]) -> Model:
    torch.manual_seed(0)
    return Model(from_mapping(ModelConfig, mapping, "test")).eval()


def save_run(path: Path, cohort: Cohort, mapping: dict[str, Any], seen: tuple[str, ...], loading: Any = None) -> Path:
    """A checkpoint with random weights that says it has seen these subjects."""
    contract = {
        m: {**entry, **({} if loading is None else {"loading": loading})} for m, entry in cohort.info["contract"].items()
    }
    contents = {c for s in seen for c in cohort.content_hashes()[s]}
    checkpoint.save(
        path,
        step=1,
        epoch=1,
        model=model_of(mapping).state_dict(),
        contract=contract,
        manifest=Manifest.of(cohort.name, seen, contents),
        config={"model": to_mapping(from_mapping(ModelConfig, mapping, "test"))},
    )
    return path


@pytest.fixture(scope="module")
def cohort(make_cohort: Callable[..., Cohort], tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("explain") / "cohort", subjects=8)


@pytest.fixture(scope="module")
def atlas(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight named cubes."""
    half = np.arange(16) // 8
    labels = 1 + half[:, None, None] * 4 + half[None, :, None] * 2 + half[None, None, :]
    path = tmp_path_factory.mktemp("atlas") / "cubes_dseg.nii.gz"
    nib.save(nib.Nifti1Image(labels.astype(np.int16), cohort.affine), path)
    names = pd.DataFrame({"index": np.arange(1, 9), "name": [f"cube {k}" for k in range(1, 9)]})
    names.to_csv(path.with_name("cubes_dseg.tsv"), sep="\t", index=False)
    return path


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brains are drawn in `tests/data/test_brain_plots.py`; here they would only cost seconds."""

    def stub(stem: Path, *_: Any, **__: Any) -> list[Path]:
        path = stem.with_name(f"{stem.name}.png")
        path.touch()
        return [path]

    monkeypatch.setattr(explain_write, "draw_brain", stub)


class Looks(nn.Module):
    """An encoder that sees one cube of a map, or one band of a course, and a constant."""

    dim = 2

    def __init__(self, where: Tensor | tuple[float, float]) -> None:
        super().__init__()
        self.where, self.weight = where, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, valid=None, rate=None, group=None, times=None) -> Encoding:
        if isinstance(self.where, Tensor):
            value = (x[:, 0] * self.where).square().flatten(1).sum(1)
        else:
            spectrum = torch.fft.rfft(x)
            frequency = torch.fft.rfftfreq(x.shape[1], d=float(rate[0]))
            inside = (frequency >= self.where[0]) & (frequency < self.where[1])
            value = spectrum.abs().square()[:, inside].sum(1) / x.shape[1]
        return Encoding(torch.stack([value * self.weight, torch.ones_like(value)], dim=1))


def test_a_planted_region_is_found_and_no_other(cohort: Cohort, atlas: Path) -> None:
    model = model_of(MODEL)
    labels = torch.from_numpy(np.asarray(nib.load(atlas).dataobj)).long()
    model.encoders["map"] = Looks(labels == 6)
    rows = np.array([3, 0, 17, 40])
    found = explain_model(
        model, cohort, rows, {"map": np.array([1.0, 0.0])}, modalities=("map",), methods=("occlusion",),
        config=ExplainConfig(atlas=str(atlas), batch=3), show=False,
    )["map"]  # fmt: skip
    assert found.parts["region"]["region"].tolist() == [f"cube {k}" for k in range(1, 9)]
    changes = found.changes["region"]
    maps = np.zeros((len(rows), *cohort.mask.shape))
    maps[:, cohort.mask] = cohort.fetch(rows, ("map",))["map"].astype(float)
    expected = np.zeros((4, 8))
    expected[:, 5] = (maps[:, labels.numpy() == 6] ** 2).sum(1)
    assert np.allclose(changes, expected, rtol=1e-3, atol=1e-3)


def test_a_planted_band_is_found_whatever_the_batch(cohort: Cohort) -> None:
    model = model_of(MODEL)
    model.encoders["course"] = Looks((0.027, 0.05))
    rows = np.flatnonzero(cohort.index["length"] == 64)[:8]  # of one length, so that the encoder's own transform is exact
    found = explain_model(
        model, cohort, rows, {"course": np.array([1.0, 0.0])}, modalities=("course",), methods=("occlusion",), show=False
    )["course"]
    mean = found.changes["band"].mean(0)
    best = found.parts["band"].iloc[int(mean.argmax())]
    assert best["band"] == "0.027 to 0.05 Hz"
    assert mean.max() > 20 * np.delete(mean, mean.argmax()).max()


def test_regions_are_filled_with_the_mean_of_the_training_subjects(cohort: Cohort, atlas: Path) -> None:
    model = model_of(MODEL)
    labels = np.asarray(nib.load(atlas).dataobj)
    cube = torch.from_numpy(labels == 6)
    model.encoders["map"] = Looks(cube)
    question, inputs = ask(cohort, {"sub-01", "sub-02"}, folds=3), Inputs(cohort, ("map",))
    fill = mean_maps(inputs, question, "map", size=7)
    maps = np.zeros((len(cohort), *cohort.mask.shape))
    maps[:, cohort.mask] = cohort.fetch(np.arange(len(cohort)), ("map",))["map"].astype(float)
    where = np.flatnonzero(question.tested)
    for k in (0, 11, 30):
        fold = next(f for f in question.folds if where[k] in f.test)
        assert not set(question.subjects[fold.train]) & {question.subjects[where[k]]}
        same = fold.train[question.groups[fold.train] == question.groups[where[k]]]
        assert np.allclose(fill.volumes[fill.which[k]], maps[question.rows[same]].mean(0), atol=1e-4)
    rows = question.rows[where][[0, 11, 30]]
    found = explain_model(
        model, inputs, rows, {"map": np.array([1.0, 0.0])}, fill={"map": fill.take(np.array([0, 11, 30]))},
        methods=("occlusion",), config=ExplainConfig(atlas=str(atlas), batch=2), show=False,
    )["map"].changes["region"]  # fmt: skip
    inside = (maps[rows][:, labels == 6] ** 2).sum(1) - (fill.volumes[fill.which[[0, 11, 30]]][:, labels == 6] ** 2).sum(1)
    assert np.allclose(found[:, 5], inside, rtol=1e-3, atol=1e-2)
    assert np.abs(np.delete(found, 5, axis=1)).max() < 1e-3


def test_one_direction_per_row_and_whole_sessions_for_encoders_that_see_them(cohort: Cohort) -> None:
    mapping = {
        **MODEL,
        "modalities": {**MODEL["modalities"], "course": {"encoder": {"name": "course_session", "preset": "tiny"}}},
    }
    model, rng = model_of(mapping), np.random.default_rng(0)
    rows = np.array([5, 9, 2, 30])
    direction = rng.normal(size=(4, model.dims["course"])).astype(np.float32)
    arguments: dict[str, Any] = {"modalities": ("course",), "methods": ("occlusion",), "show": False}
    some = explain_model(model, cohort, rows, {"course": direction}, **arguments)["course"].changes["band"]
    for i, row in enumerate(rows[:2]):
        scan = np.flatnonzero(cohort.index["group_code"] == cohort.index["group_code"][row])
        whole = explain_model(model, cohort, scan, {"course": direction[i]}, **arguments)["course"].changes["band"]
        assert np.allclose(some[i], whole[scan.tolist().index(row)], atol=1e-4)


def test_the_joint_embedding_is_explained_by_altering_one_modality(cohort: Cohort, atlas: Path) -> None:
    mapping = {**MODEL, "objectives": {"states": {"name": "supcon", "labels": ["state"]}}}
    model, rows = model_of(mapping), np.arange(4)
    inputs = Inputs(cohort, model.modalities)
    vectors = embed_rows(model, inputs, rows, "map", "joint")
    batch = inputs.batch(rows)
    with torch.no_grad():
        assert np.allclose(vectors, model.embeddings(batch)["joint"].numpy(), atol=1e-5)
    found = explain_model(model, inputs, rows, column="joint", config=ExplainConfig(atlas=str(atlas)), show=False)
    assert (found["map"].changes["region"] > 0).all()
    assert (found["course"].changes["band"] > -1e-6).all()


def test_the_direction_of_a_subject_knows_nothing_of_its_own_labels(cohort: Cohort) -> None:
    rng = np.random.default_rng(1)
    question = ask(cohort, {"sub-00"}, target="state", folds=4)
    assert not question.tested[question.subjects == "sub-00"].any()
    state = np.where(question.classes == "pre", -1.0, 1.0)
    vectors = rng.normal(size=(len(question.rows), 6)).astype(np.float32)
    vectors[:, 2] += 2 * state
    answer = read_out(question, vectors)
    assert all(interval.value > 0.8 for _, interval in answer.skill.values())
    mine = question.subjects == "sub-05"
    altered = vectors.copy()
    altered[mine] = rng.normal(size=(mine.sum(), 6))
    other = read_out(question, altered)
    assert np.allclose(other.direction[mine], answer.direction[mine], atol=1e-5)
    # the score of the own class rises along the planted feature for one class and falls for the other
    tested = question.tested
    assert (np.sign(answer.direction[tested, 2]) == state[tested]).all()
    assert (answer.direction[~tested] == 0).all()


def test_a_direction_gives_the_scores_of_the_probe(cohort: Cohort) -> None:
    """Linear: differences of `embedding · direction` are differences of the probe's own scores."""
    from ssl4neuro.evaluate.linear import LinearProbe

    rng = np.random.default_rng(2)
    question = ask(cohort, set(), target="network", folds=4)
    assert set(question.groups) == {"all"}
    assert question.problem is not None
    vectors = rng.normal(size=(len(question.rows), 5)).astype(np.float32)
    vectors[:, 0] += question.problem.y
    direction = read_out(question, vectors).direction
    fold = question.folds[0]
    probe = LinearProbe().prepare(
        vectors[fold.train].astype(np.float64), vectors[fold.test], question.problem.subjects[fold.train], "binary", 2, 0
    )
    scores = probe(question.problem.y[fold.train][:, None]).values[:, 0, 0]
    sign = np.where(question.problem.y[fold.test] == 1, 1, -1)
    own = (vectors[fold.test] * direction[fold.test]).sum(1) * sign
    assert np.allclose(own - own[0], scores - scores[0], atol=1e-4)


def test_who_is_not_explained(cohort: Cohort) -> None:
    everyone = {f"sub-{k:02d}" for k in range(8)}
    with pytest.raises(UserError, match="1 of 8 subjects are unseen"):
        ask(cohort, everyone - {"sub-03"})
    with pytest.raises(UserError, match="sub-03 was seen in pretraining"):
        ask(cohort, {"sub-03"}, subjects=("sub-03",))
    with pytest.raises(UserError, match=r"no component .* is of 'motor'; there are net-0, net-1"):
        ask(cohort, set(), networks=("motor",))
    question = ask(cohort, {"sub-03"}, networks=("net-1",))
    assert set(question.groups) == {"net-1"}
    assert "sub-03" not in question.subjects[question.tested]


def rows_of_pairs(subjects: int, per_class: int = 2) -> Rows:
    names = np.repeat([f"s{k}" for k in range(subjects)], 2 * per_class)
    return Rows(names, np.full(len(names), "all"), np.tile(np.repeat(["a", "b"], per_class), subjects))


def test_subjects_and_classes_count_alike() -> None:
    rows = Rows(np.array(["s1", "s1", "s1", "s2", "s3"]), np.full(5, "all"), np.array(["a", "a", "a", "a", "b"]))
    values = np.array([[1.0, np.nan], [2.0, 1.0], [3.0, 3.0], [8.0, np.nan], [10.0, 7.0]])
    mean = mean_change(cells(values, rows), np.ones((1, 3)))[0]
    assert mean == pytest.approx([((2 + 8) / 2 + 10) / 2, (2 + 7) / 2])


def test_what_moves_the_score_of_everybody_cancels() -> None:
    rows, rng = rows_of_pairs(10), np.random.default_rng(0)
    sign = np.where(rows.classes == "a", -1.0, 1.0)
    common = sign[:, None] * 5.0 + 0.01 * rng.normal(
        size=(len(sign), 1)
    )  # the score of all rises by 5: right for b, wrong for a
    table = summarise(common, rows, signed=True)
    assert abs(table["value"][0]) < 0.02
    assert table["n_subjects"][0] == 10


def test_turned_signs_use_the_t_of_one_sample() -> None:
    x = np.random.default_rng(3).normal(0.4, 1, size=(9, 4))
    expected = np.abs(stats.ttest_1samp(x, 0).statistic)
    assert np.allclose(_t(np.ones((1, 9)), x)[0], expected)


def test_corrected_p_holds_for_the_family_and_finds_what_is_there() -> None:
    rows = rows_of_pairs(9, 1)
    smallest, low = [], 0
    for seed in range(40):
        values = np.random.default_rng(seed).normal(size=(len(rows.subjects), 20))
        smallest.append(_flips(cells(values, rows), seed).min())
        values[:, 4] += 6
        p = _flips(cells(values, rows), seed)
        low += p[4] < 0.05
    assert np.mean(np.array(smallest) < 0.05) <= 0.15, "5 % expected, 3 standard errors allowed"
    assert low == 40


def test_equal_explanations_are_called_alike_and_unrelated_ones_are_not() -> None:
    rows, rng = rows_of_pairs(6), np.random.default_rng(4)
    values = rng.normal(size=(len(rows.subjects), 50)).astype(np.float32)
    a, b = (Explanation("map", np.arange(len(values)), changes={"region": v}) for v in (values, rng.normal(size=values.shape)))
    assert verdicts([compare(a, a, rows)])["alike"].all()
    assert not verdicts([compare(a, b, rows)])["alike"].any()


@pytest.mark.usefixtures("no_drawing")
def test_the_folder_of_an_ica_run(cohort: Cohort, atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = save_run(tmp_path / "run", cohort, MODEL, ("sub-00", "sub-01"))
    words = ["explain", str(run), str(cohort.path), str(tmp_path / "out"), "--target", "state", "--atlas", str(atlas)]
    assert main([*words, "--network", "net-0", "--randomisations", "1"]) == 0
    out = tmp_path / "out"
    record = json.loads((out / "explain.json").read_text())
    assert record["format"] == "ssl4neuro explanation"
    assert record["n_subjects"] == 6
    assert record["checkpoint_sha256"] == checkpoint.load(run).checkpoint_sha256
    listed = [*record["tables"], *(m["file"] for m in record["maps"]), *(f for g in record["figures"] for f in g["files"])]
    assert all((out / name).is_file() for name in listed)
    assert {p.relative_to(out).as_posix() for p in out.rglob("*.*")} == {*listed, "explain.json"}
    regions = pd.read_csv(out / "regions.tsv", sep="\t")
    assert regions["network"].unique().tolist() == ["net-0"]
    assert regions["n_subjects"].unique().tolist() == [6]
    image = nib.load(out / "maps" / "occlusion_net-0.nii.gz")
    assert image.shape == cohort.mask.shape
    assert np.allclose(image.affine, cohort.affine)
    cube = np.asarray(nib.load(atlas).dataobj)
    values = np.asarray(image.dataobj)
    for line in regions.itertuples():
        inside = values[(cube == line.code) & cohort.mask]
        assert np.allclose(inside, line.value, rtol=1e-3, atol=1e-6)
    assert {"eigencam_net-0_pre.nii.gz", "eigencam_net-0_post.nii.gz"} <= {p.name for p in (out / "maps").iterdir()}
    sanity = pd.read_csv(out / "sanity.tsv", sep="\t")
    assert set(sanity["method"]) == {"eigencam", "occlusion by region", "occlusion by band"}
    everything = "".join(p.read_text() for p in out.iterdir() if p.suffix in {".tsv", ".json"})
    assert "sub-0" not in everything.replace(str(cohort.path), ""), "results name no subject"
    assert "6 unseen subjects" in capsys.readouterr().out
    assert main(words) == 2


@pytest.mark.usefixtures("no_drawing")
def test_without_a_label_the_embedding_itself_is_explained(cohort: Cohort, atlas: Path, tmp_path: Path) -> None:
    session = {**MODEL, "modalities": {"course": {"encoder": {"name": "course_session", "preset": "tiny"}}},
               "objectives": {"states": {"name": "supcon", "on": "course", "labels": ["state"]}}}  # fmt: skip
    run = save_run(tmp_path / "run", cohort, session, ("sub-00",))
    result = explain(run, cohort.path, tmp_path / "out", subjects="sub-02, sub-05", randomisations=1)
    assert set(result.rows.subjects) == {"sub-02", "sub-05"}
    assert any("keeps no feature map" in note for note in result.notes), "Eigen-CAM is left out with a word about it"
    table = result.tables["bands"]
    assert (table["value"] >= 0).all()
    assert table["p_corrected"].isna().all()
    assert "probes" not in result.tables
    with pytest.raises(UserError, match="keeps no feature map"):
        explain(run, cohort.path, tmp_path / "cam", method="eigencam")
    assert not (tmp_path / "cam").exists()


@pytest.mark.usefixtures("no_drawing")
def test_the_folder_of_a_cine_run(tmp_path: Path) -> None:
    cohort = prepare_clips(tmp_path / "c", source=acdc(tmp_path / "acdc", patients=3, frames=4, slices=1), layout="acdc")
    loading = to_mapping(ClipConfig(frames=4, size=32))
    run = save_run(tmp_path / "run", cohort, CLIPS, (), loading)
    config = ExplainConfig(patch=16, phases=4)
    result = explain(run, cohort.path, tmp_path / "out", config=config, randomisations=1)
    assert len(result.tables["patches"]) == 4
    assert result.tables["phases"]["phase"].tolist() == ["0% to 25%", "25% to 50%", "50% to 75%", "75% to 100%"]
    assert (tmp_path / "out" / "figures" / "eigencam_cine.png").is_file()
    assert result.found["cine"].cams[0].shape == (4, 32, 32)
