"""One self-contained HTML page about a run or a results folder: no script, no network, figures inline."""

from pathlib import Path


def report(path: str | Path, out: str | Path | None = None) -> Path:
    """Write the page, and its tables as CSV and LaTeX beside it.

    Args:
        path: run folder (`pretrain`), finished or not, or results folder (`probe`, `identify`).
        out: HTML file; `report.html` in the folder by default. An older report is replaced.

    Returns:
        The HTML file.

    Raises:
        UserError: not a run or results folder, a damaged file in it, or `out` cannot be written.
    """
    from ssl4neuro.report.write import write_report

    return write_report(Path(path), None if out is None else Path(out))
