"""Clip augmentation: geometry against scipy and torch, masks, replay, identity, independence of the batch."""

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from ssl4neuro.augment import AUGMENTATIONS, ClipAugment, Clips, Keyed, sample_frames
from ssl4neuro.augment.clip_geometry import Geometry, displacement, source_pixels
from ssl4neuro.registry import Component, build

OFF = {**ClipAugment.PRESETS["none"], "frames": 6}
EVERYTHING = {
    "frames": 7, "phase_shift": 1.0, "drop": 0.2, "reverse": 0.5, "rotation_deg": 40.0, "flip_h": True, "flip_v": True,
    "elastic": 1.5, "gamma": 0.5, "contrast": 0.3, "bias": 0.15, "cutout": 0.3,
}  # fmt: skip


@pytest.fixture
def clips():
    """Five clips of 9, 12, 1, 0 and 5 frames of 17 x 22 pixels, with masks on some frames; padding is 0."""
    torch.manual_seed(0)
    length = torch.tensor([9, 12, 1, 0, 5])
    valid = torch.arange(12) < length[:, None]
    x = torch.randn(5, 2, 12, 17, 22) * valid[:, None, :, None, None]
    times = torch.where(valid, torch.arange(12) * 0.05 + 0.2, torch.nan)
    masks = torch.randint(0, 4, (5, 12, 17, 22))
    masks[:, [1, 2, 4, 5, 7]] = -1
    masks[~valid] = -1
    return Clips(x, valid, times, masks)


def rows_of(clips, order):
    return Clips(*[None if part is None else part[order] for part in clips])


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, atol=0, rtol=0, equal_nan=True)


def test_presets_are_built_from_the_table():
    for preset in ClipAugment.PRESETS:
        build(AUGMENTATIONS, Component("clip", {"preset": preset}))
    off = ClipAugment(**OFF)
    for part, neutral in ((off.geometry, Geometry()), (off.intensity, type(off.intensity)())):
        assert part == neutral
    assert set(OFF) <= set(inspect.signature(ClipAugment).parameters)


@pytest.mark.parametrize("sampling", ["cycle", "contiguous", "stride"])
def test_zero_strength_only_selects_frames(clips, sampling):
    out = ClipAugment(**OFF, sampling="cycle")(clips, Keyed(0, 0, torch.arange(5)))
    assert_same(out, sample_frames(clips, 6))
    whole = rows_of(clips, [1])
    assert_same(sample_frames(whole, 12, sampling), whole)
    assert_same(ClipAugment(**{**OFF, "frames": 12}, sampling=sampling)(whole, Keyed(0, 0, torch.arange(1))), whole)


def test_replay_key_and_stream(clips):
    augment, keyed = ClipAugment(**EVERYTHING), Keyed(0, 0, torch.arange(5))
    params = augment.draw(keyed, clips)
    first = augment.apply(clips, params)
    assert_same(first, augment.apply(clips, params))
    assert_same(first, augment(clips, keyed))
    assert not torch.allclose(first.x, augment(clips, keyed.with_view(1)).x, atol=0.1)
    assert not torch.allclose(first.x, augment(clips, Keyed(0, 1, torch.arange(5))).x, atol=0.1)
    assert_same(first, ClipAugment(**EVERYTHING)(clips, keyed))
    other = ClipAugment(**EVERYTHING, stream="motion").draw(keyed, clips)
    assert (other["matrix"] != params["matrix"]).flatten(1).any(1).all()


@pytest.mark.parametrize("linear", [False, True])
def test_bits_do_not_depend_on_the_batch(clips, linear):
    augment = ClipAugment(**EVERYTHING, linear=linear)
    whole = augment(clips, Keyed(3, 1, torch.arange(5)))
    for order in ([4], [2, 0], [1, 3, 4]):
        part = augment(rows_of(clips, order), Keyed(3, 1, torch.tensor(order)))
        assert_same(part, rows_of(whole, order))
    shorter = Clips(clips.x[[0, 4], :, :9], clips.valid[[0, 4], :9], clips.times[[0, 4], :9], clips.masks[[0, 4], :9])
    assert_same(augment(shorter, Keyed(3, 1, torch.tensor([0, 4]))), rows_of(whole, [0, 4]))


