"""What a report consists of; the same for runs and results, so that one template shows both."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Notice:
    """A sentence that must not be overlooked."""

    level: Literal["good", "note", "warning"]
    text: str


@dataclass(frozen=True)
class Table:
    """A table, also written as `<report>_<name>.csv` and `.tex` when it has a name."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    name: str = ""
    note: str = ""
    emphasis: tuple[int, ...] = ()  # rows shown in bold: the user's own, among baselines
    exact: tuple[dict[str, Any], ...] = ()  # for the CSV file: rows with numbers that are not rounded
    folded: bool = False  # long ones are opened by who wants them


@dataclass(frozen=True)
class Figure:
    """An inline SVG, or a picture file, with the text that stands for it where it cannot be seen."""

    title: str
    svg: str = ""
    caption: str = ""
    wide: bool = False
    picture: bytes = b""  # a PNG or GIF file, or a whole SVG file that others drew, in the place of `svg`
    alt: str = ""  # title and caption where it is empty
    section: str = "Figures"  # heading under which it stands

    @property
    def moving(self) -> bool:
        """Whether it is an animation, which a reader must be able to stop."""
        return self.picture.startswith(b"GIF")

    @property
    def source(self) -> str:
        """The picture as a data URI: a page that is passed on takes its pictures along."""
        kind = "gif" if self.moving else "png" if self.picture.startswith(b"\x89PNG") else "svg+xml"
        return f"data:image/{kind};base64,{base64.b64encode(self.picture).decode()}"


@dataclass(frozen=True)
class Page:
    """A report, ready for the template."""

    title: str
    subtitle: str
    summary: str
    methods: str
    notices: list[Notice] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    gallery: list[Figure] = field(default_factory=list)  # cases
    gallery_note: str = ""
    tables: list[Table] = field(default_factory=list)
    details: list[tuple[str, str]] = field(default_factory=list)  # heading and preformatted text, folded
    answers: list[tuple[str, str]] = field(default_factory=list)  # what was asked, found, beside it: name and sentences
    commands: list[str] = field(default_factory=list)  # to repeat it
    remarks: dict[str, list[Notice]] = field(default_factory=dict)  # under the heading of figures that they are about

    @property
    def sections(self) -> dict[str, list[Figure]]:
        """Figures by the heading under which they stand, in the order in which the headings first occur."""
        names = dict.fromkeys([*(figure.section for figure in self.figures), *self.remarks])
        return {name: [figure for figure in self.figures if figure.section == name] for name in names}


def number(value: Any, digits: int = 3) -> str:
    """A number as people read it; a dash where there is none."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    small = not isinstance(value, int) and 0 < abs(value) < 1e-3
    text = f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}" if small else f"{value:,.{digits}f}"
    return text if "e" in text else text.replace("-", "−")


def duration(seconds: float | int) -> str:
    """`2 h 5 min`, `3 min 20 s`, `14 s`."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def plural(count: int, noun: str) -> str:
    """`1 subject`, `20 subjects`."""
    ending = "" if count == 1 else "es" if noun.endswith(("s", "x", "ch")) else "s"
    return f"{count:,} {noun}{ending}"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""
