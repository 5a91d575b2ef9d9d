"""The classifier of the network-state study as a module."""

import pytest
import torch
from torch import nn

from ssl4neuro.heads.network_state import IDENTITY, HeadConfig, NetworkStateHead


def test_equals_its_layers_one_after_another() -> None:
    torch.manual_seed(0)
    head = NetworkStateHead(6, hidden=5, dropout=0.3).eval()
    x = torch.randn(9, 6) * 3 + 1
    normed = (x - head.norm.running_mean) / (head.norm.running_var + head.norm.eps).sqrt()  # type: ignore[operator, union-attr]
    first, last = head.layers[0], head.layers[3]
    expected = last(nn.functional.gelu(first(normed)))[:, 0]
    torch.testing.assert_close(head(x), expected)


def test_gain_is_the_weight_behind_the_normalisation() -> None:
    gain = torch.tensor([1.0, 0.0, 0.5])
    head = NetworkStateHead(3, gain=gain).eval()
    torch.testing.assert_close(head.norm.weight.detach(), gain)
    x = torch.randn(4, 3)
    changed = x.clone()
    changed[:, 1] += 5
    torch.testing.assert_close(head(x), head(changed))  # what weighs nothing changes nothing


def test_a_shared_head_knows_the_network() -> None:
    torch.manual_seed(0)
    head = NetworkStateHead(4, networks=3).eval()
    assert head.layers[0].in_features == 4 + IDENTITY
    x = torch.randn(1, 4).expand(3, 4)
    logits = head(x, torch.arange(3))
    assert len(set(logits.tolist())) == 3
    with pytest.raises(ValueError, match="needs to know the network"):
        head(x)


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"dropout": 1.0}, {"rate": 0.0}, {"batch_size": 1}, {"ensemble": 0}])
def test_impossible_configurations_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        HeadConfig(**wrong)  # type: ignore[arg-type]
