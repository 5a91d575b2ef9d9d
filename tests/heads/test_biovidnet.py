"""BioVidNet as a whole: attention, causality, streaming, context (methods/biovidnet.md §13, tests 5 and 7)."""

import pytest
import torch
import torch.nn.functional as F

from ssl4neuro.encoders.frame import FrameEncoder
from ssl4neuro.errors import UserError
from ssl4neuro.heads.biovidnet import (
    PRESETS,
    UNSUPERVISED,
    BioVidNet,
    BioVidNetConfig,
    ContextEncoder,
    LossWeights,
    SequenceHead,
    TrajectoryLosses,
)
from ssl4neuro.heads.biovidnet.modulated_attention import CausalEncoder, ModulatedAttention


def network(**options: object) -> BioVidNet:
    torch.manual_seed(0)
    encoder = FrameEncoder(**{**FrameEncoder.PRESETS["tiny"], "in_channels": 3})
    config = BioVidNetConfig(**{**PRESETS["tiny"], **options})  # type: ignore[arg-type]
    return BioVidNet(encoder, encoder.widths, config, numbers=2, categories=(3,), median=0.5).eval()


@pytest.mark.parametrize("modulation", ["additive", "film"])
def test_attention_is_the_ordinary_one_at_initialisation_and_the_context_moves_it_later(modulation: str) -> None:
    torch.manual_seed(0)
    layer = ModulatedAttention(16, 4, 8, modulation)  # type: ignore[arg-type]
    x, c = torch.randn(2, 7, 16), torch.randn(2, 8)
    q, k, v = (f(x).unflatten(2, (4, 4)).transpose(1, 2) for f in (layer.query, layer.key, layer.value))
    plain = layer.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    assert torch.allclose(layer(x, c)[0], plain, atol=1e-6)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    assert not torch.allclose(layer(x, c)[0], layer(x, torch.randn(2, 8))[0], atol=1e-3)


def test_no_frame_sees_the_future() -> None:
    torch.manual_seed(0)
    encoder = CausalEncoder(16, 2, 4, 8).eval()
    s, clock, context = torch.randn(1, 9, 16), torch.arange(9.0)[None], torch.randn(1, 8)
    valid = torch.ones(1, 9, dtype=torch.bool)
    changed = s.clone()
    changed[:, 5:] += torch.randn(1, 4, 16)
    before, after = encoder(s, clock, context, valid), encoder(changed, clock, context, valid)
    assert (before[:, :5] - after[:, :5]).abs().max() < 1e-6
    assert (before[:, 5:] - after[:, 5:]).abs().max() > 1e-2
    both = CausalEncoder(16, 2, 4, 8, causal=False).eval()
    assert (both(s, clock, context, valid)[:, :5] - both(changed, clock, context, valid)[:, :5]).abs().max() > 1e-3


def test_the_whole_network_is_causal_and_padding_changes_nothing() -> None:
    net, x, times = (
        network(),
        torch.randn(2, 8, 3, 64, 64),
        torch.tensor([0.0, 0.4, 1.0, 1.4, 2.1, 2.5, 3.0, 3.6]).expand(2, -1),
    )
    with torch.no_grad():
        whole = net(x, None, times)
        changed = x.clone()
        changed[:, 5:] = 0
        assert (net(changed, None, times).z[:, :5] - whole.z[:, :5]).abs().max() < 1e-5
        valid = torch.ones(2, 8, dtype=torch.bool)
        valid[:, 6:] = False
        padded = net(x, valid, times)
    assert (padded.z[:, :6] - whole.z[:, :6]).abs().max() < 1e-5
    assert padded.z[:, 6:].abs().max() == 0


