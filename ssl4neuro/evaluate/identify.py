"""`identify`: whose scan is it, from every embedding of two folders, beside FNC and raw maps of the same scans."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ssl4neuro.atomic import write_text
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.embedding_table import open_embeddings
from ssl4neuro.data.embeddings import Embeddings
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.identification import Identification, Kind, identify, identify_embeddings, scan_vectors


def identify_scans(
    embeddings: Path, other: Path | None = None, *, out: Path | None = None, allow_overlap: bool = False, seed: int = 0
) -> dict[str, Identification]:
    """Identification of unseen subjects by each embedding column, FNC and raw maps.

    Args:
        embeddings: folder with one scan of every subject, e.g. the first halves; or a table of another tool.
        other: folder with the other scans, e.g. the second halves; by default each subject's second scan in `embeddings`.
        out: JSON file to write.

    Raises:
        UserError: fewer than two unseen subjects with two scans, or `out` exists.
    """
    if out is not None and out.exists():
        raise UserError(f"{out}: exists already; name another file or delete it")
    first = open_embeddings(embeddings)
    second = open_embeddings(other) if other is not None else None
    if second is not None and second.info.get("checkpoint_sha256") != first.info.get("checkpoint_sha256"):
        raise UserError(f"{other}: embedded by another encoder than {embeddings}; embed both cohorts with the same run")
    found = {}
    for column in first.columns_of("session"):
        if not column.endswith("_projected"):
            found[column] = identify_embeddings(first, second, column=column, allow_overlap=allow_overlap, seed=seed)
    for name, kind in (("FNC", "fnc"), ("raw maps", "maps")):
        baseline = _baseline(first, second, kind, allow_overlap, seed)  # type: ignore[arg-type]
        if baseline is not None:
            found[name] = baseline
    if out is not None:
        write_text(out, json.dumps({name: asdict(value) for name, value in found.items()}, indent=1))
    return found


def render(found: dict[str, Identification]) -> str:
    """One line per representation."""
    width = max(len(name) for name in found)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in found.items())


def _baseline(
    first: Embeddings, second: Embeddings | None, kind: Kind, allow_overlap: bool, seed: int
) -> Identification | None:
    """The same comparison on untrained vectors; None where a cohort is gone or lacks the modality."""
    vectors = []
    for source, which in ((first, 0), (second or first, 0 if second is not None else 1)):
        if source.info.get("cohort") is None:
            return None
        try:
            values, table = scan_vectors(Cohort.open(source.info["cohort"]), kind)
        except UserError:
            return None
        seen = source.table("session").set_index("subject")["seen"].groupby(level=0).any()
        keep = (table.groupby("subject").cumcount() == which) & (allow_overlap | ~table["subject"].map(seen).astype(bool))
        vectors.append(dict(zip(table["subject"][keep], values[keep.to_numpy()], strict=True)))
    shared = sorted(set(vectors[0]) & set(vectors[1]))
    if len(shared) < 2:
        return None
    a, b = (np.stack([side[subject] for subject in shared]) for side in vectors)
    return identify(a, b, np.array(shared), seed=seed)
