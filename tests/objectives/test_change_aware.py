import numpy as np
import pytest
import torch
from objective_fakes import FakeModel, make_batch, take
from torch.nn.functional import normalize

from ssl4neuro.objectives import ChangeAware, PairedInfoNCE
from ssl4neuro.objectives.change_aware import boundary, cross_correlation

LEVELS = {"state": ("post", "pre"), "network": ("motor", "vision")}
TAU = 0.3


def labelled(batch: dict, *columns: str) -> list[int]:
    return [i for i in range(len(batch["row"])) if all(batch["targets"][c][i] >= 0 for c in columns)]


def naive_stays(p: torch.Tensor, batch: dict) -> torch.Tensor:
    """O2, symmetric, other subjects as negatives, on the normalised first part; view by view."""
    views = []
    for v in range(p.shape[1]):
        u, cells = normalize(p[:, v], dim=-1), {}
        for i in labelled(batch, "network", "state"):
            key = (int(batch["subject"][i]), int(batch["targets"]["network"][i]))
            cells.setdefault(key, {}).setdefault(int(batch["targets"]["state"][i]), []).append(u[i])
        mean = {
            k: [normalize(torch.stack(states[s]).mean(0), dim=0) for s in (1, 0)]
            for k, states in cells.items()
            if len(states) == 2
        }
        losses = []
        for one, other in ((0, 1), (1, 0)):
            for key, pair in mean.items():
                scores = [pair[one] @ pair[other] / TAU]
                scores += [pair[one] @ mean[k][other] / TAU for k in mean if k[0] != key[0]]
                losses.append(torch.logsumexp(torch.stack(scores), 0) - scores[0])
        views.append(torch.stack(losses).mean())
    return torch.stack(views).mean()


def naive_changes(p: torch.Tensor, batch: dict, columns: tuple[str, ...]) -> torch.Tensor:
    """O1 on the normalised second part; views are further samples."""
    u, kappa = [], []
    for i in labelled(batch, *columns):
        for v in range(p.shape[1]):
            u.append(normalize(p[i, v], dim=0))
            kappa.append(tuple(int(batch["targets"][c][i]) for c in columns))
    losses = []
    for i in range(len(u)):
        others = torch.logsumexp(torch.stack([u[i] @ u[a] / TAU for a in range(len(u)) if a != i]), 0)
        positives = [u[i] @ u[j] / TAU for j in range(len(u)) if j != i and kappa[j] == kappa[i]]
        losses.append(others - torch.stack(positives).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("columns", [("state",), ("network", "state")])
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_equals_the_loops_of_its_three_parts(share: float, columns: tuple[str, ...]) -> None:
    model, batch = FakeModel(), make_batch(subjects=3)
    objective = ChangeAware(
        labels=columns, share=share, paired_weight=0.7, change_weight=1.3, decorrelation_weight=2.0,
        paired_temperature=TAU, temperature=TAU,
    ).double()  # fmt: skip
    objective.set_levels(LEVELS)
    found = objective(model, batch)
    p = model.project(batch, "joint").detach()
    cut = round(4 * share)
    flat = p.flatten(0, 1).numpy()
    r = np.corrcoef(flat[:, :cut], flat[:, cut:], rowvar=False)[:cut, cut:]
    expected = {
        "stays": naive_stays(p[..., :cut], batch),
        "changes": naive_changes(p[..., cut:], batch, columns),
        "decorrelation": torch.as_tensor((r**2).mean()),
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    total = 0.7 * expected["stays"] + 1.3 * expected["changes"] + 2.0 * expected["decorrelation"]
    torch.testing.assert_close(found["loss"].detach(), total, rtol=1e-5, atol=1e-6)


def test_each_part_is_moved_by_its_own_terms_only() -> None:
    batch, p = make_batch(), torch.randn(32, 2, 6, dtype=torch.float64, requires_grad=True)

    class Direct(FakeModel):
        def project(self, batch, modality):
            return p

    def gradient(**weights: float) -> torch.Tensor:
        objective = ChangeAware(**{"paired_weight": 0.0, "change_weight": 0.0, "decorrelation_weight": 0.0, **weights}).double()
        (found,) = torch.autograd.grad(objective(Direct(), batch)["loss"], p)
        return found.abs().sum((0, 1))

    stays, changes, both = gradient(paired_weight=1.0), gradient(change_weight=1.0), gradient(decorrelation_weight=1.0)
    assert (stays[:3] > 0).all()
    assert (stays[3:] == 0).all()
    assert (changes[:3] == 0).all()
    assert (changes[3:] > 0).all()
    assert (both > 0).all()


def test_order_of_the_batch_does_not_matter() -> None:
    model, batch = FakeModel(), make_batch()
    objective = ChangeAware().double()
    shuffled = take(batch, torch.randperm(32, generator=torch.Generator().manual_seed(5)))
    torch.testing.assert_close(objective(model, shuffled)["loss"], objective(model, batch)["loss"])


def test_cross_correlation_knows_dependence() -> None:
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert cross_correlation(x, -2 * x[:, :1] + 5) == pytest.approx(1 / 3, abs=1e-3)  # one of three explains all
    assert cross_correlation(x[:, :1], x[:, 1:]) < 1e-3
    assert cross_correlation(x[:1], x[:1]) == 0


def test_without_pairs_it_still_learns_the_change() -> None:
    """A subject scanned once has no pair, but a state."""
    batch = make_batch(absent=False)
    once = take(batch, (batch["subject"] % 2) == batch["targets"]["state"])
    found = ChangeAware().double()(FakeModel(), once)
    assert found["pairs"] == 0
    assert found["stays"] == 0
    assert found["changes"] > 0


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="share"):
        ChangeAware(share=1.0)
    with pytest.raises(ValueError, match="split in two"):
        boundary(1, 0.5)
    assert [boundary(4, share) for share in (0.01, 0.5, 0.99)] == [1, 2, 3]
    with pytest.raises(ValueError, match="'state' has"):
        ChangeAware(states=("before", "after")).set_levels({"state": ["a", "b", "c"]})
    assert issubclass(type(ChangeAware().stays), PairedInfoNCE)
