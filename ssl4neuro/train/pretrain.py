"""Pretraining: from a recipe and a prepared cohort to a run folder."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from torch import Tensor

from ssl4neuro.config import from_mapping, read_yaml, to_mapping
from ssl4neuro.data.clip_loading import ClipConfig
from ssl4neuro.data.clip_views import MOTION
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.loader import CohortRows, encode_labels, load_batches
from ssl4neuro.data.plan import Plan, SamplingConfig, share_of
from ssl4neuro.data.splits import Split, SplitConfig, crossfit_splits, split_subjects
from ssl4neuro.data.views import make_views, to_device
from ssl4neuro.encoders.weights import no_public_weights
from ssl4neuro.errors import UserError
from ssl4neuro.model import FusionConfig, ModalityConfig, Model, ModelConfig
from ssl4neuro.registry import Component
from ssl4neuro.train.estimate import Estimate, estimate
from ssl4neuro.train.interruption import Interrupted
from ssl4neuro.train.loop import Loop, LoopConfig, make_accelerator, mix
from ssl4neuro.train.monitors import MonitorConfig, collapse_alarms
from ssl4neuro.train.optimiser import OptimiserConfig
from ssl4neuro.train.run import Run, contract_of, environment, manifest_of, strata
from ssl4neuro.train.validation import Validation
from ssl4neuro.train.warmup import Choice, choose, laid_out, measure, this_process
from ssl4neuro.types import Batch


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining recipe. A YAML file or flags give what differs from these defaults."""

    modalities: dict[str, ModalityConfig]
    objectives: dict[str, Component]
    data: str = ""  # prepared cohort
    out: str = ""  # run folder to create
    fusion: FusionConfig = FusionConfig()
    clip: ClipConfig = ClipConfig()  # how clips are cut; no effect on maps and courses
    sampling: SamplingConfig = SamplingConfig()
    split: SplitConfig = SplitConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    loop: LoopConfig = LoopConfig()
    monitor: MonitorConfig = MonitorConfig()
    crossfit: int = 0  # K encoders, so that every subject is unseen by one; 0 trains a single one
    seed: int = 0
    # switches of the command line, not part of the recipe's identity
    resume: bool = field(default=False)
    estimate: bool = field(default=False)

    @property
    def model(self) -> ModelConfig:
        return ModelConfig(self.modalities, self.objectives, self.fusion)

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the interrupted one."""
        mapping = to_mapping(self)
        for key in ("data", "out", "resume", "estimate"):
            mapping.pop(key)
        for key in ("workers", "checkpoint_minutes", "checkpoint_steps", "keep", "log_every", "trackers"):
            mapping["loop"].pop(key)
        return mapping


class PretrainTask:
    """Batches, views and validation of one pretraining run, for the loop."""

    def __init__(self, config: PretrainConfig, cohort: Cohort, split: Split, accelerator: Accelerator | PartialState) -> None:
        self.config, self.cohort, self.accelerator = config, cohort, accelerator
        torch.manual_seed(mix(config.seed, 0x4D4F4445))
        with no_public_weights(config.resume):
            self.model = Model(config.model)
        targets, self.label_names = self._targets()
        self.model.set_levels(self.label_names)
        self.rows = CohortRows(cohort, self.model.modalities, targets, config.clip)
        self.view_maker = make_views(
            cohort,
            self.rows.modalities,
            clip=config.clip,
            augment={name: modality.augment for name, modality in config.modalities.items() if modality.augment is not None},
            counts={name: modality.views for name, modality in config.modalities.items()},
            seed=config.seed,
        ).to(accelerator.device)
        self.plan = self._plan(split.train)
        self.batches_per_epoch = len(self.plan)
        self.validation = Validation(
            config.monitor, cohort, self.rows, self.view_maker, split, accelerator, self.label_names,
            plan=self._plan(split.validation) if split.validation else None,
        )  # fmt: skip

    def batches(self, first: int, last: int, workers: int) -> Iterator[Batch]:
        share, shares = self.accelerator.process_index, self.accelerator.num_processes

        def chosen() -> Iterator[np.ndarray]:
            for epoch in range(first // self.batches_per_epoch, -(-last // self.batches_per_epoch)):
                start = first - epoch * self.batches_per_epoch if epoch == first // self.batches_per_epoch else 0
                for batch in self.plan.epoch(epoch)[start:]:
                    yield share_of(batch, share, shares)

        return load_batches(self.rows, chosen, workers)

    def views(self, stored: Batch, epoch: int) -> Batch:
        return self.view_maker(to_device(stored, self.accelerator.device), epoch)

    def after_step(self, progress: float) -> None:
        self.model.after_step(progress)

    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        return self.validation(model)

    def alarms(self, measures: Mapping[str, float]) -> list[str]:
        return collapse_alarms(measures, self.model.dims)

    def name_rows(self, rows: Tensor) -> str:
        scans = self.cohort.index.iloc[rows.cpu().numpy()][["subject", "session", "run"]].drop_duplicates()
        names = [" ".join(part for part in scan if part) for scan in scans.itertuples(index=False)]
        more = f" and {len(names) - 4} more scans" if len(names) > 4 else ""
        return f"{', '.join(names[:4])}{more} (rows {int(rows.min())} to {int(rows.max())})"

    def _targets(self) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
        wanted = {*self.model.labels, *self.config.sampling.labels}
        if self.config.monitor.label:
            wanted.add(self.config.monitor.label)
        codes, names = {}, {}
        for column in sorted(wanted):
            codes[column], names[column] = encode_labels(self.cohort.labels(column).tolist())
        return codes, names

    def _plan(self, subjects: tuple[str, ...]) -> Plan:
        index = self.cohort.index
        chosen = np.flatnonzero(index["subject"].isin(subjects).to_numpy())
        label = None
        if self.config.sampling.kind == "classes":
            columns = np.stack([self.rows.targets[c][chosen] for c in self.config.sampling.labels])
            _, label = np.unique(columns, axis=1, return_inverse=True)
            label = np.where((columns < 0).any(0), -1, label).astype(np.int64)
        return Plan(
            self.config.sampling,
            self.config.seed,
            chosen,
            index["subject_code"].to_numpy(np.int64)[chosen],
            index["group_code"].to_numpy(np.int64)[chosen],
            label,
        )


def pretrain(config: PretrainConfig) -> Path | Estimate:
    """Train without labels (or with those an objective names) and leave a run folder.

    Returns:
        The run folder; with `estimate`, the expected time and memory instead.

    Raises:
        UserError: whatever the user can put right.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    if not config.data or not config.out:
        missing = "--data COHORT" if not config.data else "--out RUN"
        raise UserError(
            f"pretrain: {missing} is missing; prepare a cohort with `ssl4neuro prepare` and name a folder for the run"
        )
    cohort = Cohort.open(config.data)
    sites = dict(zip(cohort.index["subject"].tolist(), cohort.index["site"].tolist(), strict=True))
    if len(sites) < 2:
        raise UserError(f"{config.data}: one subject only; contrastive learning compares subjects, so prepare at least 3")
    if config.crossfit:
        splits = crossfit_splits(sites, config.crossfit, config.split, config.seed, strata(cohort, config.split))
        for fold, split in enumerate(splits):
            fold_config = replace(config, out=str(Path(config.out) / f"fold-{fold}"), crossfit=0)
            if config.resume and (Path(fold_config.out) / "summary.json").is_file():
                continue
            resume = config.resume and (Path(fold_config.out) / "config.yaml").is_file()
            found = pretrain_on(replace(fold_config, resume=resume), cohort, split)
            if isinstance(found, Estimate):
                return replace(found, runs=config.crossfit)
        return Path(config.out)
    return pretrain_on(config, cohort, split_subjects(sites, config.split, config.seed, strata(cohort, config.split)))


