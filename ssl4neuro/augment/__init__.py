"""Augmentations, batched on the device. Parameters are drawn from keyed random numbers and applied by a separate function.

A new one is a class with `draw`, `apply` and `__call__(x, valid, keyed, group, rate) -> (x, valid)`, and one line here.
"""

from ssl4neuro.augment.course import CourseAugment
from ssl4neuro.augment.keyed import Keyed
from ssl4neuro.augment.volume import VolumeAugment

AUGMENTATIONS: dict[str, type] = {
    "volume": VolumeAugment,
    "course": CourseAugment,
}

__all__ = ["AUGMENTATIONS", "CourseAugment", "Keyed", "VolumeAugment"]
