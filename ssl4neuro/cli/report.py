"""`ssl4neuro report`."""

from pathlib import Path

from tyro.conf import Positional

from ssl4neuro.cli.apps import app


@app.command
def report(path: Positional[Path], /, *, out: Path | None = None, results: tuple[str, ...] = ()) -> int:
    """One offline HTML page about a run or a results folder, its tables and figures as files, and a run's model card.

    Args:
        path: run or results folder.
        out: HTML file to write; report.html in the folder by default.
        results: results folders to report in the model card of a run, separated by commas or spaces.
    """
    from ssl4neuro.report import write_report

    folders = [folder for words in results for folder in words.split(",") if folder]
    print(write_report(path, out, results=folders))
    return 0
