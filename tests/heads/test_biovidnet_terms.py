"""The terms of BioVidNet against closed forms (methods/biovidnet.md §13, tests 1 to 4 and 6)."""

import math

import pytest
import torch

from ssl4neuro.heads.biovidnet.consistency import SignalDecoder
from ssl4neuro.heads.biovidnet.decorrelation import Decorrelation, hsic
from ssl4neuro.heads.biovidnet.frames import positions, previous_valid
from ssl4neuro.heads.biovidnet.motion import MotionReadout, change
from ssl4neuro.heads.biovidnet.observation import observation_loss
from ssl4neuro.heads.biovidnet.posterior import Latent, MarkovPrior, free_bits
from ssl4neuro.heads.biovidnet.preprocess import PreprocessConfig, preprocess, smooth_in_time, taps
from ssl4neuro.heads.biovidnet.rhythm import RhythmFit
from ssl4neuro.heads.biovidnet.smoothness import smoothness


def irregular(batch: int, frames: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.3 + torch.rand(batch, frames, generator=generator)).cumsum(1)


# --- preprocessing ----------------------------------------------------------------------------------------------------


def test_a_sequence_has_mean_zero_and_spread_one_per_channel() -> None:
    x = 5 + 3 * torch.randn(2, 8, 3, 40, 40)
    out = preprocess(x, PreprocessConfig(smooth=False, size=None))
    assert out.mean((1, 3, 4)).abs().max() < 1e-5
    assert (out.std((1, 3, 4), correction=0) - 1).abs().max() < 1e-5
    anatomy = torch.rand(1, 1, 1, 40, 40).expand(1, 8, 1, 40, 40)
    assert preprocess(anatomy, PreprocessConfig(smooth=False, size=None)).std() > 0.9  # pooled over space: it stays
    assert preprocess(anatomy, PreprocessConfig("pixel_time", smooth=False, size=None)).std() < 0.1


def test_shape_channels_and_layout() -> None:
    out = preprocess(torch.rand(2, 5, 1, 60, 50))
    assert out.shape == (2, 5, 3, 128, 128)
    assert out.is_contiguous()
    assert torch.equal(out[:, :, 0], out[:, :, 2])
    with pytest.raises(ValueError, match="2 channels"):
        preprocess(torch.rand(1, 5, 2, 32, 32))


def test_taps_and_what_the_smoothing_does_to_a_constant_to_noise_and_to_the_fastest_wave() -> None:
    assert taps() == pytest.approx((0.2928, 0.4144, 0.2928), abs=1e-4)
    constant = torch.full((1, 6, 1, 2, 2), 3.7)
    assert torch.allclose(smooth_in_time(constant), constant)
    spike = torch.zeros(1, 7, 1)
    spike[0, 3] = 1
    assert smooth_in_time(spike)[0, 2:5, 0].tolist() == pytest.approx(taps(), abs=1e-6)
    noise = smooth_in_time(torch.randn(1, 100_000, 1))
    assert noise.std().item() == pytest.approx(0.586, abs=0.01)
    fastest = torch.tensor([1.0, -1.0]).repeat(10)[None, :, None]
    assert smooth_in_time(fastest)[0, 8, 0].item() == pytest.approx(-0.171, abs=1e-3)  # its phase is turned round


def test_constants_keep_what_a_sequence_amounts_to_and_a_leak_of_twice_the_size_is_not_the_same_curve() -> None:
    leak = torch.linspace(0, 1, 10)[None, :, None, None, None].expand(1, 10, 1, 32, 32)
    fixed = PreprocessConfig("constants", mean=0.1, spread=2.0, size=None)
    assert not torch.allclose(preprocess(leak, fixed), preprocess(2 * leak, fixed))
    assert torch.allclose(
        preprocess(leak, PreprocessConfig(size=None)), preprocess(2 * leak, PreprocessConfig(size=None)), atol=1e-4
    )


