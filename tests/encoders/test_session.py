"""The session encoder: connectivity against numpy, equivariance, and that a person's connectivity survives untrained."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.signal import detrend

from ssl4neuro.encoders import CourseSession, SessionReadout
from ssl4neuro.encoders.connectivity import NODE_STATISTICS, POWERS, QUANTILES, connectivity, node_statistics
from ssl4neuro.encoders.setlayout import set_layout


def session(members: int, time: int = 100, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(members, 4) @ torch.randn(4, time) + torch.randn(members, time)


@pytest.fixture(scope="module")
def encoder() -> CourseSession:
    torch.manual_seed(0)
    return CourseSession(**CourseSession.PRESETS["tiny"]).eval()


def test_layout_round_trip():
    group = torch.tensor([7, 3, 7, 7, 3, 1])
    layout = set_layout(group, 3)
    rows = torch.arange(12.0).view(6, 2)
    padded = layout.pad(rows)
    assert padded.shape == (3, 3, 2)
    assert layout.member.sum(1).tolist() == [1, 2, 3]
    assert torch.equal(layout.unpad(padded), rows)
    assert torch.equal(padded[2], rows[[0, 2, 3]])
    assert torch.equal(padded[0, 1:], torch.zeros(2, 2))
    with pytest.raises(ValueError, match="max_components=2"):
        set_layout(group, 2)


def test_connectivity_equals_numpy_over_the_common_time_points():
    x = session(5) + torch.linspace(0, 9, 100)  # a trend that would dominate every correlation
    valid = torch.ones(5, 100, dtype=torch.bool)
    valid[1, 80:] = False
    valid[3, :10] = False
    z = connectivity(x[None], valid[None], torch.ones(1, 5, dtype=torch.bool))[0]
    flat = detrend(x[:, 10:80].double().numpy(), axis=1)
    expected = np.arctanh(np.corrcoef(flat) - np.eye(5))
    np.testing.assert_allclose(z.numpy(), expected, atol=1e-4)


def test_an_absent_course_does_not_empty_the_intersection():
    x, valid = session(5), torch.ones(5, 100, dtype=torch.bool)
    valid[2] = False
    z = connectivity(x[None], valid[None], torch.ones(1, 5, dtype=torch.bool))[0]
    rest = [0, 1, 3, 4]
    whole = torch.ones(1, 4, dtype=torch.bool)
    torch.testing.assert_close(z[rest][:, rest], connectivity(x[None, rest], valid[None, rest], whole)[0])
    assert (z[2] == 0).all()
    assert (z[:, 2] == 0).all()


def test_node_statistics_equal_numpy_without_the_padding():
    z = connectivity(session(7)[None], torch.ones(1, 7, 100, dtype=torch.bool), torch.ones(1, 7, dtype=torch.bool))
    wide = torch.zeros(1, 9, 9)
    wide[:, :7, :7] = z
    member = torch.arange(9)[None] < 7
    features = node_statistics(wide, member)[0]
    assert features.shape == (9, NODE_STATISTICS)
    assert (features[7:] == 0).all()
    matrix = z[0].double().numpy()
    for i in range(7):
        row = np.delete(matrix[i], i)
        expected = [*np.quantile(row, QUANTILES), row.mean(), row.std(), stats.skew(row)]
        np.testing.assert_allclose(features[i, : len(expected)].numpy(), expected, atol=1e-3)
    for order in range(2, POWERS + 2):
        walks = np.diag(np.linalg.matrix_power(matrix / 6, order)) * 6 ** (order / 2) * 2**order / 4
        np.testing.assert_allclose(features[:7, len(QUANTILES) + 1 + order].numpy(), walks, atol=1e-4)


def test_components_may_come_in_any_order(encoder):
    x = torch.cat([session(6), session(4, seed=1)])
    group, rate = torch.tensor([0] * 6 + [1] * 4), torch.full((10,), 2.0)
    out = encoder(x, None, rate, group)
    order = torch.tensor([8, 3, 5, 0, 9, 1, 6, 4, 2, 7])  # also interleaves the sessions
    mixed = encoder(x[order], None, rate, group[order])
    torch.testing.assert_close(mixed.pooled, out.pooled[order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed.session, out.session[order], atol=1e-5, rtol=1e-5)
    relabelled = encoder(x, None, rate, 100 - group)
    torch.testing.assert_close(relabelled.session, out.session, atol=1e-5, rtol=1e-5)


def test_components_see_each_other(encoder):
    x, rate = session(6), torch.full((6,), 2.0)
    together = encoder(x, None, rate, None)
    apart = encoder(x, None, rate, torch.arange(6))
    assert (together.pooled - apart.pooled).abs().max() > 0.01
    assert torch.equal(together.session, together.session[:1].expand(6, -1))
    changed = x.clone()
    changed[5] = torch.randn(100)
    assert (encoder(changed, None, rate, None).pooled[0] - together.pooled[0]).abs().max() > 1e-4


def test_sessions_of_one_component_and_too_large_ones(encoder):
    assert encoder(session(1), None, torch.tensor([2.0]), None).session.isfinite().all()
    small = CourseSession(dim=32, channels=(8, 8, 8, 8), layers=1, networks=4, max_components=3)
    with pytest.raises(ValueError, match="max_components"):
        small(session(4))


def people(count: int, members: int, time: int) -> torch.Tensor:
    """Two halves of `count` persons who share a mean connectivity and differ in their own, [2, people, members, time]."""
    torch.manual_seed(3)
    common = torch.randn(members, 6)
    own = common + 0.6 * torch.randn(count, members, 6)
    return torch.stack([own @ torch.randn(count, 6, time) + 0.5 * torch.randn(count, members, time) for _ in range(2)])


def identification(first: torch.Tensor, second: torch.Tensor) -> float:
    centre = torch.cat([first, second]).mean(0)
    a, b = (torch.nn.functional.normalize(t - centre, dim=1) for t in (first, second))
    return float(((a @ b.T).argmax(1) == torch.arange(len(a))).float().mean())


def test_untrained_readout_keeps_what_identifies_a_person():
    # 16 people, chance 1/16. The features tell components apart (as maps do) and carry nothing about the person.
    halves, members = people(16, 20, 150), 20
    upper = torch.triu_indices(members, members, 1)
    fnc = [torch.stack([torch.corrcoef(x)[upper[0], upper[1]] for x in half]) for half in halves]
    assert identification(*fnc) > 0.9
    torch.manual_seed(0)
    readout, names = SessionReadout(features=24, dim=64).eval(), torch.randn(members, 24)
    group = torch.arange(16).repeat_interleave(members)
    out = [readout(names.repeat(16, 1), half.flatten(0, 1), None, group)[::members] for half in halves]
    assert identification(*out) > 0.7
    assert identification(*[readout(torch.zeros(320, 24), h.flatten(0, 1), None, group)[::members] for h in halves]) < 0.5


def test_readout_does_not_depend_on_the_order_of_components():
    torch.manual_seed(0)
    readout, features, x = SessionReadout(features=8, dim=16, networks=5), torch.randn(6, 8), session(6)
    order = torch.randperm(6)
    out = readout(features, x)
    torch.testing.assert_close(readout(features[order], x[order]), out, atol=1e-5, rtol=1e-5)
    assert out.shape == (6, 16)
    assert torch.equal(out, out[:1].expand(6, -1))
