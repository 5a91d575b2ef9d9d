import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import NTXentLoss
from objective_fakes import FakeModel, make_batch, take
from torch.nn.functional import cross_entropy, normalize

from ssl4neuro.objectives import InfoNCE, NoNegatives

KINDS = ("other_subjects", "other_sessions", "same_session", "all")


def is_negative(batch: dict, i: int, j: int, kind: str) -> bool:
    if batch["row"][i] == batch["row"][j]:
        return False
    other_session = bool(batch["group"][i] != batch["group"][j])
    return {
        "all": True,
        "other_subjects": bool(batch["subject"][i] != batch["subject"][j]),
        "other_sessions": other_session,
        "same_session": not other_session,
    }[kind]


def naive_pair(a: torch.Tensor, b: torch.Tensor, batch: dict, tau: float, kind: str, within: bool) -> list[torch.Tensor]:
    """One loss per anchor of `a`: positive is the same line of `b`; negatives from `b`, and from `a` too when within."""
    losses = []
    for i in range(len(a)):
        positive = (torch.dot(a[i], b[i]) / tau).exp()
        negative = torch.zeros(())
        for j in range(len(a)):
            if is_negative(batch, i, j, kind):
                negative = negative + (torch.dot(a[i], b[j]) / tau).exp()
                if within:
                    negative = negative + (torch.dot(a[i], a[j]) / tau).exp()
        if negative > 0:
            losses.append(-(positive / (positive + negative)).log())
    return losses


def naive(
    model: FakeModel, batch: dict, between: tuple[str, ...], tau: float, kind: str, symmetric: bool = True
) -> torch.Tensor:
    pairs = [(m, n) for k, m in enumerate(between) for n in between[k + 1 :]] or [(between[0], between[0])]
    means = []
    for m, n in pairs:
        rows = torch.nonzero(batch["present"][m] & batch["present"][n]).flatten()
        kept = take(batch, rows)
        x, y = (normalize(model.project(kept, name), dim=-1) for name in (m, n))
        losses = []
        for v in range(x.shape[1]):
            for w in range(v + 1 if m == n else 0, y.shape[1]):
                losses += naive_pair(x[:, v], y[:, w], kept, tau, kind, m == n)
                if symmetric or m == n:
                    losses += naive_pair(y[:, w], x[:, v], kept, tau, kind, m == n)
        means.append(torch.stack(losses).mean())
    return torch.stack(means).mean()


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("between", [("map", "course"), ("course",), ("map", "course", "cine")])
def test_equals_double_loop(between: tuple[str, ...], kind: str, chunk: int | None) -> None:
    model, batch = FakeModel(), make_batch(subjects=3, views=3 if len(between) == 1 else 2)
    objective = InfoNCE(between=between, temperature=0.2, negatives=kind, chunk=chunk)
    loss = objective(model, batch)["loss"]
    expected = naive(model, batch, between, 0.2, kind)
    torch.testing.assert_close(loss, expected)
    parameters = [p for m in between for p in model.layers[m].parameters()]
    for got, want in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(got, want)


def test_one_direction_is_from_the_first_modality() -> None:
    model, batch = FakeModel(), make_batch(views=1)
    found = [InfoNCE(b, symmetric=False)(model, batch)["loss"] for b in (("map", "course"), ("course", "map"))]
    for loss, between in zip(found, (("map", "course"), ("course", "map")), strict=True):
        torch.testing.assert_close(loss, naive(model, batch, between, 0.1, "other_subjects", symmetric=False))
    assert not torch.isclose(found[0], found[1])
    torch.testing.assert_close(sum(found) / 2, InfoNCE(("map", "course"))(model, batch)["loss"])


