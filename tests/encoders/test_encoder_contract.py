"""What every encoder in the table must do, for every preset. A new encoder needs one sample here and passes or fails."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save

from ssl4neuro.encoders import ENCODERS
from ssl4neuro.registry import Component, build
from ssl4neuro.types import Encoder, Encoding


@dataclass
class Sample:
    """Inputs of one encoder; rows of a group are contiguous and `groups` splits them."""

    x: torch.Tensor
    valid: torch.Tensor
    rate: torch.Tensor | None = None
    group: torch.Tensor | None = None
    times: torch.Tensor | None = None

    def rows(self, index: list[int]) -> "Sample":
        return Sample(*[None if t is None else t[index] for t in (self.x, self.valid, self.rate, self.group, self.times)])

    def __call__(self, encoder) -> Encoding:
        return encoder(self.x, self.valid, self.rate, self.group, self.times)

    def valid_like_x(self) -> torch.Tensor:
        """`valid` with axes of length 1 where `x` has channels, and the rows and columns of clips."""
        if self.x.ndim == 2:
            return self.valid
        return self.valid[:, None].reshape(len(self.x), 1, *self.valid.shape[1:], *[1] * (self.x.ndim - self.valid.ndim - 1))

    def padded(self, before: int, after: int) -> "Sample":
        """Invalid positions around every axis that `valid` has, `before` a multiple of the encoder's total stride."""
        pads = [before, after] * (self.valid.ndim - 1)
        inner = [0, 0] * max(0, self.x.ndim - self.valid.ndim - 1)  # rows and columns of clips are never padding
        x, valid = F.pad(self.x, inner + pads), F.pad(self.valid, pads)
        times = None if self.times is None else F.pad(self.times, pads, value=torch.nan)
        return Sample(x, valid, self.rate, self.group, times)


def volumes() -> Sample:
    torch.manual_seed(1)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, s) for s in (17, 20, 16)], indexing="ij"))
    valid = torch.stack([(grid.square().sum(0) < r) for r in (0.9, 1.2, 0.8, 1.0)])
    return Sample(torch.randn(4, 1, 17, 20, 16) * valid[:, None], valid, None, torch.tensor([5, 5, 2, 7]))


def courses() -> Sample:
    torch.manual_seed(2)
    lengths = torch.tensor([90, 90, 90, 64, 64, 32, 71])
    valid = torch.arange(90) < lengths[:, None]
    valid[:3, 40:47] = False  # a gap inside, shared by the scan
    white = torch.randn(7, 90).cumsum(1) * 0.3 + torch.randn(7, 90)
    rate = torch.tensor([2.0, 2.0, 2.0, 0.7, 0.7, torch.nan, 3.0])
    return Sample(white * valid, valid, rate, torch.tensor([9, 9, 9, 4, 4, 6, 1]))


def clips() -> Sample:
    """Odd sizes, one clip of a single frame; known times, a known interval, and neither."""
    torch.manual_seed(3)
    valid = torch.arange(5) < torch.tensor([5, 4, 1, 2])[:, None]
    x = torch.randn(4, 1, 5, 33, 36) + torch.randn(4, 1, 1, 33, 36)
    rate = torch.tensor([torch.nan, 0.05, torch.nan, torch.nan])
    times = torch.full((4, 5), torch.nan)
    times[0] = torch.tensor([9.0, 9.1, 9.15, 9.3, 9.4])
    return Sample(x * valid[:, None, :, None, None], valid, rate, torch.tensor([3, 3, 8, 1]), times)


@dataclass
class Case:
    """A sample, which paddings are harmless, and which rows may be taken out together."""

    sample: Callable[[], Sample]
    padding: tuple[int, int]
    units: list[list[int]]
    frame_levels: bool = False  # levels are [N, T, channels, rows, columns], tokens one per frame


CASES = {
    "volume_resnet": Case(volumes, (16, 5), [[0], [1], [2], [3]]),
    "course_conv": Case(courses, (0, 45), [[i] for i in range(7)]),
    "course_session": Case(courses, (0, 45), [[0, 1, 2], [3, 4], [5], [6]]),
    "frame": Case(clips, (0, 3), [[0], [1], [2], [3]], frame_levels=True),
    "clip": Case(clips, (0, 3), [[0], [1], [2], [3]]),
    "tubelet_vit": Case(clips, (0, 3), [[0], [1], [2], [3]]),
}
EVERY = [(name, preset) for name, cls in ENCODERS.items() for preset in cls.PRESETS]
# Large networks take seconds for each test: they run the code of their smaller presets, which are put through everything.
LARGE = {("frame", "base"), ("clip", "base"), ("tubelet_vit", "base"), ("tubelet_vit", "videomae")}


def over(cases: list[tuple[str, str]]):
    return pytest.mark.parametrize(("name", "preset"), cases, ids=[f"{n}-{p}" for n, p in cases])


every, every_small = over(EVERY), over([case for case in EVERY if case not in LARGE])


def make(name: str, preset: str, seed: int = 0):
    torch.manual_seed(seed)
    return build(ENCODERS, Component(name, {"preset": preset})).eval()


def test_every_encoder_has_a_sample():
    assert set(CASES) == set(ENCODERS), "an encoder without a sample input is an untested encoder: add it to CASES"


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_has_the_usual_presets(name):
    assert {"tiny", "small", "base"} <= set(ENCODERS[name].PRESETS)


