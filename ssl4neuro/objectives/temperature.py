"""The temperature of a contrastive objective, fixed or learned."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

SHARPEST = 0.01  # CLIP's limit: below it a learned temperature makes training unstable


class Temperature(nn.Module):
    """Gives the scale 1/τ. Learned as its logarithm and kept at τ >= 0.01 (CLIP, arXiv 2103.00020, section 2.5).

    Raises:
        ValueError: τ is not positive, or below 0.01 when learned.
    """

    def __init__(self, temperature: float, learn: bool = False) -> None:
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if learn and temperature < SHARPEST:
            raise ValueError(f"a learned temperature starts at {SHARPEST} or above, got {temperature}")
        self.temperature = temperature
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature))) if learn else None

    def forward(self, like: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
        """The scale, on the device and in the dtype of `like`."""
        if self.log_scale is None:
            return like.new_full((), 1 / self.temperature)
        return self.log_scale.clamp(max=-math.log(SHARPEST)).exp().to(like.dtype)
