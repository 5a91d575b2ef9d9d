"""Eigen-CAM: equal to a plain SVD, placed where the features are, and at work on every encoder that keeps positions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ssl4neuro.encoders import ENCODERS
from ssl4neuro.errors import UserError
from ssl4neuro.explain import eigen_cam, feature_map
from ssl4neuro.explain.eigencam import first_component, tile, upsample
from ssl4neuro.registry import Component, build
from ssl4neuro.types import Encoding


def volumes() -> dict[str, Tensor]:
    torch.manual_seed(1)
    valid = torch.zeros(3, 26, 30, 25, dtype=torch.bool)
    valid[:, 2:-2, 3:-3, 2:-2] = True
    return {"x": torch.randn(3, 1, 26, 30, 25) * valid[:, None], "valid": valid}


def courses() -> dict[str, Tensor]:
    torch.manual_seed(2)
    valid = torch.arange(91) < torch.tensor([91, 64, 40])[:, None]
    return {"x": torch.randn(3, 91) * valid, "valid": valid, "rate": torch.tensor([2.0, 0.7, 2.0])}


def clips() -> dict[str, Tensor]:
    torch.manual_seed(3)
    valid = torch.arange(5) < torch.tensor([5, 4, 5])[:, None]
    x = torch.randn(3, 1, 5, 65, 52) * valid[:, None, :, None, None]
    return {"x": x, "valid": valid, "rate": torch.full((3,), 0.05)}


SAMPLES: dict[str, Callable[[], dict[str, Tensor]]] = {
    "volume_resnet": volumes,
    "course_conv": courses,
    "course_session": courses,
    "frame": clips,
    "clip": clips,
    "tubelet_vit": clips,
}
WITHOUT_POSITIONS = {"course_session"}  # its courses are mixed with one another


def make(name: str, preset: str = "tiny"):
    torch.manual_seed(0)
    return build(ENCODERS, Component(name, {"preset": preset})).eval()


def test_every_encoder_has_a_sample() -> None:
    assert set(SAMPLES) == set(ENCODERS)


@pytest.mark.parametrize("name", [n for n in SAMPLES if n not in WITHOUT_POSITIONS])
def test_every_encoder_with_positions_is_explained_on_the_grid_of_its_input(name: str) -> None:
    encoder, sample = make(name), SAMPLES[name]()
    cam = eigen_cam(encoder, **sample)
    space = sample["x"].shape[1:] if sample["x"].ndim == 2 else sample["x"].shape[2:]
    assert cam.values.shape == (3, *space)
    valid = sample["valid"].reshape(*sample["valid"].shape, *[1] * (cam.values.ndim - sample["valid"].ndim))
    assert (cam.values[~valid.expand_as(cam.values)] == 0).all()
    assert torch.allclose(cam.values.flatten(1).amax(1), torch.ones(3))
    assert cam.values.min() >= 0
    assert ((cam.share > 0) & (cam.share <= 1)).all()
    alone = eigen_cam(encoder, **{key: value[1:2] for key, value in sample.items()})
    assert torch.allclose(alone.values[0], cam.values[1], atol=1e-3), "a sample's map depends on the others in its batch"


def test_presets_of_the_first_author_are_explained() -> None:
    for name in ("volume_resnet", "course_conv"):
        assert eigen_cam(make(name, "author"), **SAMPLES[name]()).values.isfinite().all()


@pytest.mark.parametrize("name", sorted(WITHOUT_POSITIONS))
def test_an_encoder_without_positions_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"keeps no feature map.*occlusion"):
        eigen_cam(make(name), **SAMPLES[name]())


def test_a_level_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="levels 0 to 3, not 7"):
        eigen_cam(make("volume_resnet"), **volumes(), level=7)


def test_levels_of_frames_and_of_clips_are_told_apart() -> None:
    sample = clips()
    for name in ("frame", "clip"):
        encoder = make(name)
        encoding = encoder(**sample)
        features = feature_map(encoder, encoding, sample["x"], level=0)
        channels = encoding.levels[0].shape[2 if name == "frame" else 1]
        assert features.shape[1] == channels, name
        assert features.shape[2] == 5, name


def test_the_default_level_is_the_coarsest_that_still_says_where() -> None:
    encoder, sample = make("volume_resnet"), volumes()
    assert feature_map(encoder, encoder(**sample), sample["x"]).shape[2:] == (7, 8, 7)


def test_projection_equals_a_plain_svd() -> None:
    features = torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(0))
    projected, share = first_component(features)
    for one, found, part in zip(features, projected, share, strict=True):
        positions = one.flatten(1).T.double().numpy()
        _, singular, right = np.linalg.svd(positions, full_matrices=False)
        expected = positions @ right[0]
        expected = expected * np.sign((expected * np.linalg.norm(positions, axis=1)).sum())
        assert np.allclose(found.flatten().numpy(), expected, atol=1e-5)
        assert float(part) == pytest.approx(singular[0] ** 2 / (singular**2).sum(), rel=1e-5)


def test_features_that_are_nowhere_negative_give_maps_that_are_nowhere_negative() -> None:
    features = torch.rand(3, 8, 6, 6, generator=torch.Generator().manual_seed(1))
    assert (first_component(features)[0] >= 0).all()


def test_positions_that_the_encoder_zeroed_have_no_part() -> None:
    features = torch.randn(1, 6, 9, generator=torch.Generator().manual_seed(2))
    padded = torch.cat([features, torch.zeros(1, 6, 4)], dim=2)
    for whole, cut in zip(first_component(padded), first_component(features), strict=True):
        assert torch.allclose(whole[..., : cut.shape[-1]] if whole.ndim > 1 else whole, cut, atol=1e-6)


class Planted(nn.Module):
    """Features are averages over tiles of the input, in two channels."""

    dim = 2

    def forward(self, x: Tensor, valid=None, rate=None, group=None, times=None) -> Encoding:
        x = x[:, None] if x.ndim == 2 else x
        pool = {3: nn.AvgPool1d, 4: nn.AvgPool2d, 5: nn.AvgPool3d}[x.ndim](4, ceil_mode=True)
        level = torch.cat([pool(x), 2 * pool(x)], dim=1)
        return Encoding(level.flatten(2).mean(2), level.flatten(2).transpose(1, 2), (level,))


@pytest.mark.parametrize("space", [(96,), (32, 40), (24, 28, 26), (12, 32, 36)])
def test_the_map_peaks_where_the_input_is_active(space: tuple[int, ...]) -> None:
    centre = [side // 3 for side in space]
    grid = torch.stack(torch.meshgrid(*[torch.arange(side) - c for side, c in zip(space, centre, strict=True)], indexing="ij"))
    blob = torch.exp(-grid.square().sum(0) / 18.0)
    x = blob[None] if len(space) == 1 else blob[None, None]
    values = eigen_cam(Planted(), x, level=0).values[0]
    peak = np.unravel_index(int(values.argmax()), space)
    assert np.abs(np.array(peak) - centre).max() <= 4, "more than a tile away"


@given(st.integers(1, 200), st.integers(0, 5))
def test_halvings_that_round_up_are_recognised(side: int, halvings: int) -> None:
    positions = side
    for _ in range(halvings):
        positions = -(-positions // 2)
    step = tile(side, positions)
    assert -(-side // int(step)) == positions
    if positions > 1:
        assert step == 2**halvings or -(-side // 2**halvings) == -(-side // int(step))


def test_a_position_stands_in_the_middle_of_its_tile() -> None:
    grid = torch.zeros(1, 5)
    grid[0, 3] = 1.0
    fine = upsample(grid, (19,))[0]  # tiles of 4, the last cut to 3
    assert fine.shape == (19,)
    assert (fine * torch.arange(19)).sum() / fine.sum() == pytest.approx(13.5, abs=0.2)
