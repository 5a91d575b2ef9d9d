"""The folds of a study on disk, and all of them as one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ssl4neuro.atomic import write_text
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.network_state.fold import FoldScores
from ssl4neuro.evaluate.network_state.items import SCAN

SCORES, EMBEDDINGS, SCANS, RECORD = "scores.tsv", "embeddings.parquet", "scans.tsv", "fold.json"
NAMES = ("model", "subject", "session", "run", "state", "network", "site")


class Study(NamedTuple):
    """All folds and repeats; see `FoldScores`."""

    scores: pd.DataFrame
    embeddings: pd.DataFrame
    scans: pd.DataFrame
    folds: tuple[dict[str, Any], ...] = ()  # their records


def write_fold(folder: Path, found: FoldScores) -> None:
    """Write the tables of a fold; `fold.json` last, so that where it is, the others are."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SCORES, found.scores.to_csv(sep="\t", index=False))
    write_text(folder / SCANS, found.scans.to_csv(sep="\t", index=False))
    found.embeddings.to_parquet(folder / EMBEDDINGS, index=False)
    write_text(folder / RECORD, json.dumps(found.record, indent=1))


def read_fold(folder: Path) -> FoldScores:
    """What `write_fold` wrote.

    Raises:
        UserError: a file is missing or damaged.
    """
    for name in (SCORES, SCANS, EMBEDDINGS, RECORD):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing, the fold is not finished; continue the study with --resume")
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return FoldScores(
            read_scores(folder / SCORES), pd.read_parquet(folder / EMBEDDINGS), read_scores(folder / SCANS), record
        )
    except (ValueError, OSError) as error:
        told = str(error).splitlines()[0]
        raise UserError(
            f"{folder}: the tables of this fold are damaged ({told}); delete the folder and use --resume"
        ) from error


def read_scores(file: Path) -> pd.DataFrame:
    """A table of scores or scans: names as text, empty where there is none; a subject may be called `NA` or `null`."""
    columns = pd.read_csv(file, sep="\t", nrows=0).columns
    empty = {column: [""] for column in columns if column not in NAMES}
    return pd.read_csv(file, sep="\t", dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=empty)


def pool(folders: Sequence[Path]) -> Study:
    """All folds as one study.

    Raises:
        UserError: no fold, one that is not finished, or repeats that do not hold the same scans.
    """
    if not folders:
        raise UserError("study: no finished fold; continue it with --resume")
    found = [read_fold(folder) for folder in folders]
    scores, embeddings, scans = (pd.concat(tables, ignore_index=True) for tables in list(zip(*found, strict=True))[:3])
    held = scans.groupby("repeat").apply(lambda t: frozenset(map(tuple, t[SCAN].to_numpy())), include_groups=False)
    if held.nunique() > 1:
        sizes = ", ".join(f"repeat {repeat}: {len(own)}" for repeat, own in held.items())
        raise UserError(f"study: the repeats do not hold out the same scans ({sizes}); continue it with --resume")
    return Study(scores, embeddings, scans, tuple(fold.record for fold in found))
