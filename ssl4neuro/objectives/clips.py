"""The clips of a batch as objectives without projections take them: present rows only, views flattened, row before view."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.objectives import gather
from ssl4neuro.objectives.gather import Shards
from ssl4neuro.objectives.negatives import NoNegatives
from ssl4neuro.types import Batch

Encoders = nn.ModuleDict | Mapping[str, Any]  # by modality; a ModuleDict is no Mapping


class FlatClips(NamedTuple):
    """N = present rows × views. `study` is equal for the same view of clips of one study."""

    x: Float[Tensor, "n channels time height width"]
    valid: Bool[Tensor, "n time"]
    times: Float[Tensor, "n time"] | None  # s, NaN where unknown
    rate: Float[Tensor, "n"] | None  # s
    labels: Int[Tensor, "n time height width"] | None  # -1: the frame has none
    study: Int[Tensor, "n"]
    slices: Float[Tensor, "n"] | None  # position of the clip in its study's stack
    rows: Int[Tensor, "batch"]  # of the whole batch, for messages


class Counted(NamedTuple):
    """How many things all processes score together."""

    number: Float[Tensor, ""]
    parts: Shards

    def mean(self, local_sum: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """This process's share of the mean over the things of all processes, see `gather`."""
        return gather.mean(local_sum, self.number.to(local_sum.dtype), self.parts)


def flat_clips(batch: Batch, modality: str) -> FlatClips:
    """The clips of `modality`; none is a batch of length 0, which encoders take."""
    x, there = batch["inputs"][modality], batch["present"][modality]
    views = x.shape[1]

    def views_too(name: str) -> Tensor | None:
        found = batch.get(name, {}).get(modality)  # type: ignore[attr-defined]
        return None if found is None else found[there].flatten(0, 1)

    def per_row(found: Tensor | None) -> Tensor | None:
        return None if found is None else found[there].repeat_interleave(views)

    _, number = torch.unique(batch["group"], return_inverse=True)
    study = number[:, None] * views + torch.arange(views, device=number.device)
    slices = per_row(batch.get("context", {}).get("slice"))
    valid = views_too("valid")
    assert valid is not None
    return FlatClips(
        x=x[there].flatten(0, 1),
        valid=valid,
        times=views_too("times"),
        rate=per_row(batch.get("rate", {}).get(modality)),
        labels=views_too("masks"),
        study=study[there].flatten(),
        slices=None if slices is None else slices.float(),
        rows=batch["row"],
    )


def count_all(local: Int[Tensor, ""], rows: Int[Tensor, "batch"], nothing: str) -> Counted:
    """Sum of `local` over processes; collective.

    Raises:
        NoNegatives: it is 0, for the reason `nothing` ("why; what to do"), in every process alike.
    """
    parts = gather.shards(len(rows), rows.device)
    count = gather.total(local.float())
    if count == 0:
        reason, _, advice = nothing.partition("; ")
        raise NoNegatives(tuple(sorted(set(gather.gather(rows, parts).tolist()))), reason, advice)
    return Counted(count, parts)
