"""Sums over the candidates of each anchor, of a function of their scaled similarity.

Every contrastive objective here needs, for anchors a and candidates c, a row-wise sum over the matrix
`scale · a cᵀ + bias`, part of it left out: the log of the sum of exponentials (InfoNCE, supervised contrastive), the sum of
softplus (SigLIP) or of squared hinges (margins). `over_candidates` computes it with one matrix in memory, or, with `chunk`,
with `chunk` rows of the matrix at a time, computed again in the backward pass: the same numbers in memory linear in the batch.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Kind = Literal["logsumexp", "softplus", "hinge"]
BLOCK = 512  # anchors at a time where all scores are kept: masks and other temporary tensors stay small

CodePair = tuple[Int[Tensor, "anchor"], Int[Tensor, "candidate"]]


@dataclass(frozen=True)
class Selection:
    """Which candidates count for which anchor, from integer codes, so that no mask of the whole matrix is ever kept.

    A candidate counts if its code differs from the anchor's in every pair of `differ`, equals it in every pair of `agree`,
    and its position is not in the anchor's line of `skip`. Candidates chosen by `hard` count `hard_weight` times.
    """

    differ: tuple[CodePair, ...] = ()
    agree: tuple[CodePair, ...] = ()
    skip: Int[Tensor, "anchor skipped"] | None = None
    hard: "Selection | None" = None
    hard_weight: float = 1.0

    def chosen(self, rows: slice, shape: tuple[int, int], device: torch.device) -> Bool[Tensor, "anchor candidate"]:
        """The mask for a block of anchors."""
        mask = torch.ones(shape, dtype=torch.bool, device=device)
        for anchor, candidate in self.differ:
            mask &= anchor[rows, None] != candidate
        for anchor, candidate in self.agree:
            mask &= anchor[rows, None] == candidate
        return mask if self.skip is None else mask.scatter_(1, self.skip[rows], False)

    def apply_(self, scores: Float[Tensor, "anchor candidate"], rows: slice) -> None:
        """Set what does not count to minus infinity, in place, and raise the hard ones by the log of their weight."""
        for anchor, candidate in self.differ:
            scores.masked_fill_(anchor[rows, None] == candidate, -math.inf)
        for anchor, candidate in self.agree:
            scores.masked_fill_(anchor[rows, None] != candidate, -math.inf)
        if self.skip is not None:
            scores.scatter_(1, self.skip[rows], -math.inf)
        if self.hard is not None:
            mask = self.hard.chosen(rows, (scores.shape[0], scores.shape[1]), scores.device)
            scores.add_(mask.to(scores.dtype), alpha=math.log(self.hard_weight))


def over_candidates(
    kind: Kind,
    anchor: Float[Tensor, "anchor dim"],
    candidate: Float[Tensor, "candidate dim"],
    selection: Selection,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""] | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "anchor"], Float[Tensor, "anchor"]]:
    """Row-wise sum over the selected scores `scale · anchor · candidate + bias`, and the highest of them.

    Sums are log Σ exp, Σ softplus or Σ max(0, ·)². An anchor without candidates gets -inf, 0 or 0 and a highest score of -inf,
    and no gradient. Computed at least in float32, under autocast too. The highest score carries no gradient.

    Args:
        chunk: anchors per block; the scores of a block are computed again in the backward pass instead of kept.
    """
    anchor, candidate = at_least_float32(anchor), at_least_float32(candidate)
    bias = scale.new_zeros(()) if bias is None else bias
    return _OverCandidates.apply(anchor, candidate, scale.to(anchor.dtype), bias.to(anchor.dtype), selection, kind, chunk)


def at_least_float32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Half-precision numbers as float32: a softmax over thousands of candidates needs it."""
    return x if x.dtype == torch.float64 else x.float()


