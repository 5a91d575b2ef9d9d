"""Fine-tuning: a head on pretrained encoders, tested on subjects that neither has seen.

A run folder holds one training (`RUN/checkpoints`), or one per fold (`RUN/fold-0`, ...), or these for every number of patients
(`RUN/patients-5/fold-0`, ...); `RUN/results` pools the tests of all. Every training is finished or can be resumed by itself.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from ssl4neuro.atomic import new_file
from ssl4neuro.config import from_mapping, to_mapping
from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.labelled import LabelledFrames, labelled_frames
from ssl4neuro.data.splits import Split
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.held_out import MOTION_ENERGY, score_head, score_motion_energy
from ssl4neuro.evaluate.postprocess import UNKNOWN
from ssl4neuro.evaluate.segment import load_segmenters
from ssl4neuro.heads.model import IGNORED
from ssl4neuro.train.estimate import Estimate, estimate
from ssl4neuro.train.finetune_config import FinetuneConfig
from ssl4neuro.train.finetune_results import SCANS, TEST_MASKS, write_results
from ssl4neuro.train.finetune_splits import fewer, overlap_stamp, pretraining_split, splits_for
from ssl4neuro.train.initial import Initial, fold_runs, load_initial
from ssl4neuro.train.interruption import Interrupted
from ssl4neuro.train.loop import Loop, make_accelerator
from ssl4neuro.train.run import Run, contract_of, environment, manifest_of, strata
from ssl4neuro.train.segmentation import SegmentationTask


@dataclass(frozen=True)
class Training:
    """One training of a run."""

    folder: Path
    model: str  # name in the tables
    fold: int
    split: Split
    init: str


def finetune(config: FinetuneConfig) -> Path | Estimate:
    """Train and test a head.

    Returns:
        The run folder; with `estimate`, the expected time and memory instead.

    Raises:
        UserError: whatever the user can put right.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    out = Path(config.out)
    if config.out and not config.resume and not config.estimate and out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: holds a run already; add --resume to continue it, or name another --out")
    cohort, frames = _labelled(config)
    trainings, stamp = _trainings(config, cohort, frames)
    alone = len(trainings) == 1
    run, accelerator = Run(out), make_accelerator(config.loop, config.optimiser, out)
    if config.resume and (out / "config.yaml").is_file():
        _refuse_changes(run, config)
    if not alone and not config.estimate and accelerator.is_main_process:
        run.create(to_mapping(config), environment(config.seed, str(accelerator.device.type), accelerator.num_processes), {})
    accelerator.wait_for_everyone()
    for training in trainings:
        resume = config.resume and (training.folder / "config.yaml").is_file()
        if resume:
            _refuse_changes(Run(training.folder), config, training.split)
        if resume and (training.folder / SCANS).is_file():
            continue
        found = _train_one(replace(config, resume=resume), training, cohort, frames)
        if found is not None:
            return replace(found, runs=len(trainings))
    if accelerator.is_main_process:
        write_results(config, cohort, [(t.folder, t.split) for t in trainings], stamp)
    accelerator.wait_for_everyone()
    return out


def _labelled(config: FinetuneConfig) -> tuple[ClipCohort, LabelledFrames]:
    """The cohort and its frames with masks, after everything that can be wrong with the two."""
    if not config.data or not config.out:
        missing = "--data COHORT" if not config.data else "--out RUN"
        raise UserError(
            f"finetune: {missing} is missing; prepare a cohort with `ssl4neuro prepare clips` and name a run folder"
        )
    cohort = Cohort.open(config.data)
    if not isinstance(cohort, ClipCohort):
        raise UserError(f"{config.data}: a cohort of kind '{cohort.kind}'; a head for segmentation needs clips with masks")
    frames = labelled_frames(cohort)
    if not len(frames):
        raise UserError(f"{config.data}: no frame has a mask to learn from; put masks beside the images and prepare again")
    known = {0, IGNORED, *config.classes.values()}
    strangers = [value for value in np.flatnonzero(frames.values.any(0)).tolist() if value not in known]
    if strangers:
        row = int(frames.row[frames.holds(strangers[:1])][0])
        line = cohort.index.iloc[row]
        told = ", ".join(f"{name} {value}" for name, value in config.classes.items())
        raise UserError(
            f"{config.data}: the mask of {line['subject']} slice {line['slice']} holds the value {strangers[0]}, which no "
            f"class has ({told}); name it in classes, e.g. --classes.other {strangers[0]}"
        )
    _check_spacing(config, cohort, frames)
    return cohort, frames


