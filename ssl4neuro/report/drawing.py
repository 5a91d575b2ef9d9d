"""How figures look, and how a matplotlib canvas becomes SVG in a page or files beside it; equal bits for equal data.

No pyplot: no display, no global state.
"""

import io
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

OWN, OTHER, BASELINE, CHANCE = "#0b5fa5", "#c4622d", "#6b6b6b", "#b3261e"  # distinct in grey print by line style and marker too
SERIES = (OWN, OTHER, "#3f7d3a", "#7a4fa3", "#8a6d1d", "#357a86")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ssl4neuro",
    "text.parse_math": False,  # a network called "$x" is no formula
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
DPI = 200  # of PNG files


class Drawing(str):
    """SVG markup to put into HTML, which remembers its canvas and can therefore be saved as files for a paper."""

    canvas: Canvas

    def save(self, folder: Path, name: str) -> None:
        """Write `name.svg` (text stays text) and `name.png`."""
        (folder / f"{name}.svg").write_text(self.replace("<svg", f"<svg {NAMESPACES}", 1), encoding="utf-8")
        with mpl.rc_context(SETTINGS):
            self.canvas.set_layout_engine("none")  # it has found its layout when it became SVG
            self.canvas.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None}, facecolor="white")


def svg(canvas: Canvas) -> Drawing:
    """SVG markup to put into HTML: no XML header, no name spaces or metadata, no ids that nothing refers to."""
    buffer = io.StringIO()
    canvas.savefig(buffer, format="svg", metadata=METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")  # of nearly the same widths where it is missing
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    used = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r'\sid="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text)).strip()
    drawing = Drawing(text)
    drawing.canvas = canvas
    return drawing
