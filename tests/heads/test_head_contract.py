"""What every head in the table must do. A new head needs one line here and passes or fails."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from ssl4neuro.encoders import FrameEncoder
from ssl4neuro.heads import HEADS, SegmentationHead, SegmentationLoss
from ssl4neuro.heads.refinement import uncertainty
from ssl4neuro.registry import Component, build

CLASSES, FRAMES = 3, 5


@dataclass
class Case:
    """A head, options that keep it small, and whether clips may have another number of frames than it was built for."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    any_frames: bool = False


CASES = {
    "mvo_tiny": Case("mvo", {"preset": "mvo_tiny"}),
    "mvo_default": Case("mvo", {"preset": "mvo_default", "decoder": (32, 16, 16, 8, 8)}),
    "mvo_paper": Case("mvo", {"preset": "mvo_paper", "decoder": (32, 16, 16, 8, 8)}),
    "mvo_any": Case("mvo", {"preset": "mvo_tiny", "temporal": "attn_pool", "window": 7, "levels": (1, 3, 5)}, any_frames=True),
    "unet": Case("unet", {"preset": "tiny"}, any_frames=True),
    "unet3d": Case("unet3d", {"preset": "tiny", "widths": (8, 8, 16)}, any_frames=True),
}

every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_flexible = pytest.mark.parametrize("case", [pytest.param(c, id=k) for k, c in CASES.items() if c.any_frames])


def make(case: Case, frames: int = FRAMES, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    encoders = {name: FrameEncoder(dim=16, body="tiny") for name in ("cine", "motion")}
    options = {**case.options, "encoders": encoders, "classes": CLASSES, "frames": frames, "channels": 1}
    if frames == 1 and options.get("preset") == "mvo_paper":
        options["temporal"] = "depthwise"  # its own stack starts at five frames
    if case.name == "mvo":
        options.setdefault("norm", "group")  # batch statistics mix clips, on purpose
    return randomise(build(HEADS, Component(case.name, options)))


def randomise(head: nn.Module) -> nn.Module:
    """Layers that start at zero hide what is behind them."""
    for parameter in head.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return head


def clips(batch: int = 2, frames: int = FRAMES, height: int = 64, width: int = 64, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 1, frames, height, width, generator=generator)


def test_every_head_has_a_case():
    assert {case.name for case in CASES.values()} == set(HEADS)


@every
@pytest.mark.parametrize("size", [(64, 64), (51, 35), (16, 70)])
def test_shapes_and_ranges(case, size):
    head = make(case)
    assert isinstance(head, SegmentationHead)
    out = head(clips(height=size[0], width=size[1]))
    assert out.logits.shape == out.probabilities.shape == (2, CLASSES, *size)
    assert out.uncertainty.shape == (2, 1, *size)
    assert out.first is None or out.first.shape == out.logits.shape
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in out if part is not None)
    torch.testing.assert_close(out.probabilities, out.logits.softmax(1))
    torch.testing.assert_close(out.uncertainty, uncertainty(out.probabilities))
    assert out.uncertainty.min() > 0
    assert out.uncertainty.max() <= 1


@every
def test_padding_of_the_picture_is_taken_back(case):
    # The edge repeated by hand gives the same answer: what is added never moves the picture.
    head, x = make(case).eval(), clips(height=60, width=64)
    by_hand = torch.cat([x, x[..., -1:, :].expand(-1, -1, -1, 4, -1)], 3)
    torch.testing.assert_close(head(x).logits, head(by_hand).logits[..., :60, :], atol=1e-4, rtol=1e-4)


@every
def test_a_single_frame(case):
    out = make(case, frames=1)(clips(frames=1))
    assert out.logits.shape == (2, CLASSES, 64, 64)
    assert out.logits.isfinite().all()


@every
def test_values_of_invalid_frames_do_not_matter(case):
    head, x = make(case), clips()
    valid = torch.arange(FRAMES) < torch.tensor([[5], [3]])
    plain = head(x, valid).logits
    for dirt in (1e3, torch.nan):
        dirty = torch.where(valid[:, None, :, None, None], x, dirt)
        torch.testing.assert_close(head(dirty, valid).logits, plain, atol=1e-5, rtol=1e-5)


@every_flexible
def test_appended_invalid_frames_do_not_matter(case):
    head, x = make(case), clips()
    longer = torch.cat([x, clips(frames=2, seed=9)], 2)
    valid = torch.arange(FRAMES + 2).expand(2, -1) < FRAMES
    torch.testing.assert_close(head(longer, valid).logits, head(x).logits, atol=1e-4, rtol=1e-4)


@every
def test_a_clip_depends_on_itself_only(case):
    head, x = make(case).train(), clips(3)
    valid = torch.arange(FRAMES) < torch.tensor([[5], [3], [5]])
    whole = head(x, valid).logits
    torch.testing.assert_close(head(x[1:2], valid[1:2]).logits, whole[1:2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(head(x[[2, 0]], valid[[2, 0]]).logits, whole[[2, 0]], atol=1e-4, rtol=1e-4)


@every
def test_a_clip_without_frames_is_finite_and_harmless(case):
    head, x = make(case), clips()
    valid = torch.ones(2, FRAMES, dtype=torch.bool)
    expected = head(x, valid).logits[0].detach()
    x[1], valid[1] = 0, False
    out = head(x, valid).logits
    torch.testing.assert_close(out[0], expected, atol=1e-4, rtol=1e-4)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


@every
def test_the_first_frame_matters(case):
    head, x = make(case), clips()
    other = x.clone()
    other[:, :, 0] = clips(frames=1, seed=7)[:, :, 0]
    assert not torch.allclose(head(x).logits, head(other).logits, atol=1e-3)


@every
def test_gradient_reaches_every_parameter(case):
    head = make(case).train()
    out = head(clips())
    loss = sum((part * torch.randn_like(part)).sum() for part in out if part is not None)
    loss.backward()
    for name, parameter in head.named_parameters():
        if ".head." in name and name.startswith("encoders"):
            continue  # the encoder's pooled features are not asked for
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        cancelled = case.name != "mvo" and name.endswith("conv.bias")  # MONAI's, in front of instance norm
        assert cancelled or parameter.grad.abs().max() > 1e-8, name


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(case, dtype):
    head, x = make(case), clips()
    expected = head(x).logits
    with torch.autocast("cpu", dtype):
        out = head(x)
        loss = SegmentationLoss(CLASSES)(out, torch.randint(CLASSES, (2, 64, 64)))["loss"]
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in out if part is not None)
    assert (out.logits - expected).norm() < 0.1 * expected.norm()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


@every
def test_evaluation_is_deterministic_and_survives_saving(case):
    head, other, x = make(case).eval(), make(case, seed=1).eval(), clips()
    before = head(x).logits
    assert not torch.allclose(before, other(x).logits)
    other.load_state_dict(load(save({k: v.contiguous() for k, v in head.state_dict().items()})))
    assert torch.equal(before, head(x).logits)
    assert torch.equal(before, other(x).logits)


@every
def test_cost_counts_parameters_and_grows_with_the_picture(case):
    head = make(case)
    small, large = head.cost(64, 64), head.cost(64, 128)
    assert small["parameters"] == sum(p.numel() for p in head.parameters())
    assert 1.9 * small["gflop"] < large["gflop"]
    assert sum(v for k, v in small.items() if k.startswith("gflop_")) in (0, pytest.approx(small["gflop"]))
