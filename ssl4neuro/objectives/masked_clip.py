"""Masked clip modelling: most tubelets of a clip are hidden, a light decoder paints them from what the encoder saw."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.objectives import tubes
from ssl4neuro.objectives.clips import Encoders, FlatClips, count_all, flat_clips
from ssl4neuro.objectives.narrow import Context, NarrowTransformer, check_lighter, check_maskable
from ssl4neuro.objectives.similarity import at_least_float32
from ssl4neuro.types import Batch, Encoding

NOTHING = "no clip has two valid tubelets, and one must be seen to predict the other; use longer clips or a smaller patch"


class MaskedClip(nn.Module):
    """VideoMAE (Tong et al., arXiv 2203.12602) for clips with padding, studies of several clips, and anatomy masks.

    The loss is the squared error of the pixels of hidden tubelets, first averaged over the pixels of a tubelet that belong to
    valid frames, then over the hidden tubelets of all processes.

    Args:
        on: modality, with an encoder that can leave tubelets out.
        mode: `tube` hides the same places in all frames, so that nothing can be copied from the next frame; `block` a connected
            region of places; `random` single tubelets.
        ratio: share hidden.
        slice_dropout: share of a study's clips (slices or views, rows of the batch with one `group`) that are hidden but for
            one place (one tubelet, with `random`). The decoder then looks at the embeddings of the study's other clips, with
            `context["slice"]` of the batch saying how far away they are. Needs batches that hold several clips of a study.
        anatomy: where a clip has labels, places that touch the anatomy (label above 0 in any frame) are hidden first; with a
            `ratio` above the anatomy's share of the image, all of it is.
        normalise: predict pixels standardised within their tubelet.
        decoder_dim: None is half of the encoder's.
    """

    def __init__(
        self,
        on: str = "cine",
        mode: tubes.Mode = "tube",
        ratio: float = 0.75,
        slice_dropout: float = 0.0,
        anatomy: bool = False,
        normalise: bool = True,
        decoder_dim: int | None = None,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
    ) -> None:
        super().__init__()
        if mode not in ("tube", "random", "block"):
            raise ValueError(f"mode is tube, random or block, got {mode}")
        if not 0 < ratio < 1:
            raise ValueError(f"ratio must lie between 0 and 1, got {ratio:g}")
        if not 0 <= slice_dropout < 1:
            raise ValueError(f"slice_dropout must be 0 or more and less than 1, got {slice_dropout:g}")
        if decoder_depth < 1:
            raise ValueError(f"decoder_depth must be 1 or more, got {decoder_depth}")
        self.on, self.mode, self.ratio = on, mode, ratio
        self.slice_dropout, self.anatomy, self.normalise = slice_dropout, anatomy, normalise
        self.decoder_options: dict[str, Any] = {"dim": decoder_dim, "depth": decoder_depth, "heads": decoder_heads}
        self.needs: frozenset[tuple[str, str]] = frozenset()
        self.decoder: NarrowTransformer | None = None

    def bind(self, encoders: Encoders) -> None:
        """Build the decoder for the encoder of `on`.

        Raises:
            ValueError: no such modality, its encoder cannot leave tubelets out, or the decoder is no lighter than it.
        """
        check_maskable("masked_clip", self.on, encoders)
        encoder: Any = encoders[self.on]
        frames, rows, columns = encoder.patch
        pixels = encoder.in_channels * frames * rows * columns
        self.decoder = NarrowTransformer(encoder.dim, pixels, looks=self.slice_dropout > 0, **self.decoder_options)
        check_lighter("the decoder", self.decoder, encoder)

    def forward(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        """`loss`; `masked`, the share of valid tubelets hidden; `baseline`, the loss of predicting the mean visible tubelet.

        Raises:
            NoNegatives: no clip of any process has anything to hide.
        """
        assert self.decoder is not None, "bind() builds the decoder"
        clips, encoder = flat_clips(batch, self.on), model.encoders[self.on]
        shape = clips.x.shape[2:]
        grid, valid = encoder.grid(shape), encoder.token_valid(clips.valid, shape)
        hidden, shares = self._draw(clips, grid, valid)
        counted = count_all(hidden.sum(), clips.rows, NOTHING)
        kept = [tubes.keep_tokens(hidden[rows], valid[rows]) for rows in shares]
        seen = [see(encoder, clips, keep, rows) for keep, rows in zip(kept, shares, strict=True)]
        context = self._context(clips, shares, [encoding.pooled for encoding in seen])
        target, weight = tubelet_targets(encoder, clips, self.normalise)
        errors = []
        for rows, keep, encoding in zip(shares, kept, seen, strict=True):
            looks = None if context is None else Context(context.values[rows], context.there[rows])
            found = at_least_float32(self.decoder(encoding.tokens, keep, hidden[rows], valid[rows], grid, looks))
            errors.append(weighted_error(found, target[rows][hidden[rows]], weight[rows][hidden[rows]]).sum())
        return {
            "loss": counted.mean(torch.stack(errors).sum()),
            "masked": hidden.sum() / valid.sum().clamp_min(1),
            "baseline": counted.mean(baseline_error(target, weight, hidden, valid)),
        }

    def _draw(
        self, clips: FlatClips, grid: tubes.Grid, valid: Bool[Tensor, "n tokens"]
    ) -> tuple[Bool[Tensor, "n tokens"], list[Int[Tensor, "_"]]]:
        """Hidden tokens, and the clips that are encoded together because equally much of them is seen."""
        touched = None
        if self.anatomy and clips.labels is not None:
            touched = touches(clips.labels, grid)
        hidden = tubes.draw_masked(self.mode, self.ratio, grid, valid, touched)
        everybody = torch.arange(len(valid), device=valid.device)
        if self.slice_dropout == 0:
            return hidden, [everybody]
        dropped = tubes.draw_dropped(clips.study, self.slice_dropout)
        all_but_one = tubes.draw_masked(self.mode, 1.0, grid, valid)
        return torch.where(dropped[:, None], all_but_one, hidden), [everybody[~dropped], everybody[dropped]]

    def _context(
        self, clips: FlatClips, shares: list[Int[Tensor, "_"]], pooled: list[Float[Tensor, "_ dim"]]
    ) -> Context | None:
        """For every clip the embeddings of the other clips of its study, with their distance in slices where it is known."""
        if self.slice_dropout == 0:
            return None
        values = torch.cat(pooled)[torch.cat(shares).argsort()]
        there = (clips.study[:, None] == clips.study) & ~torch.eye(len(values), dtype=torch.bool, device=values.device)
        values = values.expand(len(values), -1, -1)
        if clips.slices is not None:
            apart = clips.slices - clips.slices[:, None]
            values = values + tubes.sinusoids(apart, values.shape[-1]).nan_to_num(0.0).to(values.dtype)
        return Context(values, there)


def see(encoder: Any, clips: FlatClips, keep: Int[Tensor, "rows kept"], rows: Int[Tensor, "rows"]) -> Encoding:
    """Encoding of some of the clips from the kept tokens alone."""
    rate, times = (None if found is None else found[rows] for found in (clips.rate, clips.times))
    return encoder(clips.x[rows], clips.valid[rows], rate=rate, times=times, keep=keep)


def touches(labels: Int[Tensor, "n time height width"], grid: tubes.Grid) -> Bool[Tensor, "n places"]:
    """Places of a (row, column) grid where a label is above 0 in any frame."""
    found = (labels > 0).any(1).float()
    size = [-(-side // cells) for side, cells in zip(found.shape[1:], grid[1:], strict=True)]
    found = nn.functional.pad(found, (0, grid[2] * size[1] - found.shape[2], 0, grid[1] * size[0] - found.shape[1]))
    return nn.functional.max_pool2d(found[:, None], size).flatten(1) > 0


@torch.no_grad()
def tubelet_targets(
    encoder: Any, clips: FlatClips, normalise: bool
) -> tuple[Float[Tensor, "n tokens pixels"], Float[Tensor, "n tokens pixels"]]:
    """Pixels of every tubelet to predict, and their weight: 0 in frames that are padding and beyond the image, 1 elsewhere.

    With `normalise` they have mean 0 and variance 1 within each tubelet (He et al., arXiv 2111.06377, section 4).
    """
    x = at_least_float32(clips.x)
    weight = encoder.patches(clips.valid[:, None, :, None, None].to(x.dtype).expand_as(x))
    target = torch.where(weight > 0, encoder.patches(x), 0)
    if normalise:
        count = weight.sum(-1, keepdim=True).clamp_min(1)
        target = (target - target.sum(-1, keepdim=True) / count) * weight
        target = target / (target.square().sum(-1, keepdim=True) / count + 1e-6).sqrt()
    return target, weight


def weighted_error(
    found: Float[Tensor, "*shape pixels"], target: Float[Tensor, "*shape pixels"], weight: Float[Tensor, "*shape pixels"]
) -> Float[Tensor, "*shape"]:
    """Squared error, averaged over the pixels that count."""
    return ((found - target).square() * weight).sum(-1) / weight.sum(-1).clamp_min(1)


def baseline_error(
    target: Float[Tensor, "n tokens pixels"],
    weight: Float[Tensor, "n tokens pixels"],
    hidden: Bool[Tensor, "n tokens"],
    valid: Bool[Tensor, "n tokens"],
) -> Float[Tensor, ""]:
    """Sum over hidden tubelets of the error of predicting the mean of the clip's visible ones."""
    visible = weight * (valid & ~hidden)[:, :, None].to(weight.dtype)
    mean = (visible * target).sum(1, keepdim=True) / visible.sum(1, keepdim=True).clamp_min(1)
    return weighted_error(mean.expand_as(target), target, weight)[hidden].sum()
