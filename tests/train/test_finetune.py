"""Fine-tuning of a head from the cohort to the pooled results: every shipped recipe, every protocol, every refusal."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from clip_sources import beating

from ssl4neuro import checkpoint
from ssl4neuro.cli import main
from ssl4neuro.config import load, read_yaml
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.labelled import labelled_frames
from ssl4neuro.data.prepare_clips import prepare_clips
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.segment import load_segmenters, segment
from ssl4neuro.shipped import find_recipe, finetuning, recipes
from ssl4neuro.train.finetune import finetune
from ssl4neuro.train.finetune_config import FinetuneConfig
from ssl4neuro.train.finetune_splits import splits_for
from ssl4neuro.train.loop import Loop
from ssl4neuro.train.pretrain import PretrainConfig, pretrain

SMALL = [
    *("--clip.size", "32", "--loop.epochs", "2", "--loop.steps", "3", "--loop.checkpoint_steps", "1"),
    *("--overlays", "0", "--baselines", "false", "--folds", "0", "--split.validation", "0.3"),
]
RECIPES = tuple(r.stem for r in recipes() if finetuning(r) and read_yaml(r).get("task", "segmentation") == "segmentation")


def source(root: Path, patients: int = 8, frames: int = 8, values: tuple[int, ...] = (1, 2, 3)) -> Path:
    """ACDC's layout; the masks hold three nested discs; every second patient has no `values[0]`."""
    for number in range(1, patients + 1):
        folder = root / f"patient{number:03d}"
        folder.mkdir(parents=True)
        pictures = beating(number, frames, 2)
        affine = np.diag([1.5, 1.5, 8.0, 1.0])
        name = f"{folder.name}_4d.nii.gz" if frames > 1 else "image.nii.gz"
        nib.save(nib.Nifti1Image(pictures, affine), folder / name)
        for frame in (1, frames // 2):
            still = pictures[..., frame - 1]
            x, y = np.indices(still.shape[:2])
            mask = np.zeros(still.shape, dtype=np.uint8)
            for value, radius in zip(values[1:], (13, 8), strict=True):
                mask[(x - 20) ** 2 + (y - 20) ** 2 < radius**2] = value
            if number % 2:
                mask[18:23, 28:32] = values[0]
            nib.save(nib.Nifti1Image(still, affine), folder / f"{folder.name}_frame{frame:02d}.nii.gz")
            nib.save(nib.Nifti1Image(mask, affine), folder / f"{folder.name}_frame{frame:02d}_gt.nii.gz")
    return root


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("labelled")
    return prepare_clips(folder / "cohort", source=source(folder / "acdc"), layout="acdc")


@pytest.fixture(scope="module")
def pretrained(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders that have seen every subject but two."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    flags = "--clip.size 32 --clip.frames 4 --loop.epochs 1 --sampling.batch_size 3 --split.validation 0 --split.holdout 0.25"
    pretrain(
        load(PretrainConfig, find_recipe("cine_contrastive"), ["--data", str(cohort.path), "--out", str(out), *flags.split()])
    )
    return out


def config(name: str, cohort: Cohort, out: Path, *flags: str) -> FinetuneConfig:
    return load(FinetuneConfig, find_recipe(name), ["--data", str(cohort.path), "--out", str(out), *SMALL, *flags])


def lesions(*flags: str) -> tuple[str, ...]:
    """Flags that make the recipe `mvo` fit the cohort's masks: 1 is the lesion."""
    return ("--classes", "{MVO: 1, wall: 2, cavity: 3}", "--clip.frames", "4", *flags)


def scans_of(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "results" / "scans.tsv", sep="\t")


@pytest.fixture(scope="module")
def finished(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(
        str(
            finetune(
                config(
                    "mvo",
                    cohort,
                    tmp_path_factory.mktemp("finetuned") / "run",
                    *lesions("--overlays", "2", "--baselines", "true"),
                )
            )
        )
    )


def test_a_run_leaves_results_pictures_and_a_checkpoint_that_knows_its_classes(finished: Path, cohort: Cohort) -> None:
    record = json.loads((finished / "results" / "results.json").read_text())
    assert record["kind"] == "segmentation"
    split = json.loads((finished / "split.json").read_text())
    scans = scans_of(finished)
    assert set(scans["subject"]) == set(split["holdout"])
    assert {"mvo", "motion energy threshold"} <= set(scans["model"])
    conventions = {(row["model"], row["convention"]) for row in record["rows"]}
    assert ("always empty", "pooled, 0/0 = 1") in conventions
    drawn = pd.read_csv(finished / "results" / "overlays" / "index.tsv", sep="\t")
    assert len(drawn) == 2
    assert all((finished / "results" / "overlays" / file).stat().st_size > 1000 for file in drawn["file"])
    (segmenter,) = load_segmenters(finished)
    assert segmenter.config.names == ("background", "MVO", "wall", "cavity")
    assert segmenter.config.lesion == "MVO"
    assert len(segmenter.checkpoint.manifest.overlap(cohort.name, cohort.content_hashes())) == 8 - len(split["holdout"])


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_recipe_trains_and_every_ablation_of_it_builds(name: str, cohort: Cohort, tmp_path: Path) -> None:
    from ssl4neuro.heads.model import SegmentationModel
    from ssl4neuro.train.ablate import variant

    recipe = load(FinetuneConfig, find_recipe(name), ["--data", str(cohort.path), "--out", str(tmp_path / "run")])
    for table, rows in recipe.ablations.items():
        for row, keys in rows.items():
            changed = variant(recipe, table, row, keys)
            SegmentationModel(changed.segmentation(changed.encoders))
    masks = {"lge_segmentation": ("--classes", "{LV: 3, healthy wall: 2, scar: 4, MVO: 1}")}.get(name, lesions()[:2])
    if name == "lge_segmentation":
        with pytest.raises(UserError, match=r"classes\.scar: no mask of the \d+ training frames holds the value 4"):
            finetune(config(name, cohort, tmp_path / "run", *masks))
        masks = ("--classes", "{LV: 3, healthy wall: 2, MVO: 1}", "--structures", "{LV: [LV], MVO: [MVO]}")
    if name == "cine_segmentation":
        masks = ()
    run = Path(str(finetune(config(name, cohort, tmp_path / "run", *masks))))
    assert np.isfinite([json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]).all()


def test_phases_are_named_by_the_size_of_the_cavity(cohort: Cohort, tmp_path: Path) -> None:
    from ssl4neuro.evaluate.held_out import phase_names

    recipe = config("cine_segmentation", cohort, tmp_path / "run")
    frames = labelled_frames(cohort)
    names = phase_names(cohort, recipe.segmentation(recipe.encoders), frames)  # type: ignore[arg-type]
    assert set(names.values()) == {""}  # the discs of this source do not beat


def test_stopped_and_resumed_it_has_the_same_bits(
    cohort: Cohort, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_batch, steps = Loop._train_batch, []

    def dying(self: Loop, raw: Any) -> Any:
        steps.append(1)
        if len(steps) == 2:
            raise RuntimeError("killed")
        return train_batch(self, raw)

    monkeypatch.setattr(Loop, "_train_batch", dying)
    with pytest.raises(RuntimeError, match="killed"):
        finetune(config("mvo", cohort, tmp_path / "run", *lesions()))
    monkeypatch.setattr(Loop, "_train_batch", train_batch)
    finetune(config("mvo", cohort, tmp_path / "run", *lesions("--resume")))
    there, here = (checkpoint.load(run, "last").model for run in (finished, tmp_path / "run"))
    assert all(torch.equal(there[key], here[key]) for key in there)
    with pytest.raises(UserError, match=r"cannot resume, optimiser\.rate was"):
        finetune(config("mvo", cohort, tmp_path / "run", *lesions("--resume", "--optimiser.rate", "0.1")))


def test_frozen_encoders_keep_their_pretrained_weights_and_others_do_not(
    cohort: Cohort, pretrained: Path, tmp_path: Path
) -> None:
    weights = checkpoint.load(pretrained, "best").model
    for name, flags, moved in (("frozen", ["--freeze"], False), ("free", [], True), ("warm", ["--freeze_epochs", "1"], True)):
        steps = ["--loop.steps", "9", *flags]
        run = Path(str(finetune(config("mvo", cohort, tmp_path / name, *lesions("--init", str(pretrained), *steps)))))
        model = load_segmenters(run)[0].model
        changed = [
            key for key, value in model.encoders["cine"].body.state_dict().items()  # type: ignore[union-attr]
            if not torch.equal(value, weights[f"encoders.cine.body.{key}"])
        ]  # fmt: skip
        assert bool(changed) == moved, name


def test_only_subjects_that_the_encoders_have_not_seen_are_tested(cohort: Cohort, pretrained: Path, tmp_path: Path) -> None:
    unseen = set(json.loads((pretrained / "split.json").read_text())["holdout"])
    run = Path(str(finetune(config("mvo", cohort, tmp_path / "one", *lesions("--init", str(pretrained))))))
    assert set(scans_of(run)["subject"]) <= unseen
    seen = checkpoint.load(run, "last").manifest.overlap(cohort.name, cohort.content_hashes())
    assert not set(scans_of(run)["subject"]) & set(seen)
    planted = f"[{sorted(set(cohort.index['subject']) - unseen)[0]}]"
    with pytest.raises(UserError, match=r"1 of the 1 subjects to be tested on were seen in pretraining"):
        finetune(
            config("mvo", cohort, tmp_path / "leak", *lesions("--init", str(pretrained), "--split.hold_subjects", planted))
        )
    with pytest.raises(UserError, match=r"6 of the 8 subjects with masks were seen"):
        finetune(config("mvo", cohort, tmp_path / "cv", *lesions("--init", str(pretrained), "--folds", "3")))
    assert not (tmp_path / "leak").exists()
    flags = lesions("--init", str(pretrained), "--folds", "2", "--allow_overlap")
    stamped = Path(str(finetune(config("mvo", cohort, tmp_path / "stamped", *flags))))
    assert json.loads((stamped / "results" / "results.json").read_text())["stamp"].startswith("OVERLAP: 6 of 8 test subjects")


def test_folds_test_every_subject_once_and_are_averaged_for_new_cohorts(cohort: Cohort, tmp_path: Path) -> None:
    run = Path(str(finetune(config("mvo", cohort, tmp_path / "run", *lesions("--folds", "2")))))
    own = scans_of(run).query("model == 'mvo' and structure == 'MVO'")
    assert sorted(own["row"].unique()) == list(range(len(cohort)))
    assert not own.duplicated(["row", "frame"]).any()
    both = [s.model for s in load_segmenters(run)]
    assert len(both) == 2
    clip = config("mvo", cohort, tmp_path, *lesions()).clip
    device = torch.device("cpu")
    mean = next(segment(both, cohort, [(0, 3)], clip, device)).probabilities  # type: ignore[arg-type]
    each = [next(segment([m], cohort, [(0, 3)], clip, device)).probabilities for m in both]  # type: ignore[arg-type]
    np.testing.assert_allclose(mean, sum(each) / 2, atol=1e-5)
    assert not np.allclose(each[0], each[1], atol=1e-3)


def test_few_label_runs_train_on_nested_sets_and_never_on_the_tested(cohort: Cohort, tmp_path: Path) -> None:
    run = Path(str(finetune(config("mvo", cohort, tmp_path / "run", *lesions("--folds", "2", "--patients", "[2, 4]")))))
    for fold in (0, 1):
        two, four = (json.loads((run / f"patients-{n}" / f"fold-{fold}" / "split.json").read_text()) for n in (2, 4))
        assert len(two["train"]) == 2
        assert set(two["train"]) < set(four["train"])
        assert two["holdout"] == four["holdout"]
        assert not set(four["train"]) & set(four["holdout"])
    assert {"mvo, 2 patients", "mvo, 4 patients"} <= set(scans_of(run)["model"])


def test_a_crossfit_pretraining_gives_each_fold_its_own_encoders(cohort: Cohort, tmp_path: Path) -> None:
    flags = ["--clip.size", "32", "--clip.frames", "4", "--loop.epochs", "1", "--sampling.batch_size", "3", "--crossfit", "2"]
    flags += ["--split.validation", "0"]
    words = ["--data", str(cohort.path), "--out", str(tmp_path / "cf"), *flags]
    pretrain(load(PretrainConfig, find_recipe("cine_contrastive"), words))
    run = Path(str(finetune(config("mvo", cohort, tmp_path / "run", *lesions("--init", str(tmp_path / "cf"))))))
    for fold in (0, 1):
        held = json.loads((tmp_path / "cf" / f"fold-{fold}" / "split.json").read_text())["holdout"]
        assert json.loads((run / f"fold-{fold}" / "split.json").read_text())["holdout"] == held
        assert (
            checkpoint.load(run / f"fold-{fold}", "last").config["init"]
            == checkpoint.load(tmp_path / "cf" / f"fold-{fold}", "best").checkpoint_sha256
        )


def test_duplicates_under_other_names_do_not_pass_a_crossfit(cohort: Cohort, tmp_path: Path) -> None:
    """The same hearts twice: whom one fold holds out, its encoders have seen as somebody else."""
    root = source(tmp_path / "acdc", patients=4)
    for number in range(1, 5):
        shutil.copytree(root / f"patient{number:03d}", root / f"patient{number + 4:03d}")
        for file in list((root / f"patient{number + 4:03d}").iterdir()):
            renamed = file.rename(file.with_name(file.name.replace(f"patient{number:03d}", f"patient{number + 4:03d}")))
            image = nib.load(renamed)
            again = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
            again.header["descrip"] = b"exported again"  # another file, the same frames
            nib.save(again, renamed)
    twice = prepare_clips(tmp_path / "twice", source=root, layout="acdc")
    flags = ["--clip.size", "32", "--clip.frames", "4", "--loop.epochs", "1", "--sampling.batch_size", "3", "--crossfit", "2"]
    words = ["--data", str(twice.path), "--out", str(tmp_path / "cf"), *flags, "--split.validation", "0", "--seed", "1"]
    pretrain(load(PretrainConfig, find_recipe("cine_contrastive"), words))
    with pytest.raises(UserError, match="were seen under other names"):
        finetune(config("mvo", twice, tmp_path / "run", *lesions("--init", str(tmp_path / "cf"))))
    stamped = finetune(config("mvo", twice, tmp_path / "run", *lesions("--init", str(tmp_path / "cf"), "--allow-overlap")))
    assert json.loads((Path(str(stamped)) / "results" / "results.json").read_text())["stamp"].startswith("OVERLAP")
    (tmp_path / "cf" / "fold-1" / "summary.json").unlink()
    with pytest.raises(UserError, match="is not finished"):
        finetune(config("mvo", twice, tmp_path / "run2", *lesions("--init", str(tmp_path / "cf"), "--allow-overlap")))


def test_a_cohort_that_has_grown_is_not_resumed_with_another_split(cohort: Cohort, tmp_path: Path) -> None:
    run = Path(str(finetune(config("mvo", cohort, tmp_path / "run", *lesions("--folds", "2")))))
    grown = prepare_clips(tmp_path / "grown", source=source(tmp_path / "acdc", patients=10), layout="acdc")
    with pytest.raises(UserError, match="the cohort's subjects and so the split have changed"):
        finetune(config("mvo", grown, run, *lesions("--folds", "2", "--resume")))


def test_a_head_without_encoders_is_tested_on_the_same_people(cohort: Cohort, pretrained: Path, tmp_path: Path) -> None:
    flags = lesions("--init", str(pretrained), "--loop.steps", "1")
    ours, plain = (
        Path(str(finetune(config("mvo", cohort, tmp_path / name, *flags, *more))))
        for name, more in (("ours", ()), ("unet", ("--head", "{name: unet, preset: tiny}", "--encoders", "{}")))
    )
    assert set(scans_of(ours)["subject"]) == set(scans_of(plain)["subject"])


def test_sites_stay_together_when_that_is_asked_for() -> None:
    sites = {f"s{i:02d}": "abcd"[i % 4] for i in range(16)}
    base = load(FinetuneConfig, find_recipe("mvo"), ["--split.by_site", "true", "--folds", "3"])
    splits, stamp = splits_for(base, sites, {}, ["s00"])  # one of site a is seen, so nobody of a is tested
    assert not stamp
    assert {sites[s] for split in splits for s in split.holdout} == set("bcd")
    for split in splits:
        parts = [{sites[s] for s in part} for part in (split.train, split.validation, split.holdout)]
        assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]


def test_ablations_end_in_one_table_and_compare_tests_two_runs(
    cohort: Cohort, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(cohort.path), "--out", str(tmp_path / "ab"), *SMALL, *lesions(), "--only", "controls"]
    assert main(["ablate", "mvo", *words, "--loop.steps", "1"]) == 0
    models = set(pd.read_csv(tmp_path / "ab" / "results" / "scans.tsv", sep="\t")["model"])
    assert {"mvo", "controls: motion off", "controls: first frame repeated, no residuals"} <= models
    other = Path(str(finetune(config("mvo", cohort, tmp_path / "other", *lesions("--seed", "0", "--head.refine", "false")))))
    assert main(["compare", str(finished), str(other), "--structure", "wall"]) == 0
    assert "permutation test over patients" in capsys.readouterr().out


def test_estimating_writes_nothing(cohort: Cohort, tmp_path: Path) -> None:
    found = str(finetune(config("mvo", cohort, tmp_path / "run", *lesions("--estimate", "--folds", "2"))))
    assert "2 runs" in found
    assert "gflop" in found.lower()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--classes", "{MVO: 1, wall: 2}"), r"the mask of patient001 slice 0 holds the value 3, which no class has"),
        (("--classes", "{MVO: 1, wall: 2, cavity: 3, scar: 4}"), r"classes\.scar: no mask of the \d+ training frames holds"),
        (("--lesion", "scar"), r"lesion: no structure 'scar'"),
        (("--head.preset", "mvo_tny"), r"has no preset 'mvo_tny' \(did you mean 'mvo_tiny'"),
        (("--patients", "[40]", "--folds", "2"), r"patients 40: the training folds have 4 subjects"),
        (("--augment.phase_shift", "0.2"), r"augment\.phase_shift: the frame to be segmented comes first"),
        (("--folds", "2", "--split.hold_subjects", "patient001"), r"folds test everybody once"),
        (("--clip.sampling", "stride"), r"clip\.sampling: only cycle shows the frame to be segmented first"),
        (("--split.holdout", "0"), r"split\.holdout 0: nobody is left to test on"),
        (("--postprocess.inside", "wall", "--postprocess.unit", "px"), r"postprocess\.unit: "),
        (("--head.classes", "3"), r"head\.classes: follows from the rest of the recipe"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    cohort: Cohort, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        finetune(config("mvo", cohort, tmp_path / "run", *lesions(*flags)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_cohorts_and_checkpoints_of_other_kinds_are_refused(
    cohort: Cohort, pretrained: Path, make_cohort: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ica = make_cohort(tmp_path / "ica")
    with pytest.raises(UserError, match="a cohort of kind 'ica'; a head for segmentation needs clips"):
        finetune(config("mvo", ica, tmp_path / "run"))
    values = np.random.default_rng(0).integers(0, 200, (8, 40, 40), dtype=np.uint8)
    for subject in "abc":
        (tmp_path / "videos" / subject).mkdir(parents=True)
        np.savez(tmp_path / "videos" / subject / "echo.npz", frames=np.roll(values, ord(subject), axis=1))
    bare = prepare_clips(tmp_path / "bare", source=tmp_path / "videos", layout="files")
    with pytest.raises(UserError, match="no frame has a mask to learn from"):
        finetune(config("mvo", bare, tmp_path / "run"))
    rest = tmp_path / "rest"
    flags = ["--loop.epochs", "1", "--sampling.batch_size", "4", "--split.validation", "0"]
    pretrain(load(PretrainConfig, find_recipe("courses"), ["--data", str(ica.path), "--out", str(rest), *flags]))
    with pytest.raises(UserError, match=r"has encoders of course, but the head needs cine and motion"):
        finetune(config("mvo", cohort, tmp_path / "run", *lesions("--init", str(rest))))
    with pytest.raises(UserError, match=r"clip\.normalise: the encoders of .* were trained with 'zscore'"):
        finetune(config("mvo", cohort, tmp_path / "run", *lesions("--init", str(pretrained), "--clip.normalise", "minmax")))
    assert main(["finetune", "mvo", "--data", str(cohort.path), "--out", str(pretrained)]) == 2
    assert main(["finetune", "--data", str(cohort.path)]) == 2
    assert main(["compare", str(pretrained), str(pretrained)]) == 2
    told = capsys.readouterr().err
    assert "holds a run already" in told
    assert "name the recipe first" in told
    assert "no results here" in told


def test_help_lists_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune"]) == 0
    told = capsys.readouterr().out
    assert "cine_segmentation, lge_segmentation, mvo" in told
    assert "--optimiser.encoder_factor" in told
    assert main(["pretrain", "--help"]) == 0
    assert "lge_segmentation" not in capsys.readouterr().out
