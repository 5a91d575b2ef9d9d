"""Clock, time encoding and temporal transformer: closed forms, and attention against a loop."""

import math

import numpy as np
import pytest
import torch

from ssl4neuro.encoders.temporal import NOMINAL_INTERVAL, TemporalTransformer, clock, sinusoids
from ssl4neuro.encoders.transformer import Attention, attention_mask

NAN = float("nan")


def test_clock_of_times_interval_and_nothing():
    valid = torch.tensor(
        [[True] * 4, [True] * 4, [True, True, False, False], [True] * 4, [True, True, True, False], [False] * 4]
    )
    times = torch.tensor([[7.0, 7.1, 7.3, 7.4], [NAN] * 4, [2.0, 2.5, NAN, NAN], [1.0, NAN, 3.0, 4.0], [NAN] * 4, [NAN] * 4])
    rate = torch.tensor([0.5, 0.5, 0.5, NAN, -1.0, NAN])
    nominal = [NOMINAL_INTERVAL * i for i in range(4)]
    expected = torch.tensor([[0, 0.1, 0.3, 0.4], [0, 0.5, 1, 1.5], [0, 0.5, 0, 0], nominal, nominal, nominal])
    torch.testing.assert_close(clock(4, valid, rate, times), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(clock(4, None, rate[:2]), expected[1:2].expand(2, -1))
    torch.testing.assert_close(clock(4), torch.tensor([nominal]))


def test_a_clock_of_large_absolute_times_is_exact():
    # Seconds of the day in float32 have a resolution of 8 ms: only the difference to the first frame may enter.
    times = torch.tensor([[60000.0, 60000.5, 60001.0]])
    assert clock(3, None, None, times).tolist() == [[0.0, 0.5, 1.0]]


def test_sinusoids_equal_the_formula_and_shifts_are_rotations():
    position = torch.tensor([0.0, 0.1, 2.5, 40.0])
    out = sinusoids(position, 8, (0.5, 500.0))
    periods = np.geomspace(0.5, 500.0, 4)
    angle = 2 * math.pi * position.numpy()[:, None] / periods
    np.testing.assert_allclose(out.numpy(), np.concatenate([np.sin(angle), np.cos(angle)], axis=1), atol=1e-4)
    a, b = sinusoids(torch.tensor([1.0, 1.7]), 32, (0.5, 500.0)) @ sinusoids(torch.tensor([1.3, 2.0]), 32, (0.5, 500.0)).T
    torch.testing.assert_close(a[0], b[1], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="even"):
        sinusoids(position, 7, (0.5, 500.0))


def test_attention_equals_a_loop():
    torch.manual_seed(0)
    attention, x = Attention(8, 2), torch.randn(2, 5, 8)
    valid = torch.tensor([[True, True, False, True, False], [True] * 5])
    out = attention(x, attention_mask(valid))
    for i in range(2):
        q, k, v = attention.qkv(x[i]).chunk(3, dim=1)
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            seen = valid[i]
            weight = (q[:, h] @ k[seen][:, h].T / 2).softmax(1)
            heads.append(weight @ v[seen][:, h])
        torch.testing.assert_close(out[i], attention.out(torch.cat(heads, 1)), atol=1e-5, rtol=1e-5)
    assert attention_mask(torch.ones(2, 5, dtype=torch.bool)) is None
    assert attention_mask(torch.tensor([[False] * 3, [True] * 3])).all()  # a row of nothing must not become NaN
    with pytest.raises(ValueError, match="multiple of heads"):
        Attention(10, 4)


@pytest.fixture(scope="module")
def transformer() -> TemporalTransformer:
    torch.manual_seed(0)
    return TemporalTransformer(16, depth=2, heads=2).eval()


def test_padding_and_what_is_in_it_do_not_matter(transformer):
    x, times = torch.randn(2, 6, 16), torch.rand(2, 6).cumsum(1)
    valid = torch.arange(6) < torch.tensor([6, 3])[:, None]
    x[1, 3:], times[1, 3:] = torch.nan, torch.nan
    out = transformer(x, valid, None, times)
    torch.testing.assert_close(out[1, :3], transformer(x[1:, :3], None, None, times[1:, :3])[0], atol=1e-5, rtol=1e-5)
    assert (out[1, 3:] == 0).all()
    assert transformer(x[:, :1]).shape == (2, 1, 16)


def test_frames_in_another_order_with_their_times_give_the_same(transformer):
    x, times, order = torch.randn(2, 5, 16), torch.rand(2, 5).cumsum(1), torch.tensor([3, 0, 4, 2, 1])
    out = transformer(x, None, None, times)
    torch.testing.assert_close(transformer(x[:, order], None, None, times[:, order]), out[:, order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(transformer(x, None, None, times + 100), out, atol=1e-3, rtol=1e-3)
    assert (transformer(x, None, None, 3 * times) - out).abs().max() > 0.01


def test_an_interval_is_the_same_as_its_times(transformer):
    x = torch.randn(2, 5, 16)
    out = transformer(x, None, torch.tensor([0.04, 2.0]))
    times = torch.arange(5) * torch.tensor([[0.04], [2.0]])
    torch.testing.assert_close(out, transformer(x, None, None, times), atol=1e-5, rtol=1e-5)


def test_odd_dimensions_are_refused():
    with pytest.raises(ValueError, match="even"):
        TemporalTransformer(15)
