"""The network for MVO: which stream it listens to, its switches and presets (methods/mvo.md §10, tests 1, 2 and 7)."""

import itertools

import pytest
import torch
from torch import nn

from ssl4neuro.augment.clip import Clips, residual
from ssl4neuro.encoders import FrameEncoder
from ssl4neuro.errors import UserError
from ssl4neuro.heads import HEADS, SpatioTemporalSegNet
from ssl4neuro.registry import Component, build

FRAMES = 5


def encoders(body: str = "tiny") -> dict[str, FrameEncoder]:
    return {name: FrameEncoder(dim=16, body=body) for name in ("cine", "motion")}


def net(preset: str = "mvo_tiny", frames: int = FRAMES, **options) -> SpatioTemporalSegNet:
    """Layers that start at zero are made random, so that nothing hides behind them."""
    torch.manual_seed(0)
    given = {"encoders": encoders(), "classes": 2, "frames": frames, **options}
    head = build(HEADS, Component("mvo", {"preset": preset, **given}), "head").eval()
    for parameter in head.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.5)
    return head


def clips(frames: int = FRAMES, seed: int = 0, side: int = 64) -> torch.Tensor:
    return torch.randn(2, 1, frames, side, side, generator=torch.Generator().manual_seed(seed))


def of(x: torch.Tensor) -> Clips:
    there = torch.ones(len(x), x.shape[2], dtype=torch.bool)
    return Clips(x, there, torch.zeros(there.shape))


def given_to(head: SpatioTemporalSegNet, stream: str, x: torch.Tensor) -> torch.Tensor:
    seen = []
    hook = head.encoders[stream].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    head(x)
    hook.remove()
    return seen[0]


def test_the_motion_encoder_sees_cyclic_differences():
    x = clips()
    moved = given_to(net(), "motion", x)
    torch.testing.assert_close(moved, x - x.roll(-1, 2))
    torch.testing.assert_close(moved.sum(2), torch.zeros(2, 1, 64, 64), atol=1e-5, rtol=0)
    assert torch.equal(given_to(net(), "cine", x), x)
    assert not given_to(net(), "motion", x[:, :, :1].expand_as(x)).any()


def test_the_control_gives_it_the_frames_themselves():
    x = clips()
    assert torch.equal(given_to(net(residuals=False), "motion", x), x)


def test_starting_elsewhere_in_the_cycle_leaves_the_same_differences():
    x = clips()
    here, there = (residual(of(part)).x.abs().flatten(1).sort(1).values for part in (x, x.roll(2, 2)))
    torch.testing.assert_close(here, there)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"refine": False},
        {"guided": False},
        {"full_skip": False},
        {"full_skip": False, "refine": False, "levels": (1, 2, 3, 4, 5)},
        {"preset": "mvo_paper", "decoder": (32, 16, 16, 8, 8)},
    ],
    ids=str,
)
def test_either_stream_alone_changes_the_answer(options):
    # In the authors' repository the refined network gives the frames to both branches: its motion stream is never used.
    head, x, other = net(**options), clips(), clips(seed=1)
    moved, moved_otherwise = residual(of(x)).x, residual(of(other)).x
    before = head(x, residual=moved).logits
    torch.testing.assert_close(before, head(x).logits)
    assert (head(x, residual=moved_otherwise).logits - before).abs().max() > 1e-3
    assert (head(other, residual=moved).logits - before).abs().max() > 1e-3


def test_table_two_of_the_paper():
    x, other = clips(), clips(seed=1)
    moved, moved_otherwise = residual(of(x)).x, residual(of(other)).x
    only = {"static": net(motion=False, encoders={"cine": encoders()["cine"]})}
    only["motion"] = net(static=False, encoders={"motion": encoders()["motion"]})
    for name, head in only.items():
        before = head(x, residual=moved).logits
        assert torch.equal(head(x, residual=moved_otherwise).logits, before) == (name == "static")
        assert torch.equal(head(other, residual=moved).logits, before) == (name == "motion")
    assert {type(f).__name__ for f in net(guided=False).fusions} == {"MotionMagnitude"}
    assert {type(f).__name__ for f in net(levels=(1, 2, 3, 4, 5)).fusions} == {"GuidedAttention"}
    assert net(refine=False)(x).first is None