def test_a_stream_gives_the_trajectory_of_the_whole_clip() -> None:
    net, x = network(), torch.randn(2, 6, 3, 64, 64)
    times = torch.tensor([0.0, 0.4, 1.0, 1.4, 2.1, 2.5]).expand(2, -1)
    numbers, categories = torch.tensor([[40.0, 1.0], [torch.nan, 2.0]]), torch.tensor([[1], [-1]])
    with torch.no_grad():
        whole = net(x, None, times, numbers, categories)
        stream = net.start(2, numbers, categories)
        for t in range(6):
            mean, log_variance, stream = net.step(x[:, t], stream, times[:, t])
            assert torch.allclose(mean, whole.mean[:, t], atol=1e-5)
            assert torch.allclose(log_variance, whole.log_variance[:, t], atol=1e-5)
    still = network(causal=False)
    with pytest.raises(ValueError, match="causal"):
        still.step(x[:, 0], still.start(2))


def test_gates_are_equal_at_first_and_sum_to_one() -> None:
    net = network()
    with torch.no_grad():
        found = net(torch.randn(1, 4, 3, 64, 64))
        assert torch.allclose(found.gates, torch.full_like(found.gates, 1 / 3))
        for parameter in net.fusion.gate.parameters():
            torch.nn.init.normal_(parameter)
        gates = net(torch.randn(1, 4, 3, 64, 64)).gates
    assert torch.allclose(gates.sum(2), torch.ones_like(gates[:, :, 0]))
    assert gates.std() > 0.01


def test_no_context_is_the_null_vector_and_unknown_values_are_allowed() -> None:
    torch.manual_seed(0)
    encoder = ContextEncoder(2, (3,), 8).eval()
    assert torch.equal(encoder(2), encoder.nothing.expand(2, -1))
    numbers = torch.tensor([[20.0, 1.0], [40.0, torch.nan], [60.0, 3.0]])
    encoder.fit(numbers)
    assert encoder.mean.tolist() == [40.0, 2.0]
    found = encoder(3, numbers, torch.tensor([[0], [-1], [7]]))
    assert bool(found.isfinite().all())
    assert not torch.allclose(found[0], found[1])
    with pytest.raises(UserError, match="number 2 is missing"):
        encoder.fit(torch.tensor([[1.0, torch.nan]]))
    dropping = ContextEncoder(2, (3,), 8, dropout=1.0).train()
    assert torch.equal(dropping(3, numbers, torch.zeros(3, 1, dtype=torch.int64)), dropping.nothing.expand(3, -1))
    net = network()
    with torch.no_grad():
        x = torch.randn(1, 4, 3, 64, 64)
        assert torch.equal(net(x).z, net(x, numbers=None, categories=None).z)


@pytest.mark.parametrize("weights", [LossWeights(signal=0.1), UNSUPERVISED])
def test_every_term_trains_the_network_and_is_logged(weights: LossWeights) -> None:
    net = network(deterministic=weights.elbo == 0).train()
    losses = TrajectoryLosses(net.config, weights, signals=1).train()
    x = torch.randn(2, 24, 3, 64, 64)
    out = losses(net(x), x, torch.rand(2, 24, 1) if weights.signal else None, progress=1.0)
    out["loss"].backward()
    expected = {"decorrelation", "motion", "rhythm"} | ({"elbo"} if weights.elbo else {"velocity", "jerk", "signal"})
    assert expected <= set(out)
    gradient = net.encoder.body.conv1.weight.grad
    assert gradient is not None
    assert bool(gradient.isfinite().all())
    assert gradient.abs().sum() > 0


def test_weights_rise_and_the_elbo_excludes_the_velocity() -> None:
    net, x = network(), torch.randn(1, 24, 3, 64, 64)
    losses = TrajectoryLosses(net.config, LossWeights()).eval()
    with torch.no_grad():
        found = net(x)
        assert losses(found, x, progress=0.0)["loss"] == 0
        half, full = (losses(found, x, progress=p)["loss"] for p in (0.05, 1.0))
    assert torch.allclose(2 * half, full)
    with pytest.raises(ValueError, match="velocity"):
        LossWeights(elbo=1.0)


def test_the_answer_does_not_depend_on_padding() -> None:
    torch.manual_seed(0)
    head, z = SequenceHead(16, 3).eval(), torch.randn(2, 9, 16)
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[:, 6:] = False
    assert torch.allclose(head(z, valid), head(z[:, :6]), atol=1e-6)
