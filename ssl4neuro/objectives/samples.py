"""What objectives compare: projections of rows or of whole sessions, with the codes that say who belongs to whom."""

import itertools
from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl4neuro.objectives.gather import Shards, gather, shards
from ssl4neuro.objectives.similarity import at_least_float32
from ssl4neuro.types import Batch

Level = Literal["row", "session"]
UNIT, SUBJECT, GROUP, ROW, LABELS = 0, 1, 2, 3, 4  # columns of `Samples.codes`; label columns from LABELS on


@runtime_checkable
class Projects(Protocol):
    """What objectives ask of the model."""

    def project(self, batch: Batch, modality: str) -> Float[Tensor, "batch views dim"]: ...

    def project_sessions(
        self, batch: Batch, modality: str
    ) -> tuple[Float[Tensor, "session views dim"], Int[Tensor, "session"]]: ...


class Samples(NamedTuple):
    """The samples of this process, and the codes of everybody's."""

    projected: tuple[Float[Tensor, "sample views dim"], ...]  # one per modality, at least float32, not normalised
    codes: Int[Tensor, "total codes"]  # unit (row or session), subject, group, row, then the label columns
    parts: Shards

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of the cohort that all processes hold together (the first row of each, for sessions)."""
        return tuple(sorted(set(self.codes[:, ROW].tolist())))


def collect(
    model: Projects, batch: Batch, modalities: tuple[str, ...], level: Level = "row", labels: tuple[str, ...] = ()
) -> Samples:
    """Project the samples that have all of `modalities` and a value in all of `labels`; the others take no part at all.

    A session has a modality if one of its rows has it, and its first row's labels.
    """
    projected, first = [], torch.arange(len(batch["row"]), device=batch["row"].device)
    for modality in modalities:
        if level == "session":
            values, first = model.project_sessions(batch, modality)
        else:
            values = model.project(batch, modality)
        projected.append(at_least_float32(values))
    keep = torch.ones(len(first), dtype=torch.bool, device=first.device)
    for modality in modalities:
        keep = keep & _there(batch, modality, first, level)
    columns = [batch["group" if level == "session" else "row"], batch["subject"], batch["group"], batch["row"]]
    columns += [_targets(batch, label) for label in labels]
    codes = torch.stack([column[first].long() for column in columns], dim=1)
    keep = keep & (codes[:, LABELS:] >= 0).all(1)
    if not keep.all():
        projected, codes = [values[keep] for values in projected], codes[keep]
    parts = shards(len(codes), codes.device)
    return Samples(tuple(projected), gather(codes, parts), parts)


def view_pairs(
    projected: tuple[Float[Tensor, "sample _ dim"], ...],
) -> Iterator[tuple[Float[Tensor, "sample dim"], Float[Tensor, "sample dim"]]]:
    """All pairs of views: of one modality with itself, or each view of the first with each of the second.

    Raises:
        ValueError: one modality with a single view.
    """
    if len(projected) == 1:
        if projected[0].shape[1] < 2:
            raise ValueError("comparing a modality with itself needs two views or more; set `views: 2` for it")
        for v, w in itertools.combinations(range(projected[0].shape[1]), 2):
            yield projected[0][:, v], projected[0][:, w]
        return
    first, second = projected
    for v, w in itertools.product(range(first.shape[1]), range(second.shape[1])):
        yield first[:, v], second[:, w]


def modality_pairs(between: tuple[str, ...]) -> list[tuple[str, ...]]:
    """All pairs of two or more modalities; the one modality alone when there is one.

    Raises:
        ValueError: none, or one twice.
    """
    if not between or len(set(between)) < len(between):
        raise ValueError(f"between names one or more different modalities, got {', '.join(between) or 'none'}")
    return [between] if len(between) == 1 else list(itertools.combinations(between, 2))


def same(codes: Int[Tensor, "sample columns"]) -> Int[Tensor, "sample"]:
    """One number per sample, equal where all columns are equal."""
    return torch.unique(codes, dim=0, return_inverse=True)[1]


def _there(batch: Batch, modality: str, first: Int[Tensor, "sample"], level: Level) -> Bool[Tensor, "sample"]:
    """Which samples have the modality; the joint embedding is there when any modality is."""
    present = batch["present"]
    there = present[modality] if modality in present else torch.stack(list(present.values())).any(0)
    if level == "row" or bool(there.all()):
        return there[first]
    member = batch["group"][first, None] == batch["group"]
    return (member & there).any(1)


def _targets(batch: Batch, label: str) -> Int[Tensor, "batch"]:
    targets = batch.get("targets", {})
    if label not in targets:
        raise ValueError(f"the batch has no label column '{label}'")
    return targets[label]
