"""Temporal pretexts: is this clip in order, and by how much of a cycle was it shifted?"""

import functools
import itertools
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.objectives import gather, tubes
from ssl4neuro.objectives.clips import Encoders, FlatClips, count_all, flat_clips
from ssl4neuro.objectives.similarity import at_least_float32
from ssl4neuro.types import Batch

LEAST = 4  # valid frames; the shortest clip whose frames can be put out of order in more ways than by turning the cycle


class TemporalOrder(nn.Module):
    """Two copies of every clip are encoded; a small head on the embeddings tells what was done to their frames.

    `order` (after Misra et al., arXiv 1603.08561): one copy keeps its order, the other has its segments shuffled, never to a
    rotation, which for a heart beat is still in order. The head scores each copy alone: shuffled or not. `shift`: both copies
    start anywhere in the cycle, and the head reads from the two embeddings by which of `bins` equal steps the second is later;
    for clips of one full cycle only. Times and padding stay where they are, so that times give nothing away.

    The encoder must be able to see order: an average over frames cannot, and its loss stays at log 2 (or log `bins`).

    Args:
        on: modality, with any encoder of clips.
        segments: number of pieces that `order` shuffles.
        bins: classes of `shift`.
        hidden: width of the head; None is the encoder's.
    """

    def __init__(
        self,
        on: str = "cine",
        task: Literal["order", "shift"] = "order",
        segments: int = 4,
        bins: int = 4,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        if task not in ("order", "shift"):
            raise ValueError(f"task is order or shift, got {task}")
        if not 3 <= segments <= 6:
            raise ValueError(f"segments must be 3 to 6, got {segments}")
        if bins < 3:
            raise ValueError(f"bins must be 3 or more, got {bins}")
        if hidden is not None and hidden < 1:
            raise ValueError(f"hidden must be 1 or more, got {hidden}")
        self.on, self.task, self.segments, self.bins, self.hidden = on, task, segments, bins, hidden
        self.least = LEAST if task == "order" else max(LEAST, bins)
        self.needs: frozenset[tuple[str, str]] = frozenset()
        self.head: nn.Module | None = None

    def bind(self, encoders: Encoders) -> None:
        """Build the head for the encoder of `on`.

        Raises:
            ValueError: no such modality.
        """
        if self.on not in encoders:
            raise ValueError(f"temporal_order: no modality '{self.on}' in this recipe; name one with `on`")
        encoder: Any = encoders[self.on]
        dim = encoder.dim
        inputs, outputs = (dim, 1) if self.task == "order" else (2 * dim, self.bins)
        hidden = self.hidden or dim
        self.head = nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))

    def forward(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        """`loss`, `accuracy` (chance 0.5 or 1 / bins), and `pair_accuracy` (chance 0.5).

        `pair_accuracy` compares minimal pairs: a clip scored as more shuffled than itself in order; or a shift found likelier
        than the same shift backwards (shifts that are their own reverse do not count).

        Raises:
            NoNegatives: no clip of any process has enough valid frames.
        """
        clips = flat_clips(batch, self.on)
        length = clips.valid.sum(1)
        enough = length >= self.least
        nothing = (
            f"no clip of '{self.on}' has the {self.least} valid frames that temporal order needs; sample more frames per clip"
        )
        counted = count_all(enough.sum(), clips.rows, nothing)
        clips = _select(clips, enough)
        logits, answer = self._ask(model.encoders[self.on], clips, length[enough])
        loss, accurate, pair, compared = (_judge_order if self.task == "order" else _judge_shift)(logits, answer)
        pairs = counted._replace(number=gather.total(compared.sum().to(loss.dtype)).clamp_min(1))
        return {
            "loss": counted.mean(loss.sum()),
            "accuracy": counted.mean(accurate.detach().sum()),
            "pair_accuracy": pairs.mean((pair & compared).sum().to(loss.dtype)),
        }

    def _ask(
        self, encoder: Any, clips: FlatClips, length: Int[Tensor, "n"]
    ) -> tuple[Float[Tensor, "n answers"], Int[Tensor, "n"]]:
        """The head's logits, and what they should say: `order` the two copies' (the second is shuffled), `shift` the bins'."""
        assert self.head is not None, "bind() builds the head"
        time = clips.x.shape[2]
        if self.task == "order":
            answer = torch.ones_like(length)
            frames = (torch.arange(time, device=length.device).expand(len(length), -1), shuffled(length, self.segments, time))
        else:
            draws = tubes.uniform(len(length), 2).to(length.device)
            start, answer = (draws[:, 0] * length).long(), (draws[:, 1] * self.bins).long()
            frames = (shifted(length, start, time), shifted(length, start + _frames(answer, length, self.bins), time))
        x = torch.cat([take(clips.x, index) for index in frames])
        valid, rate, times = (None if t is None else torch.cat([t, t]) for t in (clips.valid, clips.rate, clips.times))
        first, second = at_least_float32(encoder(x, valid, rate=rate, times=times).pooled).chunk(2)
        dtype = next(self.head.parameters()).dtype
        if self.task == "shift":
            return at_least_float32(self.head(torch.cat([first, second], dim=1).to(dtype))), answer
        return at_least_float32(self.head(torch.stack([first, second], dim=1).to(dtype)).squeeze(-1)), answer


def _judge_order(logits: Float[Tensor, "n 2"], answer: Int[Tensor, "n"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss and accuracy of each clip, averaged over its copies; whether the pair is right; that it counts."""
    truth = torch.stack([torch.zeros_like(answer), answer], dim=1).to(logits.dtype)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
    accurate = ((logits > 0) == (truth > 0)).to(logits.dtype).mean(1)
    return loss, accurate, logits[:, 1] > logits[:, 0], answer > 0


def _judge_shift(logits: Float[Tensor, "n bins"], answer: Int[Tensor, "n"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss and accuracy of each clip; whether its shift beats the reverse one; whether that is another shift."""
    loss = nn.functional.cross_entropy(logits, answer, reduction="none")
    reverse = -answer % logits.shape[1]
    right, wrong = (logits.gather(1, index[:, None]).squeeze(1) for index in (answer, reverse))
    return loss, (logits.argmax(1) == answer).to(logits.dtype), right > wrong, reverse != answer


def shuffled(length: Int[Tensor, "n"], segments: int, time: int) -> Int[Tensor, "n time"]:
    """Frame to show at each time: the valid ones in `segments` pieces (fewer if short), out of order, also as a cycle."""
    found = []
    for frames, draw in zip(length.tolist(), tubes.uniform(len(length)).tolist(), strict=True):
        pieces = min(segments, frames)
        orders = disorders(pieces)
        bounds = [frames * piece // pieces for piece in range(pieces + 1)]
        order = orders[int(draw * len(orders))]
        line = [frame for piece in order for frame in range(bounds[piece], bounds[piece + 1])]
        found.append(line + list(range(frames, time)))
    return torch.tensor(found, dtype=torch.long, device=length.device).view(len(length), time)


@functools.cache
def disorders(pieces: int) -> list[tuple[int, ...]]:
    """Orders of `pieces` things but for the rotations of the right one."""
    right = tuple(range(pieces))
    rotations = {right[turn:] + right[:turn] for turn in range(pieces)}
    return [order for order in itertools.permutations(right) if order not in rotations]


def shifted(length: Int[Tensor, "n"], by: Int[Tensor, "n"], time: int) -> Int[Tensor, "n time"]:
    """Frame to show at each time when the valid ones are turned so that frame `by` comes first."""
    position = torch.arange(time, device=length.device).expand(len(length), -1)
    return torch.where(position < length[:, None], (position + by[:, None]) % length[:, None].clamp_min(1), position)


def _frames(bin_: Int[Tensor, "n"], length: Int[Tensor, "n"], bins: int) -> Int[Tensor, "n"]:
    """Frames that a shift by `bin_` of `bins` steps means in a cycle of `length` frames."""
    return (bin_ * length.double() / bins).round().long()


def take(
    x: Float[Tensor, "n channels time height width"], frames: Int[Tensor, "n time"]
) -> Float[Tensor, "n channels time height width"]:
    """Clips with other frames in each place."""
    return x.gather(2, frames[:, None, :, None, None].expand_as(x))


def _select(clips: FlatClips, rows: Bool[Tensor, "n"]) -> FlatClips:
    """Some of the clips: what an encoder is given of them."""
    rate, times = (None if found is None else found[rows] for found in (clips.rate, clips.times))
    return clips._replace(x=clips.x[rows], valid=clips.valid[rows], rate=rate, times=times)
