"""Supervised contrastive learning on label columns: O1 of the network-state method with all its refinements."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl4neuro.objectives import gather
from ssl4neuro.objectives.infonce import check_chunk
from ssl4neuro.objectives.samples import LABELS, Level, Projects, collect, same
from ssl4neuro.objectives.similarity import Selection, over_candidates, unit
from ssl4neuro.objectives.temperature import Temperature
from ssl4neuro.types import Batch


def sup_con(
    everybody: Float[Tensor, "sample dim"],
    label: Int[Tensor, "sample"],
    scale: Float[Tensor, ""],
    mine: slice | None = None,
    near: Int[Tensor, "sample"] | None = None,
    hard_weight: float = 1.0,
    chunk: int | None = None,
) -> Float[Tensor, "anchor"]:
    """L_sup of each anchor i: -1/|P(i)| Σ_{j in P(i)} log( exp(s·u_i·u_j) / Σ_{a≠i} w_ia exp(s·u_i·u_a) ).

    P(i) are the other samples with i's label; an anchor without any contributes 0. `w_ia` is `hard_weight` for a sample of
    another label that agrees in `near` (same network, other state), else 1. Vectors have length one; `scale` s is 1/τ.
    Source: Khosla et al., arXiv 2004.11362, eq. 2; `methods/network_state.md` section 4, O1.

    Args:
        mine: the anchors among the samples; all of them when None. Results are in their order.
    """
    mine = slice(0, len(label)) if mine is None else mine
    anchor = everybody[mine]
    hard = None
    if near is not None and hard_weight != 1:
        hard = Selection(differ=((label[mine], label),), agree=((near[mine], near),))
    itself = torch.arange(len(label), device=label.device)[mine, None]
    selection = Selection(skip=itself, hard=hard, hard_weight=hard_weight)
    others, _ = over_candidates("logsumexp", anchor, everybody, selection, scale, chunk=chunk)
    # The mean similarity to the positives needs the sum of each class only, not the matrix.
    classes = int(label.max()) + 1 if len(label) else 0
    members = torch.bincount(label, minlength=classes)
    sums = everybody.new_zeros(classes, everybody.shape[1]).index_add(0, label, everybody)
    positives = members[label[mine]] - 1
    pulled = (anchor * (sums[label[mine]] - anchor)).sum(-1) / positives.clamp_min(1)
    return torch.where(positives > 0, others - scale * pulled, 0)


def margin_loss(
    everybody: Float[Tensor, "sample dim"],
    label: Int[Tensor, "sample"],
    near: Int[Tensor, "sample"],
    margin: float,
    mine: slice | None = None,
    chunk: int | None = None,
) -> Float[Tensor, "anchor"]:
    """Σ max(0, m - d)² over the samples that agree with the anchor in `near` and not in `label`; d = 1 - cosine.

    Source: `methods/network_state.md` section 4, margin variant.
    """
    mine = slice(0, len(label)) if mine is None else mine
    opposite = Selection(differ=((label[mine], label),), agree=((near[mine], near),))
    one, bias = everybody.new_ones(()), everybody.new_full((), margin - 1)
    return over_candidates("hinge", everybody[mine], everybody, opposite, one, bias, chunk)[0]


class SupCon(nn.Module):
    """Supervised contrastive loss: samples with equal labels together, all others apart, whoever they come from.

    Views are further samples of the same class. A sample with a missing label takes no part: neither anchor nor positive nor
    negative, since nobody knows which it would be. Samples of one subject are negatives when their labels differ: the labels
    ask for it (a patient's pre and post scans). A batch without two samples of a class gives 0 with a finite gradient.

    Args:
        on: modality, or `joint`.
        labels: columns that make up the class.
        level: `row`, or `session` for whole scans.
        coarse: columns of a second, coarser loss added with `coarse_weight`; part of `labels`. Samples whose fine label is
            missing still count there.
        hard_negative_weight: weight of negatives that agree in the coarse columns (2 for same network, other state).
        margin: adds `margin_weight` times the mean of max(0, margin - cosine distance)² over such pairs.
        chunk: anchors per block; memory linear in the batch.

    The coarse columns are the first of `labels` where `coarse` is not given.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "two_level": {"coarse": ("network",)},
        "hard_negatives": {"hard_negative_weight": 2.0},
        "margin": {"margin": 0.5},
    }

    def __init__(
        self,
        on: str = "joint",
        labels: tuple[str, ...] = ("network", "state"),
        temperature: float = 0.1,
        level: Level = "row",
        coarse: tuple[str, ...] | None = None,
        coarse_weight: float = 0.3,
        hard_negative_weight: float = 1.0,
        margin: float | None = None,
        margin_weight: float = 1.0,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        near = labels[:1] if coarse is None else coarse
        if not labels or not near or not set(near) <= set(labels):
            raise ValueError(f"labels and coarse name columns, coarse some of labels; got {labels} and {coarse}")
        if hard_negative_weight <= 0:
            raise ValueError(f"hard_negative_weight must be above 0, got {hard_negative_weight}")
        if (hard_negative_weight != 1 or margin is not None) and len(near) == len(labels):
            raise ValueError("hard negatives and margin need a label column that is not among the coarse ones")
        check_chunk(chunk)
        self.on, self.level, self.label_columns, self.near, self.chunk = on, level, tuple(labels), tuple(near), chunk
        self.coarse_weight = coarse_weight if coarse is not None else 0.0
        self.hard_negative_weight, self.margin, self.margin_weight = hard_negative_weight, margin, margin_weight
        self.needs = frozenset({(on, level)})
        self.temperature = Temperature(temperature)

    def forward(self, model: Projects, batch: Batch) -> dict[str, Tensor]:
        """`loss`; `fine`, `coarse` and `margin`, unweighted; `anchors`, how many samples of all processes have a positive."""
        loss, terms = self._score(model, batch, self.label_columns, fine=True)
        if self.coarse_weight > 0:
            coarse, _ = self._score(model, batch, self.near, fine=False)
            terms["coarse"] = coarse.detach()
            loss = loss + self.coarse_weight * coarse
        return {"loss": loss, **terms}

    def _score(self, model: Projects, batch: Batch, columns: tuple[str, ...], fine: bool) -> tuple[Tensor, dict[str, Tensor]]:
        samples = collect(model, batch, (self.on,), self.level, columns)
        parts = samples.parts
        views = samples.projected[0].shape[1]
        everybody = gather.gather(unit(samples.projected[0]), parts).flatten(0, 1)
        mine = slice(parts.mine.start * views, parts.mine.stop * views)
        codes = samples.codes[:, LABELS:].repeat_interleave(views, 0)
        label = same(codes)
        near = same(codes[:, [columns.index(c) for c in self.near]])
        count = everybody.new_full((), max(len(label), 1))
        scale = self.temperature(everybody)
        weight = self.hard_negative_weight if fine else 1.0
        values = sup_con(everybody, label, scale, mine, near, weight, self.chunk)
        loss = gather.mean(values.sum(), count, parts)
        members = torch.bincount(label) if len(label) else label
        terms = {"fine": loss.detach(), "anchors": members[members > 1].sum().to(loss.dtype)}
        if fine and self.margin is not None:
            pairs = torch.bincount(near).square().sum() - members.square().sum() if len(label) else label.sum()
            values = margin_loss(everybody, label, near, self.margin, mine, self.chunk)
            margin = gather.mean(values.sum(), pairs.clamp_min(1).to(loss.dtype), parts)
            terms["margin"] = margin.detach()
            loss = loss + self.margin_weight * margin
        return loss, terms
