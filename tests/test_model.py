"""Encoders, projectors and objectives together."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.loader import CohortRows
from ssl4neuro.data.views import Views
from ssl4neuro.errors import UserError
from ssl4neuro.model import FusionConfig, ModalityConfig, Model, ModelConfig, first_rows
from ssl4neuro.registry import Component
from ssl4neuro.types import Batch

MAP = ModalityConfig(Component("volume_resnet", {"preset": "tiny"}))
COURSE = ModalityConfig(Component("course_session", {"preset": "tiny"}), views=2)
CROSS = Component("infonce", {"negatives": "all", "weight": 0.5})
PERSON = Component("infonce", {"between": ["course"], "level": "session"})
STATES = Component("supcon", {"labels": ["state"]})
WHOLE = Component("infonce", {"between": ["joint", "course"], "level": "session"})


def config(**objectives: Component) -> ModelConfig:
    return ModelConfig({"map": MAP, "course": COURSE}, objectives, FusionConfig(dim=32))


@pytest.fixture(scope="module")
def cohort(make_cohort: Callable[..., Cohort], tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("model") / "cohort")


@pytest.fixture
def batch(cohort: Cohort) -> Batch:
    state = np.array([{"pre": 0, "post": 1}[s] for s in cohort.labels("state")])
    stored = CohortRows(cohort, ("map", "course"), {"state": state}).__getitems__(list(range(24)))
    return Views(cohort.mask, {}, {"course": 2}, 0)(stored, 0)


def test_the_loss_is_the_weighted_sum_and_every_term_is_reported(batch: Batch) -> None:
    torch.manual_seed(0)
    model = Model(config(cross=CROSS, person=PERSON, states=STATES)).eval()
    terms = model(batch)
    expected = 0.5 * terms["cross/loss"] + terms["person/loss"] + terms["states/loss"]
    assert torch.allclose(terms["loss"], expected)
    assert {"cross/accuracy", "cross/temperature"} <= set(terms)


def test_every_parameter_learns(batch: Batch) -> None:
    torch.manual_seed(0)
    model = Model(config(cross=CROSS, person=PERSON, states=STATES, whole=WHOLE)).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(batch)["loss"].backward()
    optimiser.step()
    optimiser.zero_grad()
    model(batch)["loss"].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in without if not name.endswith("spectrum.unknown")] == [], "the stand-in for an unknown TR may rest"


def test_only_what_objectives_need_is_built() -> None:
    model = Model(config(person=PERSON))
    assert set(model.projectors) == set()
    assert set(model.session_projectors) == {"course"}
    assert model.fusion is None
    assert Model(config(states=STATES)).labels == ("state",)
    assert Model(config(cross=CROSS)).labels == ()


def test_embeddings_are_per_row_and_per_scan_and_do_not_depend_on_the_batch(cohort: Cohort) -> None:
    torch.manual_seed(0)
    model = Model(config(cross=CROSS, person=PERSON, states=STATES, whole=WHOLE)).eval()
    rows, views = CohortRows(cohort, ("map", "course")), Views(cohort.mask, {}, {}, 0)
    with torch.no_grad():
        both = model.embeddings(views(rows.__getitems__(list(range(8))), None))
        second = model.embeddings(views(rows.__getitems__(list(range(4, 8))), None))
    assert both["map"].shape[0] == 8
    assert both["session:course"].shape[0] == 2
    for name, values in second.items():
        tail = both[name][1:] if name.startswith("session:") else both[name][4:]
        assert torch.allclose(values, tail, atol=1e-4), name
    assert torch.allclose(both["map_projected"].norm(dim=1), torch.ones(8), atol=1e-5)
    assert torch.allclose(both["session:map"][0], both["map"][:4].mean(0), atol=1e-5)


def test_a_cohort_without_maps_still_gives_embeddings(make_cohort: Callable[..., Cohort], tmp_path: Path) -> None:
    courses = make_cohort(tmp_path / "courses", maps=False)
    model = Model(config(cross=CROSS, states=STATES)).eval()
    batch = Views(None, {}, {}, 0)(CohortRows(courses, ("map", "course")).__getitems__([0, 1, 2, 3]), None)
    with torch.no_grad():
        found = model.embeddings(batch)
    assert "map" not in found
    assert all(torch.isfinite(values).all() for values in found.values())
    assert found["joint"].shape == (4, 32)


def test_first_rows_keeps_the_order_of_appearance() -> None:
    number, first = first_rows(torch.tensor([7, 7, 2, 9, 2, 7]))
    assert number.tolist() == [0, 0, 1, 2, 1, 0]
    assert first.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        (
            {"x": Component("infonce", {"between": ["mpa", "course"]})},
            r"no modality 'mpa' in this recipe \(did you mean 'map'\?\)",
        ),
        ({"x": Component("infonce", {"weight": -1})}, r"objectives\.x\.weight: a weight is a number"),
        ({"x": Component("infonc")}, r"objectives\.x: unknown name 'infonc'"),
    ],
)
def test_mistakes_are_named(objectives: dict[str, Component], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Model(config(**objectives))
