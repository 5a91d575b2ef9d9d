"""The motion part of the latent says how much the picture changes (methods/biovidnet.md §5, formula 15)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.heads.biovidnet.frames import everything, valid_average

KEEP = 0.99  # of the running mean of the change


def change(
    x: Float[Tensor, "batch time *dim"], clock: Float[Tensor, "batch time"], pixels: bool
) -> Float[Tensor, "batch time"]:
    """Change since the frame before, per median interval: Euclidean for features, mean absolute for pixels; 0 at the first."""
    step = (x[:, 1:] - x[:, :-1]).float().flatten(2)
    size = step.abs().mean(2) if pixels else step.norm(dim=2)
    return torch.cat([size.new_zeros(len(x), 1), size / (clock[:, 1:] - clock[:, :-1])], 1)


class MotionReadout(nn.Module):
    """Linear read-out of the change from z^m and its squared error, in units of the training mean of the change.

    The target is detached: otherwise an encoder that makes all frames alike has no loss.
    """

    typical: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.readout = nn.Linear(dim, 1)
        self.register_buffer("typical", torch.zeros(()))

    def forward(
        self,
        z: Float[Tensor, "batch time dim"],
        target: Float[Tensor, "batch time"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean squared error over frames that, like their predecessor, are valid."""
        there = everything(z, valid)
        pair = torch.cat([torch.zeros_like(there[:, :1]), there[:, 1:] & there[:, :-1]], 1)
        target = target.detach().float()
        mean = valid_average(target, pair)
        if self.training and bool(pair.any()):
            with torch.no_grad():
                self.typical.copy_(mean if self.typical == 0 else KEEP * self.typical + (1 - KEEP) * mean)
        error = self.readout(z.float()).squeeze(2) - target / (self.typical + 1e-6)
        return valid_average(error.square(), pair)
