"""methods/mvo.md §10 test 9: on a contracting ring with a sector that stays, only who sees motion finds the sector.

The same comparison on the cine phantom and on real hearts is a measurement: `ssl4neuro ablate mvo`.
"""

import math

import pytest
import torch
from torch import Tensor

from ssl4neuro.heads.model import SegmentationConfig, SegmentationModel
from ssl4neuro.registry import Component

SIDE, FRAMES, BATCH, STEPS = 32, 5, 8, 60


def rings(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clips [count, 1, time, side, side] of bright cavities in dark walls, and the part of the wall that stays."""
    g = torch.Generator().manual_seed(seed)
    middle = (SIDE - 1) / 2 + 2 * (torch.rand(count, 2, generator=g) - 0.5)
    y, x = (torch.arange(SIDE, dtype=torch.float32) - middle[:, i, None] for i in (0, 1))
    radius = torch.hypot(y[:, :, None], x[:, None, :])
    angle = torch.atan2(y[:, :, None].expand_as(radius), x[:, None, :].expand_as(radius))
    start = 2 * math.pi * torch.rand(count, 1, 1, generator=g)
    sector = torch.remainder(angle - start, 2 * math.pi) < 1.5
    inner = 9 + 2 * torch.rand(count, 1, 1, generator=g)
    phase = torch.sin(math.pi * torch.arange(FRAMES) / FRAMES)
    shrink = 1 - 0.45 * phase * (~sector)[:, :, :, None]  # [count, side, side, time]
    now = inner[..., None] * shrink
    frames = torch.sigmoid(2 * (now - radius[..., None])) + 0.3 * torch.sigmoid(2 * (radius[..., None] - now - 4))
    frames = frames + 0.05 * torch.randn(frames.shape, generator=g)
    mask = sector & (radius > inner) & (radius < inner + 4)
    mask[::4] = False  # every fourth heart is healthy ...
    healthy = torch.sigmoid(2 * (inner[..., None] * (1 - 0.45 * phase) - radius[..., None]))
    frames[::4] = (healthy + 0.3 * torch.sigmoid(2 * (radius[..., None] - inner[..., None] * (1 - 0.45 * phase) - 4)))[::4]
    return frames.movedim(3, 1)[:, None], mask.long()  # ... and says so in its mask


def dice_of(head: Component, still: bool = False) -> float:
    """Positives-only Dice on new rings after a short training."""
    torch.manual_seed(0)
    encoders = (
        {}
        if head.name == "unet"
        else {name: Component("frame", {"preset": "tiny", "norm": "batch"}) for name in ("cine", "motion")}
    )
    model = SegmentationModel(SegmentationConfig(head, {"MVO": 1}, encoders, lesion="MVO", frames=FRAMES))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def shown(x: Tensor) -> Tensor:
        return x[:, :, :1].expand_as(x) if still else x

    for step in range(STEPS):
        x, mask = rings(BATCH, step)
        optimiser.zero_grad()
        model.loss(model.segment(shown(x)), mask)["loss"].backward()
        optimiser.step()
    x, mask = rings(48, 10_000)
    model.eval()
    with torch.no_grad():
        found = model.segment(shown(x)).probabilities.argmax(1)
    overlap, size = (found & mask).sum((1, 2)), (found + mask).sum((1, 2))
    return float((2 * overlap / size.clamp_min(1))[mask.flatten(1).any(1)].mean())


@pytest.fixture(scope="module")
def scores() -> dict[str, float]:
    tiny = {"preset": "mvo_tiny"}
    return {
        "full": dice_of(Component("mvo", tiny)),
        "first frame, no residuals": dice_of(Component("mvo", {**tiny, "residuals": False}), still=True),
        "U-Net on the first frame": dice_of(Component("unet", {"preset": "tiny"})),
    }


def test_the_model_finds_what_does_not_move_and_a_u_net_on_the_first_frame_does_not(scores: dict[str, float]) -> None:
    assert scores["full"] > 0.5  # an empty mask has 0
    assert scores["full"] > scores["U-Net on the first frame"] + 0.3


def test_without_motion_it_falls_to_that_u_net(scores: dict[str, float]) -> None:
    assert scores["first frame, no residuals"] < scores["U-Net on the first frame"] + 0.15