def _check_spacing(config: FinetuneConfig, cohort: ClipCohort, frames: LabelledFrames) -> None:
    """Raises UserError where millimetres of an unknown spacing are asked for; otherwise says what is measured in pixels."""
    labelled = cohort.index.iloc[np.unique(frames.row)]
    unknown = labelled[labelled["spacing_row"].isna()]
    if unknown.empty:
        return
    if config.postprocess.measures and config.postprocess.unit == "mm":
        raise UserError(f"{config.data}: {unknown['subject'].iloc[0]}: {UNKNOWN}")
    if config.clip.field is not None:
        raise UserError(
            f"clip.field {config.clip.field:g}: is in mm, but the pixel spacing of {unknown['subject'].iloc[0]} is unknown; "
            "use clip.extent instead"
        )
    told = f"the pixel spacing of {len(unknown)} of {len(labelled)} clips is unknown; what is measured there is in pixels"
    print(f"note: {config.data}: {told}", file=sys.stderr)


def _trainings(config: FinetuneConfig, cohort: ClipCohort, frames: LabelledFrames) -> tuple[list[Training], str]:
    """What is trained on whom, and the stamp of the result."""
    index = cohort.index.iloc[np.unique(frames.row)]
    sites = dict(zip(index["subject"].tolist(), index["site"].tolist(), strict=True))
    if len(sites) < 3:
        raise UserError(f"{config.data}: masks of {len(sites)} subjects; at least 3 are needed to train, choose and test")
    lesion = _lesion_layers(config, cohort, frames)
    layers = strata(cohort, config.split) or lesion  # spread evenly over folds and validation
    runs, stamp = fold_runs(config.init), ""
    if runs:
        if config.folds not in (0, len(runs)):
            raise UserError(
                f"folds {config.folds}: {config.init} has {len(runs)} folds; pretrain as many, or leave `folds` out"
            )
        if config.split.hold_subjects or config.split.hold_sites:
            raise UserError(f"split: {config.init} says who is tested in each fold; leave hold_subjects and hold_sites out")
        contents = cohort.content_hashes()
        seen = [load_initial(run, cohort, config.clip, {}).manifest.overlap(cohort.name, contents) for run in runs]
        splits = [pretraining_split(run, config, sites, layers, own) for run, own in zip(runs, seen, strict=True)]
        stamp = overlap_stamp(splits, seen)
    else:
        manifest = load_initial(config.init, cohort, config.clip, config.encoders, config.adapt).manifest
        splits, stamp = splits_for(config, sites, layers, manifest.overlap(cohort.name, cohort.content_hashes()))
    out, name = Path(config.out), config.head.name
    trainings = []
    for count in _budgets(config, splits) or (None,):
        part = out if count is None else out / f"patients-{count}"
        label = name if count is None else f"{name}, {count} patients"
        for fold, split in enumerate(splits):
            folder = part / f"fold-{fold}" if len(splits) > 1 else part
            own = split if count is None else fewer(split, count, config.seed, lesion)
            trainings.append(Training(folder, label, fold, own, str(runs[fold]) if runs else config.init))
    _check_trainings(config, cohort, frames, trainings)
    return trainings, stamp


def _check_trainings(config: FinetuneConfig, cohort: ClipCohort, frames: LabelledFrames, trainings: Sequence[Training]) -> None:
    """Raises UserError when somebody's training lacks a class, or has nobody to be tested on, before any begins."""
    subject = cohort.index["subject"].to_numpy()[frames.row]
    for training in trainings:
        if not training.split.holdout:
            raise UserError("split.holdout 0: nobody is left to test on; hold some out, or use --folds")
        shown = frames[np.isin(subject, training.split.train)]
        for name, value in config.classes.items():
            if not shown.holds([value]).any():
                raise UserError(
                    f"classes.{name}: no mask of the {len(shown)} training frames holds the value {value} (fold "
                    f"{training.fold}, {len(training.split.train)} subjects); train on more subjects, or leave the class out"
                )


def _budgets(config: FinetuneConfig, splits: Sequence[Split]) -> tuple[int, ...]:
    most = min(len(split.train) + len(split.validation) for split in splits)
    shares = {max(1, round(share * most)) for share in config.label_fraction}
    return tuple(sorted(set(config.patients) | shares))


def _lesion_layers(config: FinetuneConfig, cohort: ClipCohort, frames: LabelledFrames) -> dict[str, str]:
    """Whether each subject has the lesion; nothing where the recipe has none."""
    if config.lesion is None:
        return {}
    positive = frames.holds(config.segmentation(config.encoders).values(config.lesion))
    subject = cohort.index["subject"].to_numpy()[frames.row]
    if not positive.any():
        raise UserError(f"{config.data}: no mask shows the lesion '{config.lesion}'; check `classes` against the masks")
    return {name: "with" if positive[subject == name].any() else "without" for name in np.unique(subject).tolist()}


