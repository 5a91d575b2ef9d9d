"""Has the encoder, or have the group maps, seen the people who are tested? Does everybody's vector come from one encoder?"""

import re

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.audit.evidence import Evidence
from ssl4neuro.evaluate.check import Check
from ssl4neuro.manifest import Manifest

SEEN, SEVERAL, TEMPLATES = (
    "encoder trained on test subjects",
    "features of several encoders",
    "group maps made of test subjects",
)
ENCODER = re.compile(r"^(encoder|checkpoint|model|weights|crossfit|fold)(_?(id|name|number|sha256))?$", re.IGNORECASE)


def encoder(evidence: Evidence) -> list[Check]:
    """Three checks of where the features come from."""
    return [_seen(evidence), _several(evidence), _templates(evidence)]


def _seen(evidence: Evidence) -> Check:
    wall, info = evidence.problem.wall, {} if evidence.source is None else evidence.source.info
    if wall.stamp:
        return Check(SEEN, "flagged", wall.stamp)
    if not info.get("manifest"):
        given = "seen" in evidence.problem.table and evidence.problem.table["seen"].any()
        told = "; those that the column 'seen' names are not tested" if given else ""
        return Check(SEEN, "not checkable", f"no record of whom the encoder was trained on{told}")
    tested = _tested(evidence)
    if evidence.cohort is not None:
        try:
            manifest = Manifest.from_json(info["manifest"], "embeddings.json")
        except UserError as error:
            return Check(SEEN, "not checkable", str(error))
        again = tested & set(manifest.overlap(evidence.cohort.name, evidence.cohort.content_hashes()))
        if again:
            return Check(SEEN, "flagged", f"{len(again)} of {len(tested)} test subjects are in the encoder's manifest")
    return Check(SEEN, "passed", f"none of {len(tested)} test subjects is in the encoder's manifest, by name or by content")


def _several(evidence: Evidence) -> Check:
    table = evidence.problem.table
    for column in table:
        if ENCODER.match(str(column)) and column != evidence.problem.target and table[column].nunique() > 1:
            detail = f"column '{column}' names {table[column].nunique()} encoders, whose feature spaces need not agree"
            return Check(SEVERAL, "flagged", detail)
    if evidence.source is not None and evidence.source.info.get("checkpoint_sha256"):
        return Check(SEVERAL, "passed", "all features come from one checkpoint")
    return Check(SEVERAL, "not checkable", "no record of the encoder; features of a crossfit must not be mixed")


def _templates(evidence: Evidence) -> Check:
    if evidence.cohort is None:
        return Check(TEMPLATES, "not checkable", "no cohort that records how the scans were prepared")
    info, tested = evidence.cohort.info, _tested(evidence)
    settings = info["settings"]
    if settings.get("canica"):
        fitted = tested & set(settings["canica_subjects"])
        if fitted:
            detail = f"CanICA was fitted on {len(fitted)} of {len(tested)} test subjects; prepare again with --canica-subjects"
            return Check(TEMPLATES, "flagged", detail)
        return Check(TEMPLATES, "passed", f"CanICA was fitted on none of {len(tested)} test subjects")
    if info["kind"] == "clips" or settings.get("source") == "melodic":
        return Check(TEMPLATES, "passed", "every scan was prepared on its own")
    what = {"gift": "GIFT's group ICA", "courses": "the regions or components"}.get(
        str(settings.get("source")), "the group maps"
    )
    return Check(TEMPLATES, "not checkable", f"of whom {what} were made is not recorded")


def _tested(evidence: Evidence) -> set[str]:
    problem = evidence.problem
    return set(problem.table["subject"].astype(str)[problem.wall.testable])
