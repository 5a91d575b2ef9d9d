"""Feature vectors in the files of other tools: which columns are an embedding, and which describe the row.

An embedding is a list column (parquet), a 2-D array (npz), or numeric columns with a common prefix and consecutive numbers
from 0 or 1 (`emb_0 ... emb_255`, `feature_1 ...`, plain `0 ... 255`). A 3-D array [rows, tokens, dim] is one row per token.
"""

import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from ssl4neuro.errors import UserError
from ssl4neuro.registry import suggest

NUMBERED = re.compile(r"(.*?)(\d+)")
SUFFIXES = (".parquet", ".csv", ".tsv", ".npz")
SHOWN = 8  # names that a message lists


class FeatureFile(NamedTuple):
    """What a file holds, line by line."""

    rows: pd.DataFrame  # all that is no feature
    vectors: dict[str, Float[np.ndarray, "rows dim"]]
    told: dict[str, str]  # embedding -> the columns or the array that it was taken from


def read_features(path: Path, features: Sequence[str] = (), text: Sequence[str] = ()) -> FeatureFile:
    """Read a parquet, CSV, TSV or npz file of feature vectors.

    Args:
        features: list columns, arrays or prefixes of numeric columns to take, one embedding each; otherwise all that there are.
        text: columns to keep as text wherever they are (`007` is not 7).

    Raises:
        UserError: unreadable, of another kind, no or ambiguous features, lists of different lengths, or text among the numbers.
    """
    kind = _suffix(path)
    if kind == ".npz":
        return _from_arrays(path, features)
    lists: dict[str, np.ndarray] = {}
    if kind == ".parquet":
        rows, lists = _read_parquet(path)
    else:
        rows = _read_text(path, "," if kind == ".csv" else "\t", text)
    groups = _groups(rows)
    if not features and lists and groups:
        raise UserError(
            f"{path}: both {_list(lists)} and {_list(_span(g) for g in groups.values())} could be the features; {_ASK}"
        )
    if not features and not lists and not groups:
        raise UserError(
            f"{path}: no features found (columns {_list(rows.columns)}); number them (emb_0, emb_1, ...), or name the prefix of"
            " the numeric columns with --features"
        )
    wanted = {name: name for name in lists} | {_plain(prefix): prefix for prefix in groups}
    if features:
        wanted = {_plain(name) if name not in lists else name: name for name in features}
    vectors, told, used = {}, {}, set()
    for name, source in wanted.items():
        columns = groups.get(source) or ([] if source in lists else _prefixed(rows, source, text))
        if source not in lists and not columns:
            raise UserError(f"{path}: --features {source}: no list column and no numeric columns of that name or prefix"
                            f"{suggest(source, [*lists, *groups])}")  # fmt: skip
        vectors[name] = lists[source] if source in lists else _numbers(path, rows, columns)
        told[name] = f"column {source}" if source in lists else _span(columns)
        used |= set(columns)
    return FeatureFile(rows.drop(columns=[c for c in rows if c in used]), *_distinct(vectors, told, set(rows.columns) - used))


def _suffix(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES or (name != path.name and suffix not in (".csv", ".tsv")):
        raise UserError(f"{path}: not a table of embeddings that can be read; save it as parquet, csv, tsv or npz")
    return suffix


def _read_text(path: Path, separator: str, text: Sequence[str]) -> pd.DataFrame:
    try:
        header = pd.read_csv(path, sep=separator, nrows=0, encoding="utf-8-sig").columns
        as_text = {c: str for c in header if str(c).strip() in text}
        rows = pd.read_csv(path, sep=separator, dtype=as_text, encoding="utf-8-sig", index_col=False, low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path}: not a readable table ({str(error).splitlines()[0]}); save it as tab-separated text"
        ) from error
    rows.columns = [str(c).strip() for c in rows.columns]
    if len(rows.columns) == 1:
        raise UserError(
            f"{path}: only one column ({rows.columns[0][:60]}); a .csv needs commas between its columns, a .tsv tabs"
        )
    return rows


def _read_parquet(path: Path) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]}); write it again") from error
    lists = {}
    for field in table.schema:
        nested = pa.types.is_list(field.type) or pa.types.is_large_list(field.type) or pa.types.is_fixed_size_list(field.type)
        if nested and _is_number(field.type.value_type):
            lists[field.name] = _stack(path, field.name, table[field.name])
    nested = [
        field.name for field in table.schema if pa.types.is_nested(field.type)
    ]  # lists of words and the like are no labels
    rows = table.drop_columns(nested).to_pandas()
    if not isinstance(rows.index, pd.RangeIndex):
        rows = rows.reset_index()
    rows.columns = [str(c) for c in rows.columns]
    return rows, lists


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _stack(path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks()
    lengths = array.value_lengths().to_numpy(zero_copy_only=False)
    if array.null_count or len(np.unique(lengths)) != 1:
        found = "missing in some rows" if array.null_count else f"of {int(lengths.min())} to {int(lengths.max())} numbers"
        raise UserError(f"{path}: the lists in '{name}' are {found}; every row needs a vector of the same length")
    return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1)


