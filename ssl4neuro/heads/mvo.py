"""Spatiotemporal-sensitive network: microvascular obstruction from cine MR without contrast (Yu et al., MICCAI 2025).

What infarcted muscle looks like on cine guides where to look in how it moves. methods/mvo.md §2-4 and 9; what departs from the
paper is said there, and `mvo_paper` takes it back.
"""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.augment.clip import Clips
from ssl4neuro.augment.clip import residual as residual_frames
from ssl4neuro.encoders.norms import Norm
from ssl4neuro.heads.decoder import Decoder, convolutions
from ssl4neuro.heads.flops import forward_gflop
from ssl4neuro.heads.guided_attention import GuidedAttention, MotionMagnitude, mean_magnitude
from ssl4neuro.heads.padding import pad_to_multiple
from ssl4neuro.heads.refinement import RATIO, Refinement, uncertainty
from ssl4neuro.heads.segmented import Segmented
from ssl4neuro.heads.temporal_reduction import Temporal, temporal_reduction

STATIC, MOTION = "cine", "motion"
LEVELS = (1, 2, 3, 4, 5)  # strides 2 to 32
STRIDE = 32
LARGE_LEVELS = (1, 2)  # thousands of positions: attention is pooled or windowed here

_PAPER: dict[str, Any] = {
    "temporal": "shared_stack",
    "share_frames": False,
    "kv_pool": None,
    "attn_dim": None,
    "reduce": "sum",
    "norms": False,
    "norm": "batch",
    "full_skip": False,
}


