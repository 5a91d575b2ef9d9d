"""Whose scan a folder holds: BIDS-like names in its path, or a table of sessions."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ssl4neuro.data.templates import read_table
from ssl4neuro.errors import UserError

ENTITY = re.compile(r"(?:^|_)(sub|ses|run)-([A-Za-z0-9]+)")
TR_RANGE = (0.05, 20.0)  # s; outside it a repetition time is a unit mistake or a placeholder


def entities(parts: Iterable[str]) -> dict[str, str]:
    """`{"sub": "sub-01", "ses": "ses-pre", "run": "run-1"}` as far as named; the deepest part that names one wins."""
    found: dict[str, str] = {}
    for part in reversed(list(parts)):
        for key, value in ENTITY.findall(part):
            found.setdefault(key, f"{key}-{value}")
    return found


def common_root(folders: Iterable[Path]) -> Path:
    """Deepest folder that contains them all."""
    return Path(os.path.commonpath([Path(folder).resolve() for folder in folders]))


def dataset_root(folders: Iterable[Path]) -> Path:
    """The dataset's own folder, where its tables lie: above all `folders`, and above any sub- and ses- folder."""
    root = common_root(folders)
    own = [parent for parent in root.parents if ENTITY.search(root.relative_to(parent).parts[0])]
    return own[-1] if own else root


@dataclass(frozen=True)
class SessionTable:
    """The user's table of sessions: participant_id, and any of session_id, run_id, folder, tr (s), site and labels."""

    path: Path
    rows: tuple[dict[str, str], ...]

    @classmethod
    def open(cls, path: Path) -> "SessionTable":
        """Read and check it.

        Raises:
            UserError: unreadable, without participant_id, a line without participant, or a repetition time that is none.
        """
        table = read_table(path, ("participant_id",))
        rows = []
        for line, entry in enumerate(table.to_dict("records"), start=2):
            row = {str(key): str(value).strip() for key, value in entry.items()}
            if not row["participant_id"]:
                raise UserError(f"{path}: line {line} has no participant_id; fill it in")
            cls._check_tr(path, line, row.get("tr", ""))
            rows.append(row)
        return cls(Path(path), tuple(rows))

    @property
    def maps_folders(self) -> bool:
        """Whether it says which folder is whose."""
        return any(row.get("folder") for row in self.rows)

    @property
    def determines_scans(self) -> bool:
        """Whether it holds anything but labels, so that a change of it changes the scans."""
        return self.maps_folders or any(row.get("tr") or row.get("gift") for row in self.rows)

    def of_folder(self, folder: Path, root: Path) -> dict[str, str] | None:
        """The row whose `folder` is this one or contains it (the deepest one), relative to `root` or to the table."""
        folder = folder.resolve()
        best: tuple[int, dict[str, str]] | None = None
        for row in self.rows:
            if not row.get("folder"):
                continue
            for base in (root, self.path.parent):
                candidate = (base / row["folder"]).resolve()
                if folder.is_relative_to(candidate) and (best is None or len(candidate.parts) > best[0]):
                    best = (len(candidate.parts), row)
        return best[1] if best else None

    def of_scan(self, subject: str, session: str, run: str) -> dict[str, str] | None:
        """The row of a scan; a column that the table lacks is not compared. With or without the prefixes `sub-`, `ses-`."""
        wanted = {"participant_id": subject, "session_id": session, "run_id": run}
        for row in self.rows:
            if all(bare(row[column]) == bare(value) for column, value in wanted.items() if row.get(column)):
                return row
        return None

    @staticmethod
    def tr(row: dict[str, str] | None) -> float:
        """Repetition time (s) of a row, NaN where it gives none."""
        text = (row or {}).get("tr", "")
        return float(text) if text and text.lower() not in {"n/a", "na", "nan"} else float("nan")

    @classmethod
    def _check_tr(cls, path: Path, line: int, text: str) -> None:
        try:
            value = cls.tr({"tr": text})
        except ValueError:
            raise UserError(f"{path}: line {line}: tr '{text}' is not a number; give seconds, e.g. 2.0") from None
        if not (value != value or TR_RANGE[0] <= value <= TR_RANGE[1]):
            raise UserError(f"{path}: line {line}: tr {text} is no repetition time in seconds; give seconds, e.g. 2.0")


def bare(name: str) -> str:
    """`01` for `sub-01`, so that tables with and without the prefixes agree."""
    return re.sub(r"^(sub|ses|run)-", "", name)


def sites(participants: Path | None) -> dict[str, str]:
    """Site by bare participant name, from participants.tsv; empty without a table or a column `site`."""
    if participants is None:
        return {}
    table = read_table(participants, ())
    if "site" not in table or "participant_id" not in table:
        return {}
    return {bare(name): site.strip() for name, site in zip(table["participant_id"], table["site"], strict=True)}
