"""Does something that is not the brain or the heart go with the target? One family of tests over all such properties."""

from collections.abc import Mapping

import pandas as pd

from ssl4neuro.data.association import MATERIAL, Association, Labels, associate, flagged, undecided
from ssl4neuro.data.scan_properties import DATE, GEOMETRY, INTENSITY, LENGTH, SITE
from ssl4neuro.evaluate.audit.evidence import Evidence
from ssl4neuro.evaluate.audit.excluded import NAME as EXCLUSIONS
from ssl4neuro.evaluate.audit.excluded import exclusions, skipped
from ssl4neuro.evaluate.audit.properties import FILES, IDS, MISSING, Grouped, described, gaps, named, recorded
from ssl4neuro.evaluate.check import Check

UNKNOWN = {
    SITE: "no column of sites or scanners",
    LENGTH: "the lengths of the scans are not known",
    GEOMETRY: "voxel sizes, repetition times and file formats are not known",
    INTENSITY: "raw intensities are not known; `ssl4neuro doctor` looks at the scans",
    DATE: "no column of dates or of the order of scans",
    FILES: "file names are not recorded",
}
TELLS = {SITE: "site predicts the target"}


def confounded(evidence: Evidence) -> list[Check]:
    """One check per kind of property; family-wise error over all properties of all kinds together."""
    names = (SITE, LENGTH, GEOMETRY, INTENSITY, DATE, FILES, IDS, MISSING, EXCLUSIONS)
    if evidence.scheme == "within scans":
        return [Check(name, "passed", "the target varies within scans, this does not") for name in names]
    found = {kind: _associations(columns, evidence.labels) for kind, columns in _properties(evidence).items()}
    left_out, told = exclusions(evidence)
    every = [one for _, many in found.values() for one in many] + [one for one, _ in left_out]
    sure = {id(one) for one in flagged(every)}
    open_ = {id(one) for one in undecided(every, evidence.labels)}
    checks = [_check(name, *found.get(name, (0, [])), sure, open_, evidence) for name in names[:-1]]
    return [*checks, _exclusions(evidence, left_out, told, sure)]


def _properties(evidence: Evidence) -> Grouped:
    groups = described(evidence)
    for kind, columns in recorded(evidence).items():
        groups[kind] = {**columns, **groups.get(kind, {})}
    if evidence.cohort is not None and evidence.cohort.info["kind"] != "clips":
        groups[INTENSITY]["(scaled away)"] = pd.Series(dtype=float)  # `prepare` gives every map and course the same scale
    return {**groups, IDS: named(evidence), MISSING: gaps(evidence)}


def _associations(columns: Mapping[str, pd.Series], labels: Labels) -> tuple[int, list[Association]]:
    """How many properties there are, and the associations of those that vary."""
    made = (associate(name, values, labels) for name, values in columns.items() if len(values))
    return len(columns), [one for one in made if one is not None]


def _check(name: str, count: int, found: list[Association], sure: set[int], open_: set[int], evidence: Evidence) -> Check:
    target = evidence.problem.target
    telling = sorted((one for one in found if id(one) in sure), key=lambda one: -one.strength)
    if telling:
        return Check(name, "flagged", f"{TELLS.get(name, 'goes with the target')} ({', '.join(one.words for one in telling)})")
    maybe = [one.words for one in found if id(one) in open_]
    if maybe:
        detail = f"goes with '{target}' ({', '.join(maybe)}), but with {len(evidence.first)} units chance may do that too"
        return Check(name, "not checkable", detail)
    if not count and name in UNKNOWN:
        return Check(name, "not checkable", UNKNOWN[name])
    if not count:
        why = "no value is missing" if name == MISSING else "the target varies within subjects"
        return Check(name, "passed", why)
    if not found:
        return Check(name, "passed", "the same for all")
    best = max(found, key=lambda one: one.strength)
    near = f"; the most is {best.words}" if best.strength > 0 else ""
    return Check(name, "passed", f"nothing of {len(found)} with r or V above {MATERIAL} beyond chance{near}")


def _exclusions(evidence: Evidence, found: list[tuple[Association, Labels]], told: str, sure: set[int]) -> Check:
    telling = [one.words for one, _ in found if id(one) in sure]
    if telling:
        return Check(EXCLUSIONS, "flagged", f"depend on the target ({', '.join(telling)})")
    if found:
        return Check(EXCLUSIONS, "passed", f"{told}, independently of the target")
    lost = skipped(evidence.cohort)
    if lost:
        return Check(
            EXCLUSIONS, "not checkable", f"{lost} inputs were skipped when the cohort was prepared; too few have a label"
        )
    if evidence.cohort is None and not told:
        return Check(EXCLUSIONS, "not checkable", "who was left out before the features were made is not recorded")
    return Check(EXCLUSIONS, "passed", told or "no input was left out")