def test_static_only_needs_no_motion_encoder_and_trains_none():
    assert list(net(motion=False).encoders) == ["cine"]
    assert list(net(frames=1).encoders) == ["cine"]
    assert list(net(static=False).encoders) == ["motion"]


def test_static_only_at_any_level_is_the_reduced_map():
    head, x = net(motion=False, refine=False, full_skip=False), clips()
    maps = [level.mean(1) for level in head.encoders["cine"](x).levels]  # depth-wise weights start as the mean
    torch.testing.assert_close(head(x).logits, head.decoder(maps))


@pytest.mark.parametrize(
    ("temporal", "share", "window", "source"), itertools.product(["shared_stack", "attn_pool"], [True], [None, 7], ["z", "f"])
)
def test_combinations_of_options(temporal, share, window, source):
    head = net(
        temporal=temporal, share_frames=share, window=window, levels=(1, 5), refine_source=source, frames=10, norm="batch"
    )
    out = head(clips(10, side=32))
    assert out.logits.shape == (2, 2, 32, 32)
    assert out.logits.isfinite().all()


@pytest.mark.parametrize("source", ["z", "f"])
def test_the_map_that_refinement_compares(source):
    head, x, seen = net(refine_source=source), clips(), []
    head.refinement.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    head(x)
    cine, motion = (head.encoders[name](part).levels[0] for name, part in (("cine", x), ("motion", residual(of(x)).x)))
    expected = cine.mean(1)
    if source == "z":
        expected = expected + head.fusions[0](expected, motion, of(x).valid)
    torch.testing.assert_close(seen[0], expected)


def test_attention_pooling_takes_any_number_of_frames():
    head = net(temporal="attn_pool")
    for frames in (1, 3, 8):
        assert head(clips(frames)).logits.isfinite().all()


def test_several_channels():
    given = {name: FrameEncoder(dim=16, body="tiny", in_channels=3) for name in ("cine", "motion")}
    assert net(encoders=given, channels=3)(torch.randn(1, 3, FRAMES, 32, 32)).logits.shape == (1, 2, 32, 32)


def test_encoders_of_different_width():
    given = {"cine": FrameEncoder(dim=16, body="tiny"), "motion": FrameEncoder(dim=16, body="resnet18")}
    for guided in (True, False):
        assert net(encoders=given, guided=guided, levels=(1, 3, 5))(clips(side=32)).logits.isfinite().all()


def test_presets_build_and_the_first_answer_stands_at_the_start():
    for preset in SpatioTemporalSegNet.PRESETS:
        torch.manual_seed(0)
        head = build(HEADS, Component("mvo", {"preset": preset, "encoders": encoders(), "classes": 4, "frames": 10}))
        out = head(clips(10, side=32))
        torch.testing.assert_close(out.logits, out.first)


def test_the_paper_as_written():
    with torch.device("meta"):
        options = {"preset": "mvo_paper", "encoders": encoders("resnet18"), "classes": 2, "frames": 10}
        head = build(HEADS, Component("mvo", options))
    assert all(len(fusion.query.weight) == 10 and fusion.scale is None for fusion in head.fusions)
    assert [fusion.dim for fusion in head.fusions] == [64, 64, 128, 256, 512]
    assert head.full is None
    assert not any(isinstance(m, nn.LayerNorm) for m in head.fusions.modules())
    assert [c.weight.shape[2] for c in head.reductions[0].stack if isinstance(c, nn.Conv3d)] == [5, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"static": False, "motion": False}, "static and motion"),
        ({"static": False, "frames": 1}, "single frame"),
        ({"levels": (0, 3)}, "levels are 1 to 5"),
        ({"temporal": "shared_stack", "frames": 8}, "5, 10, 15, 20, 30 frames, got 8"),
        ({"temporal": "attn_pool", "share_frames": False}, "share"),
        ({"decoder": (8, 8)}, "5 widths"),
        ({"refine_pool": 6}, "odd"),
        ({"encoders": {}}, "needs an encoder 'cine'"),
        ({"temporal": "deptwise"}, "head.temporal"),
        ({"guide": True}, "did you mean 'guided'"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        net(**options)


def test_another_number_of_frames_is_refused_by_both_numbers():
    with pytest.raises(ValueError, match=r"8 frames for a network of 5.*attn_pool"):
        net()(clips(8))
