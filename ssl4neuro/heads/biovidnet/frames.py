"""Which frames count: valid neighbours, and means over valid terms, shared by every loss of the trajectory."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SHORTEST = 1e-2  # of a median interval: frames closer than that would make derivatives explode


def everything(z: Float[Tensor, "batch time *dim"], valid: Bool[Tensor, "batch time"] | None) -> Bool[Tensor, "batch time"]:
    """The mask, all True where there is none."""
    return torch.ones(z.shape[:2], dtype=torch.bool, device=z.device) if valid is None else valid


def positions(
    times: Float[Tensor, "batch time"] | None, valid: Bool[Tensor, "batch time"], median: float
) -> Float[Tensor, "batch time"]:
    """Times in units of the training set's median interval, strictly increasing; frame numbers where times are unknown.

    A clip with an unknown time among its valid frames is counted in frames: two clocks are never mixed.
    """
    number = torch.arange(valid.shape[1], device=valid.device, dtype=torch.float32).expand(valid.shape)
    if times is None:
        return number
    known = (times.isfinite() | ~valid).all(1, keepdim=True)
    since = torch.where(valid & known, times.float() / median, 0.0)
    since = since.cummax(1).values  # frames that are not valid stand where their predecessor stood
    steps = (since[:, 1:] - since[:, :-1]).clamp_min(SHORTEST)
    return torch.where(known, torch.cat([torch.zeros_like(steps[:, :1]), steps.cumsum(1)], 1), number)


def previous_valid(valid: Bool[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """Index of the last valid frame before each frame, -1 where there is none."""
    number = torch.arange(valid.shape[1], device=valid.device).expand(valid.shape)
    last = torch.where(valid, number, -1).cummax(1).values
    return torch.cat([torch.full_like(last[:, :1], -1), last[:, :-1]], 1)


def valid_average(term: Float[Tensor, "*shape"], valid: Bool[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Mean over valid terms; 0, with a gradient of 0, where there is none."""
    return torch.where(valid, term, 0.0).sum() / valid.sum().clamp_min(1)


def at(z: Float[Tensor, "batch time dim"], index: Int[Tensor, "batch some"]) -> Float[Tensor, "batch some dim"]:
    """`z` at the given frames (negative indices are taken as 0: mask them)."""
    return z.gather(1, index.clamp_min(0)[:, :, None].expand(-1, -1, z.shape[2]))
