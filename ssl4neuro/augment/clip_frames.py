"""Which frames of a clip are shown: evenly over a cycle, a window, or a stride; phase, speed, dropped frames, direction.

Positions in time are whole numbers of 1/65536 frame, so that the choice of a frame never hangs on a rounded fraction and is
the same on every device.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ssl4neuro.augment.keyed import Keyed

Params = dict[str, Tensor]
Sampling = Literal["cycle", "contiguous", "stride"]
BITS = 16
FRAME = 1 << BITS  # one frame, in units of a position


class Clips(NamedTuple):
    """A batch of clips. The valid frames of a row are its first ones; padding follows."""

    x: Float[Tensor, "n channels time height width"]
    valid: Bool[Tensor, "n time"]
    times: Float[Tensor, "n time"]  # s, NaN where unknown
    masks: Int[Tensor, "n time height width"] | None = None  # -1: the frame has none


def sample_frames(clips: Clips, frames: int, sampling: Sampling = "cycle", cyclic: bool = True) -> Clips:
    """Exactly `frames` frames of every clip without chance; see `FrameSampler` for where they lie."""
    sampler = FrameSampler(frames, sampling, cyclic)
    return sampler.apply(clips, sampler.draw(clips.valid.sum(1)))


@dataclass(frozen=True)
class FrameSampler:
    """Chooses `frames` frames from the T valid ones of each clip.

    Args:
        frames: of the output.
        sampling: `cycle`: the frames nearest to i T / frames (the earlier of two), so frame 0 comes first, and each is repeated
            when there are fewer than asked for. `contiguous`: successive frames from a random start, without chance from
            the middle. `stride`: every k-th, k uniform in 1..max_stride as far as the clip reaches, without chance the largest.
        cyclic: frame 0 follows the last one, so that a window longer than the clip goes round; otherwise it is padded with
            invalid frames.
        phase_shift: later start, uniform in whole frames below this share of the clip; a clip that is not cyclic moves only
            under `cycle`, and only as far as the clip reaches.
        speed: factor on the distance between frames, uniform in 1 ± this; at most what a clip that is not cyclic can give.
        drop: chance that a frame is replaced by the one shown before it, as in a recording that stalls; never the first.
            Its time stays its own. (Made invalid it would break the rule that valid frames come first.)
        reverse: chance that the clip runs backwards. Its times are mirrored, so they still increase.
        max_stride: frames, for `stride`.
        linear: interpolate frames that fall between two; otherwise, and always for masks, the nearest one.
    """

    frames: int = 16
    sampling: Sampling = "cycle"
    cyclic: bool = True
    phase_shift: float = 0.0
    speed: float = 0.0
    drop: float = 0.0
    reverse: float = 0.0
    max_stride: int = 4
    linear: bool = False

    def __post_init__(self) -> None:
        if self.sampling not in ("cycle", "contiguous", "stride"):
            raise ValueError(f"sampling must be cycle, contiguous or stride, got {self.sampling}")
        if self.frames < 1 or self.max_stride < 1:
            raise ValueError(f"frames and max_stride must be at least 1, got {self.frames}, {self.max_stride}")
        if not 0 <= self.phase_shift <= 1:
            raise ValueError(f"phase_shift must lie in 0..1 (share of the cycle), got {self.phase_shift}")
        if not 0 <= self.speed < 1 or not 0 <= self.drop < 1:
            raise ValueError(f"speed and drop must lie in [0, 1), got {self.speed}, {self.drop}")
        if not 0 <= self.reverse <= 1:
            raise ValueError(f"reverse must lie in 0..1 (a probability), got {self.reverse}")

    def draw(self, length: Int[Tensor, "n"], keyed: Keyed | None = None) -> Params:
        """Positions for clips of `length` valid frames; without `keyed` nothing is left to chance.

        position [n, frames]: 1/65536 frame after frame 0, not wrapped; shown [n, frames]: is there such a frame;
        backward [n]; held [n, frames]: the output frame whose picture is shown.
        """
        t = length.clamp_min(1)[:, None]
        number = torch.arange(self.frames, device=length.device)
        stride = self._stride(t, keyed)
        speed = self._speed(t, stride, keyed)
        offset = number * t * speed // self.frames if self.sampling == "cycle" else number * stride * speed
        position = offset + (self._start(t, offset[:, -1:], keyed) << BITS)
        shown = (length > 0)[:, None].expand_as(position)
        if not self.cyclic and self.sampling != "cycle":
            shown = shown & (_nearest(position) < t)
        params = {"position": position, "shown": shown}
        if keyed is not None and self.reverse:
            params["backward"] = keyed.bernoulli("clip.reverse", (), self.reverse)
            mirrored = (shown.sum(1, keepdim=True) - 1 - number).clamp_min(0)
            params["position"] = torch.where(params["backward"][:, None], position.gather(1, mirrored), position)
        if keyed is not None and self.drop:
            kept = ~keyed.bernoulli("clip.drop", (self.frames,), self.drop)
            params["held"] = torch.where(kept, number, 0).cummax(1).values
        return params

    def _stride(self, t: Int[Tensor, "n 1"], keyed: Keyed | None) -> Int[Tensor, "n 1"]:
        if self.sampling != "stride":
            return torch.ones_like(t)
        widest = ((t - 1) // max(self.frames - 1, 1)).clamp(1, self.max_stride)
        return widest if keyed is None else keyed.integers("clip.stride", (1,), 1, widest + 1)

    def _speed(self, t: Int[Tensor, "n 1"], stride: Int[Tensor, "n 1"], keyed: Keyed | None) -> Int[Tensor, "n 1"]:
        if keyed is None or not self.speed:
            return torch.full_like(t, FRAME)
        speed = (keyed.uniform("clip.speed", (1,), 1 - self.speed, 1 + self.speed) * FRAME).long()
        if self.cyclic:
            return speed
        if self.sampling == "cycle":
            return speed.clamp_max(FRAME)
        reach = ((t - 1) << BITS) // (stride * max(self.frames - 1, 1))  # a clip that is too short anyhow is padded instead
        return torch.where(reach >= FRAME, torch.minimum(speed, reach), speed)

    def _start(self, t: Int[Tensor, "n 1"], last: Int[Tensor, "n 1"], keyed: Keyed | None) -> Int[Tensor, "n 1"]:
        """First frame, in whole frames."""
        room = (((t - 1) << BITS) - last).clamp_min(0) >> BITS
        window = self.sampling != "cycle"
        if keyed is None:
            return room // 2 if window else torch.zeros_like(t)
        start = keyed.integers("clip.start", (1,), 0, room + 1) if window else torch.zeros_like(t)
        if self.phase_shift and (self.cyclic or not window):
            choices = (round(self.phase_shift * FRAME) * t + FRAME - 1) >> BITS
            choices = choices if self.cyclic else torch.minimum(choices, room + 1)
            start = start + keyed.integers("clip.phase", (1,), 0, choices)
        return start

    def apply(self, clips: Clips, params: Params) -> Clips:
        """The frames chosen, with their masks and times; frames that are not there are 0, their masks -1, their times NaN.

        A cycle that is entered late goes on past its end: times there are those of the frame plus the length of the cycle.
        """
        t = clips.valid.sum(1)[:, None].clamp_min(1)
        position, shown = params["position"], params["shown"]
        times = self._times(clips.times, t, position)
        if "backward" in params:
            last = times.gather(1, (shown.sum(1, keepdim=True) - 1).clamp_min(0))
            times = torch.where(params["backward"][:, None], times[:, :1] + last - times, times)
        if "held" in params:
            position = position.gather(1, params["held"])
        nearest = self._wrap(_nearest(position), t)
        if self.linear:
            x = self._between(clips.x.transpose(1, 2), t, position)
        else:
            x = pick(clips.x.transpose(1, 2), nearest)
        masks = None if clips.masks is None else blank_(pick(clips.masks, nearest), shown, -1)
        return Clips(blank_(x, shown).transpose(1, 2), shown.clone(), times.masked_fill(~shown, torch.nan), masks)

    def _wrap(self, frame: Int[Tensor, "n frames"], t: Int[Tensor, "n 1"]) -> Int[Tensor, "n frames"]:
        return frame % t if self.cyclic else torch.minimum(frame, t - 1)

    def _between(self, x: Float[Tensor, "n time *rest"], t: Tensor, position: Tensor) -> Float[Tensor, "n frames *rest"]:
        lower, part = position >> BITS, position % FRAME
        weight = (part.to(x.dtype) / FRAME)[:, :, None, None, None]
        before, after = pick(x, self._wrap(lower, t)), pick(x, self._wrap(lower + 1, t))
        return torch.where(weight > 0, before * (1 - weight) + after * weight, before)

    def _times(self, times: Tensor, t: Tensor, position: Tensor) -> Float[Tensor, "n frames"]:
        if not self.linear:
            return self._time_of(times, t, _nearest(position))
        lower, part = position >> BITS, position % FRAME
        before, after = self._time_of(times, t, lower), self._time_of(times, t, lower + 1)
        return torch.where(part > 0, before + (after - before) * (part.to(times.dtype) / FRAME), before)

    def _time_of(self, times: Tensor, t: Tensor, frame: Tensor) -> Float[Tensor, "n frames"]:
        found = times.gather(1, self._wrap(frame, t))
        if not self.cyclic:
            return found
        span = times.gather(1, t - 1) - times[:, :1]
        period = torch.where(t > 1, span * t / (t - 1).clamp_min(1), 0.0)  # one more interval of the mean length closes it
        return found + (frame // t) * period


def pick(values: Shaped[Tensor, "n time *rest"], index: Int[Tensor, "n frames"]) -> Shaped[Tensor, "n frames *rest"]:
    """Frames of each row by number."""
    return values[torch.arange(len(values), device=values.device)[:, None], index]


def blank_(
    frames: Shaped[Tensor, "n time *rest"], shown: Bool[Tensor, "n time"], value: int = 0
) -> Shaped[Tensor, "n time *rest"]:
    """Frames that are not there set to `value`, in place."""
    if frames.device.type != "cpu" or not bool(shown.all()):  # looking first is free on the CPU only
        frames.masked_fill_(~shown.view(*shown.shape, *[1] * (frames.ndim - 2)), value)
    return frames


def _nearest(position: Int[Tensor, "n frames"]) -> Int[Tensor, "n frames"]:
    """The earlier frame where two are equally near, so that repeating frames starts with the first."""
    return (position + (FRAME // 2 - 1)) >> BITS
