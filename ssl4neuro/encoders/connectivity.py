"""Functional network connectivity (FNC) of padded sets of courses, and what can be read off it without naming a component."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

QUANTILES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
POWERS = 4
NODE_STATISTICS = len(QUANTILES) + 3 + POWERS


def connectivity(
    courses: Float[Tensor, "sets members time"], valid: Bool[Tensor, "sets members time"], member: Bool[Tensor, "sets members"]
) -> Float[Tensor, "sets members members"]:
    """Fisher-z correlations of linearly detrended courses over the time points that are valid in every member; zero diagonal.

    Members without any valid time point are left out (zeros), so that an absent course does not empty the intersection.
    """
    there = member & valid.any(2)
    common = (valid | ~there[:, :, None]).all(1) & there.any(1)[:, None]
    unit = standardise(courses.float(), common[:, None])
    unit = unit * there[:, :, None]
    correlation = unit @ unit.transpose(1, 2)
    z = correlation.clamp(-0.999, 0.999).atanh()
    return z * ~torch.eye(z.shape[1], dtype=torch.bool, device=z.device)


def standardise(
    x: Float[Tensor, "sets members time"], valid: Bool[Tensor, "sets #members time"]
) -> Float[Tensor, "sets members time"]:
    """Courses without mean and linear trend and of unit length over the valid time points, zero elsewhere."""
    mask = valid.to(x.dtype)
    count = mask.sum(2, keepdim=True).clamp_min(1)
    time = torch.arange(x.shape[2], device=x.device, dtype=x.dtype)
    time = (time - (time * mask).sum(2, keepdim=True) / count) * mask
    time = time / time.square().sum(2, keepdim=True).sqrt().clamp_min(1e-6)
    x = (x - (x * mask).sum(2, keepdim=True) / count) * mask
    x = x - (x * time).sum(2, keepdim=True) * time
    return x / x.square().sum(2, keepdim=True).sqrt().clamp_min(1e-6)


def node_statistics(
    z: Float[Tensor, "sets members members"], member: Bool[Tensor, "sets members"]
) -> Float[Tensor, "sets members statistics"]:
    """What a component's row of the FNC says about it whatever the order of the others.

    Quantiles, mean, standard deviation and skewness of the row, and the diagonals of the first powers of the matrix
    (closed walks: how clustered the component's partners are), each scaled to be of order 1 at any number of components.
    """
    eye = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    pair = member[:, None, :] & member[:, :, None] & ~eye
    count = pair.sum(2).clamp_min(1)
    mean = z.sum(2) / count
    centred = (z - mean[:, :, None]) * pair
    sd = (centred.square().sum(2) / count + 1e-6).sqrt()
    skew = centred.pow(3).sum(2) / count / sd.pow(3)
    features = [*_row_quantiles(z, pair, count), mean, sd, skew]
    size = member.sum(1).clamp_min(2)[:, None, None]
    step = power = z / (size - 1)
    for order in range(2, POWERS + 2):
        power = power @ step
        features.append(power.diagonal(dim1=1, dim2=2) * (size[:, :, 0] - 1).float() ** (order / 2) * 2**order / 4)
    return torch.stack(features, dim=2) * member[:, :, None]


def _row_quantiles(z: Tensor, pair: Tensor, count: Tensor) -> list[Tensor]:
    """Linearly interpolated quantiles of each row over its pairs; padding sorts to the end."""
    ordered = z.masked_fill(~pair, torch.inf).sort(dim=2).values
    out = []
    for q in QUANTILES:
        place = (count - 1) * q
        below = place.floor().long()
        above = torch.minimum(below + 1, count - 1)
        a, b = (ordered.gather(2, i[:, :, None])[:, :, 0] for i in (below, above))
        value = a + (b - a) * (place - below)
        out.append(torch.where(pair.any(2), value, 0.0))
    return out