def test_padding_equals_truncation_in_the_preprocessing() -> None:
    x, times = torch.rand(1, 9, 1, 32, 32), irregular(1, 9)
    valid = torch.tensor([[True] * 6 + [False] * 3])
    config = PreprocessConfig(size=None)
    padded = preprocess(x, config, valid, times, 0.8)
    short = preprocess(x[:, :6], config, None, times[:, :6], 0.8)
    assert torch.allclose(padded[:, :5], short[:, :5], atol=1e-5)
    assert padded[:, 6:].abs().max() == 0


# --- clocks -----------------------------------------------------------------------------------------------------------


def test_positions_are_in_median_intervals_and_an_unknown_time_counts_frames() -> None:
    times = torch.tensor([[10.0, 25.0, 55.0], [0.0, float("nan"), 3.0]])
    clock = positions(times, torch.ones(2, 3, dtype=torch.bool), 15.0)
    assert torch.allclose(clock, torch.tensor([[0.0, 1.0, 3.0], [0.0, 1.0, 2.0]]))
    assert previous_valid(torch.tensor([[True, False, True, True]])).tolist() == [[-1, 0, 0, 2]]


# --- decorrelation ----------------------------------------------------------------------------------------------------


def test_decorrelation_is_one_for_copies_near_zero_for_independent_parts_and_blind_to_scale() -> None:
    z = torch.randn(50, 40, 1)
    assert Decorrelation(1, 1)(torch.cat([z, z], 2)).item() == pytest.approx(1, abs=1e-4)
    both = torch.randn(50, 40, 8)
    found = Decorrelation(4, 4)(both).item()
    assert found < 3 / 2000  # O(1 / M)
    scaled = both * torch.tensor([5.0, 0.1, 3, 1, 9, 1, 0.2, 2]) + 4
    assert Decorrelation(4, 4)(scaled).item() == pytest.approx(found, abs=1e-5)


def test_few_frames_use_running_moments_and_invalid_ones_do_not_count() -> None:
    term = Decorrelation(8, 8).train()
    for _ in range(40):
        value = term(torch.randn(2, 8, 16))
    assert term.started
    assert value < 0.15  # a single batch of 16 frames would give about 1 / 16 noise and rank one structure
    z, valid = torch.randn(30, 20, 4), torch.ones(30, 20, dtype=torch.bool)
    valid[:, 15:] = False
    spoiled = z.clone()
    spoiled[:, 15:] = 1e6
    assert torch.allclose(Decorrelation(2, 2)(spoiled, valid), Decorrelation(2, 2)(z[:, :15]))


def test_hsic_sees_what_correlation_does_not() -> None:
    a = torch.randn(256, 1)
    assert Decorrelation(1, 1)(torch.cat([a, a**2], 1)[None]) < 0.05
    assert hsic(a, a**2) > 0.2
    assert hsic(a, torch.randn(256, 1)) < 0.05
    assert hsic(a, a).item() == pytest.approx(1)


# --- motion -----------------------------------------------------------------------------------------------------------


def test_change_is_per_interval_and_the_readout_does_not_reach_its_target() -> None:
    x = torch.tensor([0.0, 1.0, 4.0])[None, :, None].expand(1, 3, 5)
    clock = torch.tensor([[0.0, 1.0, 3.0]])
    assert change(x, clock, pixels=True).tolist() == [[0.0, 1.0, 1.5]]
    assert change(x, clock, pixels=False)[0, 1].item() == pytest.approx(math.sqrt(5))
    s = torch.randn(2, 6, 4, requires_grad=True)
    z = torch.randn(2, 6, 3, requires_grad=True)
    MotionReadout(3).train()(z, change(s, torch.arange(6.0).expand(2, -1), False)).backward()
    assert s.grad is None
    assert z.grad is not None
    assert z.grad.abs().sum() > 0


# --- rhythm -----------------------------------------------------------------------------------------------------------


