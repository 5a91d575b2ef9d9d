"""Read the files of a run or results folder: missing ones are normal in an interrupted run, damaged ones are named."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ssl4neuro.config import read_yaml
from ssl4neuro.errors import UserError

NOTHING = ("", "n/a", "N/A", "NA", "nan", "NaN")  # in tables of numbers
NAMES = ("model", "structure", "phase", "subject", "session", "run", "view", "why", "note", "file", "animation")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file.

    Raises:
        UserError: the file is no JSON object.
    """
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid JSON ({error}); it was cut short or altered, restore it or delete it") from error
    if not isinstance(value, dict):
        raise UserError(f"{file}: holds a {type(value).__name__} where an object is needed; restore it or delete it")
    return value


def read_config(file: Path) -> dict[str, Any]:
    """The run's configuration; empty if there is none."""
    return read_yaml(file) if file.is_file() else {}


def read_log(file: Path) -> tuple[pd.DataFrame, int]:
    """Lines of log.jsonl with a step, and the number of lines that could not be read (a killed run leaves one)."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    kept, bad = [], 0
    for line in lines:
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            value = None
        if isinstance(value, dict) and isinstance(value.get("step"), int | float):
            kept.append(value)
        else:
            bad += bool(line.strip())
    return pd.DataFrame(kept, columns=list(dict.fromkeys(key for line in kept for key in line)) or ["step", "split"]), bad


def saved_contract(run: Path) -> tuple[dict[str, Any], str]:
    """Input contract of the best checkpoint, or of the last, and the checkpoint's name; empty if none was saved."""
    steps = sorted(p.parent for p in (run / "checkpoints").glob("*/contract.json"))
    if not steps:
        return {}, ""
    best = read_json(run / "checkpoints" / "best.json").get("step")
    chosen = next((p for p in steps if best is not None and p.name == f"step-{best:08d}"), steps[-1])
    return read_json(chosen / "contract.json"), chosen.name


def read_tsv(file: Path, text: Sequence[str] = ()) -> pd.DataFrame:
    """A tab-separated table, names as text and nothing where there is nothing; empty if there is no such file.

    Args:
        text: further columns that hold text, taken as it stands: a class may be called `01` or `None`.

    Raises:
        UserError: the file is no table.
    """
    if not file.is_file():
        return pd.DataFrame()
    try:
        columns = pd.read_csv(file, sep="\t", nrows=0).columns
        nothing = {name: list(NOTHING) for name in columns if name not in text}
        types = dict.fromkeys({*NAMES, *text}, str)
        table = pd.read_csv(file, sep="\t", dtype=types, na_values=nothing, keep_default_na=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise UserError(f"{file}: not a table ({told}); it was cut short or altered, restore it or delete it") from error
    return table.fillna({name: "" for name in NAMES if name in table})
