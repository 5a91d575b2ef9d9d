"""Read files that may be cut short, altered or hostile: hashes first, sizes bounded, nothing executed."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ssl4neuro.errors import UserError
from ssl4neuro.manifest import file_sha256

MAX_JSON_BYTES = 256 << 20  # nothing that the library writes comes near it


class Bad(Exception):
    """A file cannot be used; the text names it and says what is wrong with it, on one line."""


def verify(folder: Path, record: Any, required: Collection[str], allowed: Collection[str]) -> dict[str, str]:
    """Hash (sha256, hex) of every file that `record` lists as {name: {"sha256", "bytes"}}, compared with the file itself.

    Raises:
        Bad: a file is missing, cut short or altered, or the list is not one of this kind of folder.
    """
    if not isinstance(record, dict) or not set(required) <= set(record):
        raise Bad(f"{folder}: its list of files is incomplete")
    if not set(record) <= set(allowed):
        raise Bad(f"{folder}: its list of files names some that do not belong there")  # `../..` among them
    hashes = {}
    for name, expected in record.items():
        file = folder / name
        if not isinstance(expected, dict) or not isinstance(expected.get("sha256"), str):
            raise Bad(f"{file}: no hash was stored for it")
        if not file.is_file():  # also a pipe, which would never end
            raise Bad(f"{file}: missing")
        size = file.stat().st_size
        if size != expected.get("bytes"):
            raise Bad(f"{file}: cut short or altered ({size} bytes instead of {str(expected.get('bytes'))[:20]})")
        try:
            hashes[name] = file_sha256(file)
        except UserError as error:
            raise Bad(str(error).split(";")[0]) from error
        if hashes[name] != expected["sha256"]:
            raise Bad(f"{file}: altered since it was written (another sha256)")
    return hashes


def read_json(file: Path) -> Any:
    """Content of a JSON file. Raises Bad."""
    try:
        if not file.is_file():
            raise Bad(f"{file}: missing")
        if file.stat().st_size > MAX_JSON_BYTES:
            raise Bad(f"{file}: larger than anything that belongs there")
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Bad(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # also numbers with too many digits
        raise Bad(f"{file}: not valid JSON ({str(error)[:80]})") from error


def read_object(file: Path) -> dict[str, Any]:
    """Content of a JSON file that holds an object. Raises Bad."""
    found = read_json(file)
    if not isinstance(found, dict):
        raise Bad(f"{file}: not a JSON object")
    return found


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, on the CPU. Raises Bad."""
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, OverflowError, MemoryError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise Bad(f"{file}: not valid safetensors ({first})") from error
