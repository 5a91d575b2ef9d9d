"""Uncertainty, class means and second thoughts against loops (methods/mvo.md §4, acceptance tests 4 and 5)."""

import math

import pytest
import torch
from torch import nn

from ssl4neuro.heads.refinement import Refinement, class_means, uncertainty


def test_uncertainty_is_one_at_a_tie_and_vanishes_with_certainty():
    p = torch.tensor([[0.5, 0.5, 0.0], [0.4, 0.2, 0.4], [1.0, 0.0, 0.0], [0.6, 0.3, 0.1]])[..., None, None]
    u = uncertainty(p).flatten()
    assert u[:2].tolist() == [1.0, 1.0]
    assert 0 < u[2] < 1e-20
    assert u[3].item() == pytest.approx(math.exp(1 - 2))


@pytest.mark.parametrize("classes", [2, 4])
def test_uncertainty_does_not_depend_on_the_order_of_classes(classes):
    p = torch.randn(3, classes, 5, 5).softmax(1)
    u = uncertainty(p)
    assert (u > 0).all()
    assert (u <= 1).all()
    torch.testing.assert_close(uncertainty(p.flip(1)), u)
    best = p.sort(1, descending=True).values
    torch.testing.assert_close(u, torch.exp(1 - best[:, :1] / best[:, 1:2]), atol=1e-6, rtol=1e-4)


def test_confident_foreground_is_as_certain_as_confident_background():
    # The authors' repository does not sort two classes: U reaches e there.
    p = torch.tensor([0.99, 0.01])[None, :, None, None]
    torch.testing.assert_close(uncertainty(p), uncertainty(p.flip(1)))
    assert uncertainty(p) < 0.01


def test_gradients_are_finite_from_certain_to_tied():
    logits = torch.tensor([[0.0, 0.0], [200.0, -200.0], [-30.0, 30.0], [0.1, 0.0], [torch.finfo().max, 0.0]])[..., None, None]
    logits.requires_grad_()
    uncertainty(logits.softmax(1)).sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[3].abs().min() > 0.01


def test_uncertainty_of_half_precision_is_float32():
    assert uncertainty(torch.rand(1, 2, 3, 3, dtype=torch.bfloat16)).dtype == torch.float32


def test_class_means_equal_plain_loops():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(2, 3, 9, 8, generator=generator).softmax(1)
    features = torch.randn(2, 4, 9, 8, generator=generator)
    out = class_means(masks, features, 7)
    for n, k, i, j in [(0, 0, 0, 0), (1, 2, 4, 4), (0, 1, 8, 7), (1, 1, 2, 6)]:
        total, mass = torch.zeros(4), 0.0
        for a in range(max(0, i - 3), min(9, i + 4)):
            for b in range(max(0, j - 3), min(8, j + 4)):
                total += masks[n, k, a, b] * features[n, :, a, b]
                mass += masks[n, k, a, b]
        torch.testing.assert_close(out[n, k, :, i, j], total / mass)


def test_a_constant_mask_gives_the_local_mean_of_the_features():
    features = torch.randn(1, 2, 11, 11)
    out = class_means(torch.full((1, 2, 11, 11), 0.3), features, 5)
    torch.testing.assert_close(out[0, 1, :, 5, 5], features[0, :, 3:8, 3:8].mean((1, 2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_class_that_is_nowhere_has_finite_means(dtype):
    masks = torch.zeros(1, 2, 8, 8, dtype=dtype)
    masks[:, 0] = 1
    masks.requires_grad_()
    out = class_means(masks, torch.randn(1, 3, 8, 8, dtype=dtype), 3)
    out.square().sum().backward()
    assert not out[:, 1].any()
    assert masks.grad.isfinite().all()


def refinement(**options) -> Refinement:
    torch.manual_seed(0)
    return Refinement(4, **{"hidden": 6, "pool": 3, **options})


def test_the_first_answer_stands_at_the_start():
    logits, features = torch.randn(2, 3, 16, 16), torch.randn(2, 4, 8, 8)
    out = refinement()(logits, features)
    assert torch.equal(out.logits, logits)
    assert not out.evidence.any()


def test_equations_five_and_six():
    layer = refinement()
    nn.init.normal_(layer.last.weight)
    nn.init.normal_(layer.last.bias)
    logits, features = torch.randn(2, 3, 16, 16), torch.randn(2, 4, 8, 8)
    out = layer(logits, features)
    probabilities = logits.softmax(1)
    full = nn.functional.interpolate(features, scale_factor=2, mode="bilinear")
    joined = nn.Conv2d(8, 6, 3, padding=1)  # the first convolution as one, of the joined map
    joined.weight.data = torch.cat([layer.pixel.weight, layer.mean.weight], 1).data
    joined.bias.data = layer.mean.bias.data
    for k in range(3):
        mask = probabilities[:, k : k + 1]
        hidden = joined(torch.cat([full, class_means(mask, full, 3)[:, 0]], 1))
        hidden = hidden + layer.residual(hidden)
        evidence = nn.functional.max_pool2d(mask, 3, 1, 1) * layer.last(hidden.relu())
        expected = logits[:, k : k + 1] + uncertainty(probabilities) * evidence
        torch.testing.assert_close(out.logits[:, k : k + 1], expected, atol=1e-5, rtol=1e-4)


def test_where_the_answer_is_sure_it_stays():
    layer = refinement()
    nn.init.normal_(layer.last.weight)
    logits = torch.randn(1, 2, 16, 16)
    logits[:, 0, :, :8] += 40
    moved = (layer(logits, torch.randn(1, 4, 8, 8)).logits - logits).abs().amax(1)[0]
    assert moved[:, :8].max() < 1e-6 < 1e-3 < moved[:, 8:].max()


def test_an_even_neighbourhood_is_refused():
    with pytest.raises(ValueError, match="odd"):
        refinement(pool=4)
