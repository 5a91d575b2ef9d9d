"""Volume augmentation: geometry against scipy and phantoms, mask, replay, independence of the batch."""

import inspect

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ssl4neuro.augment import AUGMENTATIONS, Keyed, VolumeAugment
from ssl4neuro.augment.volume import resample, rotation_matrix
from ssl4neuro.registry import Component, build

OFF = VolumeAugment.PRESETS["none"]


def ellipsoid(shape=(20, 24, 20)):
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, s) for s in shape], indexing="ij"))
    return torch.from_numpy((grid**2).sum(0) < 0.9)


@pytest.fixture
def maps():
    torch.manual_seed(0)
    valid = ellipsoid()[None].repeat(6, 1, 1, 1)
    x = torch.nn.functional.avg_pool3d(torch.randn(6, 1, 20, 24, 20), 3, 1, 1) * 5
    return x * valid[:, None], valid


def test_presets_are_built_from_the_table():
    for preset in VolumeAugment.PRESETS:
        build(AUGMENTATIONS, Component("volume", {"preset": preset}))
    assert set(OFF) == set(inspect.signature(VolumeAugment).parameters) - {"flip_lr", "lr_axis"}


def test_zero_strength_is_the_identity(maps):
    x, valid = maps
    out, mask = VolumeAugment(**OFF)(x, valid, Keyed(0, 0, torch.arange(6)))
    assert torch.equal(out, x)
    assert torch.equal(mask, valid)


def test_replay_and_key(maps):
    x, valid = maps
    augment, keyed = VolumeAugment(), Keyed(0, 0, torch.arange(6))
    params = augment.draw(keyed, (20, 24, 20))
    first, _ = augment.apply(x, valid, params)
    assert torch.equal(first, augment.apply(x, valid, params)[0])
    assert torch.equal(first, augment(x, valid, keyed)[0])
    assert not torch.allclose(first, augment(x, valid, keyed.with_view(1))[0], atol=0.1)
    assert not torch.allclose(first, x, atol=0.1)


def test_independent_of_the_batch(maps):
    x, valid = maps
    augment = VolumeAugment(flip_lr=True)
    whole, _ = augment(x, valid, Keyed(3, 1, torch.arange(6)))
    for order in ([4], [5, 2, 0]):
        part, _ = augment(x[order], valid[order], Keyed(3, 1, torch.tensor(order)))
        torch.testing.assert_close(part, whole[order], atol=1e-5, rtol=0)
        for name, value in augment.draw(Keyed(3, 1, torch.tensor(order)), (20, 24, 20)).items():
            expected = augment.draw(Keyed(3, 1, torch.arange(6)), (20, 24, 20))[name]
            assert torch.equal(value, expected if name == "side" else expected[order]), name


def test_nothing_outside_the_mask(maps):
    x, valid = maps
    out, mask = VolumeAugment(rotation_deg=180.0, shift_voxels=5.0, noise_sd=1.0)(x, valid, Keyed(0, 0, torch.arange(6)))
    assert torch.equal(mask, valid)
    assert (out[~valid[:, None]] == 0).all()
    assert (out[valid[:, None]] != 0).float().mean() > 0.5


def test_left_right_is_kept_by_default():
    # A phantom with one hot side: whatever is drawn, that side stays hot; with flip_lr about half are mirrored.
    x = torch.zeros(200, 1, 16, 16, 16)
    x[:, :, 3:6, 5:11, 5:11] = 1
    valid = torch.ones(200, 16, 16, 16, dtype=torch.bool)
    out, _ = VolumeAugment(threshold=0.0)(x, valid, Keyed(0, 0, torch.arange(200)))
    left = out[:, 0, :8].sum((1, 2, 3)) > out[:, 0, 8:].sum((1, 2, 3))
    assert left.all()
    out, _ = VolumeAugment(threshold=0.0, flip_lr=True)(x, valid, Keyed(0, 0, torch.arange(200)))
    left = out[:, 0, :8].sum((1, 2, 3)) > out[:, 0, 8:].sum((1, 2, 3))
    assert 70 < left.sum() < 130
    flipped, _ = VolumeAugment(**{**OFF, "flip_lr": True, "lr_axis": 0})(x, valid, Keyed(0, 0, torch.arange(200)))
    assert torch.equal(flipped[~left], x[~left].flip(2))
    assert torch.equal(flipped[left], x[left])


def test_rotation_matrix_equals_scipy():
    torch.manual_seed(0)
    axis, angle = torch.randn(50, 3), (torch.rand(50) * 2 - 1) * torch.pi
    unit = (axis / axis.norm(dim=1, keepdim=True)).double().numpy()
    expected = Rotation.from_rotvec(unit * angle.double().numpy()[:, None]).as_matrix()
    np.testing.assert_allclose(rotation_matrix(axis, angle).numpy(), expected, atol=1e-6)


