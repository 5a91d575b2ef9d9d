"""`ssl4neuro recipes list | copy`."""

from pathlib import Path

from tyro.conf import Positional

from ssl4neuro.cli.apps import app, recipes_app


@recipes_app.command(name="list")
def recipes_list() -> int:
    """The shipped recipes."""
    from ssl4neuro.shipped import recipes, summary

    for path in recipes():
        print(f"{path.stem:20} {summary(path)}")
    return 0


@recipes_app.command(name="copy")
def recipes_copy(name: Positional[str], /, *, to: Path = Path()) -> int:
    """Copy a shipped recipe to change it.

    Args:
        name: as `ssl4neuro recipes list` shows it.
        to: folder or file to copy to.
    """
    from ssl4neuro.shipped import copy

    print(copy(name, to))
    return 0


@app.command(name="recipes")
def _help() -> int:
    """Shipped recipes: recipes list | copy NAME."""
    return recipes_app.cli(args=["--help"], prog="ssl4neuro recipes")
