"""Fine-tuning of a head for segmentation, as the training loop sees it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, nn

from ssl4neuro.data.clip_views import CINE
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.labelled import LabelledFrames, LabelledRows
from ssl4neuro.data.loader import load_batches
from ssl4neuro.data.plan import Plan, share_of
from ssl4neuro.data.splits import Split
from ssl4neuro.data.views import make_views, to_device
from ssl4neuro.encoders.weights import no_public_weights
from ssl4neuro.errors import UserError
from ssl4neuro.heads.model import SegmentationConfig, SegmentationModel
from ssl4neuro.registry import suggest
from ssl4neuro.train.finetune_config import FinetuneConfig
from ssl4neuro.train.loop import mix
from ssl4neuro.types import Batch

AT_ONCE = 16  # clips of a validation batch


class SegmentationTask:
    """Batches, views and validation of one run.

    Args:
        config: the recipe.
        segmentation: network and classes.
        frames: every labelled frame of the cohort.
        weights: of pretrained encoders, by modality; None from scratch.
        begun: a checkpoint will be loaded, so that no public weights are needed.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        segmentation: SegmentationConfig,
        cohort: Cohort,
        frames: LabelledFrames,
        split: Split,
        accelerator: Accelerator | PartialState,
        weights: Mapping[str, Mapping[str, Tensor]] | None = None,
        begun: bool = False,
    ) -> None:
        self.config, self.cohort, self.frames, self.accelerator = config, cohort, frames, accelerator
        torch.manual_seed(mix(config.seed, 0x48454144))
        with no_public_weights(weights is not None or begun):
            self.model = SegmentationModel(segmentation)
        for name, state in (weights or {}).items():
            if name in self.model.encoders:
                self.model.encoders[name].load_state_dict(dict(state))
        self.rows = LabelledRows(cohort, frames, config.clip, config.still)
        self.view_maker = make_views(
            cohort, (CINE,), clip=config.clip, seed=config.seed,
            augment={} if config.augment is None else {CINE: self._anchored(config)},
        ).to(accelerator.device)  # fmt: skip
        subject = cohort.index["subject"].to_numpy()[frames.row]
        self.train, self.validation = (np.flatnonzero(np.isin(subject, part)) for part in (split.train, split.validation))
        self.plan = self._plan(segmentation)
        self.batches_per_epoch = len(self.plan)

    @staticmethod
    def _anchored(config: FinetuneConfig):
        """The augmentation, with the labelled frame kept in its place at the beginning."""
        assert config.augment is not None
        for option in ("phase_shift", "reverse"):
            if config.augment.options.get(option):
                raise UserError(
                    f"augment.{option}: the frame to be segmented comes first, so time cannot be moved; leave it out"
                )
        return replace(config.augment, options={**config.augment.options, "phase_shift": 0.0, "reverse": 0.0})

    def batches(self, first: int, last: int, workers: int) -> Iterator[Batch]:
        share, shares = self.accelerator.process_index, self.accelerator.num_processes

        def chosen() -> Iterator[np.ndarray]:
            for epoch in range(first // self.batches_per_epoch, -(-last // self.batches_per_epoch)):
                start = first - epoch * self.batches_per_epoch if epoch == first // self.batches_per_epoch else 0
                for batch in self.plan.epoch(epoch)[start:]:
                    yield share_of(batch, share, shares)

        return load_batches(self.rows, chosen, workers)

    def views(self, stored: Batch, epoch: int) -> Batch:
        self.model.freeze(self.config.freeze or epoch < self.config.freeze_epochs)
        return self.view_maker(to_device(stored, self.accelerator.device), epoch)

    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mean loss, and the Dice of each structure over the frames that show it; `signal` is the lesion's, or the mean.

        On the pixels that the head sees; the final results are measured on the source's own.
        """
        assert isinstance(model, SegmentationModel)
        if not len(self.validation):
            return {}
        codes = model.config.codes
        sums: dict[str, float] = {}
        dice: dict[str, float] = {}
        found: dict[str, list[Tensor]] = {name: [] for name in codes}
        order = np.array_split(self.validation, -(-len(self.validation) // AT_ONCE))
        for stored in load_batches(self.rows, lambda: iter(order)):
            batch = self.view_maker(to_device(stored, self.accelerator.device), None)
            segmented = model.segment(batch["inputs"][CINE][:, 0], batch["valid"][CINE][:, 0])
            target = model.target(batch)
            for name, value in model.loss(segmented, target).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(target) / len(self.validation)
            answer = segmented.probabilities.argmax(1)
            for name, union in codes.items():
                members = torch.tensor(union, device=target.device)
                found[name].append(_dice(torch.isin(answer, members) & (target >= 0), torch.isin(target, members)))
        for name, parts in found.items():
            values = torch.cat(parts)
            dice[name] = float(values[~values.isnan()].mean())
        lesion = model.config.lesion
        signal = dice[lesion] if lesion else float(np.nanmean(list(dice.values())))
        measures = {**sums, **{f"dice/{name}": value for name, value in dice.items()}}
        if self.config.monitor.signal == "loss":
            return {**measures, "signal": sums["loss"]}
        # nothing found is no signal: the first of many such checkpoints is not the best one
        return {**measures, "signal": signal} if signal > 0 else measures

    def alarms(self, measures: Mapping[str, float]) -> list[str]:
        return [
            f"{name.removeprefix('dice/')}: not one pixel of it is found on the validation subjects; raise loss.cross_entropy, "
            "or draw more frames that show it (sampling: {kind: classes})"
            for name, value in measures.items()
            if name.startswith("dice/") and value == 0
        ]

    def name_rows(self, rows: Tensor) -> str:
        lines = self.cohort.index.iloc[self.frames.row[rows.cpu().numpy()]]
        scans = lines[["subject", "session", "slice"]].drop_duplicates()
        names = [f"{s.subject} {s.session} slice {s.slice}".replace("  ", " ") for s in scans.itertuples()]
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

    def _plan(self, segmentation: SegmentationConfig) -> Plan:
        """Batches of training frames; `kind: classes` draws as many that show a structure as that do not."""
        sampling, label = self.config.sampling, None
        rows = self.frames.row[self.train]
        subject, group = (self.cohort.index[name].to_numpy(np.int64)[rows] for name in ("subject_code", "group_code"))
        if sampling.kind == "classes":
            name = sampling.labels[0]
            if name not in segmentation.codes:
                raise UserError(
                    f"sampling.labels: no structure '{name}'{suggest(name, segmentation.codes)}; frames are balanced by one"
                )
            label = self.frames[self.train].holds(segmentation.values(name)).astype(np.int64)
            if label.all() or not label.any():  # nothing to balance
                sampling, label = replace(sampling, kind="rows", labels=()), None
        return Plan(sampling, self.config.seed, self.train.astype(np.int64), subject, group, label)


def _dice(answer: Tensor, truth: Tensor) -> Tensor:
    """Of each picture; NaN where the truth shows nothing."""
    overlap, total = (answer & truth).sum((1, 2)), answer.sum((1, 2)) + truth.sum((1, 2))
    return torch.where(truth.any(2).any(1), 2 * overlap / total.clamp_min(1), torch.nan)
