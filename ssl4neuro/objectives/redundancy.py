"""Objectives without negatives: VICReg and Barlow Twins, computed by lightly on the samples of all processes.

lightly's own `gather_distributed` is not used: it needs batches of equal size in every process, averages VICReg's invariance
over processes instead of samples, and Barlow Twins normalises within each process, which is another loss than that of one
process with the whole batch. Here every process scores all samples, a matter of one matrix of features by features.
lightly is imported when one of them is used: that takes seconds, and most recipes do without.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl4neuro.objectives.gather import gather
from ssl4neuro.objectives.negatives import NoNegatives
from ssl4neuro.objectives.samples import Level, Projects, collect, modality_pairs, view_pairs
from ssl4neuro.types import Batch


class Redundancy(nn.Module):
    """Compares views, or modalities, of the same samples, feature by feature; `score` says how.

    Args:
        between: two or more modalities (all pairs of modalities and views), or one with two or more views.
        level: `row`, or `session` for whole scans.
    """

    def __init__(self, between: tuple[str, ...], level: Level) -> None:
        super().__init__()
        self.pairs = modality_pairs(between)
        self.level = level
        self.needs = frozenset((modality, level) for modality in between)

    def score(self, a: Float[Tensor, "sample dim"], b: Float[Tensor, "sample dim"]) -> dict[str, Tensor]:
        """`loss` and its terms for two views of the same samples."""
        raise NotImplementedError

    def forward(self, model: Projects, batch: Batch) -> dict[str, Tensor]:
        """Mean of `loss` and of its terms over pairs of modalities and views.

        Raises:
            NoNegatives: fewer than two samples in all processes together, so that features have no variance.
        """
        found: list[dict[str, Tensor]] = []
        for pair in self.pairs:
            samples = collect(model, batch, pair, self.level)
            if samples.parts.total < 2:
                raise NoNegatives(samples.rows, f"the batch holds fewer than two samples with {' and '.join(pair)}")
            everybody = tuple(gather(views, samples.parts) for views in samples.projected)
            with torch.autocast(everybody[0].device.type, enabled=False):
                found += [self.score(a, b) for a, b in view_pairs(everybody)]
        terms = {key: torch.stack([terms[key] for terms in found]).mean() for key in found[0]}
        return {key: value if key == "loss" else value.detach() for key, value in terms.items()}


class VICReg(Redundancy):
    """Variance-invariance-covariance regularisation (Bardes et al., arXiv 2105.04906), lightly's terms.

    Projections are not normalised. A subject's samples are never pushed apart: there are no negatives.
    """

    def __init__(
        self,
        between: tuple[str, ...] = ("map", "course"),
        level: Level = "row",
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__(between, level)
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def score(self, a: Float[Tensor, "sample dim"], b: Float[Tensor, "sample dim"]) -> dict[str, Tensor]:
        """`loss`, and `invariance`, `variance`, `covariance`, unweighted."""
        from lightly.loss import vicreg_loss as lightly

        invariance = lightly.invariance_loss(a, b)
        variance = 0.5 * (lightly.variance_loss(a) + lightly.variance_loss(b))
        covariance = lightly.covariance_loss(a) + lightly.covariance_loss(b)
        loss = self.invariance * invariance + self.variance * variance + self.covariance * covariance
        return {"loss": loss, "invariance": invariance, "variance": variance, "covariance": covariance}


class BarlowTwins(Redundancy):
    """Barlow Twins (Zbontar et al., arXiv 2103.03230) by lightly: the views' cross-correlation should be the identity.

    Args:
        redundancy: weight of the off-diagonal terms.
    """

    def __init__(self, between: tuple[str, ...] = ("map", "course"), level: Level = "row", redundancy: float = 0.005) -> None:
        super().__init__(between, level)
        from lightly.loss import BarlowTwinsLoss

        self._lightly = BarlowTwinsLoss(lambda_param=redundancy)

    def score(self, a: Float[Tensor, "sample dim"], b: Float[Tensor, "sample dim"]) -> dict[str, Tensor]:
        """`loss` alone: lightly does not give its two terms."""
        return {"loss": self._lightly(a, b)}
