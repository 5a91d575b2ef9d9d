"""BIDS file names: `sub-01_ses-pre_task-rest_run-1_space-MNI152_desc-preproc_bold.nii.gz` and what it says."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssl4neuro.data.readers.naming import TR_RANGE
from ssl4neuro.errors import UserError

NAME = re.compile(r"^((?:[A-Za-z]+-[A-Za-z0-9.+]+_)*)([A-Za-z0-9]+)(\.[A-Za-z0-9][A-Za-z0-9.]*)\Z")


@dataclass(frozen=True)
class BidsName:
    """A parsed file name: `entities` in their order, e.g. {"sub": "01", "task": "rest"}, `suffix` bold, `extension` .nii.gz."""

    suffix: str
    extension: str
    entities: Mapping[str, str] = field(default_factory=dict)

    def get(self, key: str) -> str:
        """Value of an entity, empty where the name lacks it."""
        return self.entities.get(key, "")

    def __str__(self) -> str:
        return "_".join([*(f"{key}-{value}" for key, value in self.entities.items()), self.suffix]) + self.extension


def parse_name(name: str) -> BidsName | None:
    """Entities, suffix and extension of a file name; None where it does not follow BIDS or repeats an entity."""
    match = NAME.match(name)
    if match is None:
        return None
    pairs = [part.split("-", 1) for part in match[1].split("_") if part]
    entities = {part[0]: part[1] for part in pairs}
    if len(entities) < len(pairs):
        return None
    return BidsName(match[2], match[3], entities)


def sidecars(path: Path, root: Path) -> list[Path]:
    """JSON files that apply to `path` by BIDS inheritance, the nearest last (its values count).

    A sidecar applies if it lies in the file's folder or above it, has the same suffix, and names no entity otherwise.
    """
    name = parse_name(path.name)
    if name is None:
        return []
    folders = [path.parent, *path.parent.parents]
    above = folders[: folders.index(root) + 1] if root in folders else [path.parent]
    found = []
    for folder in reversed(above):
        here = []
        for candidate in folder.glob(f"*{name.suffix}.json"):
            other = parse_name(candidate.name)
            if other is not None and other.suffix == name.suffix and set(other.entities.items()) <= set(name.entities.items()):
                here.append((len(other.entities), candidate.name, candidate))
        found += [entry[2] for entry in sorted(here)]
    return found


def sidecar_value(files: Sequence[Path], key: str) -> object:
    """Value of `key` in the nearest sidecar that has it, else None.

    Raises:
        UserError: a sidecar is not JSON.
    """
    for file in reversed(files):
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: not valid JSON ({error}); repair or delete it") from error
        if not isinstance(content, dict):
            raise UserError(f"{file}: not a JSON object; repair or delete it")
        if key in content:
            return content[key]
    return None


def repetition_time(files: Sequence[Path]) -> float:
    """`RepetitionTime` (s) of the sidecars, NaN where none gives it.

    Raises:
        UserError: it is no time in seconds.
    """
    value = sidecar_value(files, "RepetitionTime")
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not TR_RANGE[0] <= value <= TR_RANGE[1]:
        raise UserError(f"{files[-1]}: RepetitionTime {value!r} is no time in seconds; correct it, e.g. 2.0")
    return float(value)
