"""Grids and masks: exact moves against brute-force lookup in millimetres."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4neuro import geometry
from ssl4neuro.data.grid import mask_sha256 as prepared_mask_sha256
from ssl4neuro.data.scan import Grid
from ssl4neuro.errors import UserError

BASE = np.array([[-3.0, 0, 0, 90], [0, 3, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])


def entry(affine: np.ndarray, shape: tuple[int, ...]) -> dict:
    return {"affine": np.asarray(affine).tolist(), "shape": list(shape)}


def turned(axes: tuple[int, ...], flips: tuple[bool, ...], offset: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Affine of a grid whose axis b runs along axis axes[b] of BASE, backwards where flipped, starting at `offset`."""
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for b, a in enumerate(axes):
        step[a, b] = -1 if flips[b] else 1
        step[a, 3] = offset[a] + (shape[b] - 1 if flips[b] else 0)
    return BASE @ step


@given(
    axes=st.sampled_from(list(itertools.permutations(range(3)))),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    offset=st.tuples(*[st.integers(-3, 4)] * 3),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_exact_move_equals_lookup_in_mm(axes, flips, offset, shape):
    rng = np.random.default_rng(0)
    mask = rng.random((5, 4, 6)) < 0.5
    target = turned(axes, flips, offset, shape)
    move = geometry.grid_move(entry(BASE, mask.shape), entry(target, shape))
    assert move.exact
    expected = np.zeros(shape, dtype=bool)
    for index in np.ndindex(*shape):
        source = np.linalg.inv(BASE) @ target @ [*index, 1]
        voxel = tuple(np.round(source[:3]).astype(int))
        if all(0 <= v < n for v, n in zip(voxel, mask.shape, strict=True)):
            expected[index] = mask[voxel]
    np.testing.assert_array_equal(geometry.move_mask(mask, move), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a @ np.diag([4 / 3, 1, 1, 1]),
        lambda a: a + np.array([[0, 0, 0, 1.5], [0] * 4, [0] * 4, [0] * 4]),
        lambda a: np.array([[0.96, -0.28, 0, 0], [0.28, 0.96, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ a,
    ],
    ids=["size", "half voxel", "rotation"],
)
def test_interpolation_is_recognised(change):
    assert not geometry.grid_move(entry(BASE, (9, 9, 9)), entry(change(BASE), (9, 9, 9))).exact


def test_small_rotation_shows_on_a_big_grid_only():
    tilt = np.eye(4)
    tilt[0, 1] = 4e-5  # 0.00004 voxel per voxel: 0.0002 at the end of a small grid, 0.01 at the end of a big one
    small, big = (5, 5, 5), (5, 256, 5)
    assert geometry.same_grid(entry(BASE, small), entry(BASE @ tilt, small))
    assert not geometry.same_grid(entry(BASE, big), entry(BASE @ tilt, big))


def test_coverage():
    far = BASE.copy()
    far[0, 3] += 1000
    assert geometry.grid_move(entry(BASE, (5, 5, 5)), entry(far, (5, 5, 5))).coverage == 0
    assert geometry.grid_move(entry(BASE, (5, 5, 5)), entry(BASE, (5, 5, 5))).coverage == 1


def test_mask_round_trip_and_hash():
    rng = np.random.default_rng(1)
    mask = rng.random((7, 5, 3)) < 0.3
    np.testing.assert_array_equal(geometry.unpack_mask(geometry.pack_mask(mask), mask.shape), mask)
    first = geometry.mask_sha256(mask, BASE)
    assert geometry.mask_sha256(np.asfortranarray(mask), BASE + 1e-7) == first
    other = mask.copy()
    other[3, 3, 1] ^= True
    assert geometry.mask_sha256(other, BASE) != first
    assert geometry.mask_sha256(mask.reshape(5, 7, 3), BASE) != first
    assert geometry.mask_sha256(mask, BASE + 0.001) != first
    assert prepared_mask_sha256(Grid(affine=BASE, mask=mask)) == first  # what `prepare` writes into the contract


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("???", (2, 2, 2)),
        ("AAAA", (2, 2, 2)),
        (geometry.pack_mask(np.ones((2, 2, 2), bool)), (4, 4, 4)),
        (geometry.pack_mask(np.ones((40, 40, 40), bool)), (2, 2, 2)),
        ("", (10**5, 10**5, 10**5)),
    ],
)
def test_damaged_mask_is_refused(text, shape):
    with pytest.raises(UserError, match="contract"):
        geometry.unpack_mask(text, shape)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1, 2]},
        {"shape": [0, 1, 1]},
        {"shape": [2.5, 1, 1]},
        {"shape": None},
        {"affine": [[1]]},
        {"affine": np.zeros((4, 4)).tolist()},
        {"affine": None},
        {"affine": "x"},
        {"affine": [[float("nan")] * 4] * 4},
        {"shape": [10**30, 1, 1]},
    ],
)
def test_no_grid(change):
    with pytest.raises(UserError, match="contract"):
        geometry.describe_grid({**entry(BASE, (3, 3, 3)), **change})


def test_describe():
    assert geometry.describe_grid(entry(BASE, (61, 73, 61))) == "3×3×4 mm, 61×73×61, LAS from (90, -126, -72) mm"
    assert geometry.describe_grid(entry(np.diag([4.0, 4, 4, 1]), (2, 3, 4))) == "4 mm, 2×3×4, RAS from (0, 0, 0) mm"
