"""Single fields of a DICOM header as checked numbers, and the one place where pydicom's troubles become readable lines.

A header holds identities in places one does not expect, also in texts of exceptions and warnings of the parser. So nothing
that a header says goes into a message unless it is a number or a word from a table here.
"""

import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from ssl4neuro.errors import UserError

CLOCK = re.compile(r"(\d{2})(\d{2})?(\d{2})?(\.\d{1,6})?")
VIEWS = {
    "sax": re.compile(r"(?<![a-z0-9])(sax|short[ _-]?axis)(?![a-z])"),
    "2ch": re.compile(r"(?<![a-z0-9])(2|two)[ _-]?ch(amber)?(?![a-z])"),
    "3ch": re.compile(r"(?<![a-z0-9])(3|three)[ _-]?ch(amber)?(?![a-z])"),
    "4ch": re.compile(r"(?<![a-z0-9])(4|four)[ _-]?ch(amber)?(?![a-z])"),
}


class DicomProblem(UserError):
    """What is wrong with a file: `what` alone may go into records, the message also names the file."""

    def __init__(self, file: Path, what: str) -> None:
        super().__init__(f"{file}: {what}")
        self.file, self.what = file, what

    def __reduce__(self) -> tuple[type["DicomProblem"], tuple[Path, str]]:
        return DicomProblem, (self.file, self.what)  # goes from worker processes to the parent


def pydicom_module(file: Path) -> Any:
    """pydicom, loaded only when there is a DICOM file to read.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pydicom
        import pydicom.pixels  # not loaded by the first line
    except ImportError:
        raise UserError(f"{file}: reading DICOM needs pydicom, which is not installed; pip install 'pydicom>=3'") from None
    return pydicom


@contextmanager
def guarded(file: Path, doing: str) -> Iterator[None]:
    """Turns whatever is raised inside into a `DicomProblem`, and silences the parser's warnings, which quote values."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:  # malformed files make the parser fail in a hundred ways
        raise DicomProblem(file, f"{doing} ({type(error).__name__}); export the file again or remove it") from None
    finally:
        logger.disabled = before


def numbers(dataset: Any, name: str, file: Path) -> tuple[float, ...]:
    """Values of a numeric field, () where it is missing or empty.

    Raises:
        DicomProblem: not finite numbers.
    """
    try:
        value = dataset.get(name)
        if value is None or value == "":
            return ()
        several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        found = tuple(float(part) for part in (value if several else [value]))
    except Exception:  # the value is parsed on access: any error of the parser
        found = (math.nan,)
    if not all(math.isfinite(part) for part in found):
        raise DicomProblem(file, f"header field {name} is not a number; export the file again or remove it")
    return found


def number(dataset: Any, name: str, file: Path) -> float | None:
    """The value of a numeric field with one value, None where it is missing; of several values the first."""
    found = numbers(dataset, name, file)
    return found[0] if found else None


def whole(dataset: Any, name: str, file: Path) -> int | None:
    """The value of a field that counts something, None where it is missing."""
    found = number(dataset, name, file)
    if found is not None and not found.is_integer():
        raise DicomProblem(file, f"header field {name} is not a whole number; export the file again or remove it")
    return None if found is None else int(found)


def vector(dataset: Any, name: str, length: int, file: Path) -> tuple[float, ...] | None:
    """A field of exactly `length` numbers, None where it is missing."""
    found = numbers(dataset, name, file)
    if found and len(found) != length:
        raise DicomProblem(file, f"header field {name} has {len(found)} numbers instead of {length}; export the file again")
    return found or None


def text(dataset: Any, name: str) -> str:
    """A field as text, for comparison only; empty where it is missing or unreadable."""
    try:
        value = dataset.get(name)
    except Exception:
        return ""
    return "" if value is None else str(value).strip("\0 ")


def items(dataset: Any, name: str) -> list[Any]:
    """Items of a sequence, [] where it is missing or not a sequence."""
    value = dataset.get(name)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else []


def moment(day: str, clock: str) -> float | None:
    """Seconds of a date `YYYYMMDD` (may be empty) and a time `HHMMSS.FFFFFF` (also `HH:MM:SS`), None where not readable."""
    match = CLOCK.match(clock.replace(":", ""))
    if match is None:
        return None
    hours, minutes, seconds, fraction = (float(part) if part else 0.0 for part in match.groups())
    day = day.replace(".", "")[:8]
    try:
        days = date(int(day[:4]), int(day[4:6]), int(day[6:8])).toordinal() if day else 0
    except ValueError:
        days = 0
    return 86400.0 * days + 3600 * hours + 60 * minutes + seconds + fraction


def view_of(description: str) -> str:
    """`sax`, `2ch`, `3ch` or `4ch` where a description names exactly one of them, else empty."""
    found = [view for view, pattern in VIEWS.items() if pattern.search(description.lower())]
    return found[0] if len(found) == 1 else ""