def test_resampling_equals_scipy(maps):
    x, _ = maps
    augment = VolumeAugment()
    params = augment.draw(Keyed(0, 0, torch.arange(6)), (20, 24, 20))
    out = resample(x, params["matrix"], params["offset"])
    centre = (np.array([20, 24, 20]) - 1) / 2
    for i in range(3):
        matrix, offset = params["matrix"][i].double().numpy(), params["offset"][i].double().numpy()
        expected = ndimage.affine_transform(
            x[i, 0].double().numpy(), matrix, centre + offset - matrix @ centre, order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(out[i, 0].numpy(), expected, atol=1e-4)


def test_rotation_and_scale_are_recovered_from_a_phantom():
    # Two Gaussian blobs on a rod: its direction turns by the drawn rotation, its length grows by the drawn scale.
    grid = torch.stack(torch.meshgrid(*[torch.arange(33.0) - 16] * 3, indexing="ij"))
    ends = torch.tensor([[9.0, 3.0, -2.0], [-6.0, -4.0, 5.0]])
    blobs = [torch.exp(-((grid - e[:, None, None, None]) ** 2).sum(0) / 8) for e in ends]
    augment = VolumeAugment(**{**OFF, "rotation_deg": 25.0, "scale": 0.1, "shift_voxels": 2.0})
    keyed = Keyed(5, 0, torch.arange(20))
    angle = keyed.uniform("volume.angle", (), -25.0, 25.0) * torch.pi / 180
    factor = keyed.uniform("volume.scale", (), 0.9, 1.1)
    shift = keyed.uniform("volume.shift", (3,), -2.0, 2.0)
    rotation = rotation_matrix(keyed.normal("volume.axis", (3,)), angle)
    assert angle.abs().max() > 0.3
    for blob, end in zip(blobs, ends, strict=True):
        out, _ = augment(blob.expand(20, 1, 33, 33, 33), None, keyed)
        where = (out[:, 0, None] * grid).sum((2, 3, 4)) / out.sum((2, 3, 4))
        expected = factor[:, None] * (rotation @ end) + shift
        torch.testing.assert_close(where, expected, atol=0.05, rtol=0)


def test_angles_stay_within_the_bound_and_axes_cover_the_sphere():
    keyed = Keyed(0, 0, torch.arange(3000))
    matrix = VolumeAugment(**{**OFF, "rotation_deg": 10.0}).draw(keyed, (16, 16, 16))["matrix"]
    cosine = (torch.diagonal(matrix, dim1=1, dim2=2).sum(1) - 1) / 2
    degrees = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    assert degrees.max() <= 10.01
    assert degrees.max() > 9.8
    assert degrees.mean() == pytest.approx(5, abs=0.3)
    odd = matrix - matrix.transpose(1, 2)
    skew = torch.stack([odd[:, 2, 1], odd[:, 0, 2], odd[:, 1, 0]], 1)
    axes = torch.nn.functional.normalize(skew[degrees > 1], dim=1)
    assert (axes.T @ axes / len(axes) - torch.eye(3) / 3).abs().max() < 0.03


def test_noise_threshold_and_smoothing(maps):
    x, valid = maps
    keyed = Keyed(0, 0, torch.arange(6))
    noisy, _ = VolumeAugment(**{**OFF, "noise_sd": 0.3})(x, valid, keyed)
    assert (noisy - x)[valid[:, None]].std() == pytest.approx(0.3, rel=0.02)

    augment = VolumeAugment(**{**OFF, "threshold": 2.0})
    level = augment.draw(keyed, (20, 24, 20))["threshold"][:, None, None, None, None]
    torch.testing.assert_close(augment(x, valid, keyed)[0], torch.where(x.abs() < level, 0.0, x))

    augment = VolumeAugment(**{**OFF, "smoothing_voxels": 0.7})
    weight = augment.draw(keyed, (20, 24, 20))["blur"]
    assert (weight <= 0.7**2 / 2).all()
    out, _ = augment(x, None, keyed)
    w = float(weight[2])
    expected = x[2, 0].double().numpy()
    for axis in range(3):
        expected = ndimage.convolve1d(expected, [w, 1 - 2 * w, w], axis=axis, mode="constant")
    np.testing.assert_allclose(out[2, 0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "side"), [((46, 55, 46), 8), ((23, 27, 23), 4), ((17, 20, 17), 3)])
def test_cutout_is_one_cube_in_proportion_to_the_grid(shape, side):
    x = torch.ones(40, 1, *shape)
    out, _ = VolumeAugment(**{**OFF, "cutout": 8})(x, None, Keyed(0, 0, torch.arange(40)))
    assert ((out == 0).sum((1, 2, 3, 4)) == side**3).all()
    zero = (out[:, 0] == 0).nonzero()
    spans = [zero[zero[:, 0] == i][:, 1:] for i in range(40)]
    assert all(((s.amax(0) - s.amin(0)) == side - 1).all() for s in spans)
    assert len({tuple(s.amin(0).tolist()) for s in spans}) > 20


@pytest.mark.parametrize(
    "options", [{"rotation_deg": -1.0}, {"scale": 1.0}, {"smoothing_voxels": 2.0}, {"noise_sd": -0.1}, {"lr_axis": 3}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        VolumeAugment(**options)