def test_across_modalities_without_subjects_is_cross_entropy_on_the_matrix_and_its_transpose() -> None:
    model, batch = FakeModel(), make_batch(views=1, absent=False)
    x, y = (normalize(model.project(batch, m)[:, 0], dim=-1) for m in ("map", "course"))
    scores, target = x @ y.T / 0.1, torch.arange(len(x))
    expected = (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2
    found = InfoNCE(negatives="all")(model, batch)
    torch.testing.assert_close(found["loss"], expected)
    right = torch.cat([scores.argmax(0) == target, scores.argmax(1) == target]).double().mean()
    torch.testing.assert_close(found["accuracy"], right)


@pytest.mark.parametrize("chunk", [None, 7])
def test_within_a_modality_equals_lightly(chunk: int | None) -> None:
    model, batch = FakeModel(), make_batch(subjects=5, views=2, absent=False)
    x = model.project(batch, "map")
    expected = NTXentLoss(temperature=0.3)(x[:, 0], x[:, 1])
    found = InfoNCE(("map",), temperature=0.3, negatives="all", chunk=chunk)(model, batch)["loss"]
    torch.testing.assert_close(found, expected)
    weights = list(model.layers["map"].parameters())
    for got, want in zip(torch.autograd.grad(found, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(got, want)


def test_a_subject_is_never_its_own_negative() -> None:
    """Moving one sample must not change the loss terms of anchors of the same subject; two subjects make that visible."""
    model, batch = FakeModel(), make_batch(subjects=2, views=1, absent=False)
    x = batch["inputs"]["course"].requires_grad_()
    # Anchors of subject 0 in the map, towards courses: only their own courses and those of subject 1 matter.
    keep = [i for i in range(len(x)) if batch["subject"][i] == 1]
    first = int(torch.nonzero(batch["subject"] == 0)[0])
    part = take(batch, [first, *keep])
    InfoNCE(symmetric=False)(model, part)["loss"].backward()
    assert x.grad[first].abs().sum() > 0
    other = [i for i in range(len(x)) if batch["subject"][i] == 0 and i != first]
    assert x.grad[other].abs().sum() == 0


def test_a_row_drawn_twice_is_no_negative_of_itself() -> None:
    model, batch = FakeModel(), make_batch(subjects=2, views=1, absent=False)
    twice = take(batch, [0, 0, 5, 9])
    torch.testing.assert_close(
        InfoNCE(negatives="all")(model, twice)["loss"], naive(model, twice, ("map", "course"), 0.1, "all")
    )


def test_sessions_are_compared_as_means_over_their_rows() -> None:
    model, batch = FakeModel(), make_batch(views=1, absent=False)
    sessions, first = model.project_sessions(batch, "map")
    courses, _ = model.project_sessions(batch, "course")
    subject = batch["subject"][first]
    losses = []
    for x, y in ((sessions, courses), (courses, sessions)):
        x, y = normalize(x[:, 0], dim=-1), normalize(y[:, 0], dim=-1)
        for i in range(len(x)):
            allowed = [j for j in range(len(x)) if j == i or subject[j] != subject[i]]
            losses.append(cross_entropy((x[i] @ y[allowed].T / 0.1)[None], torch.tensor([allowed.index(i)])))
    torch.testing.assert_close(InfoNCE(level="session")(model, batch)["loss"], torch.stack(losses).mean())


def test_a_session_is_there_if_one_of_its_rows_is() -> None:
    model, batch = FakeModel(), make_batch(absent=False)
    whole = InfoNCE(level="session")(model, batch)["loss"]
    group = batch["group"][0]
    members = torch.nonzero(batch["group"] == group).flatten()
    batch["present"]["map"][members[0]] = False
    torch.testing.assert_close(InfoNCE(level="session")(model, batch)["loss"], whole)
    batch["present"]["map"][members] = False
    rest = take(batch, torch.nonzero(batch["group"] != group).flatten())
    torch.testing.assert_close(InfoNCE(level="session")(model, batch)["loss"], InfoNCE(level="session")(model, rest)["loss"])


def test_collapsed_embeddings_are_not_accurate() -> None:
    model, batch = FakeModel(), make_batch(absent=False)
    for layer in model.layers.values():
        torch.nn.init.zeros_(layer.weight)
    terms = InfoNCE()(model, batch)
    assert terms["accuracy"] == 0
    negatives = int((batch["subject"] != batch["subject"][0]).sum())
    torch.testing.assert_close(terms["loss"], torch.tensor(math.log(1 + negatives), dtype=torch.float64), atol=5, rtol=0)


@pytest.mark.parametrize(
    ("objective", "rows"),
    [
        (InfoNCE(), [0, 1, 2, 3]),  # one subject
        (InfoNCE(("map",), negatives="other_sessions"), [0, 1]),  # one session
        (InfoNCE(negatives="all"), [4]),  # one row
        (InfoNCE(negatives="same_session"), [0, 4, 8, 12]),  # one row of each session
        (InfoNCE(level="session"), [0, 1, 2, 3]),
    ],
)
def test_without_negatives_the_rows_are_named(objective: InfoNCE, rows: list[int]) -> None:
    batch = take(make_batch(absent=False), rows)
    with pytest.raises(NoNegatives) as caught:
        objective(FakeModel(), batch)
    wanted = batch["row"].tolist() if objective.level == "row" else [batch["row"][0].item()]
    assert caught.value.rows == tuple(sorted(wanted))
    assert str(wanted[0]) in str(caught.value)


def test_nobody_with_both_modalities_is_refused() -> None:
    batch = make_batch()
    batch["present"]["course"][:] = False
    with pytest.raises(NoNegatives, match="no sample of the batch has map and course"):
        InfoNCE()(FakeModel(), batch)


def test_learned_temperature_gets_the_gradient_of_a_difference_quotient() -> None:
    model, batch = FakeModel(), make_batch()
    objective = InfoNCE(temperature=0.2, learn_temperature=True).double()
    objective(model, batch)["loss"].backward()
    step = 1e-5
    sides = [InfoNCE(temperature=math.exp(math.log(0.2) - sign * step))(model, batch)["loss"] for sign in (1, -1)]
    torch.testing.assert_close(objective.temperature.log_scale.grad, (sides[0] - sides[1]) / (2 * step), rtol=1e-5, atol=1e-7)


def test_learned_temperature_stays_above_its_limit() -> None:
    objective = InfoNCE(learn_temperature=True)
    with torch.no_grad():
        objective.temperature.log_scale.fill_(20.0)
    assert objective(FakeModel(), make_batch())["temperature"].item() == pytest.approx(0.01)


def test_one_view_cannot_be_compared_with_itself() -> None:
    with pytest.raises(ValueError, match="views: 2"):
        InfoNCE(("map",))(FakeModel(), make_batch(views=1))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"temperature": 0.001, "learn_temperature": True},
        {"between": ()},
        {"between": ("map", "map")},
        {"level": "session", "negatives": "same_session"},
        {"chunk": 0},
    ],
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError):
        InfoNCE(**options)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(16)), st.sampled_from(KINDS))
def test_order_of_the_batch_does_not_matter(order: list[int], kind: str) -> None:
    model, batch = FakeModel(), make_batch(subjects=2)
    objective = InfoNCE(negatives=kind)
    torch.testing.assert_close(objective(model, take(batch, order))["loss"], objective(model, batch)["loss"])


@settings(max_examples=15, deadline=None)
@given(st.floats(0.03, 0.5), st.floats(1.05, 3.0), st.integers(0, 100))
def test_colder_is_lower_when_the_positives_are_the_closest(tau: float, factor: float, seed: int) -> None:
    model, batch = FakeModel(), make_batch(subjects=3, views=2, seed=seed, absent=False)
    batch["inputs"]["map"] = batch["inputs"]["map"][:, :1].repeat(1, 2, 1)  # two equal views
    warm, cold = (InfoNCE(("map",), temperature=t)(model, batch) for t in (tau * factor, tau))
    assert cold["accuracy"] == warm["accuracy"] == 1
    assert cold["loss"] < warm["loss"]
