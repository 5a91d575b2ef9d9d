"""The recipes that come with the library: in the wheel beside the package, in a checkout at the project's root."""

import shutil
from pathlib import Path

from ssl4neuro.errors import UserError
from ssl4neuro.registry import suggest

PACKAGE = Path(__file__).resolve().parent


def folder() -> Path:
    """Where the YAML recipes lie."""
    for candidate in (PACKAGE / "recipes", PACKAGE.parent / "recipes"):
        if (candidate / "rest_ica.yaml").is_file():
            return candidate
    raise UserError(f"{PACKAGE}: the shipped recipes are missing; install ssl4neuro again")


def recipes() -> list[Path]:
    """All shipped recipes, by name."""
    return sorted(folder().glob("*.yaml"))


def finetuning(recipe: Path) -> bool:
    """Whether a recipe is one of `finetune`: it trains a head, or names a task."""
    return any(line.startswith(("head:", "task:")) for line in recipe.read_text(encoding="utf-8").splitlines())


def summary(recipe: Path) -> str:
    """First sentence of the comment that a recipe begins with."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    comment = " ".join(
        line.lstrip("# ") for line in lines[: next((i for i, x in enumerate(lines) if not x.startswith("#")), 0)]
    )
    return comment.split(". ")[0].rstrip(".")


def find_recipe(name: str) -> Path:
    """A path to a YAML file, or the name of a shipped recipe.

    Raises:
        UserError: neither exists.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise UserError(f"{path}: no such recipe; `ssl4neuro recipes list` shows the shipped ones")
        return path
    names = {recipe.stem: recipe for recipe in recipes()}
    if name not in names:
        raise UserError(f"recipe '{name}': not a YAML file and not a shipped recipe{suggest(name, names)}")
    return names[name]


def copy(name: str, to: Path) -> Path:
    """Copy a shipped recipe into a folder or to a file; an existing file stays."""
    source = find_recipe(name)
    target = to / source.name if to.is_dir() else to
    if target.exists():
        raise UserError(f"{target}: exists already; name another file with --to")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target
