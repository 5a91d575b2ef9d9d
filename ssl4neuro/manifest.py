"""Which subjects a checkpoint has seen: salted hashes of subjects and of source files, for the leakage firewall.

Two cohorts overlap where a subject of the same dataset goes by the same name, or where the same file comes back under
another name. Hashes are salted so that a published checkpoint does not list its subjects and two checkpoints cannot be
joined on them. The salt is stored beside them, because later cohorts must be hashed the same way: whoever already holds the
list of names can test it, which is the purpose.
"""

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl4neuro.errors import UserError

FORMAT, VERSION = "ssl4neuro manifest", 1
COMMON = 3  # a file that so many subjects of a cohort share says nothing about any of them: a JSON sidecar, a template


@dataclass(frozen=True)
class Entry:
    """One cohort that a checkpoint was trained on."""

    salt: str  # hex
    subjects: frozenset[str]  # sha256 of salt, dataset name and subject
    contents: frozenset[str]  # sha256 of salt and the sha256 of a source file
    provenance: Mapping[str, Any] = field(default_factory=dict)  # cohort name, counts, versions; no names of subjects


@dataclass(frozen=True)
class Manifest:
    """Everything that a checkpoint has seen: one entry per cohort, because each has its own salt."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def of(
        cls,
        dataset: str,
        subjects: Iterable[str],
        contents: Iterable[str],
        salt: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> "Manifest":
        """Manifest of the subjects that shaped the weights.

        Args:
            dataset: name of the dataset, as in `cohort.json`.
            subjects: as in `participants.tsv`.
            contents: sha256 (hex) of all their source files.
            salt: hex; random by default. Weights do not depend on it.
            provenance: anything worth keeping (versions, cohort folder); must not name subjects.
        """
        salt = secrets.token_hex(16) if salt is None else salt
        names = frozenset(_subject_hash(salt, dataset, subject) for subject in subjects)
        files = frozenset(_content_hash(salt, file) for file in contents)
        return cls((Entry(salt, names, files, {**(provenance or {}), "dataset": dataset, "subjects": len(names)}),))

    def merge(self, *others: "Manifest") -> "Manifest":
        """Manifest of what this one and the others have seen together; equal entries are kept once."""
        entries: list[Entry] = []
        for manifest in (self, *others):
            entries += [entry for entry in manifest.entries if entry not in entries]
        return Manifest(tuple(entries))

    def overlap(self, dataset: str, contents: Mapping[str, Iterable[str]]) -> list[str]:
        """Subjects of a cohort that the checkpoint has seen, by name within the same dataset or by the content of a file.

        Args:
            dataset: name of the cohort's dataset.
            contents: subject -> sha256 of its source files (hex).
        """
        files = {subject: {file.lower() for file in found} for subject, found in contents.items()}
        owners = Counter(file for found in files.values() for file in found)
        seen = set()
        for entry in self.entries:
            for subject, found in files.items():
                own = (file for file in found if owners[file] < COMMON)
                if _subject_hash(entry.salt, dataset, subject) in entry.subjects or any(
                    _content_hash(entry.salt, file) in entry.contents for file in own
                ):
                    seen.add(subject)
        return sorted(seen)

    def to_json(self) -> dict[str, Any]:
        """Plain form, sorted, so that equal manifests give equal files."""
        entries = [
            {
                "salt": entry.salt,
                "subjects": sorted(entry.subjects),
                "contents": sorted(entry.contents),
                "provenance": dict(entry.provenance),
            }
            for entry in self.entries
        ]
        return {"format": FORMAT, "version": VERSION, "entries": entries}

    @classmethod
    def from_json(cls, record: Any, where: str) -> "Manifest":
        """Read `to_json` back.

        Raises:
            UserError: naming `where`, when it is no manifest. A firewall that cannot be read must not pass for an empty one.
        """
        if not isinstance(record, Mapping) or record.get("format") != FORMAT or record.get("version") != VERSION:
            raise UserError(f"{where}: not {FORMAT} version {VERSION}; use the version of ssl4neuro that wrote it")
        entries = record.get("entries")
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise UserError(f"{where}: the list of entries is missing; the manifest is damaged, train again")
        return cls(tuple(_entry(entry, where) for entry in entries))


def file_sha256(path: Path) -> str:
    """sha256 of a file (hex), read in pieces.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check that it exists and is readable") from error


def _subject_hash(salt: str, dataset: str, subject: str) -> str:
    # Layouts differ in `sub-01` and `01`, and in capitals; a firewall rather stops once too often.
    name = subject.strip().casefold().removeprefix("sub-")
    # The separator keeps ("ab", "c") and ("a", "bc") apart.
    return hashlib.sha256("\0".join([salt, dataset.strip().casefold(), name]).encode()).hexdigest()


def _content_hash(salt: str, file: str) -> str:
    return hashlib.sha256(f"{salt}\0{file.lower()}".encode()).hexdigest()


def _entry(record: Mapping[str, Any], where: str) -> Entry:
    salt, provenance = record.get("salt"), record.get("provenance", {})
    if not isinstance(salt, str) or not re.fullmatch(r"[0-9a-f]*", salt) or not isinstance(provenance, Mapping):
        raise UserError(f"{where}: salt or provenance of an entry is missing; the manifest is damaged, train again")
    sets = []
    for name in ("subjects", "contents"):
        values = record.get(name)
        if not isinstance(values, list) or not all(isinstance(v, str) and re.fullmatch(r"[0-9a-f]{64}", v) for v in values):
            raise UserError(f"{where}: '{name}' is not a list of sha256 hashes; the manifest is damaged, train again")
        sets.append(frozenset(values))
    return Entry(salt, sets[0], sets[1], dict(provenance))
