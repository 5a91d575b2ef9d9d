"""What a result was made with: the command line that can be repeated, and the versions of what computed it."""

import platform
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

PACKAGES = ("ssl4neuro", "numpy", "scipy", "pandas", "scikit-learn", "nilearn", "torch")
PROGRAMS = {"ssl4neuro": "ssl4neuro", "__main__.py": "ssl4neuro"}
SCRIPTS = ("pretrain.py", "finetune.py", "linear.py", "knn.py", "retrieval.py")  # of recipes and probes


def environment() -> dict[str, Any]:
    """Command line and versions for the record of a result; no host, user or folder names."""
    return {
        "command": command_line(sys.argv),
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def command_line(words: Sequence[str]) -> str | None:
    """One of our commands as it was given, every path by its last name; None for a notebook or another program."""
    name = PurePath(words[0]).name.removesuffix(".exe") if words else ""
    if name not in PROGRAMS and name not in SCRIPTS:
        return None
    program = PROGRAMS.get(name, f"python {name}")
    return " ".join([program, *(shlex.quote(_last_names(word)) for word in words[1:])])


def _last_names(word: str) -> str:
    """`--out=/home/ann/new` becomes `--out=new`; a path says where a hospital keeps its data."""
    return re.sub(r"[^=,]*[/\\]+[^=,]*", lambda match: PurePath(match[0].replace("\\", "/")).name, word)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