def _train_one(config: FinetuneConfig, training: Training, cohort: ClipCohort, frames: LabelledFrames) -> Estimate | None:
    """Train, test, and leave checkpoint, scores and masks in the training's folder."""
    accelerator = make_accelerator(config.loop, config.optimiser, training.folder)
    initial = load_initial(training.init, cohort, config.clip, config.encoders, config.adapt)
    for note in initial.notes if training.fold == 0 and not config.resume else ():
        accelerator.print(f"note: {note}", file=sys.stderr)
    segmentation = config.segmentation(initial.encoders)
    begun = config.resume and any((training.folder / "checkpoints").glob("step-*"))
    task = SegmentationTask(config, segmentation, cohort, frames, training.split, accelerator, initial.weights or None, begun)
    if config.estimate:
        return replace(estimate(task, config.loop, config.optimiser, accelerator), detail=_cost(task, config))
    run = Run(training.folder, writes=accelerator.is_main_process)
    # what starts from scratch learns at one rate
    optimiser = config.optimiser if initial.weights else replace(config.optimiser, encoder_factor=1.0)
    loop = Loop(
        task, config.loop, optimiser, config.monitor,
        accelerator=accelerator, seed=config.seed, run=run,
        contract=contract_of(cohort, ("cine", "motion") if "motion" in initial.encoders else ("cine",), config.clip),
        manifest=initial.manifest.merge(manifest_of(cohort, training.split)),
        record=_record(config, training, segmentation, initial, cohort),
    )  # fmt: skip
    if config.resume:
        for note in loop.resume():
            accelerator.print(note)
    else:
        place = environment(config.seed, str(accelerator.device.type), accelerator.num_processes)
        run.create(to_mapping(config), place, training.split.to_json())
    if config.loop.trackers:
        accelerator.init_trackers("ssl4neuro")
    run.summarise(**loop.fit())
    if config.loop.trackers:
        accelerator.end_training()
    if accelerator.is_main_process:
        _test_one(config, training, cohort, frames, accelerator.device)
    accelerator.wait_for_everyone()
    return None


def _refuse_changes(run: Run, config: FinetuneConfig, split: Split | None = None) -> None:
    saved = from_mapping(FinetuneConfig, run.saved_config(), str(run.path / "config.yaml"))
    run.refuse_changes(saved.identity(), config.identity())
    if split is not None and json.loads((run.path / "split.json").read_text(encoding="utf-8")) != split.to_json():
        raise UserError(f"{run.path}: cannot resume, the cohort's subjects and so the split have changed; use another --out")


def _record(
    config: FinetuneConfig, training: Training, segmentation: Any, initial: Initial, cohort: ClipCohort
) -> dict[str, Any]:
    return {
        "segmentation": to_mapping(segmentation), "postprocess": to_mapping(config.postprocess), "tta": config.tta,
        "still": config.still, "init": initial.source, "seed": config.seed, "cohort": cohort.name,
        "split": training.split.to_json(),
    }  # fmt: skip


def _test_one(config: FinetuneConfig, training: Training, cohort: ClipCohort, frames: LabelledFrames, device: Any) -> None:
    """Scores of the held-out subjects by the best checkpoint (the last one where no validation chose), beside baselines."""
    (segmenter,) = load_segmenters(training.folder, "best", device)
    subject = cohort.index["subject"].to_numpy()[frames.row]
    test = frames[np.isin(subject, training.split.holdout)]
    table, masks = score_head(
        training.model, [segmenter.model], cohort, test, config.clip, device,
        after=config.postprocess, tta=config.tta, still=config.still, fold=training.fold,
    )  # fmt: skip
    tables = [table, *_baselines(config, training, cohort, frames, test)]
    with new_file(training.folder / TEST_MASKS) as temporary:
        save_file({key: np.ascontiguousarray(value) for key, value in masks.items()}, temporary)
    with new_file(training.folder / SCANS) as temporary:
        pd.concat(tables, ignore_index=True).to_csv(temporary, sep="\t", index=False)


def _baselines(
    config: FinetuneConfig, training: Training, cohort: ClipCohort, frames: LabelledFrames, test: LabelledFrames
) -> Iterator[pd.DataFrame]:
    moving = cohort.index["frames"].to_numpy()[frames.row].min() > 1
    if config.baselines and config.lesion is not None and moving and config.clip.frames > 1:
        subject = cohort.index["subject"].to_numpy()[frames.row]
        train = frames[np.isin(subject, [*training.split.train, *training.split.validation])]
        _, comma, budget = training.model.partition(",")
        yield score_motion_energy(
            config.segmentation({}), cohort, train, test, config.clip, training.fold, f"{MOTION_ENERGY}{comma}{budget}"
        )


def _cost(task: SegmentationTask, config: FinetuneConfig) -> str:
    """GFLOP of one forward pass per clip, where the head counts them."""
    if not hasattr(task.model.head, "cost"):
        return ""
    counted = task.model.head.cost(config.clip.size, config.clip.size)
    told = ", ".join(f"{name} {value:,.3g}" for name, value in counted.items())
    return f"head at {config.clip.size}×{config.clip.size}×{config.clip.frames}: {told}"


__all__ = ["FinetuneConfig", "Interrupted", "finetune"]
