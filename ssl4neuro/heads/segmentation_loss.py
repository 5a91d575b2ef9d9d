"""Overlap, certainty and cross-entropy: what a head for segmentation is trained with (methods/mvo.md §5)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from monai.losses import DiceLoss
from torch import Tensor, nn

from ssl4neuro.heads.segmented import Segmented

IGNORE = -1  # class of pixels that nobody has judged
FLOOR = 1e-7  # of the denominator of Dice without smoothing


@dataclass(frozen=True)
class LossConfig:
    """L = α Dice + (1 - α) ‖Û‖ + cross-entropy; `LossConfig.paper()` is equation 7 alone.

    Args:
        alpha: share of Dice against uncertainty.
        smooth: pixels added to intersection and union of Dice. With some, a class that the masks do not show asks for its
            absence, the more the fewer pixels are left.
        absent: whether classes that the masks do not show count.
        background: whether Dice counts the background.
        batch: Dice of all pixels of a batch; otherwise the mean over its pictures. Most pictures have no lesion.
        cross_entropy: weight of the cross-entropy, which has a gradient where Dice has none: on empty masks.
        focal_gamma: exponent that quietens pixels which are right already (Lin et al., ICCV 2017), None or 0: none.
        class_weights: one per class, the background first, in Dice and cross-entropy.
        first: weight of the same loss of the logits before refinement.
    """

    alpha: float = 0.95
    smooth: float = 1.0
    absent: bool = True
    background: bool = False
    batch: bool = True
    cross_entropy: float = 0.5
    focal_gamma: float | None = None
    class_weights: tuple[float, ...] | None = None
    first: float = 0.4

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie in 0..1, got {self.alpha}")
        if min(self.smooth, self.cross_entropy, self.first, self.focal_gamma or 0, *(self.class_weights or ())) < 0:
            raise ValueError("smooth, cross_entropy, focal_gamma, class_weights and first must not be negative")

    @classmethod
    def paper(cls) -> "LossConfig":
        """Equation 7, with what the authors' repositories show of Dice."""
        return cls(smooth=0.0, absent=False, cross_entropy=0.0, first=0.0)


class SegmentationLoss(nn.Module):
    """Scores a head's answer against masks.

    Args:
        classes: the background included.
        config: the terms and their weights.
    """

    weights: Tensor

    def __init__(self, classes: int, config: LossConfig = LossConfig()):
        super().__init__()
        given = config.class_weights
        if given is not None and len(given) != classes:
            raise ValueError(f"class_weights: {classes} classes with the background, got {len(given)} weights")
        self.classes, self.config = classes, config
        self.register_buffer("weights", torch.tensor(given or (1.0,) * classes), persistent=False)
        self.overlap = DiceLoss(
            include_background=config.background,
            reduction="none",
            smooth_nr=config.smooth,
            smooth_dr=config.smooth or FLOOR,
            batch=config.batch,
        )

    def forward(self, segmented: Segmented, target: Int[Tensor, "batch height width"]) -> dict[str, Tensor]:
        """`loss` and its terms, unweighted: `dice`, `uncertainty`, `cross_entropy`, and `first` where there is one.

        Args:
            segmented: a head's answer.
            target: class codes; -1: the pixel counts nowhere.
        """
        config = self.config
        known = target != IGNORE
        truth = F.one_hot(target.clamp_min(0), self.classes).movedim(3, 1) * known[:, None]
        terms = {
            "dice": self._dice(segmented.probabilities, truth, known),
            "uncertainty": root_mean_square(segmented.uncertainty, known),
            "cross_entropy": self._cross_entropy(segmented.logits, target, known),
        }
        loss = config.alpha * terms["dice"] + (1 - config.alpha) * terms["uncertainty"]
        loss = loss + config.cross_entropy * terms["cross_entropy"]
        if segmented.first is not None and config.first:
            first = segmented.first.float()
            terms["first"] = config.alpha * self._dice(first.softmax(1), truth, known)
            terms["first"] = terms["first"] + config.cross_entropy * self._cross_entropy(first, target, known)
            loss = loss + config.first * terms["first"]
        return {"loss": loss, **terms}

    def _dice(self, probabilities: Tensor, truth: Tensor, known: Bool[Tensor, "batch height width"]) -> Float[Tensor, ""]:
        """1 - Dice, mean over classes, and over pictures where they count one by one."""
        start = 0 if self.config.background else 1
        each = self.overlap(probabilities.float() * known[:, None], truth.float()).squeeze(-1).squeeze(-1)
        each = each.view(-1, self.classes - start) * self.weights[start:]
        if not self.config.absent:
            shown = truth[:, start:].sum((2, 3)) > 0
            each = each * (shown.any(0) if self.config.batch else shown)
        return each.mean()

    def _cross_entropy(self, logits: Tensor, target: Tensor, known: Bool[Tensor, "batch height width"]) -> Float[Tensor, ""]:
        """Mean over the known pixels of all pictures."""
        plain = F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="none")
        each = plain * self.weights[target.clamp_min(0)]
        if self.config.focal_gamma:
            wrong = -torch.expm1(-plain)  # 1 - p of the true class
            each = each * wrong.clamp_min(FLOOR) ** self.config.focal_gamma
        return each.sum() / known.sum().clamp_min(1)


def root_mean_square(
    x: Float[Tensor, "batch 1 height width"], known: Bool[Tensor, "batch height width"] | None = None
) -> Float[Tensor, ""]:
    """‖x‖₂ / √(known pixels) of each picture, mean over pictures; one without known pixels counts as 0.

    The norm alone would grow with the picture and swamp Dice.
    """
    flat = x.float().flatten(1)
    if known is None:
        return (torch.linalg.vector_norm(flat, dim=1) / flat.shape[1] ** 0.5).mean()
    there = known.flatten(1)
    return (torch.linalg.vector_norm(flat * there, dim=1) / there.sum(1).clamp_min(1).sqrt()).mean()
