"""Features of every stage of the encoders, pooled, read while a model embeds: at which depth is what known?"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.encoders.frame import FrameEncoder
from ssl4neuro.encoders.masked import halve
from ssl4neuro.model import first_rows
from ssl4neuro.types import Batch

Stages = dict[str, Float[Tensor, "batch channels"]]


@contextmanager
def watched(encoders: Mapping[str, nn.Module]) -> Iterator[Stages]:
    """A dictionary that holds `<modality>_layer<k>` (k from 1, fine to coarse) of the last batch that each encoder has seen.

    Encoders without `levels` leave nothing.
    """
    found: Stages = {}
    hooks = [
        encoder.register_forward_hook(partial(_store, found, modality), with_kwargs=True)
        for modality, encoder in encoders.items()
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _store(found: Stages, modality: str, encoder: nn.Module, given: tuple, options: dict[str, Any], encoding: Any) -> None:
    valid = given[1] if len(given) > 1 else options.get("valid")
    for k, level in enumerate(encoding.levels or (), start=1):
        # a frame encoder's levels are [batch, frames, channels, rows, columns]
        level = level.transpose(1, 2) if isinstance(encoder, FrameEncoder) else level
        found[f"{modality}_layer{k}"] = pool_level(level, valid)


def pool_level(
    level: Float[Tensor, "batch channels *space"], valid: Bool[Tensor, "batch *input"] | None
) -> Float[Tensor, "batch channels"]:
    """Mean over the valid positions. Axes that `valid` does not have (rows and columns of clips) are averaged whole.

    Positions are valid where any of the input positions that they stand for is, as in the encoders.
    """
    if valid is None:
        return level.flatten(2).mean(2)
    own = valid.ndim + 1  # axes that the mask speaks of
    level = level.flatten(own).mean(own) if level.ndim > own else level
    whole = valid[:, None].to(level.dtype)
    mask = whole
    while mask.shape[2] > level.shape[2]:
        mask = cast(Tensor, halve(mask))
    if mask.shape[2:] != level.shape[2:]:  # an encoder with strides of its own
        mask = F.interpolate(whole, level.shape[2:], mode="nearest")
    return (level * mask).flatten(2).sum(2) / mask.flatten(2).sum(2).clamp_min(1)


def with_scans(stages: Stages, batch: Batch, prefix: str) -> dict[str, Tensor]:
    """The stages of a batch of whole scans, and under `prefix` their means over each scan's rows."""
    number, first = first_rows(batch["group"])
    means = {
        name: values.new_zeros(len(first), values.shape[1]).index_add(0, number, values) for name, values in stages.items()
    }
    count = number.bincount(minlength=len(first))[:, None]
    return {**stages, **{prefix + name: total / count for name, total in means.items()}}
