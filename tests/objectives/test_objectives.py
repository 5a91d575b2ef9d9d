"""The contract that every line of the table keeps, with default options."""

import copy

import pytest
import torch
from objective_fakes import CASES, FakeModel, build_case, make_batch

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

    batch = make_batch()
    batch["targets"] = {column: batch["targets"][column] for column in getattr(objective, "label_columns", ())}
    objective(Listening(), batch)
    assert asked == objective.needs


@EVERY
def test_presets_can_be_built(name: str) -> None:
    for preset in getattr(OBJECTIVES[name], "PRESETS", {}):
        resolve(OBJECTIVES, Component(name, {"preset": preset}))
        build(OBJECTIVES, Component(name, {"preset": preset}))


@pytest.mark.parametrize("case", CASES)
def test_loss_is_a_finite_number_that_moves_the_encoders(case: str) -> None:
    model, objective = FakeModel(), build_case(case).double()
    found = objective(model, make_batch())
    assert found["loss"].shape == ()
    assert all(torch.isfinite(value).all() and value.shape == () for value in found.values())
    assert not any(value.requires_grad for term, value in found.items() if term != "loss")
    found["loss"].backward()
    modalities = {m for m, _ in objective.needs} if "joint" not in {m for m, _ in objective.needs} else set(model.layers)
    for modality in modalities:
        assert model.layers[modality].weight.grad.abs().sum() > 0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in objective.parameters() if p.requires_grad)


ROWS_OF_MODALITIES = [case for case in CASES if all(m != "joint" and level == "row" for m, level in build_case(case).needs)]


@pytest.mark.parametrize("case", ROWS_OF_MODALITIES)
def test_absent_samples_have_no_influence(case: str) -> None:
    """Neither as anchors nor as negatives, even if their projections are not numbers."""
    model, objective = FakeModel(), build_case(case).double()
    batch = make_batch()
    expected = objective(model, batch)["loss"]
    batch["inputs"]["course"][~batch["present"]["course"]] = torch.nan
    assert torch.equal(objective(model, batch)["loss"], expected)


@pytest.mark.parametrize("case", CASES)
def test_computes_in_float32_for_half_precision_projections(case: str) -> None:
    model, objective = FakeModel().bfloat16(), build_case(case)
    batch = make_batch()
    batch["inputs"] = {m: x.bfloat16() for m, x in batch["inputs"].items()}
    assert objective(model, batch)["loss"].dtype == torch.float32


@EVERY
def test_can_be_copied(name: str) -> None:
    """An exponential moving average keeps a deep copy of the model."""
    model, batch = FakeModel(), make_batch()
    objective = build(OBJECTIVES, Component(name))
    expected = objective(model, batch)["loss"]
    assert torch.equal(copy.deepcopy(objective)(model, batch)["loss"], expected)
