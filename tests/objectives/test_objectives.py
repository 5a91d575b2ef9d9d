"""The contract that every line of the table keeps, with default options."""

import copy

import pytest
import torch
from objective_fakes import CASES, CLIPS, FakeModel, bound, build_case, case_batch

from ssl4neuro.objectives import OBJECTIVES
from ssl4neuro.registry import Component, build, resolve
from ssl4neuro.types import Objective

EVERY = pytest.mark.parametrize("name", OBJECTIVES)


def test_every_objective_has_a_case_on_two_processes() -> None:
    assert {name.split("-")[0] for name in CASES} == set(OBJECTIVES)


@EVERY
def test_says_what_it_needs(name: str) -> None:
    objective = build(OBJECTIVES, Component(name))
    assert isinstance(objective, Objective)
    asked: set[tuple[str, str]] = set()

    class Listening(FakeModel):
        def project(self, batch, modality):
            asked.add((modality, "row"))
            return super().project(batch, modality) if modality != "joint" else super().project(batch, "map")

    batch, model = case_batch(name), Listening()
    batch["targets"] = {column: batch["targets"][column] for column in getattr(objective, "label_columns", ())}
    bound(objective, model).double()(model, batch)
    assert asked == objective.needs
    assert (name in CLIPS) == (not objective.needs)  # nothing to project: it feeds the encoders itself


@EVERY
def test_presets_can_be_built(name: str) -> None:
    for preset in getattr(OBJECTIVES[name], "PRESETS", {}):
        resolve(OBJECTIVES, Component(name, {"preset": preset}))
        build(OBJECTIVES, Component(name, {"preset": preset}))


@pytest.mark.parametrize("case", CASES)
def test_loss_is_a_finite_number_that_moves_the_encoders(case: str) -> None:
    model = FakeModel()
    objective = build_case(case, model).double()
    found = objective(model, case_batch(case))
    assert found["loss"].shape == ()
    assert all(torch.isfinite(value).all() and value.shape == () for value in found.values())
    assert not any(value.requires_grad for term, value in found.items() if term != "loss")
    found["loss"].backward()
    modalities = {m for m, _ in objective.needs} if "joint" not in {m for m, _ in objective.needs} else set(model.layers)
    for modality in modalities:
        assert model.layers[modality].weight.grad.abs().sum() > 0
    if not objective.needs:
        assert all(p.grad.abs().sum() > 0 for p in model.encoders[objective.on].parameters())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in objective.parameters() if p.requires_grad)


ROWS_OF_MODALITIES = [case for case in CASES if all(m != "joint" and level == "row" for m, level in build_case(case).needs)]


@pytest.mark.parametrize("case", ROWS_OF_MODALITIES)
def test_absent_samples_have_no_influence(case: str) -> None:
    """Neither as anchors nor as negatives, even if their projections are not numbers."""
    model, batch = FakeModel(), case_batch(case)
    objective = build_case(case, model).double()
    expected = seeded(objective, model, batch)
    modality = "course" if "course" in batch["inputs"] else "cine"
    batch["inputs"][modality][~batch["present"][modality]] = torch.nan
    assert torch.equal(seeded(objective, model, batch), expected)


@pytest.mark.parametrize("case", CASES)
def test_computes_in_float32_for_half_precision_projections(case: str) -> None:
    model, batch = FakeModel().bfloat16(), case_batch(case)
    objective = build_case(case, model)
    batch["inputs"] = {m: x.bfloat16() for m, x in batch["inputs"].items()}
    assert objective(model, batch)["loss"].dtype == torch.float32


@EVERY
def test_can_be_copied(name: str) -> None:
    """An exponential moving average keeps a deep copy of the model."""
    model, batch = FakeModel(), case_batch(name)
    objective = bound(build(OBJECTIVES, Component(name)), model).double()
    expected = seeded(objective, model, batch)
    assert torch.equal(seeded(copy.deepcopy(objective), model, batch), expected)


@EVERY
def test_state_makes_the_same_objective(name: str) -> None:
    """Also what `bind` builds, and what `after_step` moves."""
    model, batch = FakeModel(), case_batch(name)
    first, second = (bound(build(OBJECTIVES, Component(name)), model).double() for _ in range(2))
    if hasattr(first, "after_step"):
        moved = FakeModel(seed=9)
        first.after_step(moved.encoders, 0.5)
    second.load_state_dict(first.state_dict())
    assert torch.equal(seeded(second, model, batch), seeded(first, model, batch))


def seeded(objective: torch.nn.Module, model: FakeModel, batch: dict) -> torch.Tensor:
    """The loss with the same random draws every time."""
    torch.manual_seed(3)
    return objective(model, batch)["loss"]
