"""Which frames are chosen: tables, times that increase, clips that are too short."""

import pytest
import torch

from ssl4neuro.augment import Clips, Keyed, sample_frames
from ssl4neuro.augment.clip_frames import FRAME, FrameSampler


def numbered(*lengths, interval=0.1):
    """Clips whose pixels and masks are the frame number, times from 1 s."""
    width = max(lengths)
    valid = torch.arange(width) < torch.tensor(lengths)[:, None]
    number = torch.arange(width).expand(len(lengths), width)
    x = torch.where(valid, number, -5).float()[:, None, :, None, None].expand(-1, 2, -1, 3, 4).contiguous()
    masks = torch.where(valid, number, -1)[:, :, None, None].expand(-1, -1, 3, 4).contiguous()
    return Clips(x, valid, torch.where(valid, 1 + number * interval, torch.nan), masks)


def shown(clips):
    return [row[v].int().tolist() for row, v in zip(clips.x[:, 0, :, 0, 0], clips.valid, strict=True)]


@pytest.mark.parametrize(
    ("length", "frames", "expected"),
    [
        (30, 10, list(range(0, 30, 3))),  # methods/mvo.md §1
        (30, 5, [0, 6, 12, 18, 24]),
        (30, 15, list(range(0, 30, 2))),
        (30, 16, [0, 2, 4, 6, 7, 9, 11, 13, 15, 17, 19, 21, 22, 24, 26, 28]),
        (25, 10, [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]),
        (3, 6, [0, 0, 1, 1, 2, 2]),
        (1, 4, [0, 0, 0, 0]),
        (7, 1, [0]),
    ],
)
def test_even_frames_of_a_cycle(length, frames, expected):
    for cyclic in (True, False):
        out = sample_frames(numbered(length), frames, "cycle", cyclic)
        assert shown(out) == [expected]
        assert out.masks[0, :, 0, 0].tolist() == expected
        torch.testing.assert_close(out.times[0], 1 + torch.tensor(expected) * 0.1)


def test_windows_without_chance():
    clips = numbered(10, 4, 1)
    assert shown(sample_frames(clips, 6, "contiguous")) == [[2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 0, 1], [0] * 6]
    padded = sample_frames(clips, 6, "contiguous", cyclic=False)
    assert shown(padded) == [[2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [0]]
    assert (padded.x[1, :, 4:] == 0).all()
    assert (padded.masks[1, 4:] == -1).all()
    assert torch.isnan(padded.times[1, 4:]).all()
    assert shown(sample_frames(clips, 4, "stride", cyclic=False)) == [[0, 3, 6, 9], [0, 1, 2, 3], [0]]
    assert shown(sample_frames(numbered(30), 4, "stride")) == [[8, 12, 16, 20]]  # at most every fourth, in the middle


def test_times_go_on_past_the_end_of_a_cycle():
    out = sample_frames(numbered(4), 7, "contiguous")
    torch.testing.assert_close(out.times[0], 1 + torch.arange(7) * 0.1)
    unknown = sample_frames(numbered(4)._replace(times=torch.full((1, 4), torch.nan)), 7, "contiguous")
    assert torch.isnan(unknown.times).all()


@pytest.mark.parametrize("sampling", ["cycle", "contiguous", "stride"])
@pytest.mark.parametrize("cyclic", [True, False])
@pytest.mark.parametrize("linear", [True, False])
def test_random_frames_increase_and_agree_with_times_and_masks(sampling, cyclic, linear):
    lengths = [20, 9, 30, 3] * 40
    clips = numbered(*lengths)
    sampler = FrameSampler(6, sampling, cyclic, phase_shift=1.0, speed=0.3, linear=linear)
    keyed = Keyed(0, 0, torch.arange(160))
    out = sampler.apply(clips, sampler.draw(clips.valid.sum(1), keyed))
    count = out.valid.sum(1)
    assert torch.equal(out.valid, torch.arange(6) < count[:, None])  # a prefix
    assert (count == 6).all() or (sampling != "cycle" and not cyclic)
    steps = out.times.diff(dim=1)
    assert (steps[~steps.isnan()] >= -1e-6).all()
    length = torch.tensor(lengths)[:, None]
    number = (out.times - 1) / 0.1
    if cyclic:
        period = length.float()
        number = torch.where(number >= length - 1e-4, number - period * ((number + 1e-4) / period).floor(), number)
    inside = out.valid & (number <= length - 1)  # between the last frame and the first, values go back while time goes on
    torch.testing.assert_close(out.x[:, 0, :, 0, 0][inside], number[inside], atol=2e-4, rtol=0)
    labels, real = out.masks[:, :, 0, 0], (out.x[:, 0, :, 0, 0])
    assert ((labels - real).abs()[inside] <= 0.5 + 1e-4).all()
    assert len({tuple(row) for row in out.x[0::4, 0, :, 0, 0].tolist()}) > 5  # chance has a say


def test_contiguous_starts_cover_the_clip_evenly():
    clips = numbered(*[8] * 4000)
    sampler = FrameSampler(5, "contiguous", cyclic=False)
    starts = sampler.draw(clips.valid.sum(1), Keyed(0, 0, torch.arange(4000)))["position"][:, 0] // FRAME
    counts = torch.bincount(starts, minlength=4)
    assert len(counts) == 4
    assert (counts - 1000).abs().max() < 120


def test_strides_and_phases_take_all_their_values():
    length = torch.full((600,), 13)
    keyed = Keyed(0, 0, torch.arange(600))
    steps = FrameSampler(4, "stride", False).draw(length, keyed)["position"].diff(dim=1)[:, 0] // FRAME
    assert set(steps.tolist()) == {1, 2, 3, 4}
    starts = FrameSampler(4, phase_shift=0.5).draw(length, keyed)["position"][:, 0] // FRAME
    assert set(starts.tolist()) == set(range(7))


def test_reverse_plays_backwards_with_increasing_times():
    clips = numbered(8, 3)
    sampler = FrameSampler(4, "contiguous", cyclic=False, reverse=1.0)
    out = sampler.apply(clips, sampler.draw(clips.valid.sum(1), Keyed(0, 0, torch.arange(2))))
    for row in shown(out):
        assert row == list(range(row[0], row[0] - len(row), -1))
    assert (out.times[0].diff() > 0).all()
    first = float(out.times[0, 0])
    assert first == pytest.approx(1 + 0.1 * shown(out)[0][-1])
    assert shown(out)[1] == [2, 1, 0]


def test_dropped_frames_repeat_the_one_before():
    clips = numbered(*[10] * 500)
    sampler = FrameSampler(10, drop=0.3)
    out = sampler.apply(clips, sampler.draw(clips.valid.sum(1), Keyed(0, 0, torch.arange(500))))
    number = out.x[:, 0, :, 0, 0]
    own = torch.arange(10.0)
    assert (number[:, 0] == 0).all()
    kept = number == own
    assert float(1 - kept[:, 1:].float().mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.equal(number[:, 1:][~kept[:, 1:]], number[:, :-1][~kept[:, 1:]])
    torch.testing.assert_close(out.times, clips.times)  # times stay their own
    assert out.valid.all()


def test_linear_frames_lie_between_their_neighbours():
    clips = numbered(5)
    sampler = FrameSampler(10, linear=True)
    out = sampler.apply(clips, sampler.draw(clips.valid.sum(1)))
    # halfway from the last frame to the first lies their mean
    assert out.x[0, 0, :, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 2]
    assert out.masks[0, :, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    torch.testing.assert_close(out.times[0], 1 + torch.arange(10) * 0.05)
