"""The loss against closed forms (methods/mvo.md §5, acceptance test 6)."""

import pytest
import torch
from torch import nn

from ssl4neuro.heads import LossConfig, SegmentationLoss, Segmented
from ssl4neuro.heads.refinement import uncertainty
from ssl4neuro.heads.segmentation_loss import root_mean_square


def answer(logits: torch.Tensor, first: torch.Tensor | None = None) -> Segmented:
    probabilities = logits.softmax(1)
    return Segmented(logits, probabilities, uncertainty(probabilities), first)


def sample(classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, classes, 7, 6, generator=generator)
    return logits, torch.randint(classes, (4, 7, 6), generator=generator)


def soft_dice(p: torch.Tensor, truth: torch.Tensor, smooth: float) -> torch.Tensor:
    return (2 * (p * truth).sum() + smooth) / (p.sum() + truth.sum() + smooth)


def test_dice_of_a_batch_and_of_each_picture():
    logits, target = sample()
    p = logits.softmax(1)
    over_batch = [1 - soft_dice(p[:, k], (target == k).float(), 1.0) for k in (1, 2)]
    terms = SegmentationLoss(3)(answer(logits), target)
    torch.testing.assert_close(terms["dice"], torch.stack(over_batch).mean())
    each = [1 - soft_dice(p[n, k], (target[n] == k).float(), 1.0) for k in (1, 2) for n in range(4)]
    terms = SegmentationLoss(3, LossConfig(batch=False))(answer(logits), target)
    torch.testing.assert_close(terms["dice"], torch.stack(each).mean())


def test_classes_that_no_mask_shows_count_or_not():
    logits, target = sample()
    target[target == 2] = 0
    p = logits.softmax(1)
    shown = 1 - soft_dice(p[:, 1], (target == 1).float(), 0.0)
    terms = SegmentationLoss(3, LossConfig.paper())(answer(logits), target)
    torch.testing.assert_close(terms["dice"], shown / 2)  # the other contributes 0
    empty = 1 - 1 / (p[:, 2].sum() + 1)
    counted = 1 - soft_dice(p[:, 1], (target == 1).float(), 1.0)
    torch.testing.assert_close(SegmentationLoss(3)(answer(logits), target)["dice"], (counted + empty) / 2)


@pytest.mark.parametrize("config", [LossConfig(), LossConfig(batch=False, background=True, focal_gamma=2.0)])
def test_a_perfect_answer_costs_next_to_nothing(config):
    _, target = sample()
    logits = 50 * nn.functional.one_hot(target, 3).movedim(3, 1).float()
    terms = SegmentationLoss(3, config)(answer(logits, logits), target)
    assert terms["loss"] < 1e-4


def test_uncertainty_is_a_root_mean_square_whatever_the_size():
    for size in ((4, 4), (50, 30)):
        assert root_mean_square(torch.full((2, 1, *size), 0.3)).item() == pytest.approx(0.3)
    u = torch.rand(3, 1, 5, 5)
    torch.testing.assert_close(root_mean_square(u), u.square().mean((1, 2, 3)).sqrt().mean())
    known = torch.rand(3, 5, 5) > 0.3
    by_hand = torch.stack([u[n, 0][known[n]].square().mean().sqrt() for n in range(3)]).mean()
    torch.testing.assert_close(root_mean_square(u, known), by_hand)


def test_no_uncertainty_has_a_finite_gradient():
    u = torch.zeros(1, 1, 4, 4, requires_grad=True)
    root_mean_square(u).backward()
    assert u.grad.isfinite().all()


def test_cross_entropy_with_weights_and_focus():
    logits, target = sample()
    weights = (0.5, 1.0, 4.0)
    config = LossConfig(class_weights=weights, focal_gamma=2.0)
    p = logits.softmax(1).gather(1, target[:, None])[:, 0]
    by_hand = (torch.tensor(weights)[target] * (1 - p) ** 2 * -p.log()).mean()
    torch.testing.assert_close(SegmentationLoss(3, config)(answer(logits), target)["cross_entropy"], by_hand)
    plain = SegmentationLoss(3)(answer(logits), target)["cross_entropy"]
    torch.testing.assert_close(plain, nn.functional.cross_entropy(logits, target))


def test_the_sum_of_the_terms():
    logits, target = sample()
    first, _ = sample(seed=5)
    config = LossConfig(alpha=0.8, cross_entropy=0.3, first=0.25)
    terms = SegmentationLoss(3, config)(answer(logits, first), target)
    alone = SegmentationLoss(3, config)(answer(first), target)
    expected = 0.8 * terms["dice"] + 0.2 * terms["uncertainty"] + 0.3 * terms["cross_entropy"]
    deep = 0.8 * alone["dice"] + 0.3 * alone["cross_entropy"]
    torch.testing.assert_close(terms["loss"], expected + 0.25 * deep)
    assert set(terms) == {"loss", "dice", "uncertainty", "cross_entropy", "first"}
    paper = SegmentationLoss(3, LossConfig.paper())(answer(logits, first), target)
    torch.testing.assert_close(paper["loss"], 0.95 * paper["dice"] + 0.05 * paper["uncertainty"])


@pytest.mark.parametrize("batch", [True, False])
def test_pixels_that_nobody_judged_count_nowhere(batch):
    logits, target = sample()
    logits.requires_grad_()
    target[:, :, 3:] = -1
    loss = SegmentationLoss(3, LossConfig(batch=batch, class_weights=(1.0, 2.0, 3.0)))
    terms = loss(answer(logits, logits), target)
    cut = loss(answer(logits[..., :3], logits[..., :3]), target[..., :3])
    for name in terms:
        torch.testing.assert_close(terms[name], cut[name])
    terms["loss"].backward()
    assert not logits.grad[..., 3:].any()
    assert logits.grad[..., :3].any()


def test_masks_without_any_judged_pixel_are_finite():
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)
    terms = SegmentationLoss(2)(answer(logits, logits), torch.full((2, 4, 4), -1))
    terms["loss"].backward()
    assert terms["loss"].isfinite()
    assert logits.grad.isfinite().all()


def test_an_empty_mask_has_a_gradient_against_false_positives():
    logits = torch.zeros(2, 2, 16, 16, requires_grad=True)
    SegmentationLoss(2)(answer(logits), torch.zeros(2, 16, 16, dtype=torch.int64))["loss"].backward()
    assert (logits.grad[:, 1] > 1e-5).all()  # downhill is less lesion
    quiet = torch.zeros(2, 2, 16, 16, requires_grad=True)
    config = LossConfig(smooth=0.0, absent=False, cross_entropy=0.0, alpha=1.0)
    SegmentationLoss(2, config)(answer(quiet), torch.zeros(2, 16, 16, dtype=torch.int64))["loss"].backward()
    assert not quiet.grad.any()  # which the paper's Dice alone has not


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="alpha"):
        LossConfig(alpha=1.5)
    with pytest.raises(ValueError, match="negative"):
        LossConfig(first=-0.1)
    with pytest.raises(ValueError, match="3 classes with the background, got 2 weights"):
        SegmentationLoss(3, LossConfig(class_weights=(1.0, 2.0)))
