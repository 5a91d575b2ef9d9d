"""Choose the kind of report, fill the template, write the page and its tables."""

import csv
import io
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ssl4neuro.atomic import write_text
from ssl4neuro.errors import UserError
from ssl4neuro.report.page import Page, Table
from ssl4neuro.report.results import results_page
from ssl4neuro.report.run import run_page
from ssl4neuro.report.segmentation import segmentation_page
from ssl4neuro.report.segmentation_run import is_segmentation

RUN_FILES = ("config.yaml", "log.jsonl", "summary.json")
OTHERS = {"cohort.json": "a prepared cohort", "embeddings.json": "embeddings", "index.json": "an index"}
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "×": r"$\times$", "±": r"$\pm$", "√": r"$\surd$",
    "\n": " ",
}  # fmt: skip


def write_report(path: str | Path, out: str | Path | None = None) -> Path:
    """Write the page, and its tables as CSV and LaTeX beside it.

    Args:
        path: run folder (`pretrain`, `finetune`), finished or not, or results folder (`probe`, `finetune`).
        out: HTML file; `report.html` in the folder by default. An older report is replaced.

    Returns:
        The HTML file.

    Raises:
        UserError: not a run or results folder, a damaged file in it, or `out` cannot be written.
    """
    path = Path(path)
    page = _page(path)
    out = path / "report.html" if out is None else Path(out)
    if out.is_dir():
        raise UserError(f"{out}: is a folder; name an HTML file, e.g. {out / 'report.html'}")
    files = {}
    for table in page.tables:
        if table.name:
            files[out.with_name(f"{out.stem}_{table.name}.csv")] = to_csv(table)
            files[out.with_name(f"{out.stem}_{table.name}.tex")] = to_latex(table)
    files[out] = to_html(page, [file.name for file in files])
    for file, text in files.items():
        write_text(file, text)
    return out


def _page(path: Path) -> Page:
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; name a run or a results folder")
    if is_segmentation(path):
        return segmentation_page(path)
    if (path / "results.json").is_file():
        return results_page(path)
    if any((path / name).is_file() for name in RUN_FILES):
        return run_page(path)
    folds = sorted(p.name for p in path.glob("fold-*") if (p / "config.yaml").is_file())
    if folds:
        raise UserError(f"{path}: holds {len(folds)} runs, one per fold; report them one by one, e.g. {path / folds[0]}")
    what = next(
        (f"this is {kind}" for name, kind in OTHERS.items() if (path / name).is_file()),
        "config.yaml and results.json are missing",
    )
    raise UserError(f"{path}: neither a run nor a results folder ({what}); name what `pretrain`, `finetune` or `probe` wrote")


def to_html(page: Page, files: list[str]) -> str:
    """The page; everything but the figures, which matplotlib has escaped, is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("template.html")
    return template.render(page=page, files=files, version=version("ssl4neuro"), inline=lambda figure: Markup(figure.svg))


def to_csv(table: Table) -> str:
    """Comma-separated values with a header; numbers are not rounded where the table has them in full."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.exact[0] if table.exact else table.columns)
    writer.writerows([row.values() for row in table.exact] if table.exact else table.rows)
    return buffer.getvalue()


def to_latex(table: Table) -> str:
    r"""A `tabular` of the booktabs package, to `\input` into a paper."""
    rows = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in (table.columns, *table.rows)]
    body = "\n".join([r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"])
    alignment = "".join("r" if _numeric(table, i) else "l" for i in range(len(table.columns)))
    return f"% needs \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{alignment}}}\n{body}\n\\end{{tabular}}\n"


def _latex(cell: Any) -> str:
    return re.sub("|".join(map(re.escape, LATEX)), lambda match: LATEX[match[0]], str(cell))


def _numeric(table: Table, column: int) -> bool:
    cells = [str(row[column]) for row in table.rows]
    return bool(cells) and all(re.fullmatch(r"[-–+]?[\d.,e+-]*", cell) for cell in cells)
