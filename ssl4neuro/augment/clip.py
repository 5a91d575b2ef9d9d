"""Augmentation of cine and video clips: temporal, then in the plane, then brightness; the same for all frames and masks.

`draw` makes the parameters from keyed random numbers, `apply` uses them and nothing else, so that any augmentation can be
replayed or inspected. No mirroring and no reversed time by default: the side of the heart and the order of contraction are
signal. Values are expected to be normalised (`normalise_clips`); the motion stream (`residual`) is taken afterwards.
"""

from typing import Any

from jaxtyping import Int
from torch import Tensor

from ssl4neuro.augment.clip_frames import Clips, FrameSampler, Sampling, blank_, sample_frames
from ssl4neuro.augment.clip_geometry import Geometry, mirror, sample_images, sample_masks, source_pixels
from ssl4neuro.augment.clip_intensity import Intensity, extremes, normalise_clips, relative, residual
from ssl4neuro.augment.keyed import Keyed, expand

__all__ = ["ClipAugment", "Clips", "normalise_clips", "residual", "sample_frames"]

Params = dict[str, Tensor]
_OFF: dict[str, Any] = {
    "phase_shift": 0.0,
    "speed": 0.0,
    "rotation_deg": 0.0,
    "scale": 0.0,
    "shift": 0.0,
    "gamma": 0.0,
    "contrast": 0.0,
    "brightness": 0.0,
    "bias": 0.0,
    "noise_sd": 0.0,
    "blur": 0.0,
}


class ClipAugment:
    """Random views of clips, each of exactly `frames` frames.

    Every option at zero leaves that step out; with all at zero the output is `sample_frames`, bit for bit.

    Args:
        frames, sampling, cyclic, phase_shift, speed, drop, reverse, max_stride, linear: see `FrameSampler`.
        rotation_deg, scale, shift, flip_h, flip_v, elastic, elastic_knots: see `Geometry`. What comes from outside the frame
            has the clip's lowest value, and 0 (background) in masks.
        gamma, contrast, brightness, bias, noise_sd, blur, cutout: see `Intensity`.
        stream: modalities with the same options draw alike (a cine and its motion stay in register) unless they are given
            different names here.
    """

    PRESETS: dict[str, dict[str, Any]] = {
        "tiny": {"frames": 8, "bias": 0.0, "blur": 0.0},
        "small": {},
        "base": {"elastic": 2.0, "drop": 0.05},
        # methods/mvo.md §1. Elastic alpha 33 with sigma 5 at 224 pixels moves a pixel by 0.54 (sd), over some 10 pixels.
        "author": {
            **_OFF,
            "frames": 10,
            "rotation_deg": 180.0,
            "flip_h": True,
            "flip_v": True,
            "elastic": 1.0,
            "elastic_knots": 22,
        },
        "none": _OFF,
    }

    def __init__(
        self,
        frames: int = 16,
        sampling: Sampling = "cycle",
        cyclic: bool = True,
        phase_shift: float = 0.1,
        speed: float = 0.1,
        drop: float = 0.0,
        reverse: float = 0.0,
        max_stride: int = 4,
        linear: bool = False,
        rotation_deg: float = 15.0,
        scale: float = 0.1,
        shift: float = 0.05,
        flip_h: bool = False,
        flip_v: bool = False,
        elastic: float = 0.0,
        elastic_knots: int = 4,
        gamma: float = 0.3,
        contrast: float = 0.1,
        brightness: float = 0.1,
        bias: float = 0.1,
        noise_sd: float = 0.05,
        blur: float = 0.5,
        cutout: float = 0.0,
        stream: str = "",
    ):
        self.sampler = FrameSampler(frames, sampling, cyclic, phase_shift, speed, drop, reverse, max_stride, linear)
        self.geometry = Geometry(rotation_deg, scale, shift, flip_h, flip_v, elastic, elastic_knots)
        self.intensity = Intensity(gamma, contrast, brightness, bias, noise_sd, blur, cutout)
        self.stream = stream

    @property
    def frames(self) -> int:
        """Of the output."""
        return self.sampler.frames

    def __call__(self, clips: Clips, keyed: Keyed, group: Int[Tensor, "n"] | None = None) -> Clips:
        """Draw and apply. `group` is for other modalities: the clips of a scan are augmented independently."""
        return self.apply(clips, self.draw(keyed, clips))

    def draw(self, keyed: Keyed, clips: Clips) -> Params:
        """Parameters for clips of these lengths and this size; see the `draw` of each part for the entries."""
        keyed = keyed.child(self.stream) if self.stream else keyed
        _, channels, _, height, width = clips.x.shape
        return {
            **self.sampler.draw(clips.valid.sum(1), keyed),
            **self.geometry.draw(keyed, (height, width)),
            **self.intensity.draw(keyed, (self.frames, channels, height, width)),
        }

    def apply(self, clips: Clips, params: Params) -> Clips:
        """The clips under `params`."""
        clips = self.sampler.apply(clips, params)
        x, masks = clips.x.transpose(1, 2), clips.masks  # frames first: then frames and channels are one axis of images
        rest = params.keys() - {"position", "shown", "backward", "held"}
        if not rest:
            return clips
        low, high = extremes(x, clips.valid)
        if "flip" in params:
            x = mirror(x, params["flip"])
            masks = None if masks is None else mirror(masks, params["flip"])
        if relative(params):
            x.sub_(expand(low, x.ndim))  # the sampler made it, so it may be overwritten
        if "matrix" in params:
            rows, columns = source_pixels(params, (x.shape[-2], x.shape[-1]))
            x = sample_images(x.flatten(1, 2), rows, columns).view(x.shape)
            masks = None if masks is None else sample_masks(masks, rows, columns)
        x = blank_(self.intensity.apply(x, low, high, params), clips.valid).transpose(1, 2)
        return clips._replace(x=x.contiguous(), masks=masks)
