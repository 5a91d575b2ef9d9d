"""`ssl4neuro report`."""

from pathlib import Path

from tyro.conf import Positional

from ssl4neuro.cli.apps import app


@app.command
def report(path: Positional[Path], /, *, out: Path | None = None) -> int:
    """One offline HTML page about a run or a results folder.

    Args:
        path: run or results folder.
        out: HTML file to write; report.html in the folder by default.
    """
    from ssl4neuro.report import write_report

    print(write_report(path, out))
    return 0