def test_sinusoids_at_the_basis_frequencies_are_explained_at_any_phase_and_irregular_times() -> None:
    fit, clock = RhythmFit(2, waves=4, duration=40.0), irregular(3, 60)
    omega = fit.omega(clock, torch.ones(3, 60, dtype=torch.bool), None)
    phase = torch.tensor([0.3, 1.9, 4.0, 5.5])
    wave = torch.sin(omega[:, None] * clock[:, :, None] + phase).sum(2)
    found = fit(torch.stack([wave, 3 - 2 * wave], 2), clock)
    assert found.loss < 1e-3
    assert found.amplitude[0].tolist() == pytest.approx([math.sqrt(5)] * 4, rel=0.02)


def test_white_noise_is_explained_as_far_as_its_degrees_of_freedom() -> None:
    frames, fit = 60, RhythmFit(1, waves=4, duration=50.0)
    clock = torch.arange(float(frames)).expand(400, -1)
    loss = fit(torch.randn(400, frames, 1), clock).loss.item()
    assert loss == pytest.approx(1 - 8 / (frames - 1), abs=0.02)  # the mean is taken from both


def test_the_frequencies_learn_with_finite_gradients() -> None:
    clock = torch.arange(60.0).expand(4, -1)
    torch.manual_seed(0)
    fit = RhythmFit(1, waves=2, duration=50.0)
    truth = fit.omega(clock, torch.ones(4, 60, dtype=torch.bool), None)[0, 0].item() + 0.06  # within the main lobe, 2 π / 60
    wave = torch.stack([torch.sin(truth * clock[i] + i) for i in range(4)])[:, :, None]
    optimiser = torch.optim.Adam(fit.parameters(), 0.05)
    for _ in range(200):
        loss = fit(wave + 0.05 * torch.randn_like(wave), clock).loss
        optimiser.zero_grad()
        loss.backward()
        assert fit.logit is not None
        assert fit.logit.grad is not None
        assert bool(fit.logit.grad.isfinite().all())
        optimiser.step()
    omega = fit.omega(clock, torch.ones(4, 60, dtype=torch.bool), None)[0]
    assert (omega - truth).abs().min() < 0.02


def test_short_sequences_get_fewer_waves_with_a_warning_and_a_constant_is_seen_to_be_flat() -> None:
    fit = RhythmFit(2, waves=4, duration=10.0)
    with pytest.warns(UserWarning, match="fewer than 4 waves"):
        found = fit(torch.randn(3, 12, 2), torch.arange(12.0).expand(3, -1))
    assert found.loss > 0.2  # 9 columns would explain most of 12 frames
    long = RhythmFit(2, waves=2, duration=10.0)
    assert long(torch.ones(3, 40, 2), torch.arange(40.0).expand(3, -1)).flat > 0.99
    harmonic = RhythmFit(1, waves=2, duration=10.0, frequencies="harmonic")
    cycle = torch.arange(24.0)[None]
    wave = torch.cos(2 * math.pi * cycle / 24)[:, :, None]
    assert harmonic(wave, cycle).loss < 1e-3


# --- smoothness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("power", "zero"), [(0, "velocity"), (1, "acceleration"), (2, "jerk")])
def test_derivatives_vanish_on_their_polynomials_at_any_time_stamps(power: int, zero: str) -> None:
    clock = irregular(2, 20).double()
    z = torch.stack([clock**power, 3 * clock**power], 2)
    found = smoothness(z.float(), (clock).float())
    assert found[zero] < 1e-5
    cubic = smoothness((clock**3 / 6)[:, :, None].float(), clock.float())
    assert cubic["jerk"].item() == pytest.approx(1, rel=0.02)  # the third derivative of t³ / 6
    line = smoothness((2 * clock)[:, :, None].float(), clock.float())
    assert line["velocity"].item() == pytest.approx(4, rel=1e-4)


