"""What a reader of cine and video hands to `prepare`: the clips of one study, as their source has them."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8


@dataclass(frozen=True)
class Clip:
    """One clip with its native frames, times and spacing: a slice of a cine stack, an echo loop, a stretch of a video."""

    frames: Shaped[np.ndarray, "time height width *colour"]  # the source's integer type where it has one, else float32
    view: str = ""  # e.g. `sax`, `4ch`, `dce`; empty where unknown
    slice: int = -1  # number in the stack, from 0 in the order of position; -1 where there is no stack
    times: Float[np.ndarray, "time"] | None = None  # s after the first frame, increasing; None where unknown
    spacing: tuple[float, float] | None = None  # mm between rows, between columns; None where unknown
    mask: UInt8[np.ndarray, "labelled height width"] | None = None
    mask_frames: Int[np.ndarray, "labelled"] | None = None  # the frame that each mask was drawn on
    # Where the source's voxels (column, row, slice of its image, 1) lie: mm, RAS as nibabel gives it; None where unknown. It is
    # for files on the same grid. Lengths are what `spacing` and `thickness` say: many headers hold a place with steps of 1.
    affine: Float[np.ndarray, "4 4"] | None = None
    slices: int = 0  # of the image that it came from, unusable ones included; 0 where unknown
    thickness: float | None = None  # mm from slice to slice; None where unknown


@dataclass
class ClipRows:
    """All clips of one study (session and run)."""

    clips: list[Clip]
    nuisance: dict[str, float] = field(default_factory=dict)  # numbers about the acquisition; go to sessions.tsv
    left_out: list[str] = field(default_factory=list)  # slices or series that were not used, one line each
