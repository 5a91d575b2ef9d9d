import pytest
import torch
from objective_fakes import FakeModel, make_batch, take
from torch.nn.functional import logsigmoid, normalize

from ssl4neuro.objectives import NoNegatives, SigLIP


def naive(
    x: torch.Tensor, y: torch.Tensor, batch: dict, scale: torch.Tensor, bias: torch.Tensor, everybody: bool
) -> torch.Tensor:
    """-1/N Σ_i Σ_j log σ(z_ij (t x_i·y_j + b)), z = 1 for the positive and -1 for a negative."""
    total = torch.zeros((), dtype=x.dtype)
    for i in range(len(x)):
        for j in range(len(y)):
            if i != j and not everybody and batch["subject"][i] == batch["subject"][j]:
                continue
            z = 1 if i == j else -1
            total = total - logsigmoid(z * (scale * torch.dot(x[i], y[j]) + bias))
    return total / len(x)


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("negatives", ["other_subjects", "all"])
@pytest.mark.parametrize("between", [("map", "course"), ("map",)])
def test_equals_double_loop(between: tuple[str, ...], negatives: str, chunk: int | None) -> None:
    model, batch = FakeModel(), make_batch(subjects=3)
    objective = SigLIP(between, bias=-1.5, negatives=negatives, chunk=chunk).double()
    rows = torch.nonzero(batch["present"][between[0]] & batch["present"][between[-1]]).flatten()
    kept = take(batch, rows)
    scale, bias = objective.temperature.log_scale.exp(), objective.bias
    x, y = (normalize(model.project(kept, m), dim=-1) for m in (between[0], between[-1]))
    views = [(0, 1)] if len(between) == 1 else [(v, w) for v in range(2) for w in range(2)]
    expected = torch.stack([naive(x[:, v], y[:, w], kept, scale, bias, negatives == "all") for v, w in views]).mean()
    loss = objective(model, batch)["loss"]
    torch.testing.assert_close(loss, expected)
    wanted = [*model.layers[between[0]].parameters(), *objective.parameters()]
    for got, want in zip(torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted), strict=True):
        torch.testing.assert_close(got, want)


def test_starts_as_published() -> None:
    objective = SigLIP()
    assert objective.temperature.log_scale.exp().item() == pytest.approx(10)
    assert objective.bias.item() == -10
    assert sum(p.requires_grad for p in objective.parameters()) == 2
    assert not any(p.requires_grad for p in SigLIP(learn=False).parameters())


def test_the_two_directions_are_one() -> None:
    model, batch = FakeModel(), make_batch()
    torch.testing.assert_close(SigLIP(("map", "course"))(model, batch)["loss"], SigLIP(("course", "map"))(model, batch)["loss"])


def test_one_subject_is_refused() -> None:
    with pytest.raises(NoNegatives, match="one subject"):
        SigLIP()(FakeModel(), make_batch(subjects=1))
