import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import NTXentLoss
from objective_fakes import FakeModel, make_batch, take
from torch.nn.functional import normalize

from ssl4neuro.objectives import SupCon
from ssl4neuro.objectives.supcon import sup_con


def samples(model: FakeModel, batch: dict, on: str, labels: tuple[str, ...]) -> tuple[torch.Tensor, list[tuple[int, ...]]]:
    """Vectors of all views of the labelled rows that have the modality, and their labels."""
    u, kappa = [], []
    projected = normalize(model.project(batch, on), dim=-1)
    for i in range(len(projected)):
        label = tuple(int(batch["targets"][name][i]) for name in labels)
        if min(label) < 0 or (on != "joint" and not batch["present"][on][i]):
            continue
        for v in range(projected.shape[1]):
            u.append(projected[i, v])
            kappa.append(label)
    return torch.stack(u), kappa


def naive(u: torch.Tensor, kappa: list, tau: float, hard_weight: float = 1.0) -> torch.Tensor:
    """O1 as `methods/network_state.md` writes it; the first label is the network."""
    total = torch.zeros((), dtype=u.dtype)
    for i in range(len(u)):
        positives = [j for j in range(len(u)) if j != i and kappa[j] == kappa[i]]
        denominator = torch.zeros((), dtype=u.dtype)
        for a in range(len(u)):
            if a != i:
                hard = kappa[a][0] == kappa[i][0] and kappa[a] != kappa[i]
                denominator = denominator + (hard_weight if hard else 1.0) * (torch.dot(u[i], u[a]) / tau).exp()
        for j in positives:
            total = total - ((torch.dot(u[i], u[j]) / tau).exp() / denominator).log() / len(positives)
    return total / len(u)


def naive_margin(u: torch.Tensor, kappa: list, margin: float) -> torch.Tensor:
    pairs = [(i, j) for i in range(len(u)) for j in range(len(u)) if kappa[i][0] == kappa[j][0] and kappa[i] != kappa[j]]
    values = [(margin - (1 - torch.dot(u[i], u[j]))).clamp_min(0) ** 2 for i, j in pairs]
    return torch.stack(values).mean()


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("on", ["joint", "course"])
def test_equals_double_loop(on: str, chunk: int | None) -> None:
    model, batch = FakeModel(), make_batch(subjects=3)
    loss = SupCon(on, temperature=0.2, chunk=chunk)(model, batch)["loss"]
    expected = naive(*samples(model, batch, on, ("network", "state")), 0.2)
    torch.testing.assert_close(loss, expected)
    parameters = list(model.layers["course"].parameters())
    for got, want in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("chunk", [None, 5])
def test_refinements_equal_double_loops(chunk: int | None) -> None:
    model, batch = FakeModel(), make_batch(subjects=3)
    objective = SupCon(coarse=("network",), hard_negative_weight=2.0, margin=1.2, margin_weight=0.7, chunk=chunk)
    found = objective(model, batch)
    u, kappa = samples(model, batch, "joint", ("network", "state"))
    fine, margin = naive(u, kappa, 0.1, hard_weight=2.0), naive_margin(u, kappa, 1.2)
    coarse = naive(*samples(model, batch, "joint", ("network",)), 0.1)
    torch.testing.assert_close(found["fine"], fine)
    torch.testing.assert_close(found["coarse"], coarse)
    torch.testing.assert_close(found["margin"], margin)
    expected = fine + 0.3 * coarse + 0.7 * margin
    torch.testing.assert_close(found["loss"], expected)
    parameters = list(model.layers["map"].parameters())
    for got, want in zip(
        torch.autograd.grad(found["loss"], parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_a_class_with_one_member_contributes_nothing() -> None:
    u = normalize(torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1)
    values = sup_con(u, torch.tensor([0, 1, 0, 2, 2]), torch.tensor(10.0, dtype=torch.float64))
    assert values[1] == 0
    assert (values[[0, 2, 3, 4]] > 0).all()


def test_one_class_per_row_is_simclr() -> None:
    """With two views and every row a class of its own, O1 is NT-Xent."""
    model, batch = FakeModel(), make_batch(absent=False)
    batch["targets"]["row"] = torch.arange(len(batch["row"]))
    x = model.project(batch, "map")
    found = SupCon("map", labels=("row",), temperature=0.3)(model, batch)["loss"]
    torch.testing.assert_close(found, NTXentLoss(temperature=0.3)(x[:, 0], x[:, 1]))


def test_missing_labels_take_no_part() -> None:
    model, batch = FakeModel(), make_batch()
    rest = take(batch, torch.nonzero((batch["targets"]["state"] >= 0) & (batch["targets"]["network"] >= 0)).flatten())
    found, expected = SupCon()(model, batch), SupCon()(model, rest)
    torch.testing.assert_close(found["loss"], expected["loss"])
    assert found["anchors"] == expected["anchors"] == 2 * len(rest["row"])


@pytest.mark.parametrize("options", [{}, {"coarse": ("network",), "margin": 0.5, "hard_negative_weight": 2.0}])
@pytest.mark.parametrize("rows", [[], [0], [0, 4]])
def test_nothing_to_pull_together_is_zero_with_a_finite_gradient(rows: list[int], options: dict) -> None:
    """No labelled row, one, and two of different networks and states."""
    model, batch = FakeModel(), make_batch(views=1, absent=False)
    for row in range(len(batch["row"])):
        if row not in rows:
            batch["targets"]["state"][row] = batch["targets"]["network"][row] = -1
    for row in rows:
        batch["targets"]["network"][row] = row
    found = SupCon(**options)(model, batch)
    found["loss"].backward()
    assert found["loss"] == 0
    assert found["anchors"] == 0
    assert all((p.grad == 0).all() for p in model.layers.parameters())


def test_equal_vectors_of_two_classes_give_the_closed_form() -> None:
    """n samples in two classes, all vectors equal: every log ratio is -log(n - 1)."""
    u = normalize(torch.ones(6, 3, dtype=torch.float64), dim=-1)
    values = sup_con(u, torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor(10.0, dtype=torch.float64))
    torch.testing.assert_close(values, torch.full((6,), math.log(5), dtype=torch.float64))


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(16)))
def test_order_of_the_batch_does_not_matter(order: list[int]) -> None:
    model, batch = FakeModel(), make_batch(subjects=2)
    objective = SupCon(coarse=("network",), margin=0.9)
    torch.testing.assert_close(objective(model, take(batch, order))["loss"], objective(model, batch)["loss"])


@settings(max_examples=20, deadline=None)
@given(st.floats(1.1, 10.0), st.floats(1.1, 3.0))
def test_heavier_hard_negatives_cost_more(weight: float, factor: float) -> None:
    model, batch = FakeModel(), make_batch()
    light, heavy = (SupCon(hard_negative_weight=w)(model, batch)["loss"] for w in (weight, weight * factor))
    assert light < heavy


@pytest.mark.parametrize(
    "options",
    [
        {"labels": ()},
        {"coarse": ("site",)},
        {"labels": ("state",), "margin": 0.5},
        {"hard_negative_weight": 0.0},
        {"chunk": -1},
    ],
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError):
        SupCon(**options)


def test_a_missing_label_column_is_named() -> None:
    with pytest.raises(ValueError, match="'site'"):
        SupCon(labels=("site",))(FakeModel(), make_batch())