def unit(x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
    """Vectors of length one, at least in float32; zero stays zero."""
    return nn.functional.normalize(at_least_float32(x), dim=-1)


class _OverCandidates(torch.autograd.Function):
    """Autograd would keep several copies of the score matrix; this keeps the derivative, or nothing when chunked."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        candidate: Tensor,
        scale: Tensor,
        bias: Tensor,
        selection: Selection,
        kind: Kind,
        chunk: int | None,
    ) -> tuple[Tensor, Tensor]:
        value, top, factor = (anchor.new_empty(len(anchor)) for _ in range(3))
        slope = anchor.new_empty((len(anchor), len(candidate)) if chunk is None else 0)
        for rows in _blocks(len(anchor), chunk or BLOCK):
            scores = _scores(anchor[rows], candidate, scale, bias, selection, rows, slope[rows] if chunk is None else None)
            top[rows] = scores.amax(1)
            value[rows], factor[rows] = _reduce_(kind, scores, top[rows])
        ctx.save_for_backward(anchor, candidate, scale, bias, value, factor, slope)
        ctx.selection, ctx.kind, ctx.chunk = selection, kind, chunk
        ctx.mark_non_differentiable(top)
        return value, top

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        anchor, candidate, scale, bias, value, factor, slope = ctx.saved_tensors
        d_anchor, d_candidate = torch.zeros_like(anchor), torch.zeros_like(candidate)
        d_scale, d_bias = torch.zeros_like(scale), torch.zeros_like(bias)
        with torch.autocast(anchor.device.type, enabled=False):
            for rows in _blocks(len(anchor), ctx.chunk or max(len(anchor), 1)):
                weight = grad[rows, None]
                if ctx.chunk is None:
                    weight = weight * factor[rows, None]
                else:
                    slope = _scores(anchor[rows], candidate, scale, bias, ctx.selection, rows)
                    _differentiate_(ctx.kind, slope, value[rows])
                if ctx.needs_input_grad[0] or ctx.needs_input_grad[2]:
                    pull = (slope @ candidate) * weight
                    d_anchor[rows] = pull * scale
                    d_scale += torch.sum(anchor[rows] * pull)
                if ctx.needs_input_grad[1]:
                    d_candidate.addmm_(slope.T, anchor[rows] * (weight * scale))
                if ctx.needs_input_grad[3]:
                    d_bias += torch.sum(slope.sum(1) * weight[:, 0])
        return d_anchor, d_candidate, d_scale, d_bias, None, None, None


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _scores(
    anchor: Tensor,
    candidate: Tensor,
    scale: Tensor,
    bias: Tensor,
    selection: Selection,
    rows: slice,
    out: Tensor | None = None,
) -> Tensor:
    """Scores of a block of anchors, written into `out` if given."""
    with torch.autocast(anchor.device.type, enabled=False):
        scores = torch.mm(anchor * scale, candidate.T, out=out).add_(bias)
    selection.apply_(scores, rows)
    return scores


def _reduce_(kind: Kind, scores: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    """Row sums, and the factor that turns the overwritten `scores` into the derivative of each."""
    if kind == "logsumexp":
        shift = top.clamp_min(torch.finfo(top.dtype).min)  # finite, so that a row without candidates gives 0, not NaN
        summed = scores.sub_(shift[:, None]).exp_().sum(1)
        return summed.log() + shift, torch.where(summed > 0, 1 / summed, 0)
    if kind == "softplus":
        value = nn.functional.softplus(scores).sum(1)
        scores.sigmoid_()
    else:
        value = torch.linalg.vector_norm(scores.relu_(), dim=1).square()
        scores.mul_(2)
    return value, torch.ones_like(value)


def _differentiate_(kind: Kind, scores: Tensor, value: Tensor) -> None:
    """Overwrite the scores by the derivative of the row sums, which are known."""
    if kind == "logsumexp":
        scores.sub_(value.clamp_min(torch.finfo(value.dtype).min)[:, None]).exp_()
    elif kind == "softplus":
        scores.sigmoid_()
    else:
        scores.relu_().mul_(2)
