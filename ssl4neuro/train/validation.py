"""One validation: loss, collapse measures, retrieval and an online kNN probe on subjects that are not trained on."""

import itertools

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, nn

from ssl4neuro.data.clip_views import ClipViews
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.loader import CohortRows, load_batches
from ssl4neuro.data.plan import Plan, share_of
from ssl4neuro.data.splits import Split
from ssl4neuro.data.views import Views, to_device
from ssl4neuro.model import Model
from ssl4neuro.objectives import NoNegatives
from ssl4neuro.train.monitors import MonitorConfig, alignment, effective_rank, knn_accuracy, retrieval_top1, spread, uniformity

AUGMENTATION_KEY = -1  # epoch whose augmentations every validation uses, so that its losses are comparable
SCANS_PER_BATCH = 4


class Validation:
    """Callable that measures a model on the validation subjects; without any it measures nothing.

    The kNN probe's gallery is made of training subjects. Held-out subjects are never read.
    """

    def __init__(
        self,
        config: MonitorConfig,
        cohort: Cohort,
        rows: CohortRows,
        views: Views | ClipViews,
        split: Split,
        accelerator: Accelerator | PartialState,
        label_names: dict[str, list[str]],
        plan: Plan | None,
    ) -> None:
        self.config, self.rows, self.views, self.plan, self.accelerator = config, rows, views, plan, accelerator
        self.scans = self._whole_scans(cohort, split.validation)
        self.gallery = self._whole_scans(cohort, split.train) if config.label else []
        self.label_names = label_names

    def __call__(self, model: nn.Module) -> dict[str, float]:
        assert isinstance(model, Model)
        if not self.scans:
            return {}
        measures = self._losses(model)
        found, batch_rows = self._embed(model, self.scans)
        for name in model.encoders:
            if name in found and len(found[name]) > 1:
                measures[f"{name}/effective_rank"] = effective_rank(found[name])
                measures[f"{name}/uniformity"] = uniformity(found[name] - found[name].mean(0))  # a common offset is harmless
                measures[f"{name}/spread"] = spread(found[name])
        projected = [name for name in found if name.endswith("_projected") and not name.startswith("session:")]
        for a, b in itertools.pairwise(projected):
            measures["alignment"] = alignment(found[a], found[b])
            measures["retrieval"] = 0.5 * (retrieval_top1(found[a], found[b]) + retrieval_top1(found[b], found[a]))
        if self.config.label:
            measures["knn"] = self._knn(model, found, batch_rows)
        value = measures.get("loss" if self.config.signal == "loss" else self.config.signal)
        if value is not None:
            measures["signal"] = value
        return measures

    def _losses(self, model: Model) -> dict[str, float]:
        """Mean of every term over one epoch of the validation plan, with augmentations that never change."""
        if self.plan is None:
            return {}
        sums: dict[str, float] = {}
        shares = self.accelerator.num_processes
        batches = [b for b in self.plan.epoch(0) if len(b) >= shares]
        mine = [share_of(batch, self.accelerator.process_index, shares) for batch in batches]
        for stored in load_batches(self.rows, lambda: iter(mine)):
            batch = self.views(to_device(stored, self.accelerator.device), AUGMENTATION_KEY)
            try:
                terms = model(batch)
            except NoNegatives:  # too few validation subjects to compare: no signal rather than a wrong one
                return {}
            reduced = self.accelerator.reduce(torch.stack([v.float() for v in terms.values()]), "mean")
            for name, value in zip(terms, reduced.tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value / len(mine)
        return sums

    def _embed(self, model: Model, scans: list[np.ndarray]) -> tuple[dict[str, Tensor], np.ndarray]:
        """Embeddings of whole scans, not augmented; every process does them all, they are few."""
        batches = [np.concatenate(scans[i : i + SCANS_PER_BATCH]) for i in range(0, len(scans), SCANS_PER_BATCH)]
        parts: dict[str, list[Tensor]] = {}
        for stored in load_batches(self.rows, lambda: iter(batches)):
            batch = self.views(to_device(stored, self.accelerator.device), None)
            for name, values in model.embeddings(batch).items():
                parts.setdefault(name, []).append(values.float())
        return {name: torch.cat(values) for name, values in parts.items()}, np.concatenate(batches)

    def _knn(self, model: Model, found: dict[str, Tensor], rows: np.ndarray) -> float:
        assert self.config.label is not None
        column = "joint" if "joint" in found else next(iter(model.encoders))
        gallery, gallery_rows = self._embed(model, self.gallery)
        labels = self.rows.targets[self.config.label]
        known, gallery_known = labels[rows] >= 0, labels[gallery_rows] >= 0
        if not known.any() or not gallery_known.any():
            return float("nan")
        device = found[column].device
        return knn_accuracy(
            gallery[column][torch.from_numpy(gallery_known).to(device)],
            torch.from_numpy(labels[gallery_rows][gallery_known]).to(device),
            found[column][torch.from_numpy(known).to(device)],
            torch.from_numpy(labels[rows][known]).to(device),
            self.config.neighbours,
        )

    def _whole_scans(self, cohort: Cohort, subjects: tuple[str, ...]) -> list[np.ndarray]:
        """Rows of the subjects' scans, at most `config.rows` rows, spread evenly over the scans there are."""
        index = cohort.index
        rows = np.flatnonzero(index["subject"].isin(subjects).to_numpy())
        groups = index["group_code"].to_numpy()[rows]
        scans = [rows[groups == code] for code in np.unique(groups)]
        total = sum(len(scan) for scan in scans)
        return scans[:: max(1, -(-total // self.config.rows))]
