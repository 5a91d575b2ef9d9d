"""Monotone time warps onto a reference trajectory (methods/cabris.md §3, formulas 29 to 32)."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.interpolate import BSpline
from torch import Tensor, nn

from ssl4neuro.encoders.pooling import AttentionPool
from ssl4neuro.encoders.transformer import Attention, attention_mask
from ssl4neuro.heads.biovidnet.frames import valid_average

CONTROL, DEGREE = 8, 3
IDENTITY = (1 / 15, 2 / 15, 3 / 15, 3 / 15, 3 / 15, 2 / 15, 1 / 15)  # steps of the control points of τ(u) = u (Greville)
STEADY = 0.1  # least slope
FREE_ENDS = 0.1  # largest shift of a warp whose ends are free
SHORTEST = 8  # frames: shorter sequences are not warped
TABLE = 4096


class Warp(NamedTuple):
    """τ of every frame in normalised time, 0 to 1."""

    tau: Float[Tensor, "batch time"]
    slope: Float[Tensor, "batch time"]


class MonotoneSpline(nn.Module):
    """τ(u) = Σ w_k B_k(u) on clamped cubic B-splines whose control points rise from 0 to 1.

    Non-negative weights do not make such a sum monotone, as the paper has it; rising control points do, and are
    non-negative weights on I-splines. Steps are (1 - η) softmax(log δ_id + Δa) + η δ_id: τ is the identity at Δa = 0, and its
    slope never below η = 0.1.
    """

    basis: Tensor
    derivative: Tensor
    identity: Tensor

    def __init__(self, free_ends: bool = False) -> None:
        super().__init__()
        self.parameters_per_warp = CONTROL - 1 + 2 * free_ends
        self.free_ends = free_ends
        knots = np.concatenate([np.zeros(DEGREE), np.linspace(0, 1, CONTROL - DEGREE + 1), np.ones(DEGREE)])
        spline = BSpline(knots, np.eye(CONTROL), DEGREE)
        grid = np.linspace(0, 1, TABLE + 1)
        self.register_buffer("basis", torch.from_numpy(spline(grid)), persistent=False)
        self.register_buffer("derivative", torch.from_numpy(spline.derivative()(grid)), persistent=False)
        self.register_buffer("identity", torch.tensor(IDENTITY, dtype=torch.float64), persistent=False)
        self.knots = knots

    def forward(self, u: Float[Tensor, "batch time"], change: Float[Tensor, "batch parameters"]) -> Warp:
        """τ and its slope at normalised times `u`; `change` is Δa (and, with free ends, two shifts)."""
        a = self.identity.log().to(change) + change[:, : CONTROL - 1]
        steps = (1 - STEADY) * a.softmax(1) + STEADY * self.identity.to(change)
        points = torch.cat([torch.zeros_like(steps[:, :1]), steps.cumsum(1)], 1)
        points = points / points[:, -1:]
        if self.free_ends:
            ends = FREE_ENDS * change[:, CONTROL - 1 :].tanh()
            points = ends[:, :1] + (1 + ends[:, 1:] - ends[:, :1]) * points
        basis, derivative = (_lookup(table, u) for table in (self.basis, self.derivative))
        return Warp(torch.einsum("ntk,nk->nt", basis, points), torch.einsum("ntk,nk->nt", derivative, points))


def _lookup(table: Tensor, u: Tensor) -> Tensor:
    """Values at `u` in [0, 1], linear between the rows of a fine table: within 2e-6, and exact where the spline is a line."""
    place = u.clamp(0, 1) * (len(table) - 1)
    below = place.floor().long().clamp_max(len(table) - 2)
    share = (place - below)[..., None]
    table = table.to(u.dtype)
    return table[below] * (1 - share) + table[below + 1] * share


def normalised_time(clock: Float[Tensor, "batch time"], valid: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
    """(t - first) / (last - first) over valid frames, 0 to 1; later frames stay at 1."""
    first = torch.where(valid, clock, torch.inf).amin(1, keepdim=True).nan_to_num(posinf=0.0)
    last = torch.where(valid, clock, -torch.inf).amax(1, keepdim=True).nan_to_num(neginf=1.0)
    return ((clock - first) / (last - first).clamp_min(1e-6)).clamp(0, 1)


def sample_at(
    z: Float[Tensor, "batch time dim"], u: Float[Tensor, "batch time"], tau: Float[Tensor, "batch some"]
) -> Float[Tensor, "batch some dim"]:
    """z at normalised times `tau`, linear between its frames at `u` (rising); differentiable in both z and τ."""
    right = torch.searchsorted(u.detach().contiguous(), tau.detach().contiguous()).clamp(1, z.shape[1] - 1)
    left = right - 1
    before, after = u.gather(1, left), u.gather(1, right)
    share = ((tau - before) / (after - before).clamp_min(1e-6)).clamp(0, 1)[:, :, None]
    index = right[:, :, None].expand(-1, -1, z.shape[2])
    return z.gather(1, index - 1) * (1 - share) + z.gather(1, index) * share


class WarpNetwork(nn.Module):
    """From a trajectory and the reference, frame by frame, to Δa (figure 4); 0 at initialisation."""

    def __init__(self, dim: int, parameters: int, heads: int = 4) -> None:
        super().__init__()
        self.join = nn.Linear(2 * dim, dim)
        self.attention, self.act = Attention(dim, heads), nn.GELU()
        self.pool, self.out = AttentionPool(dim, heads), nn.Linear(dim, parameters)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        dynamic: Float[Tensor, "batch time dim"],
        reference: Float[Tensor, "batch time dim"],
        valid: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "batch parameters"]:
        """Δa of every sequence."""
        joined = self.join(torch.cat([reference * dynamic, dynamic], 2))
        features = self.act(joined + self.attention(joined, attention_mask(valid))) * valid[:, :, None]
        return self.out(self.pool(features.transpose(1, 2), valid[:, None].to(features.dtype)))


class Reference(nn.Module):
    """Running mean (0.99) of aligned trajectories on a grid of normalised time, with the moments of z; fixed in evaluation."""

    trajectory: Tensor
    mean: Tensor
    square: Tensor
    count: Tensor

    def __init__(self, dim: int, grid: int = 64, keep: float = 0.99) -> None:
        super().__init__()
        self.keep = keep
        self.register_buffer("trajectory", torch.zeros(grid, dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("square", torch.ones(dim))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @property
    def started(self) -> bool:
        """Whether any trajectory has been averaged."""
        return bool(self.count > 0)

    def standardise(self, z: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """By the buffer's own moments: by the batch's, shrinking z to 0 would align everything."""
        return (z.float() - self.mean) / (self.square - self.mean.square()).clamp_min(1e-6).sqrt()

    def at(self, u: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time dim"]:
        """The reference at normalised times, standardised."""
        grid = torch.linspace(0, 1, len(self.trajectory), device=u.device).expand(len(u), -1)
        return sample_at(self.standardise(self.trajectory.expand(len(u), -1, -1)), grid.contiguous(), u)

    @torch.no_grad()
    def update(
        self, z: Float[Tensor, "batch time dim"], u: Float[Tensor, "batch time"], tau: Float[Tensor, "batch time"]
    ) -> None:
        """Average the batch's aligned trajectories z(τ(u)) in; the first batch is taken as it is."""
        grid = torch.linspace(0, 1, len(self.trajectory), device=u.device).expand(len(u), -1).contiguous()
        warped = sample_at(tau[:, :, None], u, grid).squeeze(2)
        aligned = sample_at(z.float(), u, warped)
        keep = self.keep if self.started else 0.0
        fresh = (aligned.mean(0), aligned.mean((0, 1)), aligned.square().mean((0, 1)))
        for buffer, value in zip((self.trajectory, self.mean, self.square), fresh, strict=True):
            buffer.mul_(keep).add_((1 - keep) * value)
        self.count += 1