class SpatioTemporalSegNet(nn.Module):
    """Segments the first frame of clips from two streams: the frames, and the differences between them.

    Args:
        encoders: `cine` (of the frames) and `motion` (of the differences), each with `widths` and `forward(x, valid).levels`
            as `FrameEncoder` has; one that the options below leave without work is not needed and not kept.
        classes: the background included.
        frames: of the clips. With one there is no motion.
        channels: of the clips.
        temporal: how the maps of the frames become one; `shared_stack` is the authors', for 5, 10, 15, 20 or 30 frames;
            `attn_pool` takes any number of frames, whatever it was trained with.
        static: use the frames. Without them the motion stream's own map asks the questions.
        motion: use the differences.
        guided: by attention; otherwise the mean magnitude of the motion maps is added.
        residuals: False: the motion encoder is given the frames themselves, as a control.
        share_frames: one attention for all frames, not one for each.
        kv_pool: keys and values are averaged at levels 1 and 2 until no side exceeds this.
        attn_dim: at most so many features in the attention, 32 per head; None: all channels, one head.
        levels: which have attention, 1 (stride 2) to 5 (stride 32); the others add the mean magnitude.
        window: attention at levels 1 and 2 within windows of at most this side, instead of `kv_pool`.
        reduce: of the frames' attention; see `GuidedAttention`.
        norms: layer norms and positions in the attention, which starts at zero.
        refine: second thoughts where the first answer is unsure (equations 3-6).
        refine_pool: side of the neighbourhood, pixels, odd.
        refine_ratio: cap of the ratio of the two best classes.
        refine_dim: features that the map it compares is reduced to; None: all.
        refine_hidden: channels of the network that decides.
        refine_source: the map it compares: `z` after the attention (Ẑ), `f` before (F̂), both of level 1.
        decoder: channels of its five stages, coarsest first.
        norm: of the decoder. Group norm of a few channels stretches every picture to the same contrast, one without a lesion
            too: on the cine phantom the decoder then hardly learnt.
        full_skip: frames and differences at full resolution, as channels, for the last stage of the decoder: walls are a few
            pixels thin, and what moves by a pixel is lost at stride 2. Under `attn_pool`, which takes any number of frames, the
            first frame and the mean size of the differences.
        channels_last: memory format of decoder and refinement.
    """

    PRESETS: dict[str, dict[str, Any]] = {
        "mvo_paper": _PAPER,
        "mvo_default": {},
        "mvo_tiny": {
            "levels": (3, 4, 5),
            "attn_dim": 32,
            "decoder": (48, 32, 24, 24, 16),
            "refine_dim": 8,
            "refine_hidden": 8,
            "channels_last": True,
        },
    }

    def __init__(
        self,
        encoders: dict[str, nn.Module],
        classes: int,
        frames: int,
        channels: int = 1,
        temporal: Temporal = "depthwise",
        static: bool = True,
        motion: bool = True,
        guided: bool = True,
        residuals: bool = True,
        share_frames: bool = True,
        kv_pool: int | None = 14,
        attn_dim: int | None = 128,
        levels: tuple[int, ...] = LEVELS,
        window: int | None = None,
        reduce: Literal["mean", "sum"] = "mean",
        norms: bool = True,
        refine: bool = True,
        refine_pool: int = 7,
        refine_ratio: float = RATIO,
        refine_dim: int | None = None,
        refine_hidden: int = 32,
        refine_source: Literal["z", "f"] = "z",
        decoder: tuple[int, ...] = (256, 128, 64, 32, 16),
        norm: Norm = "batch",
        full_skip: bool = True,
        channels_last: bool = False,
    ):
        super().__init__()
        moving = motion and frames > 1
        if not static and not moving:
            raise ValueError(
                "static and motion cannot both be off" if not motion else "static: a single frame has nothing else"
            )
        if set(levels) - set(LEVELS):
            raise ValueError(f"levels are 1 to 5, got {', '.join(map(str, levels))}")
        if not share_frames and temporal == "attn_pool":
            raise ValueError("temporal 'attn_pool' takes any number of frames, so they must share one attention (share_frames)")
        self.frames, self.channels = frames, channels
        self.temporal, self.static, self.residuals = temporal, static, residuals
        self.refine_source, self.ratio = refine_source, refine_ratio
        self.encoders = nn.ModuleDict(_chosen(encoders, [STATIC] * static + [MOTION] * moving))
        widths: dict[str, tuple[int, ...]] = {name: encoder.widths for name, encoder in self.encoders.items()}  # type: ignore[misc]
        skips = widths[STATIC if static else MOTION]
        self.reductions = nn.ModuleList(temporal_reduction(temporal, c, frames, i) for i, c in enumerate(skips, start=1))
        self.fusions = nn.ModuleList()
        for level, width, motion_width in zip(LEVELS, skips, widths[MOTION], strict=True) if moving else ():
            large = level in LARGE_LEVELS
            self.fusions.append(
                GuidedAttention(
                    width, motion_width, None if share_frames else frames, attn_dim,
                    kv_pool if large else None, window if large else None, reduce, norms,
                ) if guided and level in levels else MotionMagnitude(width, motion_width)
            )  # fmt: skip
        shown = 1 if temporal == "attn_pool" else frames
        self.full = convolutions((static + moving) * channels * shown, decoder[-1], norm) if full_skip else None
        self.decoder = Decoder(skips, decoder, classes, norm, decoder[-1] if full_skip else 0)
        self.refinement = Refinement(skips[0], refine_dim, refine_hidden, refine_pool, refine_ratio) if refine else None
        if channels_last:
            for part in (self.full, self.decoder, self.refinement):
                if part is not None:
                    part.to(memory_format=torch.channels_last)

    def forward(
        self,
        x: Float[Tensor, "batch channels time height width"],
        valid: Bool[Tensor, "batch time"] | None = None,
        residual: Float[Tensor, "batch channels time height width"] | None = None,
    ) -> Segmented:
        """The first frame's classes. `residual` are the differences X_i - X_{i+1}, cyclic over the valid frames by default.

        Raises:
            ValueError: a number of frames that this network was not built for.
        """
        height, width = x.shape[3:]
        self._check(x.shape[2])
        moved = self._moved(x, valid, residual)
        x = pad_to_multiple(_blanked(x, valid), STRIDE)
        there = x.new_ones(len(x), x.shape[2], dtype=torch.bool) if valid is None else valid
        clip_maps, skips = self._maps(x, moved, valid, there)
        logits = self.decoder(skips, self._full_resolution(x, moved, there))
        first = None
        if self.refinement is not None:
            first = logits
            logits = self.refinement(logits, skips[0] if self.refine_source == "z" else clip_maps[0]).logits
        logits = logits[..., :height, :width].float()
        probabilities = logits.softmax(1)
        return Segmented(
            logits,
            probabilities,
            uncertainty(probabilities, self.ratio),
            None if first is None else first[..., :height, :width].float(),
        )

    def _check(self, frames: int) -> None:
        if self.temporal != "attn_pool" and frames != self.frames:
            raise ValueError(
                f"a clip of {frames} frames for a network of {self.frames}: sample {self.frames}, or use temporal: attn_pool"
            )

    def _moved(self, x: Tensor, valid: Tensor | None, residual: Tensor | None) -> Tensor | None:
        """What the motion encoder is given, padded; None where it is not asked."""
        if MOTION not in self.encoders or x.shape[2] == 1:
            return None
        if residual is None and self.residuals:
            there = x.new_ones(len(x), x.shape[2], dtype=torch.bool) if valid is None else valid
            residual = residual_frames(Clips(x, there, x.new_zeros(there.shape))).x
        return pad_to_multiple(_blanked(x if residual is None else residual, valid), STRIDE)

    def _maps(
        self, x: Tensor, moved: Tensor | None, valid: Tensor | None, there: Bool[Tensor, "batch time"]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """F̂ and Ẑ of the five levels."""
        motion = None if moved is None else self.encoders[MOTION](moved, valid).levels
        levels = self.encoders[STATIC](x, valid).levels if self.static else motion
        if levels is None:
            raise ValueError("a network without static stream needs more than one frame")
        maps = [reduction(level, there) for reduction, level in zip(self.reductions, levels, strict=True)]
        if motion is None:
            return maps, maps
        fused = [f + fuse(f, m, there) for f, fuse, m in zip(maps, self.fusions, motion, strict=True)]
        return maps, fused

    def _full_resolution(self, x: Tensor, moved: Tensor | None, there: Bool[Tensor, "batch time"]) -> Tensor | None:
        """The frames of the streams in use, as channels; of clips of any length the first, and the mean size of the others."""
        if self.full is None:
            return None
        streams = [x] if self.static else []
        if MOTION in self.encoders:
            streams.append(torch.zeros_like(x) if moved is None else moved)
        if self.temporal != "attn_pool":
            return self.full(torch.cat([stream.flatten(1, 2) for stream in streams], 1))
        parts = [x[:, :, 0]] if self.static else []
        parts += [mean_magnitude(stream.transpose(1, 2), there) for stream in streams[len(parts) :]]
        return self.full(torch.cat(parts, 1))

    def cost(self, height: int, width: int) -> dict[str, int | float]:
        """Parameters, and GFLOP of a forward pass of one clip of this size: `gflop` in all, and of its parts."""
        count = forward_gflop(self, (1, self.channels, self.frames, height, width))
        encoders = sum(count.get(f"encoders.{name}", 0.0) for name in self.encoders)
        attention = sum(count.get(f"fusions.{i}", 0.0) for i in range(len(self.fusions)))
        return {
            "parameters": sum(p.numel() for p in self.parameters()),
            "gflop": count[""],
            "gflop_encoders": encoders,
            "gflop_attention": attention,
            "gflop_decoder": count[""] - encoders - attention,
        }


def _chosen(encoders: dict[str, nn.Module], names: list[str]) -> dict[str, nn.Module]:
    for name in names:
        if name not in encoders:
            raise ValueError(f"needs an encoder '{name}'; it has {', '.join(sorted(encoders)) or 'none'}")
    return {name: encoders[name] for name in names}


def _blanked(x: Tensor, valid: Bool[Tensor, "batch time"] | None) -> Tensor:
    """0 in frames that are not there, whatever they hold."""
    return x if valid is None else x.masked_fill(~valid[:, None, :, None, None], 0)
