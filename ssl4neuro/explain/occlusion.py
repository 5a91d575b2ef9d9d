"""Occlusion: how much a score changes when one part of the input is taken away (Zeiler & Fergus, ECCV 2014).

Parts are atlas regions of a volume, patches of a picture, phases of a cycle, or frequency bands of a course. What is taken
away becomes 0, which after standardisation is the mean (of the brain, the clip, the course), or what is given in its place.
Either is a change of the input's distribution. Effects of parts do not add up, and two parts that carry the same
information hide each other.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Alter = Callable[[Tensor], Tensor]  # an input without one of its parts
Encode = Callable[[Tensor], Tensor]  # inputs to embeddings [N, dim]
Compare = Callable[[Tensor, Tensor], Tensor]  # embeddings before and after to the change of each sample [N]


def occlusion(encode: Encode, x: Tensor, parts: Iterable[Alter], compare: Compare) -> Float[Tensor, "batch parts"]:
    """Change of every sample under every part; one pass of the encoder for the whole, and one for each part."""
    with torch.no_grad():
        whole = encode(x)
        return torch.stack([compare(whole, encode(part(x))) for part in parts], dim=1)


def dissimilarity(whole: Float[Tensor, "batch dim"], occluded: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch"]:
    """One minus the cosine of the two embeddings, 0 (nothing changed) to 2."""
    return 1 - torch.nn.functional.cosine_similarity(whole, occluded, dim=1)


def drop(direction: Float[Tensor, "#batch dim"]) -> Compare:
    """Fall of the score `embedding · direction`; one direction for all samples, or each its own."""

    def compare(whole: Tensor, occluded: Tensor) -> Tensor:
        return ((whole - occluded) * direction).sum(1)

    return compare


def regions(
    labels: Int[Tensor, "*space"], codes: Iterable[int], fill: Float[Tensor, "#batch 1 *space"] | None = None
) -> Iterator[Alter]:
    """The input [N, channels, *space] with `fill`, or 0, at the positions of one label."""
    return (_filled(labels == code, fill) for code in codes)


def patches(height: int, width: int, side: int) -> list[tuple[int, int, int, int]]:
    """First row, end row, first column, end column of the squares that tile a picture, by row."""
    return [
        (top, min(top + side, height), left, min(left + side, width))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


def without_patch(box: tuple[int, int, int, int]) -> Alter:
    """Pictures or clips [N, channels, ..., height, width] without one square, in every frame."""
    top, bottom, left, right = box

    def alter(x: Tensor) -> Tensor:
        out = x.clone()
        out[..., top:bottom, left:right] = 0
        return out

    return alter


def without_phase(first: float, end: float, valid: Bool[Tensor, "batch time"]) -> Alter:
    """Clips [N, channels, time, height, width] without the frames from `first` to `end`, as shares of their valid frames."""
    place = torch.arange(valid.shape[1], device=valid.device) / valid.sum(1, keepdim=True).clamp_min(1)
    hidden = (place >= first - 1e-6) & (place < end - 1e-6)
    return lambda x: torch.where(hidden[:, None, :, None, None], 0.0, x)


def _filled(where: Bool[Tensor, "*space"], fill: Tensor | None) -> Alter:
    return lambda x: torch.where(where, 0.0 if fill is None else fill, x)
