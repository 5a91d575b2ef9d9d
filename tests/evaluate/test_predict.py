"""Predicting: files that lie on their sources, tables that agree with them, nothing half-done, and what is refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from ssl4neuro import checkpoint
from ssl4neuro.cli import main
from ssl4neuro.config import to_mapping
from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.clip_loading import ClipConfig
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.prepare_clips import prepare_clips
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate import predict as predicting
from ssl4neuro.evaluate.postprocess import PostprocessConfig
from ssl4neuro.evaluate.predict import predict
from ssl4neuro.evaluate.segment import Picture
from ssl4neuro.heads.model import SegmentationConfig, SegmentationModel
from ssl4neuro.heads.segmented import Segmented
from ssl4neuro.manifest import Manifest
from ssl4neuro.registry import Component

# Pixels of 1.5 mm, slices 8 mm apart, turned about all axes.
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = np.linalg.qr(np.array([[1.0, 0.4, 0.1], [0.3, -1.0, 0.2], [0.1, 0.5, 1.0]]))[0] * [1.5, 1.5, 8.0]
OBLIQUE[:3, 3] = (91.5, -40.25, 12.125)
SHAPE = (12, 10, 3, 5)  # x, y, z, t
LEVELS = {0: 10, 2: 60, 3: 110, 4: 160}  # value in the masks -> grey value in the images
CLASSES = {"myocardium": 2, "scar": 3, "mvo": 4}
STRUCTURES = {"infarct": ("scar", "mvo"), "mvo": ("mvo",)}
LABELLED = (0, 3)
CLIP = ClipConfig(frames=4, size=12, crop="none", normalise="none")  # the picture as it is, one pixel to one


class GreyLevels(nn.Module):
    """Knows every class by the grey value of the first frame."""

    def __init__(self, encoders: dict[str, Any], classes: int, frames: int, channels: int) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor([float(level) for level in LEVELS.values()]))

    def forward(self, x: Tensor, valid: Tensor | None = None, residual: Tensor | None = None) -> Segmented:
        logits = -(x[:, :1, 0] - self.levels[:, None, None]).abs() / 5
        probabilities = logits.softmax(1)
        return Segmented(logits, probabilities, torch.zeros_like(probabilities[:, :1]))


def labels(seed: int, lesion: bool) -> np.ndarray:
    """[x, y, z, t] a beating square of muscle, with scar and, in some, MVO in it."""
    rng = np.random.default_rng(seed)
    values = np.zeros(SHAPE, dtype=np.uint8)
    for z in range(SHAPE[2]):
        for t in range(SHAPE[3]):
            x, y = rng.integers(1, 4, 2)
            values[x : x + 8 - z, y : y + 5, z, t] = 2
            values[x + 1 : x + 4, y + 1 : y + 3, z, t] = 3
            if lesion:
                values[x + 2, y + 1 : y + 1 + z, z, t] = 4  # none in slice 0
    return values


def write_source(root: Path, subjects: int = 3) -> dict[str, np.ndarray]:
    """ACDC-like patients whose grey values are their classes; patient003 has no masks, patient002 no lesion."""
    truths = {}
    for number in range(1, subjects + 1):
        name = f"patient{number:03d}"
        truth = truths[name] = labels(number, lesion=number != 2)
        folder = root / name
        folder.mkdir(parents=True)
        grey = np.vectorize(LEVELS.__getitem__)(truth).astype(np.int16)
        save(folder / f"{name}_4d.nii.gz", grey)
        for frame in LABELLED if number != 3 else ():
            save(folder / f"{name}_frame{frame + 1:02d}_gt.nii.gz", truth[..., frame])
    return truths


def save(path: Path, values: np.ndarray) -> None:
    image = nib.Nifti1Image(values, OBLIQUE)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


def save_run(
    path: Path, cohort: Cohort, seen: tuple[str, ...] = (), after: PostprocessConfig | None = None, **changes: Any
) -> Path:
    """A checkpoint of the head above, that says whom it has seen."""
    config = SegmentationConfig(Component("test_predict:GreyLevels"), CLASSES, structures=STRUCTURES, lesion="mvo", frames=4)
    contract = {"cine": {**cohort.info["contract"]["cine"], "loading": to_mapping(CLIP)}}
    contents = {c for subject in seen for c in cohort.content_hashes()[subject]}
    record = {"segmentation": to_mapping(config), "postprocess": to_mapping(after or PostprocessConfig())}
    given = {"contract": contract, "config": record, "model": SegmentationModel(config).state_dict()} | changes
    checkpoint.save(path, step=1, epoch=1, manifest=Manifest.of(cohort.name, seen, contents), **given)
    return path


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return write_source(tmp_path_factory.mktemp("predict") / "source")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, truths: dict[str, np.ndarray]) -> ClipCohort:
    folder = tmp_path_factory.mktemp("predict")
    write_source(folder / "source")
    found = prepare_clips(folder / "cohort", source=folder / "source", layout="acdc")
    assert isinstance(found, ClipCohort)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cohort: ClipCohort) -> Path:
    return save_run(tmp_path_factory.mktemp("predict") / "run", cohort, ("patient001",))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, run: Path, cohort: ClipCohort) -> Path:
    return predict(run, cohort.path, tmp_path_factory.mktemp("predict") / "out", batch=3)


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False)


def test_masks_lie_on_their_source(out: Path, truths: dict[str, np.ndarray]) -> None:
    for name, truth in truths.items():
        frames = list(LABELLED) if name != "patient003" else [0]
        expected = truth[..., frames] if len(frames) > 1 else truth[..., 0]
        found = {what: nib.load(out / f"{name}_view-sax_{what}.nii.gz") for what in ("mask", "uncertainty", "probability-mvo")}
        np.testing.assert_array_equal(np.asarray(found["mask"].dataobj), expected, err_msg=name)
        assert found["mask"].get_data_dtype() == np.uint8
        for image in found.values():
            np.testing.assert_allclose(image.affine, OBLIQUE, rtol=1e-5, atol=1e-5)
            assert image.shape == expected.shape
        probability, doubt = (np.asarray(found[what].dataobj) for what in ("probability-mvo", "uncertainty"))
        assert probability.dtype == doubt.dtype == np.float32
        np.testing.assert_array_equal(probability > 0.5, expected == 4)
        assert ((doubt >= 0) & (doubt <= 1)).all()
        sidecar = json.loads((out / f"{name}_view-sax_mask.json").read_text())
        assert sidecar == {"Frames": frames, "Labels": {"background": 0, **CLASSES}}
        assert (out / "overlays" / f"{name}_view-sax.png").stat().st_size > 1000
        assert (out / "overlays" / f"{name}_view-sax.gif").stat().st_size > 1000
    assert len(list(out.glob("*.nii.gz"))) == 9


def test_scans_say_what_the_masks_hold(out: Path, truths: dict[str, np.ndarray]) -> None:
    scans = table(out / "scans.tsv")
    assert len(scans) == (2 * 3 * 2 + 3) * 2, "scans × structures"
    values = {"infarct": (3, 4), "mvo": (4,)}
    for line in scans.itertuples():
        truth = np.isin(truths[line.subject][:, :, line.slice, line.frame], values[line.structure])
        assert (line.pixels, line.area_unit) == (truth.sum(), "mm2")
        assert line.area == pytest.approx(truth.sum() * 2.25, rel=1e-4)
        assert line.detected == truth.any()
        assert line.seen == (line.subject == "patient001")
        assert (line.view, line.file, line.grid) == ("sax", f"{line.subject}_view-sax", "source")
        labelled = line.subject != "patient003"
        assert pd.isna(line.area_true) != labelled, "no masks, no agreement"
        if labelled:
            assert line.positive == truth.any()
            assert line.dice == 1 if truth.any() else pd.isna(line.dice)
    lesion = scans[scans["structure"] == "mvo"]
    assert lesion.loc[lesion["detected"], "score"].min() > lesion.loc[~lesion["detected"], "score"].max()


def test_patients_have_volumes(out: Path, truths: dict[str, np.ndarray]) -> None:
    found = table(out / "patients.tsv").set_index(["subject", "frame", "structure"])
    assert len(found) == (2 * 2 + 1) * 2
    for (subject, frame, structure), line in found.iterrows():
        pixels = np.isin(truths[subject][..., frame], (3, 4) if structure == "infarct" else (4,)).sum()
        assert line["volume"] == pytest.approx(pixels * 1.5 * 1.5 * 8 / 1000, rel=1e-4)
        assert (line["volume_unit"], line["scans"]) == ("ml", 3)
        assert line["detected"] == (pixels > 0)
        assert line["seen"] == (subject == "patient001")
        assert 0 <= line["score"] <= 1


def test_the_record_says_by_what_and_that_subjects_were_seen(out: Path, run: Path, cohort: ClipCohort) -> None:
    record = json.loads((out / "predict.json").read_text())
    assert record["checkpoints"] == [{"step": 1, "sha256": checkpoint.load(run).checkpoint_sha256}]
    assert (record["seen"], record["subjects"], record["name"]) == (1, 3, cohort.name)
    assert any("1 of 3 subjects were seen in training" in note for note in record["notes"])
    assert record["structures"] == {"infarct": ["scar", "mvo"], "mvo": ["mvo"]}
    assert record["settings"]["frames"] == "labelled"
    assert {"ssl4neuro", "torch", "nibabel"} <= set(record["versions"])


@pytest.mark.parametrize(("frames", "wanted"), [("first", [0]), ("all", [0, 1, 2, 3, 4])])
def test_other_frames(frames: Any, wanted: list[int], run: Path, cohort: ClipCohort, truths: Any, tmp_path: Path) -> None:
    predict(run, cohort.path, tmp_path / "out", frames=frames, overlays=False, tta=True)
    mask = np.asarray(nib.load(tmp_path / "out" / "patient002_view-sax_mask.nii.gz").dataobj)
    np.testing.assert_array_equal(mask.reshape(*SHAPE[:3], -1), truths["patient002"][..., wanted])
    scans = table(tmp_path / "out" / "scans.tsv")
    assert sorted(scans["frame"].unique()) == wanted
    assert scans[scans["frame"].isin([0, 3]) & (scans["subject"] == "patient002")]["dice"].notna().any()
    assert not scans[~scans["frame"].isin([0, 3])]["dice"].notna().any()
    assert not (tmp_path / "out" / "overlays").exists()


def test_the_recipes_postprocessing_is_applied(run: Path, cohort: ClipCohort, truths: Any, out: Path, tmp_path: Path) -> None:
    strict = save_run(tmp_path / "run", cohort, after=PostprocessConfig(smallest=1e4))
    predict(strict, cohort.path, tmp_path / "out", overlays=False)
    assert (truths["patient001"][..., 0] == 4).any()
    mask = np.asarray(nib.load(tmp_path / "out" / "patient001_view-sax_mask.nii.gz").dataobj)
    assert not (mask == 4).any()
    assert json.loads((tmp_path / "out" / "predict.json").read_text())["postprocess"]["smallest"] == 1e4


def test_models_of_folds_are_averaged(cohort: ClipCohort, tmp_path: Path) -> None:
    """The second takes scar for background; where both are sure, the first and the second class have half each."""
    save_run(tmp_path / "run" / "fold-0", cohort, ("patient001",))
    state = {"head.levels": torch.tensor([110.0, 60.0, 500.0, 160.0])}
    save_run(tmp_path / "run" / "fold-1", cohort, ("patient002",), model=state)
    predict(tmp_path / "run", cohort.path, tmp_path / "out", overlays=False)
    record = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert (len(record["checkpoints"]), record["seen"]) == (2, 2)
    scans = table(tmp_path / "out" / "scans.tsv")
    assert set(scans.loc[scans["seen"], "subject"]) == {"patient001", "patient002"}
    line = scans[(scans["structure"] == "infarct") & (scans["row"] == 0)].iloc[0]
    assert line["score"] < 0.6, "one of two models sees the scar"


def test_a_network_that_sees_a_crop(cohort: ClipCohort, tmp_path: Path) -> None:
    """Random weights: outside what the head sees all is background, and the values are the cohort's own."""
    torch.manual_seed(3)
    config = SegmentationConfig(Component("unet", {"preset": "tiny"}), {"myocardium": 2, "mvo": 4}, lesion="mvo", frames=4)
    loading = to_mapping(ClipConfig(frames=4, size=32, crop="centre", extent=0.5))
    run = save_run(
        tmp_path / "run", cohort, contract={"cine": {**cohort.info["contract"]["cine"], "loading": loading}},
        config={"segmentation": to_mapping(config), "postprocess": to_mapping(PostprocessConfig())},
        model=SegmentationModel(config).state_dict(),
    )  # fmt: skip
    predict(run, cohort.path, tmp_path / "out", frames="first", overlays=False)
    for number in (1, 2, 3):
        mask = np.asarray(nib.load(tmp_path / "out" / f"patient00{number}_view-sax_mask.nii.gz").dataobj)
        assert mask.shape == SHAPE[:3]
        assert set(np.unique(mask)) <= {0, 2, 4}
        inside = np.zeros(SHAPE[:3], dtype=bool)
        inside[3:9, 2:8] = True  # 6 of 12 columns and of 10 rows
        assert mask[inside].any()
        assert not mask[~inside].any()