def test_padding_never_shows(clips):
    dirty = clips.x.clone()
    dirty.transpose(1, 2)[~clips.valid] = torch.nan
    augment, keyed = ClipAugment(**EVERYTHING), Keyed(0, 0, torch.arange(5))
    a, b = augment(clips, keyed), augment(clips._replace(x=dirty), keyed)
    filled = [0, 1, 2, 4]
    assert_same(rows_of(a, filled), rows_of(b, filled))
    assert not a.valid[3].any()
    assert (a.x[3] == 0).all()
    assert (b.x[3] == 0).all()
    assert (a.masks[3] == -1).all()


def naive(clips, params, i):
    """Row i frame by frame: the chosen frame through scipy's interpolation at the pixels asked for."""
    rows, columns = source_pixels(params, tuple(clips.x.shape[-2:]))
    at = np.stack([rows[i].double().numpy() + 8, columns[i].double().numpy() + 10.5])
    frames = clips.x[i].double().numpy()
    low = frames[:, clips.valid[i].numpy()].min()
    shift = [[ndimage.map_coordinates(f - low, at, order=1, mode="grid-constant") for f in channel] for channel in frames]
    nearest = [ndimage.map_coordinates(m.numpy(), np.floor(at + 0.5), order=0, mode="constant") for m in clips.masks[i]]
    return np.array(shift) + low, np.array(nearest)


def test_geometry_equals_scipy_frame_by_frame(clips):
    geometry = {"rotation_deg": 60.0, "scale": 0.2, "shift": 0.1, "flip_h": True, "flip_v": True, "elastic": 2.0}
    augment = ClipAugment(**{**OFF, "frames": 12, **geometry})
    clips = rows_of(clips, [1])._replace(valid=torch.ones(1, 12, dtype=torch.bool))
    for row in range(8):
        params = augment.draw(Keyed(0, 0, torch.tensor([row])), clips)
        out = augment.apply(clips, params)
        expected, masks = naive(clips, params, 0)
        np.testing.assert_allclose(out.x[0].numpy(), expected, atol=1e-4)
        labelled = [j for j in range(12) if j not in (1, 2, 4, 5, 7)]
        assert (out.masks[0][labelled].numpy() == masks[labelled]).all()
        assert (out.masks[0][[1, 2, 4, 5, 7]] == -1).all()
        assert (out.masks[0][labelled] >= 0).all()


def test_affine_part_equals_torch(clips):
    geometry = Geometry(rotation_deg=90.0, scale=0.3, shift=0.2)
    params = geometry.draw(Keyed(0, 0, torch.arange(50)), (17, 22))
    rows, columns = source_pixels(params, (17, 22))
    angle = Keyed(0, 0, torch.arange(50)).uniform("clip.angle", (), -90.0, 90.0) * torch.pi / 180
    factor = Keyed(0, 0, torch.arange(50)).uniform("clip.scale", (), 0.7, 1.3)
    moved = Keyed(0, 0, torch.arange(50)).uniform("clip.shift", (2,), -0.2, 0.2) * torch.tensor([17, 22])
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1)
    point = torch.stack([rows[:, 3, 5], columns[:, 3, 5]], 1)  # input pixel shown at output pixel (3, 5)
    back = factor[:, None] * (rotation @ point[:, :, None])[:, :, 0] + moved
    torch.testing.assert_close(back, torch.tensor([3 - 8.0, 5 - 10.5]).expand(50, 2), atol=2e-5, rtol=0)


def test_elastic_field_equals_torch_and_keeps_its_amplitude():
    knots = Geometry(elastic=3.0).draw(Keyed(0, 0, torch.arange(40)), (31, 40))["knots"]
    assert knots.abs().max() <= 3.0
    expected = F.interpolate(knots, (31, 40), mode="bicubic", align_corners=True)
    torch.testing.assert_close(displacement(knots, (31, 40)), expected, atol=1e-5, rtol=0)


