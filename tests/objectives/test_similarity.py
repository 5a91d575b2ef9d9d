import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from ssl4neuro.objectives.similarity import Selection, over_candidates

FUNCTIONS = {"logsumexp": torch.exp, "softplus": lambda x: (1 + x.exp()).log(), "hinge": lambda x: x.clamp_min(0) ** 2}
KINDS = tuple(FUNCTIONS)


def inputs(anchors: int = 5, candidates: int = 7, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(anchors, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    c = torch.randn(candidates, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    return a, c, scale, bias


def selection(anchors: int = 5, candidates: int = 7) -> Selection:
    """Leaves anchor 0 without any candidate; some are skipped, some hard."""
    left, right = torch.arange(anchors) % 3, torch.arange(candidates) % 3
    group_left, group_right = torch.arange(anchors).clamp_min(1) // 2, torch.ones(candidates, dtype=torch.long)
    group_right[4:] = 2
    hard = Selection(agree=((left, (right + 1) % 3),))
    skip = torch.stack([torch.arange(anchors), torch.arange(anchors).roll(1)], 1)
    return Selection(differ=((left, right),), agree=((group_left, group_right),), skip=skip, hard=hard, hard_weight=3.0)


def naive(kind: str, a, c, chosen: Selection, scale, bias) -> list[torch.Tensor]:
    """Double loop."""
    values = []
    for i in range(len(a)):
        terms = []
        for j in range(len(c)):
            if any(x[i] == y[j] for x, y in chosen.differ) or any(x[i] != y[j] for x, y in chosen.agree):
                continue
            if chosen.skip is not None and j in chosen.skip[i]:
                continue
            score = scale * torch.dot(a[i], c[j]) + bias
            if chosen.hard is not None and all(x[i] == y[j] for x, y in chosen.hard.agree):
                score = score + math.log(chosen.hard_weight)
            terms.append(FUNCTIONS[kind](score))
        total = sum(terms, torch.zeros((), dtype=torch.float64))
        values.append(total.log() if kind == "logsumexp" else total)
    return values


@pytest.mark.parametrize("chunk", [None, 1, 2, 5, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_double_loop(kind: str, chunk: int | None) -> None:
    a, c, scale, bias = inputs()
    chosen = selection()
    value, top = over_candidates(kind, a, c, chosen, scale, bias, chunk)
    expected = torch.stack(naive(kind, a, c, chosen, scale, bias))
    assert top[0] == -math.inf  # the anchor without candidates
    assert value[0] == (-math.inf if kind == "logsumexp" else 0)
    torch.testing.assert_close(value, expected)
    weights = torch.linspace(0.5, 2, 4, dtype=torch.float64)
    found = torch.autograd.grad((value[1:] * weights).sum(), (a, c, scale, bias))
    for got, want in zip(found, torch.autograd.grad((expected[1:] * weights).sum(), (a, c, scale, bias)), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: str, chunk: int | None) -> None:
    a, c, scale, bias = inputs()
    chosen = Selection(differ=((torch.arange(5) % 4, torch.arange(7) % 4),))
    assert gradcheck(lambda *x: over_candidates(kind, x[0], x[1], chosen, x[2], x[3], chunk)[0], (a, c, scale, bias))


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_an_anchor_without_candidates_has_no_gradient(kind: str, chunk: int | None) -> None:
    a, c, scale, bias = inputs()
    value, _ = over_candidates(kind, a, c, selection(), scale, bias, chunk)
    # -inf enters a loss through softplus; its gradient there is 0.
    torch.nn.functional.softplus(value).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    assert (a.grad[0] == 0).all()
    assert torch.isfinite(scale.grad)


def test_chunks_keep_no_matrix_for_the_backward_pass() -> None:
    a, c, scale, _ = inputs(40, 50)
    kept: dict[int | None, int] = {}
    for chunk in (None, 8):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x):
            over_candidates("logsumexp", a, c, Selection(), scale, chunk=chunk)
        kept[chunk] = max(sizes)
    assert kept == {None: 40 * 50, 8: 50 * 3}


def test_twice_backward_gives_the_same() -> None:
    a, c, scale, _ = inputs()
    value = over_candidates("logsumexp", a, c, Selection(), scale)[0].sum()
    first = torch.autograd.grad(value, a, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(value, a)[0], first)


@pytest.mark.parametrize("chunk", [None, 2])
def test_autocast_does_not_lower_the_precision(chunk: int | None) -> None:
    a, c, scale, _ = (x.detach() for x in inputs())
    half = [x.bfloat16().requires_grad_() for x in (a, c)]
    full = [x.detach().float().requires_grad_() for x in half]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under, _ = over_candidates("logsumexp", *half, Selection(), scale.float(), chunk=chunk)
        under.sum().backward()
    plain, _ = over_candidates("logsumexp", *full, Selection(), scale.float(), chunk=chunk)
    plain.sum().backward()
    assert under.dtype == torch.float32
    torch.testing.assert_close(under, plain, rtol=0, atol=0)
    torch.testing.assert_close(half[0].grad, full[0].grad.bfloat16(), rtol=0, atol=0)


def test_large_scores_do_not_overflow() -> None:
    a = torch.tensor([[1.0, 0.0]])
    c = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    value, top = over_candidates("logsumexp", a, c, Selection(), torch.tensor(1e4))
    assert value.item() == top.item() == 1e4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 12), st.integers(1, 13))
def test_any_chunk_gives_the_plain_numbers(seed: int, anchors: int, candidates: int, chunk: int) -> None:
    a, c, scale, bias = inputs(anchors, candidates, seed)
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 3, (anchors,), generator=generator), torch.randint(0, 3, (candidates,), generator=generator)
    chosen = Selection(differ=(codes,))
    results = []
    for size in (None, chunk):
        value, top = over_candidates("logsumexp", a, c, chosen, scale, bias, size)
        loss = torch.nn.functional.softplus(value).sum()
        results.append((value, top, *torch.autograd.grad(loss, (a, c, scale, bias))))
    for plain, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, plain, rtol=1e-10, atol=1e-12)
