"""Latent prediction (JEPA): from part of a clip, predict what a slow copy of the encoder says about the rest."""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.objectives import tubes
from ssl4neuro.objectives.clips import Encoders, FlatClips, count_all, flat_clips
from ssl4neuro.objectives.moving_average import MovingAverage
from ssl4neuro.objectives.narrow import NarrowTransformer, check_lighter, check_maskable
from ssl4neuro.objectives.similarity import at_least_float32
from ssl4neuro.types import Batch

NOTHING = "no clip has room for a hidden block beside what is seen; use longer clips, a smaller patch or a smaller area"


class Predictive(nn.Module):
    """Joint-embedding prediction of hidden space-time blocks (Assran et al., arXiv 2301.08243; V-JEPA: arXiv 2404.08471).

    The encoder sees the tubelets outside the blocks. A narrow predictor says what the target encoder, an exponential moving
    average of the encoder that sees the whole clip, gives for the hidden ones, each layer-normed. Smooth-L1, averaged over
    features and hidden tubelets of all processes. No gradient reaches the target.

    Args:
        on: modality, with an encoder that can leave tubelets out.
        blocks: hidden per clip; they may overlap.
        area, duration: shares of the image and of the valid time that one block covers.
        aspect: smallest and largest height per width of a block.
        context: share of the valid tubelets that is always seen.
        decay: of the moving average at the start of training; grows to 1.
        predictor_dim: None is half of the encoder's.
        beta: error where smooth-L1 turns from squared to absolute.
    """

    def __init__(
        self,
        on: str = "cine",
        blocks: int = 4,
        area: float = 0.25,
        duration: float = 1.0,
        aspect: tuple[float, float] = (0.67, 1.5),
        context: float = 0.15,
        decay: float = 0.996,
        predictor_dim: int | None = None,
        predictor_depth: int = 2,
        predictor_heads: int = 4,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        for name, share in (("area", area), ("duration", duration)):
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {share:g}")
        if not 0 <= context < 1:
            raise ValueError(f"context must be 0 or more and less than 1, got {context:g}")
        if not 0 < aspect[0] <= aspect[1]:
            raise ValueError(f"aspect must be two positive numbers in ascending order, got {aspect}")
        if min(blocks, predictor_depth) < 1 or beta <= 0:
            raise ValueError("blocks and predictor_depth must be 1 or more, beta above 0")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie between 0 and 1, got {decay:g}")
        self.on, self.decay, self.beta = on, decay, beta
        self.block_options: dict[str, Any] = {
            "blocks": blocks,
            "area": area,
            "duration": duration,
            "aspect": aspect,
            "context": context,
        }
        self.predictor_options: dict[str, Any] = {"dim": predictor_dim, "depth": predictor_depth, "heads": predictor_heads}
        self.needs: frozenset[tuple[str, str]] = frozenset()
        self.predictor: NarrowTransformer | None = None
        self.target: MovingAverage | None = None

    def bind(self, encoders: Encoders) -> None:
        """Build the predictor and the target encoder for the encoder of `on`.

        Raises:
            ValueError: no such modality, its encoder cannot leave tubelets out, or the predictor is no lighter than it.
        """
        check_maskable("predictive", self.on, encoders)
        encoder: Any = encoders[self.on]
        self.predictor = NarrowTransformer(encoder.dim, encoder.dim, **self.predictor_options)
        check_lighter("the predictor", self.predictor, encoder)
        self.target = MovingAverage(encoder, self.decay)

    def after_step(self, encoders: Encoders, progress: float) -> None:
        """Move the target encoder towards the encoder."""
        assert self.target is not None, "bind() builds the target encoder"
        self.target.update(encoders[self.on], progress)

    def forward(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        """`loss`; `target_std`, see `spread`; `decay` of the last update; `masked`, the share of valid tubelets hidden.

        Raises:
            NoNegatives: no clip of any process has anything to hide.
        """
        assert self.predictor is not None, "bind() builds the predictor"
        assert self.target is not None
        clips, encoder = flat_clips(batch, self.on), model.encoders[self.on]
        shape = clips.x.shape[2:]
        grid, valid = encoder.grid(shape), encoder.token_valid(clips.valid, shape)
        hidden = tubes.draw_blocks(grid, valid, **self.block_options)
        keep = tubes.keep_tokens(hidden, valid)
        counted = count_all(hidden.sum(), clips.rows, NOTHING)
        target = self._targets(clips)
        tokens = encoder(clips.x, clips.valid, rate=clips.rate, times=clips.times, keep=keep).tokens
        found = at_least_float32(self.predictor(tokens, keep, hidden, valid, grid))
        error = nn.functional.smooth_l1_loss(found, target[hidden].to(found.dtype), reduction="none", beta=self.beta)
        return {
            "loss": counted.mean(error.mean(-1).sum()),
            "target_std": spread(target, valid),
            "decay": self.target.decay.clone(),
            "masked": hidden.sum() / valid.sum().clamp_min(1),
        }

    def _targets(self, clips: FlatClips) -> Float[Tensor, "n tokens dim"]:
        """What the target encoder says about every tubelet of the whole clips, layer-normed so that no scale is left."""
        assert self.target is not None
        tokens = at_least_float32(self.target(clips.x, clips.valid, rate=clips.rate, times=clips.times).tokens)
        return nn.functional.layer_norm(tokens, tokens.shape[-1:])


def spread(tokens: Float[Tensor, "n tokens dim"], valid: Bool[Tensor, "n tokens"]) -> Float[Tensor, ""]:
    """Standard deviation over clips of the embedding of the same place and time, root mean square over both and features.

    Near 1 is healthy, 0 is collapse: the target says the same whatever the clip shows. (Its spread over tubelets would not
    fall to 0, they differ by their position.) Places with fewer than two valid clips do not count; 0 if there is no other.
    """
    weight = valid[:, :, None].to(tokens.dtype)
    count = weight.sum(0)
    mean = (tokens * weight).sum(0) / count.clamp_min(1)
    variance = ((tokens - mean).square() * weight).sum(0) / count.clamp_min(1)
    enough = (count >= 2).to(tokens.dtype)
    return ((variance * enough).sum() / (enough.sum() * tokens.shape[-1]).clamp_min(1)).sqrt()
