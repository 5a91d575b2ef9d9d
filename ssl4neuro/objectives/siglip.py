"""SigLIP: each pair of samples is a yes-or-no question of its own, so no softmax over the batch is needed."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.objectives import gather
from ssl4neuro.objectives.infonce import check_chunk
from ssl4neuro.objectives.negatives import Negatives, check_negatives, no_negatives, select_negatives
from ssl4neuro.objectives.samples import Level, Projects, Samples, collect, modality_pairs, view_pairs
from ssl4neuro.objectives.similarity import Selection, over_candidates, unit
from ssl4neuro.objectives.temperature import Temperature
from ssl4neuro.types import Batch


def sigmoid_loss(
    anchor: Float[Tensor, "anchor dim"],
    positive: Float[Tensor, "anchor dim"],
    candidate: Float[Tensor, "candidate dim"],
    negatives: Selection,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    chunk: int | None = None,
) -> tuple[Float[Tensor, "anchor"], Bool[Tensor, "anchor"], Bool[Tensor, "anchor"]]:
    """-log σ(s·a·p + b) - Σ log σ(-s·a·n - b) of every anchor a with its positive p and its negatives n.

    Vectors have length one. Also returns whether the positive is closer than every negative and whether there is any
    negative. Source: Zhai et al., arXiv 2303.15343, eq. 1.
    """
    own = scale * (anchor * positive).sum(-1) + bias
    others, top = over_candidates("softplus", anchor, candidate, negatives, scale, bias, chunk)
    found = top > -torch.inf
    closest = own.detach() > top + 1e-5 * scale.detach()
    return nn.functional.softplus(-own) + others, closest & found, found


class SigLIP(nn.Module):
    """Pairwise sigmoid loss between all pairs of two or more modalities, or between the views of one.

    The mean over samples of the loss of the sample's row of the similarity matrix, over all pairs of views and modalities.
    It is symmetric by itself: each pair of samples is counted once. Scale and bias are learned from t' = log 10 and b = -10
    on, as published.

    Args:
        between, level, negatives, chunk: as in InfoNCE.
        temperature: 1/t where t starts, or stays unless `learn`.
        bias: b where it starts; about -log of the number of negatives per positive.
    """

    def __init__(
        self,
        between: tuple[str, ...] = ("map", "course"),
        level: Level = "row",
        temperature: float = 0.1,
        bias: float = -10.0,
        learn: bool = True,
        negatives: Negatives = "other_subjects",
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        check_negatives(negatives, level)
        check_chunk(chunk)
        self.pairs = modality_pairs(between)
        self.level, self.negatives, self.chunk = level, negatives, chunk
        self.needs = frozenset((modality, level) for modality in between)
        self.temperature = Temperature(temperature, learn)
        self.bias = nn.Parameter(torch.tensor(float(bias)), requires_grad=learn)

    def forward(self, model: Projects, batch: Batch) -> dict[str, Tensor]:
        """`loss`, `accuracy` (share of samples whose positive is the closest), `temperature`, `bias`, each pair's loss.

        Raises:
            NoNegatives: no sample in any process has a negative.
        """
        found = {pair: self._compare(collect(model, batch, pair, self.level), pair) for pair in self.pairs}
        losses, accuracies = zip(*found.values(), strict=True)
        terms = {
            "loss": torch.stack(losses).mean(),
            "accuracy": torch.stack(accuracies).mean(),
            "temperature": 1 / self.temperature(losses[0]).detach(),
            "bias": self.bias.detach(),
        }
        if len(self.pairs) > 1:
            terms |= {"-".join(pair): loss.detach() for pair, (loss, _) in found.items()}
        return terms

    def _compare(self, samples: Samples, pair: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        parts = samples.parts
        negatives = select_negatives(samples.codes, parts.mine, self.negatives)
        normalised = tuple(unit(views) for views in samples.projected)
        scale = self.temperature(normalised[0])
        bias = self.bias.to(scale.dtype)
        everybody = tuple(gather.gather(views, parts) for views in normalised)
        losses, accurate, counts = [], [], []
        for (a, b), (_, all_b) in zip(view_pairs(normalised), view_pairs(everybody), strict=True):
            loss, closest, found = sigmoid_loss(a, b, all_b, negatives, scale, bias, self.chunk)
            losses.append(loss.sum())
            accurate.append(closest.sum().to(loss.dtype))
            counts.append(found.sum().to(loss.dtype))
        if gather.total(torch.stack(counts).sum()) == 0:
            raise no_negatives(samples, self.negatives, pair)
        count = scale.new_full((), parts.total * len(losses))
        return gather.mean(torch.stack(losses).sum(), count, parts), gather.mean(torch.stack(accurate).sum(), count, parts)
