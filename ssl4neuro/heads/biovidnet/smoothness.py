"""Temporal smoothness of a trajectory, exact on irregular time stamps (methods/biovidnet.md §7, formulas 21 to 24)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl4neuro.heads.biovidnet.frames import everything, valid_average

CHARBONNIER = 1e-2


def smoothness(
    z: Float[Tensor, "batch time dim"],
    clock: Float[Tensor, "batch time"],
    valid: Bool[Tensor, "batch time"] | None = None,
    robust: Literal["square", "charbonnier"] = "square",
) -> dict[str, Float[Tensor, ""]]:
    """Mean squared `velocity`, `acceleration` and `jerk` over stencils of valid frames and dimensions.

    Velocity vanishes on constants, acceleration on lines, jerk on parabolas, whatever the intervals: the derivatives are those
    of the interpolating polynomial (k! times the k-th divided difference). A clip too short for a stencil adds nothing.

    Args:
        clock: strictly increasing times, in median intervals (`frames.positions`).
        robust: Charbonnier's penalty grows linearly, for true steps.
    """
    there = everything(z, valid)
    found, difference = {}, z.float()
    for order, name in enumerate(("velocity", "acceleration", "jerk"), start=1):
        if z.shape[1] <= order:
            found[name] = z.new_zeros(())
            continue
        span = clock[:, order:] - clock[:, :-order]
        difference = order * (difference[:, 1:] - difference[:, :-1]) / span[:, :, None]
        inside = torch.stack([there[:, i : there.shape[1] - order + i] for i in range(order + 1)]).all(0)
        term = difference.square()
        if robust == "charbonnier":
            term = (term + CHARBONNIER**2).sqrt() - CHARBONNIER
        found[name] = valid_average(term.mean(2), inside)
    return found
