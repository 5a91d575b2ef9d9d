"""InfoNCE across modalities (CLIP) and between views of one modality (SimCLR), with negatives that know their subject."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.objectives import gather
from ssl4neuro.objectives.negatives import Negatives, check_negatives, no_negatives, select_negatives
from ssl4neuro.objectives.samples import Level, Projects, Samples, collect, modality_pairs, view_pairs
from ssl4neuro.objectives.similarity import Selection, over_candidates, unit
from ssl4neuro.objectives.temperature import Temperature
from ssl4neuro.types import Batch


def info_nce(
    anchor: Float[Tensor, "anchor dim"],
    positive: Float[Tensor, "anchor dim"],
    candidate: Float[Tensor, "candidate dim"],
    negatives: Selection,
    scale: Float[Tensor, ""],
    chunk: int | None = None,
) -> tuple[Float[Tensor, "anchor"], Bool[Tensor, "anchor"], Bool[Tensor, "anchor"]]:
    """-log( exp(s·a·p) / (exp(s·a·p) + Σ exp(s·a·n)) ) of every anchor a with its positive p and its negatives n.

    Vectors have length one; `scale` s is 1/τ. Also returns whether the positive is closer than every negative (a tie is not)
    and whether there is any negative; without one the loss is 0. Source: van den Oord et al., arXiv 1807.03748, eq. 4.
    """
    own = scale * (anchor * positive).sum(-1)
    others, top = over_candidates("logsumexp", anchor, candidate, negatives, scale, chunk=chunk)
    found = top > -torch.inf
    closest = own.detach() > top + 1e-5 * scale.detach()  # collapsed embeddings tie up to rounding
    return nn.functional.softplus(others - own), closest & found, found


class InfoNCE(nn.Module):
    """Symmetric InfoNCE between all pairs of two or more modalities, or between the views of one.

    Across modalities a sample's positive is the same sample's other modality, its negatives are other samples' other
    modality, and the loss is the mean over both directions, all pairs of views and all pairs of modalities. With one
    modality it is SimCLR's (arXiv 2002.05709): negatives are both views of other samples; more than two views give the
    mean over pairs. `methods/network_state.md` section 4, O3 and O4.

    Args:
        between: modalities to compare; one of them, or `joint`, to compare its views.
        level: `row` compares components, `session` whole scans.
        temperature: τ; with `learn_temperature` where it starts.
        negatives: `other_subjects`; `other_sessions` also takes other scans of the subject; `same_session` takes other rows
            of the scan only; `all` takes every other sample.
        symmetric: across modalities, both directions; otherwise from each earlier modality in `between` to each later one.
        chunk: anchors per block; memory linear instead of quadratic in the batch, for about a third more arithmetic.
    """

    def __init__(
        self,
        between: tuple[str, ...] = ("map", "course"),
        level: Level = "row",
        temperature: float = 0.1,
        learn_temperature: bool = False,
        negatives: Negatives = "other_subjects",
        symmetric: bool = True,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        check_negatives(negatives, level)
        check_chunk(chunk)
        self.pairs = modality_pairs(between)
        self.level, self.negatives, self.symmetric, self.chunk = level, negatives, symmetric, chunk
        self.needs = frozenset((modality, level) for modality in between)
        self.temperature = Temperature(temperature, learn_temperature)

    def forward(self, model: Projects, batch: Batch) -> dict[str, Tensor]:
        """`loss`, `accuracy` (share of anchors whose positive is the closest), `temperature`, and each pair's loss.

        Raises:
            NoNegatives: no sample in any process has a negative.
        """
        found = {pair: self._compare(collect(model, batch, pair, self.level), pair) for pair in self.pairs}
        losses, accuracies = zip(*found.values(), strict=True)
        terms = {
            "loss": torch.stack(losses).mean(),
            "accuracy": torch.stack(accuracies).mean(),
            "temperature": 1 / self.temperature(losses[0]).detach(),
        }
        if len(self.pairs) > 1:
            terms |= {"-".join(pair): loss.detach() for pair, (loss, _) in found.items()}
        return terms

    def _compare(self, samples: Samples, pair: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        parts, within = samples.parts, len(pair) == 1
        negatives = select_negatives(samples.codes, parts.mine, self.negatives, copies=2 if within else 1)
        normalised = tuple(unit(views) for views in samples.projected)
        scale = self.temperature(normalised[0])
        everybody = tuple(gather.gather(views, parts) for views in normalised)
        losses, accurate, counts = [], [], []
        for (a, b), (all_a, all_b) in zip(view_pairs(normalised), view_pairs(everybody), strict=True):
            if within:
                sides = [(torch.cat([a, b]), torch.cat([b, a]), torch.cat([all_a, all_b]))]
            else:
                sides = [(a, b, all_b), (b, a, all_a)] if self.symmetric else [(a, b, all_b)]
            for anchor, positive, candidate in sides:
                loss, closest, found = info_nce(anchor, positive, candidate, negatives, scale, self.chunk)
                losses.append(loss.sum())
                accurate.append(closest.sum().to(loss.dtype))
                counts.append(found.sum().to(loss.dtype))
        count = gather.total(torch.stack(counts).sum())
        if count == 0:
            raise no_negatives(samples, self.negatives, pair)
        return gather.mean(torch.stack(losses).sum(), count, parts), gather.mean(torch.stack(accurate).sum(), count, parts)


def check_chunk(chunk: int | None) -> None:
    """Raises ValueError unless None or at least 1."""
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be 1 or more, got {chunk}")
