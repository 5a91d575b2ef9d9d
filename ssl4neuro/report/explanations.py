"""Pictures that `explain` left beside a run or its results: what the encoder looks at, in a page that is passed on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ssl4neuro.report.folder import read_json
from ssl4neuro.report.page import Figure, Notice

FOLDER, INDEX = "explain", "explain.json"
MOST_BYTES = 1_900_000  # of all pictures; base64 adds a third, and the page stays below 3 MB
SECTION = "What the encoder looks at"
KINDS = (".png", ".svg")


class Explained(NamedTuple):
    """What goes on the page."""

    figures: list[Figure]
    notices: list[Notice]
    method: str


def explained(folders: list[Path]) -> Explained:
    """Pictures of the first folder that has any, its warnings, and sentences about what was left out.

    `explain.json` may hold `figures` (files, caption, alt), `warnings`, `notes` and `method`; without it every picture is shown
    by its name.

    Raises:
        UserError: explain.json is damaged.
    """
    folder = next((f / FOLDER for f in folders if _pictures(f / FOLDER)), None)
    if folder is None:
        return Explained([], [], "")
    record = read_json(folder / INDEX)
    listed = [entry for entry in record.get("figures") or () if isinstance(entry, dict) and _files(entry)]
    entries: list[dict[str, Any]] = listed or [{"file": name} for name in _pictures(folder)]
    found, room = [], MOST_BYTES
    notices = [Notice("warning", str(text)) for text in record.get("warnings") or ()]
    notices += [Notice("note", str(text)) for text in record.get("notes") or ()]
    for entry in entries:
        picture = _smallest(folder, _files(entry))
        title, caption = _title(entry)
        if picture is None or len(picture) > room:
            reason = (
                "its file is gone" if picture is None else f"the page would become too heavy; see the folder '{folder.name}'"
            )
            notices.append(Notice("note", f"The picture '{title}' is not on this page, because {reason}."))
            continue
        room -= len(picture)
        found.append(
            Figure(title, caption=caption, picture=picture, alt=str(entry.get("alt") or ""), wide=True, section=SECTION)
        )
    return Explained(found, notices, str(record.get("method") or ""))


def explanation_figures(folders: list[Path]) -> tuple[list[Figure], list[str]]:
    """Figures and sentences of `explained`."""
    found = explained(folders)
    return found.figures, [notice.text for notice in found.notices]


def _files(entry: Mapping[str, Any]) -> list[str]:
    files = entry.get("files")
    return [str(name) for name in (files if isinstance(files, list) else [entry.get("file")]) if name]


def _title(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Title and caption; the caption's first sentence where there is no title, the file's name where there is neither."""
    caption = str(entry.get("caption") or "")
    if entry.get("title"):
        return str(entry["title"]), caption
    first, _, rest = caption.partition(". ")
    name = Path(_files(entry)[0]).stem.replace("_", " ")
    title = first.rstrip(".") or name
    return title[:1].upper() + title[1:], rest


def _pictures(folder: Path) -> list[str]:
    """One file per picture, in the folder or in its `figures`."""
    files = [*folder.glob("*"), *folder.glob("figures/*")]
    names = sorted(p.relative_to(folder).as_posix() for p in files if p.suffix in KINDS and not p.name.startswith("."))
    return list({Path(name).with_suffix(""): name for name in names}.values())


def _smallest(folder: Path, names: list[str]) -> bytes | None:
    """The smaller of NAME.png and NAME.svg; nothing outside the folder."""
    files = [(folder / name).with_suffix(kind) for name in names for kind in KINDS]
    inside = [file for file in files if folder.resolve() in file.resolve().parents and file.is_file()]
    return min((file.read_bytes() for file in inside), key=len, default=None)
