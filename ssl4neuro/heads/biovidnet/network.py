"""BioVidNet: from frames to a trajectory of latent biomarkers (methods/biovidnet.md §4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.encoders.pooling import AttentionPool
from ssl4neuro.encoders.transformer import valid_mean
from ssl4neuro.heads.biovidnet.context import ContextEncoder
from ssl4neuro.heads.biovidnet.frames import everything, positions
from ssl4neuro.heads.biovidnet.modulated_attention import CausalEncoder, Seen
from ssl4neuro.heads.biovidnet.posterior import Posterior
from ssl4neuro.heads.biovidnet.scale_fusion import ScaleFusion


@dataclass(frozen=True)
class BioVidNetConfig:
    """Sizes and switches of the network."""

    dim: int = 128  # of s_t and h_t
    motion: int = 32
    rhythm: int = 32
    depth: int = 4
    heads: int = 4
    context: int = 64
    side: int = 16  # pixels, where maps of different scales meet
    dropout: float = 0.1
    modulation: Literal["additive", "film", "none"] = "additive"
    causal: bool = True
    gated: bool = True  # gates over scales
    deterministic: bool = True  # no variance of z
    norm: bool = True  # layer norm of both parts of z
    levels: tuple[int, int, int] = (1, 2, 3)  # of the frame encoder's maps: low, mid, high

    @property
    def latent(self) -> int:
        """Dimensions of z_t."""
        return self.motion + self.rhythm


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "tiny": {"dim": 32, "motion": 8, "rhythm": 8, "depth": 2, "heads": 2, "context": 16, "side": 8},
}


class Trajectory(NamedTuple):
    """What BioVidNet says of every frame."""

    z: Float[Tensor, "batch time latent"]  # motion part first; a sample in training unless deterministic
    mean: Float[Tensor, "batch time latent"]
    log_variance: Float[Tensor, "batch time latent"]
    h: Float[Tensor, "batch time dim"]
    s: Float[Tensor, "batch time dim"]  # before any mixing over time
    context: Float[Tensor, "batch context"]
    gates: Float[Tensor, "batch time scales dim"]
    clock: Float[Tensor, "batch time"]  # median intervals
    valid: Bool[Tensor, "batch time"]

    @property
    def features(self) -> Float[Tensor, "batch dim"]:
        """The sequence before the latent, in which the quality of the pictures can be seen."""
        return valid_mean(self.s, self.valid)


class Stream(NamedTuple):
    """The state of a stream between two frames."""

    seen: Seen | None
    context: Float[Tensor, "batch context"]
    clock: Float[Tensor, "batch 1"]
    time: Float[Tensor, "batch"] | None


class BioVidNet(nn.Module):
    """A frame encoder with feature maps, context, causal attention, and the factorised latent.

    Args:
        encoder: clips [N, C, T, H, W] to an `Encoding` with `levels`, frame by frame (`FrameEncoder` with group norm).
        widths: channels of its levels.
        numbers, categories: of the context.
        median: median frame interval of the training set, s; kept with the weights.
    """

    median: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        widths: Sequence[int],
        config: BioVidNetConfig = BioVidNetConfig(),
        numbers: int = 0,
        categories: Sequence[int] = (),
        median: float = 1.0,
    ) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.context = ContextEncoder(numbers, categories, config.context)
        self.fusion = ScaleFusion([widths[i] for i in config.levels], config.dim, config.context, config.side, config.gated)
        self.temporal = CausalEncoder(
            config.dim, config.depth, config.heads, config.context, config.dropout, config.modulation, config.causal
        )
        self.posterior = Posterior(config.dim, config.motion, config.rhythm, config.deterministic, config.norm)
        self.register_buffer("median", torch.tensor(float(median)))

    def forward(
        self,
        x: Float[Tensor, "batch time channels height width"],
        valid: Bool[Tensor, "batch time"] | None = None,
        times: Float[Tensor, "batch time"] | None = None,
        numbers: Float[Tensor, "batch numbers"] | None = None,
        categories: Int[Tensor, "batch categories"] | None = None,
    ) -> Trajectory:
        """The trajectory of preprocessed sequences; `times` in s. Frames that are not valid get z = 0 and touch no other."""
        there = everything(x, valid)
        clock = positions(times, there, float(self.median))
        context = self.context(len(x), numbers, categories)
        s, gates = self.frames(x, there, context)
        h = self.temporal(s, clock, context, there)
        z = self.posterior(h)
        keep = there[:, :, None]
        return Trajectory(z.z * keep, z.mean * keep, z.log_variance, h, s, context, gates, clock, there)

    def frames(
        self,
        x: Float[Tensor, "batch time channels height width"],
        valid: Bool[Tensor, "batch time"],
        context: Float[Tensor, "batch context"],
    ) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch time scales dim"]]:
        """s_t of every frame by itself, and its gates."""
        levels = self.encoder(x.transpose(1, 2), valid).levels
        chosen = [levels[i].flatten(0, 1) for i in self.config.levels]
        s, gates = self.fusion(chosen, context.repeat_interleave(x.shape[1], 0))
        s, gates = (t.unflatten(0, x.shape[:2]) for t in (s, gates))
        return s * valid[:, :, None], gates

    def start(self, batch: int, numbers: Tensor | None = None, categories: Tensor | None = None) -> Stream:
        """Begin a stream: frames follow one by one through `step`."""
        context = self.context(batch, numbers, categories)
        return Stream(None, context, context.new_zeros(batch, 1), None)

    def step(
        self, x: Float[Tensor, "batch channels height width"], stream: Stream, time: Float[Tensor, "batch"] | None = None
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"], Stream]:
        """Mean and log variance of z at the next frame, as `forward` on the whole sequence has them. `time` in s."""
        there = torch.ones(len(x), 1, dtype=torch.bool, device=x.device)
        clock = stream.clock
        if stream.seen is not None:
            step = torch.ones_like(clock)
            if time is not None and stream.time is not None:
                pair = torch.stack([stream.time, time], 1)
                step = positions(pair, torch.ones_like(pair, dtype=torch.bool), float(self.median))[:, 1:]
            clock = clock + step
        s, _ = self.frames(x[:, None], there, stream.context)
        h, seen = self.temporal.step(s, clock, stream.context, stream.seen)
        z = self.posterior(h)
        return z.mean[:, 0], z.log_variance[:, 0], Stream(seen, stream.context, clock, time)


class SequenceHead(nn.Module):
    """One answer per sequence from its trajectory (formula 7): attention pooling, layer norm, a small network."""

    def __init__(self, dim: int, outputs: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.pool, self.answer = AttentionPool(dim), answer_head(dim, outputs, dropout)

    def forward(
        self, z: Float[Tensor, "batch time dim"], valid: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch outputs"]:
        """Logits, or values."""
        mask = None if valid is None else valid[:, None].to(z.dtype)
        return self.answer(self.pool(z.transpose(1, 2), mask))


def answer_head(dim: int, outputs: int, dropout: float = 0.1) -> nn.Sequential:
    """From a pooled trajectory, or CABRiS's fused vector, to the answer."""
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 64), nn.GELU(), nn.Dropout(dropout), nn.Linear(64, outputs))
