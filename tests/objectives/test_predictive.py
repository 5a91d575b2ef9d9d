"""Latent prediction: the blocks, the slow copy, and what is scored."""

import pytest
import torch
from objective_fakes import FakeModel, make_clips
from torch import nn

from ssl4neuro.objectives import Predictive
from ssl4neuro.objectives.moving_average import MovingAverage, decay_at
from ssl4neuro.objectives.predictive import spread
from ssl4neuro.objectives.tubes import draw_blocks, keep_tokens


def bound(model: nn.Module, **options) -> Predictive:
    objective = Predictive(**options)
    objective.bind(model.encoders)
    return objective.double()


def test_blocks_lie_in_the_valid_time_and_leave_context() -> None:
    torch.manual_seed(0)
    steps = torch.tensor([0, 1, 2, 4, 4])
    valid = (torch.arange(4) < steps[:, None]).repeat_interleave(30, 1)
    for _ in range(20):
        hidden = draw_blocks((4, 5, 6), valid, 6, 0.4, 0.5, (0.67, 1.5), 0.3)
        assert not (hidden & ~valid).any()
        assert (hidden.sum(1) <= 0.7 * valid.sum(1)).all()
        assert (hidden.sum(1) > 0).tolist() == [False, True, True, True, True]
        keep = keep_tokens(hidden, valid)
        assert not hidden.gather(1, keep).any()


def test_one_block_is_a_box() -> None:
    hidden = draw_blocks((4, 6, 6), torch.ones(10, 144, dtype=torch.bool), 1, 0.25, 0.5, (1.0, 1.0), 0.1).view(10, 4, 6, 6)
    for clip in hidden:
        low, high = clip.nonzero().min(0).values, clip.nonzero().max(0).values + 1
        assert (high - low).tolist() == [2, 3, 3]
        assert clip.sum() == 18


def test_moving_average_is_the_closed_form() -> None:
    torch.manual_seed(0)
    start, networks = nn.Linear(3, 2), [nn.Linear(3, 2) for _ in range(3)]
    average = MovingAverage(start, 0.9)
    expected = start.weight.detach().clone()
    for network, progress in zip(networks, (0.0, 0.3, 0.8), strict=True):
        average.update(network, progress)
        expected = decay_at(progress, 0.9) * expected + (1 - decay_at(progress, 0.9)) * network.weight
    torch.testing.assert_close(average.copy.weight, expected)
    assert average.decay.item() == pytest.approx(decay_at(0.8, 0.9))
    average.update(networks[0], 1.0)
    torch.testing.assert_close(average.copy.weight, expected)
    assert [decay_at(p, 0.996) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.996, 0.998, 1.0])
    assert not average.train().copy.training


def test_loss_is_that_of_a_loop_and_leaves_the_target_alone() -> None:
    model, batch = FakeModel(), make_clips()
    objective = bound(model)
    objective.after_step(FakeModel(seed=4).encoders, 0.0)
    calls = []
    objective.predictor.register_forward_hook(lambda _, args, out: calls.append((args, out)))
    found = objective(model, batch)
    (_, _, hidden, _, _), predictions = calls[0]
    there = batch["present"]["cine"]
    x, valid, times = (batch[name]["cine"][there].flatten(0, 1) for name in ("inputs", "valid", "times"))
    target = objective.target.copy(x, valid, times=times).tokens
    errors = []
    for guess, truth in zip(predictions, (line for n in range(len(x)) for line in target[n][hidden[n]]), strict=True):
        truth = (truth - truth.mean()) / (truth.var(unbiased=False) + 1e-5).sqrt()
        gap = (guess - truth).abs()
        errors.append(torch.where(gap < 1, 0.5 * gap**2, gap - 0.5).mean())
    torch.testing.assert_close(found["loss"], torch.stack(errors).mean(), rtol=1e-9, atol=0)
    found["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in objective.target.parameters())


def test_hidden_pixels_never_reach_the_encoder() -> None:
    model, batch = FakeModel(), make_clips(absent=False)
    batch["valid"]["cine"][:] = True
    objective, calls = bound(model, blocks=1), []
    model.encoders["cine"].register_forward_hook(
        lambda _, args, kwargs, out: calls.append((kwargs["keep"], out.tokens)), with_kwargs=True
    )
    losses = []
    x = batch["inputs"]["cine"]
    for _ in range(2):
        torch.manual_seed(3)
        losses.append(objective(model, batch)["loss"])
        keep = calls[0][0]
        seen = torch.zeros(len(keep), 27, dtype=torch.bool).scatter(1, keep, True).view(-1, 3, 3, 3)
        for axis in (1, 2, 3):
            seen = seen.repeat_interleave(2, axis)
        seen = seen[..., :5].unsqueeze(1).view_as(x)
        batch["inputs"]["cine"] = torch.where(seen, x, x + 3)
    torch.testing.assert_close(calls[1][1], calls[0][1], rtol=0, atol=0)
    assert not torch.isclose(losses[0], losses[1], rtol=1e-3)


def test_padding_frames_do_not_count() -> None:
    model, batch = FakeModel(), make_clips()
    objective = bound(model, blocks=1, area=0.4, aspect=(1.0, 1.0))
    torch.manual_seed(2)
    expected = objective(model, batch)
    x = batch["inputs"]["cine"]
    batch["inputs"]["cine"] = torch.cat([x, torch.randn_like(x)], 3)
    batch["valid"]["cine"] = nn.functional.pad(batch["valid"]["cine"], (0, 6))
    batch["times"]["cine"] = nn.functional.pad(batch["times"]["cine"], (0, 6), value=torch.nan)
    torch.manual_seed(2)
    for term, value in objective(model, batch).items():
        torch.testing.assert_close(value, expected[term], rtol=1e-6, atol=0)


def test_target_std_tells_collapse() -> None:
    """A target that knows the position only has collapsed, though its tubelets differ."""
    tokens, valid = torch.randn(5, 7, 3), torch.rand(5, 7) > 0.3
    loop = [tokens[valid[:, t], t].var(0, unbiased=False) for t in range(7) if valid[:, t].sum() >= 2]
    torch.testing.assert_close(spread(tokens, valid), torch.stack(loop).mean().sqrt())
    model, batch = FakeModel(), make_clips()
    batch["times"]["cine"][:] = torch.nan
    assert bound(model)(model, batch)["target_std"] > 0.1
    with torch.no_grad():
        model.encoders["cine"].embed.weight.zero_()
    batch["valid"]["cine"][:] = True
    assert bound(model)(model, batch)["target_std"] < 1e-6
