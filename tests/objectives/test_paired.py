import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_fakes import FakeModel, make_batch, take
from torch.nn.functional import cross_entropy, normalize

from ssl4neuro.objectives import OBJECTIVES, NoNegatives, PairedInfoNCE
from ssl4neuro.objectives.paired import paired_info_nce
from ssl4neuro.registry import Component, build

LEVELS = {"state": ("post", "pre"), "network": ("motor", "vision")}
PRE, POST = 1, 0


def cells(model: FakeModel, batch: dict, on: str, view: int) -> tuple[list, list, list]:
    """Mean vectors of pre and post of each (subject, network) that has both, by plain loops."""
    u = normalize(model.project(batch, on), dim=-1)[:, view]
    found: dict[tuple[int, int], dict[int, list]] = {}
    for i in range(len(u)):
        state, network = int(batch["targets"]["state"][i]), int(batch["targets"]["network"][i])
        if min(state, network) >= 0 and (on == "joint" or batch["present"][on][i]):
            found.setdefault((int(batch["subject"][i]), network), {}).setdefault(state, []).append(u[i])
    keys = [key for key, states in found.items() if len(states) == 2]
    mean = [[normalize(torch.stack(found[key][s]).mean(0), dim=0) for key in keys] for s in (PRE, POST)]
    return keys, *mean


def naive(keys, anchors, partners, tau, same_subject, same_network, in_view) -> list[torch.Tensor]:
    """One loss per anchor."""
    losses = []
    for i in range(len(keys)):
        positive = (torch.dot(anchors[i], partners[i]) / tau).exp()
        denominator = positive
        for j in range(len(keys)):
            if j == i or (keys[i][0] == keys[j][0] and not same_subject) or (keys[i][1] == keys[j][1] and not same_network):
                continue
            denominator = denominator + (torch.dot(anchors[i], partners[j]) / tau).exp()
            if in_view:
                denominator = denominator + (torch.dot(anchors[i], anchors[j]) / tau).exp()
        losses.append(-(positive / denominator).log())
    return losses


@pytest.mark.parametrize("in_view", [False, True])
@pytest.mark.parametrize(("same_subject", "same_network"), [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("direction", ["symmetric", "pre_to_post"])
@pytest.mark.parametrize("on", ["joint", "course"])
def test_equals_double_loop(on: str, direction: str, same_subject: bool, same_network: bool, in_view: bool) -> None:
    model, batch = FakeModel(), make_batch(subjects=3)
    options = {"same_subject": same_subject, "same_network": same_network, "in_view": in_view}
    objective = PairedInfoNCE(on, temperature=0.3, direction=direction, **options)
    objective.set_levels(LEVELS)
    losses = []
    for view in range(2):
        keys, pre, post = cells(model, batch, on, view)
        losses += naive(keys, pre, post, 0.3, **options)
        losses += naive(keys, post, pre, 0.3, **options) if direction == "symmetric" else []
    expected = torch.stack(losses).mean()
    found = objective(model, batch)
    torch.testing.assert_close(found["loss"], expected)
    assert found["pairs"] == len(keys)
    parameters = list(model.layers["course"].parameters())
    for got, want in zip(
        torch.autograd.grad(found["loss"], parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(got, want)


def random_pairs(count: int, dim: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = (normalize(torch.randn(count, dim, generator=generator, dtype=torch.float64), dim=-1) for _ in range(2))
    return first, second, torch.arange(count)


def test_symmetric_is_cross_entropy_of_the_matrix_and_its_transpose() -> None:
    first, second, number = random_pairs(9, 4)
    loss, accuracy, count = paired_info_nce(
        first, second, number, number, torch.tensor(20.0, dtype=torch.float64), same_subject=True
    )
    scores = first @ second.T * 20
    torch.testing.assert_close(loss, (cross_entropy(scores, number) + cross_entropy(scores.T, number)) / 2)
    assert count == 9
    assert accuracy == torch.cat([scores.argmax(0) == number, scores.argmax(1) == number]).double().mean()


def test_random_embeddings_give_log_n() -> None:
    """In high dimension all similarities are near 0, so every one of N candidates is as likely: log N."""
    first, second, number = random_pairs(1000, 4096)
    loss, _, _ = paired_info_nce(first, second, number, number, torch.tensor(1 / 0.5, dtype=torch.float64))
    assert loss.item() == pytest.approx(math.log(1000), abs=0.01)


def test_author_preset() -> None:
    objective = build(OBJECTIVES, Component("paired", {"preset": "author_repo"}))
    objective.set_levels(LEVELS)
    model, batch = FakeModel(), make_batch(views=1)
    keys, pre, post = cells(model, batch, "joint", 0)
    scores = torch.stack(pre) @ torch.stack(post).T / 0.05
    torch.testing.assert_close(objective(model, batch)["loss"], cross_entropy(scores, torch.arange(len(keys))))
    assert not torch.isclose(objective(model, batch)["loss"], cross_entropy(scores.T, torch.arange(len(keys))))


def test_the_direction_needs_to_know_the_order_of_the_states() -> None:
    with pytest.raises(ValueError, match="earlier"):
        PairedInfoNCE(direction="pre_to_post")(FakeModel(), make_batch())


def test_states_are_found_by_name() -> None:
    objective = PairedInfoNCE()
    model, batch = FakeModel(), make_batch()
    expected = objective(model, batch)["loss"]
    batch["targets"]["state"] = torch.where(batch["targets"]["state"] < 0, -1, 2 * batch["targets"]["state"] + 1)
    batch["targets"]["state"][-1] = 0  # a third state, in nobody's pair
    with pytest.raises(ValueError, match="more than two states"):
        objective(model, batch)
    objective.set_levels({"state": ("interim", "post", "?", "pre"), "network": ("a", "b")})
    assert not torch.isclose(objective(model, batch)["loss"], expected)
    batch["targets"]["state"][-1] = 1
    torch.testing.assert_close(objective(model, batch)["loss"], expected)


def test_unknown_states_are_refused() -> None:
    with pytest.raises(ValueError, match="on, off, idle, not pre and post"):
        PairedInfoNCE().set_levels({"state": ("on", "off", "idle")})
    with pytest.raises(ValueError, match="on, off, not pre and post"):
        PairedInfoNCE(direction="pre_to_post").set_levels({"state": ("on", "off")})
    PairedInfoNCE().set_levels({"state": ("on", "off")})  # two states, symmetric: the order does not matter


@pytest.mark.parametrize("state", [PRE, POST, -1])
def test_without_a_pair_the_loss_is_zero_with_a_finite_gradient(state: int) -> None:
    model, batch = FakeModel(), make_batch()
    batch["targets"]["state"][:] = state
    found = PairedInfoNCE(learn_temperature=True)(model, batch)
    found["loss"].backward()
    assert found["loss"] == found["pairs"] == found["accuracy"] == 0
    assert all((p.grad == 0).all() for p in model.layers.parameters())


def test_one_subject_is_refused_unless_its_networks_are_negatives() -> None:
    model, batch = FakeModel(), make_batch(subjects=1, absent=False)
    with pytest.raises(NoNegatives) as caught:
        PairedInfoNCE()(model, batch)
    assert caught.value.rows == tuple(sorted(batch["row"].tolist()))
    assert PairedInfoNCE(same_subject=True)(model, batch)["loss"] > 0


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(32)))
def test_order_of_the_batch_does_not_matter(order: list[int]) -> None:
    model, batch = FakeModel(), make_batch()
    torch.testing.assert_close(PairedInfoNCE()(model, take(batch, order))["loss"], PairedInfoNCE()(model, batch)["loss"])