def pretrain_on(config: PretrainConfig, cohort: Cohort, split: Split) -> Path | Estimate:
    """`pretrain` of one encoder with the subjects already divided, as a larger study does."""
    run_path = Path(config.out)
    if MOTION in config.modalities and cohort.kind == "clips":
        _check_motion(cohort, split)
    if not config.resume and not config.estimate and run_path.exists() and any(run_path.iterdir()):
        raise UserError(f"{run_path}: holds a run already; add --resume to continue it, or name another --out")
    measured: list[Choice] = []
    if config.loop.precision == "auto":
        config, measured = _settled(config, cohort, split)
    accelerator = make_accelerator(config.loop, config.optimiser, run_path)
    task = PretrainTask(config, cohort, split, accelerator)
    if config.estimate:
        return estimate(task, config.loop, config.optimiser, accelerator)
    run = Run(run_path, writes=accelerator.is_main_process)
    if config.resume:
        _same_run(run, config)
    loop = Loop(
        task, config.loop, config.optimiser, config.monitor,
        accelerator=accelerator, seed=config.seed, run=run,
        contract=contract_of(cohort, task.model.modalities, config.clip), manifest=manifest_of(cohort, split),
        record={"model": to_mapping(config.model), "seed": config.seed, "cohort": cohort.name, "split": split.to_json()},
    )  # fmt: skip
    if config.resume:
        for note in loop.resume():
            accelerator.print(note)
    else:
        device = str(accelerator.device.type)
        run.create(to_mapping(config), environment(config.seed, device, accelerator.num_processes), split.to_json())
        if measured:
            run.note("precision.json", [vars(choice) for choice in measured])
    if config.loop.trackers:
        accelerator.init_trackers("ssl4neuro")
    summary = loop.fit()
    run.summarise(**summary)
    if config.loop.trackers:
        accelerator.end_training()
    return run_path


