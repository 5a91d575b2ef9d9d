"""Is somebody on both sides of a split: under one ID, under two spellings, or as visits or copies with IDs of their own?"""

import re

import numpy as np

from ssl4neuro.evaluate.audit.evidence import Evidence, bare_name
from ssl4neuro.evaluate.check import Check

BOTH, SPELT, VISITS = "subject in both folds", "one subject under two spellings", "visits or copies as subjects of their own"
PART = re.compile(
    r"(?P<stem>.*\d.*?)[\s_.\-]*(?P<part>(?:ses(?:sion)?|visit|time(?:point)?|tp|wave|run|scan|rep|aug(?:mented)?|copy|dup|flip(?:ped)?"
    r"|fl|mirror(?:ed)?|rot|noise|crop)[\s_.\-]*[a-z]*\d*|[vtm]\d{1,2}|pre|post|baseline|bl|follow-?up|fu\d*)$",
    re.IGNORECASE,
)


def people(evidence: Evidence) -> list[Check]:
    """Three checks of subject IDs against the folds."""
    problem = evidence.problem
    both = max(
        (len(np.intersect1d(problem.subjects[f.train], problem.subjects[f.test])) for r in evidence.folds for f in r), default=0
    )
    count = sum(len(repeat) for repeat in evidence.folds)
    checks = [
        Check(BOTH, "flagged", f"{both} subjects train and are tested in one fold")
        if both
        else Check(BOTH, "passed", f"no subject trains and is tested in any of {count} folds")
    ]
    names = sorted(set(problem.table["subject"].astype(str)))
    spelt = len(names) - len({bare_name(name) for name in names})
    checks.append(
        Check(SPELT, "flagged", f"{spelt} of {len(names)} IDs differ from another one in capitals, separators or `sub-` only")
        if spelt
        else Check(SPELT, "passed", f"{len(names)} IDs, all different")
    )
    extra, example = same_stem(names)
    checks.append(
        Check(
            VISITS, "flagged", f"{extra} of {len(names)} IDs look like one more visit or copy of a subject (ending '{example}')"
        )
        if extra
        else Check(VISITS, "passed", "no ID is another one with a visit or copy added")
    )
    return checks


def same_stem(names: list[str]) -> tuple[int, str]:
    """How many IDs are another one but for an ending that names a visit or a copy, and one such ending."""
    stems: dict[str, list[str]] = {}
    for name in names:
        match = PART.fullmatch(name)
        stem, part = (match["stem"], match["part"]) if match else (name, "")
        stems.setdefault(bare_name(stem), []).append(part)
    shared = [parts for parts in stems.values() if len(parts) > 1 and any(parts)]
    example = next((part for parts in shared for part in parts if part), "")
    return sum(len(parts) - 1 for parts in shared), example
