"""One answer of the leak audit, as it stands in every result: passed, flagged, or not checkable, and why."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """What was looked for, what was found."""

    name: str  # e.g. "subject in both folds"
    status: Literal["passed", "flagged", "not checkable"]
    detail: str  # one sentence: numbers and names of columns, never of subjects