def test_author_elastic_matches_its_source():
    # Alpha 33, sigma 5 of torchvision at 224 pixels, from its definition: blurred uniform noise times alpha / 2 pixels.
    torch.manual_seed(0)
    noise = torch.rand(2, 224, 224) * 2 - 1
    wanted = ndimage.gaussian_filter(noise.numpy(), (0, 5, 5)).std() * 33 / 2
    author = ClipAugment(**ClipAugment.PRESETS["author"])
    field = displacement(author.geometry.draw(Keyed(0, 0, torch.arange(4)), (224, 224))["knots"], (224, 224))
    assert field.std() == pytest.approx(wanted, rel=0.15)


def test_masks_move_with_the_image():
    # A disc as image and as mask: wherever the disc goes, the mask goes too, in every frame.
    grid = torch.stack(torch.meshgrid(torch.arange(48.0), torch.arange(40.0), indexing="ij"))
    discs = [((grid - torch.tensor([18.0 + t, 15.0 + 2 * t])[:, None, None]).square().sum(0) < 64) for t in range(6)]
    mask = torch.stack(discs).long().expand(30, 6, 48, 40).clone()
    clips = Clips(mask[:, None].float(), torch.ones(30, 6, dtype=torch.bool), torch.full((30, 6), torch.nan), mask)
    moving = {
        "rotation_deg": 180.0,
        "scale": 0.2,
        "shift": 0.1,
        "flip_h": True,
        "elastic": 3.0,
        "phase_shift": 1.0,
        "speed": 0.2,
    }
    out = ClipAugment(**{**OFF, **moving})(clips, Keyed(0, 0, torch.arange(30)))
    overlap = ((out.x[:, 0] > 0.5) == (out.masks == 1)).float().mean((1, 2, 3))
    assert overlap.min() > 0.99
    assert (out.masks == 1).float().mean((1, 2, 3)).min() > 0.03
    assert not torch.equal(out.masks, mask)


def test_mirroring_alone_is_exact_and_off_by_default():
    torch.manual_seed(1)
    x = torch.randn(100, 1, 4, 9, 8)
    masks = torch.randint(0, 3, (100, 4, 9, 8))
    clips = Clips(x, torch.ones(100, 4, dtype=torch.bool), torch.zeros(100, 4), masks)
    keyed = Keyed(0, 0, torch.arange(100))
    out = ClipAugment(**{**OFF, "frames": 4, "flip_h": True})(clips, keyed)
    flipped = (out.x == x.flip(4)).flatten(1).all(1)
    assert 30 < flipped.sum() < 70
    assert torch.equal(out.x[~flipped], x[~flipped])
    assert torch.equal(out.masks[flipped], masks[flipped].flip(3))
    out = ClipAugment(**{**OFF, "frames": 4, "flip_v": True})(clips, keyed)
    upside = (out.x == x.flip(3)).flatten(1).all(1)
    assert 30 < upside.sum() < 70
    ramp = torch.linspace(0, 1, 32).expand(100, 1, 4, 32, 32)  # bright on the right
    out = ClipAugment()(Clips(ramp, clips.valid, clips.times), keyed)
    assert (out.x[..., 16:].mean((1, 2, 3, 4)) > out.x[..., :16].mean((1, 2, 3, 4))).all()


def test_outside_takes_the_lowest_value():
    x = torch.rand(4, 1, 6, 16, 16) + 5
    clips = Clips(x, torch.ones(4, 6, dtype=torch.bool), torch.zeros(4, 6))
    out = ClipAugment(**{**OFF, "shift": 0.9})(clips, Keyed(0, 0, torch.arange(4))).x
    assert (out.flatten(1).amin(1) >= x.flatten(1).amin(1) - 1e-5).all()
    assert (out == x.flatten(1).amin(1)[:, None, None, None, None]).flatten(1).any(1).all()


@pytest.mark.parametrize(
    "options",
    [{"frames": 0}, {"speed": 1.0}, {"drop": -0.1}, {"reverse": 2.0}, {"phase_shift": 1.5}, {"scale": 1.0}, {"elastic": -1.0},
     {"rotation_deg": 181.0}, {"gamma": -1.0}, {"bias": 0.5}, {"blur": 1.0}, {"cutout": 1.0}],
)  # fmt: skip
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ClipAugment(**options)
