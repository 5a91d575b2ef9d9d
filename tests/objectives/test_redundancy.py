import pytest
import torch
from lightly.loss import BarlowTwinsLoss, VICRegLoss
from objective_fakes import FakeModel, make_batch, take

from ssl4neuro.objectives import BarlowTwins, NoNegatives, VICReg


def naive_vicreg(x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    n, d = x.shape
    invariance = sum((x[i, k] - y[i, k]) ** 2 for i in range(n) for k in range(d)) / (n * d)
    variance, covariance = torch.zeros(()), torch.zeros(())
    for z in (x, y):
        mean = [sum(z[i, k] for i in range(n)) / n for k in range(d)]
        cov = [[sum((z[i, k] - mean[k]) * (z[i, m] - mean[m]) for i in range(n)) / (n - 1) for m in range(d)] for k in range(d)]
        variance = variance + 0.5 * sum((1 - (cov[k][k] + 1e-4).sqrt()).clamp_min(0) for k in range(d)) / d
        covariance = covariance + sum(cov[k][m] ** 2 for k in range(d) for m in range(d) if k != m) / d
    return {"invariance": invariance, "variance": variance, "covariance": covariance}


def naive_barlow(x: torch.Tensor, y: torch.Tensor, weight: float) -> torch.Tensor:
    n, d = x.shape
    x, y = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (x, y))
    total = torch.zeros((), dtype=x.dtype)
    for k in range(d):
        for m in range(d):
            c = sum(x[i, k] * y[i, m] for i in range(n)) / n
            total = total + ((1 - c) ** 2 if k == m else weight * c**2)
    return total


@pytest.fixture
def both() -> tuple[FakeModel, dict, torch.Tensor, torch.Tensor]:
    """Model, batch, and the projections of the rows with both modalities."""
    model, batch = FakeModel(), make_batch(subjects=2, views=1)
    kept = take(batch, torch.nonzero(batch["present"]["course"]).flatten())
    return model, batch, model.project(kept, "map")[:, 0], model.project(kept, "course")[:, 0]


def test_vicreg_equals_plain_loops_and_lightly(both) -> None:
    model, batch, x, y = both
    found = VICReg(invariance=3.0, variance=2.0, covariance=0.5)(model, batch)
    terms = naive_vicreg(x, y)
    for name, value in terms.items():
        torch.testing.assert_close(found[name], value.to(found[name].dtype))
    expected = 3 * terms["invariance"] + 2 * terms["variance"] + 0.5 * terms["covariance"]
    torch.testing.assert_close(found["loss"], expected.to(found["loss"].dtype))
    torch.testing.assert_close(VICReg()(model, batch)["loss"], VICRegLoss()(x, y))


def test_barlow_twins_equals_plain_loops_and_lightly(both) -> None:
    model, batch, x, y = both
    found = BarlowTwins(redundancy=0.02)(model, batch)["loss"]
    torch.testing.assert_close(found, naive_barlow(x, y, 0.02))
    torch.testing.assert_close(found, BarlowTwinsLoss(lambda_param=0.02)(x, y))


@pytest.mark.parametrize("objective", [VICReg(("map",)), BarlowTwins(("map",))])
def test_views_of_one_modality_are_averaged_over_pairs(objective) -> None:
    model, batch = FakeModel(), make_batch(views=3)
    x = model.project(batch, "map")
    expected = [objective.score(x[:, v], x[:, w])["loss"] for v, w in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(objective(model, batch)["loss"], torch.stack(expected).mean())


@pytest.mark.parametrize("objective", [VICReg(), BarlowTwins(), VICReg(level="session")])
def test_a_single_sample_is_refused(objective) -> None:
    batch = take(make_batch(absent=False), [3])
    with pytest.raises(NoNegatives) as caught:
        objective(FakeModel(), batch)
    assert caught.value.rows == tuple(batch["row"].tolist())


@pytest.mark.parametrize("objective", [VICReg(), BarlowTwins()])
def test_autocast_does_not_lower_the_precision(both, objective) -> None:
    _, _, x, y = both
    model = FakeModel()
    model.project = lambda batch, modality: {"map": x, "course": y}[modality].detach().float()[:, None]
    batch = {"row": torch.arange(len(x)), "subject": torch.arange(len(x)), "group": torch.arange(len(x))}
    batch["present"] = {m: torch.ones(len(x), dtype=torch.bool) for m in ("map", "course")}
    plain = objective(model, batch)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(objective(model, batch)["loss"], plain, rtol=0, atol=0)