def _groups(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Prefix -> its columns in the order of their numbers, for prefixes that are numbered without a gap from 0 or 1."""
    found: dict[str, dict[int, str]] = {}
    for name in rows.columns:
        match = NUMBERED.fullmatch(name)
        if match:
            found.setdefault(match[1], {})[int(match[2])] = name
    groups = {}
    for prefix, members in found.items():
        numbers = sorted(members)
        columns = [members[n] for n in numbers]
        whole = len(numbers) > 1 and numbers[0] in (0, 1) and numbers[-1] - numbers[0] == len(numbers) - 1
        if whole and any(_numeric(rows[c]) for c in columns):
            groups[prefix] = columns
    return groups


def _prefixed(rows: pd.DataFrame, prefix: str, text: Sequence[str]) -> list[str]:
    """Numeric columns that begin so: by number where all have one, else as they stand."""
    columns = [c for c in map(str, rows) if c.startswith(prefix) and c not in text and _numeric(rows[c])]
    matches = [re.fullmatch(r"\d+", c[len(prefix) :]) for c in columns]
    return sorted(columns, key=lambda c: int(c[len(prefix) :])) if matches and all(matches) else columns


def _numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _numbers(path: Path, rows: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    for name in columns:
        if not _numeric(rows[name]):
            example = rows[name].dropna().astype(str).head(1).tolist()
            raise UserError(
                f"{path}: the feature column '{name}' holds text ({', '.join(example)}); every feature must be a number"
            )
    return rows[list(columns)].to_numpy(dtype=np.float64, na_value=np.nan)


def _from_arrays(path: Path, features: Sequence[str]) -> FeatureFile:
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise UserError(
                    f"{path}: holds a single array; save it with the subjects, np.savez(path, embeddings=..., subject=...)"
                )
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a readable npz file ({error}); write it again") from error
    except ValueError as error:
        raise UserError(
            f"{path}: holds Python objects, which could run code when read; save names as text (array.astype(str))"
        ) from error
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: not a readable npz file ({str(error).splitlines()[0]}); write it again") from error
    flat = {name: a for name, a in arrays.items() if a.ndim == 1}
    deep = {
        n: a for n, a in arrays.items() if a.ndim in (2, 3) and np.issubdtype(a.dtype, np.number) and not np.iscomplexobj(a)
    }
    wanted = list(features) or list(deep)
    for name in wanted:
        if name not in deep:
            raise UserError(f"{path}: --features {name}: no 2-D or 3-D array of numbers{suggest(name, deep)}")
    shapes = _list(f"{name} {'×'.join(map(str, a.shape))}" for name, a in arrays.items())
    lengths = {len(deep[name]) for name in wanted}
    if len(lengths) != 1 or not (rows := {n: a for n, a in flat.items() if len(a) in lengths}):
        raise UserError(
            f"{path}: needs 2-D arrays of features with one line per row and a 1-D array 'subject' of that length (it holds"
            f" {shapes}); save it so, or choose arrays with --features"
        )
    table = pd.DataFrame({name: np.char.decode(a) if a.dtype.kind == "S" else a for name, a in rows.items()})
    return _tokens_as_rows(
        path, FeatureFile(table, *_distinct({n: deep[n] for n in wanted}, {n: f"array {n}" for n in wanted}, set(rows)))
    )


def _tokens_as_rows(path: Path, found: FeatureFile) -> FeatureFile:
    """Arrays [rows, tokens, dim] become a row per token that is there (not all NaN), numbered in a column `token`."""
    counts = {a.shape[1] if a.ndim == 3 else 0 for a in found.vectors.values()}
    if counts == {0}:
        return found
    if len(counts) > 1:
        raise UserError(
            f"{path}: arrays of tokens and of whole rows together; choose some of {_list(found.vectors)} with --features"
        )
    tokens = counts.pop()
    rows = found.rows.loc[found.rows.index.repeat(tokens)].reset_index(drop=True)
    rows["token"] = np.tile(np.arange(tokens), len(found.rows))
    vectors = {name: a.reshape(-1, a.shape[2]) for name, a in found.vectors.items()}
    there = np.any([~np.isnan(a).all(1) for a in vectors.values()], axis=0)
    told = {name: f"{text}, {tokens} tokens per row" for name, text in found.told.items()}
    return FeatureFile(rows[there].reset_index(drop=True), {name: a[there] for name, a in vectors.items()}, told)


def _distinct(
    vectors: dict[str, np.ndarray], told: dict[str, str], others: set[str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Embeddings under names that no other column has."""
    names = {name: f"{name} features" if name in others else name for name in vectors}
    return {names[n]: a for n, a in vectors.items()}, {names[n]: text for n, text in told.items()}


def _plain(prefix: str) -> str:
    return prefix.rstrip("_-. ") or "embedding"


def _span(columns: Sequence[str]) -> str:
    return f"columns {columns[0]} to {columns[-1]}"


def _list(names: object) -> str:
    found = [str(name) for name in names]  # type: ignore[attr-defined]
    return ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")


_ASK = "choose with --features"
