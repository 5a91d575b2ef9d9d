"""Applying adaptations: exact moves against data made on the other grid, interpolation against nilearn, courses in Hz."""

import itertools

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nilearn.image import resample_img
from nilearn.signal import butterworth

from ssl4neuro import adapt, contract, geometry
from ssl4neuro.errors import UserError

AFFINE = np.array([[3.0, 0, 0, -20], [0, 3, 0, -30], [0, 0, 3, -10], [0, 0, 0, 1]])


def volume(affine: np.ndarray, shape: tuple[int, ...], **more: object) -> dict:
    return {"kind": "volume", "affine": np.asarray(affine).tolist(), "shape": list(shape), **more}


def course(*trs: float | None, band: list[float] | None = None) -> dict:
    return {"kind": "course", "tr": trs[0] if len(trs) == 1 else None, "trs": list(trs), "band": band}


def in_the_world(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A field of the position in mm: what preparing on any grid would give. Zero beyond 45 mm, the "brain"."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    x, y, z = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    return (np.sin(x / 9) + np.cos(y / 11) * z / 20) * (np.sqrt(x**2 + y**2 + z**2) < 45)


@given(
    axes=st.sampled_from(list(itertools.permutations(range(3)))),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    offset=st.tuples(*[st.integers(-4, 4)] * 3),
    shape=st.tuples(*[st.integers(3, 9)] * 3),
)
@settings(max_examples=40, deadline=None)
def test_exact_move_equals_preparing_again(axes, flips, offset, shape):
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for b, a in enumerate(axes):
        step[a, b], step[a, 3] = (-1, offset[a] + shape[b] - 1) if flips[b] else (1, offset[a])
    target = AFFINE @ step
    here = (8, 7, 9)
    x = torch.from_numpy(in_the_world(AFFINE, here))[None, None].float()
    found, expected = volume(AFFINE, here), volume(target, shape)
    if geometry.grid_move(found, expected).coverage == 0:
        return
    moved, valid = adapt.adapt_volume(x, torch.ones(1, *here, dtype=torch.bool), found, expected)
    truth = torch.from_numpy(in_the_world(target, shape)).float()
    torch.testing.assert_close(moved[0, 0][valid[0]], truth[valid[0]], atol=1e-6, rtol=0)
    assert not moved[0, 0][~valid[0]].any()
    inside = np.linalg.inv(AFFINE) @ target @ np.stack([*[g.ravel() for g in np.indices(shape)], np.ones(np.prod(shape))])
    above, below = inside[:3].T + 0.5, np.array(here) - 0.5 - inside[:3].T
    inside = ((above > 0) & (below > 0)).all(1).reshape(shape)
    np.testing.assert_array_equal(valid[0].numpy(), inside)


@pytest.mark.filterwarnings("ignore:Resampling binary images")  # the mask, on purpose
@pytest.mark.parametrize("size", [2.0, 4.0, 5.5])
def test_interpolation_equals_nilearn(size):
    here, target = (30, 33, 28), np.diag([size, size, size, 1.0])
    target[:3, 3] = [-18.3, -24, -7.1]
    shape = tuple(int(60 // size) for _ in range(3))
    rng = np.random.default_rng(0)
    data = rng.normal(size=here).astype(np.float32)
    mask = np.zeros(here, dtype=bool)
    mask[2:-2, 2:-2, 2:-2] = True
    moved, valid = adapt.adapt_volume(
        torch.from_numpy(data * mask)[None, None], torch.from_numpy(mask)[None],
        volume(AFFINE, here), volume(target, shape), resample=True,
    )  # fmt: skip
    options = {"target_affine": target, "target_shape": shape, "interpolation": "linear"}
    reference, share = (
        resample_img(nibabel.Nifti1Image((v * mask).astype(np.float32), AFFINE), **options).get_fdata()
        for v in (data, np.ones_like(data))
    )
    inside = share >= 0.5
    np.testing.assert_array_equal(valid[0].numpy(), inside)
    truth = (reference / share.clip(0.5))[inside]
    truth = (truth - truth.mean()) / truth.std()
    np.testing.assert_allclose(moved[0, 0][valid[0]].numpy(), truth, atol=2e-4)
    assert not moved[0, 0][~valid[0]].any()


def test_interpolation_does_not_bleed_in_what_lies_outside_the_mask():
    here, target = (12, 12, 12), np.diag([4.0, 4, 4, 1])
    mask = torch.zeros(1, *here, dtype=torch.bool)
    mask[:, 3:9, 3:9, 3:9] = True
    x = torch.randn(1, 1, *here, generator=torch.Generator().manual_seed(0))
    grids = volume(np.diag([3.0, 3, 3, 1]), here), volume(target, (9, 9, 9))
    first = adapt.adapt_volume(x, mask, *grids, resample=True)
    second = adapt.adapt_volume(torch.where(mask[:, None], x, 1e3), mask, *grids, resample=True)
    torch.testing.assert_close(first, second)


def test_resampling_has_to_be_asked_for():
    x, valid = torch.zeros(1, 1, 4, 4, 4), torch.ones(1, 4, 4, 4, dtype=torch.bool)
    other = volume(AFFINE @ np.diag([1.5, 1, 1, 1]), (4, 4, 4))
    with pytest.raises(UserError, match="--adapt grid"):
        adapt.adapt_volume(x, valid, volume(AFFINE, (4, 4, 4)), other)
    far = AFFINE.copy()
    far[0, 3] += 999
    with pytest.raises(UserError, match="do not overlap"):
        adapt.adapt_volume(x, valid, volume(AFFINE, (4, 4, 4)), volume(far, (4, 4, 4)), resample=True)


def test_voxels_outside_the_mask_of_training_are_left_out():
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[1:3] = True
    expected = volume(AFFINE, (4, 4, 4), mask=geometry.pack_mask(mask))
    mine = torch.ones(2, 4, 4, 4, dtype=torch.bool)
    mine[1, 2] = False
    x, valid = adapt.adapt_volume(torch.ones(2, 1, 4, 4, 4), mine, volume(AFFINE, (4, 4, 4)), expected)
    np.testing.assert_array_equal(valid.numpy(), mine.numpy() & mask)
    np.testing.assert_array_equal(x[:, 0].numpy(), valid.numpy().astype(np.float32))


@given(tr=st.sampled_from([0.6, 0.72, 1.5, 2.0, 2.045, 2.5, 3.0]), target=st.sampled_from([0.72, 1.0, 2.0, 2.2, 3.0]))
@settings(max_examples=35, deadline=None)
def test_frequencies_in_hz_are_kept(tr, target):
    time = np.arange(300) * tr
    frequency = 0.6 * 0.5 / max(tr, target)  # Hz, below both Nyquist frequencies
    values = np.sin(2 * np.pi * frequency * time + 0.4)[None].astype(np.float32)
    resampled = adapt.resample_course(values, tr, target, standardise=False)[0]
    there = np.arange(len(resampled)) * target
    assert there[-1] <= time[-1] + 1e-6 < there[-1] + target  # within the acquisition, and all of it
    middle = slice(len(there) // 10, -len(there) // 10)
    np.testing.assert_allclose(resampled[middle], np.sin(2 * np.pi * frequency * there + 0.4)[middle], atol=0.03)
    assert np.abs(resampled - np.sin(2 * np.pi * frequency * there + 0.4)).max() < 0.6  # nor do the ends run away


@pytest.mark.parametrize(("tr", "target"), [(0.72, 2.0), (1.0, 3.0), (0.5, 2.2)])
def test_what_the_new_rate_cannot_hold_is_not_folded_back(tr, target):
    time = np.arange(600) * tr
    frequency = 0.75 / target  # above the new Nyquist frequency of 0.5 / target
    assert frequency < 0.5 / tr
    values = np.sin(2 * np.pi * frequency * time)[None].astype(np.float32)
    resampled = adapt.resample_course(values, tr, target, standardise=False)[0]
    middle = slice(len(resampled) // 8, -len(resampled) // 8)
    assert np.abs(resampled[middle]).max() < 0.02
    assert np.abs(values[0, :: int(target / tr)]).max() > 0.5  # plain decimation would fold it


def test_resampled_courses_are_z_scored():
    values = np.random.default_rng(0).normal(size=(3, 200)).astype(np.float32)
    resampled = adapt.resample_course(values, 1.0, 2.0)
    assert resampled.shape == (3, 100)
    np.testing.assert_allclose(resampled.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(resampled.std(1), 1, atol=1e-4)


@pytest.mark.parametrize("band", [(0.01, 0.1), (0.0, 0.1), (0.01, np.inf), (0.01, 0.9)])
def test_band_pass_equals_nilearn(band):
    values = np.random.default_rng(0).normal(size=(2, 200)).astype(np.float32)
    filtered = adapt.band_pass(values, 2.0, band)
    low, high = band[0] or None, band[1] if band[1] < 0.25 else None
    options = {"sampling_rate": 0.5, "low_pass": high, "high_pass": low, "order": 5, "padtype": "odd"}
    reference = butterworth(values.T.astype(np.float64), copy=True, **options).T
    reference = (reference - reference.mean(1, keepdims=True)) / reference.std(1, keepdims=True)
    np.testing.assert_allclose(filtered, reference, atol=1e-4)


def test_band_pass_refuses_what_cannot_be():
    with pytest.raises(UserError, match="too few"):
        adapt.band_pass(np.zeros((1, 20), np.float32), 2.0, (0.01, 0.1))
    with pytest.raises(UserError, match="nothing above"):
        adapt.band_pass(np.zeros((1, 200), np.float32), 60.0, (0.01, 0.1))


def batch_of_two(trs: list[float]) -> dict:
    g = torch.Generator().manual_seed(3)
    valid = torch.ones(2, 1, 100, dtype=torch.bool)
    valid[1, :, 80:] = False
    return {
        "row": torch.arange(2),
        "inputs": {"map": torch.randn(2, 1, 1, 5, 5, 5, generator=g), "course": torch.randn(2, 1, 100, generator=g) * valid},
        "valid": {"map": torch.ones(2, 1, 5, 5, 5, dtype=torch.bool), "course": valid},
        "rate": {"course": torch.tensor(trs)},
    }


def test_a_batch_is_adapted_row_by_row():
    found = {"map": volume(AFFINE, (5, 5, 5)), "course": course(2.0, 3.0)}
    shifted = AFFINE.copy()
    shifted[0, 3] -= 3
    expected = {"map": volume(shifted, (6, 5, 5)), "course": course(2.0)}
    batch = batch_of_two([2.0, 3.0])
    differences = contract.enforce(expected, found, adapt=["tr"])
    adapted = adapt.adapt_batch(batch, expected, found, differences)
    assert adapted["inputs"]["map"].shape == (2, 1, 1, 6, 5, 5)
    torch.testing.assert_close(adapted["inputs"]["map"][..., 1:, :, :], batch["inputs"]["map"])
    assert not adapted["valid"]["map"][:, :, 0].any()
    torch.testing.assert_close(adapted["inputs"]["course"][0, 0, :100], batch["inputs"]["course"][0, 0])  # has the TR already
    truth = adapt.resample_course(batch["inputs"]["course"][1, :, :80].numpy(), 3.0, 2.0)[0]
    np.testing.assert_allclose(adapted["inputs"]["course"][1, 0, : len(truth)].numpy(), truth)
    assert adapted["valid"]["course"].sum((1, 2)).tolist() == [100, len(truth)]
    assert not adapted["inputs"]["course"][~adapted["valid"]["course"]].any()
    assert adapted["rate"]["course"].tolist() == [2.0, 2.0]
    assert batch["rate"]["course"].tolist() == [2.0, 3.0]  # the batch itself stays


def test_unknown_trs_and_bands():
    found = {"map": volume(AFFINE, (5, 5, 5)), "course": course(2.0, None)}
    expected = {"map": volume(AFFINE, (5, 5, 5)), "course": course(2.0, band=[0.02, 0.1])}
    batch = batch_of_two([2.0, float("nan")])
    differences = contract.enforce(expected, found, adapt=["unknown-tr", "band"])
    adapted = adapt.adapt_batch(batch, expected, found, differences)
    assert adapted["rate"]["course"].tolist() == [2.0, 2.0]
    truth = adapt.band_pass(batch["inputs"]["course"][1, :, :80].numpy(), 2.0, (0.02, 0.1))
    np.testing.assert_allclose(adapted["inputs"]["course"][1, :, :80].numpy(), truth)
    only_band = [d for d in differences if d.adaptation == "band"]
    with pytest.raises(UserError, match="unknown TR"):
        adapt.adapt_batch(batch, expected, found, only_band)


def test_nothing_happens_without_a_difference():
    found = {"map": volume(AFFINE, (5, 5, 5)), "course": course(2.0)}
    batch = batch_of_two([2.0, 2.0])
    adapted = adapt.adapt_batch(batch, found, found, contract.enforce(found, found))
    assert adapted["inputs"]["map"] is batch["inputs"]["map"]
    assert adapted["inputs"]["course"] is batch["inputs"]["course"]
