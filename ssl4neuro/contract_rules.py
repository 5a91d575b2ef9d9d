"""What each property of a contract means: one line in `RULES` per property, one function per kind of judgement.

A difference is `exact` (adapted without loss or without effect), `asked` (adapted when the user names the adaptation, because
it changes the data) or `refused`.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from ssl4neuro import geometry
from ssl4neuro.errors import UserError

Entry = Mapping[str, Any]
Contract = Mapping[str, Entry]
Remedy = Literal["exact", "asked", "refused"]
TR_TOLERANCE_S = 1e-3
BAND_TOLERANCE_HZ = 1e-4
RANGE_TOLERANCE = 1.25  # frame intervals and pixel spacings this much beyond those of training are no surprise


@dataclass(frozen=True)
class Difference:
    """One property in which a cohort is not what the checkpoint was trained on."""

    modality: str
    field: str
    expected: str  # readable
    found: str
    remedy: Remedy
    advice: str  # what happens, or what to do
    adaptation: str = ""  # name in ADAPTATIONS that the user has to ask for; empty when exact or refused

    def __str__(self) -> str:
        return f"{self.modality}.{self.field}: trained on {self.expected}, cohort is {self.found}; {self.advice}"


Judge = Callable[[str, str, Entry, Entry, "Bool[np.ndarray, 'x y z'] | None"], list[Difference]]


def _equal(remedy: Remedy, advice: str, adaptation: str = "") -> Judge:
    """Any inequality has the same remedy."""

    def judge(modality: str, field: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
        if plain(expected.get(field)) == plain(found.get(field)):
            return []
        return [Difference(modality, field, _text(expected.get(field)), _text(found.get(field)), remedy, advice, adaptation)]

    return judge


def _space(modality: str, field: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
    there, here = expected.get("space"), found.get("space")
    if there == here:
        return []
    if there is None or here is None:
        advice = "name the space with --space when preparing, or pass --adapt space if you know that they are the same"
        return [Difference(modality, "space", _text(there), _text(here), "asked", advice, "space")]
    advice = "register the scans to the space of training and prepare again"
    return [Difference(modality, "space", _text(there), _text(here), "refused", advice)]


def _grid(modality: str, field: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
    if geometry.same_grid(expected, found):
        return []
    move = geometry.grid_move(found, expected)
    name = "shape" if move.axes == (0, 1, 2) and not any(move.flipped) and move.start == (0, 0, 0) else "affine"
    there, here = geometry.describe_grid(expected), geometry.describe_grid(found)
    if move.coverage == 0:
        advice = "the two grids do not overlap; check the affine of the scans and prepare again"
        return [Difference(modality, name, there, here, "refused", advice)]
    if move.exact:
        return [Difference(modality, name, there, here, "exact", move.describe())]
    sizes = set(geometry.voxel_sizes(expected))
    again = f"with --resolution {sizes.pop():g}" if len(sizes) == 1 else "on the grid of training"
    return [Difference(modality, name, there, here, "asked", f"re-prepare {again}, or pass --adapt grid to resample", "grid")]


def _mask(modality: str, field: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
    keys = ("mask_sha256", "voxels")
    there, here = ([plain(entry.get(key)) for key in keys] for entry in (expected, found))
    if there == here:
        return []
    texts = (f"mask {_text(there[0])} of {there[1]} voxels", f"mask {_text(here[0])} of {here[1]} voxels")
    move = geometry.grid_move(found, expected)
    if not move.exact:
        return [Difference(modality, "mask_sha256", *texts, "asked", "the mask is resampled with --adapt grid", "grid")]
    if mask is not None:
        moved = geometry.move_mask(mask, move)
        if [geometry.mask_sha256(moved, geometry.affine_of(expected)), int(moved.sum())] == there:
            return []
    advice = "re-prepare with the mask of training (--mask), or pass --adapt mask to go on with the voxels of both"
    return [Difference(modality, "mask_sha256" if there[0] != here[0] else "voxels", *texts, "asked", advice, "mask")]


def _timing(modality: str, field: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
    there, here = trs_of(expected), trs_of(found)
    texts = (_seconds(there), _seconds(here))
    known, new = [t for t in there if t is not None], [t for t in here if t is not None]
    differences = []
    if (None in here and None not in there) or (new and not known):
        advice = (
            "give the TR when preparing (RepetitionTime in the JSON sidecar), or pass --adapt unknown-tr "
            "to take what is unknown to be the same"
        )
        differences.append(Difference(modality, "trs", *texts, "asked", advice, "unknown-tr"))
    strange = [t for t in new if known and not any(abs(t - k) <= TR_TOLERANCE_S for k in known)]
    if strange:
        targets = sorted({target_tr(t, expected) for t in strange})
        limit = f" (courses at {max(strange):g} s hold nothing above {0.5 / max(strange):.3g} Hz)"
        more = limit if max(strange) > max(targets) + TR_TOLERANCE_S else ""
        advice = f"pass --adapt tr to resample to {', '.join(f'{t:g}' for t in targets)} s{more}"
        differences.append(Difference(modality, "tr", *texts, "asked", advice, "tr"))
    if not differences and (len(there) != len(here)):
        differences.append(Difference(modality, "trs", *texts, "exact", "every TR of the cohort occurred in training"))
    return differences


def _band(modality: str, field: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
    (low, high), (found_low, found_high) = band_of(expected), band_of(found)
    texts = (_hertz(expected), _hertz(found))
    same = abs(low - found_low) <= BAND_TOLERANCE_HZ and (high == found_high or abs(high - found_high) <= BAND_TOLERANCE_HZ)
    if same:
        return []
    if found_low <= low + BAND_TOLERANCE_HZ and found_high >= high - BAND_TOLERANCE_HZ:
        advice = f"re-prepare with --band {low:g} {high:g}, or pass --adapt band to filter"
        return [Difference(modality, "band", *texts, "asked", advice, "band")]
    again = "without --band" if (low, high) == (0.0, math.inf) else f"with --band {low:g} {high:g}"
    return [Difference(modality, "band", *texts, "refused", f"what was filtered out cannot be put back; re-prepare {again}")]


def _channels(modality: str, field: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
    there, here = ({1: "grey", 3: "colour"}.get(max(e.get(field) or [1]), "?") for e in (expected, found))
    advice = "pass --adapt colour to convert as at load, if the pictures are otherwise alike"
    return [] if there == here else [Difference(modality, field, there, here, "asked", advice, "colour")]


def _cyclic(modality: str, field: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
    there, here = expected.get(field), found.get(field)
    if there == here or (there is not True and here is not True):
        return []
    names = {True: "whole heart beats", False: "recordings that do not repeat", None: "recordings of unknown extent"}
    advice = "pass --adapt cyclic if the clips cover the same stretch of time"
    return [Difference(modality, field, names[there], names[here], "asked", advice, "cyclic")]


def _interval(modality: str, field: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
    """Frame intervals matter where frames are taken one after the other; a whole cycle is sampled evenly whatever they are."""
    if (expected.get("loading") or {}).get("sampling", "cycle") == "cycle":
        return []
    return _beyond(modality, field, expected, found, "s", "prepare clips with the frame interval of training, or pass")


def _spacing(modality: str, field: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
    """Pixel sizes matter where the crop has a size in mm; otherwise it is a share of the picture."""
    if (expected.get("loading") or {}).get("field") is None:
        return []
    return _beyond(modality, field, expected, found, "mm", "give the pixel spacing, or pass")


def _beyond(modality: str, field: str, expected: Entry, found: Entry, unit: str, advice: str) -> list[Difference]:
    there, here = expected.get(field), found.get(field)
    if there is None and here is None:
        return []
    known = there is not None and here is not None
    if known and here[0] >= there[0] / RANGE_TOLERANCE and here[1] <= there[1] * RANGE_TOLERANCE:  # type: ignore[index]
        return []
    trained, new = ("unknown" if r is None else f"{r[0]:g} to {r[1]:g} {unit}" for r in (there, here))
    return [Difference(modality, field, trained, new, "asked", f"{advice} --adapt {field}", field)]


def _views(modality: str, field: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
    there, here = (sorted(v or "unnamed" for v in e.get(field) or [""]) for e in (expected, found))
    if set(here) <= set(there):
        return []
    advice = "a note only: nothing was learnt from the others"
    return [Difference(modality, field, ", ".join(there), ", ".join(here), "exact", advice)]


_again = _equal("refused", "re-prepare the cohort with this version's `ssl4neuro prepare`")
_template = _equal("asked", "prepare with the templates of training, or pass --adapt template to accept these", "template")
unknown = _equal("refused", "this version knows no way to adapt it; prepare the cohort as for training")

RULES: dict[str, dict[str, Judge]] = {  # kind -> property -> what a difference means
    "volume": {
        "units": _again,
        "normalisation": _again,
        "sign": _again,
        "space": _space,
        "shape": _grid,  # with affine
        "mask_sha256": _mask,  # with voxels
        "template_sha256": _template,
    },
    "course": {
        "units": _again,
        "normalisation": _again,
        "tr": _timing,  # with trs
        "band": _band,
        "template_sha256": _template,
    },
    "clip": {
        "channels": _channels,
        "cyclic": _cyclic,
        "interval": _interval,
        "spacing": _spacing,
        "views": _views,
        "residual_of": _again,
    },
}
# Looked at by the rule of another property; `mask` holds the bits that mask_sha256 is the hash of.
# `loading` is how training cut its clips; it is applied to whatever comes.
JUDGED_WITH = {"affine", "voxels", "trs", "mask", "loading"}


def trs_of(entry: Entry) -> list[float | None]:
    """Distinct TRs of a course contract in seconds, ascending, then None if some are unknown."""
    trs = entry.get("trs") or [None]
    if not isinstance(trs, list | tuple):
        raise UserError(f"contract: the TRs {trs!r} are not a list of seconds")
    values = [entry["tr"]] if entry.get("tr") is not None else [*trs]
    known: list[float] = []
    unknown = entry.get("tr") is None and len(values) == 1  # a single TR of everything would stand in `tr`
    for value in values:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(f"contract: the TR {value!r} is not a number of seconds")
        if value is None or not math.isfinite(value) or value <= 0:
            unknown = True
        elif not any(abs(value - k) <= TR_TOLERANCE_S for k in known):
            known.append(float(value))
    return [*sorted(known), *([None] if unknown else [])]


def target_tr(tr: float, expected: Entry) -> float:
    """The TR of training (s) that is nearest to `tr` as a ratio; `tr` itself when training knew none."""
    known = [t for t in trs_of(expected) if t is not None]
    return min(known, key=lambda t: abs(math.log(t / tr))) if known else tr


def band_of(entry: Entry) -> tuple[float, float]:
    """Frequency band in Hz; (0, inf) when courses were not filtered."""
    band = entry.get("band")
    if band is None:
        return 0.0, math.inf
    good = isinstance(band, list | tuple) and len(band) == 2
    if not good or not all(b is None or (isinstance(b, int | float) and not isinstance(b, bool) and b >= 0) for b in band):
        raise UserError(f"contract: the band {band!r} is not two frequencies in Hz")
    return float(band[0] or 0.0), math.inf if band[1] is None else float(band[1])


def plain(value: Any) -> Any:
    """As it comes back from JSON: tuples and lists are the same, so are numpy's numbers and Python's."""
    return json.loads(json.dumps(value, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v)))


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    text = value if isinstance(value, str) else json.dumps(plain(value))
    return text[:12] + "…" if len(text) == 64 and set(text) <= set("0123456789abcdef") else text


def _seconds(trs: Sequence[float | None]) -> str:
    return "TR " + ", ".join("unknown" if t is None else f"{t:g} s" for t in trs)


def _hertz(entry: Entry) -> str:
    low, high = band_of(entry)
    return "the whole band" if (low, high) == (0.0, math.inf) else f"{low:g} to {high:g} Hz"
