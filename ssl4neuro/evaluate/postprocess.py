"""From probabilities to classes: the most probable one, then what anatomy says about the lesion, if asked for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import distance_transform_edt, label

from ssl4neuro.errors import UserError
from ssl4neuro.registry import suggest

UNKNOWN = (
    "postprocess.smallest and margin are in mm, but the pixel spacing is unknown; give pixels, and postprocess.unit: pixels"
)
NEIGHBOURS = np.ones((3, 3), dtype=int)  # corners touch


@dataclass(frozen=True)
class PostprocessConfig:
    """Switches, all off by default. The defaults take the most probable class of every pixel."""

    smallest: float = 0.0  # components below are removed, mm² or pixels; of every structure where there is no lesion
    inside: str | None = None  # the structure that the lesion must lie in, e.g. myocardium
    margin: float = 0.0  # how far from it a component may end, mm or pixels; 0: it must touch
    unit: Literal["mm", "pixels"] = "mm"  # of the two; millimetres need a known spacing
    threshold: float | None = None  # the lesion's probability above which a pixel is lesion, whatever the most probable class

    def __post_init__(self) -> None:
        if self.smallest < 0 or self.margin < 0:
            raise ValueError("postprocess: smallest and margin must not be negative")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError("postprocess.threshold is a probability between 0 and 1, e.g. 0.5")

    @property
    def measures(self) -> bool:
        """Whether a length or an area is asked for."""
        return self.smallest > 0 or self.margin > 0


def postprocess(
    probabilities: Float[np.ndarray, "classes height width"],
    config: PostprocessConfig,
    structures: Mapping[str, tuple[int, ...]],
    lesion: str | None,
    spacing: tuple[float, float] | None,
) -> UInt8[np.ndarray, "height width"]:
    """Class codes. A pixel that is taken from a structure goes to the most probable class outside it.

    Containment is asked of whole components: classes are exclusive, so a lesion through the whole wall has no wall around
    every one of its pixels, but touches it. Pixels of the lesion do not count as the surrounding structure, even
    where that is a union with it; where no pixel of the structure is left, so is none of the lesion.

    Args:
        structures: name -> codes of the classes that it is the union of.
        lesion: the structure that `inside` and `threshold` are about.
        spacing: mm between rows and between columns; None where unknown.

    Raises:
        UserError: an unknown structure, an option about the lesion where there is none, or millimetres of unknown spacing.
    """
    _check(config, structures, lesion)
    if config.unit == "pixels":
        spacing = None
    elif spacing is None and config.measures:
        raise UserError(UNKNOWN)
    codes = probabilities.argmax(0).astype(np.uint8)
    if lesion is None:
        for members in structures.values():
            _drop_small(codes, probabilities, members, config.smallest, spacing)
        return codes
    own = structures[lesion]
    if config.threshold is not None:
        above = probabilities[list(own)].sum(0) > config.threshold
        is_own = np.isin(codes, own)
        _reassign(codes, probabilities, above & ~is_own, own)
        _reassign(codes, probabilities, ~above & is_own, _others(probabilities, own))
    if config.inside is not None:
        around = np.isin(codes, list(set(structures[config.inside]) - set(own)))
        _drop_far(codes, probabilities, own, around, config.margin, spacing)
    _drop_small(codes, probabilities, own, config.smallest, spacing)
    return codes


def _check(config: PostprocessConfig, structures: Mapping[str, tuple[int, ...]], lesion: str | None) -> None:
    if lesion is None and (config.inside is not None or config.threshold is not None):
        name = "inside" if config.inside is not None else "threshold"
        raise UserError(
            f"postprocess.{name}: is about the lesion, and there is none; name one (segmentation.lesion) or leave it out"
        )
    for option, asked in (("lesion", lesion), ("postprocess.inside", config.inside)):
        if asked is not None and asked not in structures:
            raise UserError(f"{option}: no structure '{asked}'{suggest(asked, structures)}; there are {', '.join(structures)}")
    if config.inside is not None and lesion is not None and not set(structures[config.inside]) - set(structures[lesion]):
        raise UserError(f"postprocess.inside: '{config.inside}' is nothing beside '{lesion}'; name the structure around it")


def _drop_small(
    codes: np.ndarray, probabilities: np.ndarray, members: Collection[int], smallest: float, spacing: tuple[float, float] | None
) -> None:
    if smallest <= 0:
        return
    pixel = 1.0 if spacing is None else spacing[0] * spacing[1]
    parts, _ = label(np.isin(codes, list(members)), structure=NEIGHBOURS)
    small = np.bincount(parts.ravel()) * pixel < smallest
    small[0] = False
    _reassign(codes, probabilities, small[parts], _others(probabilities, members))


def _drop_far(
    codes: np.ndarray,
    probabilities: np.ndarray,
    members: Collection[int],
    around: Bool[np.ndarray, "height width"],
    margin: float,
    spacing: tuple[float, float] | None,
) -> None:
    """Components that end further than `margin` from `around`, counted from pixels that touch it, corners included."""
    parts, count = label(np.isin(codes, list(members)), structure=NEIGHBOURS)
    near = np.zeros(count + 1, dtype=bool)
    if around.any():
        sides = spacing or (1.0, 1.0)
        reach = distance_transform_edt(~around, sampling=sides) <= margin + float(np.hypot(*sides)) + 1e-9
        near[np.unique(parts[reach])] = True
    near[0] = True
    _reassign(codes, probabilities, ~near[parts], _others(probabilities, members))


def _others(probabilities: np.ndarray, members: Collection[int]) -> list[int]:
    return [code for code in range(len(probabilities)) if code not in members]


def _reassign(codes: np.ndarray, probabilities: np.ndarray, where: np.ndarray, to: Collection[int]) -> None:
    """Give pixels the most probable of the classes `to`."""
    order = np.array(sorted(to), dtype=np.uint8)
    codes[where] = order[probabilities[order][:, where].argmax(0)]
