"""Choose the kind of report, fill the template, write the page and its tables."""

import csv
import io
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ssl4neuro.atomic import new_folder, write_text
from ssl4neuro.errors import UserError
from ssl4neuro.report import targets
from ssl4neuro.report.card import model_card
from ssl4neuro.report.drawing import Drawing
from ssl4neuro.report.folder import read_config, read_json
from ssl4neuro.report.page import Page, Table
from ssl4neuro.report.results import results_page
from ssl4neuro.report.run import run_page
from ssl4neuro.report.segmentation import segmentation_page
from ssl4neuro.report.segmentation_run import is_segmentation

RUN_FILES = ("config.yaml", "log.jsonl", "summary.json")
STUDY = "ssl4neuro network state"
OTHERS = {"cohort.json": "a prepared cohort", "embeddings.json": "embeddings", "index.json": "an index"}
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "×": r"$\times$", "±": r"$\pm$", "√": r"$\surd$",
    "−": "$-$", "²": r"\textsuperscript{2}", "✓": r"$\checkmark$", "✗": r"$\times$",
    "\n": " ",
}  # fmt: skip


def write_report(path: str | Path, out: str | Path | None = None, *, results: Sequence[str | Path] = ()) -> Path:
    """Write the page, its tables as CSV and LaTeX and its figures as SVG and PNG beside it, and the model card of a run.

    Args:
        path: run folder (`pretrain`, `finetune`), finished or not, or results folder (`probe`, `finetune`).
        out: HTML file; `report.html` in the folder by default. An older report is replaced.
        results: results folders whose numbers belong into the model card of a run.

    Returns:
        The HTML file.

    Raises:
        UserError: not a run or results folder, a damaged file in it, or `out` cannot be written.
    """
    path = Path(path)
    page = _page(path)
    card = model_card(path, [Path(folder) for folder in results])
    out = path / "report.html" if out is None else Path(out)
    if out.is_dir():
        raise UserError(f"{out}: is a folder; name an HTML file, e.g. {out / 'report.html'}")
    files = {}
    for table in page.tables:
        if table.name:
            files[out.with_name(f"{out.stem}_{table.name}.csv")] = to_csv(table)
            files[out.with_name(f"{out.stem}_{table.name}.tex")] = to_latex(table)
    if card:
        files[out.with_name("model_card.md")] = card
    beside = [file.name for file in files]
    beside += [folder.name + "/"] if (folder := _write_figures(page, out)) else []
    files[out] = to_html(page, beside)
    for file, text in files.items():
        write_text(file, text)
    return out


def _write_figures(page: Page, out: Path) -> Path | None:
    """Every figure that was drawn here as SVG and PNG; the folder, if there is any."""
    drawings = [(figure.title, figure.svg) for figure in page.figures if isinstance(figure.svg, Drawing)]
    if not drawings:
        return None
    with new_folder(out.with_name(f"{out.stem}_figures"), replace=True) as folder:
        for i, (title, drawing) in enumerate(drawings):
            name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "figure"
            drawing.save(folder, f"{i + 1:02d}-{name}")
    return out.with_name(f"{out.stem}_figures")


def _page(path: Path) -> Page:
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; name a run or a results folder")
    if is_segmentation(path):
        return segmentation_page(path)
    if _is_study(path):
        from ssl4neuro.report.network_state import network_state_page  # brings torch, which a report has no need of

        return network_state_page(path)
    if (path / targets.INDEX).is_file():
        return targets.targets_page(path)
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


def _is_study(path: Path) -> bool:
    """Whether it is a network-state study, by its results, or by its recipe where it is unfinished."""
    if read_config(path / "config.yaml").get("task") == "network_state":
        return True
    return any(read_json(folder / "results.json").get("format") == STUDY for folder in (path, path / "results"))


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
    return bool(cells) and all(re.fullmatch(r"[-−–+]?[\d.,e+-]*", cell) for cell in cells)