def _check_motion(cohort: Cohort, split: Split) -> None:
    """Single frames do not move: refuse a cohort of nothing else, warn of some."""
    index = cohort.index
    frames = index["frames"][index["subject"].isin(split.train)]
    still = int((frames == 1).sum())
    if still == len(frames):
        raise UserError(f"{cohort.path}: every clip has one frame only, so there is no motion; leave the modality 'motion' out")
    if still:
        told = f"{still} of {len(frames)} training clips have one frame only and take no part where motion is compared"
        print(f"warning: {cohort.path}: {told}", file=sys.stderr)


def _settled(config: PretrainConfig, cohort: Cohort, split: Split) -> tuple[PretrainConfig, list[Choice]]:
    """The recipe with the fastest precision and memory layout; those of the run when it is continued."""
    file = Path(config.out) / "config.yaml"
    if config.resume and file.is_file():
        saved = from_mapping(PretrainConfig, read_yaml(file), str(file))
        layout = any(m.encoder.options.get("channels_last") is True for m in saved.modalities.values())
        return _with(config, saved.loop.precision, layout), []
    state = this_process()
    measured = measure(lambda layout: PretrainTask(_with(config, "no", layout), cohort, split, state), config.optimiser, state)
    choice = choose(measured, state)
    if state.is_main_process:
        told = ", ".join(f"{c.precision}{' channels-last' * c.channels_last} {c.seconds:.3g} s" for c in measured)
        told_layout = " with channels-last" * choice.channels_last
        print(f"precision: {choice.precision}{told_layout} (a step takes: {told})", file=sys.stderr)
    return _with(config, choice.precision, choice.channels_last), measured


def _with(config: PretrainConfig, precision: str, channels_last: bool) -> PretrainConfig:
    loop: Any = replace(config.loop, precision=precision)  # type: ignore[arg-type]
    return replace(config, loop=loop, modalities=laid_out(config.modalities, channels_last))


def _same_run(run: Run, config: PretrainConfig) -> None:
    run.refuse_changes(
        from_mapping(PretrainConfig, run.saved_config(), str(run.path / "config.yaml")).identity(), config.identity()
    )


__all__ = ["Interrupted", "PretrainConfig", "PretrainTask", "pretrain", "pretrain_on"]
