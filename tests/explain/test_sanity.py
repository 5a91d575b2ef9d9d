"""The check against random weights: new weights everywhere, the same for the same seed, and Spearman's correlation."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from ssl4neuro.encoders import ENCODERS
from ssl4neuro.explain import rank_correlation, reinitialise
from ssl4neuro.registry import Component, build


@pytest.mark.parametrize("name", ENCODERS)
def test_every_random_weight_of_every_encoder_is_drawn_anew(name: str) -> None:
    torch.manual_seed(0)
    encoder = build(ENCODERS, Component(name, {"preset": "tiny"}))
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    state = torch.random.get_rng_state()
    fresh, again = reinitialise(encoder, 3), reinitialise(encoder, 3)
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers were touched"
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items()), "the original was altered"
    parameters = dict(fresh.named_parameters())
    for key, value in parameters.items():
        assert torch.equal(value, dict(again.named_parameters())[key]), key
        if value.ndim > 1:
            assert not torch.allclose(value, before[key]), f"{key} kept its weights"
            assert value.isfinite().all()
            assert float(value.detach().std()) < 10, key


def test_depth_draws_from_the_top() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(4)])
    half = reinitialise(network, 1, depth=0.5)
    same = [torch.equal(a.weight, b.weight) for a, b in zip(network, half, strict=True)]
    assert same == [True, True, False, False]
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), reinitialise(network, 1, 0.0).parameters(), strict=True))


def test_rank_correlation_is_spearmans_with_ties_and_gaps() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (5, 40)).astype(float), rng.normal(size=(5, 40))
    b[:, ::7] = np.nan
    for found, x, y in zip(rank_correlation(a, b), a, b, strict=True):
        fine = np.isfinite(y)
        assert found == pytest.approx(spearmanr(x[fine], y[fine]).statistic)
    assert np.isnan(rank_correlation(np.ones((1, 9)), b[:1, :9])).all()
