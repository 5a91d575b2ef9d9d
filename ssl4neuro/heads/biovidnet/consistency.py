"""The trajectory tells a second signal: respiration, arterial input, a score (methods/biovidnet.md §3, formula 12)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.heads.biovidnet.frames import valid_average

TEMPERATURE = 0.1


class SignalDecoder(nn.Module):
    """g: z_t to the signal at the same time, and the distance from what was measured.

    Args:
        dim: of z_t.
        outputs: numbers per frame; classes where `kind` is "classes"; features of the comparison for "contrast".
        kind: smooth L1 for numbers, cross entropy for classes, InfoNCE over the batch where scales differ between subjects.
    """

    def __init__(self, dim: int, outputs: int = 1, kind: Literal["numbers", "classes", "contrast"] = "numbers") -> None:
        super().__init__()
        self.kind = kind
        self.decode = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, outputs))

    def forward(self, z: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time outputs"]:
        """The signal, frame by frame."""
        return self.decode(z)

    def loss(
        self, z: Float[Tensor, "batch time dim"], signal: Float[Tensor, "batch time signals"], valid: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, ""]:
        """Mean distance over valid frames whose signal is known (not NaN); classes are given as their number."""
        there = valid & signal.isfinite().all(2)
        guess, truth = self(z).float(), torch.where(there[:, :, None], signal.float(), 0.0)
        if self.kind == "numbers":
            return valid_average(F.smooth_l1_loss(guess, truth, reduction="none").mean(2), there)
        if self.kind == "classes":
            entropy = F.cross_entropy(guess.transpose(1, 2), truth[:, :, 0].long(), reduction="none")
            return valid_average(entropy, there)
        if int(there.sum()) < 2:
            return z.sum() * 0
        a, b = F.normalize(guess[there], dim=1), F.normalize(truth[there], dim=1)
        return F.cross_entropy(a @ b.T / TEMPERATURE, torch.arange(len(a), device=z.device))
