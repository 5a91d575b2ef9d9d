"""Sides that a network can halve as often as it does: the picture's edge is repeated below and to the right."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def pad_to_multiple(
    x: Float[Tensor, "batch channels time height width"], multiple: int
) -> Float[Tensor, "batch channels time _ _"]:
    """Both sides raised to multiples; `out[..., :height, :width]` takes it back."""
    down, right = (-side % multiple for side in x.shape[3:])
    if not down and not right:
        return x
    return F.pad(x, (0, right, 0, down, 0, 0), mode="replicate")