@every
def test_shapes(name, preset):
    encoder, sample = make(name, preset), CASES[name].sample()
    assert isinstance(encoder, Encoder)
    out = sample(encoder)
    n = len(sample.x)
    assert out.pooled.shape == (n, encoder.dim)
    assert out.pooled.isfinite().all()
    assert out.pooled.std(0).norm() > 1e-3 * out.pooled.norm(), "all samples alike"
    if out.tokens is not None:
        assert out.tokens.shape[0] == n
        assert out.tokens.ndim == 3
    if out.levels is not None:
        per_frame = CASES[name].frame_levels
        sizes = [level[0, 0, 0 if per_frame else ...].numel() for level in out.levels]
        assert sizes == sorted(sizes, reverse=True)
        assert all(len(level) == n for level in out.levels)
        if per_frame:
            assert all(level.shape[:2] == out.tokens.shape[:2] == sample.valid.shape for level in out.levels)
        else:
            assert out.tokens is None or torch.equal(out.tokens, out.levels[-1].flatten(2).transpose(1, 2))
    if out.session is not None:
        assert out.session.shape == (n, encoder.dim)
        for unit in CASES[name].units:
            assert torch.equal(out.session[unit], out.session[unit[:1]].expand(len(unit), -1))


@every
def test_padding_changes_nothing(name, preset):
    encoder, case = make(name, preset), CASES[name]
    sample = case.sample()
    plain, padded = sample(encoder), sample.padded(*case.padding)(encoder)
    torch.testing.assert_close(padded.pooled, plain.pooled, atol=1e-5, rtol=1e-5)
    if plain.session is not None:
        torch.testing.assert_close(padded.session, plain.session, atol=1e-5, rtol=1e-5)


@every_small
def test_values_at_invalid_positions_do_not_matter(name, preset):
    encoder, sample = make(name, preset), CASES[name].sample()
    plain = sample(encoder).pooled
    valid = sample.valid_like_x()
    for dirt in (1e3, torch.nan):
        dirty = Sample(torch.where(valid, sample.x, dirt), sample.valid, sample.rate, sample.group, sample.times)
        torch.testing.assert_close(dirty(encoder).pooled, plain, atol=1e-5, rtol=1e-5)


@every_small
def test_a_sample_depends_on_its_own_group_only(name, preset):
    encoder, case = make(name, preset), CASES[name]
    encoder.train()  # no layer may mix samples in training either
    sample = case.sample()
    whole = sample(encoder)
    for unit in [*case.units[::2], case.units[-1] + case.units[0]]:
        part = sample.rows(unit)(encoder)
        torch.testing.assert_close(part.pooled, whole.pooled[unit], atol=2e-5, rtol=1e-4)
        if whole.session is not None:
            torch.testing.assert_close(part.session, whole.session[unit], atol=2e-5, rtol=1e-4)


@every_small
def test_gradient_reaches_every_parameter_after_one_step(name, preset):
    encoder, sample = make(name, preset).train(), CASES[name].sample()
    optimiser = torch.optim.SGD(encoder.parameters(), lr=1e-3)
    torch.manual_seed(0)
    for _ in range(2):
        optimiser.zero_grad()
        out = sample(encoder)
        loss = (out.pooled * torch.randn_like(out.pooled)).sum()
        if out.session is not None:
            loss = loss + (out.session * torch.randn_like(out.session)).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimiser.step()
    for parameter_name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 1e-8, parameter_name


@every_small
def test_save_and_load(name, preset):
    encoder, other = make(name, preset), make(name, preset, seed=1)
    sample = CASES[name].sample()
    assert not torch.allclose(sample(encoder).pooled, sample(other).pooled)
    other.load_state_dict(load(save(encoder.state_dict())))
    assert torch.equal(sample(encoder).pooled, sample(other).pooled)


@every_small
def test_evaluation_is_deterministic(name, preset):
    encoder, sample = make(name, preset), CASES[name].sample()
    assert torch.equal(sample(encoder).pooled, sample(encoder).pooled)


@every_small
def test_bfloat16_autocast(name, preset):
    encoder, sample = make(name, preset), CASES[name].sample()
    expected = sample(encoder).pooled
    with torch.autocast("cpu", torch.bfloat16):
        out = sample(encoder)
    assert out.pooled.isfinite().all()
    assert (out.pooled.float() - expected).norm() < 0.1 * expected.norm()
    out.pooled.float().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@every_small
def test_a_sample_without_any_valid_position_is_finite_and_harmless(name, preset):
    # A missing modality arrives as zeros that are nowhere valid.
    encoder, case = make(name, preset), CASES[name]
    sample = case.sample()
    expected = sample(encoder)
    lost = case.units[-1]
    sample.x[lost], sample.valid[lost] = 0.0, False
    out = sample(encoder)
    rest = [i for unit in case.units[:-1] for i in unit]
    torch.testing.assert_close(out.pooled[rest], expected.pooled[rest], atol=1e-5, rtol=1e-5)
    out.pooled.square().sum().backward()
    assert out.pooled.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@every_small
def test_a_missing_mask_means_all_valid(name, preset):
    encoder, sample = make(name, preset), CASES[name].sample()
    everywhere = torch.ones_like(sample.valid)
    torch.manual_seed(0)
    x = torch.randn_like(sample.x)
    given = encoder(x, everywhere, sample.rate, sample.group, sample.times).pooled
    torch.testing.assert_close(encoder(x, None, sample.rate, sample.group, sample.times).pooled, given, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("volume_resnet", (2, 1, 17, 15, 16), "16"),
        ("course_conv", (2, 31), "32"),
        ("course_session", (2, 31), "32"),
        ("frame", (2, 1, 4, 31, 40), "32"),
        ("clip", (2, 1, 4, 40, 31), "32"),
        ("tubelet_vit", (2, 3, 4, 32, 32), "in_channels=1"),
    ],
)
def test_inputs_of_a_wrong_size_are_refused(name, shape, message):
    with pytest.raises(ValueError, match=message):
        make(name, "tiny")(torch.randn(shape))
