"""One self-contained HTML page about a run or a results folder: no script, no network, figures inline."""

from ssl4neuro.report.write import write_report

__all__ = ["write_report"]