def curvature(tau: Float[Tensor, "batch time"], valid: Bool[Tensor, "batch time"]) -> Float[Tensor, ""]:
    """Mean squared second difference of τ in frames (formula 31); 0 exactly where τ is affine on an even grid."""
    if tau.shape[1] < 3:
        return tau.sum() * 0
    frames = valid.sum(1, keepdim=True) * tau
    second = frames[:, 2:] - 2 * frames[:, 1:-1] + frames[:, :-2]
    return valid_average(second.square(), valid[:, 2:] & valid[:, 1:-1] & valid[:, :-2])


def local_structure(
    aligned: Float[Tensor, "batch time dim"],
    z: Float[Tensor, "batch time dim"],
    valid: Bool[Tensor, "batch time"],
    kind: Literal["a", "b"] = "b",
) -> Float[Tensor, ""]:
    """Neighbouring frames after the warp: (a) alike, the literal reading; (b) as different as before (formula 32)."""
    if z.shape[1] < 2:
        return z.sum() * 0
    step = aligned[:, 1:] - aligned[:, :-1]
    if kind == "b":
        step = step - (z[:, 1:] - z[:, :-1])
    return valid_average(step.float().square().mean(2), valid[:, 1:] & valid[:, :-1])


def anchor(
    tau: Float[Tensor, "batch time"], u: Float[Tensor, "batch time"], valid: Bool[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Squared mean displacement over the batch, frame by frame: without it reference and warps drift together."""
    shift = (torch.where(valid, tau - u, 0.0)).sum(0) / valid.sum(0).clamp_min(1)
    return shift.square().mean()
