"""Augmentations, batched on the device. Parameters are drawn from keyed random numbers and applied by a separate function.

A new one is a class with `draw`, `apply` and `__call__(x, valid, keyed, group, rate) -> (x, valid)`, or for clips
`__call__(clips, keyed, group) -> clips`, and one line here.
"""

from ssl4neuro.augment.clip import ClipAugment, Clips, normalise_clips, residual, sample_frames
from ssl4neuro.augment.course import CourseAugment
from ssl4neuro.augment.keyed import Keyed
from ssl4neuro.augment.volume import VolumeAugment

AUGMENTATIONS: dict[str, type] = {
    "volume": VolumeAugment,
    "course": CourseAugment,
    "clip": ClipAugment,
}

__all__ = [
    "AUGMENTATIONS",
    "ClipAugment",
    "Clips",
    "CourseAugment",
    "Keyed",
    "VolumeAugment",
    "normalise_clips",
    "residual",
    "sample_frames",
]
