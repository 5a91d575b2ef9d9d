"""The user's table of subjects (`--subjects`): what a source calls a person, and the ID that the person has in the cohort."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ssl4neuro.data.templates import read_table
from ssl4neuro.errors import UserError

SUBJECT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")  # it becomes part of file names and of tables


@dataclass(frozen=True)
class SubjectNames:
    """Subject ID by the name in the source. Without a table every name stands for itself.

    Messages name lines of the table and never its entries: for DICOM these are patients' identifiers.
    """

    path: Path | None
    names: dict[str, str]

    @classmethod
    def open(cls, path: Path | None) -> "SubjectNames":
        """Read a TSV with columns `source` and `participant_id`; None stands for no table.

        Raises:
            UserError: unreadable, an empty or unusable entry, or one source for two subjects.
        """
        if path is None:
            return cls(None, {})
        path = Path(path)
        table = read_table(path, ("source", "participant_id"))
        names: dict[str, str] = {}
        for line, (source, subject) in enumerate(zip(table["source"], table["participant_id"], strict=True), start=2):
            source, subject = str(source).strip(), str(subject).strip()
            if not source or not subject:
                empty = "participant_id" if source else "source"
                raise UserError(f"{path}: line {line} has no {empty}; fill it in or delete the line")
            if not SUBJECT_ID.match(subject):
                raise UserError(f"{path}: line {line}: the participant_id is no plain name; use letters, digits, '-' and '_'")
            if names.setdefault(source, subject) != subject:
                raise UserError(f"{path}: line {line} gives another participant_id to a source named before; keep one")
        if not names:
            raise UserError(f"{path}: has no lines; add one `source`, `participant_id` per subject")
        return cls(path, names)

    def of(self, source: str) -> str:
        """Subject ID of a folder or file.

        Raises:
            UserError: the table does not list it.
        """
        if self.path is None:
            return source
        if source not in self.names:
            raise UserError(f"{self.path}: does not list '{source}'; add a line with its participant_id")
        return self.names[source]

    def of_patients(self, sources: Iterable[tuple[str, ...]]) -> list[str]:
        """Subject IDs of patients, each known under one or more names (the first that is listed counts).

        Raises:
            UserError: some are not listed; says how many, since a name would identify the patient.
        """
        found = [next((self.names[name] for name in names if name in self.names), "") for names in sources]
        missing = found.count("")
        if missing:
            raise UserError(
                f"{self.path}: does not list {missing} of {len(found)} patients (not named here, to protect them); "
                "add their PatientID or folder as `source`"
            )
        return found
