"""CABRiS against its specification (methods/cabris.md §8)."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from ssl4neuro.heads.cabris import (
    CABRiS,
    CabrisConfig,
    ConfidenceFusion,
    DomainGate,
    MonotoneSpline,
    Reference,
    WarpNetwork,
    confident_loss,
    context_consistency,
    gate_entropy,
)
from ssl4neuro.heads.cabris.warping import anchor, curvature, local_structure, normalised_time, sample_at

DIM, CONTEXT, FEATURES = 8, 6, 10


def inputs(batch: int = 5, frames: int = 20, seed: int = 0) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, frames, DIM, generator=g).cumsum(1) / 3
    clock = (0.5 + torch.rand(batch, frames, generator=g)).cumsum(1)
    valid = torch.ones(batch, frames, dtype=torch.bool)
    return z, torch.randn(batch, CONTEXT, generator=g), clock, valid, torch.randn(batch, FEATURES, generator=g)


def strategy(**switches: bool) -> CABRiS:
    torch.manual_seed(0)
    return CABRiS(DIM, CONTEXT, FEATURES, CabrisConfig(**switches))


# --- 1: near the identity at first ------------------------------------------------------------------------------------


def test_at_first_the_gate_is_open_the_warp_the_identity_and_the_fusion_mostly_its_own() -> None:
    net = strategy().train()
    z, c, clock, valid, x = inputs()
    net(z, c, clock, valid, x)  # gives reference and prototypes their first values
    net.eval()
    out = net(z, c, clock, valid, x)
    assert (out.gate - 0.8808).abs().max() < 0.01
    assert torch.allclose(out.z_gated, out.gate * z, atol=1e-6)  # the prototype is 0 until it is started
    assert (out.tau - normalised_time(clock, valid)).abs().max() < 1e-6
    assert (out.z_aligned - out.z_gated).abs().max() < 1e-4
    assert (out.confidence - 0.8808).abs().max() < 1e-3
    assert net.fusion is not None
    expected = 0.8808 * out.r + 0.1192 * net.fusion.tokens.mean(0)
    assert torch.allclose(out.f, expected, atol=1e-3)


def test_parts_that_are_off_are_the_identity() -> None:
    net = strategy(gating=False, warping=False, fusion=False).train()
    z, c, clock, valid, x = inputs()
    out = net(z, c, clock, valid, x)
    assert torch.equal(out.z_aligned, z)
    assert torch.equal(out.f, out.r)
    assert bool((out.confidence == 1).all())
    assert out.losses["loss"] == 0


def test_prototypes_start_at_the_mean() -> None:
    gate = DomainGate(DIM, CONTEXT)
    gate.start_at(torch.arange(float(DIM)))
    assert torch.allclose(
        gate(torch.zeros(2, 3, DIM), torch.randn(2, CONTEXT)).prototype, torch.arange(float(DIM)).expand(2, -1)
    )


# --- 2: monotone ------------------------------------------------------------------------------------------------------


def test_warps_rise_from_0_to_1_for_any_parameters_with_finite_gradients() -> None:
    torch.manual_seed(0)
    spline = MonotoneSpline()
    change = (torch.randn(10_000, 7) * torch.rand(10_000, 1) * 20).requires_grad_()
    u = torch.linspace(0, 1, 101).expand(10_000, -1)
    warp = spline(u, change)
    assert bool((warp.tau[:, 1:] > warp.tau[:, :-1]).all())
    assert warp.tau[:, 0].abs().max() < 1e-6
    assert (warp.tau[:, -1] - 1).abs().max() < 1e-5
    assert warp.slope.min() > 0.1 - 1e-3
    extreme = torch.tensor([[20.0, -20, 20, -20, 20, -20, 20]], requires_grad=True)
    spline(u[:1], extreme).tau.square().sum().backward()
    assert extreme.grad is not None
    assert bool(extreme.grad.isfinite().all())


def test_identity_and_slope_agree_with_finite_differences() -> None:
    spline, u = MonotoneSpline(), torch.linspace(0, 1, 33)[None].double()
    assert (spline(u, torch.zeros(1, 7).double()).tau - u).abs().max() < 1e-6
    warp = spline(u, torch.randn(1, 7).double())
    up = spline((u + 1e-3).clamp_max(1), spline_change := torch.zeros(1, 7).double()).tau
    assert (up - (u + 1e-3).clamp_max(1)).abs().max() < 1e-6
    assert spline_change.shape == (1, 7)
    slope = (warp.tau[:, 2:] - warp.tau[:, :-2]) / (u[:, 2:] - u[:, :-2])
    assert (slope - warp.slope[:, 1:-1]).abs().max() < 0.15


# --- 3: recovery ------------------------------------------------------------------------------------------------------


def test_planted_warps_are_recovered() -> None:
    torch.manual_seed(0)
    people, frames = 24, 40
    u = torch.linspace(0, 1, frames).expand(people, -1)
    planted = MonotoneSpline()
    change = 0.6 * torch.randn(people, 7)
    change = change - change.mean(0)
    truth = planted(u, change).tau
    truth = truth - (truth - u).mean(0)  # up to the anchor: the mean warp is the identity

    def curve(t: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.sin(2 * math.pi * t), torch.cos(2 * math.pi * t), torch.sin(math.pi * t), t], 2)

    z = curve(truth) + 0.03 * torch.randn(people, frames, 4)
    spline, network, reference = MonotoneSpline(), WarpNetwork(4, 7, heads=2), Reference(4, grid=64, keep=0.9)
    valid = torch.ones(people, frames, dtype=torch.bool)
    reference.update(z, u, u)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(120):
        standard = reference.standardise(z)
        tau = spline(u, network(standard, reference.at(u), valid)).tau
        loss = (sample_at(standard, u, tau) - reference.at(u)).square().mean() + 1.0 * anchor(tau, u, valid)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        reference.update(z, u, tau.detach())
    # z(τ(u)) is the reference at u, so τ undoes the planted warp
    undone = sample_at(truth[:, :, None], u, tau).squeeze(2).detach()
    shift = (undone - u).mean(0)
    assert (undone - u - shift).square().mean().sqrt() < 0.03
    before = (truth - u).square().mean().sqrt()
    assert before > 0.04


# --- 4: penalties -----------------------------------------------------------------------------------------------------


def test_curvature_is_zero_for_affine_warps_only_and_local_structure_at_the_identity() -> None:
    valid, u = torch.ones(1, 12, dtype=torch.bool), torch.linspace(0, 1, 12)[None]
    assert curvature(0.3 + 0.5 * u, valid) < 1e-9
    assert curvature(u**2, valid) > 1e-4
    z = torch.randn(1, 12, 3)
    assert local_structure(z, z, valid, "b") == 0
    assert local_structure(z, z, valid, "a") > 0
    assert local_structure(z[:, :1].expand(-1, 12, -1), z, valid, "a") == 0  # stalling is rewarded by the literal reading
    assert anchor(u, u, valid) == 0


# --- 5: confidence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [0.02, 0.1, 0.5, 2.0])
def test_the_best_confidence_is_the_formulas(loss: float) -> None:
    strength = 0.1

    def at(objective: str, g: float) -> float:
        value = confident_loss(torch.tensor([loss]).double(), torch.tensor([g]).double(), objective, strength, plain=1.0)  # type: ignore[arg-type]
        return value.item()

    for objective, expected in (("attenuated", min(1, strength / loss)), ("paper", 1 / (1 + math.exp(loss / strength)))):
        found = minimize_scalar(lambda g, o=objective: at(o, g), bounds=(1e-4, 1 - 1e-4), method="bounded").x
        assert found == pytest.approx(expected, abs=2e-3)
    assert 1 / (1 + math.exp(loss / strength)) < 0.5


def test_one_token_cannot_see_the_sequence_and_sixteen_can() -> None:
    for tokens, varies in ((1, False), (16, True)):
        torch.manual_seed(0)
        fusion = ConfidenceFusion(DIM, FEATURES, tokens)
        fusion.tokens.copy_(torch.randn(tokens, DIM))
        x = torch.randn(7, FEATURES)
        weights = (fusion.query(x) @ fusion.key(fusion.tokens).T / DIM**0.5).softmax(1)
        mixed = weights @ fusion.value(fusion.tokens)
        assert (mixed.std(0).max() > 1e-4) == varies


# --- 6: batches, missing context, short sequences ---------------------------------------------------------------------


def test_an_answer_does_not_depend_on_batch_mates_and_evaluation_moves_no_buffer() -> None:
    net = strategy().train()
    for seed in range(3):
        net(*inputs(seed=seed))
    net.eval()
    for parameter in net.warp.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    z, c, clock, valid, x = inputs(seed=9)
    before = {name: value.clone() for name, value in net.named_buffers()}
    together = net(z, c, clock, valid, x)
    for i in range(len(z)):
        alone = net(z[i : i + 1], c[i : i + 1], clock[i : i + 1], valid[i : i + 1], x[i : i + 1])
        assert torch.allclose(alone.f, together.f[i : i + 1], atol=1e-5)
        assert torch.allclose(alone.tau, together.tau[i : i + 1], atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())
    assert (together.tau - normalised_time(clock, valid)).abs().max() > 1e-3  # the warp did something


def test_single_frames_and_short_sequences_are_not_warped() -> None:
    net = strategy().train()
    net(*inputs())
    net.eval()
    for parameter in net.warp.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    z, c, clock, valid, x = inputs(frames=1)
    assert bool(net(z, c, clock, valid, x).f.isfinite().all())
    z, c, clock, valid, x = inputs(frames=20)
    valid[0, 7:] = False
    out = net(z, c, clock, valid, x)
    assert torch.equal(out.tau[0], normalised_time(clock, valid)[0])
    assert not torch.equal(out.tau[1], normalised_time(clock, valid)[1])


def test_every_term_has_a_gradient_and_consistency_and_alignment_rest_at_first() -> None:
    net = strategy().train()
    z, c, clock, valid, x = inputs()
    z.requires_grad_()
    early = net(z, c, clock, valid, x, progress=0.1)
    assert "align" not in early.losses
    net(z, c, clock, valid, x, progress=0.5)
    for parameter in net.warp.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    late = net(z, c, clock, valid, x, subject=torch.arange(5), progress=0.5)
    assert {"consistency", "gate_entropy", "align", "curvature", "local", "anchor", "loss"} == set(late.losses)
    (late.losses["loss"] + late.f.square().sum()).backward()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


# --- gating terms -----------------------------------------------------------------------------------------------------


def test_entropy_of_the_mean_gate_is_largest_when_the_dataset_uses_both() -> None:
    valid = torch.ones(4, 3, dtype=torch.bool)
    mixed = torch.cat([torch.full((2, 3, 1), 0.99), torch.full((2, 3, 1), 0.01)])
    half = torch.full((4, 3, 1), 0.5)
    assert gate_entropy(mixed, valid).item() == pytest.approx(-math.log(2), abs=1e-4)
    assert gate_entropy(mixed, valid, "per_element") > gate_entropy(half, valid, "per_element") + 0.5


def test_consistency_compares_other_subjects_of_like_context_and_unlike_labels_never() -> None:
    context = torch.tensor([[0.0], [0.01], [5.0], [5.01]])
    part = torch.tensor([0.0, 2.0, 10.0, 10.0])[:, None, None].expand(4, 3, 1)
    valid = torch.ones(4, 3, dtype=torch.bool)
    subject = torch.arange(4)
    near = context_consistency(part, context, valid, subject, quantile=0.2)
    assert near.item() == pytest.approx(2.0)  # pairs (0, 1): 4, and (2, 3): 0
    labelled = context_consistency(part, context, valid, subject, torch.tensor([0, 1, 0, 0]), quantile=0.2)
    assert labelled == 0
    assert context_consistency(part, context, valid, torch.zeros(4, dtype=torch.int64)) == 0
