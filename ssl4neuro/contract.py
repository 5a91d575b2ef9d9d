"""What a checkpoint expects of its input: compare, explain, enforce.

A contract is a plain dictionary, modality -> properties, written by `prepare` into the cohort and by training into the
checkpoint. Every property has one line in `RULES`, which says what a difference means: `exact` (adapted without loss or
without effect), `asked` (adapted when the user names the adaptation, because it changes the data), `refused`.
Applying an adaptation to tensors is the business of `ssl4neuro.adapt`.
"""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from ssl4neuro import geometry
from ssl4neuro.errors import UserError
from ssl4neuro.registry import suggest

Entry = Mapping[str, Any]
Contract = Mapping[str, Entry]
Remedy = Literal["exact", "asked", "refused"]
TR_TOLERANCE_S = 1e-3
BAND_TOLERANCE_HZ = 1e-4
RANGE_TOLERANCE = 1.25  # frame intervals and pixel spacings this much beyond those of training are no surprise

ADAPTATIONS = {
    "grid": "resample volumes to the grid of training",
    "mask": "use the cohort's mask where it lies inside the mask of training",
    "space": "take volumes of an unnamed space to be in the space of training",
    "template": "accept components that were found with other templates",
    "tr": "resample courses to the TR of training",
    "unknown-tr": "take courses of unknown TR to have the TR of training",
    "band": "filter courses to the frequency band of training",
    "colour": "make colour clips grey, or grey clips three equal channels, as the encoder needs",
    "cyclic": "take recordings to be whole heart beats as in training, or the other way round",
    "interval": "accept clips with other frame intervals than in training",
    "spacing": "accept clips of unknown or very different pixel spacing",
}


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


# --- rules ------------------------------------------------------------------------------------------------------------

Judge = Callable[[str, str, Entry, Entry, "Bool[np.ndarray, 'x y z'] | None"], list[Difference]]


def _equal(remedy: Remedy, advice: str, adaptation: str = "") -> Judge:
    """Any inequality has the same remedy."""

    def judge(modality: str, field: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
        if _plain(expected.get(field)) == _plain(found.get(field)):
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
    there, here = ([_plain(entry.get(key)) for key in keys] for entry in (expected, found))
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
_unknown = _equal("refused", "this version knows no way to adapt it; prepare the cohort as for training")

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


# --- the public functions -----------------------------------------------------------------------------------------------


def check(contract: Any, where: str) -> dict[str, dict[str, Any]]:
    """The contract, if it has the form of one.

    Raises:
        UserError: naming `where`, when it has not.
    """
    if not isinstance(contract, Mapping) or not contract:
        raise UserError(f"{where}: the input contract is missing or empty; prepare or train again")
    for modality, entry in contract.items():
        if not isinstance(modality, str) or not isinstance(entry, Mapping) or not isinstance(entry.get("kind"), str):
            raise UserError(f"{where}: the contract of '{modality}' has no kind; prepare or train again")
        try:
            if entry["kind"] == "volume":
                geometry.shape_of(entry)
                geometry.affine_of(entry)
            elif entry["kind"] == "course":
                trs_of(entry)
                band_of(entry)
        except UserError as error:
            raise UserError(f"{where}: {modality}: {error}") from error
    return {modality: dict(entry) for modality, entry in contract.items()}


def compare(
    expected: Contract,
    found: Contract,
    *,
    masks: "Mapping[str, Bool[np.ndarray, 'x y z']] | None" = None,
    required: Collection[str] = (),
) -> list[Difference]:
    """Everything in which `found` (a cohort) is not what `expected` (a checkpoint) was trained on.

    A modality that only the cohort has is ignored. One that only the checkpoint has is no obstacle as long as another is
    there, unless it is `required`. `masks` are the cohort's masks: with them, a mask that is the same after a lossless
    change of grid is recognised.

    Raises:
        UserError: one of the two has not the form of a contract.
    """
    expected, found = check(expected, "checkpoint"), check(found, "cohort")
    nothing_left = not set(expected) & set(found)
    differences = []
    for modality, entry in expected.items():
        if modality in found:
            differences += _compare_entry(modality, entry, found[modality], (masks or {}).get(modality))
            continue
        stop = nothing_left or modality in required
        advice = f"prepare a cohort that has '{modality}'" if stop else "the encoders of the other modalities are used"
        have = f"without it (has {', '.join(found)})"
        differences.append(Difference(modality, "modality", entry["kind"], have, "refused" if stop else "exact", advice))
    return differences


def enforce(
    expected: Contract,
    found: Contract,
    *,
    adapt: Collection[str] = (),
    masks: "Mapping[str, Bool[np.ndarray, 'x y z']] | None" = None,
    required: Collection[str] = (),
    where: str = "cohort",
) -> list[Difference]:
    """The adaptations to apply: those that are exact and those that `adapt` names (see ADAPTATIONS).

    Raises:
        UserError: a difference that is refused or was not asked for; one line with all of them and what to do.
    """
    for name in adapt:
        if name not in ADAPTATIONS:
            raise UserError(f"--adapt: unknown adaptation '{name}'{suggest(name, ADAPTATIONS)}")
    differences = compare(expected, found, masks=masks, required=required)
    blocking = [d for d in differences if d.remedy == "refused" or (d.remedy == "asked" and d.adaptation not in adapt)]
    if blocking:
        raise UserError(f"{where}: not what the checkpoint was trained on: {explain(blocking)}")
    return differences


def explain(differences: Sequence[Difference]) -> str:
    """All differences on one line; `no difference` when there is none."""
    return " | ".join(str(d) for d in differences) or "no difference"


def table(differences: Sequence[Difference]) -> str:
    """The differences as an aligned text table, one line each, for the terminal and the report."""
    head = ("property", "trained on", "cohort", "remedy", "what to do")
    lines = [head, *((f"{d.modality}.{d.field}", d.expected, d.found, d.remedy, d.advice) for d in differences)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


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


def _compare_entry(modality: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
    if expected["kind"] != found["kind"]:
        advice = "another modality goes by this name; prepare the cohort as for training"
        return [Difference(modality, "kind", expected["kind"], found["kind"], "refused", advice)]
    rules = RULES.get(expected["kind"], {})
    known = [*rules, *(JUDGED_WITH if rules else ()), "kind"]
    others = sorted((set(expected) | set(found)) - set(known))  # a property that this version does not know still counts
    return [d for field, judge in [*rules.items(), *((f, _unknown) for f in others)]
            for d in judge(modality, field, expected, found, mask)]  # fmt: skip


def _plain(value: Any) -> Any:
    """As it comes back from JSON: tuples and lists are the same, so are numpy's numbers and Python's."""
    return json.loads(json.dumps(value, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v)))


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    text = value if isinstance(value, str) else json.dumps(_plain(value))
    return text[:12] + "…" if len(text) == 64 and set(text) <= set("0123456789abcdef") else text


def _seconds(trs: Sequence[float | None]) -> str:
    return "TR " + ", ".join("unknown" if t is None else f"{t:g} s" for t in trs)


def _hertz(entry: Entry) -> str:
    low, high = band_of(entry)
    return "the whole band" if (low, high) == (0.0, math.inf) else f"{low:g} to {high:g} Hz"