def test_areas_of_unknown_spacing_are_pixels(cohort: ClipCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truths = write_source(tmp_path / "source", 2)
    told = pd.DataFrame({"participant_id": ["patient001", "patient002"], "spacing_known": ["true", "false"]})
    told.to_csv(tmp_path / "source" / "participants.tsv", sep="\t", index=False)
    other = prepare_clips(tmp_path / "cohort", source=tmp_path / "source", layout="acdc", name="other")
    run = save_run(tmp_path / "run", other)
    predict(run, other.path, tmp_path / "out", overlays=False)
    assert "the pixel spacing of 1 of 2 images is not known" in capsys.readouterr().out
    found = table(tmp_path / "out" / "patients.tsv").set_index(["subject", "frame", "structure"])
    assert found["volume_unit"].groupby("subject").unique().map(list).to_dict() == {"patient001": ["ml"], "patient002": ["px"]}
    assert found.loc[("patient002", 3, "infarct"), "volume"] == np.isin(truths["patient002"][..., 3], (3, 4)).sum()
    assert not table(tmp_path / "out" / "scans.tsv")["seen"].any()


def fake(pictures: Callable[[list[tuple[int, int]]], Iterator[Picture]]) -> Callable[..., Iterator[Picture]]:
    def segment(models: Any, cohort: ClipCohort, samples: list[tuple[int, int]], *_: Any, **__: Any) -> Iterator[Picture]:
        return pictures(samples)

    return segment


def picture(row: int, frame: int, value: float = 0.25) -> Picture:
    return Picture(row, frame, np.full((4, SHAPE[1], SHAPE[0]), value, np.float32), np.zeros((SHAPE[1], SHAPE[0]), np.float32))


def test_one_image_is_finished_before_the_next_is_segmented(
    run: Path, cohort: ClipCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[int] = []

    def pictures(samples: list[tuple[int, int]]) -> Iterator[Picture]:
        for row, frame in samples:
            finished.append(len(list(tmp_path.glob(".out.*/*_mask.nii.gz"))))
            yield picture(row, frame)

    monkeypatch.setattr(predicting, "segment", fake(pictures))
    predict(run, cohort.path, tmp_path / "out", overlays=False)
    assert finished == [0] * 6 + [1] * 6 + [2] * 3


@pytest.mark.parametrize("failure", ["stop", "nan"])
def test_nothing_is_left_of_a_prediction_that_failed(
    failure: str, run: Path, cohort: ClipCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pictures(samples: list[tuple[int, int]]) -> Iterator[Picture]:
        for number, (row, frame) in enumerate(samples):
            if number == 8 and failure == "stop":
                raise KeyboardInterrupt
            yield picture(row, frame, np.nan if number == 8 else 0.25)

    monkeypatch.setattr(predicting, "segment", fake(pictures))
    expected = pytest.raises(KeyboardInterrupt) if failure == "stop" else pytest.raises(UserError, match=r"patient002 .*finite")
    with expected:
        predict(run, cohort.path, tmp_path / "out", overlays=False)
    assert list(tmp_path.iterdir()) == []


def test_the_command(run: Path, cohort: ClipCohort, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(run), str(cohort.path)]
    assert main([*words, str(tmp_path / "out"), "--frames", "first", "--tta", "--which", "last", "--no-overlays"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "predict.json").read_text())["settings"]
    assert settings == {"which": "last", "frames": "first", "tta": True, "adapt": []}
    assert main([*words, str(out)]) == 2
    message = capsys.readouterr().err.strip().splitlines()
    assert (len(message), "exists already" in message[0]) == (1, True)


def test_what_is_refused(
    run: Path, cohort: ClipCohort, make_cohort: Callable[..., Cohort], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cine = {**cohort.info["contract"]["cine"], "loading": to_mapping(CLIP)}
    ica = make_cohort(tmp_path / "ica", subjects=2)
    pretrained = save_run(tmp_path / "pretrained", cohort, config={"model": {}})
    still = save_run(tmp_path / "still", cohort, contract={"cine": {**cine, "cyclic": False}})
    other = save_run(tmp_path / "other", cohort, contract={"map": {"kind": "clip"}})
    uncut = save_run(tmp_path / "uncut", cohort, contract={"cine": cohort.info["contract"]["cine"]})
    damaged = save_run(tmp_path / "damaged", cohort)
    weights = next(damaged.rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8])
    before = sorted(tmp_path.iterdir())
    for words, message in (
        ([pretrained, cohort.path], "no head for segmentation"),
        ([run, ica.path], "kind 'ica'"),
        ([still, cohort.path], r"cine\.cyclic"),
        ([other, cohort.path], "not what the checkpoint was trained on"),
        ([uncut, cohort.path], "how its clips were cut"),
        ([damaged, cohort.path], "model.safetensors"),
        ([tmp_path / "nowhere", cohort.path], "no such run"),
        ([run, tmp_path / "nowhere"], "no prepared cohort"),
        ([run, cohort.path, "--adapt", "grdi"], "unknown adaptation 'grdi'"),
        ([run, cohort.path, "--batch", "0"], "--batch 0"),
    ):
        assert main(["predict", *map(str, words[:2]), str(tmp_path / "x"), *map(str, words[2:])]) == 2, message
        told = capsys.readouterr().err.strip().splitlines()
        assert len(told) == 1, told
        assert told[0].startswith("error: ")
        assert message.replace("\\", "") in told[0], told
    assert sorted(tmp_path.iterdir()) == before
    assert main(["predict", str(still), str(cohort.path), str(tmp_path / "x"), "--adapt", "cyclic", "--no-overlays"]) == 0


def test_an_empty_cohort_is_refused(run: Path, cohort: ClipCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClipCohort, "__len__", lambda self: 0)
    with pytest.raises(UserError, match="holds no clips"):
        predict(run, cohort.path, tmp_path / "out")
