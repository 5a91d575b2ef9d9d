"""What a checkpoint expects of its input: compare, explain, enforce.

A contract is a plain dictionary, modality -> properties, written by `prepare` into the cohort and by training into the
checkpoint. `contract_rules` says what a difference means.
Applying an adaptation to tensors is the business of `ssl4neuro.adapt`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from ssl4neuro import geometry
from ssl4neuro.contract_rules import (
    JUDGED_WITH,
    RULES,
    TR_TOLERANCE_S,
    Contract,
    Difference,
    Entry,
    band_of,
    target_tr,
    trs_of,
    unknown,
)
from ssl4neuro.errors import UserError
from ssl4neuro.registry import suggest

__all__ = [
    "ADAPTATIONS", "TR_TOLERANCE_S", "Contract", "Difference", "Entry", "band_of", "check", "compare", "enforce", "explain",
    "table", "target_tr", "trs_of",
]  # fmt: skip

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


def _compare_entry(modality: str, expected: Entry, found: Entry, mask: Any) -> list[Difference]:
    if expected["kind"] != found["kind"]:
        advice = "another modality goes by this name; prepare the cohort as for training"
        return [Difference(modality, "kind", expected["kind"], found["kind"], "refused", advice)]
    rules = RULES.get(expected["kind"], {})
    known = [*rules, *(JUDGED_WITH if rules else ()), "kind"]
    others = sorted((set(expected) | set(found)) - set(known))  # a property that this version does not know still counts
    return [d for field, judge in [*rules.items(), *((f, unknown) for f in others)]
            for d in judge(modality, field, expected, found, mask)]  # fmt: skip