def test_masking_equals_truncation_and_short_clips_add_nothing() -> None:
    z, clock = torch.randn(2, 12, 3), irregular(2, 12)
    valid = torch.ones(2, 12, dtype=torch.bool)
    valid[:, 8:] = False
    masked, cut = smoothness(z, clock, valid), smoothness(z[:, :8], clock[:, :8])
    assert all(torch.allclose(masked[name], cut[name]) for name in cut)
    assert smoothness(z[:, :3], clock[:, :3])["jerk"] == 0
    assert smoothness(z[:, :1], clock[:, :1])["velocity"] == 0


# --- ELBO -------------------------------------------------------------------------------------------------------------


def test_the_divergence_equals_its_monte_carlo_estimate() -> None:
    torch.manual_seed(1)
    prior = MarkovPrior(1, persistence=0.8)
    mean, log_variance = torch.randn(1, 3, 1), torch.randn(1, 3, 1) - 1
    latent = Latent(mean, mean, log_variance)
    clock = torch.tensor([[0.0, 0.7, 3.0]])
    closed = prior.divergence(latent, clock)[0, :, 0]
    spread = (log_variance / 2).exp()
    sample = mean + spread * torch.randn(2_000_000, 3, 1)
    q = torch.distributions.Normal(mean[0], spread[0])
    for t in range(3):
        if t == 0:
            p = torch.distributions.Normal(torch.zeros(1), torch.ones(1))
        else:
            decay, noise = prior.step(clock[0, t] - clock[0, t - 1])
            p = torch.distributions.Normal(decay * sample[:, t - 1], noise.sqrt())
        estimate = (q.log_prob(sample)[:, t] - p.log_prob(sample[:, t])).mean()
        assert closed[t].item() == pytest.approx(estimate.item(), rel=0.01)


def test_two_steps_of_the_prior_are_one_longer_step() -> None:
    prior = MarkovPrior(2, persistence=0.9)
    (a1, q1), (a2, q2), (a, q) = (prior.step(torch.tensor(d)) for d in (0.5, 1.3, 1.8))
    assert torch.allclose(a1 * a2, a)
    assert torch.allclose(q1 * a2**2 + q2, q, rtol=1e-5)


def test_a_gap_is_bridged_and_free_bits_hold_the_floor() -> None:
    prior = MarkovPrior(1)
    latent = Latent(*(torch.randn(1, 4, 1) for _ in range(3)))
    clock, valid = torch.tensor([[0.0, 1, 2, 3]]), torch.tensor([[True, False, True, True]])
    kl = prior.divergence(latent, clock, valid)
    kept = [0, 2, 3]
    short = prior.divergence(Latent(*(t[:, kept] for t in latent)), clock[:, kept])
    assert torch.allclose(kl[:, kept], short)
    assert kl[0, 1] == 0
    assert free_bits(torch.zeros(1, 4, 1), valid).item() == pytest.approx(0.02)


def test_the_observation_is_scored_like_a_gaussian_and_beta_weighs_it_without_a_gradient() -> None:
    mean, target = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    log_variance = torch.tensor([[0.4, -1.0]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    spread = (log_variance / 2).exp()[:, :, None, None].expand_as(mean)
    expected = -torch.distributions.Normal(mean, spread).log_prob(target).mean() - 0.5 * math.log(2 * math.pi)
    assert observation_loss(mean, log_variance, target, valid, beta=0.0).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["numbers", "classes", "contrast"])
def test_a_missing_signal_is_left_out(kind: str) -> None:
    torch.manual_seed(0)
    decoder = SignalDecoder(4, 3, kind)  # type: ignore[arg-type]
    z, valid = torch.randn(2, 6, 4), torch.ones(2, 6, dtype=torch.bool)
    signal = torch.randint(0, 3, (2, 6, 1)).float() if kind == "classes" else torch.randn(2, 6, 3)
    gap = signal.clone()
    gap[:, 4:] = torch.nan
    assert decoder.loss(z, gap, valid).item() == pytest.approx(
        decoder.loss(z[:, :4], signal[:, :4], valid[:, :4]).item(), rel=1e-5
    )
