"""Fusion and projectors: missing modalities, modality dropout, building blocks."""

import pytest
import torch

from ssl4neuro.encoders import PROJECTORS, Fusion
from ssl4neuro.registry import Component, build


@pytest.fixture
def pooled():
    torch.manual_seed(0)
    return {"map": torch.randn(6, 8), "course": torch.randn(6, 5)}


def fusion(dropout=0.2) -> Fusion:
    torch.manual_seed(1)
    return Fusion({"map": 8, "course": 5}, dim=16, modality_dropout=dropout)


def test_all_present_is_a_normalised_linear_map(pooled):
    model = fusion().eval()
    expected = model.norm(model.linear(torch.cat([pooled["map"], pooled["course"]], dim=1)))
    assert torch.equal(model(pooled), expected)


def test_a_missing_modality_does_not_reach_the_output(pooled):
    model = fusion().eval()
    present = {"map": torch.ones(6, dtype=torch.bool), "course": torch.tensor([True, False, True, False, True, True])}
    out = model(pooled, present)
    other = {"map": pooled["map"], "course": torch.where(present["course"][:, None], pooled["course"], torch.nan)}
    assert torch.equal(model(other, present), out)
    assert out.isfinite().all()
    assert torch.equal(out[present["course"]], model(pooled)[present["course"]])
    assert (out[1] - model(pooled)[1]).abs().max() > 1e-3
    nothing = {m: torch.zeros(6, dtype=torch.bool) for m in pooled}
    assert torch.equal(model(pooled, nothing), model(pooled, nothing)[:1].expand(6, -1))


def test_modality_dropout_rate_and_that_one_always_stays():
    model = fusion(0.3).train()
    with torch.no_grad():  # make the output tell what was dropped
        for parameter, value in zip(model.stand_in, (10.0, 20.0), strict=True):
            parameter.fill_(value)
    seen = {}
    model.linear.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    torch.manual_seed(0)
    model({"map": torch.zeros(20_000, 8), "course": torch.zeros(20_000, 5)})
    lost_map, lost_course = seen["x"][:, 0] == 10, seen["x"][:, 8] == 20
    assert not (lost_map & lost_course).any()
    assert lost_map.float().mean() == pytest.approx(0.3 * 0.7, abs=0.015)
    assert lost_course.float().mean() == pytest.approx(0.3 * 0.7, abs=0.015)
    only = {"map": torch.ones(20_000, dtype=torch.bool), "course": torch.zeros(20_000, dtype=torch.bool)}
    model({"map": torch.zeros(20_000, 8), "course": torch.zeros(20_000, 5)}, only)
    assert (seen["x"][:, 0] == 0).all()
    assert (seen["x"][:, 8] == 20).all()
    model.eval()
    model({"map": torch.zeros(20_000, 8), "course": torch.zeros(20_000, 5)})
    assert (seen["x"] == 0).all()


def test_dropout_follows_the_seed(pooled):
    model = fusion(0.5).train()
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append(model(pooled))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_gradient_reaches_every_parameter(pooled):
    model = fusion(0.5).train()
    (model(pooled) * torch.randn(6, 16)).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_one_modality_needs_no_fusion():
    with pytest.raises(ValueError, match="two or more"):
        Fusion({"map": 8})


@pytest.mark.parametrize("preset", PROJECTORS["mlp"].PRESETS)
def test_projector_presets(preset):
    head = build(PROJECTORS, Component("mlp", {"preset": preset, "in_dim": 10}))
    out = head(torch.randn(4, 10))
    assert out.shape == (4, head.dim)
    if preset != "author":
        assert any(isinstance(m, torch.nn.LayerNorm) for m in head.modules())


def test_projector_norm_and_depth():
    torch.manual_seed(0)
    x = torch.randn(8, 10)
    for norm, mixes in (("layer", False), ("none", False), ("batch", True)):
        head = build(PROJECTORS, Component("mlp", {"in_dim": 10, "norm": norm, "layers": 3})).train()
        assert sum(isinstance(m, torch.nn.Linear) for m in head.modules()) == 3
        assert torch.allclose(head(x)[:4], head(x[:4]), atol=1e-5) != mixes
    linear = build(PROJECTORS, Component("mlp", {"in_dim": 10, "layers": 1}))
    assert torch.equal(linear(x), linear.head.layers[0](x))
